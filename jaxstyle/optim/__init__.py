"""Optimization of the image: optimizers, parametrizations and the loop.

Read `loop` first: `State`, `init_state` and `run_steps`, which scans over optimization steps. `optimizers` defines the
optimizers and their options (`LBFGS`, `Adam`, `Optax`), and `lbfgs` the steps of L-BFGS without a line search.
`parametrizations` represents the image by arrays, and `early_stopping` ends a run before its last step.
"""

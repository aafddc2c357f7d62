"""How the image changes: optimizers, parametrizations and the loop.

Read `loop` first: `State`, `init_state` and `run_steps`, which scans over optimization steps. `optimizers` are the
optimizers with their options (`LBFGS`, `Adam`, `Optax`), `lbfgs` has the steps of L-BFGS without a line search,
`parametrizations` are the arrays that represent the image, and `early_stopping` decides when a run ends before its last
step.
"""

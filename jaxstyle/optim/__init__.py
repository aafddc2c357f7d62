"""How the image changes: optimizers, parametrizations and the loop.

Read `loop` first: `State`, `init` and `run`, which scans over optimization steps. `optimizers` builds the gradient
transformation (Adam or a user-defined one), `lbfgs` is L-BFGS without a line search, `parametrizations` are the arrays
that represent the image, and `early_stopping` decides when a run ends before its last step.
"""

"""The host loop around the numerical program: memory, checkpoints, records, caches and files.

Read `problem` first (arrays and options of one run, and the compiled program of each scale), then `runner`, which
iterates over scales and segments of a few steps. `memory` decides on row chunks and tiles, `placement` on devices.
`record` describes the inputs and options of a run, as JSON by way of `plain_data`; `checkpoint` saves and restores
arrays in a folder that `checkpoint_folder` checks, and `resume` resumes a run. `outputs` are the other files of a run,
`callbacks` the interfaces of progress bars and messages, and `estimate` predicts operations and time.

`sweep_grid`, `sweep_job` and `sweep_report` are for sweeps: combinations of settings, the pictures of one batch, and
the page that shows all of them. `batch` records the finished pictures of `jaxstyle batch`. `style_cache` caches style
statistics, and `compile_cache` compiled programs.

Nothing here prints, parses arguments or handles signals.
"""

"""The host loop around the numerical program, and what it needs: memory, checkpoints, records, caches, files.

Read `problem` first (arrays and options of one run, and the compiled program of each scale), then `runner`, which goes
through the scales a few steps at a time. `memory` decides how finely a scale is divided, `placement` which devices
share the work. `record` describes what a picture was made from, as JSON by way of `plain_data`; `checkpoint` saves and
restores arrays in a folder that `checkpoint_folder` checks, and `resume` a whole run. `outputs` are the other files of
a run, `callbacks` the interfaces of progress bars and messages, `estimate` predicts operations and time.

`sweep_grid`, `sweep_job` and `sweep_report` are sweeps: combinations of settings, the pictures of one batch, and the
page that shows all of them. `batch` remembers which pictures of a batch are finished. `style_cache` keeps the
statistics of styles, `compile_cache` compiled programs.

Nothing here prints, parses arguments or handles signals.
"""

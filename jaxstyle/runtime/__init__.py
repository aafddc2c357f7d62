"""What surrounds the numerical program of a run: caches, checkpoints and records.

`record` describes what a picture was made from, as JSON by way of `plain_data`. `checkpoint` saves and restores the
state of a run in a folder that `checkpoint_folder` checks. `compile_cache` keeps compiled programs on disk.
"""

"""The method as a whole: style transfer from coarse to fine, texture synthesis and reconstruction.

Read `stylize` first; it calls `schedule` (image sizes and steps of each scale), `resize` (from one scale to the next)
and `color` (color preservation). `sweep` runs many weights, seeds and pictures as one batch. `presets` holds published
conventions as data.
"""

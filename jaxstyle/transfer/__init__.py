"""Methods: coarse-to-fine style transfer, texture synthesis and reconstruction.

Read `stylize` first; it calls `schedule` (image sizes and steps of each scale), `scale` (`Transfer`, the parts of each scale),
`resize` (from one scale to the next) and `color` (color preservation). `sweep` runs many weights, seeds and images as
one batch. `presets` are published objectives as data. `oklab` transfers the colors of the style.
"""

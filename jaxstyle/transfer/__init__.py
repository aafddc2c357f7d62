"""Methods: coarse-to-fine style transfer, texture synthesis and reconstruction.

Read `stylize` first; it runs the scales of a `Transfer` of `scale` in order, with the sizes and steps of `schedule`,
`resize` (from one scale to the next) and `color` (color preservation). `sweep` runs many weights, seeds and images as
one batch. `presets` are published objectives as data. `oklab` transfers the colors of the style.
"""

"""From activations to numbers: the terms of the objective.

Read `pixel` (squared distance, total variation, range penalty), `moments` (Gram matrices and other statistics) and
`wasserstein` first, then `style`, which selects a statistic by name. `masks` restricts styles to regions. `targets`
computes the optimization targets of content and styles, and `objective` the terms and their weighted sum.
`layer_summaries` and `tiling` compute sums over the pixels of a layer from the whole image, from row chunks or from
tiles. `statistics_io` saves and loads the statistics of styles.
"""

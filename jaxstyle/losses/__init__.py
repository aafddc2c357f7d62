"""Losses: the objective and its terms, computed from activations.

Read `pixel` (squared distance, total variation, range penalty), `moments` (means over pixels) and `wasserstein` first,
then `style` (Gram matrices and other statistics). `masks` restricts styles to regions. `targets` computes the
optimization targets of content and styles, `objective` has the weights and options, and `loss_terms` the terms and
`objective_value`, the function that every run minimizes. `layer_summaries` and `tiling` compute sums over the
pixels of a layer from the full image, from row chunks or from tiles. `statistics_io` saves and loads the statistics of
styles. `neighbors` (nearest-neighbor matching) and `relaxed_emd` are losses on sets of feature vectors, and
`neighbor_objective` and `relaxed_emd_objective` are the objectives of NNST and STROTSS that use them.
"""

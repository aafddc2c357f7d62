"""Networks, which compute the activations of an image.

Read `vgg` first: preprocessing, the layer table and the Linen module `VGG19`. `conv` and `winograd` implement its 3x3
convolution, and `row_remat` computes a few layers in row chunks and recomputes them for the gradient. `weights_io`
reads and writes files of weights, with `hdf5`, `safetensors_io` and `state_dict` (names of PyTorch's layers).
`pretrained` finds, downloads and loads weights, and `random_init` draws random ones.
"""

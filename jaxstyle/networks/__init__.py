"""From an image to activations: VGG-19 and what it is made of.

Read `vgg` first: preprocessing, the layer table and the Linen module `VGG19`. `conv` and `winograd` are its 3x3
convolution, `row_remat` computes a few layers in chunks of rows and computes them again for the gradient, and
`user_network` puts a user-defined function in VGG-19's place. `weights_io` reads and writes HDF5 files of weights,
`pretrained` finds, downloads and loads them, and `random_init` draws random weights.
"""

"""Random initialization of VGG-19, for tests, timing and comparison.

Random features respond to colors, edges and scales, but not to objects; Ustyuzhaninov et al., arXiv:1606.00021,
synthesize textures with them.
"""

import itertools
import math
from typing import Any

import jax
import numpy as np

from jaxstyle.networks.vgg import BLOCK_WIDTHS, Params, Widths, conv_names


def random_params(*, widths: Widths = BLOCK_WIDTHS, seed: int = 0) -> Params:
    """Draw a network with orthogonal kernels, which keep the energy of activations about constant with depth.

    A kernel, as a matrix `[9 * in, out]`, has orthogonal columns of squared length 2, which compensates for the half
    that ReLU removes (He et al., arXiv:1502.01852); orthogonal rows if it is wider than high. Biases are zero.

    Args:
        widths: channels of each convolution, block by block.
        seed: equal seeds give equal networks, in float32.

    Example:
        >>> random_params(widths=((4, 4), (4, 4), (4,) * 4, (4,) * 4, (4,) * 4))["conv2_1"]["kernel"].shape
        (3, 3, 4, 4)
    """
    rng, channels, params = np.random.default_rng(seed), 3, {}
    for name, out in zip(conv_names(widths), itertools.chain(*widths), strict=True):
        tall = rng.standard_normal(sorted((9 * channels, out), reverse=True), np.float32)
        # Orthogonal columns by Cholesky: those of QR, up to signs, in a tenth of the time.
        matrix = tall @ np.linalg.inv(np.linalg.cholesky(tall.T @ tall)).T
        if 9 * channels < out:
            matrix = matrix.T
        kernel = matrix.reshape(3, 3, channels, out) * math.sqrt(2 * max(1, out / (9 * channels)))
        params[name] = {"kernel": np.asarray(kernel, np.float32), "bias": np.zeros(out, np.float32)}
        channels = out
    return jax.device_put(params)


def param_shapes(*, widths: Widths = BLOCK_WIDTHS) -> Any:
    """Return the pytree of `random_params` with a `jax.ShapeDtypeStruct` for each array."""
    params, channels = {}, 3
    for name, out in zip(conv_names(widths), itertools.chain(*widths), strict=True):
        shapes = {"kernel": (3, 3, channels, out), "bias": (out,)}
        params[name] = {part: jax.ShapeDtypeStruct(shape, np.float32) for part, shape in shapes.items()}
        channels = out
    return params

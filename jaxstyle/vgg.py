"""VGG-19 as a pure Flax (Linen) module that returns every activation by name.

The only place that knows what the network wants to see: BGR, 0..255, ImageNet's mean colour subtracted. Images are
float32 sRGB in [0, 1], channels last.

Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, arXiv:1409.1556.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxstyle.conv import conv3x3
from jaxstyle.errors import InputError

Params = Mapping[str, Mapping[str, jax.Array]]
Pooling = Literal["max", "avg"]
Widths = tuple[tuple[int, ...], ...]

MEAN_BGR = (103.939, 116.779, 123.68)  # ImageNet's mean colour, from the Caffe release of VGG
BLOCK_WIDTHS: Widths = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
CONV_LAYERS = tuple(f"conv{b}_{i}" for b, block in enumerate(BLOCK_WIDTHS, 1) for i in range(1, len(block) + 1))
ACTIVATIONS = tuple(kind + name[4:] for name in CONV_LAYERS for kind in ("conv", "relu"))


class VGG(nn.Module):
    """The sixteen convolutions of VGG-19, of any widths, without its fully connected layers.

    Attributes:
        widths: channels of each convolution, block by block.
        pooling: "max", or "avg" for the plain 2x2 mean.
        conv: the convolution, called as Linen's Conv calls `jax.lax.conv_general_dilated`.
    """

    widths: Widths = BLOCK_WIDTHS
    pooling: Pooling = "max"
    conv: Callable[..., jax.Array] = conv3x3

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return every activation of `image`, before (conv) and after (relu) its ReLU."""
        join = _larger if self.pooling == "max" else lambda a, b: (a + b) / 2
        image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
        x = 255.0 * image[..., ::-1] - jnp.broadcast_to(jnp.asarray(MEAN_BGR, image.dtype), image.shape)
        activations = {}
        for b, block in enumerate(self.widths, 1):
            if b > 1:
                if min(x.shape[-3:-1]) < 2:
                    break  # nothing is left to pool; the deeper layers have no pixels
                x = _halve(x, join)
            for i, width in enumerate(block, 1):
                x = nn.Conv(width, (3, 3), conv_general_dilated=self.conv, name=f"conv{b}_{i}")(x)
                activations[f"conv{b}_{i}"] = x
                x = nn.relu(x)
                activations[f"relu{b}_{i}"] = x
        return activations


def _halve(x: jax.Array, join: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """Return `x`, `[..., H, W, C]`, with 2x2 pixels joined into one; an odd last row or column is dropped.

    Linen's pools give the same, but the gradient of its max_pool takes ten times as long on the CPU.
    """
    height, width = x.shape[-3] // 2 * 2, x.shape[-2] // 2 * 2
    rows = join(x[..., 0:width:2, :], x[..., 1:width:2, :])
    return join(rows[..., 0:height:2, :, :], rows[..., 1:height:2, :, :])


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the maximum; where both are equal, all of the gradient goes to `a`, as other frameworks have it."""
    return jnp.where(a >= b, a, b)


def widths_of(params: Params) -> Widths:
    """Read the channels of every convolution off `params`, so that narrower networks need no flag.

    Args:
        params: the network.

    Returns:
        The widths, block by block.

    Example:
        >>> widths_of(params)[0]  # doctest: +SKIP
        (64, 64)
    """
    return tuple(
        tuple(int(params[f"conv{b}_{i}"]["kernel"].shape[-1]) for i in range(1, len(block) + 1))
        for b, block in enumerate(BLOCK_WIDTHS, 1)
    )


def smallest_side(layer: str) -> int:
    """Return the shortest image side at which `layer` still has a pixel.

    Args:
        layer: the name of an activation.

    Returns:
        Pixels.

    Raises:
        InputError: if there is no such layer.

    Example:
        >>> smallest_side("relu5_1")
        16
    """
    if layer not in ACTIVATIONS:
        raise InputError(
            f"{layer!r} is not a layer of VGG-19: choose from conv1_1 (before its ReLU) and relu1_1 (after) to relu5_4."
        )
    return 2 ** (int(layer[4]) - 1)


def features(
    params: Params,
    image: jax.Array,
    *,
    pooling: Pooling = "max",
    conv: Callable[..., jax.Array] = conv3x3,
) -> dict[str, jax.Array]:
    """Return every activation of VGG-19 by name; under `jit` those that nobody reads cost nothing.

    Args:
        params: the network, `{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ...}`.
        image: `[H, W, 3]` or `[N, H, W, 3]`, sRGB in [0, 1].
        pooling: "max" (as trained) or "avg", the plain 2x2 mean that Gatys et al. propose. A mean is at most the
            maximum, and no gain makes up for it: on three photographs and paintings of 256 pixels the root mean square
            of activations fell to 0.74-0.80 of that with "max" at relu2_1, 0.51-0.55 at relu3_1, 0.38-0.41 at relu4_1
            and 0.18-0.20 at relu5_1.
        conv: the convolution, called as `jax.lax.conv_general_dilated` would be; that function itself will do.

    Returns:
        `{"conv1_1": [..., H, W, 64], "relu1_1": ..., "relu5_4": [..., H // 16, W // 16, 512]}`, in 0..255 input units;
        layers at which a small image has no pixels are left out.

    Raises:
        InputError: if `pooling` is neither "max" nor "avg".

    Example:
        >>> features(load_params("vgg19"), image)["relu4_2"].shape  # doctest: +SKIP
        (32, 32, 512)
    """
    if pooling not in ("max", "avg"):
        raise InputError(f"Pooling {pooling!r} is unknown: use 'max' or 'avg'.")
    return VGG(widths_of(params), pooling, conv).apply({"params": params}, image)  # pyright: ignore[reportReturnType]

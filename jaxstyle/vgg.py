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

from jaxstyle import winograd
from jaxstyle.conv import conv3x3
from jaxstyle.errors import InputError

Params = Mapping[str, Mapping[str, jax.Array]]
Pooling = Literal["max", "avg", "l2"]
Border = Literal["zeros", "replicate", "circular"]
Widths = tuple[tuple[int, ...], ...]

WHITE = 255.0  # of the network's input
MEAN_BGR = (103.939, 116.779, 123.68)  # ImageNet's mean colour, from the Caffe release of VGG
BLOCK_WIDTHS: Widths = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
WINOGRAD_FROM = (128, 256)  # channels, on the narrower and on the wider side of a convolution
CONV_LAYERS = tuple(f"conv{b}_{i}" for b, block in enumerate(BLOCK_WIDTHS, 1) for i in range(1, len(block) + 1))
ACTIVATIONS = tuple(kind + name[4:] for name in CONV_LAYERS for kind in ("conv", "relu"))


class VGG(nn.Module):
    """The sixteen convolutions of VGG-19, of any widths, without its fully connected layers.

    Attributes:
        widths: channels of each convolution, block by block.
        pooling: "max", "avg" for the plain 2x2 mean, or "l2" for the root of the sum of squares.
        pooling_gain: what each pooled layer is multiplied by.
        border: what the convolutions see outside the image: see `features`.
        white: what 1 becomes in the network's units.
        conv: the convolution, called as Linen's Conv calls `jax.lax.conv_general_dilated`.
        prepared: layers whose kernels are in Winograd's domain.
    """

    widths: Widths = BLOCK_WIDTHS
    pooling: Pooling = "max"
    pooling_gain: float = 1.0
    border: Border = "zeros"
    white: float = WHITE
    conv: Callable[..., jax.Array] = conv3x3
    prepared: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return every activation of `image`, before (conv) and after (relu) its ReLU."""
        join = {"max": _larger, "avg": lambda a, b: (a + b) / 2, "l2": _norm}[self.pooling]
        image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
        x = self.white * image[..., ::-1] - jnp.broadcast_to(jnp.asarray(MEAN_BGR, image.dtype), image.shape)
        activations = {}
        for b, block in enumerate(self.widths, 1):
            if b > 1:
                if min(x.shape[-3:-1]) < 2:
                    break  # nothing is left to pool; the deeper layers have no pixels
                x = _halve(x, join)
                x = self.pooling_gain * x if self.pooling_gain != 1 else x
            for i, width in enumerate(block, 1):
                around = self.border == "circular" or (b == i == 1 and self.border == "replicate")
                x = _continue(x, mode="wrap" if self.border == "circular" else "edge") if around else x
                name = f"conv{b}_{i}"
                taps = winograd.TAPS if name in self.prepared else 3
                x = nn.Conv(width, (taps, taps), conv_general_dilated=self.conv, name=name)(x)
                x = x[..., 1:-1, 1:-1, :] if around else x
                activations[name] = x
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


def _norm(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the root of the sum of squares, with a gradient of zero where both are zero."""
    squares = jnp.square(a) + jnp.square(b)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


def _continue(x: jax.Array, *, mode: str) -> jax.Array:
    """Return `x`, `[..., H, W, C]`, one pixel larger all around: its outermost pixels or those across from it."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)], mode=mode)


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


def prepared(params: Params, *, conv: Callable[..., jax.Array] = conv3x3) -> Params:
    """Return `params` ready for many convolutions: on the CPU, with kernels in Winograd's domain where that is faster.

    Args:
        params: the network; what is prepared already stays as it is.
        conv: the convolution of `features`; for another than the default nothing is done.

    Returns:
        The network, of which `features` gives the same; the kernels of layers with at least 128 channels on one
        side and 256 on the other are `[4, 4, in, out]`.

    Example:
        >>> prepared(params)["conv3_1"]["kernel"].shape  # doctest: +SKIP
        (4, 4, 128, 256)
    """
    if conv is not conv3x3 or jax.default_backend() != "cpu":
        return params
    ready = dict(params)
    for name, layer in params.items():
        taps, _, *channels = layer["kernel"].shape
        wide = all(channel >= least for channel, least in zip(sorted(channels), WINOGRAD_FROM, strict=True))
        if taps < winograd.TAPS and wide:
            ready[name] = {**layer, "kernel": winograd.to_domain(layer["kernel"])}
    return ready


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
    pooling_gain: float = 1.0,
    border: Border = "zeros",
    white: float = WHITE,
    conv: Callable[..., jax.Array] = conv3x3,
) -> dict[str, jax.Array]:
    """Return every activation of VGG-19 by name; under `jit` those that nobody reads cost nothing.

    Args:
        params: the network, `{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ...}`.
        image: `[H, W, 3]` or `[N, H, W, 3]`, sRGB in [0, 1].
        pooling: "max" (as trained), "avg", the plain 2x2 mean that Gatys et al. propose, or "l2", the root of the sum
            of squares. A mean is at most the maximum: on three photographs and paintings of 256 pixels the root mean
            square of activations fell to 0.74-0.80 of that with "max" at relu2_1, 0.51-0.55 at relu3_1, 0.38-0.41 at
            relu4_1 and 0.18-0.20 at relu5_1.
        pooling_gain: what each pooled layer is multiplied by, to make up for that.
        border: what lies outside the image: "zeros" of the network's units (as trained; they stand for the mean
            colour), "replicate", the outermost pixels again, for conv1_1, or "circular", the image again and again, in
            every layer: no border at all, where height and width are multiples of 16.
        white: what 1 becomes in the network's units, before the mean colour is subtracted.
        conv: the convolution, called as `jax.lax.conv_general_dilated` would be; that function itself will do.

    Returns:
        `{"conv1_1": [..., H, W, 64], "relu1_1": ..., "relu5_4": [..., H // 16, W // 16, 512]}`, in 0..255 input units;
        layers at which a small image has no pixels are left out.

    Raises:
        InputError: if `pooling` or `border` is none of these.

    Example:
        >>> features(load_params("vgg19"), image)["relu4_2"].shape  # doctest: +SKIP
        (32, 32, 512)
    """
    if pooling not in ("max", "avg", "l2"):
        raise InputError(f"Pooling {pooling!r} is unknown: use 'max', 'avg' or 'l2'.")
    if border not in ("zeros", "replicate", "circular"):
        raise InputError(f"Border {border!r} is unknown: use 'zeros', 'replicate' or 'circular'.")
    ready = tuple(name for name, layer in params.items() if layer["kernel"].shape[0] == winograd.TAPS)
    module = VGG(widths_of(params), pooling, pooling_gain, border, white, conv, ready)
    return module.apply({"params": params}, image)  # pyright: ignore[reportReturnType]

"""VGG-19 as a pure Flax (Linen) module that returns every activation by name.

The module includes the preprocessing: BGR, 0..255, minus the mean color of ImageNet. Images are float32 sRGB in [0, 1],
channels last.

Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, arXiv:1409.1556.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError, excerpt
from jaxstyle.networks import winograd
from jaxstyle.networks.conv import PRODUCTS, Params, Precision, conv3x3
from jaxstyle.networks.row_remat import Rows, map_row_chunks

Pooling = Literal["max", "avg", "l2"]
Padding = Literal["zeros", "replicate", "circular"]
Widths = tuple[tuple[int, ...], ...]

MEAN_BGR = (103.939, 116.779, 123.68)  # mean color of ImageNet, from the Caffe release of VGG
BLOCK_WIDTHS: Widths = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


def conv_names(widths: Widths) -> tuple[str, ...]:
    """Return the names of the convolutions of a network."""
    return tuple(f"conv{b}_{i}" for b, block in enumerate(widths, 1) for i in range(1, len(block) + 1))


CONV_LAYERS = conv_names(BLOCK_WIDTHS)
VGG16_LACKS = ("conv3_4", "conv4_4", "conv5_4")  # the only difference of its convolutions
ACTIVATIONS = tuple(kind + name[4:] for name in CONV_LAYERS for kind in ("conv", "relu"))


def halve(x: jax.Array, pooling: Pooling) -> jax.Array:
    """Return the 2x2 pooling of `x`, `[..., H // 2, W // 2, C]`; an odd last row or column is dropped.

    It equals the pooling of Linen, but the gradient of Linen's max_pool takes ten times as long on the CPU.

    Example:
        >>> halve(jnp.arange(4.0).reshape(2, 2, 1), "max").tolist()
        [[[3.0]]]
    """
    join = JOINS[pooling]
    height, width = x.shape[-3] // 2 * 2, x.shape[-2] // 2 * 2
    rows = join(x[..., 0:width:2, :], x[..., 1:width:2, :])
    return join(rows[..., 0:height:2, :, :], rows[..., 1:height:2, :, :])


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the maximum; for equal values the gradient is that of `a`, as in other frameworks."""
    return jnp.where(a >= b, a, b)


def _norm(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the root of the sum of squares, with zero gradient where both are zero."""
    squares = jnp.square(a) + jnp.square(b)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


JOINS = {"max": _larger, "avg": lambda a, b: (a + b) / 2, "l2": _norm}


class VGG19(nn.Module):
    """VGG-19 up to its last ReLU; maps an image to all activations by name.

    The params are `{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ..., "conv5_4": ...}`.

    Attributes:
        pooling: "max" (as trained), "avg", the 2x2 mean that Gatys et al. propose, or "l2", the root of the sum of
            squares. The mean reduces activations: on three photographs and paintings of 256 pixels their root mean
            square was 0.74-0.80 of that with "max" at relu2_1, 0.51-0.55 at relu3_1, 0.38-0.41 at relu4_1 and 0.18-0.20
            at relu5_1.
        pooling_gain: factor of each pooled layer, which compensates for that.
        padding: values outside the image: "zeros" in the network's units (as trained; zero is the mean color),
            "replicate", the nearest pixel, for conv1_1 only, or "circular", periodic in every layer, which is seamless
            if height and width are multiples of 16.
        input_scale: value of white in the network's units, before the mean color is subtracted.
        precision: precision of the products in convolutions; sums are float32. "tf32" rounds to 11 bits on accelerators
            with such products (three passes of bfloat16 on a TPU) and is float32 elsewhere; "bfloat16" also halves the
            size of activations; "float32" is full precision.
        remat: numbers of blocks that losses compute in row chunks and recompute for the gradient, which takes more time
            and less memory, such as (1, 2), the largest. The first block of images of 2**19 pixels or more always is.
            Not a block of which a loss needs all features. No effect on `apply`, which returns full activations.
        tile_pixels: losses process larger images in overlapping tiles of at most this many pixels, see `tiling`: the
            same objective and gradient in less memory and 1.6 times the time; None for never. No effect on `apply`.
        widths: channels of each convolution, block by block.
        winograd_layers: layers whose kernels are in the Winograd domain, `[4, 4, in, out]`.
        conv: the convolution, with the arguments of `jax.lax.conv_general_dilated`.

    Example:
        >>> network = VGG19(widths=((4, 4), (4, 4), (4,) * 4, (4,) * 4, (4,) * 4))
        >>> image = jnp.full((32, 48, 3), 0.5)
        >>> variables = network.init(jax.random.key(0), image)
        >>> network.apply(variables, image)["relu4_2"].shape
        (4, 6, 4)

    With the params of VGG-16, which has three convolutions in its last three blocks, it is VGG-16.

    Reference:
        Simonyan and Zisserman, arXiv:1409.1556. Deviation: no fully connected layers.
    """

    pooling: Pooling = "max"
    pooling_gain: float = 1.0
    padding: Padding = "zeros"
    input_scale: float = 255.0
    precision: Precision = "tf32"
    remat: tuple[int, ...] = ()
    tile_pixels: int | None = None
    widths: Widths = BLOCK_WIDTHS
    winograd_layers: tuple[str, ...] = ()
    conv: Callable[..., jax.Array] = conv3x3

    @classmethod
    def from_params(cls, params: Params, **fields: Any) -> "VGG19":
        """Return the network with the widths of `params`, whose kernels may be in the Winograd domain, and `fields`."""
        return cls(**fields).fitted(params)

    def fitted(self, params: Params) -> "VGG19":
        """Return this network with the widths of `params`, whose kernels may be in the Winograd domain."""
        ready = tuple(name for name, layer in params.items() if layer["kernel"].shape[0] == winograd.TAPS)
        return self.clone(widths=widths_of(params), winograd_layers=ready)

    def __post_init__(self) -> None:
        """Check the options."""
        for name, allowed in (("pooling", JOINS), ("padding", get_args(Padding)), ("precision", PRODUCTS)):
            if (value := getattr(self, name)) not in tuple(allowed):
                raise InputError(f"{name} {excerpt(repr(value))} is unknown: use {' or '.join(map(repr, allowed))}.")
        if self.tile_pixels is not None and self.tile_pixels < 1:
            raise InputError(f"tile_pixels is {self.tile_pixels}: use at least 1 pixel, or None.")
        super().__post_init__()

    def setup(self) -> None:
        """Define the convolutions."""
        for number, block in enumerate(self.widths, 1):
            for i, width in enumerate(block, 1):
                name = f"conv{number}_{i}"
                taps = winograd.TAPS if name in self.winograd_layers else 3
                layer = nn.Conv(
                    width,
                    (taps, taps),
                    dtype=jnp.bfloat16 if self.precision == "bfloat16" else None,
                    precision=PRODUCTS[self.precision],
                    conv_general_dilated=self.conv,
                )
                setattr(self, name, layer)

    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return all activations; under `jit` unused ones cost nothing.

        Args:
            image: `[H, W, 3]` or `[N, H, W, 3]`, sRGB in [0, 1].

        Returns:
            `{"conv1_1": [..., H, W, 64], "relu1_1": ..., "relu5_4": [..., H // 16, W // 16, 512]}`, before (conv) and
            after (relu) each ReLU; without layers in which a small image has no pixels.
        """
        return _evaluate(self, self.block, image, layers=ACTIVATIONS, summarize=None)

    def block(self, number: int, x: jax.Array, inside: jax.Array | None = None) -> dict[str, jax.Array]:
        """Return all activations of a block between two poolings, numbered from 1, for its input `[..., H, W, C]`.

        `inside` is a mask of the rows of `x` in the image, `[H, 1, 1]`; others are zero-padding.
        """
        activations = {}
        for i in range(1, len(self.widths[number - 1]) + 1):
            padded = self.padding == "circular" or (number == i == 1 and self.padding == "replicate")
            x = _pad(x, mode="wrap" if self.padding == "circular" else "edge") if padded else x
            x = getattr(self, f"conv{number}_{i}")(x)
            x = x[..., 1:-1, 1:-1, :] if padded else x
            activations[f"conv{number}_{i}"] = x
            x = nn.relu(x)
            activations[f"relu{number}_{i}"] = x
            x = x if inside is None else jnp.where(inside, x, jnp.zeros((), x.dtype))
        return activations


@partial(jax.jit, static_argnums=(0, 1))  # traced once per process and shape, for all programs
def _apply_block(
    network: VGG19, number: int, params: Params, x: jax.Array, inside: jax.Array | None
) -> dict[str, jax.Array]:
    return cast(dict[str, jax.Array], network.apply({"params": params}, number, x, inside, method="block"))


def _pad(x: jax.Array, *, mode: str) -> jax.Array:
    """Return `x`, `[..., H, W, C]`, padded by one pixel on each side: replicated or periodic."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)], mode=mode)


def widths_of(params: Params) -> Widths:
    """Return the channels of every convolution of `params`, block by block; they may be fewer than VGG-19's."""
    names = [name for name in CONV_LAYERS if name in params or name not in VGG16_LACKS]
    blocks = itertools.groupby(names, key=lambda name: name[4])
    return tuple(tuple(int(params[name]["kernel"].shape[-1]) for name in block) for _, block in blocks)


def smallest_side(layer: str) -> int:
    """Return the smallest side of an image, in pixels, for which `layer` has at least one pixel: its stride.

    Raises:
        InputError: if there is no such layer.

    Example:
        >>> smallest_side("relu5_1")
        16
    """
    if layer not in ACTIVATIONS:
        raise InputError(
            f"{excerpt(repr(layer))} is not a layer of VGG-19: "
            "choose from conv1_1 (before its ReLU) and relu1_1 (after) to relu5_4."
        )
    return 2 ** (int(layer[4]) - 1)


def halo(layer: str) -> int:
    """Return the radius of the receptive field of `layer`, in pixels of the image.

    Example:
        >>> halo("relu1_1"), halo("relu5_1")
        (1, 70)
    """
    side, number = smallest_side(layer), int(layer[4])
    return sum(2**i * len(widths) for i, widths in enumerate(BLOCK_WIDTHS[: number - 1])) + side * int(layer[6])


def evaluate_layers(
    network: VGG19,
    params: Params,
    image: jax.Array,
    *,
    layers: Sequence[str] = ACTIVATIONS,
    summarize: Callable[[str, jax.Array, Rows | None], Any] | None = None,
) -> dict[str, Any]:
    """Return activations by name, or summaries of them, evaluated up to the deepest layer.

    Args:
        network: the module.
        params: of the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, sRGB in [0, 1].
        layers: names of activations; those in which a small image has no pixels are not returned.
        summarize: function of the name of a layer, its activations and their rows that returns a pytree of arrays; None
            for the activations. Rows are None except in the blocks of `network.remat`, where the summaries of row
            chunks are summed.

    Raises:
        InputError: if there is no such layer.
    """
    for layer in layers:
        smallest_side(layer)
        if int(layer[6]) > len(network.widths[int(layer[4]) - 1]):
            raise InputError(f"The network is VGG-16, which has no {layer}: choose another layer.")

    def block(number: int, x: jax.Array, inside: jax.Array | None) -> dict[str, jax.Array]:
        of_block = {name: layer for name, layer in params.items() if int(name[4]) == number}
        return _apply_block(network, number, of_block, x, inside)

    return _evaluate(network, block, image, layers=layers, summarize=summarize)


def _evaluate(
    network: VGG19,
    block: Callable[[int, jax.Array, jax.Array | None], dict[str, jax.Array]],
    image: jax.Array,
    *,
    layers: Sequence[str],
    summarize: Callable[[str, jax.Array, Rows | None], Any] | None,
) -> dict[str, Any]:
    def advance(number: int, x: jax.Array, rows: Rows | None = None) -> tuple[jax.Array, dict[str, Any]]:
        """Return the input of the next block and the summaries of this block."""
        depth = len(network.widths[number - 1])
        margin = 0 if rows is None else depth
        inside = None if rows is None or network.padding == "circular" else rows.inside(margin=margin)
        activations = block(number, x, inside)
        if margin:
            activations = {name: value[..., margin:-margin, :, :] for name, value in activations.items()}
        results: dict[str, Any] = {name: value for name, value in activations.items() if name in layers}
        if summarize is not None:
            results = {name: summarize(name, value, rows) for name, value in results.items()}
        x = activations[f"relu{number}_{depth}"]
        if min(x.shape[-3:-1]) > 1:
            x = halve(x, network.pooling)
            x = network.pooling_gain * x if network.pooling_gain != 1 else x
        return x, results

    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    mean = jnp.broadcast_to(jnp.asarray(MEAN_BGR, image.dtype), image.shape)
    x, results = network.input_scale * image[..., ::-1] - mean, {}
    for number in range(1, 1 + max((int(name[4]) for name in layers), default=0)):
        if number > 1 and min(image.shape[-3:-1]) < 2 ** (number - 1):
            break  # deeper layers have no pixels
        if number in network.remat and summarize is not None and min(x.shape[-3:-1]) > 1:
            mode = "wrap" if network.padding == "circular" else "constant"
            mode = "edge" if number == 1 and network.padding == "replicate" else mode
            margin = len(network.widths[number - 1])
            x, of_block = map_row_chunks(partial(advance, number), x, margin=margin, mode=mode)
        else:
            x, of_block = advance(number, x)
        results |= of_block
    return results

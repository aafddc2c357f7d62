"""VGG-19 as a pure Flax (Linen) module that returns every activation by name.

The only place that knows what the network wants to see: BGR, 0..255, ImageNet's mean colour subtracted. Images are
float32 sRGB in [0, 1], channels last.

Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, arXiv:1409.1556.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError, excerpt
from jaxstyle.networks import winograd
from jaxstyle.networks.conv import PRODUCTS, Params, Precision, conv3x3
from jaxstyle.networks.row_remat import Rows, in_strips

Pooling = Literal["max", "avg", "l2"]
Border = Literal["zeros", "replicate", "circular"]
Widths = tuple[tuple[int, ...], ...]

WHITE = 255.0  # of the network's input
MEAN_BGR = (103.939, 116.779, 123.68)  # ImageNet's mean colour, from the Caffe release of VGG
BLOCK_WIDTHS: Widths = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
CONV_LAYERS = tuple(f"conv{b}_{i}" for b, block in enumerate(BLOCK_WIDTHS, 1) for i in range(1, len(block) + 1))
ACTIVATIONS = tuple(kind + name[4:] for name in CONV_LAYERS for kind in ("conv", "relu"))


def halve(x: jax.Array, pooling: Pooling) -> jax.Array:
    """Return `x` with 2x2 pixels joined into one; an odd last row or column is dropped.

    Linen's pools give the same, but the gradient of its max_pool takes ten times as long on the CPU.

    Args:
        x: `[..., H, W, C]`.
        pooling: "max" takes the largest, "avg" the mean, "l2" the root of the sum of squares.

    Returns:
        `[..., H // 2, W // 2, C]`.

    Example:
        >>> halve(jnp.arange(4.0).reshape(2, 2, 1), "max").tolist()
        [[[3.0]]]
    """
    join = JOINS[pooling]
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


def _mean(a: jax.Array, b: jax.Array) -> jax.Array:
    return (a + b) / 2


JOINS = {"max": _larger, "avg": _mean, "l2": _norm}


class Block(nn.Module):
    """The convolutions of VGG-19 between two poolings, of any widths.

    Attributes:
        number: which block, from 1.
        widths: channels of each convolution.
        border: what the convolutions see outside the image: see `features`.
        precision: of what is multiplied: see `features`.
        conv: the convolution, called as Linen's Conv calls `jax.lax.conv_general_dilated`.
        prepared: layers whose kernels are in Winograd's domain.
    """

    number: int
    widths: tuple[int, ...]
    border: Border = "zeros"
    precision: Precision = "tf32"
    conv: Callable[..., jax.Array] = conv3x3
    prepared: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> dict[str, jax.Array]:
        """Return every activation of the block for its input `x`, before (conv) and after (relu) its ReLU.

        Convolutions see zeros where `inside`, which goes with `x`, says that a strip leaves the image.
        """
        activations = {}
        for i, width in enumerate(self.widths, 1):
            around = self.border == "circular" or (self.number == i == 1 and self.border == "replicate")
            x = _continue(x, mode="wrap" if self.border == "circular" else "edge") if around else x
            layer = f"{self.number}_{i}"
            taps = winograd.TAPS if f"conv{layer}" in self.prepared else 3
            x = nn.Conv(
                width,
                (taps, taps),
                dtype=jnp.bfloat16 if self.precision == "bfloat16" else None,
                precision=PRODUCTS[self.precision],
                conv_general_dilated=self.conv,
                name=f"conv{layer}",
            )(x)
            x = x[..., 1:-1, 1:-1, :] if around else x
            activations[f"conv{layer}"] = x
            x = nn.relu(x)
            activations[f"relu{layer}"] = x
            x = x if inside is None else jnp.where(inside, x, jnp.zeros((), x.dtype))
        return activations


@partial(jax.jit, static_argnums=0)  # traced once per process for each shape, in whichever programs it occurs
def _apply(block: Block, params: Params, x: jax.Array, inside: jax.Array | None) -> dict[str, jax.Array]:
    return cast(dict[str, jax.Array], block.apply({"params": params}, x, inside))


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
            f"{excerpt(repr(layer))} is not a layer of VGG-19: "
            "choose from conv1_1 (before its ReLU) and relu1_1 (after) to relu5_4."
        )
    return 2 ** (int(layer[4]) - 1)


def halo(layer: str) -> int:
    """Return how far around a pixel's own place `layer` sees.

    Args:
        layer: the name of an activation.

    Returns:
        Pixels of the image.

    Raises:
        InputError: if there is no such layer.

    Example:
        >>> halo("relu1_1"), halo("relu5_1")
        (1, 70)
    """
    side, number = smallest_side(layer), int(layer[4])
    return sum(2**i * len(widths) for i, widths in enumerate(BLOCK_WIDTHS[: number - 1])) + side * int(layer[6])


def features(
    params: Params,
    image: jax.Array,
    *,
    pooling: Pooling = "max",
    pooling_gain: float = 1.0,
    border: Border = "zeros",
    white: float = WHITE,
    precision: Precision = "tf32",
    conv: Callable[..., jax.Array] = conv3x3,
    layers: Sequence[str] = ACTIVATIONS,
    read: Callable[[str, jax.Array, Rows | None], Any] | None = None,
    in_rows: Sequence[int] = (),
) -> dict[str, Any]:
    """Return activations of VGG-19 by name; under `jit` those that nobody reads cost nothing.

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
        precision: how exactly convolutions multiply; all sum up in float32. "tf32" rounds to 11 bits on accelerators
            that have such products (three passes of bfloat16 on a TPU) and is float32 elsewhere; "bfloat16" has
            activations of that type, half as large; "float32" is exact to that.
        conv: the convolution, called as `jax.lax.conv_general_dilated` would be; that function itself will do.
        layers: which activations are asked for; the network ends with the deepest of them.
        read: called with the name of each of them, itself and its rows, returns what is kept in its place.
        in_rows: blocks to compute in strips of rows, and again for a gradient, which takes longer and less memory; what
            `read` returns of their rows is summed up. Elsewhere the rows are None for all of them.

    Returns:
        `{"conv1_1": [..., H, W, 64], "relu1_1": ..., "relu5_4": [..., H // 16, W // 16, 512]}`, in 0..255 input units;
        layers at which a small image has no pixels are left out.

    Raises:
        InputError: if `pooling`, `border` or `precision` is none of these, or if there is no such layer.

    Example:
        >>> features(load_params("vgg19"), image)["relu4_2"].shape  # doctest: +SKIP
        (32, 32, 512)
    """
    for layer in layers:
        smallest_side(layer)
    if pooling not in JOINS:
        raise InputError(f"Pooling {pooling!r} is unknown: use 'max', 'avg' or 'l2'.")
    if border not in ("zeros", "replicate", "circular"):
        raise InputError(f"Border {border!r} is unknown: use 'zeros', 'replicate' or 'circular'.")
    if precision not in PRODUCTS:
        raise InputError(f"Precision {precision!r} is unknown: use 'float32', 'tf32' or 'bfloat16'.")
    ready = tuple(name for name, layer in params.items() if layer["kernel"].shape[0] == winograd.TAPS)

    def through(number: int, own: Params, x: jax.Array, rows: Rows | None = None) -> tuple[jax.Array, dict[str, Any]]:
        """Return what the next block sees, and what is kept of this one."""
        block = Block(number, widths[number - 1], border, precision, conv, ready)
        margin = 0 if rows is None else len(block.widths)
        inside = None if rows is None or border == "circular" else rows.inside(margin=margin)
        activations: Any = _apply(block, own, x, inside)
        if margin:
            activations = {name: found[..., margin:-margin, :, :] for name, found in activations.items()}
        asked = {name: found for name, found in activations.items() if name in layers}
        kept = asked if read is None else {name: read(name, found, rows) for name, found in asked.items()}
        x = activations[f"relu{number}_{len(block.widths)}"]
        if min(x.shape[-3:-1]) > 1:
            x = halve(x, pooling)
            x = pooling_gain * x if pooling_gain != 1 else x
        return x, kept

    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    x = white * image[..., ::-1] - jnp.broadcast_to(jnp.asarray(MEAN_BGR, image.dtype), image.shape)
    widths, found = widths_of(params), {}
    beyond = "wrap" if border == "circular" else "constant"
    for number in range(1, 1 + max((int(name[4]) for name in layers), default=0)):
        if number > 1 and min(image.shape[-3:-1]) < 2 ** (number - 1):
            break  # nothing is left to pool; the deeper layers have no pixels
        own = {name: layer for name, layer in params.items() if int(name[4]) == number}
        if number in in_rows and min(x.shape[-3:-1]) > 1:
            mode = "edge" if number == 1 and border == "replicate" else beyond
            x, kept = in_strips(partial(through, number, own), x, margin=len(widths[number - 1]), mode=mode)
        else:
            x, kept = through(number, own, x)
        found |= kept
    return found

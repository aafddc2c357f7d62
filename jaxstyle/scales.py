"""Coarse to fine: at which sizes a picture is optimised, and for how many steps at each."""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config import Config
from jaxstyle.errors import InputError, excerpt
from jaxstyle.vgg import smallest_side

COARSEST = 128  # pixels of the longest side, about
FACTOR = math.sqrt(2)
FEWER = 0.75  # steps at one scale over those at the scale before, where a step costs half as much
MOST_SCALES = 30
TILE = 16  # pixels: VGG-19 halves four times, and what continues across its border has to do so after each
LOBES = 3  # of Lanczos' kernel, in pixels
ROUND = 5  # steps; so that a few of them at a time can be one program


class Scale(NamedTuple):
    """One size and how long the picture stays there.

    Attributes:
        height: pixels.
        width: pixels.
        steps: gradient evaluations.
    """

    height: int
    width: int
    steps: int


def plan(height: int, width: int, *, steps: int, config: Config) -> tuple[Scale, ...]:
    """Return the scales at which a picture of `height` by `width` is optimised, the coarsest first.

    Args:
        height: pixels of the picture that is to come out.
        width: likewise.
        steps: gradient evaluations in all, most of them where they are cheap.
        config: its `scales` and layers count.

    Returns:
        The scales; the last one has the size of the picture, the others of a circular one are multiples of 16 pixels.

    Raises:
        InputError: if a scale that was asked for is too small for a layer or larger than the picture, or if there are
            fewer steps than scales.

    Example:
        >>> [(scale.width, scale.steps) for scale in plan(192, 256, steps=100, config=Config())]
        [(128, 45), (181, 30), (256, 25)]
    """
    if steps < 1:
        raise InputError(f"A run of {steps} steps does nothing: take at least 1.")
    longest = max(height, width)
    sides = _sides(longest, config)
    shapes = [(height, width) if side == longest else _shape(height, width, side / longest) for side in sides]
    if config.border == "circular":
        rounded = [(_tiled(h), _tiled(w)) for h, w in shapes[:-1]]
        shapes = [shape for shape in dict.fromkeys(rounded) if max(shape) < longest] + shapes[-1:]
    need = max(map(smallest_side, config.sized(config.layers)), default=1)
    if config.scales is None:
        shapes = [shape for shape in shapes[:-1] if min(shape) >= need][-(steps - 1) or len(shapes) :] + shapes[-1:]
    for shape in shapes[:-1]:
        if min(shape) < need:
            raise InputError(
                f"A scale is {shape[1]}x{shape[0]} pixels, but the deepest layer needs {need}x{need}: "
                "take fewer or larger --scales."
            )
    if steps < len(shapes):
        raise InputError(f"{steps} steps are too few for {len(shapes)} scales: take more --steps or fewer --scales.")
    return tuple(Scale(*shape, count) for shape, count in zip(shapes, _shared(steps, len(shapes)), strict=True))


def _sides(longest: int, config: Config) -> list[int]:
    if isinstance(config.scales, tuple):
        sides = list(config.scales)
        if sides and abs(sides[-1] - longest) == 1:  # rounding left the picture one pixel off its size
            sides[-1] = longest
        if not sides or sides != sorted(set(sides)) or sides[0] < 1 or sides[-1] != longest:
            text = excerpt(", ".join(map(str, sides)))
            raise InputError(f"The scales {text} do not rise to the picture's {longest} pixels: end them with that.")
        return sides
    count = config.scales
    if count is None:
        count = max(1, 1 + round(math.log(longest / COARSEST, FACTOR)))
    if not 1 <= count <= MOST_SCALES:
        raise InputError(
            f"{excerpt(count)} scales are none or too many: take 1 to {MOST_SCALES}, or sides such as 128,256,512."
        )
    return [max(1, round(longest / FACTOR**i)) for i in reversed(range(count))]


def _shape(height: int, width: int, factor: float) -> tuple[int, int]:
    return max(1, round(factor * height)), max(1, round(factor * width))


def _tiled(side: int) -> int:
    return TILE * max(1, round(side / TILE))


def half_shape(height: int, width: int) -> tuple[int, int]:
    """Return height and width of a picture reduced to half.

    Args:
        height: pixels.
        width: pixels.

    Returns:
        Height and width, at least 1.

    Example:
        >>> half_shape(768, 1023)
        (384, 512)
    """
    return _shape(height, width, 0.5)


def _shared(steps: int, scales: int) -> list[int]:
    """Share out `steps`, at least one for each scale, each scale about `FEWER` times as many as the one before."""
    shares = [FEWER**i for i in range(scales)]
    unit = ROUND if steps >= 4 * ROUND * scales else 1
    rest = steps // unit - scales
    counts = [unit * (1 + int(rest * share / sum(shares))) for share in shares]
    return [counts[0] + steps - sum(counts), *counts[1:]]


def resize(picture: jax.Array, height: int, width: int, *, circular: bool = False) -> jax.Array:
    """Return `picture` at another size, antialiased; the same array where it has that size already.

    Args:
        picture: `[..., H, W, 3]` or a mask `[H, W]`, in [0, 1].
        height: pixels.
        width: pixels.
        circular: whether pixels at a border are neighbours of those across from them.

    Returns:
        `[..., height, width, 3]` or `[height, width]`, in [0, 1].

    Example:
        >>> resize(jnp.ones((8, 8, 3)), 4, 6).shape
        (4, 6, 3)
    """
    found = resample(picture, height, width, circular=circular)
    return picture if found is picture else jnp.clip(found, 0.0, 1.0)


def resample(
    picture: jax.Array,
    height: int,
    width: int,
    *,
    circular: bool = False,
    method: Literal["lanczos3", "linear"] = "lanczos3",
) -> jax.Array:
    """Return `picture` at another size, antialiased, not clipped.

    Args:
        picture: `[..., H, W, 3]` or `[H, W]`, of any range.
        height: pixels.
        width: pixels.
        circular: as for `resize`.
        method: Lanczos' kernel of three lobes, or linear interpolation.

    Returns:
        `[..., height, width, 3]` or `[height, width]`.

    Example:
        >>> resample(-jnp.ones((8, 8, 3)), 4, 6, circular=True).shape
        (4, 6, 3)
    """
    axis = 0 if picture.ndim == 2 else picture.ndim - 3
    old, new = picture.shape[axis : axis + 2], (height, width)
    shape = (*picture.shape[:axis], *new, *picture.shape[axis + 2 :])
    if old == new:
        return picture
    if not circular:
        return jax.image.resize(picture, shape, method)
    margins = [math.ceil(LOBES * max(1.0, before / after)) for before, after in zip(old, new, strict=True)]
    around = [(0, 0)] * picture.ndim
    around[axis : axis + 2] = [(margin, margin) for margin in margins]
    factors = [after / before for before, after in zip(old, new, strict=True)]
    shift = [-margin * factor for margin, factor in zip(margins, factors, strict=True)]
    return jax.image.scale_and_translate(
        jnp.pad(picture, around, mode="wrap"),
        shape,
        (axis, axis + 1),
        jnp.asarray(factors, jnp.float32),
        jnp.asarray(shift, jnp.float32),
        method,
    )


def resize_style(style: jax.Array, factor: float, *, layers: tuple[str, ...]) -> jax.Array:
    """Return `style` reduced like the picture, but no further than `layers` allow.

    Args:
        style: `[H, W, 3]`, or a mask `[H, W]`, of the size that it has at the last scale.
        factor: the size of this scale over that of the last.
        layers: where style is compared.

    Returns:
        `[h, w, 3]` or `[h, w]`.

    Example:
        >>> resize_style(jnp.ones((64, 32, 3)), 0.5, layers=("relu1_1",)).shape
        (32, 16, 3)
    """
    height, width = style.shape[:2]
    need = max(map(smallest_side, layers), default=1)
    factor = min(1.0, max(factor, need / min(height, width)))
    return style if factor == 1 else resize(style, *_shape(height, width, factor))

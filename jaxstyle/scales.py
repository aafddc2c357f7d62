"""Coarse to fine: at which sizes a picture is optimised, and for how many steps at each."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.config import Config
from jaxstyle.errors import InputError, excerpt
from jaxstyle.vgg import smallest_side

COARSEST = 128  # pixels of the longest side at the coarsest scale
FACTOR = 2.4  # about; of a side over that of the scale before
FEWEST = 3  # steps at a scale, if there are enough
STEPS_BY_PIXELS = -0.415  # exponent: three quarters of the steps at twice the pixels
DISTORTION = 0.03  # of the aspect ratio, at all scales but the last
MOST_SCALES = 30
TILE = 16  # pixels: VGG-19 halves four times, and what continues across its border has to do so after each
LOBES = 3  # of Lanczos' kernel, in pixels
MOST_CONSTANT = 2**20  # numbers of a matrix that is a constant of a program; a larger one is computed in the program


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
    """Return the scales at which a picture of `height` by `width` is optimized, the coarsest first.

    The longest sides are a geometric series from 128 pixels, rounded to multiples of 16; each scale but the last has a
    shape that other pictures share, see `shared_shape`. A scale of twice the pixels takes three quarters of the steps.

    Args:
        height: of the result, in pixels.
        width: of the result, in pixels.
        steps: number of gradient evaluations at all scales together.
        config: its `scales` and layers count.

    Returns:
        The scales; the last one has the size of the result.

    Raises:
        InputError: if a scale that was asked for is too small for a layer or larger than the picture, or if there are
            fewer steps than scales.

    Example:
        >>> [(scale.width, scale.steps) for scale in plan(192, 256, steps=100, config=Config())]
        [(128, 64), (256, 36)]
    """
    if steps < 1:
        raise InputError(f"A run of {steps} steps does nothing: take at least 1.")
    longest = max(height, width)
    shape = _tileable_shape if config.border == "circular" else shared_shape
    shapes = [shape(height, width, side) for side in _sides(longest, config)[:-1]]
    shapes = [each for each in dict.fromkeys(shapes) if max(each) < longest] + [(height, width)]
    need = max(map(smallest_side, config.sized(config.layers)), default=1)
    if config.scales is None:
        most = max(1, steps // FEWEST)
        shapes = [*(each for each in shapes[:-1] if min(each) >= need), shapes[-1]][-most:]
    for each in shapes[:-1]:
        if min(each) < need:
            raise InputError(
                f"A scale is {each[1]}x{each[0]} pixels, but the deepest layer needs {need}x{need}: "
                "take fewer or larger --scales."
            )
    if steps < len(shapes):
        raise InputError(f"{steps} steps are too few for {len(shapes)} scales: take more --steps or fewer --scales.")
    return tuple(Scale(*each, count) for each, count in zip(shapes, _split(steps, shapes), strict=True))


def _sides(longest: int, config: Config) -> list[int]:
    """Return the longest sides of the scales in pixels, rising."""
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
    coarsest = min(COARSEST, longest / 1.5)
    exact = [coarsest * (longest / coarsest) ** (i / max(1, count - 1)) for i in range(count - 1)]
    for multiple in (TILE, 1):
        sides = [*(max(multiple, multiple * round(side / multiple)) for side in exact), longest]
        if sides == sorted(set(sides)):
            break
    return sides


def shared_shape(height: int, width: int, side: int) -> tuple[int, int]:
    """Return a shape of longest side `side` and almost the aspect ratio of a picture, which other pictures share.

    The shorter side is a multiple of 16, 8, 4, 2 or 1 pixels: the first that changes the aspect ratio by at most 3 %.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        side: in pixels.

    Returns:
        Height and width.

    Example:
        >>> shared_shape(3000, 4000, 128), shared_shape(3050, 4000, 128)
        ((96, 128), (96, 128))
    """
    exact = side * min(height, width) / max(height, width)
    for multiple in (TILE, 8, 4, 2, 1):
        shorter = max(multiple, multiple * round(exact / multiple))
        if shorter <= side and abs(shorter / exact - 1) <= DISTORTION:
            break
    else:
        shorter = max(1, round(exact))
    return (shorter, side) if height < width else (side, shorter)


def _shape(height: int, width: int, factor: float) -> tuple[int, int]:
    return max(1, round(factor * height)), max(1, round(factor * width))


def _tileable_shape(height: int, width: int, side: int) -> tuple[int, int]:
    factor = side / max(height, width)
    found = [TILE * max(1, round(factor * each / TILE)) for each in (height, width)]
    return found[0], found[1]


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


def _split(steps: int, shapes: list[tuple[int, int]]) -> list[int]:
    """Split `steps` among shapes by a power of their pixels; each takes at least `FEWEST` if there are enough steps."""
    weights = [(height * width) ** STEPS_BY_PIXELS for height, width in shapes]
    fewest = min(FEWEST, steps // len(shapes))
    rest = steps - fewest * len(shapes)
    counts = [fewest + int(rest * weight / sum(weights)) for weight in weights]
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
    return picture if found is picture else array_module(found).clip(found, 0.0, 1.0)


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
    if picture.shape[axis : axis + 2] == (height, width):
        return picture
    xp = array_module(picture)
    rows, columns = (
        resample_matrix(
            before,
            after,
            method=method,
            circular=circular,
            dtype=picture.dtype,
            xp=np if before * after <= MOST_CONSTANT else xp,
        )
        for before, after in zip(picture.shape[axis : axis + 2], (height, width), strict=True)
    )
    exact: Any = {} if xp is np else {"precision": jax.lax.Precision.HIGHEST}
    if picture.ndim == 2:
        return xp.matmul(xp.matmul(rows, picture, **exact), columns.T, **exact)
    if xp is np:  # whose einsum does not use BLAS
        lines = np.matmul(rows, picture.reshape(*picture.shape[:-2], -1))  # [..., h, w * c] to [..., height, w * c]
        lines = lines.reshape(*picture.shape[:-3], height, *picture.shape[-2:])
        found: Any = np.moveaxis(np.tensordot(columns, lines, axes=(1, lines.ndim - 2)), 0, -2)
        return found
    enlarged = xp.einsum("ah,...hwc->...awc", rows, picture, **exact)
    return xp.einsum("bw,...awc->...abc", columns, enlarged, **exact)


def array_module(*arrays: Any) -> Any:
    """Return `numpy` for arrays of NumPy, which are then processed on the host without a program, else `jax.numpy`."""
    return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp


def resample_matrix(
    before: int,
    after: int,
    *,
    method: Literal["lanczos3", "linear"] = "lanczos3",
    circular: bool = False,
    dtype: Any = np.float32,
    xp: Any = np,
) -> Any:
    r"""Return the matrix that resamples one axis, antialiased: that of `jax.image.resize`.

    Row i holds :math:`k((s (i + 1/2) - 1/2 - j) / \max(1, s))` over their sum, for the kernel k and the ratio
    :math:`s = before / after`.

    Args:
        before: number of samples.
        after: number of samples that the matrix gives.
        method: Lanczos' kernel of three lobes, or linear interpolation.
        circular: whether the last sample is a neighbor of the first.
        dtype: of the matrix.
        xp: `numpy` or `jax.numpy`.

    Returns:
        `[after, before]`; each row has the sum 1.

    Example:
        >>> resample_matrix(2, 4, method="linear").round(2).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    ratio = before / after
    width = max(1.0, ratio)
    wide = np.float64 if xp is np else dtype
    centers = (xp.arange(after, dtype=wide) + 0.5) * ratio - 0.5
    offsets = centers[:, None] - xp.arange(before, dtype=wide)[None, :]
    turns = math.ceil(LOBES * width / before) if circular else 0

    def kernel(x: Any) -> Any:
        if method == "linear":
            return xp.maximum(0.0, 1.0 - xp.abs(x))
        return xp.where(xp.abs(x) < LOBES, xp.sinc(x) * xp.sinc(x / LOBES), 0.0)

    weights: Any = sum(kernel((offsets + turn * before) / width) for turn in range(-turns, turns + 1))
    return (weights / weights.sum(1, keepdims=True)).astype(dtype)


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

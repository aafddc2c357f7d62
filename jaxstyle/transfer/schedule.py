"""Coarse-to-fine schedule: image size and number of steps of each scale."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from jaxstyle.errors import InputError, check_whole, excerpt
from jaxstyle.networks.vgg import smallest_side

COARSEST = 128  # pixels of the longest side at the coarsest scale
FACTOR = 2.4  # approximate ratio of the sides of consecutive scales
FEWEST = 3  # minimum steps of a scale, if there are enough
STEPS_BY_PIXELS = -0.415  # exponent: three quarters of the steps at twice the pixels
MOST_STEPS = 64  # of the first of several scales, see "Scales" in docs/deviations.md
DISTORTION = 0.03  # maximum change of the aspect ratio at all scales but the last
MOST_SCALES = 30
TILE = 16  # pixels; VGG-19 pools four times, and a periodic image must stay periodic after each


@dataclass(frozen=True)
class Series:
    """Scales whose longest sides are about a geometric series.

    Attributes:
        coarsest: longest side of the first scale in pixels.
        factor: ratio of the sides of consecutive scales.
        steps_by_pixels: exponent of the number of steps as a function of the pixels of a scale; 0 for equal numbers.
        most_steps: maximum number of steps of the first of several scales; the other steps go to later scales. None for
            no maximum.
    """

    coarsest: float = COARSEST
    factor: float = FACTOR
    steps_by_pixels: float = STEPS_BY_PIXELS
    most_steps: int | None = MOST_STEPS


Scales = int | tuple[int, ...] | Series | None
"""Number of scales, whose longest sides are a geometric series from 128 pixels, or their longest sides, the largest
that of the result; or a series; None for the series from near 128 pixels by factors of about 2.4."""


class Scale(NamedTuple):
    """Height and width of the image in pixels, and number of gradient evaluations."""

    height: int
    width: int
    steps: int


def plan(
    height: int,
    width: int,
    *,
    steps: int,
    scales: Scales = None,
    layers: tuple[str, ...] = (),
    circular: bool = False,
    passes: int = 1,
) -> tuple[Scale, ...]:
    """Return the scales of an image of `height` by `width`, coarsest first; the last has the size of the result.

    The longest sides are a geometric series, by default from 128 pixels, rounded to multiples of 16; each scale but the
    last has a shape that other images share, see `shared_shape`. By default a scale of twice the pixels takes three
    quarters of the steps, and the first of several scales at most 64.

    Args:
        height: of the result, in pixels.
        width: of the result, in pixels.
        steps: number of gradient evaluations over all scales.
        scales: their number or their longest sides, see `Scales`.
        layers: layers of VGG-19 that must have at least one pixel at each scale.
        circular: whether the image is periodic.
        passes: number of entries of the last scale, for objectives that minimize another value at the end.

    Raises:
        InputError: if one of `scales` is too small for a layer or larger than the result, or there are fewer steps than
            scales.

    Example:
        >>> [(scale.width, scale.steps) for scale in plan(192, 256, steps=100)]
        [(128, 64), (256, 36)]
    """
    check_whole("steps", steps)
    if isinstance(scales, list):
        scales = tuple(scales)
    automatic = scales is None or isinstance(scales, Series)
    sides = isinstance(scales, tuple) and all(isinstance(side, int) for side in scales) and scales
    if isinstance(scales, bool) or not (automatic or isinstance(scales, int) or sides):
        raise InputError(f"scales is {excerpt(repr(scales))}: use their number, their longest sides, or a Series.")
    longest = max(height, width)
    shape = _tileable_shape if circular else shared_shape
    shapes = [shape(height, width, side) for side in _sides(longest, scales)[:-1]]
    shapes = [each for each in dict.fromkeys(shapes) if max(each) < longest] + [(height, width)]
    need = max(map(smallest_side, layers), default=1)
    if automatic:
        most = max(1, steps // FEWEST)
        shapes = [*(each for each in shapes[:-1] if min(each) >= need), shapes[-1]][-most:]
    for each in shapes[:-1]:
        if min(each) < need:
            raise InputError(
                f"A scale is {each[1]}x{each[0]} pixels, but the deepest layer needs {need}x{need}: "
                "use fewer or larger --scales."
            )
    if steps < len(shapes):
        raise InputError(f"{steps} steps are too few for {len(shapes)} scales: use more --steps or fewer --scales.")
    series = scales if isinstance(scales, Series) else Series()
    shapes += [shapes[-1]] * (min(passes, 1 + steps - len(shapes)) - 1)
    return tuple(Scale(*each, count) for each, count in zip(shapes, _split(steps, shapes, series), strict=True))


def _sides(longest: int, scales: Scales) -> list[int]:
    """Return the longest sides of the scales in pixels, in ascending order."""
    series = scales if isinstance(scales, Series) else Series()
    if isinstance(scales, tuple):
        sides = list(scales)
        if sides and abs(sides[-1] - longest) == 1:  # rounding changed the size of the result by one pixel
            sides[-1] = longest
        if not sides or sides != sorted(set(sides)) or sides[0] < 1 or sides[-1] != longest:
            text = excerpt(", ".join(map(str, sides)))
            raise InputError(
                f"The scales {text} do not rise to the {longest} pixels of the result: end them with that."
            )
        return sides
    count = scales if isinstance(scales, int) else max(1, 1 + round(math.log(longest / series.coarsest, series.factor)))
    if not 1 <= count <= MOST_SCALES:
        raise InputError(
            f"{excerpt(count)} scales are out of range: use 1 to {MOST_SCALES}, or sides such as 128,256,512."
        )
    coarsest = min(series.coarsest, longest / 1.5)
    exact = [coarsest * (longest / coarsest) ** (i / max(1, count - 1)) for i in range(count - 1)]
    for multiple in (TILE, 1):
        sides = [*(max(multiple, multiple * round(side / multiple)) for side in exact), longest]
        if sides == sorted(set(sides)):
            break
    return sides


def shared_shape(height: int, width: int, side: int) -> tuple[int, int]:
    """Return a shape of longest side `side` with about the aspect ratio of an image; similar images share it.

    The shorter side is a multiple of 16, 8, 4, 2 or 1 pixels: the first that changes the aspect ratio by at most 3 %.

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


def _tileable_shape(height: int, width: int, side: int) -> tuple[int, int]:
    factor = side / max(height, width)
    sides = [TILE * max(1, round(factor * each / TILE)) for each in (height, width)]
    return sides[0], sides[1]


def _split(steps: int, shapes: list[tuple[int, int]], series: Series) -> list[int]:
    """Divide `steps` among shapes as the series says, with at least `FEWEST` each if there are enough."""
    weights = [(height * width) ** series.steps_by_pixels for height, width in shapes]
    fewest = min(FEWEST, steps // len(shapes))
    counts = [fewest + more for more in _shares(steps - fewest * len(shapes), weights)]
    if shapes[0] == shapes[-1] or series.most_steps is None:
        return counts
    first = min(max(series.most_steps, fewest), counts[0])
    more = _shares(counts[0] - first, weights[1:])
    return [first, *(count + extra for count, extra in zip(counts[1:], more, strict=True))]


def _shares(steps: int, weights: list[float]) -> list[int]:
    """Divide `steps` in proportion to weights, rounded down; the rest goes to the first."""
    counts = [int(steps * weight / sum(weights)) for weight in weights]
    return [counts[0] + steps - sum(counts), *counts[1:]]

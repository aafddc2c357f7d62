"""Pictures in bands of rows, so that a large one is there once as a whole and never in copies."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXELS = 2**21  # of a band


class Bands(NamedTuple):
    """A picture that is read from band to band.

    Attributes:
        width: pixels.
        height: pixels.
        has_alpha: whether there is transparency.
        read: of a first row and the one after the last, colour `[rows, W, 3]` and alpha `[rows, W]` or None, both uint8
            or both float32 in [0, 1].
    """

    width: int
    height: int
    has_alpha: bool
    read: Callable[[int, int], tuple[NDArray[Any], NDArray[Any] | None]]


Unit = tuple[NDArray[np.float32], NDArray[np.float32] | None]


def rows(height: int, width: int, *, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band of a picture, and the row after its last.

    Args:
        height: pixels.
        width: pixels.
        multiple: what the rows of a band are a multiple of, but for the last.

    Example:
        >>> list(rows(500, 2**14))
        [(0, 128), (128, 256), (256, 384), (384, 500)]
    """
    step = max(1, PIXELS // (width * multiple)) * multiple
    for top in range(0, height, step):
        yield top, min(top + step, height)


def collected(bands: Bands) -> Unit:
    """Return colour `[H, W, 3]` and alpha `[H, W]` of a picture at its own size, float32 in [0, 1].

    Args:
        bands: the picture.

    Example:
        >>> collected(Bands(20, 30, False, lambda top, end: (np.ones((end - top, 20, 3), np.uint8), None)))[0].shape
        (30, 20, 3)
    """
    rgb, alpha = _empty(bands, bands.width, bands.height)
    for top, end in rows(bands.height, bands.width):
        colour, opacity = bands.read(top, end)
        _put(colour, rgb[top:end])
        if alpha is not None and opacity is not None:
            _put(opacity, alpha[top:end])
    return rgb, alpha


def resized(bands: Bands, width: int, height: int, resample: Image.Resampling) -> Unit:
    """Return colour and alpha at another size, float32 in [0, 1].

    8-bit pictures are resized in 8 bits, plane by plane, just as Pillow resizes them whole. Of others the rows of each
    band are resized first, and then the columns of what that gives, all in floating point; as of version 13 Pillow
    itself begins with the columns where that is quicker, which is the same up to rounding in float32.

    Args:
        bands: the picture.
        width: of the result, in pixels.
        height: of the result, in pixels.
        resample: Pillow's filter.

    Example:
        >>> read = lambda top, end: (np.ones((end - top, 20, 3), np.float32), None)
        >>> resized(Bands(20, 30, False, read), 16, 24, Image.Resampling.LANCZOS)[0].max()
        np.float32(1.0)
    """
    parts: list[NDArray[Any]] = []  # planes [H, W], or [H, width] with rows at their new length
    for top, end in rows(bands.height, max(width, bands.width)):
        colour, opacity = bands.read(top, end)
        planes = [colour[..., i] for i in range(3)] + ([] if opacity is None else [opacity])
        whole = colour.dtype == np.uint8 or end - top == bands.height
        across = bands.width if whole else width
        parts = parts or [np.empty((bands.height, across), colour.dtype) for _ in planes]
        for plane, part in zip(planes, parts, strict=True):
            part[top:end] = plane if whole else _resize(plane, width, end - top, resample)
    rgb, alpha = _empty(bands, width, height)
    places = [rgb[..., i] for i in range(3)] + ([] if alpha is None else [alpha])
    for place in places:
        plane = _resize(parts.pop(0), width, height, resample)
        for top, end in rows(height, width):
            _put(plane[top:end], place[top:end])
        del plane  # before the next one is made
    return rgb, alpha


def _empty(bands: Bands, width: int, height: int) -> Unit:
    rgb = np.empty((height, width, 3), np.float32)
    return rgb, np.empty((height, width), np.float32) if bands.has_alpha else None


def _resize(plane: NDArray[Any], width: int, height: int, resample: Image.Resampling) -> NDArray[Any]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), resample))


def _put(values: NDArray[Any], place: NDArray[np.float32]) -> None:
    """Put values where they go, as float32 in [0, 1]: lanczos overshoots."""
    if values.dtype == np.uint8:
        np.divide(values, np.float32(255), out=place, dtype=np.float32)
    else:
        np.clip(values, 0, 1, out=place)

"""Images in chunks of rows ("bands"), so that a large image needs no copies in memory."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXELS = 2**21  # of a chunk


class Bands(NamedTuple):
    """An image that is read in chunks of rows.

    Attributes:
        width: width in pixels.
        height: height in pixels.
        has_alpha: whether it has alpha.
        read: function of the first row and the row after the last that returns color `[rows, W, 3]` and alpha
            `[rows, W]` or None, both uint8 or both float32 in [0, 1].
        notes: what a user should know of the file, as ends of sentences.
    """

    width: int
    height: int
    has_alpha: bool
    read: Callable[[int, int], tuple[NDArray[Any], NDArray[Any] | None]]
    notes: tuple[str, ...] = ()


Unit = tuple[NDArray[np.float32], NDArray[np.float32] | None]


def rows(height: int, width: int, *, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Yield the first row of each chunk of an image, and the row after its last.

    Args:
        height: height in pixels.
        width: width in pixels.
        multiple: divisor of the number of rows of each chunk but the last.

    Example:
        >>> list(rows(500, 2**14))
        [(0, 128), (128, 256), (256, 384), (384, 500)]
    """
    step = max(1, PIXELS // (width * multiple)) * multiple
    for top in range(0, height, step):
        yield top, min(top + step, height)


def collected(bands: Bands) -> Unit:
    """Return color `[H, W, 3]` and alpha `[H, W]` of an image at full size, float32 in [0, 1].

    Args:
        bands: the image.

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
    """Return color and alpha of a resized image, float32 in [0, 1].

    8-bit images are resized in 8 bits, plane by plane, with the result of Pillow for the full image. For others, the
    rows of each chunk are resized first, and then the columns of the result, in floating point; Pillow from version 13
    resizes columns first if that is faster, which is the same up to rounding in float32.

    Args:
        bands: the image.
        width: of the result, in pixels.
        height: of the result, in pixels.
        resample: filter of Pillow.

    Example:
        >>> read = lambda top, end: (np.ones((end - top, 20, 3), np.float32), None)
        >>> resized(Bands(20, 30, False, read), 16, 24, Image.Resampling.LANCZOS)[0].max()
        np.float32(1.0)
    """
    parts: list[NDArray[Any]] = []  # planes [H, W], or [H, width] with resized rows
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
        del plane  # before the next one is created
    return rgb, alpha


def _empty(bands: Bands, width: int, height: int) -> Unit:
    rgb = np.empty((height, width, 3), np.float32)
    return rgb, np.empty((height, width), np.float32) if bands.has_alpha else None


def _resize(plane: NDArray[Any], width: int, height: int, resample: Image.Resampling) -> NDArray[Any]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), resample))


def _put(values: NDArray[Any], place: NDArray[np.float32]) -> None:
    """Store values as float32, clipped to [0, 1] because of the overshoot of lanczos."""
    if values.dtype == np.uint8:
        np.divide(values, np.float32(255), out=place, dtype=np.float32)
    else:
        np.clip(values, 0, 1, out=place)

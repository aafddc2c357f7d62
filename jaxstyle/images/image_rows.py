"""Images in chunks of rows, so that a large image needs no copies in memory."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXELS = 2**21  # of a chunk


class RowReader(NamedTuple):
    """An image that is read in chunks of rows."""

    width: int
    height: int
    has_alpha: bool
    # From first row and end: color `[rows, W, 3]` and alpha `[rows, W]` or None, both uint8 or both float32 in [0, 1].
    read: Callable[[int, int], tuple[NDArray[Any], NDArray[Any] | None]]
    notes: tuple[str, ...] = ()  # ends of sentences for the user


Arrays = tuple[NDArray[np.float32], NDArray[np.float32] | None]  # color and alpha in [0, 1]


def row_chunks(height: int, width: int, *, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Yield first row and end of each chunk, of a multiple of `multiple` rows but for the last."""
    step = max(1, PIXELS // (width * multiple)) * multiple
    for top in range(0, height, step):
        yield top, min(top + step, height)


def read_all(reader: RowReader) -> Arrays:
    """Return color `[H, W, 3]` and alpha `[H, W]` of an image at full size, float32 in [0, 1]."""
    rgb, alpha = _empty(reader, reader.width, reader.height)
    for top, end in row_chunks(reader.height, reader.width):
        color, opacity = reader.read(top, end)
        _put(color, rgb[top:end])
        if alpha is not None and opacity is not None:
            _put(opacity, alpha[top:end])
    return rgb, alpha


def read_resized(reader: RowReader, width: int, height: int, resample: Image.Resampling) -> Arrays:
    """Return color and alpha of a resized image, float32 in [0, 1]; 8-bit ones are resized in 8 bits, as in Pillow."""
    parts: list[NDArray[Any]] = []  # planes [H, W], or [H, width] with resized rows
    for top, end in row_chunks(reader.height, max(width, reader.width)):
        color, opacity = reader.read(top, end)
        planes = [color[..., i] for i in range(3)] + ([] if opacity is None else [opacity])
        # For others, rows are resized first; Pillow from version 13 may begin with columns, the same up to rounding.
        complete = color.dtype == np.uint8 or end - top == reader.height
        across = reader.width if complete else width
        parts = parts or [np.empty((reader.height, across), color.dtype) for _ in planes]
        for plane, part in zip(planes, parts, strict=True):
            part[top:end] = plane if complete else _resize(plane, width, end - top, resample)
    rgb, alpha = _empty(reader, width, height)
    outputs = [rgb[..., i] for i in range(3)] + ([] if alpha is None else [alpha])
    for output in outputs:
        plane = _resize(parts.pop(0), width, height, resample)
        for top, end in row_chunks(height, width):
            _put(plane[top:end], output[top:end])
        del plane  # before the next one is created
    return rgb, alpha


def _empty(reader: RowReader, width: int, height: int) -> Arrays:
    rgb = np.empty((height, width, 3), np.float32)
    return rgb, np.empty((height, width), np.float32) if reader.has_alpha else None


def _resize(plane: NDArray[Any], width: int, height: int, resample: Image.Resampling) -> NDArray[Any]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), resample))


def _put(values: NDArray[Any], output: NDArray[np.float32]) -> None:
    """Store values as float32, clipped to [0, 1] because of the overshoot of lanczos."""
    if values.dtype == np.uint8:
        np.divide(values, np.float32(255), out=output, dtype=np.float32)
    else:
        np.clip(values, 0, 1, out=output)

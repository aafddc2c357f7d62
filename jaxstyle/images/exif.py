"""EXIF orientations, 1 to 8; from 5 on rows and columns are swapped."""

from typing import Any

from numpy.typing import NDArray

SWAPPED, UPSIDE_DOWN, MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the width and height of the upright image.

    Args:
        size: width and height as stored, in pixels.
        orientation: 1 to 8; other values mean 1.

    Example:
        >>> upright((33, 24), 6)
        (24, 33)
    """
    width, height = size
    return (height, width) if orientation in SWAPPED else (width, height)


def stored_box(size: tuple[int, int], orientation: int, top: int, end: int) -> tuple[int, int, int, int]:
    """Return the stored box of rows of the upright image: left, top, right and bottom.

    Args:
        size: width and height as stored, in pixels.
        orientation: as for `upright`.
        top: first row.
        end: row after the last.

    Example:
        >>> stored_box((33, 24), 3, 0, 10)
        (0, 14, 33, 24)
    """
    width, height = size
    if orientation in UPSIDE_DOWN:
        along = width if orientation in SWAPPED else height
        top, end = along - end, along - top
    return (top, 0, end, height) if orientation in SWAPPED else (0, top, width, end)


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an upright view of stored pixels.

    Args:
        pixels: `[H, W]` or `[H, W, channels]`.
        orientation: as for `upright`.

    Example:
        >>> turned(np.array([[1, 2, 3]]), 6).tolist()
        [[1], [2], [3]]
    """
    if orientation in SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if orientation in UPSIDE_DOWN else 1, :: -1 if orientation in MIRRORED else 1]

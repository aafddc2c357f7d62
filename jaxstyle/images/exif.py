"""EXIF orientation: from the stored pixels to the upright image and back."""

from typing import Any

from numpy.typing import NDArray
from PIL import ExifTags, Image

SWAPPED, UPSIDE_DOWN, MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)  # orientations, 1 to 8


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation; for a TIFF, Pillow applies and removes it when it loads the pixels."""
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the width and height of the upright image, given those of the stored one."""
    width, height = size
    return (height, width) if orientation in SWAPPED else (width, height)


def stored_box(size: tuple[int, int], orientation: int, top: int, end: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom in the stored image of rows of the upright one."""
    width, height = size
    if orientation in UPSIDE_DOWN:
        count = width if orientation in SWAPPED else height
        top, end = count - end, count - top
    return (top, 0, end, height) if orientation in SWAPPED else (0, top, width, end)


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an upright view of stored pixels, `[H, W]` or `[H, W, channels]`."""
    if orientation in SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if orientation in UPSIDE_DOWN else 1, :: -1 if orientation in MIRRORED else 1]

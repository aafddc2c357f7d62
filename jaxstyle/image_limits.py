"""What a picture file may ask for: limits that are checked before anything of it is unpacked.

Files come from strangers. A few bytes may claim any size, and where a decoder fills in what is missing they even become
a picture of that size.
"""

import os
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFile, TiffImagePlugin

from jaxstyle.errors import InputError
from jaxstyle.image_opening import formats

SHORTEST_SIDE = 16  # pixels: what relu5_1 of VGG needs to have one
MOST_BYTES = 3 * 2**28  # of a file: 16-bit colour with alpha, unpacked, at Pillow's limit
PACKED = 2**25  # pixels up to which any file is believed, such as a mask of two colours; half of that at 16 bits
PIXELS_PER_BYTE = 50  # beyond: photographs have 1 to 30, a JPEG of one colour has 64
MOST_SCANS = 100  # of a progressive JPEG, each of which goes through all pixels; encoders write about ten


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    r"""Return the bytes of a picture file.

    Args:
        path: the file.

    Raises:
        InputError: if it is none, is empty or too large, or may not be read.

    Example:
        >>> read_bytes("content.jpg")[:3]  # doctest: +SKIP
        b'\xff\xd8\xff'
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # a pipe may never end, or begin
            raise InputError(f"{path} is no regular file: name a picture file on disk.")
        if file.is_file() and (count := file.stat().st_size) > MOST_BYTES:
            raise InputError(f"{path} has {count} bytes, over the limit of {MOST_BYTES}: shrink the picture.")
        data = file.read_bytes()
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read ({reason}): name a picture file that you may read.") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes): name a file that holds a picture.")
    return data


def check_sides(name: str, width: int, height: int, *, size: int | None = None) -> None:
    """Raise if a picture is too small for the network or too large for Pillow.

    Args:
        name: what the error message calls it.
        width: pixels.
        height: pixels.
        size: the longest side that was asked for, if that is what made it so.

    Raises:
        InputError: if a side is below 16 pixels or their product over `PIL.Image.MAX_IMAGE_PIXELS`.

    Example:
        >>> check_sides("content.jpg", 979, 734)
    """
    becomes = f"{name} is {width}x{height} pixels" + (f" at size {size}" if size else "")
    if min(width, height) < SHORTEST_SIDE:
        cure = "raise the size or crop the picture" if size else "pass a larger picture"
        raise InputError(f"{becomes}, but both sides must be at least {SHORTEST_SIDE}: {cure}.")
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        cure = "lower the size" if size else "shrink it first"
        raise InputError(f"{becomes}, over Pillow's limit of {Image.MAX_IMAGE_PIXELS} in all: {cure}.")


def check_packing(name: str, image: ImageFile.ImageFile, data: bytes, *, deep: bool) -> None:
    """Raise if a file is too short for the pixels that it claims, or would take long to unpack.

    Args:
        name: what the error message calls it.
        image: the file as opened, not yet unpacked.
        data: all of it.
        deep: whether it has 16 bits a channel, and so takes twice the memory.

    Raises:
        InputError: if it claims over 2^25 pixels and over 50 a byte, tiles far larger than itself, or over 100 scans.

    Example:
        >>> check_packing("content.jpg", Image.open("content.jpg"), data, deep=False)  # doctest: +SKIP
    """
    width, height = image.size
    packed = PACKED // 2 if deep else PACKED
    if width * height > max(packed, PIXELS_PER_BYTE * len(data)):
        raise InputError(
            f"{name} claims {width}x{height} pixels in {len(data)} bytes, but over {packed} pixels must come with a "
            f"byte for each {PIXELS_PER_BYTE}: shrink it first."
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = [image.tag_v2.get(tag, 0) for tag in (322, 323)]
        if not all(isinstance(side, int) for side in tile) or tile[0] * tile[1] > 4 * width * height + 2**20:
            raise InputError(f"{name} has tiles of {tile} pixels, far over its own {width}x{height}: export it again.")
    if image.format in ("JPEG", "MPO") and (scans := _scans(data)) > MOST_SCANS:
        raise InputError(f"{name} goes over its pixels {scans} times, which is over {MOST_SCANS}: export it again.")


def _scans(data: bytes) -> int:
    """Return how often a JPEG goes over its pixels; markers cannot come up inside of a scan."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:  # the segments ahead of the first scan
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    end = data.find(b"\xff\xd9", at)
    return data.count(b"\xff\xda", at, end if end >= 0 else None)


def declared_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in the header, which `Image.open` keeps to itself when they are far over the limit.

    Args:
        data: the whole file.

    Returns:
        The size; 16x16 where it cannot be told.

    Example:
        >>> declared_size(b"")
        (16, 16)
    """
    for factory, accept in map(Image.OPEN.__getitem__, formats()):
        with suppress(Exception), warnings.catch_warnings(action="ignore"):
            if accept and accept(data[:16]):
                return factory(BytesIO(data), "").size
    return SHORTEST_SIDE, SHORTEST_SIDE  # unknown: the format checks the limit itself

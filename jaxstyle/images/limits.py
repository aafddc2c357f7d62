"""Opening of a picture file: the formats that are read, and the limits that are checked before anything is unpacked.

Files come from strangers. A few bytes may claim any size, and where a decoder fills in what is missing they even become
a picture of that size.
"""

import ctypes
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFile, TiffImagePlugin

from jaxstyle.errors import InputError, excerpt

SHORTEST_SIDE = 16  # pixels: what relu5_1 of VGG needs to have one
MOST_PIXELS = 4 * 10**9  # that may be asked for; beyond, other libraries count in too few bits
MOST_BYTES = 3 * 2**28  # of a file: 16-bit colour with alpha, unpacked, at Pillow's limit
BYTES = 9  # a pixel, where more pixels are asked for: the same, and a little
PACKED = 2**25  # pixels up to which any file is believed, such as a mask of two colours; half of that at 16 bits
PIXELS_PER_BYTE = 50  # beyond: photographs have 1 to 30, a JPEG of one colour has 64
MOST_SCANS = 100  # of a progressive JPEG, each of which goes through all pixels; encoders write about ten


def read_bytes(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> bytes:
    r"""Return the bytes of a picture file.

    Args:
        path: the file.
        max_pixels: see `check_sides`; a file may have 9 bytes for each.

    Raises:
        InputError: if it is none, is empty or too large, or may not be read.

    Example:
        >>> read_bytes("content.jpg")[:3]  # doctest: +SKIP
        b'\xff\xd8\xff'
    """
    file, most = Path(path), max(MOST_BYTES, BYTES * (max_pixels or 0))
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # a pipe may never end, or begin
            raise InputError(f"{path} is no regular file: name a picture file on disk.")
        if file.is_file() and (count := file.stat().st_size) > most:
            raise InputError(
                f"{path} has {count} bytes, over the limit of {most}: shrink the picture{allowing(count // BYTES + 1)}."
            )
        data = file.read_bytes()
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read ({reason}): name a picture file that you may read.") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes): name a file that holds a picture.")
    return data


def check_sides(name: str, width: int, height: int, *, size: int | None = None, max_pixels: int | None = None) -> None:
    """Raise if a picture is too small for the network, or larger than is allowed.

    Args:
        name: what the error message calls it.
        width: pixels.
        height: pixels.
        size: the longest side that was asked for, in pixels, if that is what made it so.
        max_pixels: how many pixels it may have; None for `PIL.Image.MAX_IMAGE_PIXELS`.

    Raises:
        InputError: if a side is below 16 pixels, or there are more than `max_pixels` in all.

    Example:
        >>> check_sides("content.jpg", 979, 734)
    """
    becomes = f"{name} is {width}x{height} pixels" + (f" at size {size}" if size else "")
    if min(width, height) < SHORTEST_SIDE:
        cure = "raise the size or crop the picture" if size else "pass a larger picture"
        raise InputError(f"{becomes}, but both sides must be at least {SHORTEST_SIDE}: {cure}.")
    if limit := limit_below(width * height, max_pixels=max_pixels):
        cure = "lower the size" if size else "shrink it first"
        raise InputError(f"{becomes}, over {limit} in all: {cure}{allowing(width * height)}.")


def limit_below(pixels: int, *, max_pixels: int | None = None) -> str:
    """Return what limit is below a number of pixels, in words, or "" if there is none.

    Args:
        pixels: of a picture.
        max_pixels: see `check_sides`.

    Raises:
        InputError: if `max_pixels` is none that may be asked for.

    Example:
        >>> limit_below(10**8), limit_below(10**8, max_pixels=10**9), limit_below(10**8, max_pixels=10**7)
        ("Pillow's limit of 89478485", '', 'the limit of 10000000')
    """
    if max_pixels is not None and not 1 <= max_pixels <= MOST_PIXELS:
        raise InputError(f"max_pixels is {excerpt(max_pixels)}: use a whole number from 1 to {MOST_PIXELS}.")
    limit = pillows_limit() if max_pixels is None else max_pixels
    if not limit or pixels <= limit:
        return ""
    whose = "Pillow's" if max_pixels is None else "the"
    return f"{whose} limit of {limit}"


def allowing(pixels: int) -> str:
    """Return what else helps where there are so many pixels: the option that allows them, if it goes so far.

    Args:
        pixels: of a picture.

    Example:
        >>> allowing(149_999_999)
        ' or allow it with --max-pixels 150MP'
    """
    return f" or allow it with --max-pixels {-(-pixels // 10**6)}MP" if pixels <= MOST_PIXELS else ""


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


def too_large(name: str, data: bytes, error: Exception, *, max_pixels: int | None = None) -> InputError:
    """Return what is told of a picture that Pillow does not even open since it has so many pixels.

    Args:
        name: what the error message calls it.
        data: the whole file.
        error: Pillow's.
        max_pixels: see `check_sides`.

    Example:
        >>> too_large("content.jpg", b"", Image.DecompressionBombError("too many pixels"))
        InputError('content.jpg is too large (too many pixels): shrink it first.')
    """
    try:
        check_sides(name, *declared_size(data, max_pixels=max_pixels), max_pixels=max_pixels)
    except InputError as told:
        return told
    return InputError(f"{name} is too large ({excerpt(error)}): shrink it first.")


def declared_size(data: bytes, *, max_pixels: int | None = None) -> tuple[int, int]:
    """Return the width and height in the header, which `Image.open` keeps to itself when they are far over the limit.

    Args:
        data: the whole file.
        max_pixels: see `check_sides`.

    Returns:
        The size; 16x16 where it cannot be told.

    Example:
        >>> declared_size(b"")
        (16, 16)
    """
    for factory, accept in map(Image.OPEN.__getitem__, formats()):
        with suppress(Exception), raised(max_pixels), warnings.catch_warnings(action="ignore"):
            if accept and accept(data[:16]):
                return factory(BytesIO(data), "").size
    return SHORTEST_SIDE, SHORTEST_SIDE  # unknown: the format checks the limit itself


FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")  # EPS, for one, would be a program
_LIMIT = threading.RLock()  # held while Pillow's limit, which is one for the whole process, is another


def formats() -> tuple[str, ...]:
    """Return which of the formats that are read this Pillow has been built with.

    Example:
        >>> formats()[:2]
        ('PNG', 'JPEG')
    """
    if not set(FORMATS) <= Image.OPEN.keys():
        Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def pillows_limit() -> int | None:
    """Return how many pixels Pillow opens without a warning, None for any number; twice as many are an error to it.

    While a larger picture is open by `raised`, this waits.

    Example:
        >>> pillows_limit()
        89478485
    """
    with _LIMIT:
        return Image.MAX_IMAGE_PIXELS


@contextmanager
def raised(max_pixels: int | None) -> Iterator[None]:
    """Let Pillow open pictures of so many pixels, until what is inside has ended.

    Args:
        max_pixels: None, or fewer than Pillow's limit, to leave that as it is.

    Example:
        >>> with raised(10**9):
        ...     Image.MAX_IMAGE_PIXELS
        1000000000
    """
    limit = pillows_limit()
    if max_pixels is None or limit is None or max_pixels <= limit:
        yield
        return
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def opened(data: bytes, *, max_pixels: int | None = None) -> Iterator[ImageFile.ImageFile]:
    """Open a picture file, of which only the header is read at first.

    Args:
        data: the whole file; nothing of it is trusted. What is loaded of the picture stays when it is closed.
        max_pixels: see `raised`.

    Raises:
        Exception: almost any, from `PIL.UnidentifiedImageError` to struct.error, here or when the pixels are read.

    Example:
        >>> with opened(open("content.jpg", "rb").read()) as image:  # doctest: +SKIP
        ...     image.size
        (979, 734)
    """
    _silence()
    # ignored are remarks on metadata and, since `limits.check_sides` is stricter, on the number of pixels
    with raised(max_pixels), warnings.catch_warnings(action="ignore"), BytesIO(data) as file:
        with Image.open(file, formats=formats()) as image:
            yield image


@cache
def _silence() -> None:
    """Keep the libraries below from writing to stderr; what is wrong with a file is raised all the same."""
    for library in ("PIL", "imagecodecs"):
        logging.getLogger(library).addHandler(logging.NullHandler())  # in place of Python's last resort, stderr
    with suppress(AttributeError, OSError, ImportError):  # where libtiff is linked in another way, it goes on writing
        from PIL import _imaging

        libtiff = ctypes.CDLL(_imaging.__file__)
        for handler in (libtiff.TIFFSetErrorHandler, libtiff.TIFFSetWarningHandler):
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)

"""Opening of image files: supported formats, and limits that are checked before decoding.

Files are untrusted. A few bytes may claim any image size, and some decoders fill in missing data and allocate that
size.
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

SHORTEST_SIDE = 16  # pixels; the minimum for relu5_1 of VGG
MOST_PIXELS = 4 * 10**9  # maximum of --max-pixels; beyond, integers of other libraries overflow
MOST_BYTES = 3 * 2**28  # of a file: uncompressed 16-bit color with alpha at Pillow's limit
BYTES = 9  # per pixel, with a higher --max-pixels: the same, rounded up
PACKED = 2**25  # pixels that any file may have, such as a mask of two colors; half of that at 16 bits
PIXELS_PER_BYTE = 50  # limit beyond that: photographs have 1 to 30, a JPEG of one color has 64
MOST_SCANS = 100  # of a progressive JPEG, each of which decodes all pixels; encoders write about ten


def read_bytes(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> bytes:
    r"""Return the bytes of an image file.

    Args:
        path: the file.
        max_pixels: see `check_sides`; a file may have 9 bytes per pixel.

    Raises:
        InputError: if it is not a file, is empty or too large, or cannot be read.

    Example:
        >>> read_bytes("content.jpg")[:3]  # doctest: +SKIP
        b'\xff\xd8\xff'
    """
    file, most = Path(path), max(MOST_BYTES, BYTES * (max_pixels or 0))
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # reading a pipe may block forever
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
    """Check that an image is neither too small for the network nor larger than the limit.

    Args:
        name: name of the image in the error message.
        width: width in pixels.
        height: height in pixels.
        size: requested longest side in pixels, if the image was resized.
        max_pixels: maximum number of pixels; None for `PIL.Image.MAX_IMAGE_PIXELS`.

    Raises:
        InputError: if a side is below 16 pixels, or if there are more than `max_pixels` pixels.

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
    """Return a phrase for the limit that a number of pixels exceeds, or "".

    Args:
        pixels: number of pixels.
        max_pixels: see `check_sides`.

    Raises:
        InputError: if `max_pixels` is out of range.

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
    """Return a phrase for the option that allows this many pixels, or "" beyond its maximum.

    Args:
        pixels: number of pixels.

    Example:
        >>> allowing(149_999_999)
        ' or allow it with --max-pixels 150MP'
    """
    return f" or allow it with --max-pixels {-(-pixels // 10**6)}MP" if pixels <= MOST_PIXELS else ""


def check_packing(name: str, image: ImageFile.ImageFile, data: bytes, *, deep: bool) -> None:
    """Check that a file is not too short for its number of pixels, and not too slow to decode.

    Args:
        name: name of the image in the error message.
        image: the opened file, not yet decoded.
        data: contents of the file.
        deep: whether it has 16 bits per channel, and so takes twice the memory.

    Raises:
        InputError: if it has over 2^25 pixels and over 50 per byte, tiles far larger than the image, or over 100 scans.

    Example:
        >>> check_packing("content.jpg", Image.open("content.jpg"), data, deep=False)  # doctest: +SKIP
    """
    width, height = image.size
    packed = PACKED // 2 if deep else PACKED
    if width * height > max(packed, PIXELS_PER_BYTE * len(data)):
        raise InputError(
            f"{name} claims {width}x{height} pixels in {len(data)} bytes, but over {packed} pixels a file needs one "
            f"byte per {PIXELS_PER_BYTE} pixels: shrink it first."
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = [image.tag_v2.get(tag, 0) for tag in (322, 323)]
        if not all(isinstance(side, int) for side in tile) or tile[0] * tile[1] > 4 * width * height + 2**20:
            raise InputError(f"{name} has tiles of {tile} pixels, far over its {width}x{height}: export it again.")
    if image.format in ("JPEG", "MPO") and (scans := _scans(data)) > MOST_SCANS:
        raise InputError(f"{name} has {scans} scans, over the limit of {MOST_SCANS}: export it again.")


def _scans(data: bytes) -> int:
    """Return the number of scans of a JPEG; a scan cannot contain markers."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:  # segments before the first scan
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    end = data.find(b"\xff\xd9", at)
    return data.count(b"\xff\xda", at, end if end >= 0 else None)


def too_large(name: str, data: bytes, error: Exception, *, max_pixels: int | None = None) -> InputError:
    """Return the error for an image that Pillow refuses to open because of its number of pixels.

    Args:
        name: name of the image in the error message.
        data: contents of the file.
        error: the error of Pillow.
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
    """Return the width and height in the header, also for images far over the limit, for which `Image.open` raises.

    Args:
        data: contents of the file.
        max_pixels: see `check_sides`.

    Returns:
        The size; 16x16 if it is unknown.

    Example:
        >>> declared_size(b"")
        (16, 16)
    """
    for factory, accept in map(Image.OPEN.__getitem__, formats()):
        with suppress(Exception), raised(max_pixels), warnings.catch_warnings(action="ignore"):
            if accept and accept(data[:16]):
                return factory(BytesIO(data), "").size
    return SHORTEST_SIDE, SHORTEST_SIDE  # unknown: the decoder of the format checks the limit


FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")  # not EPS, which is a program
_LIMIT = threading.RLock()  # held while Pillow's limit, global to the process, is changed


def formats() -> tuple[str, ...]:
    """Return the supported formats that this build of Pillow has.

    Example:
        >>> formats()[:2]
        ('PNG', 'JPEG')
    """
    if not set(FORMATS) <= Image.OPEN.keys():
        Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def pillows_limit() -> int | None:
    """Return the number of pixels that Pillow opens without a warning, None for no limit; over twice that is an error.

    It waits while `raised` is active.

    Example:
        >>> pillows_limit()
        89478485
    """
    with _LIMIT:
        return Image.MAX_IMAGE_PIXELS


@contextmanager
def raised(max_pixels: int | None) -> Iterator[None]:
    """Raise Pillow's limit to this many pixels within the context.

    Args:
        max_pixels: the limit; None, or less than Pillow's limit, for no change.

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
    """Open an image file and read its header.

    Args:
        data: contents of the file, untrusted. Loaded pixels stay available after it is closed.
        max_pixels: see `raised`.

    Raises:
        Exception: almost any, from `PIL.UnidentifiedImageError` to struct.error, here or when pixels are read.

    Example:
        >>> with opened(open("content.jpg", "rb").read()) as image:  # doctest: +SKIP
        ...     image.size
        (979, 734)
    """
    _silence()
    # Ignores warnings about metadata and, since `limits.check_sides` is stricter, about the number of pixels.
    with raised(max_pixels), warnings.catch_warnings(action="ignore"), BytesIO(data) as file:
        with Image.open(file, formats=formats()) as image:
            yield image


@cache
def _silence() -> None:
    """Keep imaging libraries from writing to stderr; errors are still raised."""
    for library in ("PIL", "imagecodecs"):
        logging.getLogger(library).addHandler(logging.NullHandler())  # instead of Python's default, stderr
    with suppress(AttributeError, OSError, ImportError):  # not possible if libtiff is linked differently
        from PIL import _imaging

        libtiff = ctypes.CDLL(_imaging.__file__)
        for handler in (libtiff.TIFFSetErrorHandler, libtiff.TIFFSetWarningHandler):
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)

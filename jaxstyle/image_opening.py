"""How a picture file is opened: as one of the kinds that are read, and with nothing said on stderr about it."""

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO

from PIL import Image, ImageFile

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
    # ignored are remarks on metadata and, since `image_limits.check_sides` is stricter, on the number of pixels
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

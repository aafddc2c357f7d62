"""How a picture file is opened: as one of the kinds that are read, and with nothing said on stderr about it."""

import ctypes
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO

from PIL import Image, ImageFile

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")  # EPS, for one, would be a program


def formats() -> tuple[str, ...]:
    """Return which of the formats that are read this Pillow has been built with.

    Example:
        >>> formats()[:2]
        ('PNG', 'JPEG')
    """
    if not set(FORMATS) <= Image.OPEN.keys():
        Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


@contextmanager
def opened(data: bytes) -> Iterator[ImageFile.ImageFile]:
    """Open a picture file, of which only the header is read at first.

    Args:
        data: the whole file; nothing of it is trusted.

    Raises:
        Exception: almost any, from `PIL.UnidentifiedImageError` to struct.error, here or when the pixels are read.

    Example:
        >>> with opened(open("content.jpg", "rb").read()) as image:  # doctest: +SKIP
        ...     image.size
        (979, 734)
    """
    _silence()
    # ignored are remarks on metadata and, since `image_limits.check_sides` is stricter, on the number of pixels
    with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(data), formats=formats()) as image:
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

"""Metadata of an image file: the description that `save_image` writes.

A description is ASCII text: a text chunk of a PNG, the EXIF ImageDescription of other files.
"""

import os

from PIL import ExifTags

from jaxstyle.errors import InputError
from jaxstyle.images.formats import UnsupportedFormatError, opened
from jaxstyle.images.limits import read_bytes

KEYWORD = "jaxstyle"  # of the text chunk of a PNG


def description_of(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> str:
    """Return the description that `save_image` wrote to an image file, or ""; an `InputError` if it cannot be read."""
    data = read_bytes(path, max_pixels=max_pixels)
    try:
        with opened(data, str(path), max_pixels=max_pixels) as image:
            if image.format == "PNG":
                return str(image.info.get(KEYWORD, ""))
            return str(image.getexif().get(ExifTags.Base.ImageDescription, ""))
    except UnsupportedFormatError:
        return ""
    except (InputError, MemoryError):
        raise
    except Exception:  # for damaged files Pillow raises almost anything
        return ""

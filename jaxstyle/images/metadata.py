"""Metadata of an image file: the description that `save_image` writes.

A description is ASCII text: a text chunk of a PNG, the EXIF ImageDescription of other files.
"""

import os

from PIL import ExifTags, Image

from jaxstyle.images.limits import opened, read_bytes, too_large

KEYWORD = "jaxstyle"  # of the text chunk of a PNG


def description_of(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> str:
    """Return the description that `save_image` wrote to an image file, or "".

    Args:
        path: any image file, untrusted.
        max_pixels: as for `load_image`.

    Raises:
        InputError: if the file cannot be read, or has far more pixels.

    Example:
        >>> description_of("out.png")  # doctest: +SKIP
        '{"format": "jaxstyle run 1", ...}'
    """
    data = read_bytes(path, max_pixels=max_pixels)
    try:
        return described(data, max_pixels=max_pixels)
    except Image.DecompressionBombError as error:
        raise too_large(str(path), data, error, max_pixels=max_pixels) from error


def described(data: bytes, *, max_pixels: int | None = None) -> str:
    """Return the description of an image file, "" if it has none or is not an image file.

    Args:
        data: contents of the file, untrusted; pixels are not decoded.
        max_pixels: as for `load.load_image`.

    Raises:
        PIL.Image.DecompressionBombError: if it has far more pixels.

    Example:
        >>> described(b"no picture")
        ''
    """
    try:
        with opened(data, max_pixels=max_pixels) as image:
            if image.format == "PNG":
                return str(image.info.get(KEYWORD, ""))
            return str(image.getexif().get(ExifTags.Base.ImageDescription, ""))
    except Image.DecompressionBombError:
        raise
    except Exception:  # for damaged files Pillow raises almost anything
        return ""

"""Metadata of a picture file: the description that `save_image` writes, read back.

A description is text in ASCII that no viewer shows: a text chunk of a PNG, the EXIF ImageDescription of other files.
"""

import os

from PIL import ExifTags, Image

from jaxstyle.images.limits import opened, read_bytes, too_large

KEYWORD = "jaxstyle"  # of a PNG's text chunk


def description_of(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> str:
    """Return what a picture file says of itself, as `save_image` has written it, or "".

    Args:
        path: any picture file; nothing of it is trusted.
        max_pixels: as of `load_image`.

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
    """Return what a picture file says of itself, "" if it says nothing or is none.

    Args:
        data: the whole file; nothing of it is trusted, and no pixel is decoded.
        max_pixels: as of `load.load_image`.

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
    except Exception:  # on damaged data Pillow raises almost anything
        return ""

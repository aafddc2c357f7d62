"""Pixels to the bytes of a picture file, and what the file says of itself: Pillow lives here too.

A description is text in ASCII that no viewer shows: a text chunk of a PNG, the EXIF ImageDescription of other files.
"""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from jaxstyle.image_opening import opened

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
KEYWORD = "jaxstyle"  # of the PNG's text chunk
HEADER = 33  # bytes of a PNG's signature and first chunk


def encode(pixels: NDArray[Any], container: str, *, description: str = "") -> bytes:
    """Return the bytes of a picture file.

    Args:
        pixels: uint8 or uint16, `[H, W, 3]` or, with opacity, `[H, W, 4]`.
        container: one of `FORMATS`' values; uint16 as "PNG" or "TIFF" only.
        description: ASCII, up to 64 KB in a JPEG.

    Raises:
        OSError, ValueError, RuntimeError: if the format cannot hold so many pixels or so long a description.

    Example:
        >>> encode(np.zeros((16, 16, 3), np.uint8), "PNG")[1:4]
        b'PNG'
    """
    if container == "PNG":
        return _described_png(_plain_png(pixels), description)
    if pixels.dtype == np.uint8:
        buffer, exif = BytesIO(), Image.Exif()
        if description:
            exif[ExifTags.Base.ImageDescription] = description
        Image.fromarray(pixels).save(buffer, container, exif=exif, **OPTIONS[container])
        return buffer.getvalue()
    import imagecodecs  # Pillow cannot write 16-bit colour; other pictures need not wait for this import

    how: Any = {"photometric": "rgb", "compression": "deflate", "predictor": True}
    return bytes(imagecodecs.tiff_encode(pixels, description=description or None, **how))


def _plain_png(pixels: NDArray[Any]) -> bytes:
    if pixels.dtype == np.uint8:
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", **OPTIONS["PNG"])
        return buffer.getvalue()
    import imagecodecs

    return bytes(imagecodecs.png_encode(pixels))


def _described_png(data: bytes, description: str) -> bytes:
    """Return a PNG with a text chunk after its header, as neither Pillow nor imagecodecs writes it at 16 bits."""
    if not description:
        return data
    body = b"tEXt" + KEYWORD.encode() + b"\0" + description.encode("ascii")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:HEADER] + chunk + data[HEADER:]


def described(data: bytes, *, max_pixels: int | None = None) -> str:
    """Return what a picture file says of itself, "" if it says nothing or is none.

    Args:
        data: the whole file; nothing of it is trusted, and no pixel is decoded.
        max_pixels: as of `image.load`.

    Example:
        >>> described(encode(np.zeros((16, 16, 3), np.uint8), "PNG", description="all black"))
        'all black'
    """
    try:
        with opened(data, max_pixels=max_pixels) as image:
            if image.format == "PNG":
                return str(image.info.get(KEYWORD, ""))
            return str(image.getexif().get(ExifTags.Base.ImageDescription, ""))
    except Exception:  # on damaged data Pillow raises almost anything
        return ""

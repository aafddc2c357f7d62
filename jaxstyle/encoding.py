"""Pictures to the bytes of a file, and what the file says of itself: Pillow lives here too.

A description is text in ASCII that no viewer shows: a text chunk of a PNG, the EXIF ImageDescription of other files.
"""

from io import BytesIO
from typing import Any, BinaryIO

from PIL import ExifTags, Image, PngImagePlugin

from jaxstyle.bands import rows
from jaxstyle.encoding_large import KEYWORD, text_chunk, write_png, write_tiff
from jaxstyle.image_opening import opened
from jaxstyle.levels import Levels

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
LARGE = 2**25  # pixels from which on no encoder is given all integers at once, if there is another way
HEADER = 33  # bytes of a PNG's signature and first chunk


def write(file: BinaryIO, levels: Levels, container: str, *, description: str = "") -> None:
    """Write a picture: 8 bits by Pillow, which copies them, and 16 by imagecodecs, or, if it is large, band by band.

    Args:
        file: to be written from its beginning.
        levels: the picture; with 16 bits as "PNG" or "TIFF" only.
        container: one of `FORMATS`' values.
        description: ASCII, up to 64 KB in a JPEG.

    Raises:
        OSError, ValueError, RuntimeError: if the format cannot hold so many pixels or so long a description; an OSError
            with a number is the file's.

    Example:
        >>> file = BytesIO()
        >>> write(file, Levels(np.zeros((16, 16, 3), np.float32)), "PNG")
        >>> file.getvalue()[1:4]
        b'PNG'
    """
    large = levels.height * levels.width > LARGE
    if container == "TIFF" and large:
        write_tiff(file, levels, description=description)
    elif container == "PNG" and levels.bits == 16 and large:
        write_png(file, levels, description=description)
    elif levels.bits == 16:
        _write_16_bits(file, levels, container, description)
    elif container == "PNG":
        told = PngImagePlugin.PngInfo()
        if description:
            told.add_text(KEYWORD, description.encode("ascii"))
        _image(levels).save(file, "PNG", pnginfo=told)
    else:
        buffer, exif = BytesIO(), Image.Exif()
        if description:
            exif[ExifTags.Base.ImageDescription] = description
        _image(levels).save(buffer, container, exif=exif, **OPTIONS[container])
        file.write(buffer.getbuffer())


def _image(levels: Levels) -> Image.Image:
    image = Image.new("RGB" if levels.channels == 3 else "RGBA", (levels.width, levels.height))
    for top, end in rows(levels.height, levels.width):
        image.paste(Image.fromarray(levels.integers(top, end)), (0, top))
    return image


def _write_16_bits(file: BinaryIO, levels: Levels, container: str, description: str) -> None:
    import imagecodecs  # Pillow cannot write 16-bit colour; other pictures need not wait for this import

    pixels = levels.integers(0, levels.height)
    if container == "TIFF":  # into zeros, since libtiff leaves the byte after an odd number of them as it was
        how: Any = {"photometric": "rgb", "compression": "deflate", "predictor": True}
        room = bytearray(pixels.nbytes + pixels.nbytes // 100 + len(description) + 2**16)
        file.write(imagecodecs.tiff_encode(pixels, description=description or None, out=room, **how))
        return
    data = memoryview(imagecodecs.png_encode(pixels))
    for part in (data[:HEADER], text_chunk(description), data[HEADER:]):
        file.write(part)


def described(data: bytes, *, max_pixels: int | None = None) -> str:
    """Return what a picture file says of itself, "" if it says nothing or is none.

    Args:
        data: the whole file; nothing of it is trusted, and no pixel is decoded.
        max_pixels: as of `image.load`.

    Raises:
        PIL.Image.DecompressionBombError: if it has far more pixels.

    Example:
        >>> file = BytesIO()
        >>> write(file, Levels(np.zeros((16, 16, 3), np.float32)), "PNG", description="all black")
        >>> described(file.getvalue())
        'all black'
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

"""Arrays to image files: PNG, JPEG, WebP and TIFF, with a description in the metadata.

Large images are written in chunks of rows, without an integer copy or the file in memory: tiled TIFF by tifffile, and
16-bit PNG by zlib, since no available library writes it row by row.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image, PngImagePlugin

from jaxstyle.errors import InputError
from jaxstyle.files import atomic_write
from jaxstyle.images.image_rows import rows
from jaxstyle.images.metadata import KEYWORD
from jaxstyle.images.quantize import Levels


def check_output(path: str | os.PathLike[str], *, bits: int = 8, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Check before a long run that `save_image` can write `path` and does not overwrite an input.

    Args:
        path: the file to be written.
        bits: 8, or 16 for PNG and TIFF.
        inputs: files that must not be overwritten.

    Raises:
        InputError: if the file cannot be written or is an input.

    Example:
        >>> check_output("out.png", bits=16, inputs=["content.jpg"])
    """
    target = Path(os.path.realpath(path))
    try:
        is_folder = target.is_dir()
    except OSError as error:  # such as a name that is too long, or a parent folder without permission
        raise InputError(f"{path} cannot be written ({error.strerror}): name another output.") from error
    if is_folder:
        raise InputError(f"{path} is a folder: name a file in it, such as {Path(path) / 'out.png'}.")
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path} has the suffix {suffix!r}, which is none of {', '.join(FORMATS)}: use one of these.")
    if bits not in (8, 16):
        raise InputError(f"{path} cannot have {bits} bits per channel: use 8 or 16.")
    if bits == 16 and FORMATS[suffix] not in ("PNG", "TIFF"):
        raise InputError(f"{path} cannot hold 16 bits per channel as {FORMATS[suffix]}: use .png or .tiff, or 8 bits.")
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
        raise InputError(
            f"{path} needs a folder {target.parent} that exists and is writable: create it or use another."
        )
    for source in inputs:
        if target.exists() and os.path.exists(source) and target.samefile(source):
            raise InputError(f"{path} is the same file as the input {source}: name another output.")


def save_image(
    path: str | os.PathLike[str],
    rgb: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    bits: int = 8,
    description: str = "",
) -> None:
    """Write an image file atomically: PNG, JPEG (quality 95, 4:4:4), WebP (lossless) or TIFF, by suffix.

    Args:
        path: the file to write or replace.
        rgb: `[H, W, 3]`, sRGB; clipped to [0, 1] and rounded.
        alpha: `[H, W]` in [0, 1]; a JPEG, which has no alpha, is composited on white.
        bits: 8, or 16 for PNG and TIFF.
        description: text for the metadata, see `description_of`; ASCII, up to 64 KB in a JPEG.

    Raises:
        InputError: if `check_output` rejects `path`, the image is too large for the format, or values are NaN.
        UnavailableError: if writing fails, as on a full disk.

    Example:
        >>> save("out.png", np.zeros((16, 16, 3)), bits=16)  # doctest: +SKIP
    """
    check_output(path, bits=bits)
    container = FORMATS[Path(path).suffix.lower()]
    shape = np.shape(rgb)
    if len(shape) != 3 or shape[-1] != 3:
        raise ValueError(f"A picture is [H, W, 3], not {shape}.")
    opacity = None if alpha is None else np.asarray(alpha)
    levels = Levels(np.asarray(rgb), opacity, bits, on_white=container == "JPEG")
    bands = list(rows(levels.height, levels.width))
    if missing := sum(int(np.isnan(levels.floats(top, end)).sum()) for top, end in bands):
        raise InputError(f"{path} would hold {missing} values that are not numbers: lower the step size.")
    with atomic_write(path) as part, part.open("wb") as file:
        try:
            write(file, levels, container, description=description)
        except (OSError, ValueError, RuntimeError) as error:  # WebP is limited to 16383 pixels per side, JPEG to 65500
            if isinstance(error, OSError) and error.errno:  # as on a full disk
                raise
            size = f"{levels.width}x{levels.height}"
            raise InputError(f"{path} cannot hold {size} pixels as {container} ({error}): save it as PNG.") from error


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
LARGE = 2**25  # pixels above which images are written in chunks, where possible
HEADER = 33  # bytes of the signature and first chunk of a PNG


def write(file: BinaryIO, levels: Levels, container: str, *, description: str = "") -> None:
    """Write an image: 8 bits by Pillow, which copies it, 16 bits by imagecodecs, large images in chunks of rows.

    Args:
        file: an empty file.
        levels: the image; with 16 bits as "PNG" or "TIFF" only.
        container: a value of `FORMATS`.
        description: ASCII, up to 64 KB in a JPEG.

    Raises:
        OSError, ValueError, RuntimeError: if image or description are too large for the format; an OSError with an
            errno is of the file.

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
    import imagecodecs  # Pillow cannot write 16-bit color; slow import, only when needed

    pixels = levels.integers(0, levels.height)
    if container == "TIFF":  # into zeros, since libtiff does not set the padding byte after an odd number of bytes
        how: Any = {"photometric": "rgb", "compression": "deflate", "predictor": True}
        room = bytearray(pixels.nbytes + pixels.nbytes // 100 + len(description) + 2**16)
        file.write(imagecodecs.tiff_encode(pixels, description=description or None, out=room, **how))
        return
    data = memoryview(imagecodecs.png_encode(pixels))
    for part in (data[:HEADER], text_chunk(description), data[HEADER:]):
        file.write(part)


TILE = 256  # pixels of a side
MOST_CLASSIC = 2**32 - 2**25  # bytes of a TIFF other than BigTIFF, which has 32-bit offsets
BUFFER = 2**26  # bytes of tiles that tifffile compresses at a time


def write_tiff(file: BinaryIO, levels: Levels, *, description: str = "") -> None:
    """Write a compressed, tiled TIFF; a BigTIFF if it has over 4 GB uncompressed.

    Args:
        file: an empty file.
        levels: the image.
        description: ASCII.

    Example:
        >>> with open("out.tif", "wb") as file:  # doctest: +SKIP
        ...     write_tiff(file, Levels(np.zeros((16, 16, 3))))
    """
    import tifffile

    shape = (levels.height, levels.width, levels.channels)
    count = levels.height * levels.width * levels.channels * levels.dtype.itemsize
    with tifffile.TiffWriter(file, bigtiff=count > MOST_CLASSIC, byteorder="<") as writer:
        writer.write(
            _tiles(levels),
            shape=shape,
            dtype=levels.dtype,
            tile=(TILE, TILE),
            photometric="rgb",
            planarconfig="contig",
            extrasamples=["unassalpha"] if levels.channels == 4 else None,
            compression="adobe_deflate",
            predictor=True,
            description=description or None,
            metadata=None,
            software=False,
            buffersize=BUFFER,
        )


def _tiles(levels: Levels) -> Iterator[NDArray[Any]]:
    for top, end in rows(levels.height, levels.width, multiple=TILE):
        band = levels.integers(top, end)
        for y in range(0, end - top, TILE):
            for x in range(0, levels.width, TILE):
                tile = band[y : y + TILE, x : x + TILE]
                missing = [(0, TILE - side) for side in tile.shape[:2]]
                yield np.pad(tile, [*missing, (0, 0)]) if tile.shape[:2] != (TILE, TILE) else tile


def write_png(file: BinaryIO, levels: Levels, *, description: str = "") -> None:
    """Write a PNG with the filter "Sub", the difference from the pixel to the left.

    Args:
        file: an empty file.
        levels: the image.
        description: ASCII.

    Example:
        >>> with open("out.png", "wb") as file:  # doctest: +SKIP
        ...     write_png(file, Levels(np.zeros((16, 16, 3)), bits=16))
    """
    colour = {3: 2, 4: 6}[levels.channels]
    header = struct.pack(">IIBBBBB", levels.width, levels.height, levels.bits, colour, 0, 0, 0)
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text_chunk(description))
    squeeze, pixel = zlib.compressobj(), levels.channels * levels.dtype.itemsize
    for top, end in rows(levels.height, levels.width):
        stored = levels.integers(top, end).astype(levels.dtype.newbyteorder(">"))
        whole = stored.view(np.uint8).reshape(end - top, -1)  # [rows, bytes]
        lines = np.empty((end - top, 1 + whole.shape[1]), np.uint8)
        lines[:, 0] = 1  # the filter "Sub"
        lines[:, 1 : 1 + pixel] = whole[:, :pixel]
        np.subtract(whole[:, pixel:], whole[:, :-pixel], out=lines[:, 1 + pixel :])
        if data := squeeze.compress(lines.data):
            file.write(chunk(b"IDAT", data))
    file.write(chunk(b"IDAT", squeeze.flush()) + chunk(b"IEND", b""))


def text_chunk(description: str) -> bytes:
    r"""Return the text chunk of a PNG for a description; empty without one.

    Args:
        description: ASCII.

    Example:
        >>> text_chunk("all black")[4:17]
        b'tEXtjaxstyle\x00'
    """
    return chunk(b"tEXt", KEYWORD.encode() + b"\0" + description.encode("ascii")) if description else b""


def chunk(kind: bytes, data: bytes) -> bytes:
    r"""Return a chunk of a PNG: length, kind, data and checksum.

    Args:
        kind: four letters.
        data: contents.

    Example:
        >>> chunk(b"IEND", b"")
        b'\x00\x00\x00\x00IEND\xaeB`\x82'
    """
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

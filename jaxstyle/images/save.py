"""Arrays to image files: PNG, JPEG, WebP and TIFF, with a description in the metadata.

Large images are written in chunks of rows, without an integer copy or the file in memory: tiled TIFF by tifffile, and
16-bit PNG by zlib, since no available library writes it row by row.
"""

import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image, PngImagePlugin

from jaxstyle.errors import InputError
from jaxstyle.files import atomic_write
from jaxstyle.images.formats import PNG, png_chunk
from jaxstyle.images.image_rows import row_chunks
from jaxstyle.images.metadata import KEYWORD


def check_output(path: str | os.PathLike[str], *, bits: int = 8, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Check before a long run that `save_image` can write `path` and does not overwrite an input.

    Args:
        path: the file to be written.
        bits: 8, or 16 for PNG and TIFF.
        inputs: files that must not be overwritten.

    Raises:
        InputError: if the file cannot be written or is an input.
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
        InputError: if `check_output` rejects `path`, if `rgb` is not a floating-point image or has NaN, or if the image
            is too large for the format.
        UnavailableError: if writing fails, as on a full disk.

    Example:
        >>> save_image("out.png", np.zeros((16, 16, 3)), bits=16)  # doctest: +SKIP
    """
    check_output(path, bits=bits)
    container = FORMATS[Path(path).suffix.lower()]
    pixels = np.asarray(rgb)
    shape = pixels.shape
    if len(shape) != 3 or shape[-1] != 3 or pixels.dtype.kind in "iucOSU":
        raise InputError(
            f"{path} would hold an array {pixels.dtype}{list(shape)}, not a picture: pass float32 [H, W, 3] in [0, 1]"
            f"{', divided by 255.' if pixels.dtype.kind in 'iu' else '.'}"
        )
    opacity = None if alpha is None else np.asarray(alpha)
    levels = Levels(pixels, opacity, bits, on_white=container == "JPEG")
    chunks = row_chunks(*shape[:2])
    if missing := sum(int(np.isnan(levels.floats(top, end)).sum()) for top, end in chunks):
        raise InputError(f"{path} would hold {missing} values that are not numbers: lower the step size.")
    with atomic_write(path) as part, part.open("wb") as file:
        try:
            write(file, levels, container, description=description)
        except (OSError, ValueError, RuntimeError) as error:  # WebP is limited to 16383 pixels per side, JPEG to 65500
            if isinstance(error, OSError) and error.errno:  # as on a full disk
                raise
            size = f"{shape[1]}x{shape[0]}"
            raise InputError(f"{path} cannot hold {size} pixels as {container} ({error}): save it as PNG.") from error


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
LARGE = 2**25  # pixels above which images are written in chunks, where possible
PNG_HEADER = 33  # bytes of the signature and first chunk of a PNG
TILE = 256  # pixels of a side of a tile of a TIFF
MOST_CLASSIC = 2**32 - 2**25  # bytes of a TIFF other than BigTIFF, which has 32-bit offsets
BUFFER = 2**26  # bytes of tiles that tifffile compresses at a time


class Levels(NamedTuple):
    """An image whose values are clipped and rounded to integers on access, a chunk of rows at a time.

    `rgb` is `[H, W, 3]`, `alpha` is `[H, W]` or None, both in [0, 1]; `on_white` composites, for files without alpha.
    """

    rgb: NDArray[Any]
    alpha: NDArray[Any] | None = None
    bits: int = 8
    on_white: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, and 3 channels, or 4 with alpha."""
        height, width, _ = self.rgb.shape
        return height, width, 3 if self.alpha is None or self.on_white else 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the integers."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    def floats(self, top: int, end: int) -> NDArray[np.float32]:
        """Return rows before rounding, float32 `[rows, W, channels]` in [0, 1] or NaN."""
        rgb = np.clip(np.asarray(self.rgb[top:end], np.float32), 0, 1)
        if self.alpha is None:
            return rgb
        opacity = np.clip(np.asarray(self.alpha[top:end], np.float32), 0, 1)[..., None]
        return rgb * opacity + 1 - opacity if self.on_white else np.concatenate([rgb, opacity], -1)

    def integers(self, top: int, end: int) -> NDArray[Any]:
        """Return rows of the file, `[rows, W, channels]`."""
        values = self.floats(top, end)
        values *= 2**self.bits - 1
        return np.rint(values, out=values).astype(self.dtype)


def write(file: BinaryIO, levels: Levels, container: str, *, description: str = "") -> None:
    """Write an image: 8 bits by Pillow, which copies it, 16 bits by imagecodecs, large images in chunks of rows.

    The description is ASCII, of up to 64 KB in a JPEG. An `OSError` with an errno is of the file; an `OSError` without
    one, a `ValueError` or a `RuntimeError` means that image or description are too large for the format.
    """
    height, width, _ = levels.shape
    large = height * width > LARGE
    if container == "TIFF" and large:
        _write_tiled_tiff(file, levels, description)
    elif container == "PNG" and levels.bits == 16 and large:
        _write_png(file, levels, description)
    elif levels.bits == 16:
        _write_16_bits(file, levels, container, description)
    elif container == "PNG":
        text = PngImagePlugin.PngInfo()
        if description:
            text.add_text(KEYWORD, description.encode("ascii"))
        _image(levels).save(file, "PNG", pnginfo=text)
    else:
        buffer, exif = BytesIO(), Image.Exif()
        if description:
            exif[ExifTags.Base.ImageDescription] = description
        _image(levels).save(buffer, container, exif=exif, **OPTIONS[container])
        file.write(buffer.getbuffer())


def _image(levels: Levels) -> Image.Image:
    height, width, channels = levels.shape
    image = Image.new("RGB" if channels == 3 else "RGBA", (width, height))
    for top, end in row_chunks(height, width):
        image.paste(Image.fromarray(levels.integers(top, end)), (0, top))
    return image


def _write_16_bits(file: BinaryIO, levels: Levels, container: str, description: str) -> None:
    import imagecodecs  # Pillow cannot write 16-bit color; slow import, only when needed

    pixels = levels.integers(0, len(levels.rgb))
    if container == "TIFF":  # into zeros, since libtiff does not set the padding byte after an odd number of bytes
        options: Any = {"photometric": "rgb", "compression": "deflate", "predictor": True}
        out = bytearray(pixels.nbytes + pixels.nbytes // 100 + len(description) + 2**16)
        file.write(imagecodecs.tiff_encode(pixels, description=description or None, out=out, **options))
        return
    data = memoryview(imagecodecs.png_encode(pixels))
    for part in (data[:PNG_HEADER], _text_chunk(description), data[PNG_HEADER:]):
        file.write(part)


def _write_tiled_tiff(file: BinaryIO, levels: Levels, description: str) -> None:
    """Write a compressed TIFF; a BigTIFF if it has over 4 GB uncompressed."""
    import tifffile

    big = math.prod(levels.shape) * levels.dtype.itemsize > MOST_CLASSIC
    with tifffile.TiffWriter(file, bigtiff=big, byteorder="<") as writer:
        writer.write(
            _tiles(levels),
            shape=levels.shape,
            dtype=levels.dtype,
            tile=(TILE, TILE),
            photometric="rgb",
            planarconfig="contig",
            extrasamples=["unassalpha"] if levels.shape[-1] == 4 else None,
            compression="adobe_deflate",
            predictor=True,
            description=description or None,
            metadata=None,
            software=False,
            buffersize=BUFFER,
        )


def _tiles(levels: Levels) -> Iterator[NDArray[Any]]:
    height, width, _ = levels.shape
    for top, end in row_chunks(height, width, multiple=TILE):
        rows = levels.integers(top, end)
        for y in range(0, end - top, TILE):
            for x in range(0, width, TILE):
                tile = rows[y : y + TILE, x : x + TILE]
                missing = [(0, TILE - side) for side in tile.shape[:2]]
                yield np.pad(tile, [*missing, (0, 0)]) if tile.shape[:2] != (TILE, TILE) else tile


def _write_png(file: BinaryIO, levels: Levels, description: str) -> None:
    """Write a PNG with the filter "Sub", the difference from the pixel to the left."""
    height, width, channels = levels.shape
    color_type = 2 if channels == 3 else 6
    header = struct.pack(">IIBBBBB", width, height, levels.bits, color_type, 0, 0, 0)
    file.write(PNG + png_chunk(b"IHDR", header) + _text_chunk(description))
    compressor, pixel = zlib.compressobj(), channels * levels.dtype.itemsize
    for top, end in row_chunks(height, width):
        big_endian = levels.integers(top, end).astype(levels.dtype.newbyteorder(">"))
        rows = big_endian.view(np.uint8).reshape(end - top, -1)  # [rows, bytes]
        lines = np.empty((end - top, 1 + rows.shape[1]), np.uint8)
        lines[:, 0] = 1  # the filter "Sub"
        lines[:, 1 : 1 + pixel] = rows[:, :pixel]
        np.subtract(rows[:, pixel:], rows[:, :-pixel], out=lines[:, 1 + pixel :])
        if data := compressor.compress(lines.data):
            file.write(png_chunk(b"IDAT", data))
    file.write(png_chunk(b"IDAT", compressor.flush()) + png_chunk(b"IEND", b""))


def _text_chunk(description: str) -> bytes:
    return png_chunk(b"tEXt", KEYWORD.encode() + b"\0" + description.encode("ascii")) if description else b""

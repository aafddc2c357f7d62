"""Large pictures to files band by band, so that there is neither a copy in integers nor the file in memory.

Tiled TIFF by tifffile. PNG of 16 bits by zlib, since no library that is at hand writes it row by row.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from jaxstyle.bands import rows
from jaxstyle.levels import Levels

KEYWORD = "jaxstyle"  # of a PNG's text chunk
TILE = 256  # pixels of a side
MOST_CLASSIC = 2**32 - 2**25  # bytes of a TIFF that is no BigTIFF: offsets are of 32 bits
BUFFER = 2**26  # bytes of tiles that tifffile compresses at a time


def write_tiff(file: BinaryIO, levels: Levels, *, description: str = "") -> None:
    """Write a TIFF in tiles, compressed; a BigTIFF where it takes over 4 GB when it is not.

    Args:
        file: to be written from its beginning.
        levels: the picture.
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
    """Write a PNG; each value as its difference from that of the pixel to the left.

    Args:
        file: to be written from its beginning.
        levels: the picture.
        description: ASCII.

    Example:
        >>> with open("out.png", "wb") as file:  # doctest: +SKIP
        ...     write_png(file, Levels(np.zeros((16, 16, 3)), bits=16))
    """
    colour = {3: 2, 4: 6}[levels.channels]
    header = struct.pack(">IIBBBBB", levels.width, levels.height, levels.bits, colour, 0, 0, 0)
    file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + text_chunk(description))
    squeeze, pixel = zlib.compressobj(), levels.channels * levels.dtype.itemsize
    for top, end in rows(levels.height, levels.width):
        stored = levels.integers(top, end).astype(levels.dtype.newbyteorder(">"))
        whole = stored.view(np.uint8).reshape(end - top, -1)  # [rows, bytes]
        lines = np.empty((end - top, 1 + whole.shape[1]), np.uint8)
        lines[:, 0] = 1  # the filter "Sub"
        lines[:, 1 : 1 + pixel] = whole[:, :pixel]
        np.subtract(whole[:, pixel:], whole[:, :-pixel], out=lines[:, 1 + pixel :])
        if data := squeeze.compress(lines.data):
            file.write(_chunk(b"IDAT", data))
    file.write(_chunk(b"IDAT", squeeze.flush()) + _chunk(b"IEND", b""))


def text_chunk(description: str) -> bytes:
    r"""Return the chunk of a PNG that holds its description, nothing if there is none.

    Args:
        description: ASCII.

    Example:
        >>> text_chunk("all black")[4:17]
        b'tEXtjaxstyle\x00'
    """
    return _chunk(b"tEXt", KEYWORD.encode() + b"\0" + description.encode("ascii")) if description else b""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

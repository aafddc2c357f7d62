"""Image files that lack their end: files with the same rows that decoders accept.

Viewers show such files, since their missing rows are few or none. A PNG or TIFF gets rows that repeat the last one
present. In a JPEG or WebP, the rows that are present follow from a comparison of several ways to complete the file.
"""

import re
import struct
import zlib
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from jaxstyle.images.formats import JPEG, PNG, TIFF, is_webp, png_chunk
from jaxstyle.images.image_rows import RowReader, row_chunks

LEAST = 0.99  # share of the image that must be present
ENOUGH = 2**16  # bytes that fill at least a row of blocks
MIXED = tuple(bytes((89 * i + k * i * i + 201) % 255 for i in range(ENOUGH)) for k in (7, 11))
FILLERS = (bytes(ENOUGH), b"\xfe" * ENOUGH, *MIXED)  # without 255, which starts markers of a JPEG


class Completed(NamedTuple):
    """A truncated file, completed."""

    data: bytes
    rows: int | None = None  # that are present; None if unknown
    others: tuple[bytes, ...] = ()  # the file completed in other ways: pixels that differ are missing


def lacks_end(data: bytes) -> bool:
    """Return whether a PNG or WebP lacks its end; False for other formats, whose decoders raise an error."""
    if is_webp(data):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if not data.startswith(PNG):
        return False
    at = len(PNG)
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return False
        at += 12 + int.from_bytes(data[at : at + 4])
    return True


def lacks_orientation(data: bytes) -> bool:
    """Return whether the EXIF metadata of a truncated file are missing, which a WebP has at its end."""
    return is_webp(data) and data[12:16] == b"VP8X" and bool(data[20] & 8)


def completed(data: bytes) -> Completed | None:
    """Complete a file that lacks its last rows; None for others. A damaged file may raise almost any exception."""
    if data.startswith(JPEG):
        return _jpeg(data)
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(TIFF):
        return _tiff(data)
    return _webp(data) if is_webp(data) else None


def share_present(reader: RowReader, other: RowReader) -> float:
    """Return the share of an image before the first row or column that differs: the image may be rotated."""
    down, across = np.zeros(reader.height, bool), np.zeros(reader.width, bool)
    for top, end in row_chunks(reader.height, reader.width):
        differs = (reader.read(top, end)[0] != other.read(top, end)[0]).any(-1)
        down[top:end] = differs.any(1)
        across |= differs.any(0)
    if not down.any():
        return 1.0
    return max(float(line.argmax() / line.size) for line in (down, down[::-1], across, across[::-1]))


def _jpeg(data: bytes) -> Completed | None:
    body, end = data.rstrip(b"\xff"), b"\xff\xd9"
    others = tuple(body + filler + end for filler in FILLERS)
    return Completed(body + end, others=others) if _has_all_scans(data) else None


def _has_all_scans(data: bytes) -> bool:
    """Return whether all scans of a JPEG have started: each coefficient of each component, to its last bit."""
    wanted: set[tuple[int, int]] = set()
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0xFF, 0xD9):
            at += 1
            if data[at - 1] == 0xFF and data[at] == 0xD9:
                return False  # a file that has its end
            continue
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        segment = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame
            wanted = {(segment[6 + 3 * i], k) for i in range(segment[5]) for k in range(64)}
        elif marker == 0xDA and len(segment) == length - 2:
            count = segment[0]
            first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
            if bits & 15 == 0:
                wanted -= {(segment[1 + 2 * i], k) for i in range(count) for k in range(first, last + 1)}
        at += 2 + length
        if marker == 0xDA:  # skip its data, which has no markers but those of restarts
            following = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(data, at)
            at = following.start() if following else len(data)
    return not wanted


def _webp(data: bytes) -> Completed | None:
    at, images = 12, 0
    while at + 8 <= len(data):
        kind, count = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + count > len(data):
            break
        images += kind in (b"VP8 ", b"VP8L", b"ANMF")
        at += 8 + count + count % 2
    if images:  # what is cut are metadata or later frames
        return Completed(_riff(data[12:at]), others=(_riff(data[12:at]),))
    if data[at : at + 4] not in (b"VP8 ", b"VP8L"):
        return None
    part = data[at + 8 :]
    start = data[12 : at + 4] + struct.pack("<I", len(part) + ENOUGH) + part
    first, *others = (_riff(start + filler + b"\0" * (len(part) % 2)) for filler in FILLERS)
    return Completed(first, others=tuple(others))


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _png(data: bytes) -> Completed | None:
    width, height, bits, color, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    line = 1 + (width * bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] + 7) // 8  # bytes of a row, with its filter
    before, packed, at = [], [], len(PNG)
    while at + 8 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4])
        if kind == b"IDAT":
            packed.append(data[at + 8 : end])
        elif packed:
            break
        elif kind not in (b"acTL", b"fcTL"):  # of an animation, whose first image is read
            before.append(data[at : end + 4])
        at = end + 4
    if not packed:
        return None
    lines = zlib.decompressobj().decompress(b"".join(packed), height * line)
    complete = len(lines) // line
    if interlaced or complete < LEAST * height:
        return None
    filled = lines[: complete * line] + (b"\x02" + bytes(line - 1)) * (height - complete)  # the filter "Up": as above
    tail = png_chunk(b"IDAT", zlib.compress(filled, 1)) + png_chunk(b"IEND", b"")
    return Completed(b"".join([PNG, *before, tail]), complete)


def _tiff(data: bytes) -> Completed | None:
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as file:
        page: Any = file.pages[0]
        order, places = file.byteorder, {}
        for tag in (page.tags[273], page.tags[279]):  # offsets and counts of strips
            places[tag.code] = tag.valueoffset, order + {3: "H", 4: "I", 16: "Q"}[int(tag.dtype)]
        offsets, counts = list(page.dataoffsets), list(page.databytecounts)
        per_strip, height, plain = page.rowsperstrip, page.imagelength, page.compression == 1
        if page.is_tiled or page.planarconfig != 1 or max(map(sum, zip(offsets, counts, strict=True))) <= len(data):
            return None
    first = next(i for i, ends in enumerate(map(sum, zip(offsets, counts, strict=True))) if ends > len(data))
    line = counts[first] // min(per_strip, height - first * per_strip)
    part = max(0, len(data) - offsets[first]) // line if plain else 0  # rows of the first strip that is cut
    complete = first * per_strip + part
    if complete < LEAST * height or complete == 0:
        return None
    fixed, repeated = bytearray(data), b""
    if plain:  # bytes of the last row that is present
        last, row = (first, part - 1) if part else (first - 1, per_strip - 1)
        repeated = data[offsets[last] + row * line : offsets[last] + (row + 1) * line]
    for i in range(first, len(offsets)):
        if plain:
            present = data[offsets[i] : offsets[i] + part * line] if i == first else b""
            _put(fixed, places[273], i, len(fixed))
            fixed += (present + repeated * -(-(counts[i] - len(present)) // line))[: counts[i]]
        else:  # the last complete strip
            _put(fixed, places[273], i, offsets[first - 1])
            _put(fixed, places[279], i, counts[first - 1])
    return Completed(bytes(fixed), complete)


def _put(data: bytearray, place: tuple[int, str], index: int, value: int) -> None:
    at, kind = place
    struct.pack_into(kind, data, at + index * struct.calcsize(kind), value)

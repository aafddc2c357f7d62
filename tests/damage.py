"""Damages the bytes of files, at random or where a format stores lengths and sizes."""

import random
import struct
import zlib
from collections.abc import Sequence

VALUES = (0, 1, 2, 3, 15, 16, 17, 127, 128, 255, 256, 9000, 12345, 16383, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**30)
VALUES += (2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = tuple(order + size for order in "<>" for size in "BHIQ")
PNG = b"\x89PNG\r\n\x1a\n"


def damaged(sound: bytes, others: Sequence[bytes], numbers: Sequence[int], rng: random.Random) -> bytes:
    """Return `sound` damaged in one to six places.

    Args:
        sound: a file.
        others: files to splice it with.
        numbers: integers in the file, such as its width, to be overwritten.
        rng: the source of randomness.

    Returns:
        The damaged file; most PNGs get valid checksums, since decoders ignore chunks without them.
    """
    data = bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not data:
            break
        kind = rng.choices(range(8), weights=(6, 6, 6, 8, 2, 2, 2, 2))[0]
        at = min(rng.randrange(len(data)), rng.randrange(len(data)) if rng.random() < 0.7 else len(data))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            _put(data, at, rng.choice(WORDS), rng.choice(VALUES))
        elif kind == 3:
            _overwrite_known(data, numbers, rng)
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 100)))
        elif kind == 5:
            del data[at : at + rng.choice((1, 2, 4, 8, 100))]
        elif kind == 6:
            data = data[:at] if rng.random() < 0.5 else _moved(data, at, rng)
        else:
            other = rng.choice(others)
            data[at:] = other[rng.randrange(len(other)) if rng.random() < 0.5 else at :]
    return _with_checksums(bytes(data)) if rng.random() < 0.6 else bytes(data)


def _put(data: bytearray, at: int, word: str, value: int) -> None:
    size = struct.calcsize(word)
    data[at : at + size] = struct.pack(word, value % 256**size)


def _overwrite_known(data: bytearray, numbers: Sequence[int], rng: random.Random) -> None:
    """Overwrite one occurrence of one of `numbers`, stored as an integer of 2 to 8 bytes."""
    word = rng.choice([word for word in WORDS if word[1] != "B"])
    sought, places = struct.pack(word, rng.choice(numbers)), []
    at = data.find(sought)
    while at >= 0 and len(places) < 64:
        places.append(at)
        at = data.find(sought, at + 1)
    if places:
        _put(data, rng.choice(places), word, rng.choice((*VALUES, *numbers)))


def _moved(data: bytearray, at: int, rng: random.Random) -> bytearray:
    """Copy a piece to another place, by overwriting or inserting."""
    piece = data[at : at + rng.choice((4, 8, 12, 64, 1000))]
    to = rng.randrange(len(data))
    return data[:to] + piece + data[to + rng.choice((0, len(piece))) :]


def _with_checksums(data: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks recomputed; other files unchanged."""
    if not data.startswith(PNG):
        return data
    fixed, at = bytearray(data), len(PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(fixed)

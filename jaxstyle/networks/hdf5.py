"""HDF5 files, which are untrusted and read with checks.

Links out of a file are not followed, and damaged or oversized names are rejected before HDF5 unpacks them.
"""

import contextlib
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxstyle.errors import InputError, UnavailableError, excerpt, read_error

TORCH_SUFFIXES = (".pth", ".pt")
TORCH_CURE = "convert it with scripts/convert_weights.py, as weights/README.md tells."
MAX_OBJECTS = 100_000  # in the heaps of a file; a network has about a hundred strings


@contextlib.contextmanager
def opened(path: Path, *, cure: str) -> Iterator[h5py.File]:
    """Open `path` for reading; any error in the `with` block becomes an `InputError` that ends in `cure`."""
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist: give the path of an HDF5 file.")
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the HDF5 file itself.")
        if not path.is_file():
            raise InputError(f"{path} is no regular file: give an HDF5 file on disk.")
        if not path.stat().st_size:
            raise InputError(f"{path} is empty: {cure}")
        if path.suffix.lower() in TORCH_SUFFIXES:
            raise InputError(f"{path} is a file of PyTorch: {TORCH_CURE}")
        with h5py.File(path, "r") as file:
            size = _size(file)
            yield file
            if _size(file) < size:  # HDF5 reads zeros beyond the end of a file
                raise InputError(f"{path} was truncated while it was read: {cure}")
    except (InputError, UnavailableError):
        raise
    except Exception as error:  # for damaged files h5py raises OSError, KeyError, RuntimeError and others
        if (fault := read_error(path, error)) is not None:
            raise fault from error
        truncated = "truncated" in str(error)
        problem = "is not HDF5" if not h5py.is_hdf5(path) else "is truncated" if truncated else "is damaged"
        raise InputError(f"{path} ({path.stat().st_size} bytes) {problem}: {cure}") from error


def _size(file: h5py.File) -> int:
    return os.fstat(file.id.get_vfd_handle()).st_size  # also if its name has been removed


def follow(file: h5py.File, name: str, *, cure: str) -> Any:
    """Return the group or data set at a path of hard links; others may lead out of the file."""
    node: Any = file
    for part in filter(None, name.split("/")):
        link = node.get(part, getlink=True)
        if link is None:
            raise InputError(f"{file.filename} lacks {excerpt(name)!r}: {cure}")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{file.filename} reaches {excerpt(name)!r} by a link, which is not followed: {cure}")
        node = node[part]
    return node


def strings(node: Any, name: str) -> list[str]:
    """Return the strings of an attribute of a file, group or data set; empty if it does not exist."""
    if name not in node.attrs:
        return []
    attribute = node.attrs.get_id(name)
    # A damaged attribute of another type can crash HDF5, and a huge one can exhaust the memory.
    kind = h5py.check_string_dtype(attribute.dtype)
    if not kind or math.prod(attribute.shape) * attribute.dtype.itemsize > 1e6:
        raise ValueError(f"attribute {name} is {attribute.dtype} of shape {attribute.shape}")
    if kind.length is None:  # of variable length, stored in a heap
        _check_heaps(node.file)
    return [text.decode() if isinstance(text, bytes) else str(text) for text in np.ravel(node.attrs[name])]


def _check_heaps(file: h5py.File) -> None:
    """Raise if a heap of strings is damaged in a way that causes an endless loop in HDF5."""
    # A heap is a sequence of objects, each with a header of 16 bytes: number, 2; count, 2; unused, 4; size, 8. Number 0
    # is the free space, whose size includes the header.
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("offsets and lengths are not of 8 bytes")
    with open(file.filename, "rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
        heap, objects = data.find(b"GCOL"), 0
        while heap >= 0:
            end, at = heap + int.from_bytes(data[heap + 8 : heap + 16], "little"), heap + 16
            while data[heap + 4] == 1 and at + 16 <= end <= len(data):  # otherwise these four bytes are a coincidence
                size = int.from_bytes(data[at + 8 : at + 16], "little")
                step = 16 + (size + 7) // 8 * 8 if any(data[at : at + 2]) else size
                objects += 1
                if not 16 <= step <= end - at or objects > MAX_OBJECTS:
                    raise ValueError(f"the heap at {heap} has an object of {size} bytes")
                at += step
            heap = data.find(b"GCOL", heap + 4)

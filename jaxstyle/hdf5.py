"""HDF5 files that may come from strangers: opened, followed and read without trust.

Links do not lead out of the file, and damaged or oversized names are refused before HDF5 unpacks them.
"""

import contextlib
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxstyle.errors import InputError, excerpt
from jaxstyle.files import whole

CURE = "download or convert the file again, as weights/README.md tells."
MOST_OBJECTS = 100_000  # in the heaps of a file: a network has a hundred strings


@contextlib.contextmanager
def opened(path: Path, *, cure: str = CURE) -> Iterator[h5py.File]:
    """Open `path` for reading; whatever goes wrong while it is open leaves as one sentence.

    Args:
        path: the file.
        cure: what to do where it cannot be read.

    Yields:
        The file.

    Raises:
        InputError: if the file is missing, empty, truncated, damaged, no HDF5, or may not be read.

    Example:
        >>> with opened(Path("weights/vgg19.h5")) as file:  # doctest: +SKIP
        ...     list(file)
    """
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist: give the path of an HDF5 file.")
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the HDF5 file itself.")
        if not path.is_file():
            raise InputError(f"{path} is no regular file: give an HDF5 file on disk.")
        if not path.stat().st_size:
            raise InputError(f"{path} is empty: {cure}")
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path} may not be read by this user: change its permissions.") from error
    except Exception as error:  # from damaged bytes h5py makes OSError, KeyError, RuntimeError, MemoryError and others
        whole = "truncated" not in str(error)
        problem = "is not HDF5" if not h5py.is_hdf5(path) else "is damaged" if whole else "is truncated"
        raise InputError(f"{path} ({path.stat().st_size} bytes) {problem}: {cure}") from error


@contextlib.contextmanager
def written(path: Path) -> Iterator[h5py.File]:
    """Make a file that is at `path` whole or not at all.

    Args:
        path: the file to write or replace.

    Yields:
        The file, to be filled.

    Raises:
        UnavailableError: if it cannot be written.

    Example:
        >>> with written(Path("style.h5")) as file:  # doctest: +SKIP
        ...     file["mean"] = np.zeros(64)
    """
    with whole(path) as part, h5py.File(part, "w") as file:
        yield file


def follow(file: h5py.File, name: str, *, cure: str = CURE) -> Any:
    """Return the object at `name`.

    Args:
        file: an open file.
        name: the names of groups, and of what is in the last of them, parted by slashes.
        cure: what to do where there is none.

    Returns:
        A group or a data set.

    Raises:
        InputError: if there is none, or if a soft or external link, which may lead out of the file, is on the way.

    Example:
        >>> follow(file, "conv1_1/kernel").shape  # doctest: +SKIP
        (3, 3, 3, 64)
    """
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
    """Return the strings of an attribute, none if it is not there.

    Args:
        node: a file, a group or a data set.
        name: the attribute.

    Returns:
        The strings, whether HDF5 keeps them as text or as bytes.

    Raises:
        ValueError: if the attribute holds no strings, or over a megabyte of them, or they are damaged.

    Example:
        >>> strings(file, "layer_names")[:2]  # doctest: +SKIP
        ['input_1', 'block1_conv1']
    """
    if name not in node.attrs:
        return []
    attribute = node.attrs.get_id(name)
    # reading a damaged attribute of another type can crash HDF5, and a huge one takes the memory
    kind = h5py.check_string_dtype(attribute.dtype)
    if not kind or math.prod(attribute.shape) * attribute.dtype.itemsize > 1e6:
        raise ValueError(f"attribute {name} is {attribute.dtype} of shape {attribute.shape}")
    if kind.length is None:  # of any length: kept in a heap
        _check_heaps(node.file)
    return [text.decode() if isinstance(text, bytes) else str(text) for text in np.ravel(node.attrs[name])]


def _check_heaps(file: h5py.File) -> None:
    """Raise if a heap of strings is damaged in a way that keeps HDF5 going in circles.

    A heap is a row of objects, each with a header of 16 bytes: number, 2; count, 2; unused, 4; size, 8. Number 0 is
    what is left over, and of its size the header is a part.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("offsets and lengths are not of 8 bytes")
    with open(file.filename, "rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
        heap, objects = data.find(b"GCOL"), 0
        while heap >= 0:
            end, at = heap + int.from_bytes(data[heap + 8 : heap + 16], "little"), heap + 16
            while data[heap + 4] == 1 and at + 16 <= end <= len(data):  # else these four letters are by chance
                size = int.from_bytes(data[at + 8 : at + 16], "little")
                step = 16 + (size + 7) // 8 * 8 if any(data[at : at + 2]) else size
                objects += 1
                if not 16 <= step <= end - at or objects > MOST_OBJECTS:
                    raise ValueError(f"the heap at {heap} has an object of {size} bytes")
                at += step
            heap = data.find(b"GCOL", heap + 4)

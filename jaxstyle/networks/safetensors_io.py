"""Reads single tensors of a `.safetensors` file, which consists of a length, a JSON header and the values.

The file is untrusted: the size of the header, the types, the shapes and the places of the tensors are checked before
values are read. It is read by plain reads, not mapped into memory as by the `safetensors` library: in a mapped file, an
error of the disk ends the process by a signal.

Format: https://huggingface.co/docs/safetensors
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxstyle.errors import InputError, read_error

SUFFIX = ".safetensors"
MAX_HEADER = 2**20  # bytes; that of VGG-19 has 4,000
MAX_RANK = 8
DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}  # NumPy has no bfloat16
CURE = "download the file again, or convert another one, as weights/README.md tells."


class Tensor(NamedTuple):
    """Type such as "F32", shape, and offset and size of the values in the file in bytes."""

    kind: str
    shape: tuple[int, ...]
    start: int
    size: int


def header(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the descriptions of all tensors by name."""
    path = Path(path)
    try:
        if not path.is_file():
            problem = "does not exist" if not path.exists() else "is no regular file"
            raise InputError(f"{path} {problem}: give the path of a {SUFFIX} file.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise InputError(f"{path} ({size} bytes) is truncated or no {SUFFIX} file: {CURE}")
            if length > MAX_HEADER:
                raise InputError(f"{path} has a header of {length} bytes, more than {MAX_HEADER}: {CURE}")
            entries = json.loads(file.read(length))
            tensors = {name: _described(entry, 8 + length) for name, entry in entries.items() if name != "__metadata__"}
    except InputError:
        raise
    except Exception as error:  # of damaged JSON: ValueError, KeyError, TypeError, RecursionError and others
        raise read_error(path, error) or InputError(f"{path} ({_size(path)}) is damaged: {CURE}") from error
    end = max((tensor.start + tensor.size for tensor in tensors.values()), default=0)
    if end > size:
        raise InputError(f"{path} ({size} bytes) is truncated, as its values end at {end}: {CURE}")
    return tensors


def values(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Read tensors of `header` with a type in `DTYPES`; bfloat16 becomes float32."""
    arrays = {}
    try:
        with open(path, "rb") as file:
            for name, tensor in tensors.items():
                file.seek(tensor.start)
                data = file.read(tensor.size)
                if len(data) < tensor.size:
                    raise InputError(f"{path} was truncated while it was read: {CURE}")
                array = np.frombuffer(data, DTYPES[tensor.kind]).reshape(tensor.shape)
                if tensor.kind == "BF16":  # the upper half of float32
                    array = (array.astype("<u4") << 16).view("<f4")
                arrays[name] = array
    except (OSError, MemoryError) as error:
        if (fault := read_error(path, error)) is not None:
            raise fault from error
        raise
    return arrays


def _described(entry: Any, start: int) -> Tensor:
    """Return the description of a tensor; raise for a damaged one."""
    kind, shape, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    if len(shape) > MAX_RANK or not all(type(each) is int and 0 <= each < 2**62 for each in (*shape, begin, end)):
        raise ValueError("sizes or offsets are invalid")
    if kind in DTYPES and end - begin != math.prod(shape) * np.dtype(DTYPES[kind]).itemsize:
        raise ValueError("offsets and shape differ")
    return Tensor(kind, shape, start + begin, end - begin)


def _size(path: Path) -> str:
    try:
        return f"{path.stat().st_size} bytes"
    except OSError:
        return "of unknown size"

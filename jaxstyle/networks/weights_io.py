"""Weights of VGG-19: reads HDF5 in the layouts of Keras and of this project and safetensors, writes the project's.

A file of this project has one group per layer (`conv1_1` to `conv5_4`) with the data sets `kernel` (`[3, 3, in, out]`)
and `bias` (`[out]`), of any widths up to 512, and root attributes for its provenance. A Keras file is the full VGG-19,
with or without its fully connected layers, which are ignored. A `.safetensors` file has torchvision's names, see
`state_dict`, and is considered to have torchvision's preprocessing, which is folded into conv1_1.

Files are untrusted: links out of the file are not followed, damaged or oversized names are rejected before HDF5
unpacks them, and names, types and shapes are checked before values are read.
"""

import contextlib
import hashlib
import itertools
import math
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from jaxstyle.errors import InputError, UnavailableError, excerpt, printable
from jaxstyle.files import atomic_write
from jaxstyle.networks import safetensors_io, state_dict
from jaxstyle.networks.read_errors import of_machine
from jaxstyle.networks.vgg import BLOCK_WIDTHS, CONV_LAYERS, MEAN_BGR, Widths, widths_of

PREPROCESSING = f"RGB 0..255, reversed to BGR, minus {MEAN_BGR}, no division"
SAFETENSORS_PREPROCESSING = "RGB in [0, 1], normalized as by torchvision, which is folded into conv1_1"
ATTRIBUTES = ("source", "checksum", "licence", "preprocessing", "training")
KERAS_LAYER = re.compile(r"block(\d)_conv(\d)")
MAX_WIDTH = 512  # of the widest layer of VGG-19


def read(path: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
    """Read a network from an HDF5 file of this project or of Keras, or from a `.safetensors` file of torchvision.

    Args:
        path: the file; half and double precision are converted to float32.

    Returns:
        `{"conv1_1": {"kernel": [3, 3, 3, out], "bias": [out]}, ..., "conv5_4": ...}` as float32 NumPy arrays.

    Raises:
        InputError: if the file is missing or damaged, is another variant of VGG, lacks a layer, or has wrong shapes,
            types, or values that are not finite.
        UnavailableError: if the machine cannot read it, such as for lack of memory.

    Example:
        >>> read("weights/vgg19.h5")["conv1_1"]["kernel"].shape  # doctest: +SKIP
        (3, 3, 3, 64)
    """
    if _is_safetensors(path):
        params = read_safetensors(path)
        return params | {"conv1_1": state_dict.fold(**params["conv1_1"])}
    with opened(Path(path)) as file:
        return {
            name: {part: _finite(path, f"{name}/{part}", dataset[()]) for part, dataset in layer.items()}
            for name, layer in _layers(file, path).items()
        }


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
    """Read a network from a `.safetensors` file with torchvision's names, without changes for its preprocessing.

    Args:
        path: the file, of any prefix of the names and any types of floats.

    Returns:
        As from `read`, for images as the network of the file expects them.

    Raises:
        InputError: as `read` does.
        UnavailableError: as `read` does.

    Example:
        >>> read_safetensors("vgg19.safetensors")["conv1_1"]["kernel"].shape  # doctest: +SKIP
        (3, 3, 3, 64)
    """
    tensors = safetensors_io.header(path)
    names = _safetensors_names(path, tensors)
    needed = {name: tensors[name] for layer in names.values() for name in layer.values()}
    arrays = {name: _finite(path, name, array) for name, array in safetensors_io.values(path, needed).items()}
    return {
        layer: {"kernel": state_dict.to_hwio(arrays[pair["kernel"]]), "bias": arrays[pair["bias"]]}
        for layer, pair in names.items()
    }


def widths(path: str | os.PathLike[str]) -> Widths:
    """Read the channels of every convolution, block by block, without reading the values.

    Args:
        path: the file, as for `read`.

    Returns:
        Channels of each convolution, block by block; `vgg.BLOCK_WIDTHS` for the full VGG-19.

    Raises:
        InputError: as `read` does, except for values.
        UnavailableError: as `read` does.

    Example:
        >>> widths("weights/vgg19.h5")[0]  # doctest: +SKIP
        (64, 64)
    """
    if _is_safetensors(path):
        tensors = safetensors_io.header(path)
        names = _safetensors_names(path, tensors)
        return widths_of(_described(tensors, names))  # pyright: ignore[reportArgumentType] - it reads shapes only
    with opened(Path(path)) as file:
        return widths_of(_layers(file, path))  # pyright: ignore[reportArgumentType] - it reads shapes only


def provenance(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the provenance of a file of this project, or describe that of a `.safetensors` file.

    Args:
        path: the file, as for `read`.

    Returns:
        `source`, `checksum`, `licence`, `preprocessing` and `training`, as far as present; a Keras file has none.

    Raises:
        InputError: if the file is missing or damaged.
        UnavailableError: if the machine cannot read it.

    Example:
        >>> provenance("weights/vgg19.h5")["licence"]  # doctest: +SKIP
        'CC BY, K. Simonyan and A. Zisserman, University of Oxford'
    """
    if _is_safetensors(path):
        return {"preprocessing": SAFETENSORS_PREPROCESSING}
    with opened(Path(path)) as file:
        return {key: printable(" ".join(strings(file, key))) for key in ATTRIBUTES if key in file.attrs}


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the file at `path` as 64 hexadecimal digits.

    Args:
        path: any file.

    Returns:
        The digest.

    Raises:
        InputError: if this user may not read the file.
        OSError: if it cannot be read otherwise.

    Example:
        >>> len(sha256("weights/vgg19.h5"))  # doctest: +SKIP
        64
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, MemoryError) as error:
        if (fault := of_machine(path, error)) is not None:
            raise fault from error
        raise


def write(
    path: str | os.PathLike[str],
    params: Mapping[str, Mapping[str, Any]],
    *,
    source: str,
    checksum: str,
    licence: str,
    preprocessing: str = PREPROCESSING,
    training: str = "",
) -> None:
    """Write a file of this project atomically; equal arguments give equal bytes.

    Args:
        path: the file to write or replace.
        params: the network, as `read` returns it, in NumPy or JAX arrays of any float type, which the file preserves.
        source: source of the values, such as a URL.
        checksum: checksum of the source, such as "md5:253f...".
        licence: license of the values, with the attribution that it requires.
        preprocessing: preprocessing of images for the network.
        training: data and duration of the training, if this project trained the network; "" for none.

    Raises:
        InputError: if `read` could not read `params` back.
        UnavailableError: if the file cannot be written.

    Example:
        >>> write("half.h5", half, source="vgg19.h5", checksum="sha256:3194...", licence="CC BY")  # doctest: +SKIP
    """
    path = Path(path)
    layers = {name: {part: np.asarray(values) for part, values in layer.items()} for name, layer in params.items()}
    _check_shapes(path, layers)
    for name, part in itertools.product(CONV_LAYERS, ("kernel", "bias")):
        _finite(path, f"{name}/{part}", layers[name][part])
    with written(path) as file:
        for key, text in zip(ATTRIBUTES, (source, checksum, licence, preprocessing, training), strict=True):
            if key == "training" and not text:
                continue
            file.attrs[key] = np.bytes_(
                text.encode()
            )  # of fixed length: damaged strings of variable length can hang HDF5
        for name, part in itertools.product(CONV_LAYERS, ("kernel", "bias")):
            file.create_dataset(f"{name}/{part}", data=layers[name][part], track_times=False)


def _layers(file: h5py.File, path: str | os.PathLike[str]) -> dict[str, dict[str, h5py.Dataset]]:
    """Return the data sets of every layer; check everything but their values."""
    keras = _keras_names(file)
    names = keras or {name: (f"{name}/kernel", f"{name}/bias") for name in CONV_LAYERS if name in file}
    layers = {}
    for layer, pair in names.items():
        layers[layer] = {part: follow(file, name) for part, name in zip(("kernel", "bias"), pair, strict=True)}
        for dataset in layers[layer].values():
            # HDF5 unpacks complete chunks, so their size is limited too; compressed ones may expand to any size.
            if dataset.is_virtual or dataset.external or math.prod(dataset.chunks or ()) > 9 * MAX_WIDTH**2:
                raise InputError(f"{path} keeps {layer} elsewhere or in oversized pieces, which is not read: {CURE}")
            if dataset.id.get_create_plist().get_nfilters():
                raise InputError(f"{path} keeps {layer} compressed, which is not read: {CURE}")
    _check_shapes(path, layers, full=bool(keras))
    return layers


class _Described(NamedTuple):
    """What `_check_shapes` and `widths_of` read of an array."""

    dtype: Any
    shape: tuple[int, ...]


def _is_safetensors(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() == safetensors_io.SUFFIX


def _safetensors_names(
    path: str | os.PathLike[str], tensors: Mapping[str, safetensors_io.Tensor]
) -> dict[str, dict[str, str]]:
    """Return the names of VGG-19's tensors; check everything but their values."""
    names = state_dict.vgg19_names(path, {name: tensor.shape for name, tensor in tensors.items()})
    for name in (name for layer in names.values() for name in layer.values()):
        if (kind := tensors[name].kind) not in safetensors_io.DTYPES:
            raise InputError(f"{path} holds {excerpt(name)} as {excerpt(kind)}, but it is to be of floats: {CURE}")
    _check_shapes(path, _described(tensors, names))
    return names


def _described(
    tensors: Mapping[str, safetensors_io.Tensor], names: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, _Described]]:
    """Return type and shape of each kernel, as `[height, width, in, out]`, and bias."""
    found: dict[str, dict[str, _Described]] = {}
    for layer, pair in names.items():
        kernel, bias = tensors[pair["kernel"]], tensors[pair["bias"]]
        high, wide = kernel.shape[2:]
        found[layer] = {
            "kernel": _Described(_dtype(kernel.kind), (high, wide, kernel.shape[1], kernel.shape[0])),
            "bias": _Described(_dtype(bias.kind), bias.shape),
        }
    return found


def _dtype(kind: str) -> np.dtype:
    """Return the type of the array that is read."""
    return np.dtype(np.float32 if kind == "BF16" else safetensors_io.DTYPES[kind])


def _keras_names(file: h5py.File) -> dict[str, tuple[str, str]]:
    """Return the names of kernel and bias of each layer in a Keras file; empty for other files."""
    prefix = "model_weights/" if "model_weights" in file else ""
    names = {}
    for name in strings(follow(file, prefix), "layer_names"):
        if match := KERAS_LAYER.fullmatch(name):
            kernel, bias = strings(follow(file, prefix + name), "weight_names")
            names["conv{}_{}".format(*match.groups())] = (f"{prefix}{name}/{kernel}", f"{prefix}{name}/{bias}")
    return {layer: names[layer] for layer in CONV_LAYERS if layer in names}


def _check_shapes(path: Any, layers: Mapping[str, Mapping[str, Any]], *, full: bool = False) -> None:
    """Check that every layer is present, has float values, and has as many input channels as the previous outputs."""
    missing = [name for name in CONV_LAYERS if not {"kernel", "bias"} <= layers.get(name, {}).keys()]
    if missing:
        some = f"{len(missing)} of VGG-19's {len(CONV_LAYERS)} convolutions ({', '.join(missing)})"
        raise InputError(f"{path} lacks {some}: {CURE}")
    channels = 3
    for name, width in zip(CONV_LAYERS, itertools.chain(*BLOCK_WIDTHS), strict=True):
        kernel, bias = layers[name]["kernel"], layers[name]["bias"]
        if kernel.dtype.kind != "f" or bias.dtype.kind != "f":
            kinds = f"{excerpt(kernel.dtype)} and {excerpt(bias.dtype)}"
            raise InputError(f"{path} holds {name} as {kinds}, but kernel and bias are to be floats: {CURE}")
        out = width if full or len(bias.shape or ()) != 1 else bias.shape[0]
        if kernel.shape != (3, 3, channels, out) or bias.shape != (out,) or not 1 <= out <= MAX_WIDTH:
            need = f"(3, 3, {channels}, n) and (n,), n {f'= {width}' if full else f'from 1 to {MAX_WIDTH}'}"
            raise InputError(
                f"{path} holds {name} of shapes {excerpt(kernel.shape)} and {excerpt(bias.shape)}, not {need}: {CURE}"
            )
        channels = out


def _finite(path: Any, name: str, values: np.ndarray) -> np.ndarray:
    """Return `values` as float32; check that they are finite."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if bad := int(np.count_nonzero(~np.isfinite(values))):
        raise InputError(f"{path} holds {bad} of {values.size} values in {name} that are not finite: {CURE}")
    return values


CURE = "download or convert the file again, as weights/README.md tells."
TORCH_SUFFIXES = (".pth", ".pt")
TORCH_CURE = "convert it with scripts/convert_weights.py, as weights/README.md tells."
MOST_OBJECTS = 100_000  # in the heaps of a file; a network has about a hundred strings


@contextlib.contextmanager
def opened(path: Path, *, cure: str = CURE) -> Iterator[h5py.File]:
    """Open `path` for reading; convert any error in the `with` block to an `InputError`.

    Args:
        path: the file.
        cure: advice in the message if it cannot be read.

    Yields:
        The file.

    Raises:
        InputError: if the file is missing, empty, truncated, damaged, not HDF5, or not readable by this user.
        UnavailableError: if the machine cannot read it, such as for lack of memory or with a damaged disk.

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
        if (fault := of_machine(path, error)) is not None:
            raise fault from error
        whole = "truncated" not in str(error)
        problem = "is not HDF5" if not h5py.is_hdf5(path) else "is damaged" if whole else "is truncated"
        raise InputError(f"{path} ({path.stat().st_size} bytes) {problem}: {cure}") from error


def _size(file: h5py.File) -> int:
    """Return the bytes of an open file, also if its name has been removed."""
    return os.fstat(file.id.get_vfd_handle()).st_size


@contextlib.contextmanager
def written(path: Path) -> Iterator[h5py.File]:
    """Create an HDF5 file atomically.

    Args:
        path: the file to write or replace.

    Yields:
        The open file.

    Raises:
        UnavailableError: if it cannot be written.

    Example:
        >>> with written(Path("style.h5")) as file:  # doctest: +SKIP
        ...     file["mean"] = np.zeros(64)
    """
    with atomic_write(path) as part, h5py.File(part, "w") as file:
        yield file


def follow(file: h5py.File, name: str, *, cure: str = CURE) -> Any:
    """Return the object at `name`.

    Args:
        file: an open file.
        name: path in the file, with slashes.
        cure: advice in the message if it does not exist.

    Returns:
        A group or a data set.

    Raises:
        InputError: if it does not exist, or if the path has a soft or external link, which may lead out of the file.

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
    """Return the strings of an attribute; empty if it does not exist.

    Args:
        node: a file, a group or a data set.
        name: the attribute.

    Returns:
        The strings, stored as text or as bytes.

    Raises:
        ValueError: if the attribute does not consist of strings, exceeds one megabyte, or is damaged.

    Example:
        >>> strings(file, "layer_names")[:2]  # doctest: +SKIP
        ['input_1', 'block1_conv1']
    """
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
    """Raise if a heap of strings is damaged in a way that causes an endless loop in HDF5.

    A heap is a sequence of objects, each with a header of 16 bytes: number, 2; count, 2; unused, 4; size, 8. Number 0
    is the free space, whose size includes the header.
    """
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
                if not 16 <= step <= end - at or objects > MOST_OBJECTS:
                    raise ValueError(f"the heap at {heap} has an object of {size} bytes")
                at += step
            heap = data.find(b"GCOL", heap + 4)

"""VGG-19's convolutions in HDF5: reads Keras' layout and the project's own, writes the project's own.

The project's file has one group a layer (`conv1_1` to `conv5_4`) with the data sets `kernel` (`[3, 3, in, out]`) and
`bias` (`[out]`), in any widths up to VGG-19's widest, and root attributes that tell its origin. Keras' file is the
whole VGG-19, with or without its fully connected layers, which are ignored.

No file is trusted: names, types and shapes are checked before values are read, and no link leads out of the file.
"""

import hashlib
import itertools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxstyle.errors import InputError, excerpt, printable
from jaxstyle.hdf5 import CURE, follow, opened, strings, written
from jaxstyle.vgg import BLOCK_WIDTHS, CONV_LAYERS, MEAN_BGR, Widths, widths_of

PREPROCESSING = f"RGB 0..255, reversed to BGR, minus {MEAN_BGR}, no division"
ATTRIBUTES = ("source", "checksum", "licence", "preprocessing", "training")
KERAS_LAYER = re.compile(r"block(\d)_conv(\d)")
MAX_WIDTH = 512  # VGG-19's widest layer


def read(path: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
    """Read the network from the project's or Keras' HDF5 file.

    Args:
        path: the file; half and double precision are turned into float32.

    Returns:
        `{"conv1_1": {"kernel": [3, 3, 3, out], "bias": [out]}, ..., "conv5_4": ...}` as float32 NumPy arrays.

    Raises:
        InputError: if the file is missing or damaged, lacks a layer, or holds wrong shapes, types, or values that are
            not finite.

    Example:
        >>> read("weights/vgg19.h5")["conv1_1"]["kernel"].shape  # doctest: +SKIP
        (3, 3, 3, 64)
    """
    with opened(Path(path)) as file:
        return {
            name: {part: _finite(path, f"{name}/{part}", dataset[()]) for part, dataset in layer.items()}
            for name, layer in _layers(file, path).items()
        }


def widths(path: str | os.PathLike[str]) -> Widths:
    """Read the channels of every convolution, block by block, without reading the values.

    Args:
        path: the file, as for `read`.

    Returns:
        The widths as `jaxstyle.vgg.VGG` takes them; `jaxstyle.vgg.BLOCK_WIDTHS` for the whole VGG-19.

    Raises:
        InputError: as `read` does, values apart.

    Example:
        >>> widths("weights/vgg19.h5")[0]  # doctest: +SKIP
        (64, 64)
    """
    with opened(Path(path)) as file:
        return widths_of(_layers(file, path))  # pyright: ignore[reportArgumentType] - it reads shapes only


def provenance(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what the project's file says of its origin.

    Args:
        path: the file, as for `read`.

    Returns:
        Those of `source`, `checksum`, `licence`, `preprocessing` and `training` that the file states; Keras' has none.

    Raises:
        InputError: if the file is missing or damaged.

    Example:
        >>> provenance("weights/vgg19.h5")["licence"]  # doctest: +SKIP
        'CC BY, K. Simonyan and A. Zisserman, University of Oxford'
    """
    with opened(Path(path)) as file:
        return {key: printable(" ".join(strings(file, key))) for key in ATTRIBUTES if key in file.attrs}


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the file at `path` as 64 hexadecimal digits.

    Args:
        path: any file.

    Returns:
        The digest.

    Raises:
        OSError: if the file cannot be read.

    Example:
        >>> len(sha256("weights/vgg19.h5"))  # doctest: +SKIP
        64
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """Write the project's file, whole or not at all; equal arguments give equal bytes.

    Args:
        path: the file to write or replace.
        params: the network, as `read` returns it, in NumPy or JAX arrays of any float type, which the file keeps.
        source: where the values come from, such as a URL.
        checksum: the source's checksum, such as "md5:253f...".
        licence: the licence of the values, with the names that it asks for.
        preprocessing: what the network wants to see.
        training: on what and how long it was trained, if that was done here; "" leaves it out.

    Raises:
        InputError: if `params` is nothing that `read` would take back.
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
            file.attrs[key] = np.bytes_(text.encode())  # of fixed length: damaged, the other kind can hang HDF5
        for name, part in itertools.product(CONV_LAYERS, ("kernel", "bias")):
            file.create_dataset(f"{name}/{part}", data=layers[name][part], track_times=False)


def _layers(file: h5py.File, path: str | os.PathLike[str]) -> dict[str, dict[str, h5py.Dataset]]:
    """Return the data sets of every layer, with everything but their values checked."""
    keras = _keras_names(file)
    names = keras or {name: (f"{name}/kernel", f"{name}/bias") for name in CONV_LAYERS if name in file}
    layers = {}
    for layer, pair in names.items():
        layers[layer] = {part: follow(file, name) for part, name in zip(("kernel", "bias"), pair, strict=True)}
        for dataset in layers[layer].values():
            # chunks are unpacked whole, so their size counts like the data set's own; deflated ones become any size
            if dataset.is_virtual or dataset.external or math.prod(dataset.chunks or ()) > 9 * MAX_WIDTH**2:
                raise InputError(f"{path} keeps {layer} elsewhere or in oversized pieces, which is not read: {CURE}")
            if dataset.id.get_create_plist().get_nfilters():
                raise InputError(f"{path} keeps {layer} compressed, which is not read: {CURE}")
    _check_shapes(path, layers, full=bool(keras))
    return layers


def _keras_names(file: h5py.File) -> dict[str, tuple[str, str]]:
    """Return where Keras' file keeps the kernel and the bias of each layer; nothing for a file that is not Keras'."""
    prefix = "model_weights/" if "model_weights" in file else ""
    names = {}
    for name in strings(follow(file, prefix), "layer_names"):
        if match := KERAS_LAYER.fullmatch(name):
            kernel, bias = strings(follow(file, prefix + name), "weight_names")
            names["conv{}_{}".format(*match.groups())] = (f"{prefix}{name}/{kernel}", f"{prefix}{name}/{bias}")
    return {layer: names[layer] for layer in CONV_LAYERS if layer in names}


def _check_shapes(path: Any, layers: Mapping[str, Mapping[str, Any]], *, full: bool = False) -> None:
    """Raise unless every layer is there, is made of floats, and takes the channels that the one before it gives."""
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
    """Return `values` as float32, or raise where one of them is not finite there."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if bad := int(np.count_nonzero(~np.isfinite(values))):
        raise InputError(f"{path} holds {bad} of {values.size} values in {name} that are not finite: {CURE}")
    return values

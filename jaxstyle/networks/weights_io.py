"""Weights of VGG-19 or VGG-16: reads HDF5 of Keras and of this project and safetensors, writes HDF5 of this project.

A file of this project has one group per layer (`conv1_1` to `conv5_4`) with the data sets `kernel` (`[3, 3, in, out]`)
and `bias` (`[out]`), of any widths up to 512, and root attributes for its provenance; VGG-16 has three groups fewer.
A Keras file is the full network, with or without its fully connected layers, which are ignored. A `.safetensors` file
has torchvision's names, see `state_dict`, and is considered to have torchvision's preprocessing, which is folded into
conv1_1.

Files are untrusted: names, types and shapes are checked before values are read.
"""

import itertools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np

from jaxstyle.errors import InputError, excerpt, printable
from jaxstyle.files import atomic_write
from jaxstyle.networks import hdf5, safetensors_io, state_dict
from jaxstyle.networks.vgg import BLOCK_WIDTHS, CONV_LAYERS, MEAN_BGR, VGG16_LACKS, Widths, widths_of

PREPROCESSING = f"RGB 0..255, reversed to BGR, minus {MEAN_BGR}, no division"
SAFETENSORS_PREPROCESSING = "RGB in [0, 1], normalized as by torchvision, which is folded into conv1_1"
ATTRIBUTES = ("source", "checksum", "licence", "preprocessing", "training")
KERAS_LAYER = re.compile(r"block(\d)_conv(\d)")
MAX_WIDTH = 512  # of the widest layer of VGG-19
CURE = "download or convert the file again, as weights/README.md tells."

FilePath = str | os.PathLike[str]
Arrays = dict[str, dict[str, np.ndarray]]  # {"conv1_1": {"kernel": [3, 3, 3, out], "bias": [out]}, ..., "conv5_4": ...}


def read(path: FilePath) -> Arrays:
    """Read a network in float32 from an HDF5 file of this project or of Keras, or from a `.safetensors` file."""
    if _is_safetensors(path):
        params = read_safetensors(path)
        return params | {"conv1_1": state_dict.fold(**params["conv1_1"])}
    with hdf5.opened(Path(path), cure=CURE) as file:
        return {
            name: {part: _finite(path, f"{name}/{part}", dataset[()]) for part, dataset in layer.items()}
            for name, layer in _layers(file, path).items()
        }


def read_safetensors(path: FilePath) -> Arrays:
    """Read a network in float32 from a `.safetensors` file, for images as the network of the file expects them."""
    tensors, names, _ = _described(path)
    needed = {name: tensors[name] for layer in names.values() for name in layer.values()}
    arrays = {name: _finite(path, name, array) for name, array in safetensors_io.values(path, needed).items()}
    return state_dict.params_of(names, arrays)


def widths(path: FilePath) -> Widths:
    """Read the channels of every convolution, block by block, without reading the values."""
    if _is_safetensors(path):
        return widths_of(_described(path)[2])
    with hdf5.opened(Path(path), cure=CURE) as file:
        return widths_of(_layers(file, path))  # pyright: ignore[reportArgumentType] - it reads shapes only


def provenance(path: FilePath) -> dict[str, str]:
    """Read those of `ATTRIBUTES` that a file of this project has, or the preprocessing of a safetensors file."""
    if _is_safetensors(path):
        return {"preprocessing": SAFETENSORS_PREPROCESSING}
    with hdf5.opened(Path(path), cure=CURE) as file:
        return {key: printable(" ".join(hdf5.strings(file, key))) for key in ATTRIBUTES if key in file.attrs}


def write(
    path: FilePath,
    params: Mapping[str, Mapping[str, Any]],
    *,
    source: str,
    checksum: str,
    licence: str,
    preprocessing: str = PREPROCESSING,
    training: str = "",
) -> None:
    """Write a file of this project atomically; equal arguments give equal bytes, and arrays keep their float type."""
    path = Path(path)
    layers = {
        name: {part: np.asarray(values) for part, values in params[name].items()}
        for name in CONV_LAYERS
        if name in params
    }
    _check_shapes(path, layers)
    arrays = {f"{name}/{part}": layers[name][part] for name in layers for part in ("kernel", "bias")}
    for name, values in arrays.items():
        _finite(path, name, values)
    with atomic_write(path) as part, h5py.File(part, "w") as file:
        for key, text in zip(ATTRIBUTES, (source, checksum, licence, preprocessing, training), strict=True):
            if text or key != "training":
                # Of fixed length: damaged strings of variable length can hang HDF5.
                file.attrs[key] = np.bytes_(text.encode())
        for name, values in arrays.items():
            file.create_dataset(name, data=values, track_times=False)


def _layers(file: h5py.File, path: FilePath) -> dict[str, dict[str, h5py.Dataset]]:
    """Return the data sets of every layer; check everything but their values."""
    keras = _keras_names(file)
    names = keras or {name: (f"{name}/kernel", f"{name}/bias") for name in CONV_LAYERS if name in file}
    layers = {}
    for layer, pair in names.items():
        datasets = (hdf5.follow(file, name, cure=CURE) for name in pair)
        layers[layer] = dict(zip(("kernel", "bias"), datasets, strict=True))
        for dataset in layers[layer].values():
            # HDF5 unpacks complete chunks, so their size is limited too; compressed ones may expand to any size.
            if dataset.is_virtual or dataset.external or math.prod(dataset.chunks or ()) > 9 * MAX_WIDTH**2:
                raise InputError(f"{path} keeps {layer} elsewhere or in oversized pieces, which is not read: {CURE}")
            if dataset.id.get_create_plist().get_nfilters():
                raise InputError(f"{path} keeps {layer} compressed, which is not read: {CURE}")
    _check_shapes(path, layers, full=bool(keras))
    return layers


def _keras_names(file: h5py.File) -> dict[str, tuple[str, str]]:
    """Return the names of kernel and bias of each layer in a Keras file; empty for other files."""
    prefix = "model_weights/" if "model_weights" in file else ""
    names = {}
    for name in hdf5.strings(hdf5.follow(file, prefix, cure=CURE), "layer_names"):
        if match := KERAS_LAYER.fullmatch(name):
            kernel, bias = hdf5.strings(hdf5.follow(file, prefix + name, cure=CURE), "weight_names")
            names["conv{}_{}".format(*match.groups())] = (f"{prefix}{name}/{kernel}", f"{prefix}{name}/{bias}")
    return {layer: names[layer] for layer in CONV_LAYERS if layer in names}


def _is_safetensors(path: FilePath) -> bool:
    return Path(path).suffix.lower() == safetensors_io.SUFFIX


def _described(path: FilePath) -> tuple[dict[str, safetensors_io.Tensor], dict[str, dict[str, str]], Any]:
    """Return the tensors of a safetensors file, VGG-19's names, and its params as shapes; no values are read."""
    tensors = safetensors_io.header(path)
    names = state_dict.tensor_names(path, {name: tensor.shape for name, tensor in tensors.items()})
    for name in (name for layer in names.values() for name in layer.values()):
        if (kind := tensors[name].kind) not in safetensors_io.DTYPES:
            raise InputError(f"{path} holds {excerpt(name)} as {excerpt(kind)}, but it is to be of floats: {CURE}")
    params = {}
    for layer, pair in names.items():
        out, channels, *taps = tensors[pair["kernel"]].shape
        shapes = {"kernel": (*taps, channels, out), "bias": tensors[pair["bias"]].shape}
        params[layer] = {part: jax.ShapeDtypeStruct(shape, np.float32) for part, shape in shapes.items()}
    _check_shapes(path, params)
    return tensors, names, params


def _check_shapes(path: Any, layers: Mapping[str, Mapping[str, Any]], *, full: bool = False) -> None:
    """Check that every layer is present, has float values, and has as many input channels as the previous outputs."""
    missing = [name for name in CONV_LAYERS if not {"kernel", "bias"} <= layers.get(name, {}).keys()]
    if missing and tuple(missing) != VGG16_LACKS:
        some = f"{len(missing)} of VGG-19's {len(CONV_LAYERS)} convolutions ({', '.join(missing)})"
        raise InputError(f"{path} lacks {some}: {CURE}")
    channels = 3
    for name, width in zip(CONV_LAYERS, itertools.chain(*BLOCK_WIDTHS), strict=True):
        if name in missing:
            continue
        kernel, bias = layers[name]["kernel"], layers[name]["bias"]
        if kernel.dtype.kind != "f" or bias.dtype.kind != "f":
            kinds = f"{excerpt(kernel.dtype)} and {excerpt(bias.dtype)}"
            raise InputError(f"{path} holds {name} as {kinds}, but kernel and bias are to be floats: {CURE}")
        out = width if full or len(bias.shape or ()) != 1 else bias.shape[0]
        if kernel.shape != (3, 3, channels, out) or bias.shape != (out,) or not 1 <= out <= MAX_WIDTH:
            need = f"(3, 3, {channels}, n) and (n,), n {f'= {width}' if full else f'from 1 to {MAX_WIDTH}'}"
            shapes = f"{excerpt(kernel.shape)} and {excerpt(bias.shape)}"
            raise InputError(f"{path} holds {name} of shapes {shapes}, not {need}: {CURE}")
        channels = out


def _finite(path: Any, name: str, values: np.ndarray) -> np.ndarray:
    """Return `values` as float32; check that they are finite."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if bad := int(np.count_nonzero(~np.isfinite(values))):
        raise InputError(f"{path} holds {bad} of {values.size} values in {name} that are not finite: {CURE}")
    return values

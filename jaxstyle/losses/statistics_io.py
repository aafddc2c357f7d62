"""Style statistics in HDF5 files, which replace the style images. A file is valid only for the network that it names.

For each longest side of the result, a file contains the moments or quantiles of every style layer.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxstyle.errors import InputError, excerpt
from jaxstyle.files import atomic_write
from jaxstyle.losses.layer_summaries import AnyNetwork
from jaxstyle.losses.moments import Moments
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.style import Summary
from jaxstyle.losses.targets import network_of_styles
from jaxstyle.losses.wasserstein import LEVELS, Quantiles
from jaxstyle.networks import hdf5
from jaxstyle.networks.vgg import CONV_LAYERS, VGG19, Params

FORMAT = "jaxstyle style statistics 1"
CURE = "create it again with jaxstyle statistics."
MAX_SIZES = 64


def network_hash(params: Params) -> str:
    """Return the SHA-256 of the parameters of a network in float32; it does not depend on their file."""
    digest = hashlib.sha256()
    for layer in filter(params.__contains__, CONV_LAYERS):
        for part in ("kernel", "bias"):
            values = np.ascontiguousarray(params[layer][part], np.float32)
            digest.update(f"{layer}/{part}{values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


def write(
    path: str | os.PathLike[str],
    sizes: Mapping[int, Mapping[str, Summary]],
    *,
    params: Params,
    objective: Objective = Objective(),
    network: AnyNetwork = VGG19(),
    pictures: Sequence[str],
) -> None:
    """Write style statistics atomically; equal arguments give equal bytes.

    Args:
        path: the file to write or replace.
        sizes: summaries by the longest side of the result, in pixels, and by style layer.
        params: the network of the statistics.
        objective: the objective of the statistics.
        network: the network of the statistics.
        pictures: names of the style images.

    Raises:
        UnavailableError: if the file cannot be written.
    """
    with atomic_write(path) as part, h5py.File(part, "w") as file:
        for name, text in _facts(params, objective, network).items():
            file.attrs[name] = np.bytes_(text.encode())
        file.attrs["pictures"] = np.bytes_("\n".join(pictures).encode(errors="backslashreplace")[:60_000])
        for side, summary in sizes.items():
            for layer, statistic in summary.items():
                for part, values in statistic._asdict().items():
                    name = f"{side}/{layer}/{part}"
                    file.create_dataset(name, data=np.asarray(values, np.float32), track_times=False)


def read(
    path: str | os.PathLike[str], *, params: Params, objective: Objective = Objective(), network: AnyNetwork = VGG19()
) -> dict[int, dict[str, Summary]]:
    """Read style statistics for the network and the statistic with which they were computed.

    Args:
        path: a file of `write`.
        params: of the network.
        objective: the objective of the run, with the style layers to read.
        network: the network of the run.

    Returns:
        Summaries by the longest side of the result, in pixels, and by style layer.

    Raises:
        InputError: if the file is missing or damaged, or of another network or statistic.
    """
    with hdf5.opened(Path(path), cure=CURE) as file:
        for name, expected in _facts(params, objective, network).items():
            if (stored := " ".join(hdf5.strings(file, name))) != expected:
                problem = f"{path} has the {name} {excerpt(stored)!r}, but this run has {expected[:80]!r}"
                raise InputError(f"{problem}: {CURE}")
        sides = [side for side in map(str, file) if side.isdecimal() and len(side) < 7 and int(side)]
        if not 1 <= len(sides) <= MAX_SIZES or len(sides) != len(file):
            raise InputError(f"{path} holds {len(file)} groups, not 1 to {MAX_SIZES} sizes: {CURE}")
        kind = Quantiles if objective.statistic == "sliced" else Moments
        return {
            int(side): {layer: _summary(file, f"{side}/{layer}", kind, params) for layer in objective.style_layers}
            for side in sides
        }


def _facts(params: Params, objective: Objective, network: AnyNetwork) -> dict[str, str]:
    """Return the properties in which file and run must agree."""
    network = network_of_styles(network)
    if not isinstance(network, VGG19):
        raise InputError("Statistics of a user-defined network cannot be saved or loaded: pass them as arrays.")
    return {
        "format": FORMAT,
        "network": network_hash(params),
        "statistic": "quantiles" if objective.statistic == "sliced" else "moments",
        "pooling": f"{network.pooling} times {network.pooling_gain:g}",
        "border": network.padding,
        "white": f"{network.input_scale:g}",
    }


def _summary(file: h5py.File, name: str, kind: type[Moments] | type[Quantiles], params: Params) -> Summary:
    """Return the summary of a layer; check its shape before reading any data."""
    channels = params[f"conv{name.rpartition('/')[2][4:]}"]["kernel"].shape[-1]
    arrays: dict[str, Any] = {part: hdf5.follow(file, f"{name}/{part}", cure=CURE) for part in kind._fields}
    count = arrays["directions"].shape[-1] if kind is Quantiles else 0
    shapes = {"mean": (channels,), "second": (channels, channels)}
    shapes |= {"directions": (channels, count), "values": (count, LEVELS)}
    for part, dataset in arrays.items():
        stored = isinstance(dataset, h5py.Dataset) and not (dataset.is_virtual or dataset.external or dataset.chunks)
        if not stored or dataset.shape != shapes[part] or dataset.dtype != np.float32 or count > channels:
            raise InputError(f"{file.filename} holds {name}/{part} in another form than {shapes[part]}: {CURE}")
        if not np.isfinite(values := dataset[()]).all():
            raise InputError(f"{file.filename} has values in {name}/{part} that are not finite: {CURE}")
        arrays[part] = values
    return kind(**arrays)

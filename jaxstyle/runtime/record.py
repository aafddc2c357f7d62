"""The record of a run, its inputs, options and versions, and its conversion to and from JSON.

A record may come from an untrusted picture and is data: it contains no paths and no code. Inputs have numbers, to which
options refer, names without folders, and hashes, by which `jaxstyle rerun` finds them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxstyle.config import Config, LossWeights
from jaxstyle.distributed.processes import of_all
from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.placement import lanes_among, rows_among
from jaxstyle.runtime.plain_data import differences, plain, structured
from jaxstyle.runtime.problem import Work
from jaxstyle.runtime.runner import Place

FORMAT = "jaxstyle run 1"
PACKAGES = ("jaxstyle", "jax", "jaxlib", "optax", "numpy", "pillow", "imagecodecs")
MOST = 2**20  # characters of a record
DEEPEST = 20  # maximum nesting of a record
# Fields of a config that are functions, or used by them; commands always use their defaults.
FUNCTIONS = ("conv", "own_terms", "own_layers", "network")
CURE = "name a picture that jaxstyle has saved, with its .json beside it where it was converted."


@dataclass(frozen=True)
class Source:
    """An input file: its name without folders, and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """A network: its name, the name of its file ("" if random), and the SHA-256 of its parameters in any file."""

    name: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """Inputs, options and results of a run; without times and folders, so that equal runs have equal records.

    Attributes:
        command: name of the command, such as "stylize".
        options: options of the command as given by the user; each path is replaced by the number of its input.
        inputs: all input files except the network.
        network: the network.
        config: the resulting static options.
        weights: weights of the loss by term.
        versions: versions of packages.
        device: name of the device.
        cuts: for scales that did not fit into memory, by longest side, the number of pixels of a tile, or of the full
            image for row chunks only.
        steps: number of steps.
        trace: each term before the first step, and before the last.
        lanes: numbers of all pictures of the batch in the sweep, for a picture of a sweep.
        lane: index of this picture in `lanes`.
        devices: number of devices, each like `device`.
        format: format of the record.
    """

    command: str
    options: dict[str, Any]
    inputs: tuple[Source, ...]
    network: Weights
    config: dict[str, Any]
    weights: dict[str, float]
    versions: dict[str, str]
    device: str
    cuts: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    trace: dict[str, tuple[float, float]] = field(default_factory=dict)
    lanes: tuple[int, ...] = ()
    lane: int = 0
    devices: int = 1
    format: Literal["jaxstyle run 1"] = FORMAT


def source(path: Path) -> Source:
    """Return the name and the hash of a file.

    Args:
        path: the file.

    Raises:
        InputError: if it cannot be read.

    Example:
        >>> source(Path("content.jpg")).name  # doctest: +SKIP
        'content.jpg'
    """
    try:
        with path.open("rb") as file:
            return Source(path.name, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a file that you may read.") from error


def versions() -> dict[str, str]:
    """Return the versions of the packages on which the bytes of a picture depend.

    Example:
        >>> versions()["jaxstyle"]
        '0.1.0'
    """
    return {package: metadata.version(package) for package in PACKAGES}


def text(record: Record, *, indent: int | None = None) -> str:
    """Return a record as ASCII JSON.

    Args:
        record: of a run.
        indent: spaces per level, or None for one line.

    Example:
        >>> read(text(record)) == record  # doctest: +SKIP
        True
    """
    return json.dumps(plain(record, paths={}), indent=indent, allow_nan=False)


def read(text: str, name: str = "the record") -> Record:
    """Return the record in a JSON text, or in its field "record"; check the type of every field.

    Args:
        text: untrusted JSON.
        name: name of the text in error messages.

    Raises:
        InputError: if the text is not a record.

    Example:
        >>> read("{}")
        Traceback (most recent call last):
        ...
        jaxstyle.errors.InputError: the record holds no record of a run (...): name a picture that jaxstyle ...
    """
    try:
        if len(text) > MOST:
            raise ValueError(f"{len(text)} characters are over {MOST}")
        value = json.loads(text, parse_constant=_refuse)
        if isinstance(value, dict) and isinstance(value.get("record"), dict):  # an entry of a sweep
            value = value["record"]
        _check_depth(value)
        return structured(Record, value)
    except (ValueError, RecursionError) as error:  # errors of json are ValueErrors
        reason = "too deep" if isinstance(error, RecursionError) else error
        why = f" ({excerpt(reason)})" if text else ""
        raise InputError(f"{name} holds no record of a run{why}: {CURE}") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _check_depth(value: Any, levels: int = DEEPEST) -> None:
    if not levels:
        raise RecursionError
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(part, levels - 1)


def check_same(what: dict[str, Any]) -> None:
    """Refuse to go on where another process has other facts.

    Raises:
        InputError: in all processes, if two of them differ.
    """
    every = of_all(what)
    for number, theirs in enumerate(every[1:], 1):
        for name, own, other in differences(every[0], theirs):
            shown = [excerpt(repr(each), most=60) for each in (own, other)]
            raise InputError(
                f"Process 0 has {excerpt(name, most=60)} {shown[0]}, but process {number} has {shown[1]}: "
                "give all processes the same command and the same files."
            )


class Job(NamedTuple):
    """The work of a command, the alpha of its content, and its record before the run."""

    work: Work
    alpha: np.ndarray | None
    record: Record


def record_of(command: str, options: dict[str, Any], *, inputs: Iterable[Path], network: Weights, work: Work) -> Record:
    """Return the record of a command before the run."""
    return Record(
        command=command,
        options=options,
        inputs=tuple(source(path) for path in inputs),
        network=network,
        config=_facts(work.config),
        weights=numbers(work.weights),
        versions=versions(),
        device=_device(),
    )


def laid_out(job: Job, *, tell: Callable[[str], None]) -> Job:
    """Return a job with its layout on devices, and show a message about it.

    Raises:
        InputError: as `lanes_among` and `rows_among` do.
    """
    work = job.work
    if work.lanes is not None:
        layout = lanes_among(work.devices, lanes=work.lanes)
    else:
        layout = rows_among(work.devices, config=work.config)
    if layout is None:
        return job
    what = "the picture's rows" if work.lanes is None else "the pictures"
    among = f" of {jax.process_count()} processes" if layout.spans else ""
    tell(f"{layout.mesh.size} devices{among} share {what}")
    record = replace(job.record, devices=layout.mesh.size)
    return job._replace(work=replace(work, layout=layout), record=record)


def finished(record: Record, place: Place) -> Record:
    """Return the record of the picture at a place of the run."""
    trace = {name: (float(found[0]), float(found[-1])) for name, found in place.trace.items()}
    return replace(record, cuts={str(side): cut for side, cut in place.cuts.items()}, steps=place.steps, trace=trace)


def numbers(weights: LossWeights) -> dict[str, float]:
    """Return the weights of the loss by term."""
    terms = {f"{kind}/{layer}": own for kind in ("content", "style") for layer, own in getattr(weights, kind).items()}
    return {name: float(own) for name, own in {**terms, "tv": weights.tv, "bounds": weights.bounds}.items()}


def _facts(config: Config) -> dict[str, Any]:
    return {name: plain(value, paths={}) for name, value in vars(config).items() if name not in FUNCTIONS}


def _device() -> str:
    """Return the device on which rounding depends: the accelerator, or the processor and its number of cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} x {model}"

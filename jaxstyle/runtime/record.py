"""The record of a run, its inputs, options and versions, and its conversion to and from JSON.

A record may come from an untrusted picture and is data: it contains no paths and no code. Inputs have numbers, to which
options refer, names without folders, and hashes, by which `jaxstyle rerun` finds them.
"""

from __future__ import annotations

import contextlib
import json
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.core import Tracer

from jaxstyle.distributed.processes import allgather_json
from jaxstyle.errors import InputError, excerpt
from jaxstyle.files import sha256
from jaxstyle.images.metadata import description_of
from jaxstyle.losses.objective import Objective
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.runtime.backends import device_name
from jaxstyle.runtime.problem import Problem

FORMAT = "jaxstyle run 2"
FIRST_FORMAT = "jaxstyle run 1"
PACKAGES = ("jaxstyle", "jax", "jaxlib", "optax", "numpy", "pillow", "imagecodecs")
MOST = 2**20  # characters of a record
NETWORK_SETTINGS = ("pooling", "pooling_gain", "padding", "input_scale", "precision", "remat", "tile_pixels")
DEEPEST = 20  # maximum nesting of a record
CURE = "name a picture that jaxstyle has saved, with its .json beside it where it was converted."
# Names of version 1, which had the options in groups.
RENAMED = {"config": "settings", "cuts": "memory_plans", "trace": "history", "lanes": "batch", "lane": "index"}
RENAMED_OPTIONS = {"memory": "lbfgs_history", "averaging": "ema_decay", "blend": "style_weights"}
# Fields that may differ in a resumed run, or follow from others.
NOT_COMPARED = ("device", "weights", "memory_plans", "steps", "history", "batch", "index", "devices")


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
class RunRecord:
    """Inputs, options and results of a run; without times and folders, so that equal runs have equal records."""

    command: str
    options: dict[str, Any]  # as given by the user; each path is replaced by the number of its input
    inputs: tuple[Source, ...]  # all input files except the network
    network: Weights
    settings: dict[str, Any]  # the resulting options of objective, network and optimizer
    weights: dict[str, float]  # of the loss by term
    versions: dict[str, str]  # of packages
    device: str
    memory_plans: dict[str, int] = field(default_factory=dict)  # see `CompiledScale`, by longest side
    steps: int = 0
    history: dict[str, tuple[float, float]] = field(default_factory=dict)  # before the first step and before the last
    batch: tuple[int, ...] = ()  # numbers of all pictures of the batch, for a picture of a sweep
    index: int = 0  # of this picture in `batch`
    devices: int = 1  # number of devices, each like `device`
    format: Literal["jaxstyle run 2"] = FORMAT


def versions() -> dict[str, str]:
    """Return the versions of the packages on which the bytes of a picture depend."""
    return {package: metadata.version(package) for package in PACKAGES}


def text(record: RunRecord, *, indent: int | None = None) -> str:
    """Return a record as ASCII JSON."""
    return json.dumps(plain(record, paths={}), indent=indent, allow_nan=False)


def read(text: str, name: str = "the record") -> RunRecord:
    """Return the record in a JSON text, or in its field "record"; check the type of every field."""
    try:
        if len(text) > MOST:
            raise ValueError(f"{len(text)} characters are over {MOST}")
        value = json.loads(text, parse_constant=_refuse)
        if isinstance(value, dict) and isinstance(value.get("record"), dict):  # an entry of a sweep
            value = value["record"]
        _check_depth(value)
        return structured(RunRecord, translated(value))
    except (ValueError, RecursionError) as error:  # errors of json are ValueErrors
        reason = "too deep" if isinstance(error, RecursionError) else error
        why = f" ({excerpt(reason)})" if text else ""
        raise InputError(f"{name} holds no record of a run{why}: {CURE}") from error


def translated(value: Any) -> Any:
    """Return a record as JSON data in this version; one of version 1 had other names, and groups of options."""
    if not isinstance(value, dict) or value.get("format") != FIRST_FORMAT:
        return value
    renamed = {RENAMED.get(name, name): part for name, part in value.items()} | {"format": FORMAT}
    if isinstance(options := value.get("options"), dict):
        flat: dict[str, Any] = {}
        for name, option in options.items():
            flat |= option if isinstance(option, dict) else {name: option}
        renamed["options"] = {RENAMED_OPTIONS.get(name, name): option for name, option in flat.items()}
    return renamed


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _check_depth(value: Any, levels: int = DEEPEST) -> None:
    if not levels:
        raise RecursionError
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(part, levels - 1)


def record_of(picture: Path, *, max_pixels: int | None = None) -> RunRecord:
    """Return the record of a picture, from its metadata or from the .json file beside it."""
    inside, beside = description_of(picture, max_pixels=max_pixels), picture.with_suffix(".json")
    try:
        return read(inside, str(picture))
    except InputError:
        if not beside.is_file():
            raise
    try:
        with beside.open(encoding="utf-8") as file:
            return read(file.read(MOST + 1), str(beside))  # at most one character over the limit
    except (OSError, UnicodeError) as error:
        raise InputError(f"{beside} cannot be read: {CURE}") from error


def check_same(facts: dict[str, Any]) -> None:
    """Refuse to go on where another process has other facts."""
    first, *others = allgather_json(facts)
    for number, theirs in enumerate(others, 1):
        for name, value, other in differences(first, theirs):
            values = [excerpt(repr(each), most=60) for each in (value, other)]
            raise InputError(
                f"Process 0 has {excerpt(name, most=60)} {values[0]}, but process {number} has {values[1]}: "
                "give all processes the same command and the same files."
            )


def new_record(
    command: str, options: dict[str, Any], *, inputs: Iterable[Path], network: Weights, problem: Problem
) -> RunRecord:
    """Return the record of a command before the run."""
    sources = tuple(Source(path.name, sha256(path)) for path in inputs)
    facts = (settings_of(problem), weights_by_term(problem.objective), versions(), device_name())
    return RunRecord(command, options, sources, network, *facts)


def identity(record: RunRecord) -> dict[str, Any]:
    """Return the facts of a record that must be equal to resume a run; names of files may differ."""
    same = {name: value for name, value in plain(record, paths={}).items() if name not in NOT_COMPARED}
    network = {"name": record.network.name, "sha256": record.network.sha256}
    return same | {"inputs": [each.sha256 for each in record.inputs], "network": network}


def settings_of(problem: Problem) -> dict[str, Any]:
    """Return objective, network, optimizer, scales and color as JSON data, without weights of terms and functions."""
    objective, network, optimizer = problem.objective, problem.network, problem.optimizer
    of_optimizer = {"name": type(optimizer).__name__, **_static_fields(optimizer)}
    if (rates := jax.tree.leaves(optimizer)) and not isinstance(rates[0], Tracer):
        of_optimizer["learning_rate"] = np.asarray(rates[0], np.float64).tolist()
    names = NETWORK_SETTINGS if isinstance(network, VGG19) else ()
    terms = list(objective.term_names)
    return {
        "objective": {"name": type(objective).__name__, "terms": terms, **_static_fields(objective)},
        "network": {name: plain(getattr(network, name), paths={}) for name in names},
        "optimizer": of_optimizer,
        "scales": plain(problem.schedule, paths={}),
        "color": problem.color,
    }


def _static_fields(value: Any) -> dict[str, Any]:
    """Return the static fields of a data class as JSON data; functions by their names."""
    if not is_dataclass(value):
        return {}
    return {each.name: _named(getattr(value, each.name)) for each in fields(value) if each.metadata.get("static")}


def _named(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_named(each) for each in value]
    if isinstance(value, str | int | float | None):
        return value
    return getattr(value, "__qualname__", None) or f"a {type(value).__name__}"


def weights_by_term(objective: AnyObjective) -> dict[str, float]:
    """Return the weights of the loss by term; without those that differ within a batch."""
    if isinstance(objective, Objective):
        kinds = {"content": objective.content, "style": objective.style}
        weights = {f"{kind}/{layer}": weight for kind, layers in kinds.items() for layer, weight in layers.items()}
        weights |= {**objective.extra, "tv": objective.tv, "range_penalty": objective.range_penalty}
    else:
        weights = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(objective)}
    return {name: float(np.asarray(weight)) for name, weight in weights.items() if np.ndim(weight) == 0}


def structured(kind: Any, value: Any, *, paths: Sequence[Path] = ()) -> Any:
    """Return JSON data as a value of type `kind`, without conversions or unknown fields."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [each.name for each in fields(kind)]
        if isinstance(value, dict) and value.keys() <= set(names):
            parts = {name: structured(hints[name], part, paths=paths) for name, part in value.items()}
            with contextlib.suppress(TypeError):  # a field without a default is missing
                return kind(**parts)  # pyright: ignore[reportCallIssue] - a class, whose instances are not callable
    elif origin in (typing.Union, types.UnionType):
        for each in inside:
            try:
                return structured(each, value, paths=paths)
            except ValueError:
                continue
    elif origin is Literal:
        if any(value == each and type(value) is type(each) for each in inside):
            return value
    elif origin is tuple and isinstance(value, list):
        kinds = inside[:1] * len(value) if inside[-1] is Ellipsis else inside
        if len(kinds) == len(value):
            return tuple(structured(each, part, paths=paths) for each, part in zip(kinds, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {name: structured(inside[1], part, paths=paths) for name, part in value.items()}
    elif kind is Path:
        if type(value) is int and 0 <= value < len(paths):
            return paths[value]
    elif kind is float:
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:  # JSON may contain 1e999 or such integers
            return float(value)
    elif kind is Any or type(value) is kind:
        return value
    raise ValueError(f"{excerpt(repr(value), most=60)} is no {getattr(kind, '__name__', kind)}")


def plain(value: Any, *, paths: dict[Path, int]) -> Any:
    """Return a value as JSON data, the inverse of `structured`."""
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name), paths=paths) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(part, paths=paths) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part, paths=paths) for part in value]
    if isinstance(value, Path):
        return paths.setdefault(value, len(paths))
    return value


def differences(one: Any, other: Any, *, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the differences of two values as JSON data: the name of the field, and both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from differences(one.get(key), other.get(key), name=f"{name}.{key}" if name else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (mine, yours) in enumerate(zip(one, other, strict=True), 1):
            yield from differences(mine, yours, name=f"{name} {number}")
    elif one != other:
        yield name, one, other

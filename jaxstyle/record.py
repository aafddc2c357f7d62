"""What a picture was made from: a run's record, as JSON text and back, and how two of them differ.

A record comes from a stranger's picture and is data: it names no path and no code. Inputs have numbers, by which the
options refer to them, names without folders, and hashes, by which they are found.
"""

import contextlib
import hashlib
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from jaxstyle.errors import InputError, excerpt

FORMAT = "jaxstyle run 1"
PACKAGES = ("jaxstyle", "jax", "jaxlib", "optax", "numpy", "pillow", "imagecodecs")
MOST = 2**20  # characters of a record
DEEPEST = 20  # levels of what a record holds
CURE = "name a picture that jaxstyle has saved, with its .json beside it where it was converted."


@dataclass(frozen=True)
class Source:
    """A file that was read: its name without folders, and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """A network: its name, its file's ("" if computed), and the SHA-256 of its numbers, whatever file they are in."""

    name: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """All that a picture depends on, and what came of it; no time and no folder, so that equal runs have equal records.

    Attributes:
        command: what made it, such as "stylize".
        options: the command's own, as the user gave them; a number stands for an input wherever there is a path.
        inputs: every file that was read, network apart.
        network: that looked at the pictures.
        config: the static facts that the options came to.
        weights: the coefficients of the loss, by term.
        versions: by package.
        device: what it was computed on.
        strips: longest sides of the scales that went through their largest layers in strips for lack of memory.
        steps: how many were taken.
        trace: each term before the first step, and before the last.
        lanes: where many pictures were painted at a time, the numbers of all of them in the sweep.
        lane: which of them this one is, from 0.
        format: of the record itself.
    """

    command: str
    options: dict[str, Any]
    inputs: tuple[Source, ...]
    network: Weights
    config: dict[str, Any]
    weights: dict[str, float]
    versions: dict[str, str]
    device: str
    strips: tuple[int, ...] = ()
    steps: int = 0
    trace: dict[str, tuple[float, float]] = field(default_factory=dict)
    lanes: tuple[int, ...] = ()
    lane: int = 0
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
    """Return the versions of what a picture's bytes depend on.

    Example:
        >>> versions()["jaxstyle"]
        '0.1.0'
    """
    return {package: metadata.version(package) for package in PACKAGES}


def text(record: Record, *, indent: int | None = None) -> str:
    """Return a record as JSON, in ASCII.

    Args:
        record: of a run.
        indent: spaces for each level, or None for one line.

    Example:
        >>> read(text(record)) == record  # doctest: +SKIP
        True
    """
    return json.dumps(plain(record, paths={}), indent=indent, allow_nan=False)


def read(text: str, name: str = "the record") -> Record:
    """Return the record that a text is, or that it holds as "record", every part of the type that it has to have.

    Args:
        text: JSON, from wherever.
        name: what error messages call it.

    Raises:
        InputError: if the text is no record.

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
        if isinstance(value, dict) and isinstance(value.get("record"), dict):  # the entry of a picture of a sweep
            value = value["record"]
        _check_depth(value)
        return structured(Record, value)
    except (ValueError, RecursionError) as error:  # json's own errors are ValueErrors
        reason = "too deep" if isinstance(error, RecursionError) else error
        why = f" ({excerpt(reason)})" if text else ""
        raise InputError(f"{name} holds no record of a run{why}: {CURE}") from error


def structured(kind: Any, value: Any, *, paths: Sequence[Path] = ()) -> Any:
    """Return JSON data as a value of type `kind`, or raise: nothing is converted, left out or ignored.

    Args:
        kind: a data class or another annotation, of those that the command line's options have.
        value: dictionaries, lists, texts, numbers, truth values and None.
        paths: what the numbers that stand for paths stand for.

    Raises:
        ValueError: if `value` is of another type, or names an input that there is not.

    Example:
        >>> structured(tuple[int, ...] | None, [1, 2])
        (1, 2)
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [each.name for each in fields(kind)]
        if isinstance(value, dict) and value.keys() <= set(names):
            parts = {name: structured(hints[name], part, paths=paths) for name, part in value.items()}
            with contextlib.suppress(TypeError):  # a part without a default is missing
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
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:  # a text may hold 1e999, or as many digits
            return float(value)
    elif kind is Any or type(value) is kind:
        return value
    raise ValueError(f"{excerpt(repr(value), most=60)} is no {getattr(kind, '__name__', kind)}")


def plain(value: Any, *, paths: dict[Path, int]) -> Any:
    """Return a value as JSON data, the inverse of `structured`.

    Args:
        value: of a data class, or another that `structured` returns.
        paths: the number of each path; new ones are added.

    Example:
        >>> plain((1.5, Path("a.png")), paths={})
        [1.5, 0]
    """
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
    """Yield what differs between two records as JSON data: its name, and what it is in each.

    Args:
        one: of `plain`.
        other: likewise.
        name: of the part.

    Example:
        >>> list(differences({"size": 256, "seed": 0}, {"size": 512, "seed": 0}))
        [('size', 256, 512)]
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from differences(one.get(key), other.get(key), name=f"{name}.{key}" if name else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (mine, yours) in enumerate(zip(one, other, strict=True), 1):
            yield from differences(mine, yours, name=f"{name} {number}")
    elif one != other:
        yield name, one, other


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _check_depth(value: Any, levels: int = DEEPEST) -> None:
    if not levels:
        raise RecursionError
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(part, levels - 1)

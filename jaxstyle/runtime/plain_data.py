"""Conversion of data classes to and from JSON data with type checks, and their differences."""

import contextlib
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from jaxstyle.errors import excerpt


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

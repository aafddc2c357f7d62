"""Parsing of the values of a sweep: lists and ranges of numbers, and sets of layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from jaxstyle.cli.options import check_number
from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.sweep_grid import MOST_LANES

DIGITS = 6  # of the values in a range, so that labels are exact


def parse_values(name: str, text: str, *, least: float) -> list[float]:
    """Parse "1,10,100", or "from:to:count", logarithmic unless an end is zero, or a comma-separated mix of both."""
    values = list(itertools.chain.from_iterable(_part(name, part.strip(), text) for part in text.split(",")))
    for value in values:
        check_number(name, value, least)
    return _different(name, text, values)


def parse_sets(name: str, text: str) -> list[str]:
    """Parse sets of layers, separated by semicolons."""
    return _different(name, text, ["".join(part.split()) for part in text.split(";")])


def _different(name: str, text: str, values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise InputError(f"--{name} {excerpt(repr(text))} has a value twice: give each value once.")
    return values


def _part(name: str, part: str, text: str) -> Iterator[float]:
    option = f"--{name} is {excerpt(repr(text))}"
    wrong = InputError(f"{option}: use a number, numbers with commas, or a range from:to:count.")
    try:
        first, *rest = part.split(":")
        start = float(first)
        if not rest:
            return iter([start])
        stop, count = float(rest[0]), int(rest[1])
    except (ValueError, IndexError) as error:
        raise wrong from error
    if len(rest) != 2 or not 2 <= count <= MOST_LANES or not (math.isfinite(start) and math.isfinite(stop)):
        raise InputError(f"{option}: a range is from:to:count, such as 10:1000:5, with 2 values at least.")
    if start < 0 or stop < 0 or start == stop:
        raise InputError(f"{option}: a range goes from one number to another, both 0 or more.")
    steps = [i / (count - 1) for i in range(count)]
    if start == 0 or stop == 0:
        values = [start + step * (stop - start) for step in steps]
    else:
        values = [start * (stop / start) ** step for step in steps]
    return iter([start, *(float(f"{value:.{DIGITS}g}") for value in values[1:-1]), stop])

"""Combinations of settings of a sweep, one picture each."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxstyle.errors import InputError

MOST_LANES = 10_000
LONGEST = 100  # characters of a file name


@dataclass(frozen=True)
class Lane:
    """One combination: the value of each option that differs within the sweep, in terms of the command line."""

    settings: Mapping[str, float | int | str]

    @property
    def label(self) -> str:
        """The settings as text, such as "style-weight 30, seed 2"."""
        return ", ".join(f"{name} {shown(value)}" for name, value in self.settings.items()) or "as it is"

    @property
    def name(self) -> str:
        """The stem of its files, such as "style-weight=30_seed=2", independent of other combinations."""
        name = "_".join(f"{name}={shown(value)}" for name, value in self.settings.items()) or "picture"
        name = name.replace(":", "-").replace(",", "+")
        return name if len(name) <= LONGEST else f"{name[:LONGEST]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def shown(value: float | int | str) -> str:
    """Return a value as text: six digits, or as many as it needs."""
    if isinstance(value, str):
        return value
    short = f"{value:.6g}"
    return short if float(short) == value else repr(value)


def combinations(options: Mapping[str, Sequence[float | int | str]]) -> list[Lane]:
    """Return all combinations of the values of options; the last option varies fastest."""
    count = math.prod(map(len, options.values()))
    if count > MOST_LANES:
        raise InputError(f"This sweep has {count} lanes: take shorter ranges, for at most {MOST_LANES}.")
    return [Lane(dict(zip(options, values, strict=True))) for values in itertools.product(*options.values())]

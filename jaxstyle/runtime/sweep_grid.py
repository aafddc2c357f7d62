"""The combinations of settings that a sweep goes through, one picture each."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxstyle.errors import InputError

MOST_LANES = 10_000
LONGEST = 100  # letters of a file's name


@dataclass(frozen=True)
class Lane:
    """One combination: a value for each option that differs from lane to lane, as the command line has it."""

    settings: Mapping[str, float | int | str]

    @property
    def label(self) -> str:
        """The settings in words, such as "style-weight 30, seed 2"."""
        return ", ".join(f"{name} {shown(value)}" for name, value in self.settings.items()) or "as it is"

    @property
    def name(self) -> str:
        """The stem of the lane's files, such as "style-weight=30_seed=2", whatever other lanes there are."""
        name = "_".join(f"{name}={shown(value)}" for name, value in self.settings.items()) or "picture"
        name = name.replace(":", "-").replace(",", "+")
        return name if len(name) <= LONGEST else f"{name[:LONGEST]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def shown(value: float | int | str) -> str:
    """Return a value as a reader wants it: six digits, or more where they differ."""
    if isinstance(value, str):
        return value
    short = f"{value:.6g}"
    return short if float(short) == value else repr(value)


def combinations(options: Mapping[str, Sequence[float | int | str]]) -> list[Lane]:
    """Return a lane for each combination of the options' values, the last option varying fastest."""
    count = math.prod(map(len, options.values()))
    if count > MOST_LANES:
        raise InputError(f"This sweep has {count} lanes: take shorter ranges, for at most {MOST_LANES}.")
    return [Lane(dict(zip(options, values, strict=True))) for values in itertools.product(*options.values())]

"""The pictures of a sweep: combinations of the values of several options, and the options of each picture."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.options import MOST_SEED, WEIGHTS, StylizeOptions, TransferOptions, check_number, parse_layers

if TYPE_CHECKING:
    from jaxstyle.losses.objective import Objective

MOST_PICTURES = 10_000
MOST_COLUMNS = 12
LONGEST = 100  # characters of a file name
OPTIONS = tuple(name.replace("_", "-") for name in WEIGHTS)
DIGITS = 6  # of the values in a range, so that labels are exact


@dataclass(frozen=True)
class Combination:
    """One picture: the value of each option that differs within the sweep, in terms of the command line."""

    settings: Mapping[str, float | int | str]

    @property
    def label(self) -> str:
        """The settings as text, such as "style-weight 30, seed 2"."""
        return ", ".join(f"{name} {value_text(value)}" for name, value in self.settings.items()) or "as it is"

    @property
    def name(self) -> str:
        """The stem of its files, such as "style-weight=30_seed=2", independent of other combinations."""
        name = "_".join(f"{name}={value_text(value)}" for name, value in self.settings.items()) or "picture"
        name = name.replace(":", "-").replace(",", "+")
        return name if len(name) <= LONGEST else f"{name[:LONGEST]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class SweepOptions(TransferOptions):
    """Options of a sweep; those of weights, layers and seeds have several values.

    Attributes:
        content_weight: weights of the content loss: a number, a list such as "1,10,100", or a range "10:1000:5".
        style_weight: weights of the style loss.
        tv_weight: weights of total variation.
        content_layers: sets of content layers, separated by semicolons; `style_layers` has the same form.
        seeds: number of seeds of the noise, from `seed`.
    """

    content_weight: str | None = None
    style_weight: str | None = None
    tv_weight: str | None = None
    content_layers: str | None = None
    seeds: int | None = None

    @cached_property
    def values(self) -> dict[str, Sequence[float | int | str]]:
        """The values of each given option that may differ within the sweep."""
        found: dict[str, Sequence[float | int | str]] = {}
        for name in OPTIONS:
            text = getattr(self, name.replace("-", "_"))
            if text is not None:
                found[name] = parse_values(name, text, least=0)
        layers = {"content-layers": self.content_layers, "style-layers": self.style_layers}
        found |= {name: parse_sets(name, text) for name, text in layers.items() if text is not None}
        if self.seeds is not None:
            check_number("seeds", self.seeds, 1, MOST_PICTURES)
            check_number("seed", self.seed, 0, MOST_SEED + 1 - self.seeds)
            if self.init not in ("content", "noise"):
                raise InputError(f"--seeds starts from noise, but --init is {self.init}: drop one.")
            found["seed"] = range(self.seed, self.seed + self.seeds)
        return found

    def combinations(self) -> list[Combination]:
        """Return all combinations of values."""
        return combinations({name: values for name, values in self.values.items() if len(values) > 1})

    def columns(self) -> int | None:
        """Return the number of columns of the sheet: with several options, that of the values of the last one."""
        counts = [len(values) for values in self.values.values() if len(values) > 1]
        if len(counts) > 1 and counts[-1] <= MOST_COLUMNS:
            return counts[-1]
        return math.prod(counts) if math.prod(counts) <= MOST_COLUMNS // 2 else None

    def single(self, settings: Mapping[str, Any]) -> StylizeOptions:
        """Return the options of one picture: its `settings`, and the first value of other options."""
        values = {name: each[0] for name, each in self.values.items()} | dict(settings)
        own: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(TransferOptions)}
        changed: dict[str, Any] = {name.replace("-", "_"): values[name] for name in values if name != "seed"}
        own |= changed
        if self.seeds is not None:
            own["init"] = "noise"
        return StylizeOptions(**own)

    def all_layers(self) -> StylizeOptions:
        """Return the options whose objective has the layers of all pictures."""
        sets = {name: each for name, each in self.values.items() if name.endswith("-layers")}
        union = {name: [layer for text in each for layer in parse_layers(str(text))] for name, each in sets.items()}
        return self.single({name: ",".join(dict.fromkeys(layers)) for name, layers in union.items()})

    def objective(self, combination: Combination, every: Objective) -> Objective:
        """Return the objective of one picture: weights of zero for the layers of `every` picture that it lacks."""
        _, own = self.single(combination.settings).resolve()
        return replace(
            own,
            content={layer: own.content.get(layer, 0.0) for layer in every.content_layers},
            style={layer: own.style.get(layer, 0.0) for layer in every.style_layers},
        )

    def seed_of(self, combination: Combination) -> int:
        """Return the seed of the noise of one picture."""
        return int(combination.settings.get("seed", self.seed))


def value_text(value: float | int | str) -> str:
    """Return a value as text: six digits, or as many as it needs."""
    if isinstance(value, str):
        return value
    short = f"{value:.6g}"
    return short if float(short) == value else repr(value)


def combinations(options: Mapping[str, Sequence[float | int | str]]) -> list[Combination]:
    """Return all combinations of the values of options; the last option varies fastest."""
    count = math.prod(map(len, options.values()))
    if count > MOST_PICTURES:
        raise InputError(f"This sweep has {count} pictures: take shorter ranges, for at most {MOST_PICTURES}.")
    return [Combination(dict(zip(options, values, strict=True))) for values in itertools.product(*options.values())]


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
    if len(rest) != 2 or not 2 <= count <= MOST_PICTURES or not (math.isfinite(start) and math.isfinite(stop)):
        raise InputError(f"{option}: a range is from:to:count, such as 10:1000:5, with 2 values at least.")
    if start < 0 or stop < 0 or start == stop:
        raise InputError(f"{option}: a range goes from one number to another, both 0 or more.")
    steps = [i / (count - 1) for i in range(count)]
    if start == 0 or stop == 0:
        values = [start + step * (stop - start) for step in steps]
    else:
        values = [start * (stop / start) ** step for step in steps]
    return iter([start, *(float(f"{value:.{DIGITS}g}") for value in values[1:-1]), stop])

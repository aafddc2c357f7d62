"""The pictures of a sweep: combinations of the values of several options, and the options of each picture."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.options import MOST_SEED, WEIGHTS, StylizeOptions, TransferOptions, check_number, parse_layers

if TYPE_CHECKING:
    from pathlib import Path

    from jaxstyle.optim.loop import AnyObjective
    from jaxstyle.transfer.presets import Preset

MOST_PICTURES = 10_000
MOST_COLUMNS = 12
LONGEST = 100  # characters of a file name
LAYERS = ("content_layers", "style_layers")
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
    """Options of a sweep; those of weights, layers (sets are separated by semicolons) and seeds have several values."""

    command: ClassVar[str] = "sweep"
    content_weight: str | None = None  # a number, a list such as "1,10,100", or a range "10:1000:5"
    style_weight: str | None = None
    tv_weight: str | None = None
    content_layers: str | None = None
    seeds: int | None = None  # number of seeds of the noise, from `seed`

    def check(self, styles: Sequence[Path]) -> None:
        """Raise `InputError` unless the options of every picture can be used for these styles."""
        self.check_ranges()
        self.all_layers().check(styles)
        for combination in self.combinations():
            self.single(combination.settings).check_ranges()

    @cached_property
    def values(self) -> dict[str, Sequence[float | int | str]]:
        """The values of each given option that may differ within the sweep."""
        by_option: dict[str, Sequence[float | int | str]] = {}
        for name in (*WEIGHTS, *LAYERS):
            option, text = name.replace("_", "-"), getattr(self, name)
            if text is not None:
                by_option[option] = parse_sets(option, text) if name in LAYERS else parse_values(option, text, least=0)
        if self.seeds is not None:
            check_number("seeds", self.seeds, 1, MOST_PICTURES)
            check_number("seed", self.seed, 0, MOST_SEED + 1 - self.seeds)
            if self.init not in (None, "content", "noise"):
                raise InputError(f"--seeds starts from noise, but --init is {self.init}: drop one.")
            by_option["seed"] = range(self.seed, self.seed + self.seeds)
        return by_option

    def with_init(self) -> Self:
        """Return the options with the initial image of the preset, unless there is another or seeds of noise."""
        return self if self.seeds is not None else super().with_init()

    def combinations(self) -> list[Combination]:
        """Return all combinations of values; the last option varies fastest."""
        several = {name: values for name, values in self.values.items() if len(values) > 1}
        count = math.prod(map(len, several.values()))
        if count > MOST_PICTURES:
            raise InputError(f"This sweep has {count} pictures: take shorter ranges, for at most {MOST_PICTURES}.")
        return [Combination(dict(zip(several, each, strict=True))) for each in itertools.product(*several.values())]

    def columns(self) -> int | None:
        """Return the number of columns of the sheet: with several options, that of the values of the last one."""
        counts = [len(values) for values in self.values.values() if len(values) > 1]
        if len(counts) > 1 and counts[-1] <= MOST_COLUMNS:
            return counts[-1]
        return math.prod(counts) if math.prod(counts) <= MOST_COLUMNS // 2 else None

    def single(self, settings: Mapping[str, Any]) -> StylizeOptions:
        """Return the options of one picture: its `settings`, and the first value of other options."""
        values = {name: each[0] for name, each in self.values.items()} | dict(settings)
        options: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(TransferOptions)}
        options |= {name.replace("-", "_"): value for name, value in values.items() if name != "seed"}
        if self.seeds is not None:
            options["init"] = "noise"
        return StylizeOptions(**options)

    def all_layers(self) -> StylizeOptions:
        """Return the options whose objective has the layers of all pictures."""
        sets = {name: each for name, each in self.values.items() if name.endswith("-layers")}
        union = {name: [layer for text in each for layer in parse_layers(str(text))] for name, each in sets.items()}
        return self.single({name: ",".join(dict.fromkeys(layers)) for name, layers in union.items()})

    def resolve(self) -> tuple[Preset, AnyObjective]:
        """Return the preset with these options, and an objective with the layers of all pictures."""
        return self.all_layers().resolve()

    def objective(self, combination: Combination, every: AnyObjective) -> AnyObjective:
        """Return the objective of one picture: weights of zero for the layers of `every` picture that it lacks."""
        from jaxstyle.losses.objective import Objective

        single = self.single(combination.settings).resolve()[1]
        if not isinstance(single, Objective) or not isinstance(every, Objective):
            return single
        return replace(
            single,
            content={layer: single.content.get(layer, 0.0) for layer in every.content_layers},
            style={layer: single.style.get(layer, 0.0) for layer in every.style_layers},
        )


def value_text(value: float | int | str) -> str:
    """Return a value as text: six digits, or as many as it needs."""
    if isinstance(value, str):
        return value
    short = f"{value:.6g}"
    return short if float(short) == value else repr(value)


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
    try:
        first, *rest = part.split(":")
        start = float(first)
        if not rest:
            return iter([start])
        stop, count = float(rest[0]), int(rest[1])
    except (ValueError, IndexError) as error:
        raise InputError(f"{option}: use a number, numbers with commas, or a range from:to:count.") from error
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

"""Options shared by several commands: network, devices and memory, and objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from jaxstyle.errors import InputError, excerpt

if TYPE_CHECKING:
    from jaxstyle.transfer.presets import Preset

PRESETS_OWN = "(default: the preset's)"
AUTO = "auto"
UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 1e3, "MB": 1e6, "GB": 1e9}
LEAST_MEMORY, MOST_MEMORY = 2**28, 2**50
MOST_SEED = 2**32 - 1  # jax drops higher bits
MOST_WHOLE = 10**9  # of integers such as steps and pixels; programs use 32-bit integers
MOST = 1e30  # products of such numbers with squares must not overflow float32

Init = Annotated[Literal["content", "style", "noise"] | Path, arg(metavar="content|style|noise|PICTURE")]
Pooling = Literal["max", "avg", "l2"]
Statistic = Literal["gram", "mean_std", "covariance", "wasserstein", "sliced"]


@dataclass(frozen=True)
class Network:
    """The network."""

    network: str = "auto"
    """auto, vgg19, mini, random, or a weights file."""
    weights: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """VGG-19 weights, an .h5 file."""
    offline: bool = False
    """Never download weights."""


@dataclass(frozen=True)
class Computing:
    """Precision, memory and devices."""

    precision: Literal["float32", "tf32", "bfloat16"] = "tf32"
    """Precision of convolutions; tf32 and bfloat16 are faster on accelerators, and tf32 is float32 on a CPU."""
    remat: bool = False
    """Recompute the largest layers for the gradient: a tenth slower, half the memory. Not with --statistic sliced."""
    devices: Annotated[int | None, arg(metavar="COUNT", help_behavior_hint="")] = None
    """Number of accelerators, which share the pictures of a sweep or the rows of one picture. (default: all for a
    sweep, one for a picture)"""
    max_memory: Annotated[str | None, arg(metavar="SIZE", help_behavior_hint="")] = None
    """Memory budget of the command, such as 8GiB. Images that do not fit are processed in overlapping tiles, with the
    same result in about twice the time. (default: most of the free memory)"""

    def chosen(self) -> dict[str, Any]:
        """Return the fields of a config that these options change."""
        parse_memory(self.max_memory)
        return {"precision": self.precision, "remat": self.remat}


@dataclass(frozen=True)
class Comparison:
    """Objective."""

    preset: str = "jaxstyle"
    """Objective of a published program: jaxstyle (ours), gatys-paper, gatys-code, neural-style, neural-style-pt,
    anishathalye, crowsonkb, pystiche, tensorflow-tutorial or keras-example."""
    style_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=PRESETS_OWN)] = None
    """Style layers and their relative weights, such as relu1_1:1,relu2_1:0.5."""
    statistic: Annotated[
        Statistic | None,
        arg(metavar="{gram,mean_std,covariance,wasserstein,sliced}", help_behavior_hint=PRESETS_OWN),
    ] = None
    """Statistic of the style layers."""
    pooling: Annotated[Pooling | None, arg(metavar="{max,avg,l2}", help_behavior_hint=PRESETS_OWN)] = None
    """Pooling of VGG-19."""
    scales: Annotated[str | None, arg(metavar="auto|N|SIDES", help_behavior_hint=PRESETS_OWN)] = None
    """Scales, coarse to fine: auto (from 128 pixels by factors of about 2.4), their number, or their longest sides."""

    def chosen(self, **config: Any) -> Preset:
        """Return the preset with these options and other fields of its config."""
        from jaxstyle.transfer import presets

        base = presets.preset(self.preset)
        own = {"statistic": self.statistic, "pooling": self.pooling, "scales": parse_scales(self.scales)}
        if self.pooling is not None:
            own["pooling_gain"] = base.pooling_gains.get(self.pooling, 1.0)
        if self.style_layers is not None:
            own["style_layers"] = tuple(parse_layers(self.style_layers))
        own = {name: value for name, value in own.items() if value is not None} | config
        if self.scales == AUTO:
            own["scales"] = None
        return replace(base, config=replace(base.config, **own))


def check_number(name: str, value: float | None, least: float, most: float = MOST) -> None:
    """Check that `value` is in [least, most], or None; the error names the option."""
    if value is None or least <= value <= most:
        return
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, int):  # of any length, if it is from a record
        raise InputError(f"{option} is {excerpt(value)}: use a whole number from {least} to {most}.")
    raise InputError(f"{option} is {value:g}: use a number from {least:g} to {most:g}.")


def parse_layers(text: str, *, shares: Mapping[str, float] = MappingProxyType({})) -> dict[str, float]:
    """Parse layers and relative weights, such as "relu1_1:1,relu2_1:0.5"; the default weight is in `shares`, or 1."""
    from jaxstyle.networks.vgg import smallest_side

    found: dict[str, float] = {}
    for part in text.split(","):
        layer, _, number = part.strip().partition(":")
        smallest_side(layer)
        if layer in found:
            raise InputError(f"Layer {layer} is named twice in {excerpt(repr(text))}: name each layer once.")
        try:
            found[layer] = float(number) if number else shares.get(layer, 1.0)
        except ValueError:
            found[layer] = math.nan
        if not 0 <= found[layer] < math.inf:
            raise InputError(
                f"Layer {layer} has the weight {excerpt(repr(number))}: use a finite number that is 0 or more."
            )
    return found


def parse_scales(text: str | None) -> int | tuple[int, ...] | None:
    """Parse the number of scales, or a comma-separated list of their longest sides."""
    if text is None or text == AUTO:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--scales is {excerpt(repr(text))}: use auto, a number such as 3, or sides such as 128,256,512."
        ) from error
    return tuple(numbers) if len(numbers) > 1 else numbers[0]


def parse_numbers(name: str, text: str, *, count: int) -> list[float]:
    """Parse `count` comma-separated nonnegative numbers, not all zero."""
    option = f"--{name.replace('_', '-')}"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} is {excerpt(repr(text))}: use numbers with commas, such as 1,2.") from error
    if len(numbers) != count:
        raise InputError(f"{option} has {len(numbers)} numbers for {count} styles: give one for each.")
    if not all(0 <= number <= MOST for number in numbers):
        raise InputError(f"{option} is {excerpt(repr(text))}: use finite numbers that are 0 or more.")
    if not sum(numbers):
        raise InputError(f"{option} is {excerpt(repr(text))}, which sums to zero: give at least one style a weight.")
    return numbers


def parse_memory(text: str | None) -> int | None:
    """Parse a size such as 4GiB."""
    if text is None:
        return None
    digits = text.rstrip("kKMGTiB ")
    try:
        size = float(digits) * UNITS[text[len(digits) :].strip()]
    except (ValueError, KeyError):
        size = math.nan
    if not LEAST_MEMORY <= size <= MOST_MEMORY:
        raise InputError(f"--max-memory is {excerpt(repr(text))}: use a size from 256MiB to 1024TiB, such as 4GiB.")
    return int(size)

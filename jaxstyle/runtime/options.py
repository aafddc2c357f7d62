"""Options of a style transfer as text and numbers, their ranges, and the problem that they describe.

The command line and records share them: an option has the name of its command-line option.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from jaxstyle.errors import InputError, check_whole, excerpt

if TYPE_CHECKING:
    from jaxstyle.optim.loop import AnyObjective
    from jaxstyle.optim.optimizers import LBFGS, Adam
    from jaxstyle.transfer.presets import Preset

Color = Literal["none", "keep", "match", "match-cholesky", "histogram", "chroma"]  # as in `transfer.color`
BYTES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 1e3, "MB": 1e6, "GB": 1e9}
PIXELS = {"": 1, "MP": 1e6, "GP": 1e9}
LEAST_MEMORY, MOST_MEMORY = 2**28, 2**50
LEAST_PIXELS, MOST_PIXELS = 10**6, 4 * 10**9  # the latter is `limits.MOST_PIXELS`
MOST_SEED = 2**32 - 1  # jax drops higher bits
MOST_NUMBER = 10**9  # of steps, pixels and pairs
MOST = 1e30  # products of such numbers with squares must not overflow float32
STATISTICS = (".h5", ".hdf5")  # suffixes of files of `jaxstyle statistics`
LARGEST_BLOCKS = (1, 2)  # that --remat recomputes
OF_OPTIMIZER = {"lbfgs_history": "history_size"} | {  # fields of optimizers by option
    name: name for name in ("learning_rate", "parametrization", "ema_decay", "tolerance", "patience")
}
WEIGHTS = ("content_weight", "style_weight", "tv_weight")
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(WEIGHTS, (0, MOST)),
    "size": (16, MOST_NUMBER),
    "steps": (1, MOST_NUMBER),
    "seed": (0, MOST_SEED),
    "lbfgs_history": (1, MOST_NUMBER),
    "patience": (0, MOST_NUMBER),
    "ema_decay": (0, 0.99999),
    "shift": (-MOST, MOST),
    "style_scale": (0.01, 100),
    "style_size": (16, MOST_NUMBER),
    "feather": (0, 1000),
}


@dataclass(frozen=True)
class ObjectiveOptions:
    """Options of every command that optimizes a picture; None for the value of the preset."""

    command: ClassVar[str] = ""
    preset: str = "jaxstyle"
    style_layers: str | None = None  # style layers and their relative weights, such as "relu1_1:1,relu2_1:0.5"
    statistic: str | None = None  # of the style layers
    pooling: str | None = None  # of VGG-19
    scales: str | None = None  # "auto", a number of scales, or their longest sides, such as "128,256,512"
    precision: str = "tf32"  # of convolutions
    remat: bool = False  # whether to recompute the largest layers for the gradient
    steps: int = 205  # number of gradient evaluations over all scales
    seed: int = 0  # of the noise
    max_memory: str | None = None  # memory budget of the process, such as "8GiB"; None for most of the free memory
    devices: int | None = None  # number of devices that share the work
    max_pixels: int | None = None  # maximum number of pixels of a picture; None for Pillow's limit

    def check(self, styles: Sequence[Path]) -> None:
        """Raise `InputError` unless the options can be used for these styles."""
        self.check_ranges()
        self.check_used()

    def check_used(self) -> None:
        """Raise `InputError` if an option is invalid or has no effect."""
        for name, cause in self.unused().items():
            raise InputError(f"--{name.replace('_', '-')} has no effect with {cause}: drop it.")

    def unused(self) -> dict[str, str]:
        """Return the options that are not None and have no effect, with the cause; `InputError` for invalid ones."""
        self.resolve()
        return {}

    def resolve(self) -> tuple[Preset, AnyObjective]:
        """Return the preset with these options, and its objective."""
        preset = self.chosen()
        return preset, preset.objective

    def check_ranges(self) -> None:
        """Raise `InputError` unless numbers are in range, and texts are texts."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type in ("str", "str | None"):
                if not isinstance(value, str) and value is not each.default:
                    option = f"--{each.name.replace('_', '-')}"
                    raise InputError(f"{option} is {excerpt(repr(value))}: use text, as on the command line.")
            elif each.name in RANGES:
                if value is None and each.default is not None:
                    raise InputError(f"--{each.name.replace('_', '-')} is None: use a number.")
                check_number(each.name, value, *RANGES[each.name])
        parse_memory(self.max_memory)

    def chosen(self, **options: Any) -> Preset:
        """Return the preset with these options and other options of its objective that are not None."""
        from jaxstyle.transfer import presets

        base = presets.preset(self.preset)
        network: dict[str, Any] = {"precision": self.precision, "remat": LARGEST_BLOCKS if self.remat else ()}
        if self.pooling is not None:
            network |= {"pooling": self.pooling, "pooling_gain": base.pooling_gains.get(self.pooling, 1.0)}
        if self.remat and base.custom is not None:
            raise InputError(f"--remat has no effect on preset {self.preset}, which needs complete layers: drop it.")
        options["statistic"] = self.statistic
        if self.style_layers is not None:
            options["style_layers"] = parse_layers(self.style_layers, shares=base.style_layers)
        chosen = base.with_options(**{name: value for name, value in options.items() if value is not None})
        scales = base.scales if self.scales is None else parse_scales(self.scales)
        return replace(chosen, network=base.network.clone(**network), scales=scales)


@dataclass(frozen=True)
class TransferOptions(ObjectiveOptions):
    """Options of a style transfer without the weights of the loss."""

    size: int = 512  # longest side of the picture in pixels
    init: Literal["content", "recolored", "style", "noise"] | Path | None = None  # initial image
    shift: float | None = None  # number added to features before their Gram matrices
    optimizer: str | None = None  # "lbfgs" or "adam"
    learning_rate: float | None = None
    lbfgs_history: int | None = None  # number of curvature pairs of lbfgs
    parametrization: str | None = None  # of the image
    ema_decay: float | None = None  # decay of the exponential moving average of iterates
    tolerance: float | None = None  # relative improvement over ten steps below which a scale stops
    patience: int | None = None  # number of steps without progress before lbfgs restarts
    normalize_gradients: bool = False  # whether to normalize the gradient of each term
    style_weights: str | None = None  # weights of several styles, such as "1,3"
    style_scale: float | None = None  # size of the style relative to the content
    style_size: int | None = None  # longest side of the style in pixels
    color: Color | None = None
    content_mask: tuple[Path, ...] = ()  # image of the region of each style
    style_mask: tuple[Literal["all"] | Path, ...] = ()  # image of the part of each style, or "all"
    feather: int = 0  # width of the soft edge of content masks in pixels

    def with_init(self) -> Self:
        """Return the options with the initial image of the preset, unless there is another."""
        return self if self.init is not None else replace(self, init=self.resolve()[0].init)

    def files(self) -> list[Path]:
        """Return the files of the initial image and of masks; raise `InputError` if the former is none."""
        masks = [path for path in (*self.content_mask, *self.style_mask) if path != "all"]
        if self.init is None or isinstance(self.init, str):
            return masks
        if not os.path.exists(self.init):  # Path.exists raises if the name is too long
            named = excerpt(self.init)
            names = "content, recolored, style, noise"
            raise InputError(f"--init {named} does not exist: use {names} or the path of a picture.")
        return [self.init, *masks]

    def check(self, styles: Sequence[Path]) -> None:
        """Raise `InputError` unless the options can be used for these styles."""
        if not styles:
            raise InputError("There is no style: name at least one picture after the content.")
        for path in styles:
            if os.path.isdir(path):  # an inaccessible path is reported when it is read
                raise InputError(f"{path} is a folder: make one style of its pictures with jaxstyle statistics.")
        self.check_ranges()
        if self.style_scale is not None and self.style_size is not None:
            raise InputError("--style-scale and --style-size both set the size of the style: drop one.")
        parse_shares(self.style_weights, count=len(styles))
        for option, masks in (("--content-mask", self.content_mask), ("--style-mask", self.style_mask)):
            if masks and len(masks) != len(styles):
                counts = f"{option} is given {len(masks)} times for {len(styles)} styles"
                raise InputError(f"{counts}: give one mask per style.")
        if self.style_weights is not None and self.content_mask:
            raise InputError("--style-weights and --content-mask cannot be combined: drop one.")
        if self.feather and not self.content_mask:
            raise InputError("--feather needs --content-mask: add one.")
        self.check_used()

    def unused(self) -> dict[str, str]:
        """Return the options that are not None and have no effect, with the cause; `InputError` for invalid ones."""
        preset, objective = self.resolve()
        kind, statistic = type(preset.optimizer).__name__.lower(), getattr(objective, "statistic", "gram")
        causes = {
            name: f"optimizer {kind}" for name, field in OF_OPTIMIZER.items() if not hasattr(preset.optimizer, field)
        }
        if statistic != "gram":
            causes["shift"] = f"statistic {statistic}"
        if getattr(objective, "normalize_gradients", False):
            causes.setdefault("patience", "normalized gradients")
        return {name: cause for name, cause in causes.items() if getattr(self, name) is not None}


@dataclass(frozen=True)
class StylizeOptions(TransferOptions):
    """Options of a style transfer, with the names and the text of the command line: see `jaxstyle stylize --help`.

    An option that is None has the value of the preset.

    Example:
        >>> StylizeOptions(size=256, style_weight=10.0).resolve()[1].tv
        5.0
    """

    command: ClassVar[str] = "stylize"
    content_weight: float | None = None
    style_weight: float | None = None
    tv_weight: float | None = None
    content_layers: str | None = None  # content layers and their relative weights, such as "relu4_2"

    def resolve(self) -> tuple[Preset, AnyObjective]:
        """Return the preset with these options, and its objective.

        Raises:
            InputError: if an option has an unknown name or an invalid value.
        """
        options: dict[str, Any] = {name: getattr(self, name) for name in (*WEIGHTS, "shift")}
        options["normalize_gradients"] = self.normalize_gradients or None
        options["content_layers"] = None if self.content_layers is None else parse_layers(self.content_layers)
        preset = self.chosen(**options)
        color = preset.color if self.color is None else self.color
        preset = replace(preset, optimizer=self._optimizer(preset.optimizer), color=color)
        return preset, preset.objective

    def _optimizer(self, preset: LBFGS | Adam) -> LBFGS | Adam:
        """Return the optimizer of the preset, or another with its own defaults, with the options given."""
        from jaxstyle.optim.optimizers import LBFGS, Adam, as_optimizer

        kinds: dict[str, type[LBFGS] | type[Adam]] = {"lbfgs": LBFGS, "adam": Adam}
        if self.optimizer is not None and self.optimizer not in kinds:
            raise InputError(f"--optimizer is {excerpt(repr(self.optimizer))}: use {' or '.join(kinds)}.")
        base = preset
        if self.optimizer is not None and not isinstance(preset, kinds[self.optimizer]):
            base = kinds[self.optimizer](tolerance=preset.tolerance)
        values = {field: getattr(self, name) for name, field in OF_OPTIMIZER.items() if hasattr(base, field)}
        optimizer = replace(base, **{field: value for field, value in values.items() if value is not None})
        as_optimizer(optimizer)  # checks the learning rate
        return optimizer


@dataclass(frozen=True)
class TextureOptions(ObjectiveOptions):
    """Options of a texture."""

    command: ClassVar[str] = "texture"
    size: str = "512x512"  # height and width of the texture in pixels, or one number for both
    tileable: bool = False
    style_size: int | None = None  # longest side of the styles in pixels; None for that of the files
    style_weights: str | None = None
    tv_weight: float | None = None

    def check(self, styles: Sequence[Path]) -> None:
        """Raise `InputError` unless the options can be used for these styles."""
        self.check_ranges()
        self.shape()
        if not styles:
            raise InputError("There is no style: name at least one picture.")
        if any(path.suffix.lower() in STATISTICS for path in styles):
            raise InputError("A texture needs style images, not a statistics file: pass the pictures themselves.")
        parse_shares(self.style_weights, count=len(styles))
        self.check_used()

    def resolve(self) -> tuple[Preset, AnyObjective]:
        """Return the preset with these options, and its objective."""
        preset = self.chosen(tv_weight=self.tv_weight)
        if self.tileable:
            preset = replace(preset, network=preset.network.clone(padding="circular"))
        objective: Any = preset.objective
        return preset, objective.without_content()

    def shape(self) -> tuple[int, int]:
        """Return height and width in pixels; raise `InputError` if they are too small or large, or do not tile."""
        from jaxstyle.images.limits import allowing, limit_below
        from jaxstyle.transfer.schedule import TILE

        match = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", self.size.strip())
        if not match:
            raise InputError(f"--size is {excerpt(repr(self.size))}: use height x width, such as 512x768.")
        height, width = (int(side or match[1]) for side in match.groups())
        if min(height, width) < TILE:
            raise InputError(f"--size is {self.size}: both sides must be at least {TILE}.")
        if limit := limit_below(pixels := height * width, max_pixels=self.max_pixels):
            raise InputError(f"--size is {self.size}, over {limit} pixels in all: use smaller sides{allowing(pixels)}.")
        if self.tileable and (height % TILE or width % TILE):
            nearest = "x".join(str(max(TILE, round(side / TILE) * TILE)) for side in (height, width))
            raise InputError(f"--size is {self.size}, which does not tile: use multiples of {TILE}, such as {nearest}.")
        return height, width


@dataclass(frozen=True)
class ReconstructOptions(ObjectiveOptions):
    """Options of a reconstruction, by content layers or by style layers."""

    command: ClassVar[str] = "reconstruct"
    layer: str | None = None  # content layers; None for relu4_2, or for none with style layers
    size: int = 512  # longest side of the output in pixels
    tv_weight: float | None = None

    def resolve(self) -> tuple[Preset, AnyObjective]:
        """Return the preset with these options, and its objective."""
        if self.layer is not None and self.style_layers is not None:
            raise InputError("--layer and --style-layers cannot be combined: drop one.")
        style = {} if self.style_layers is None else parse_layers(self.style_layers)
        content = {} if style else parse_layers("relu4_2" if self.layer is None else self.layer)
        if not sum((content | style).values()):
            raise InputError("All layers have the weight 0: give one of them a positive weight.")
        preset = replace(self, style_layers=None).chosen(tv_weight=self.tv_weight)
        return preset, preset.make_objective(content, style)

    def unused(self) -> dict[str, str]:
        """Return the options that are not None and have no effect, with the cause; `InputError` for invalid ones."""
        self.resolve()
        used = self.statistic is None or self.style_layers is not None
        return {} if used else {"statistic": "content layers only"}


def check_number(name: str, value: float | None, least: float, most: float = MOST) -> None:
    """Check that `value` is in [least, most], whole if these are, or None; the error names the option."""
    if value is None:
        return
    option = f"--{name.replace('_', '-')}"
    if isinstance(least, int) and isinstance(most, int):
        check_whole(option, value, least=least, most=most)
    elif isinstance(value, bool) or not isinstance(value, Real) or not least <= value <= most:
        raise InputError(f"{option} is {excerpt(repr(value))}: use a number from {least:g} to {most:g}.")


def parse_layers(text: str, *, shares: Mapping[str, float] = MappingProxyType({})) -> dict[str, float]:
    """Parse layers and relative weights, such as "relu1_1:1,relu2_1:0.5"; the default weight is in `shares`, or 1."""
    from jaxstyle.networks.vgg import smallest_side

    weights: dict[str, float] = {}
    for part in text.split(","):
        layer, _, number = part.strip().partition(":")
        smallest_side(layer)
        if layer in weights:
            raise InputError(f"Layer {layer} is named twice in {excerpt(repr(text))}: name each layer once.")
        try:
            weights[layer] = float(number) if number else shares.get(layer, 1.0)
        except ValueError:
            weights[layer] = math.nan
        if not 0 <= weights[layer] < math.inf:
            raise InputError(
                f"Layer {layer} has the weight {excerpt(repr(number))}: use a finite number that is 0 or more."
            )
    return weights


def parse_scales(text: str | None) -> int | tuple[int, ...] | None:
    """Parse the number of scales, or a comma-separated list of their longest sides."""
    if text is None or text == "auto":
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--scales is {excerpt(repr(text))}: use auto, a number such as 3, or sides such as 128,256,512."
        ) from error
    return tuple(numbers) if len(numbers) > 1 else numbers[0]


def parse_shares(text: str | None, *, count: int) -> list[float] | None:
    """Parse the weights of `count` styles, and return their shares of the sum; None for equal weights."""
    if text is None:
        return None
    stated = f"--style-weights is {excerpt(repr(text))}"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{stated}: use numbers with commas, such as 1,2.") from error
    if len(numbers) != count:
        raise InputError(f"--style-weights has {len(numbers)} numbers for {count} styles: give one for each.")
    if not all(0 <= number <= MOST for number in numbers):
        raise InputError(f"{stated}: use finite numbers that are 0 or more.")
    if not sum(numbers):
        raise InputError(f"{stated}, which sums to zero: give at least one style a weight.")
    return [number / sum(numbers) for number in numbers]


def parse_memory(text: str | None) -> int | None:
    """Parse a size such as 4GiB."""
    cure = "use a size from 256MiB to 1024TiB, such as 4GiB"
    return _parse_size("--max-memory", text, BYTES, LEAST_MEMORY, MOST_MEMORY, cure)


def parse_pixels(text: str | None) -> int | None:
    """Parse a number of pixels such as 500MP; None for Pillow's limit."""
    cure = "use a number of pixels from 1MP to 4GP, such as 500MP"
    return _parse_size("--max-pixels", text, PIXELS, LEAST_PIXELS, MOST_PIXELS, cure)


def _parse_size(
    option: str, text: str | None, units: Mapping[str, float], least: int, most: int, cure: str
) -> int | None:
    if text is None:
        return None
    digits = text.rstrip("kKMGTiBP ")
    try:
        size = float(digits) * units[text[len(digits) :].strip()]
    except (ValueError, KeyError):
        size = math.nan
    if not least <= size <= most:
        raise InputError(f"{option} is {excerpt(repr(text))}: {cure}.")
    return int(size)

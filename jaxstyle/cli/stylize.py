"""`jaxstyle stylize`: options, files in, the method, files out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from jaxstyle.errors import InputError

if TYPE_CHECKING:
    from jaxstyle.config import LossWeights
    from jaxstyle.presets import Preset

PRESETS_OWN = "(default: the preset's)"
OF_PRESET = ("content_weight", "style_weight", "tv_weight")
OF_CONFIG = ("pooling", "optimizer", "learning_rate", "memory", "parametrization")
MOST = 1e30  # leaves float32 room for the squares that such numbers multiply
RANGES = {
    "size": (16, math.inf),
    "steps": (1, math.inf),
    "memory": (1, math.inf),
    "seed": (0, 2**32 - 1),  # jax drops higher bits
    "save_every": (0, math.inf),
}


@dataclass(frozen=True)
class Stylize:
    """Repaint CONTENT in the style of STYLE; options left out are the preset's."""

    content: Annotated[Positional[Path], arg(metavar="CONTENT")]
    """The picture to repaint."""
    style: Annotated[Positional[Path], arg(metavar="STYLE")]
    """The picture whose style to take."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="OUT")]
    """Where to write: .png, .jpg, .webp or .tiff; an existing file is replaced."""

    size: int = 512
    """Longest side of the output, in pixels, smaller or larger than the source's."""
    steps: int = 200
    """Gradient evaluations."""
    preset: str = "jaxstyle"
    """Whose convention to follow: jaxstyle or neural-style-pt."""
    content_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """How much content counts."""
    style_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """How much style counts."""
    tv_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """How much smoothness (total variation) counts."""
    content_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=PRESETS_OWN)] = None
    """Where content is compared, such as relu4_2 or relu3_2:0.5,relu4_2:1."""
    style_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=PRESETS_OWN)] = None
    """Where style is compared, such as relu1_1:1,relu2_1:0.5."""
    pooling: Annotated[Literal["max", "avg"] | None, arg(metavar="{max,avg}", help_behavior_hint=PRESETS_OWN)] = None
    """How VGG-19 halves its layers."""

    network: str = "auto"
    """auto, vgg19, mini, random, or a file of weights."""
    weights: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """VGG-19's weights, an .h5 file."""
    offline: bool = False
    """Never download weights."""
    preview: bool = False
    """Run with the mini network, which needs no weights, and say how long VGG-19 would take."""

    optimizer: Annotated[
        Literal["lbfgs", "adam"] | None, arg(metavar="{lbfgs,adam}", help_behavior_hint=PRESETS_OWN)
    ] = None
    """How the image is optimised."""
    learning_rate: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Step size. (default: 1 for lbfgs, 0.02 for adam)"""
    memory: Annotated[int | None, arg(metavar="PAIRS", help_behavior_hint=PRESETS_OWN)] = None
    """Curvature pairs that lbfgs keeps."""
    parametrization: Annotated[
        Literal["pixels", "pyramid"] | None, arg(metavar="{pixels,pyramid}", help_behavior_hint="")
    ] = None
    """What the image is written as. (default: pyramid for lbfgs, pixels for adam)"""
    init: str = "content"
    """Where to start: content, style, noise, or a picture file."""
    seed: int = 0
    """Of the noise."""

    save_every: int = 0
    """Save the image every so many steps beside the output, as OUT_0050.png; 0 for never."""
    log: Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="")] = None
    """A .csv file for every term of every step."""
    bits: Literal[8, 16] = 8
    """Bits a channel of the output; 16 for .png and .tiff."""
    quiet: bool = False
    """Print errors only."""

    def run(self) -> int:
        """Carry the command out and return its exit status."""
        self._check_numbers()
        preset, weights = self._preset()
        if self.preview and self.network not in ("auto", "vgg19", "mini", "builtin"):
            raise InputError(f"--preview runs with the mini network, but --network is {self.network}: drop one.")

        import jax
        import jax.numpy as jnp

        from jaxstyle import image, objective, optimize, transfer
        from jaxstyle.cli.progress import Reporter
        from jaxstyle.cli.session import Session

        session = Session(self.output, self.log, self.steps, self.save_every, self.bits)
        session.check(inputs=[self.content, self.style, *self._init_files()])
        load = partial(image.load, resample=preset.resample, rounding=preset.rounding)
        content = load(self.content, size=self.size)
        style = jnp.asarray(load(self.style, size=self.size).rgb)
        height, width, _ = content.rgb.shape
        start = self.init
        if self._init_files():
            start = jnp.asarray(load(self.init, size=(width, height)).rgb)

        reporter = Reporter(quiet=self.quiet)
        network, weights_path = ("mini", None) if self.preview else (self.network, self.weights)
        params = reporter.load_network(network, weights=weights_path, offline=self.offline)
        rgb = jnp.asarray(content.rgb)
        targets = objective.make_targets(params, rgb, style, config=preset.config)
        start = transfer.initial_image(rgb, style, start, key=jax.random.key(self.seed))
        state = optimize.init(start, config=preset.config)
        status = session.run(
            state, params, targets, weights, config=preset.config, alpha=content.alpha, reporter=reporter
        )
        if self.preview and not status and not self.quiet:
            from jaxstyle.cli.preview import advice, seconds_a_step

            try:
                with reporter.console.status("Timing VGG-19"):
                    seconds = self.steps * seconds_a_step(rgb, style, weights, config=preset.config)
                reporter.console.print(advice(seconds, steps=self.steps, output=self.output))
            except (KeyboardInterrupt, MemoryError, jax.errors.JaxRuntimeError):
                reporter.console.print("VGG-19 was not timed.")  # the picture is saved all the same
        return status

    def _check_numbers(self) -> None:
        """Refuse numbers out of range, each in terms of its option."""
        for name in OF_PRESET:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MOST:
                raise InputError(f"--{name.replace('_', '-')} is {value:g}: use a number from 0 to {MOST:g}.")
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                limits = f"from {least} to {most}" if most < math.inf else f"from {least}"
                raise InputError(f"--{name.replace('_', '-')} is {value}: use a whole number {limits}.")

    def _preset(self) -> tuple[Preset, LossWeights]:
        """Return the preset with this command's own options in it, and the coefficients that follow."""
        from jaxstyle import presets

        base = presets.preset(self.preset)
        own = {name: getattr(self, name) for name in OF_PRESET if getattr(self, name) is not None}
        config = {name: getattr(self, name) for name in OF_CONFIG if getattr(self, name) is not None}
        content_layers, style_layers = ",".join(base.config.content_layers), ",".join(base.config.style_layers)
        content = presets.parse_layers(content_layers if self.content_layers is None else self.content_layers)
        style = presets.parse_layers(style_layers if self.style_layers is None else self.style_layers)
        config = replace(base.config, content_layers=tuple(content), style_layers=tuple(style), **config)
        preset = replace(base, config=config, **own)
        return preset, preset.loss_weights(content, style)

    def _init_files(self) -> list[Path]:
        if self.init in ("content", "style", "noise"):
            return []
        if not Path(self.init).exists():
            raise InputError(f"--init {self.init} is no file: use content, style, noise or the path of a picture.")
        return [Path(self.init)]

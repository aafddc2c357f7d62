"""`jaxstyle stylize`: style transfer from files to a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from jaxstyle.cli.limits import Limits
from jaxstyle.cli.options import (
    MOST,
    MOST_SEED,
    MOST_WHOLE,
    Comparison,
    Computing,
    Init,
    Network,
    check_number,
    parse_layers,
)
from jaxstyle.cli.pictures import STATISTICS, Controls
from jaxstyle.cli.processes import Processes
from jaxstyle.cli.saving import Saving
from jaxstyle.cli.tuning import Balance, Optimization
from jaxstyle.errors import InputError, excerpt

if TYPE_CHECKING:
    from jaxstyle.cli.progress import Loaded, Reporter
    from jaxstyle.config import LossWeights
    from jaxstyle.losses.targets import Style
    from jaxstyle.runtime.record import Job
    from jaxstyle.transfer.color import Sizes
    from jaxstyle.transfer.presets import Preset

OF_PRESET = ("content_weight", "style_weight", "tv_weight")
RANGES = {
    "size": (16, MOST_WHOLE),
    "steps": (1, MOST_WHOLE),
    "seed": (0, MOST_SEED),
}


@dataclass(frozen=True)
class Stylize:
    """Transfer the style of one or more STYLE images to a CONTENT image."""

    content: Annotated[Positional[Path], arg(metavar="CONTENT")]
    """Content image."""
    styles: Annotated[Positional[tuple[Path, ...]], arg(metavar="STYLE [STYLE ...]")]
    """Style images, or files (.h5) of `jaxstyle statistics`."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="OUT")]
    """Output image: .png, .jpg, .webp or .tiff; an existing file is replaced."""

    size: int = 512
    """Longest side of the output in pixels."""
    steps: int = 300
    """Number of gradient evaluations over all scales."""
    init: Init = "content"
    """Initial image: content, style, noise, or an image file."""
    seed: int = 0
    """Seed of the noise and of the directions of --statistic sliced."""
    preview: bool = False
    """Use the mini network, which needs no download, and print an estimate of VGG-19's time."""

    saving: OmitArgPrefixes[Saving] = field(default_factory=Saving)
    controls: OmitArgPrefixes[Controls] = field(default_factory=Controls)
    comparison: OmitArgPrefixes[Comparison] = field(default_factory=Comparison)
    balance: OmitArgPrefixes[Balance] = field(default_factory=Balance)
    optimization: OmitArgPrefixes[Optimization] = field(default_factory=Optimization)
    computing: OmitArgPrefixes[Computing] = field(default_factory=Computing)
    network: OmitArgPrefixes[Network] = field(default_factory=Network)
    limits: OmitArgPrefixes[Limits] = field(default_factory=Limits)
    processes: OmitArgPrefixes[Processes] = field(default_factory=Processes)

    def run(self) -> int:
        """Run the command and return its exit status."""
        self.checked()

        from jaxstyle.cli.progress import Reporter
        from jaxstyle.cli.session import Session

        session = Session(self.output, self.steps, self.saving)
        session.check(inputs=self.inputs())
        reporter = Reporter(quiet=self.saving.quiet)
        job = self.job(reporter)
        status = session.run(job, reporter=reporter)
        if self.preview and not status and not self.saving.quiet and not self.saving.dry_run:
            from jaxstyle.cli.preview import forecast

            reporter.console.print(forecast(job.work, seconds=reporter.run_seconds, output=self.output))
        return status

    def inputs(self) -> list[Path]:
        """Return all input files."""
        return [self.content, *self.styles, *self._init_files(), *self.controls.files()]

    def job(
        self,
        reporter: Reporter,
        *,
        network: Loaded | None = None,
        known: Mapping[Path, Style | Sizes] = MappingProxyType({}),
    ) -> Job:
        """Load images and network, unless given as `network` and `known` styles, and return the job."""
        preset, weights = self.checked()

        import jax

        from jaxstyle.cli.recording import job
        from jaxstyle.images.load import load_image
        from jaxstyle.runtime.problem import Work
        from jaxstyle.runtime.style_cache import look_at
        from jaxstyle.transfer.color import recolor

        config, controls = preset.config, self.controls
        how: dict[str, Any] = {"resample": preset.resample, "max_pixels": self.limits.pixels()}
        content = load_image(self.content, size=self.size, rounding=preset.rounding, **how)
        height, width, _ = content.rgb.shape
        start: Any = self.init
        if isinstance(start, Path):
            start = load_image(start, size=(width, height), **how).rgb
        masks = controls.load_content_masks(content, max_pixels=self.limits.pixels())
        pictures = {
            path: controls.load_style(
                path, size=self.size, content=content, preset=preset, max_pixels=self.limits.pixels()
            )
            for path in self.styles
            if path.suffix.lower() not in STATISTICS and path not in known
        }
        name = "mini" if self.preview else self.network.network
        network = network or reporter.load_network(name, self.network)
        saved = {
            path: controls.load_statistics(
                path, size=self.size, params=network.params, config=config, tell=reporter.console.print
            )
            for path in self.styles
            if path not in pictures and path not in known
        }
        if saved and config.statistic == "sliced" and len(self.styles) > 1:
            raise InputError("Statistics of 'sliced' have different directions: mix the pictures instead.")
        if config.color == "none" and self.init != "style" and not controls.style_mask:
            with reporter.console.status("Computing style statistics"):
                saved |= look_at(
                    pictures, height, width, steps=self.steps, params=network.params, config=config, seed=self.seed
                )
        shown = [(path, pictures[path]) for path in self.styles if path in pictures]
        style_masks = controls.load_style_masks(shown, max_pixels=self.limits.pixels())
        picture: Any = content.rgb
        ordered = [{**pictures, **saved, **known}[path] for path in self.styles]
        ground, styles = recolor(picture, ordered, config=config)
        if config.color != "none":
            ground, styles = jax.device_get((ground, styles))
        work = Work(
            params=network.params,
            picture=picture,
            content=ground,
            styles=styles,
            weights=weights,
            config=config,
            start=start,
            key=jax.random.key(self.seed),
            steps=self.steps,
            blend=controls.shares(len(self.styles)),
            content_masks=masks,
            style_masks=style_masks,
        )
        return job(self, work, content.alpha, network.weights)

    def checked(self) -> tuple[Preset, LossWeights]:
        """Check the options; return the resulting preset and weights."""
        self._check()
        return self._preset()

    def _check(self) -> None:
        """Check that options are in range and consistent."""
        for name in OF_PRESET:
            check_number(name, getattr(self.balance, name), 0)
        for name, (least, most) in RANGES.items():
            check_number(name, getattr(self, name), least, most)
        self.limits.pixels()
        check_number("memory", self.optimization.memory, 1, MOST_WHOLE)
        check_number("patience", self.optimization.patience, 0, MOST_WHOLE)
        check_number("shift", self.balance.shift, -MOST)
        if not self.styles:
            raise InputError("There is no style: name at least one picture after the content.")
        for path in self.styles:
            if os.path.isdir(path):  # an inaccessible path is reported when it is read
                raise InputError(f"{path} is a folder: make one style of its pictures with jaxstyle statistics.")
        self.controls.check(len(self.styles))
        if self.preview and self.network.network not in ("auto", "vgg19", "mini", "builtin"):
            raise InputError(
                f"--preview runs with the mini network, but --network is {self.network.network}: drop one."
            )

    def _preset(self) -> tuple[Preset, LossWeights]:
        """Return the preset with the options of this command, and the resulting weights."""
        balance = self.balance
        content = None if balance.content_layers is None else parse_layers(balance.content_layers)
        own: dict[str, Any] = {"color": self.controls.color, **self.computing.chosen()}
        own |= self.optimization.chosen(self.comparison.preset)
        if content is not None:
            own["content_layers"] = tuple(content)
        if balance.shift is not None:
            own["shift"] = balance.shift
        preset = self.comparison.chosen(**own)
        text = self.comparison.style_layers
        style = None if text is None else parse_layers(text, shares=preset.style_shares)
        weights = {name: getattr(balance, name) for name in OF_PRESET if getattr(balance, name) is not None}
        preset = replace(preset, **weights)
        return preset, preset.loss_weights(content, style)

    def _init_files(self) -> list[Path]:
        if isinstance(self.init, str):
            return []
        if not os.path.exists(self.init):  # Path.exists raises if the name is too long
            named = excerpt(self.init)
            raise InputError(f"--init {named} is no file: use content, style, noise or the path of a picture.")
        return [self.init]

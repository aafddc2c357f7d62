"""`jaxstyle texture`: texture synthesis at any size."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from jaxstyle.cli.limits import Limits
from jaxstyle.cli.options import MOST_WHOLE, Comparison, Computing, Network, check_number, parse_layers, parse_numbers
from jaxstyle.cli.pictures import STATISTICS
from jaxstyle.cli.processes import Processes
from jaxstyle.cli.saving import Saving
from jaxstyle.cli.tuning import FromNoise
from jaxstyle.errors import InputError, excerpt

if TYPE_CHECKING:
    from jaxstyle.cli.progress import Loaded, Reporter
    from jaxstyle.config import LossWeights
    from jaxstyle.runtime.record import Job
    from jaxstyle.transfer.presets import Preset


@dataclass(frozen=True)
class Texture:
    """Synthesize a texture of any size from one or more STYLE images, starting from noise."""

    styles: Annotated[Positional[tuple[Path, ...]], arg(metavar="STYLE [STYLE ...]")]
    """Style images."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="OUT")]
    """Output image: .png, .jpg, .webp or .tiff; an existing file is replaced."""

    size: Annotated[str, arg(metavar="HxW")] = "512x512"
    """Height and width of the texture in pixels, or one number for both."""
    tileable: bool = False
    """Make a texture that tiles; height and width must be multiples of 16."""
    style_size: Annotated[int | None, arg(metavar="PIXELS", help_behavior_hint="(default: the styles' own)")] = None
    """Longest side of the styles in pixels, which sets the size of the strokes."""
    blend: Annotated[str | None, arg(metavar="W1,W2,...", help_behavior_hint="")] = None
    """Weights of several styles. (default: equal)"""

    noise: OmitArgPrefixes[FromNoise] = field(default_factory=FromNoise)
    saving: OmitArgPrefixes[Saving] = field(default_factory=Saving)
    comparison: OmitArgPrefixes[Comparison] = field(default_factory=Comparison)
    computing: OmitArgPrefixes[Computing] = field(default_factory=Computing)
    network: OmitArgPrefixes[Network] = field(default_factory=Network)
    limits: OmitArgPrefixes[Limits] = field(default_factory=Limits)
    processes: OmitArgPrefixes[Processes] = field(default_factory=Processes)

    def run(self) -> int:
        """Run the command and return its exit status."""
        self.checked()

        from jaxstyle.cli.progress import Reporter
        from jaxstyle.cli.session import Session

        session = Session(self.output, self.noise.steps, self.saving)
        session.check(inputs=self.styles)
        reporter = Reporter(quiet=self.saving.quiet)
        return session.run(self.job(reporter), reporter=reporter)

    def job(self, reporter: Reporter, *, network: Loaded | None = None) -> Job:
        """Load styles and network (unless given), and return the job."""
        preset, weights = self.checked()
        height, width = self._shape()

        import jax
        import numpy as np

        from jaxstyle.cli.recording import job
        from jaxstyle.images.load import load_image
        from jaxstyle.runtime.problem import Work

        most = self.limits.pixels()
        styles: Any = [load_image(path, size=self.style_size, max_pixels=most).rgb for path in self.styles]
        network = network or reporter.load_network(self.network.network, self.network)
        ground: Any = np.zeros((height, width, 3), np.float32)
        key, blend = jax.random.key(self.noise.seed), self._blend()
        work = Work(
            network.params, ground, ground, styles, weights, preset.config, "noise", key, self.noise.steps, blend
        )
        return job(self, work, None, network.weights)

    def checked(self) -> tuple[Preset, LossWeights]:
        """Check the options; return the resulting preset and weights."""
        self._shape()
        check_number("style_size", self.style_size, 16, MOST_WHOLE)
        self.noise.check()
        if not self.styles:
            raise InputError("There is no style: name at least one picture.")
        if any(path.suffix.lower() in STATISTICS for path in self.styles):
            raise InputError("A texture is of pictures: name the picture that the statistics are of.")
        self._blend()
        border = {"border": "circular"} if self.tileable else {}
        preset = self.comparison.chosen(content_layers=(), **border, **self.computing.chosen())
        text = self.comparison.style_layers
        shares = None if text is None else parse_layers(text, shares=preset.style_shares)
        return preset, self.noise.loss_weights(preset, {}, shares)

    def _blend(self) -> list[float] | None:
        return None if self.blend is None else parse_numbers("blend", self.blend, count=len(self.styles))

    def _shape(self) -> tuple[int, int]:
        from jaxstyle.images.limits import allowing, limit_below
        from jaxstyle.transfer.schedule import TILE

        found = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", self.size.strip())
        if not found:
            raise InputError(f"--size is {excerpt(repr(self.size))}: use height x width, such as 512x768.")
        height, width = (int(side or found[1]) for side in found.groups())
        if min(height, width) < TILE:
            raise InputError(f"--size is {self.size}: both sides must be at least {TILE}.")
        if limit := limit_below(pixels := height * width, max_pixels=self.limits.pixels()):
            raise InputError(f"--size is {self.size}, over {limit} pixels in all: use smaller sides{allowing(pixels)}.")
        if self.tileable and (height % TILE or width % TILE):
            nearest = "x".join(str(max(TILE, round(side / TILE) * TILE)) for side in (height, width))
            raise InputError(f"--size is {self.size}, which does not tile: use multiples of {TILE}, such as {nearest}.")
        return height, width

"""`jaxstyle reconstruct`: reconstruction of an image from noise by its features."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from jaxstyle.cli.limits import Limits
from jaxstyle.cli.options import MOST_WHOLE, Comparison, Computing, Network, check_number, parse_layers
from jaxstyle.cli.processes import Processes
from jaxstyle.cli.saving import Saving
from jaxstyle.cli.tuning import FromNoise
from jaxstyle.errors import InputError

if TYPE_CHECKING:
    from jaxstyle.cli.progress import Loaded, Reporter
    from jaxstyle.config import LossWeights
    from jaxstyle.runtime.record import Job
    from jaxstyle.transfer.presets import Preset


@dataclass(frozen=True)
class Reconstruct:
    """Reconstruct IMAGE from noise by its content features (--layer) or its style statistics (--style-layers)."""

    image: Annotated[Positional[Path], arg(metavar="IMAGE")]
    """Image to reconstruct."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="OUT")]
    """Output image: .png, .jpg, .webp or .tiff; an existing file is replaced."""

    layer: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint="(default: relu4_2)")] = None
    """Content layers, such as relu4_2; not with --style-layers."""
    size: int = 512
    """Longest side of the output in pixels."""

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
        session.check(inputs=[self.image])
        reporter = Reporter(quiet=self.saving.quiet)
        return session.run(self.job(reporter), reporter=reporter)

    def job(self, reporter: Reporter, *, network: Loaded | None = None) -> Job:
        """Load image and network (unless given), and return the job."""
        preset, weights = self.checked()

        import jax

        from jaxstyle.cli.recording import job
        from jaxstyle.images.load import load_image
        from jaxstyle.runtime.problem import Work

        how: dict[str, Any] = {"rounding": preset.rounding, "max_pixels": self.limits.pixels()}
        picture = load_image(self.image, size=self.size, resample=preset.resample, **how)
        rgb: Any = picture.rgb
        key = jax.random.key(self.noise.seed)
        network = network or reporter.load_network(self.network.network, self.network)
        work = Work(network.params, rgb, rgb, [rgb], weights, preset.config, "noise", key, self.noise.steps)
        return job(self, work, picture.alpha, network.weights)

    def checked(self) -> tuple[Preset, LossWeights]:
        """Check the options; return the resulting preset and weights."""
        check_number("size", self.size, 16, MOST_WHOLE)
        self.noise.check()
        self.limits.pixels()
        if self.layer is not None and self.comparison.style_layers is not None:
            raise InputError("--layer and --style-layers cannot be combined: drop one.")
        kept = self.comparison.style_layers
        style = {} if kept is None else parse_layers(kept)
        content = {} if kept is not None else parse_layers("relu4_2" if self.layer is None else self.layer)
        if not sum((content | style).values()):
            raise InputError("All layers have the weight 0: give one of them a positive weight.")
        preset = replace(self.comparison, style_layers=None).chosen(
            content_layers=tuple(content), style_layers=tuple(style), **self.computing.chosen()
        )
        return preset, self.noise.loss_weights(preset, content, style)

"""`jaxstyle stylize`: style transfer from files to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from jaxstyle.cli import options as groups
from jaxstyle.runtime.options import StylizeOptions


@dataclass(frozen=True)
class Stylize:
    """Transfer the style of one or more STYLE images to a CONTENT image."""

    content: Annotated[Positional[Path], arg(metavar="CONTENT")]
    """Content image."""
    styles: Annotated[Positional[tuple[Path, ...]], arg(metavar="STYLE [STYLE ...]", help_behavior_hint="(required)")]
    """Style images, or files (.h5) of `jaxstyle statistics`."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="OUT")]
    """Output image: .png, .jpg, .webp or .tiff; an existing file is replaced."""

    size: int = 512
    """Longest side of the output in pixels."""
    steps: int = 205
    """Number of gradient evaluations over all scales."""
    init: groups.Init = None
    """Initial image: content, recolored (content with the colors of the style), style, noise, or an image file."""
    seed: int = 0
    """Seed of the noise and of random positions and directions in the objective."""
    preview: bool = False
    """Use the mini network, which needs no download, and print an estimate of VGG-19's time."""

    saving: groups.Saving = groups.Saving()
    appearance: groups.Appearance = groups.Appearance()
    regions: groups.Regions = groups.Regions()
    method: groups.Method = groups.Method()
    loss: groups.LossWeights = groups.LossWeights()
    optimization: groups.Optimization = groups.Optimization()
    computing: groups.Computing = groups.Computing()
    network: groups.Network = groups.Network()
    limits: groups.Limits = groups.Limits()
    processes: groups.Processes = groups.Processes()

    def run(self) -> int:
        """Run the command and return its exit status."""
        options, network = self.checked(), self.network.chosen(preview=self.preview)

        from jaxstyle.cli.console import run_files, vgg19_message

        inputs = {"content": self.content, "styles": self.styles}
        status, result, run, console = run_files(self, inputs, options, network, others=options.files())
        if self.preview and not status and result is not None and result.steps > result.resumed_at:
            console.print(vgg19_message(run.problem, result, self.output))
        return status

    def checked(self) -> StylizeOptions:
        """Check the options, and return them for the runtime."""
        self.network.chosen(preview=self.preview)
        return groups.checked(StylizeOptions, self, self.styles)

"""`jaxstyle stylize`: style transfer from files to a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from jaxstyle.cli.options import (
    Balance,
    Comparison,
    Computing,
    Controls,
    Init,
    Limits,
    Network,
    Optimization,
    Processes,
    Saving,
    flat,
)
from jaxstyle.errors import InputError
from jaxstyle.runtime.options import StylizeOptions


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
        options = self.checked()

        from jaxstyle.cli.console import Console, vgg19_message
        from jaxstyle.images.save import check_output
        from jaxstyle.runtime.run import stylize_run

        outputs, inputs = self.saving.outputs(), [self.content, *self.styles, *options.files()]
        check_output(self.output, bits=outputs.bits, inputs=inputs)
        outputs.check([self.output], steps=self.steps, inputs=inputs)
        console = Console(quiet=self.saving.quiet)
        network = console.lazy_network("mini" if self.preview else self.network.network, self.network)
        with console.rich.status("Computing style statistics"):
            files, callbacks = (self.content, self.styles), [console.on_event]
            run = stylize_run(*files, options, network, outputs=outputs, callbacks=callbacks)
        status, result = console.run(run, self.output, self.saving)
        if self.preview and not status and result is not None and result.steps > result.resumed_at:
            console.print(vgg19_message(run.problem, result, self.output))
        return status

    def checked(self) -> StylizeOptions:
        """Check the options, and return them for the runtime."""
        if not self.styles:
            raise InputError("There is no style: name at least one picture after the content.")
        for path in self.styles:
            if os.path.isdir(path):  # an inaccessible path is reported when it is read
                raise InputError(f"{path} is a folder: make one style of its pictures with jaxstyle statistics.")
        check_preview(self.preview, self.network)
        options: StylizeOptions = flat(StylizeOptions, self)
        options.check(len(self.styles))
        options.resolve()
        return options


def check_preview(preview: bool, network: Network) -> None:
    """Check that --preview and --network can be combined."""
    if preview and network.network not in ("auto", "vgg19", "mini", "builtin"):
        raise InputError(f"--preview runs with the mini network, but --network is {network.network}: drop one.")

"""`jaxstyle batch`: one picture for each pair of content and style."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from jaxstyle.cli import options as groups
from jaxstyle.runtime.options import StylizeOptions
from jaxstyle.runtime.outputs import OutputOptions, make_folder


@dataclass(frozen=True)
class Batch:
    """Transfer each of --styles to each CONTENT image; rerun the same command to skip finished pictures."""

    contents: Annotated[Positional[tuple[Path, ...]], arg(metavar="CONTENT [CONTENT ...]")]
    """Content images, folders, or patterns."""
    styles: Annotated[tuple[Path, ...], arg(metavar="STYLE [STYLE ...]", help_behavior_hint="(required)")]
    """Style images, folders, patterns, or files (.h5) of `jaxstyle statistics`."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
    """Output folder for the pictures, CONTENT_STYLE.png, and batch.json; existing files are replaced."""

    zip: bool = False
    """Pair the first content with the first style, the second with the second, and so on."""
    format: Literal["png", "jpg", "webp", "tiff"] = "png"
    """File format of the pictures."""
    size: int = 512
    """Longest side of the pictures in pixels."""
    steps: int = 205
    """Number of gradient evaluations of each picture over all scales."""
    init: groups.Init = None
    """Initial image: content, recolored (content with the colors of the style), style, noise, or an image file."""
    seed: int = 0
    """Seed of the noise and of random positions and directions in the objective."""
    preview: bool = False
    """Use the mini network, which needs no download."""
    bits: Literal[8, 16] = 8
    """Bits per channel of the pictures; 16 for png and tiff."""
    record_file: bool = False
    """Write the record of each picture to a .json file too."""
    no_record: bool = False
    """Leave the records (settings, names and hashes of inputs, versions, device) out of the pictures."""
    quiet: bool = False
    """Print errors only."""

    appearance: groups.Appearance = groups.Appearance()
    method: groups.Method = groups.Method()
    loss: groups.LossWeights = groups.LossWeights()
    optimization: groups.Optimization = groups.Optimization()
    computing: groups.Computing = groups.Computing()
    network: groups.Network = groups.Network()
    limits: groups.Limits = groups.Limits()
    processes: groups.Processes = groups.Processes()

    def run(self) -> int:
        """Run the command; return 1 if a picture failed, 130 after Ctrl-C, else 0."""
        from jaxstyle.runtime.batch import batch, batch_pictures, check_batch

        options, outputs = (groups.flat(kind, self) for kind in (StylizeOptions, OutputOptions))
        pictures = batch_pictures(self.contents, self.styles, self.output, pairwise=self.zip, suffix=self.format)
        name = self.network.chosen(preview=self.preview)
        make_folder(self.output)
        check_batch(pictures, options, outputs)

        from jaxstyle.cli.console import REPEAT, Console
        from jaxstyle.cli.signals import stop_status

        console = Console(quiet=self.quiet)
        network = console.load_network(name, self.network)
        with console.progress():
            how: dict[str, Any] = {"options": options, "network": network, "outputs": outputs}
            result = batch(pictures, self.output, **how, callbacks=[console.on_event], should_stop=stop_status)
        counts = f"{result.made} made, {result.skipped} skipped as finished, {result.failed} failed"
        console.print(f"{self.output}: {counts}")
        stopped = stop_status() or (130 if result.stop_reason == "stopped" else 0)
        if stopped:
            console.print(REPEAT)
        return stopped or min(console.failures, 1)

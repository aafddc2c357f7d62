"""`jaxstyle rerun`: repeats the command of a picture from its record and input files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from jaxstyle.cli.options import Limits, Network
from jaxstyle.cli.signals import stop_status
from jaxstyle.runtime.options import parse_pixels


@dataclass(frozen=True)
class Rerun:
    """Repeat the command that made PICTURE and compare the files, which are equal on the same machine."""

    picture: Annotated[Positional[Path], arg(metavar="PICTURE")]
    """Picture made by jaxstyle, with its record in the picture or in the .json file of --record-file."""
    inputs: Annotated[tuple[Path, ...], arg(metavar="DIR [DIR ...]", help_behavior_hint="")] = ()
    """Folders of the input files, which are found by their hashes. (default: the folder of the picture)"""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="OUT", help_behavior_hint="")] = None
    """Output image. (default: PICTURE_rerun in the same folder)"""
    weights: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """VGG-19 weights, an .h5 or .safetensors file, if they are neither installed nor in the --inputs folders."""
    offline: bool = False
    """Never download weights."""
    quiet: bool = False
    """Print errors only."""

    limits: Limits = Limits()

    def run(self) -> int:
        """Run the command; return 0 if the picture is byte for byte the same, 1 if not, 130 after Ctrl-C."""
        from jaxstyle.cli.console import Console
        from jaxstyle.runtime.rerun import equal_pictures, rerun

        console, pixels = Console(quiet=self.quiet), parse_pixels(self.limits.max_pixels)
        output = self.output or self.picture.with_stem(f"{self.picture.stem}_rerun")
        with console.progress():
            result = rerun(
                self.picture,
                output,
                self.inputs or (self.picture.parent,),
                load=lambda name, path: console.load_network(name, Network(name, path, self.offline)),
                weights=self.weights,
                max_pixels=pixels,
                callbacks=[console.on_event],
                should_stop=stop_status,
            )
        stopped = console.finish(result, output, stop_status(), of=result.steps)
        equal = equal_pictures(self.picture, output, max_pixels=pixels, callbacks=[console.on_event])
        return stopped or (0 if equal else 1)

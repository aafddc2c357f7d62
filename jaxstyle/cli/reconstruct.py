"""`jaxstyle reconstruct`: reconstruction of an image from noise by its features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from jaxstyle.cli.options import Computing, FromNoise, Limits, Method, Network, Processes, Saving, checked
from jaxstyle.runtime.options import ReconstructOptions


@dataclass(frozen=True)
class Reconstruct:
    """Reconstruct IMAGE from noise by matching its content features (--layer) or style statistics (--style-layers)."""

    image: Annotated[Positional[Path], arg(metavar="IMAGE")]
    """Image to reconstruct."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="OUT")]
    """Output image: .png, .jpg, .webp or .tiff; an existing file is replaced."""

    layer: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint="(default: relu4_2)")] = None
    """Content layers, such as relu4_2; not with --style-layers."""
    size: int = 512
    """Longest side of the output in pixels."""

    noise: FromNoise = FromNoise()
    saving: Saving = Saving()
    method: Method = Method()
    computing: Computing = Computing()
    network: Network = Network()
    limits: Limits = Limits()
    processes: Processes = Processes()

    def run(self) -> int:
        """Run the command and return its exit status."""
        options = self.checked()

        from jaxstyle.cli.console import run_files

        return run_files(self, {"image": self.image}, options, self.network.network)[0]

    def checked(self) -> ReconstructOptions:
        """Check the options, and return them for the runtime."""
        return checked(ReconstructOptions, self)

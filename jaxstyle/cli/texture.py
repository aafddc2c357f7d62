"""`jaxstyle texture`: texture synthesis at any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from jaxstyle.cli.options import Computing, FromNoise, Limits, Method, Network, Processes, Saving, checked
from jaxstyle.runtime.options import TextureOptions


@dataclass(frozen=True)
class Texture:
    """Synthesize a texture of any size from one or more STYLE images, starting from noise."""

    styles: Annotated[Positional[tuple[Path, ...]], arg(metavar="STYLE [STYLE ...]", help_behavior_hint="(required)")]
    """Style images."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="OUT")]
    """Output image: .png, .jpg, .webp or .tiff; an existing file is replaced."""

    size: Annotated[str, arg(metavar="HxW")] = "512x512"
    """Height and width of the texture in pixels, or one number for both."""
    tileable: bool = False
    """Make a periodic texture; height and width must be multiples of 16."""
    style_size: Annotated[int | None, arg(metavar="PIXELS", help_behavior_hint="(default: the files' size)")] = None
    """Longest side of the styles in pixels, which sets the size of the strokes."""
    style_weights: Annotated[str | None, arg(metavar="W1,W2,...", help_behavior_hint="")] = None
    """Weights of several styles. (default: equal)"""

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

        return run_files(self, {"styles": self.styles}, options, self.network.network)[0]

    def checked(self) -> TextureOptions:
        """Check the options, and return them for the runtime."""
        return checked(TextureOptions, self, self.styles)

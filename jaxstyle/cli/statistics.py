"""`jaxstyle statistics`: saves style statistics in a file that replaces the style images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from jaxstyle.cli.options import Limits, Method, Network, flat
from jaxstyle.cli.signals import check
from jaxstyle.errors import InputError
from jaxstyle.runtime.options import STATISTICS, ObjectiveOptions, check_number, parse_pixels

if TYPE_CHECKING:
    from jaxstyle.losses.style import Summary
    from jaxstyle.networks.vgg import Params
    from jaxstyle.transfer.presets import Preset


@dataclass(frozen=True)
class Statistics:
    """Save the mean style statistics of one or more STYLE images, for use as a style without the images."""

    styles: Annotated[Positional[tuple[Path, ...]], arg(metavar="STYLE [STYLE ...]", help_behavior_hint="(required)")]
    """Style images or folders."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="OUT.h5")]
    """Output file; an existing file is replaced."""

    size: int = 512
    """Longest side of the pictures that will use these statistics, in pixels."""
    style_scale: float = 1.0
    """Size of the styles relative to --size: 2 for coarser strokes, 0.5 for finer ones."""
    seed: int = 0
    """Seed of the directions of --statistic sliced."""
    no_record: bool = False
    """Leave the names of the styles out of the file."""
    quiet: bool = False
    """Print errors only."""

    method: Method = Method()
    network: Network = Network()
    limits: Limits = Limits()

    def run(self) -> int:
        """Run the command and return its exit status."""
        check_number("size", self.size, 16, 100_000)
        check_number("style_scale", self.style_scale, 0.01, 100)
        check_number("seed", self.seed, 0, 2**32 - 1)
        options = flat(ObjectiveOptions, self)
        paths = self._paths()
        preset = options.chosen()

        from jaxstyle.cli.console import Console
        from jaxstyle.losses import statistics_io
        from jaxstyle.losses.objective import Objective
        from jaxstyle.transfer.scale import style_sides
        from jaxstyle.transfer.schedule import plan

        console, objective = Console(quiet=self.quiet), preset.objective
        if not isinstance(objective, Objective):
            raise InputError(f"--preset {self.method.preset} has no style statistics: use another preset.")
        planned = plan(self.size, self.size, steps=1_000_000, scales=preset.scales, layers=objective.layers)
        sides = style_sides(self.size, planned, objective=objective)
        params = console.load_network(self.network.network, self.network).params
        sizes = {}
        for side in sides:
            with console.rich.status(f"Statistics for pictures of {side} pixels"):
                sizes[side] = self._mean(paths, side, params=params, preset=preset)
        check()
        names = [] if self.no_record else [path.name for path in paths]
        how: dict[str, Any] = {"objective": objective, "network": preset.network}
        statistics_io.write(self.output, sizes, params=params, pictures=names, **how)
        what = f"{len(paths)} picture{'s' if len(paths) > 1 else ''}"
        console.print(f"{self.output}: {what}, for sides of {', '.join(map(str, sides))} pixels")
        return 0

    def _mean(self, paths: list[Path], side: int, *, params: Params, preset: Preset) -> dict[str, Summary]:
        """Return the mean of the summaries of all images, with one image in memory at a time."""
        import jax
        import jax.numpy as jnp

        from jaxstyle.images.load import load_image
        from jaxstyle.losses.targets import summarize_style

        size = max(16, round(self.style_scale * side))
        how: dict[str, Any] = {"resample": preset.resample, "rounding": preset.rounding}
        how["max_pixels"] = parse_pixels(self.limits.max_pixels)
        options: dict[str, Any] = {"objective": preset.objective, "network": preset.network}
        options["key"] = jax.random.key(self.seed)
        summarize = jax.jit(summarize_style, static_argnames="network")
        whole: dict[str, Summary] = {}
        for path in paths:
            check()
            rgb = load_image(path, size=size, **how).rgb
            one = summarize(params, jnp.asarray(rgb), **options)
            one = jax.tree.map(lambda leaf: leaf / len(paths), one)
            whole = jax.tree.map(jnp.add, whole, one) if whole else one
        return whole

    def _paths(self) -> list[Path]:
        """Check the output, and return the style images, including those of folders."""
        if self.output.suffix.lower() not in STATISTICS:
            raise InputError(f"{self.output} has the suffix {self.output.suffix!r}: use .h5.")
        if self.output.is_dir() or not self.output.absolute().parent.is_dir():
            raise InputError(f"{self.output} is a folder or lacks one: name a file in a folder that exists.")
        if not self.styles:
            raise InputError("There is no style: name at least one picture or folder.")
        from jaxstyle.runtime.inputs import expand_paths

        return expand_paths(self.styles)

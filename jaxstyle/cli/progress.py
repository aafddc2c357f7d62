"""Progress of a command on standard error: network, compilation, steps and summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from jaxstyle.cli.options import Network
from jaxstyle.cli.signals import check
from jaxstyle.distributed.processes import leads
from jaxstyle.runtime.record import Weights

if TYPE_CHECKING:
    from jaxstyle.networks.vgg import Params
    from jaxstyle.runtime.compile_cache import CompileClock
    from jaxstyle.runtime.runner import Place

SPEED_PERIOD = 3600.0  # seconds over which speed is averaged; with rich's 30, slower steps would have none


class Loaded(NamedTuple):
    """The params of a network, and its entry in a record."""

    params: Params
    weights: Weights


class Reporter:
    """Prints to standard error."""

    def __init__(self, *, quiet: bool) -> None:
        """Print nothing if `quiet`."""
        quiet = quiet or not leads()
        self.clock: CompileClock | None = None
        self.run_seconds = 0.0  # of the steps of the last run, extrapolated to those before it was resumed
        # Without markup and emoji, since a path may contain brackets and colons.
        self.console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def tell(self, text: str) -> None:
        """Show a message."""
        self.console.print(text)

    def warn(self, text: str) -> None:
        """Show a warning."""
        self.console.print(text, style="yellow")

    def fail(self, error: Exception) -> None:
        """Show the reason why a file other than the picture could not be saved."""
        print(f"jaxstyle: {error}", file=sys.stderr)

    def load_network(self, name: str, options: Network) -> Loaded:
        """Find and load a network, with a progress bar for its download and a message with its origin."""
        from jaxstyle.losses.statistics_io import network_hash
        from jaxstyle.networks import pretrained
        from jaxstyle.runtime.compile_cache import enable_compile_cache, process_clock

        enable_compile_cache()
        if self.clock is None:
            self.clock = process_clock()
            self.clock.take()
        with Progress(
            "Downloading VGG-19",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        ) as progress:
            weights = options.weights if name == options.network else None
            found = pretrained.find(name, weights=weights, offline=options.offline, progress=_Download(progress))
        check()
        if found.note:
            self.console.print(found.note, style="yellow")
        self.console.print(f"Network: {found.network}, {found.origin}")
        params = pretrained.load(found)
        check()
        file = found.path.name if found.path else ""
        return Loaded(params, Weights(found.network, file, network_hash(params)))

    @contextmanager
    def steps(self, plan: Sequence[tuple[int, int]]) -> Iterator[Steps]:
        """Show a progress bar for a `plan` of (number of steps, pixels) pairs; time is proportional to pixels."""
        columns = (
            TextColumn("{task.fields[taken]}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=10, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("left"),
            TextColumn("{task.fields[terms]}", table_column=Column()),  # the column that wraps in narrow windows
        )
        with Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
            speed_estimate_period=SPEED_PERIOD,
        ) as progress:
            yield Steps(progress, plan)

    def finished(self, output: Path, place: Place, *, since: int, of: int, seconds: float, stopped: bool) -> None:
        """Print the output, the number of steps, the time of those after `since`, and that of compilation."""
        count, totals = f"{place.steps} steps", place.trace["total"]
        if place.steps < of:
            count = f"interrupted after {place.steps} of {of} steps" if stopped else f"leveled off after {count}"
        new = place.steps - since
        self.run_seconds = seconds * place.steps / max(1, new)
        took = f"{f', the last {new}' if since else ''} in {seconds:.1f} s ({new / seconds:.2f} steps/s)"
        took = took if new else ", all of them before"
        self.console.print(f"{output}: {count}{took}, total {totals[0]:.4g} to {totals[-1]:.4g}{self.compile_times()}")

    def compile_times(self) -> str:
        """Return the time of tracing, compilation and loading since the last call, as the end of a message."""
        if self.clock is None:
            return ""
        return f"; {self.clock.take()}"


class Steps:
    """The progress bar of a run, measured in pixels, to which time is proportional, and labeled in steps."""

    def __init__(self, progress: Progress, plan: Sequence[tuple[int, int]]) -> None:
        """Start at the first step of `plan`."""
        self.progress = progress
        self.steps = np.array([0, *accumulate(count for count, _ in plan)])  # at the end of each item of the plan
        self.pixels = np.array([0.0, *accumulate(float(count * pixels) for count, pixels in plan)])  # up to there
        self.taken = 0
        self.wait_seconds = 0.0
        self.task = progress.add_task("", total=self.pixels[-1], taken=self._label(), rate="", terms="")

    def _label(self) -> str:
        return f"{self.taken}/{self.steps[-1]}"

    def _until(self, taken: int) -> int:
        """Return the pixels of the first `taken` steps."""
        return int(np.interp(taken, self.steps, self.pixels))

    @contextmanager
    def compiling(self, side: int) -> Iterator[None]:
        """Show that the program for images of `side` pixels is being compiled, and measure the time."""
        began = time.perf_counter()
        self.progress.update(self.task, terms=f"compiling for {side} pixels")
        yield
        self.wait_seconds += time.perf_counter() - began

    def go_on(self, taken: int) -> None:
        """Continue after this many steps of the plan."""
        self.taken = taken
        self.progress.reset(self.task, completed=self._until(taken), taken=self._label())

    def advance(self, steps: int, terms: dict[str, float]) -> None:
        """Advance by `steps` and show `terms`."""
        self.progress.advance(self.task, self._until(self.taken + steps) - self._until(self.taken))
        self.taken += steps
        speed = self.progress.tasks[0].speed
        here = min(self.taken, self.steps[-1] - 1)
        pixels = self._until(here + 1) - self._until(here)
        self.progress.update(
            self.task,
            taken=self._label(),
            rate=f"{speed / pixels:.2f} steps/s" if speed else "",
            terms="  ".join(f"{name} {value:.3g}" for name, value in terms.items()),
        )


class _Download:
    """Progress bar for pooch, which sets `total` and calls the three methods, drawn by rich."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.total = 0
        self.task: Any = None

    def update(self, count: int) -> None:
        check()
        if self.task is None:
            self.task = self.progress.add_task("", total=self.total or None)
        self.progress.advance(self.task, count)

    def reset(self) -> None:
        if self.task is not None:
            self.progress.reset(self.task)

    def close(self) -> None:
        """Do nothing; pooch requires this method."""

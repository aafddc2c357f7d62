"""What a running command shows, on standard error: the network, the compilation, each step and the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

SPEED_PERIOD = 3600.0  # seconds over which steps are averaged; by rich's 30, a slower step has no speed at all


class Reporter:
    """Prints to standard error, or not at all."""

    def __init__(self, *, quiet: bool) -> None:
        """Print nothing if `quiet`."""
        # no markup and no emoji: a path may hold brackets and colons
        self.console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.compile_seconds = 0.0

    def load_network(self, network: str, *, weights: Path | None, offline: bool) -> Any:
        """Find and load the network, with a bar for its download and a line for what it is."""
        from jaxstyle import pretrained

        with Progress(
            "Downloading VGG-19",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        ) as progress:
            found = pretrained.find(network, weights=weights, offline=offline, progress=_Download(progress))
        if found.note:
            self.console.print(found.note, style="yellow")
        self.console.print(f"Network: {found.network}, {found.origin}")
        return pretrained.load(found)

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Show that the program is being compiled, and note how long it takes."""
        began = time.perf_counter()
        with self.console.status("Compiling"):
            yield
        self.compile_seconds = time.perf_counter() - began

    @contextmanager
    def steps(self, count: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
        """Show a bar; what is yielded is called after each segment with its length and the terms to show."""
        columns = (
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(bar_width=10, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("left"),
            TextColumn("{task.fields[terms]}", table_column=Column()),  # the one to wrap where the window is narrow
        )
        with Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
            speed_estimate_period=SPEED_PERIOD,
        ) as progress:
            task = progress.add_task("", total=count, rate="", terms="")

            def advance(steps: int, terms: dict[str, float]) -> None:
                progress.advance(task, steps)
                speed = progress.tasks[0].speed
                progress.update(
                    task,
                    rate=f"{speed:.2f} steps/s" if speed else "",
                    terms="  ".join(f"{name} {value:.3g}" for name, value in terms.items()),
                )

            yield advance

    def finished(
        self, output: Path, rows: list[dict[str, float]], *, of: int, seconds: float, interrupted: bool
    ) -> None:
        """Say what was written, how far the run came and how long it took."""
        steps = f"interrupted after {len(rows)} of {of} steps" if interrupted else f"{len(rows)} steps"
        self.console.print(
            f"{output}: {steps} in {seconds:.1f} s ({len(rows) / seconds:.2f} steps/s; compiled in "
            f"{self.compile_seconds:.1f} s), total {rows[0]['total']:.4g} to {rows[-1]['total']:.4g}"
        )


class _Download:
    """Pooch's progress bar, drawn by rich: it sets `total` and calls the three methods below."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.total = 0
        self.task: Any = None

    def update(self, count: int) -> None:
        if self.task is None:
            self.task = self.progress.add_task("", total=self.total or None)
        self.progress.advance(self.task, count)

    def reset(self) -> None:
        if self.task is not None:
            self.progress.reset(self.task)

    def close(self) -> None:
        """Nothing is open; pooch asks."""

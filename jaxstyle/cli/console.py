"""What a command shows on standard error: network, progress bar, messages and summary."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column

from jaxstyle.cli.options import Network, Saving
from jaxstyle.cli.signals import Interrupted, check, stop_status
from jaxstyle.distributed.processes import any_process_asked, is_process_zero
from jaxstyle.errors import PictureWarning, UnavailableError
from jaxstyle.runtime.backends import check_backend
from jaxstyle.runtime.callbacks import Event
from jaxstyle.runtime.compile_cache import CompileClock, CompileTimes, enable_compile_cache, process_clock
from jaxstyle.runtime.estimates import Estimate, estimate, vgg19_seconds
from jaxstyle.runtime.fitting import Result
from jaxstyle.runtime.inputs import LoadedNetwork, load_network
from jaxstyle.runtime.options import ObjectiveOptions
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.run import Run, divergence_message, load_run, on_devices, run_to_file

if TYPE_CHECKING:
    from jaxstyle.runtime.runner import Snapshot

SPEED_PERIOD = 3600.0  # seconds over which speed is averaged; with rich's 30, slower steps would have none
REPEAT = "Interrupted: rerun the same command to resume."


class Console:
    """Prints to standard error; `on_event` is a callback of runs."""

    def __init__(self, *, quiet: bool) -> None:
        """Print errors only if `quiet`."""
        if quiet:
            warnings.filterwarnings("ignore", category=PictureWarning)
        quiet = quiet or not is_process_zero()
        self.clock: CompileClock | None = None
        self.failures = 0  # of files other than the picture, or of pictures of several
        self.bar: Bar | None = None
        # Without markup and emoji, since a path may contain brackets and colons.
        self.rich = RichConsole(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def print(self, text: str) -> None:
        """Show a message."""
        self.rich.print(text)

    def on_event(self, event: Event, _: Snapshot | None = None) -> None:
        """Show an event."""
        if event.kind in ("failed", "diverged"):
            self.failures += 1
        if event.kind == "failed":
            print(f"jaxstyle: {event.message}", file=sys.stderr)
        elif event.kind in ("warning", "diverged"):
            self.rich.print(event.message, style="yellow")
        elif event.kind == "message":
            self.rich.print(event.message)
        elif self.bar is not None:
            self.bar.show(event)

    def load_network(self, name: str, options: Network) -> LoadedNetwork:
        """Find and load a network, with a progress bar for its download and a message with its origin."""
        check_backend()
        enable_compile_cache()
        if self.clock is None:
            self.clock = process_clock()
            self.clock.take()
        columns = ("Downloading VGG-19", BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self.rich, transient=True, disable=not self.rich.is_terminal) as progress:
            weights, bar = options.weights if name == options.network else None, _Download(progress)
            how: dict[str, Any] = {"offline": options.offline, "progress": bar, "callbacks": [self.on_event]}
            network = load_network(name, weights=weights, **how)
        check()
        return network

    @contextmanager
    def progress(self) -> Iterator[Bar]:
        """Show a progress bar, and keep it up to date with events."""
        columns = (
            TextColumn("{task.fields[steps]}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=10, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("left"),
            TextColumn("{task.fields[text]}", table_column=Column()),  # the column that wraps in narrow windows
        )
        options: dict[str, Any] = {"disable": not self.rich.is_terminal, "speed_estimate_period": SPEED_PERIOD}
        with Progress(*columns, console=self.rich, transient=True, **options) as progress:
            self.bar = Bar(progress)
            try:
                yield self.bar
            finally:
                self.bar = None

    def run(self, run: Run, output: Path, saving: Saving) -> tuple[int, Result | None]:
        """Run all steps, save the result and return it with the exit status; a dry run only prints estimates."""
        if saving.dry_run:
            run = on_devices(run, [self.on_event])
            if run.problem.spans_processes:
                run.check_processes()
            self.print_estimate(run.problem)
            return 0, None
        stop = any_process_asked(stop_status)
        if number := stop():
            raise Interrupted(number - 128)
        with self.progress():
            result = run_to_file(run, output, callbacks=[self.on_event], should_stop=stop)
        stopped = self.finish(result, output, stop(), of=run.problem.steps)
        if stopped and saving.checkpoint is not None:
            self.print("Rerun the same command to resume.")
        return stopped or min(self.failures, 1), result

    def finish(self, result: Result, output: Path, stopped: int, *, of: int) -> int:
        """Print the summary of a run of `of` steps, or raise its failure; return the exit status if it was stopped."""
        stopped = stopped or (130 if result.stop_reason == "stopped" else 0)
        if result.snapshot is None:
            raise Interrupted(stopped - 128)
        if result.stop_reason == "diverged":
            raise UnavailableError(divergence_message(result, output))
        self.summary(output, result, of=of)
        return stopped

    def summary(self, output: Path, result: Result, *, of: int) -> None:
        """Print the output, the number of steps, the time of those of this run, and that of compilation."""
        count = f"{result.steps} steps"
        if result.stop_reason == "stopped":
            count = f"interrupted after {result.steps} of {of} steps"
        elif result.stop_reason == "converged":
            count = f"leveled off after {count}"
        new, took = result.steps - result.resumed_at, ", all from the checkpoint"
        if new:
            last = f", the last {new}" if result.resumed_at else ""
            took = f"{last} in {result.seconds:.1f} s ({new / result.seconds:.2f} steps/s)"
        self.print(f"{output}: {count}{took}, {result.totals}{self.compile_times()}")

    def compile_times(self) -> str:
        """Return the time of tracing, compilation and loading since the last call, as the end of a message."""
        return "" if self.clock is None else f"; {self.clock.take()}"

    def print_estimate(self, problem: Problem, *, rounds: int = 1) -> None:
        """Print the time of `rounds` runs and their memory on standard output; the run reuses the programs."""
        with self.rich.status("Compiling and timing"):
            costs = estimate(problem, callbacks=[self.on_event])
        if problem.writes_files:
            batch = problem.batch_size is not None
            times = self.clock.take() if self.clock else CompileTimes()
            print("\n".join(estimate_lines(costs, times, rounds=rounds, batch=batch)))


def run_files(
    command: Any, files: dict[str, Any], options: ObjectiveOptions, network: str, *, others: Sequence[Path] = ()
) -> tuple[int, Result | None, Run, Console]:
    """Run a command on its input files, by argument, and return as `Console.run`; `others` are named by options."""
    outputs, console = command.saving.outputs(), Console(quiet=command.saving.quiet)
    inputs = [path for each in files.values() for path in ([each] if isinstance(each, Path) else each)]
    outputs.check([command.output], steps=options.steps, inputs=[*inputs, *others])
    load, callbacks = cache(lambda: console.load_network(network, command.network)), [console.on_event]
    with console.rich.status("Loading pictures and computing style statistics"):
        run = load_run(files, options, load, outputs=outputs, callbacks=callbacks)
    return *console.run(run, command.output, command.saving), run, console


def estimate_lines(costs: Estimate, times: CompileTimes, *, rounds: int = 1, batch: bool = False) -> Iterator[str]:
    """Yield the lines of a dry run."""
    scales = ", ".join(f"{scale.steps} steps at {scale.width}x{scale.height}" for scale in costs.scales)
    yield f"scales      {scales}"
    yield f"arithmetic  {costs.gflop:.0f} GFLOP a step at the last scale, as direct convolutions"
    yield f"memory      {costs.memory / 2**30:.2f} GiB at most, of {costs.limit / 2**30:.1f} GiB"
    if costs.seconds is None:
        cure = "lower --size or --batch-size" if batch else "lower --size"
        yield f"time        not measured, since the run does not fit into memory: {cure}"
        return
    seconds = rounds * costs.seconds
    yield f"time        {seconds:.0f} s for all steps, {costs.seconds_per_step:.3g} s for one at the last scale"
    loading = f"{times.loaded:.1f} s to load {times.hits}" if times.hits else "loading"
    if times.programs:
        compiling = f"{times.compiled:.1f} s to compile {times.programs} programs, now in the cache"
        yield f"compiling   first run: {times.traced:.1f} s to trace, {compiling}; later runs: tracing and {loading}"
    else:
        yield f"compiling   every run: {times.traced:.1f} s to trace, {loading}, which are in the cache"


def vgg19_message(problem: Problem, result: Result, output: Path) -> str:
    """Return a message with the estimated time of VGG-19 after a run of the mini network, and how to start it."""
    new = result.steps - result.resumed_at
    seconds = vgg19_seconds(problem, seconds=result.seconds * result.steps / max(1, new))
    duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return (
        f"VGG-19 would take about {duration} here for these {problem.steps} steps (estimated from the number of "
        "operations); to start it from this picture, replace --preview by --network vgg19 --scales 1 --init "
        f"{shlex.quote(str(output))} and name another output."
    )


class Bar:
    """The progress bar of a run, labeled in steps."""

    def __init__(self, progress: Progress) -> None:
        """Start before the first step."""
        self.progress, self.last = progress, Event("resumed")
        self.task = progress.add_task("", total=1.0, steps="", rate="", text="")

    def show(self, event: Event) -> None:
        """Show an event."""
        if event.kind == "estimating":
            self.progress.update(self.task, text=event.message)
            return
        if not event.total_steps:
            return
        label = f"{event.step}/{event.total_steps}"
        if event.kind == "resumed":
            self.progress.reset(self.task)
            self.progress.update(self.task, completed=event.progress, steps=label)
        elif event.kind == "compiling":
            self.progress.update(self.task, steps=label, text=f"compiling for {max(event.size)} pixels")
        elif event.kind in ("steps", "level off"):
            steps, part = event.step - self.last.step, event.progress - self.last.progress
            text = "  ".join(f"{name} {value:.3g}" for name, value in event.metrics.items())
            text = text or f"leveled off at {max(event.size)} pixels"
            self.progress.update(self.task, completed=event.progress, steps=label, text=text)
            speed = self.progress.tasks[0].speed
            if speed and part > 0:
                self.progress.update(self.task, rate=f"{speed * steps / part:.2f} steps/s")
        self.last = event


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

"""`jaxstyle sweep`: one picture for each combination of weights, layer sets and seeds, in batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from jaxstyle.cli import options as groups
from jaxstyle.errors import InputError
from jaxstyle.runtime.options import check_number
from jaxstyle.runtime.outputs import make_folder
from jaxstyle.runtime.sweep_grid import MOST_PICTURES, SweepOptions

if TYPE_CHECKING:
    from jaxstyle.cli.console import Console
    from jaxstyle.runtime.run import Run
    from jaxstyle.runtime.sweep_job import SweepFolder


@dataclass(frozen=True)
class Swept:
    """Weights of the loss: a number, a list such as 1,10,100, or a range such as 10:1000:5."""

    content_weight: Annotated[str | None, arg(metavar="NUMBERS", help_behavior_hint=groups.SET_BY_PRESET)] = None
    """Weights of the content loss."""
    style_weight: Annotated[str | None, arg(metavar="NUMBERS", help_behavior_hint=groups.SET_BY_PRESET)] = None
    """Weights of the style loss."""
    tv_weight: Annotated[str | None, arg(metavar="NUMBERS", help_behavior_hint=groups.SET_BY_PRESET)] = None
    """Weights of total variation."""
    content_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=groups.SET_BY_PRESET)] = None
    """Content layers, such as relu4_2; separate several sets of layers by semicolons."""
    shift: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=groups.SET_BY_PRESET)] = None
    """Number added to features before their Gram matrices, such as -1 (Novak and Nikulin)."""


@dataclass(frozen=True)
class Sweep:
    """Make one picture for each combination of weights, layer sets and seeds, in batches."""

    content: Annotated[Positional[Path], arg(metavar="CONTENT")]
    """Content image."""
    styles: Annotated[Positional[tuple[Path, ...]], arg(metavar="STYLE [STYLE ...]", help_behavior_hint="(required)")]
    """Style images, or files (.h5) of `jaxstyle statistics`."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
    """Output folder for pictures, grid.png, index.html and sweep.csv; rerun to resume an interrupted sweep."""

    size: int = 512
    """Longest side of the pictures in pixels."""
    steps: int = 205
    """Number of gradient evaluations of each picture over all scales."""
    init: groups.Init = None
    """Initial image: content, recolored (content with the colors of the style), style, noise, or an image file."""
    seeds: Annotated[int | None, arg(metavar="COUNT", help_behavior_hint="")] = None
    """Number of noise seeds for each combination: --seed, --seed + 1, ...; the initial images are noise."""
    seed: int = 0
    """First seed of the noise; seed of the directions of --statistic sliced."""
    batch_size: Annotated[int | None, arg(metavar="COUNT", help_behavior_hint="")] = None
    """Number of pictures at a time. (default: as many as fit --max-memory)"""
    preview: bool = False
    """Use the mini network, which needs no download."""

    saving: groups.Saving = groups.Saving()
    appearance: groups.Appearance = groups.Appearance()
    regions: groups.Regions = groups.Regions()
    method: groups.Method = groups.Method()
    swept: Swept = Swept()
    optimization: groups.Optimization = groups.Optimization()
    computing: groups.Computing = groups.Computing()
    network: groups.Network = groups.Network()
    limits: groups.Limits = groups.Limits()
    processes: groups.Processes = groups.Processes()

    def run(self) -> int:
        """Run the command and return its exit status: 1 if a picture diverged, 130 after Ctrl-C, else 0."""
        options = self.checked()
        check_number("batch_size", self.batch_size, 1, MOST_PICTURES)
        if self.batch_size is not None and options.max_memory is not None:
            raise InputError("--batch-size and --max-memory both set the number of pictures at a time: drop one.")
        if not self.saving.dry_run or self.output.exists():
            make_folder(self.output)

        from jaxstyle.cli.console import REPEAT, Console
        from jaxstyle.cli.signals import check, stop_status
        from jaxstyle.distributed.processes import any_process_asked
        from jaxstyle.runtime.run import load_run
        from jaxstyle.runtime.sweep_job import sweep_folder, sweep_job, with_hashes

        outputs, inputs = self.saving.outputs(), [self.content, *self.styles, *options.all_layers().files()]
        folder = sweep_folder(self.output, options, outputs=outputs)
        if not self.saving.dry_run or self.output.is_dir():
            folder.check(steps=self.steps, inputs=inputs)
        console = Console(quiet=self.saving.quiet)
        network = cache(lambda: console.load_network(self.network.chosen(preview=self.preview), self.network))
        files, callbacks = {"content": self.content, "styles": self.styles}, [console.on_event]
        run = load_run(files, options, network, outputs=outputs, callbacks=callbacks)
        folder = with_hashes(folder, run, options)
        if self.saving.dry_run:
            return self._dry_run(console, run, folder)
        check()
        stop = any_process_asked(stop_status)
        with console.progress():
            how = {"batch_size": self.batch_size, "columns": options.columns()}
            result = sweep_job(run, folder, **how, callbacks=callbacks, should_stop=stop)
        stopped = stop() or (130 if result.stop_reason == "stopped" else 0)
        if stopped or result.made:
            console.print(REPEAT if stopped else f"finished in {result.seconds:.1f} s{console.compile_times()}")
        where = f": see {self.output / 'index.html'}" if result.finished else ""
        console.print(f"{result.finished} of {len(folder.combinations)} pictures are finished{where}")
        return stopped or (1 if result.diverged else min(console.failures, 1))

    def checked(self) -> SweepOptions:
        """Check the options, and return them for the runtime."""
        self.network.chosen(preview=self.preview)
        return groups.checked(SweepOptions, self, self.styles)

    def _dry_run(self, console: Console, run: Run, folder: SweepFolder) -> int:
        from jaxstyle.distributed.processes import is_distributed, is_process_zero
        from jaxstyle.runtime.placement import batch_layout
        from jaxstyle.runtime.sweep_job import fitting_batch_size

        if is_distributed():
            run.check_processes()
        todo, count = folder.unfinished(read=False), len(folder.combinations)
        if len(todo) < count and is_process_zero():
            print(f"{count - len(todo)} of {count} pictures exist already.")
        if todo:
            callbacks = [console.on_event]
            size = self.batch_size or fitting_batch_size(run.problem, folder, todo, callbacks=callbacks)
            layout = batch_layout(run.problem.devices, batch_size=size, objective=run.problem.objective)
            problem = replace(folder.problem(run.problem, todo[:size]), layout=layout)
            console.print_estimate(problem, rounds=-(-len(todo) // size))
        return 0

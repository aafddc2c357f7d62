"""`jaxstyle sweep`: one picture for each combination of weights, layer sets and seeds, in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from jaxstyle.cli.limits import Limits
from jaxstyle.cli.options import (
    MOST_SEED,
    PRESETS_OWN,
    Comparison,
    Computing,
    Init,
    Network,
    check_number,
    parse_layers,
    parse_memory,
)
from jaxstyle.cli.pictures import Controls
from jaxstyle.cli.processes import Processes
from jaxstyle.cli.saving import Saving
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep_values import parse_sets, parse_values
from jaxstyle.cli.tuning import Balance, Optimization
from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.outputs import make_folder
from jaxstyle.runtime.sweep_grid import MOST_LANES, Lane, combinations

if TYPE_CHECKING:
    from jaxstyle.cli.progress import Loaded, Reporter
    from jaxstyle.config import Config, LossWeights
    from jaxstyle.runtime.record import Job
    from jaxstyle.runtime.sweep_job import SweepFolder

MOST_COLUMNS = 12
WEIGHTS = ("content-weight", "style-weight", "tv-weight")


@dataclass(frozen=True)
class Swept:
    """Weights of the loss: a number, a list such as 1,10,100, or a range such as 10:1000:5."""

    content_weight: Annotated[str | None, arg(metavar="NUMBERS", help_behavior_hint=PRESETS_OWN)] = None
    """Weights of the content loss."""
    style_weight: Annotated[str | None, arg(metavar="NUMBERS", help_behavior_hint=PRESETS_OWN)] = None
    """Weights of the style loss."""
    tv_weight: Annotated[str | None, arg(metavar="NUMBERS", help_behavior_hint=PRESETS_OWN)] = None
    """Weights of total variation."""
    content_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=PRESETS_OWN)] = None
    """Content layers, such as relu4_2; several sets of layers are separated by semicolons."""
    shift: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """Number added to features before their Gram matrices, such as -1 (Novak and Nikulin)."""


@dataclass(frozen=True)
class Sweep:
    """Make one picture for each combination of weights, layer sets and seeds, many at a time, with the same scales."""

    content: Annotated[Positional[Path], arg(metavar="CONTENT")]
    """Content image."""
    styles: Annotated[Positional[tuple[Path, ...]], arg(metavar="STYLE [STYLE ...]")]
    """Style images, or files (.h5) of `jaxstyle statistics`."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
    """Output folder for the pictures, grid.png, index.html and sweep.csv; the same command resumes an interrupted
    sweep."""

    size: int = 512
    """Longest side of the pictures in pixels."""
    steps: int = 300
    """Number of gradient evaluations of each picture over all scales."""
    init: Init = "content"
    """Initial image: content, style, noise, or an image file."""
    seeds: Annotated[int | None, arg(metavar="COUNT", help_behavior_hint="")] = None
    """Number of noise seeds for each combination: --seed, --seed + 1, ...; the initial images are noise."""
    seed: int = 0
    """First seed of the noise; seed of the directions of --statistic sliced."""
    lanes: Annotated[int | None, arg(metavar="COUNT", help_behavior_hint="")] = None
    """Number of pictures at a time. (default: as many as fit --max-memory)"""
    preview: bool = False
    """Use the mini network, which needs no download."""

    saving: OmitArgPrefixes[Saving] = field(default_factory=Saving)
    controls: OmitArgPrefixes[Controls] = field(default_factory=Controls)
    comparison: OmitArgPrefixes[Comparison] = field(default_factory=Comparison)
    swept: OmitArgPrefixes[Swept] = field(default_factory=Swept)
    optimization: OmitArgPrefixes[Optimization] = field(default_factory=Optimization)
    computing: OmitArgPrefixes[Computing] = field(default_factory=Computing)
    network: OmitArgPrefixes[Network] = field(default_factory=Network)
    limits: OmitArgPrefixes[Limits] = field(default_factory=Limits)
    processes: OmitArgPrefixes[Processes] = field(default_factory=Processes)

    def run(self) -> int:
        """Run the command and return its exit status: 1 if a picture diverged, 130 after Ctrl-C, else 0."""
        whole = self._whole()
        preset, _ = whole.checked()
        folder = self._folder(preset.config)
        memory = parse_memory(self.computing.max_memory)
        check_number("lanes", self.lanes, 1, MOST_LANES)
        if self.lanes is not None and memory is not None:
            raise InputError("--lanes and --max-memory both say how many pictures to paint at a time: drop one.")
        if not self.saving.dry_run or self.output.exists():
            make_folder(self.output)

        from jaxstyle.cli.progress import Reporter
        from jaxstyle.cli.sweep_session import SweepSession
        from jaxstyle.distributed.processes import leads
        from jaxstyle.runtime.sweep_report import write_report

        if not self.saving.dry_run or self.output.is_dir():
            folder.check(steps=self.steps, inputs=whole.inputs())
        reporter = Reporter(quiet=self.saving.quiet)
        job = self.job(reporter)
        folder = replace(folder, digests=self._digests(job, folder))
        status = SweepSession(folder).run(job, at_a_time=self.lanes, memory=memory, reporter=reporter)
        if self.saving.dry_run:
            return status
        finished = folder.finished()
        if leads():
            write_report(self.output, finished, columns=self._columns(folder.lanes), max_pixels=self.limits.pixels())
        where = f": see {self.output / 'index.html'}" if finished else ""
        reporter.console.print(f"{len(finished)} of {len(folder.lanes)} pictures are finished{where}")
        return status

    def job(self, reporter: Reporter, *, network: Loaded | None = None) -> Job:
        """Load images and network (unless given), and return the job of the sweep."""
        from jaxstyle.cli.recording import job

        work, alpha, record = self._whole().job(reporter, network=network)
        return job(self, work, alpha, record.network)

    def lanes_of(self, job: Job, numbers: Sequence[int], lane: int) -> Job:
        """Return the job of a batch with these numbers, and select picture `lane` of it.

        Raises:
            InputError: if the sweep has no such pictures.
        """
        from jaxstyle.cli.sweep_session import SweepSession

        folder = self._folder(job.work.config)
        own = set(numbers)
        if not 0 <= lane < len(numbers) or len(own) < len(numbers) or not own <= set(range(len(folder.lanes))):
            found = f"{excerpt(lane)} of {excerpt(list(numbers), most=60)}"
            raise InputError(f"This sweep has no lane {found}, each of them once: name a picture that it has saved.")
        return SweepSession(folder).job_of(job, numbers, lane=lane)

    def _folder(self, config: Config) -> SweepFolder:
        """Return all combinations, with the weights and the seed of each."""
        from jaxstyle.runtime.sweep_job import SweepFolder

        lanes = combinations({name: values for name, values in self._options().items() if len(values) > 1})
        weights = [self._weights(lane, config) for lane in lanes]
        seeds = [int(lane.settings.get("seed", self.seed)) for lane in lanes]
        return SweepFolder(self.output, lanes, weights, seeds, self.saving, max_pixels=self.limits.pixels())

    def _options(self) -> dict[str, Sequence[float | int | str]]:
        """Return the values of each given option that may differ within the sweep."""
        found: dict[str, Sequence[float | int | str]] = {}
        for name in WEIGHTS:
            text = getattr(self.swept, name.replace("-", "_"))
            if text is not None:
                found[name] = parse_values(name, text, least=0)
        layers = {"content-layers": self.swept.content_layers, "style-layers": self.comparison.style_layers}
        found |= {name: parse_sets(name, text) for name, text in layers.items() if text is not None}
        if self.seeds is not None:
            check_number("seeds", self.seeds, 1, MOST_LANES)
            check_number("seed", self.seed, 0, MOST_SEED + 1 - self.seeds)
            if self.init not in ("content", "noise"):
                raise InputError(f"--seeds starts from noise, but --init is {self.init}: drop one.")
            found["seed"] = range(self.seed, self.seed + self.seeds)
        return found

    def _columns(self, lanes: Sequence[Lane]) -> int | None:
        """Return the number of columns of the sheet: with several options, that of the values of the last one."""
        counts = [len(values) for values in self._options().values() if len(values) > 1]
        if len(counts) > 1 and counts[-1] <= MOST_COLUMNS:
            return counts[-1]
        return len(lanes) if len(lanes) <= MOST_COLUMNS // 2 else None

    def _single(self, settings: Mapping[str, Any]) -> Stylize:
        """Return the command for one picture: its `settings`, and the first value of other options."""
        values: dict[str, Any] = {name: values[0] for name, values in self._options().items()} | dict(settings)
        weights = {name.replace("-", "_"): values.get(name) for name in WEIGHTS}
        return Stylize(
            self.content,
            self.styles,
            self.output / "grid.png",
            size=self.size,
            steps=self.steps,
            init=self.init if self.seeds is None else "noise",
            seed=self.seed,
            preview=self.preview,
            saving=self.saving,
            controls=self.controls,
            comparison=replace(self.comparison, style_layers=values.get("style-layers")),
            balance=Balance(**weights, content_layers=values.get("content-layers"), shift=self.swept.shift),
            optimization=self.optimization,
            computing=self.computing,
            network=self.network,
            limits=self.limits,
            processes=self.processes,
        )

    def _whole(self) -> Stylize:
        """Return the command whose config has the layers of all pictures."""
        sets = {name: values for name, values in self._options().items() if name.endswith("-layers")}
        return self._single({name: ",".join(dict.fromkeys(_layers(each))) for name, each in sets.items()})

    def _weights(self, lane: Lane, config: Config) -> LossWeights:
        """Return the weights of one picture: zero for the layers of others."""
        _, own = self._single(lane.settings).checked()
        return replace(
            own,
            content={layer: own.content.get(layer, 0.0) for layer in config.content_layers},
            style={layer: own.style.get(layer, 0.0) for layer in config.style_layers},
        )

    def _digests(self, job: Job, folder: SweepFolder) -> list[str]:
        """Return for each picture a hash of all inputs and options on which it depends."""
        record, init = job.record, self._whole().init
        files = [each.sha256 for each in record.inputs]
        command = (self.size, self.steps, init if isinstance(init, str) else "", self.seed, self.saving.bits)
        common = repr((command, self.controls, files, record.network.sha256, record.config))
        return [
            hashlib.sha256(repr((common, own, seed)).encode()).hexdigest()
            for own, seed in zip(folder.weights, folder.seeds, strict=True)
        ]


def _layers(sets: Sequence[float | int | str]) -> list[str]:
    return [layer for text in sets for layer in parse_layers(str(text))]

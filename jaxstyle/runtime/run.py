"""Runs from files to a file: the problem with its record, and the picture with its other output files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import write_text
from jaxstyle.images.save import save_image
from jaxstyle.runtime.callbacks import Callback, Event, message, never, notify
from jaxstyle.runtime.checkpoint import EVERY, RunCheckpoints
from jaxstyle.runtime.fitting import Result, fit
from jaxstyle.runtime.inputs import (
    LoadedNetwork,
    LoadNetwork,
    load_network,
    load_reconstruction,
    load_stylize,
    load_texture,
)
from jaxstyle.runtime.options import (
    ObjectiveOptions,
    ReconstructOptions,
    StylizeOptions,
    TextureOptions,
    TransferOptions,
    parse_memory,
)
from jaxstyle.runtime.outputs import OutputOptions, attempt, log_rows, numbered, write_log
from jaxstyle.runtime.placement import batch_layout, row_layout
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.record import RunRecord, check_same, identity, new_record, plain
from jaxstyle.runtime.record import text as record_text
from jaxstyle.runtime.runner import CURE, Snapshot, picture_of
from jaxstyle.runtime.sweep_grid import SweepOptions

NOT_RECORDED = ("max_memory", "devices", "max_pixels")  # options on which no pixel depends


class Run(NamedTuple):
    """A problem, the alpha of its content, the record of one of its pictures before the run, and output options."""

    problem: Problem
    alpha: np.ndarray | None
    record: RunRecord
    outputs: OutputOptions

    def history(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Return the history of the picture of the record."""
        if self.problem.batch_size is None:
            return dict(snapshot.history)
        return {name: values[self.record.index] for name, values in snapshot.history.items()}

    def record_of(self, snapshot: Snapshot) -> RunRecord:
        """Return the record of the picture at a snapshot."""
        history = {name: (float(values[0]), float(values[-1])) for name, values in self.history(snapshot).items()}
        plans = {str(side): plan for side, plan in snapshot.memory_plans.items()}
        return replace(self.record, memory_plans=plans, steps=snapshot.step, history=history)

    def checkpoints(self) -> RunCheckpoints | None:
        """Return the checkpoints of the run, or None without a folder."""
        folder, every, batch = self.outputs.checkpoint, self.outputs.every or EVERY, self.record.batch
        if folder is None:
            return None
        return RunCheckpoints(folder, self.problem, identity(self.record), batch=batch, every=every)

    def check_processes(self) -> None:
        """Raise `InputError` unless all processes have the same run."""
        check_same({**identity(self.record), "outputs": plain(self.outputs, paths={})})

    def save_picture(self, path: Path, snapshot: Snapshot, pictures: np.ndarray) -> None:
        """Save the picture of the record, given all pictures of the problem at a snapshot."""
        if self.problem.writes_files:
            picture = pictures if self.problem.batch_size is None else pictures[self.record.index]
            description = record_text(self.record_of(snapshot)) if self.outputs.record else ""
            save_image(path, picture, alpha=self.alpha, bits=self.outputs.bits, description=description)

    def save_record(self, path: Path, snapshot: Snapshot) -> None:
        """Save the record in a file next to the picture, if the options say so."""
        if self.outputs.record_file and self.problem.writes_files:
            write_text(path.with_suffix(".json"), record_text(self.record_of(snapshot), indent=1) + "\n")


def stylize_files(
    content: str | Path,
    styles: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    options: StylizeOptions | None = None,
    outputs: OutputOptions | None = None,
    network: LoadedNetwork | str = "auto",
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], object] = never,
) -> Result:
    """Transfer the style of image files to a content image, as `jaxstyle stylize` does, and save the picture.

    Args:
        content: content image.
        styles: style images, or files of statistics.
        output: picture to write; an existing file is replaced.
        options: options of the transfer; None for the defaults.
        outputs: other output files, checkpoints, and whether the picture contains its record; None for the defaults.
        network: of `load_network`, or its name.
        callbacks: called with every event.
        should_stop: called before each segment of a few steps; the picture of the last one is then saved.

    Raises:
        InputError: if a file or an option cannot be used.
        UnavailableError: if the picture cannot be saved, or there is not enough memory.

    Example:
        >>> stylize_files("cat.jpg", "strokes.jpg", "out.png", network="mini").stop_reason  # doctest: +SKIP
        'done'
    """
    options, outputs, path = options or StylizeOptions(), outputs or OutputOptions(), Path(output)
    content = Path(content)
    paths = tuple(Path(each) for each in ([styles] if isinstance(styles, str | Path) else styles))
    options.check(paths)
    outputs.check([path], steps=options.steps, inputs=[content, *paths, *options.files()])
    load = cache(lambda: load_network(network, callbacks=callbacks) if isinstance(network, str) else network)
    files = {"content": content, "styles": paths}
    run = load_run(files, options, load, outputs=outputs, callbacks=callbacks)
    return run_to_file(run, path, callbacks=callbacks, should_stop=should_stop)


def load_run(
    files: Mapping[str, Any],
    options: ObjectiveOptions,
    network: LoadNetwork,
    *,
    outputs: OutputOptions,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Load the input files of a command, by argument, and return its run; for a sweep, that of all layers."""
    if isinstance(options, TransferOptions):
        options = options.with_init()  # for the record too
    if isinstance(options, TextureOptions):
        problem, alpha = load_texture(**files, options=options, network=network)
    elif isinstance(options, ReconstructOptions):
        problem, alpha = load_reconstruction(**files, options=options, network=network)
    else:
        single: Any = options.all_layers() if isinstance(options, SweepOptions) else options
        problem, alpha = load_stylize(**files, options=single, network=network, callbacks=callbacks)
    inputs: dict[Path, int] = {}
    named = {**files, **{each.name: getattr(options, each.name) for each in fields(options)}}
    facts = {name: plain(value, paths=inputs) for name, value in named.items() if name not in NOT_RECORDED}
    facts |= {"bits": outputs.bits, "save_every": outputs.save_every}
    record = new_record(options.command, facts, inputs=inputs, network=network().weights, problem=problem)
    memory, every = parse_memory(options.max_memory), outputs.save_every
    return Run(replace(problem, save_every=every, memory=memory, devices=options.devices), alpha, record, outputs)


def on_devices(run: Run, callbacks: Sequence[Callback] = ()) -> Run:
    """Return a run with its layout on devices, and send a message about it."""
    problem = run.problem
    if problem.batch_size is not None:
        layout = batch_layout(problem.devices, batch_size=problem.batch_size, objective=problem.objective)
    else:
        layout = row_layout(problem.devices, objective=problem.objective)
    if layout is None:
        return run
    shared = "the picture's rows" if problem.batch_size is None else "the pictures"
    among = f" of {jax.process_count()} processes" if layout.spans_processes else ""
    message(callbacks, f"{layout.mesh.size} devices{among} share {shared}")
    record = replace(run.record, devices=layout.mesh.size)
    return run._replace(problem=replace(problem, layout=layout), record=record)


def run_to_file(
    run: Run,
    output: Path,
    *,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], object] = never,
    until: int | None = None,
) -> Result:
    """Run all steps, or those up to `until`, and save the picture and the other files; see `fit`."""
    run = on_devices(run, callbacks)
    problem, outputs = run.problem, run.outputs
    if problem.spans_processes:
        run.check_processes()

    def save_intermediate(event: Event, snapshot: Snapshot | None) -> None:
        if snapshot is not None and outputs.due(snapshot.step, steps=problem.steps):
            path = numbered(output, snapshot.step, steps=problem.steps)
            attempt(partial(run.save_picture, path, snapshot, picture_of(problem, snapshot)), callbacks)
            attempt(partial(run.save_record, path, snapshot), callbacks)

    how: dict[str, Any] = {"checkpoint": run.checkpoints(), "should_stop": should_stop, "until": until}
    result = fit(problem, callbacks=(*callbacks, save_intermediate), **how)
    if result.snapshot is None or result.image is None:
        return result
    _save_or_keep(run, output, result.snapshot, result.image)
    attempt(partial(run.save_record, output, result.snapshot), callbacks)
    if problem.writes_files:
        notify(callbacks, Event("saved", result.steps, problem.steps, message=str(output)))
        if outputs.log is not None:
            write_log(outputs.log, list(log_rows(result.snapshot.sides, run.history(result.snapshot))))
    return result


def divergence_message(result: Result, output: Path) -> str:
    """Return the message of a diverged run whose last finite picture was saved."""
    return f"{result.message}, so {output} is as it was after step {result.steps}: {CURE}"


def _save_or_keep(run: Run, output: Path, snapshot: Snapshot, picture: np.ndarray) -> None:
    """Save the picture; if that fails, save it as a PNG in the temporary folder and raise an error that names it."""
    try:
        run.save_picture(output, snapshot, picture)
    except (InputError, UnavailableError) as error:
        reason = str(error).rstrip(".")
        kind = type(error) if output.parent.is_dir() else UnavailableError  # it existed at the start
        try:
            kept = Path(tempfile.mkdtemp(prefix="jaxstyle-")) / f"{output.stem}.png"
            run.save_picture(kept, snapshot, picture)
        except OSError:
            raise kind(f"{reason}; nor can it be saved in the temporary folder.") from error
        raise kind(f"{reason}; until then the picture is {kept}.") from error

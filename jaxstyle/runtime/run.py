"""Runs from files to a file: the problem with its record, and the picture with its other output files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import write_text
from jaxstyle.images.save import check_output, save_image
from jaxstyle.losses.targets import Style
from jaxstyle.runtime.callbacks import Callback, Event, message, never, notify
from jaxstyle.runtime.fitting import Result, fit
from jaxstyle.runtime.inputs import (
    LoadedNetwork,
    LoadNetwork,
    load_network,
    load_reconstruction,
    load_stylize,
    load_texture,
)
from jaxstyle.runtime.options import ObjectiveOptions, ReconstructOptions, StylizeOptions, TextureOptions, parse_memory
from jaxstyle.runtime.outputs import OutputOptions, attempt, log_rows, numbered, write_log
from jaxstyle.runtime.placement import batch_layout, row_layout
from jaxstyle.runtime.plain_data import plain
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.record import RunRecord, Weights, check_same, identity, new_record, record_at
from jaxstyle.runtime.record import text as record_text
from jaxstyle.runtime.resume import EVERY, RunCheckpoints
from jaxstyle.runtime.runner import CURE, Snapshot, picture_of
from jaxstyle.transfer.color import Sizes

NOT_RECORDED = ("max_memory", "devices", "max_pixels")  # options on which no pixel depends


class Run(NamedTuple):
    """A problem, the alpha channel of its content, and its record before the run."""

    problem: Problem
    alpha: np.ndarray | None
    record: RunRecord


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
    paths = [Path(each) for each in ([styles] if isinstance(styles, str | Path) else styles)]
    if not paths:
        raise InputError("There is no style: name at least one picture.")
    options.check(len(paths))
    options.resolve()
    inputs = [content, *paths, *options.files()]
    check_output(path, bits=outputs.bits, inputs=inputs)
    outputs.check([path], steps=options.steps, inputs=inputs)
    name = network

    def load() -> LoadedNetwork:
        return load_network(name, callbacks=callbacks) if isinstance(name, str) else name

    run = stylize_run(content, paths, options, cache(load), outputs=outputs, callbacks=callbacks)
    return run_to_file(run, path, outputs=outputs, callbacks=callbacks, should_stop=should_stop)


def stylize_run(
    content: Path,
    styles: Sequence[Path],
    options: StylizeOptions,
    network: LoadNetwork,
    *,
    outputs: OutputOptions,
    cached: Mapping[Path, Style | Sizes] = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Load the files of a style transfer and return its run; the arguments are those of `load_stylize`."""
    problem, alpha = load_stylize(content, styles, options, network, cached=cached, callbacks=callbacks)
    files = {"content": content, "styles": tuple(styles)}
    return new_run("stylize", files, options, problem, alpha, network().weights, outputs=outputs)


def texture_run(
    styles: Sequence[Path], options: TextureOptions, network: LoadNetwork, *, outputs: OutputOptions
) -> Run:
    """Load the files of a texture and return its run."""
    preset, objective = options.resolve()
    problem = load_texture(
        styles,
        *options.shape(),
        network=network,
        preset=preset,
        objective=objective,
        steps=options.steps,
        seed=options.seed,
        style_size=options.style_size,
        style_weights=options.shares(len(styles)),
        max_pixels=options.max_pixels,
    )
    return new_run("texture", {"styles": tuple(styles)}, options, problem, None, network().weights, outputs=outputs)


def reconstruct_run(image: Path, options: ReconstructOptions, network: LoadNetwork, *, outputs: OutputOptions) -> Run:
    """Load the image of a reconstruction and return its run."""
    preset, objective = options.resolve()
    how: dict[str, Any] = {"size": options.size, "steps": options.steps, "seed": options.seed}
    how |= {"preset": preset, "objective": objective, "max_pixels": options.max_pixels}
    problem, alpha = load_reconstruction(image, network=network, **how)
    return new_run("reconstruct", {"image": image}, options, problem, alpha, network().weights, outputs=outputs)


def new_run(
    command: str,
    files: Mapping[str, Path | tuple[Path, ...]],
    options: ObjectiveOptions,
    problem: Problem,
    alpha: np.ndarray | None,
    network: Weights,
    *,
    outputs: OutputOptions,
) -> Run:
    """Return a run with its record, its memory budget and its number of devices."""
    inputs: dict[Path, int] = {}
    named = {**files, **{each.name: getattr(options, each.name) for each in fields(options)}}
    facts = {name: plain(value, paths=inputs) for name, value in named.items() if name not in NOT_RECORDED}
    facts |= {"bits": outputs.bits, "save_every": outputs.save_every}
    record = new_record(command, facts, inputs=inputs, network=network, problem=problem)
    memory, every = parse_memory(options.max_memory), outputs.save_every
    return Run(replace(problem, save_every=every, memory=memory, devices=options.devices), alpha, record)


def on_devices(run: Run, callbacks: Sequence[Callback] = ()) -> Run:
    """Return a run with its layout on devices, and send a message about it."""
    problem = run.problem
    if problem.batch_size is not None:
        layout = batch_layout(problem.devices, batch_size=problem.batch_size)
    else:
        layout = row_layout(problem.devices, objective=problem.objective)
    if layout is None:
        return run
    shared = "the picture's rows" if problem.batch_size is None else "the pictures"
    among = f" of {jax.process_count()} processes" if layout.spans_processes else ""
    message(callbacks, f"{layout.mesh.size} devices{among} share {shared}")
    record = replace(run.record, devices=layout.mesh.size)
    return run._replace(problem=replace(problem, layout=layout), record=record)


def checkpoints_of(run: Run, outputs: OutputOptions) -> RunCheckpoints | None:
    """Return the checkpoints of a run, or None without a folder."""
    if outputs.checkpoint is None:
        return None
    facts, every = identity(run.record), outputs.every or EVERY
    return RunCheckpoints(outputs.checkpoint, run.problem, facts, batch=run.record.batch, every=every)


def check_processes(run: Run, outputs: OutputOptions) -> None:
    """Raise `InputError` unless all processes have the same run."""
    check_same({**identity(run.record), "outputs": plain(outputs, paths={})})


def run_to_file(
    run: Run,
    output: Path,
    *,
    outputs: OutputOptions,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], object] = never,
    until: int | None = None,
) -> Result:
    """Run all steps, or those up to `until`, and save the picture and the other files."""
    run = on_devices(run, callbacks)
    if run.problem.spans_processes:
        check_processes(run, outputs)

    def save_intermediate(event: Event, snapshot: Snapshot | None) -> None:
        if snapshot is not None and outputs.due(snapshot.step, steps=run.problem.steps):
            path = numbered(output, snapshot.step, steps=run.problem.steps)
            picture = picture_of(run.problem, snapshot)
            attempt(partial(_save_picture, path, run, snapshot, picture, outputs), callbacks)
            attempt(partial(_save_record, path, run, snapshot, outputs), callbacks)

    result = fit(
        run.problem,
        callbacks=(*callbacks, save_intermediate),
        checkpoint=checkpoints_of(run, outputs),
        should_stop=should_stop,
        until=until,
    )
    if result.snapshot is None or result.image is None:
        return result
    _save_or_keep(output, run, result.snapshot, result.image, outputs)
    attempt(partial(_save_record, output, run, result.snapshot, outputs), callbacks)
    if run.problem.writes_files:
        notify(callbacks, Event("saved", result.steps, run.problem.steps, message=str(output)))
        if outputs.log is not None:
            write_log(outputs.log, list(log_rows(result.snapshot.sides, own_history(run, result.snapshot))))
    return result


def divergence_message(result: Result, output: Path) -> str:
    """Return the message of a diverged run whose last finite picture was saved."""
    return f"{result.message}, so {output} is as it was after step {result.steps}: {CURE}"


def own_history(run: Run, snapshot: Snapshot) -> dict[str, np.ndarray]:
    """Return the history of the picture of the record, which may be one of a batch."""
    if run.problem.batch_size is None:
        return dict(snapshot.history)
    return {name: values[run.record.index] for name, values in snapshot.history.items()}


def _save_or_keep(output: Path, run: Run, snapshot: Snapshot, picture: np.ndarray, outputs: OutputOptions) -> None:
    """Save the picture; if that fails, save it as a PNG in the temporary folder and raise an error that names it."""
    try:
        _save_picture(output, run, snapshot, picture, outputs)
    except (InputError, UnavailableError) as error:
        reason = str(error).rstrip(".")
        kind = type(error) if output.parent.is_dir() else UnavailableError  # it existed at the start
        try:
            kept = Path(tempfile.mkdtemp(prefix="jaxstyle-")) / f"{output.stem}.png"
            _save_picture(kept, run, snapshot, picture, outputs)
        except OSError:
            raise kind(f"{reason}; nor can it be saved in the temporary folder.") from error
        raise kind(f"{reason}; until then the picture is {kept}.") from error


def _save_picture(path: Path, run: Run, snapshot: Snapshot, picture: np.ndarray, outputs: OutputOptions) -> None:
    if run.problem.writes_files:
        own = picture if run.problem.batch_size is None else picture[run.record.index]
        description = record_text(_record(run, snapshot)) if outputs.record else ""
        save_image(path, own, alpha=run.alpha, bits=outputs.bits, description=description)


def _save_record(path: Path, run: Run, snapshot: Snapshot, outputs: OutputOptions) -> None:
    if outputs.record_file and run.problem.writes_files:
        write_text(path.with_suffix(".json"), record_text(_record(run, snapshot), indent=1) + "\n")


def _record(run: Run, snapshot: Snapshot) -> RunRecord:
    return record_at(run.record, snapshot._replace(history=own_history(run, snapshot)))

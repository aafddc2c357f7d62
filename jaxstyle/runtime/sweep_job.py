"""The pictures of a sweep: their folder, and optimization in batches that fit into memory.

A batch is saved when it is finished; a diverged picture is saved as of its last finite step.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.distributed.processes import allgather_json, is_distributed, is_process_zero
from jaxstyle.errors import InputError, excerpt
from jaxstyle.images.load import load_image
from jaxstyle.images.save import check_output
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.runtime.callbacks import Callback, Event, message, never, notify
from jaxstyle.runtime.checkpoint import locked
from jaxstyle.runtime.memory import memory_budget
from jaxstyle.runtime.outputs import OutputOptions, attempt, log_rows, numbered, read_log, write_log
from jaxstyle.runtime.placement import batch_layout
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.record import weights_by_term
from jaxstyle.runtime.run import Run, on_devices
from jaxstyle.runtime.runner import (
    CURE,
    Fault,
    Snapshot,
    fault_of,
    is_complete,
    iterate,
    last_finite,
    lbfgs_messages,
    picture_of,
    repeat,
)
from jaxstyle.runtime.sweep_grid import Combination, SweepOptions
from jaxstyle.runtime.sweep_report import Entry, entry_of, read_entry, thinned, write_entry, write_report
from jaxstyle.transfer.sweep import batch_size_within, memory_of


class SweepResult(NamedTuple):
    """Result of `sweep_job`: numbers of pictures, those `finished` including earlier calls, and the duration."""

    made: int
    finished: int
    diverged: int
    seconds: float
    stop_reason: Literal["done", "stopped"]


@dataclass(frozen=True)
class SweepFolder:
    """Folder of a sweep, and the settings, objective, seed and hash of each picture."""

    folder: Path
    combinations: Sequence[Combination]
    objectives: Sequence[AnyObjective]
    seeds: Sequence[int]
    outputs: OutputOptions
    hashes: Sequence[str] = ()
    max_pixels: int | None = None

    def check(self, *, steps: int, inputs: Sequence[Path]) -> None:
        """Raise `InputError` unless all outputs can be written and replace no input."""
        pictures = [self.picture(i) for i in range(len(self.combinations))]
        for path in (self.folder / "sweep.csv", self.folder / "index.html", *map(entry_of, pictures)):
            if path.is_dir():
                raise InputError(f"{path} is a folder, where the sweep writes a file: name another folder.")
        check_output(self.folder / "grid.png", inputs=inputs)
        self.outputs.check(pictures, steps=steps, inputs=inputs)
        if self.outputs.log is not None and self.outputs.log.absolute() == (self.folder / "sweep.csv").absolute():
            raise InputError(f"The log {self.outputs.log} is where the sweep's table goes: name another file.")

    def picture(self, i: int) -> Path:
        """Return the path of a picture."""
        return self.folder / f"{self.combinations[i].name}.png"

    def entry(self, i: int) -> Entry | None:
        """Return the entry of a picture if it is finished and has the same inputs and options; else None."""
        entry = read_entry(entry_of(self.picture(i)))
        return entry if entry and entry.digest == self.hashes[i] and self.picture(i).is_file() else None

    def finished(self) -> list[Entry]:
        """Return the entries of all finished pictures."""
        return [entry for i in range(len(self.combinations)) if (entry := self.entry(i)) is not None]

    def drop_unfinished_from_log(self) -> None:
        """Remove unfinished pictures from the log."""
        log = self.outputs.log
        if log is not None and log.exists():
            finished = {entry.picture for entry in self.finished()}
            write_log(log, [row for row in read_log(log) if row.get("picture") in finished])

    def is_readable(self, i: int) -> bool:
        """Return whether a picture is finished and readable; remove the entry of a damaged picture."""
        if self.entry(i) is None:
            return False
        try:
            load_image(self.picture(i), max_pixels=self.max_pixels)
        except InputError:
            entry_of(self.picture(i)).unlink(missing_ok=True)  # another process may have removed it
            return False
        return True

    def unfinished(self, *, read: bool = True) -> list[int]:
        """Return the numbers of all pictures that are not finished; `read` checks that the others can be read."""
        done = self.is_readable if read else self.entry
        return allgather_json([i for i in range(len(self.combinations)) if not done(i)])[0]

    def problem(self, problem: Problem, batch: Sequence[int]) -> Problem:
        """Return the problem of a batch."""
        objective = jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *(self.objectives[i] for i in batch))
        noise = jax.vmap(jax.random.key)(jnp.asarray([self.seeds[i] for i in batch], jnp.uint32))
        noisy = isinstance(problem.start, str) and problem.start == "noise"
        return replace(problem, objective=objective, batch_size=len(batch), noise=noise if noisy else None)

    def run(self, run: Run, batch: Sequence[int], *, index: int = 0) -> Run:
        """Return the run of a batch, with the record of one of its pictures."""
        numbers = set(batch)
        unknown = len(numbers) < len(batch) or not numbers <= set(range(len(self.combinations)))
        if unknown or not 0 <= index < len(batch):
            name = f"{excerpt(index)} of {excerpt(list(batch), most=60)}"
            raise InputError(f"This sweep has no picture {name}, each of them once: name a picture that it has saved.")
        run = run._replace(problem=self.problem(run.problem, batch), record=replace(run.record, batch=tuple(batch)))
        return self.of_picture(run, index)

    def of_picture(self, run: Run, index: int) -> Run:
        """Return the run of a batch with the record of another of its pictures."""
        weights = weights_by_term(self.objectives[run.record.batch[index]])
        return run._replace(record=replace(run.record, index=index, weights=weights))


def sweep_folder(folder: Path, options: SweepOptions, *, outputs: OutputOptions) -> SweepFolder:
    """Return the folder of a sweep with all combinations, and the objective and the seed of each."""
    combinations, (_, every) = options.combinations(), options.resolve()
    objectives = [options.objective(each, every) for each in combinations]
    seeds = [int(each.settings.get("seed", options.seed)) for each in combinations]
    return SweepFolder(folder, combinations, objectives, seeds, outputs, max_pixels=options.max_pixels)


def with_hashes(folder: SweepFolder, run: Run, options: SweepOptions) -> SweepFolder:
    """Return a folder with the hash of all inputs and options on which each picture depends."""
    record, bits = run.record, folder.outputs.bits
    start = run.problem.start if isinstance(run.problem.start, str) else ""
    controls = (options.style_weights, options.style_scale, options.style_size, options.color, options.feather)
    controls += (len(options.content_mask), options.style_mask)
    files = [each.sha256 for each in record.inputs]
    facts = (options.size, options.steps, start, options.seed, bits, folder.outputs.record, controls)
    common = repr((facts, files, record.network.sha256, record.settings))
    pairs = zip(folder.objectives, folder.seeds, strict=True)
    hashes = [hashlib.sha256(repr((common, objective, seed)).encode()).hexdigest() for objective, seed in pairs]
    return replace(folder, hashes=hashes)


def sweep_job(
    run: Run,
    folder: SweepFolder,
    *,
    batch_size: int | None = None,  # None for as many as fit into memory
    columns: int | None = None,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], object] = never,
) -> SweepResult:
    """Compute all pictures of a sweep that are not finished, and write its report, with a number of `columns`."""
    if is_distributed():
        run.check_processes()
    began, count = time.perf_counter(), len(folder.combinations)
    todo = folder.unfinished()
    if is_process_zero():
        folder.drop_unfinished_from_log()
    if len(todo) < count:
        message(callbacks, f"{count - len(todo)} of {count} pictures exist already.")
    kept = folder.outputs.checkpoint
    stopped, diverged, done = False, 0, 0  # the number of pictures before a batch
    try:
        with nullcontext() if kept is None or not todo else locked(kept):
            for batch in _batches(run, folder, todo, batch_size=batch_size, callbacks=callbacks):
                some = on_devices(folder.run(run, batch), () if done else callbacks)
                of_batch = _of_batch(callbacks, done, len(batch), len(todo))
                diverged += _SweepBatch(some, folder, [of_batch]).compute(should_stop)
                done += len(batch)
                if stopped := bool(should_stop()):
                    break
    except KeyboardInterrupt:
        if is_distributed():
            raise  # jax then ends the other processes too
        stopped = True
    finished = folder.finished()
    if is_process_zero():
        write_report(folder.folder, finished, columns=columns, max_pixels=folder.max_pixels)
    made, seconds = len(finished) - (count - len(todo)), time.perf_counter() - began
    return SweepResult(made, len(finished), diverged, seconds, "stopped" if stopped else "done")


def _batches(
    run: Run, folder: SweepFolder, todo: Sequence[int], *, batch_size: int | None, callbacks: Sequence[Callback]
) -> Iterator[list[int]]:
    """Yield the numbers of each batch; the interrupted one is first."""
    checkpoints = run.checkpoints() if todo else None
    first: list[int] = allgather_json(list(checkpoints.interrupted_batch() if checkpoints else ()))[0]
    if checkpoints is not None and not set(first) <= set(todo):  # finished, but the checkpoint was not removed
        checkpoints.store.clear()
        first = []
    rest = [i for i in todo if i not in first]
    if batch_size is None and rest:
        batch_size = fitting_batch_size(run.problem, folder, rest, callbacks=callbacks)
    if first:
        yield first
    size = batch_size or 1
    yield from (rest[i : i + size] for i in range(0, len(rest), size))


def _of_batch(callbacks: Sequence[Callback], done: int, size: int, count: int) -> Callback:
    """Return a callback that sends events with the progress of the sweep: steps count once for each picture."""

    def send(event: Event, snapshot: Snapshot | None) -> None:
        if steps := event.total_steps:
            step, progress = done * steps + event.step * size, (done + event.progress * size) / count
            event = event._replace(step=step, total_steps=count * steps, progress=progress)
        notify(callbacks, event, snapshot)

    return send


def fitting_batch_size(
    problem: Problem, folder: SweepFolder, todo: Sequence[int], *, callbacks: Sequence[Callback] = ()
) -> int:
    """Return the batch size that fits into memory, and send a message with it."""
    last = [number for number, scale in enumerate(problem.schedule) if scale[:2] == problem.schedule[-1][:2]]

    def needed(count: int) -> int:
        layout = batch_layout(problem.devices, batch_size=count, objective=problem.objective)
        some = replace(folder.problem(problem, todo[:count]), layout=layout)
        message(callbacks, f"Estimating the memory of {count} pictures", kind="estimating")
        targets = [jax.eval_shape(partial(some.targets, number)) for number in last]
        steps = [some.program(problem.schedule[i], each) for i, each in zip(last, targets, strict=True)]
        return max(map(memory_of, steps)) * (1 if layout is None else layout.at_once)  # `iterate` uses the programs

    needed(len(todo))  # compilation takes memory, some of which stays in use
    budget = min(allgather_json(memory_budget(problem.memory)))
    count = batch_size_within(budget, count=len(todo), needed=needed)
    takes, gib = needed(count), 2**30
    message(callbacks, f"{len(todo)} pictures, {count} at a time: {takes / gib:.1f} of {budget / gib:.1f} GiB")
    return count


@dataclass
class _SweepBatch:
    """One batch of a sweep: its run, and the faults of its diverged pictures by index."""

    run: Run
    folder: SweepFolder
    callbacks: Sequence[Callback]
    faults: dict[int, Fault] = field(default_factory=dict)

    def compute(self, should_stop: Callable[[], object]) -> int:
        """Optimize and save the batch, or its last snapshot when stopped; return the number of diverged pictures."""
        problem, outputs, callbacks = self.run.problem, self.folder.outputs, self.callbacks
        checkpoints = self.run.checkpoints()
        resume = snapshot = None if checkpoints is None else checkpoints.load(callbacks)
        self.faults |= {} if snapshot is None else self._faults(snapshot)
        missing = [index for index in self.faults if not self._path(index).is_file()]
        missing = allgather_json(missing)[0] if problem.spans_processes else missing
        late = {index: self.faults[index] for index in missing}
        before, recent = 0 if snapshot is None else snapshot.step, (None, snapshot)
        for snapshot in iterate(problem, resume=resume, should_stop=should_stop, callbacks=callbacks):
            for index, fault in self._faults(snapshot).items():
                if index not in self.faults:
                    self.faults[index] = fault
                    if (finite := last_finite(recent, fault)) is None:
                        late[index] = fault  # repeated after this run, to save memory
                    else:
                        attempt(partial(self._rescue, index, fault, finite), callbacks)
            for index, text in lbfgs_messages(problem, snapshot, before=before):
                message(callbacks, f"{self._combination(index).label}: {text}", kind="warning")
            if outputs.due(snapshot.step, steps=problem.steps):
                attempt(partial(self._save_all, snapshot, intermediate=True), callbacks)
            if checkpoints is not None and checkpoints.due(snapshot.step, before=before):
                checkpoints.save(snapshot, callbacks)
            before, recent = snapshot.step, (recent[1], snapshot)
        if snapshot is None:
            return 0
        if should_stop() and not is_complete(problem, snapshot):
            if checkpoints is not None:
                checkpoints.save(snapshot, callbacks)
            attempt(partial(self._save_all, snapshot), callbacks)
            return len(self.faults)
        self._save_all(snapshot)
        if problem.writes_files:
            self._write_entries(snapshot)
        for index, fault in late.items():
            finite = repeat(problem, until=fault.last_finite, should_stop=should_stop, callbacks=callbacks)
            attempt(partial(self._rescue, index, fault, finite), callbacks)
        if checkpoints is not None:
            checkpoints.store.clear()
        return len(self.faults)

    def _path(self, index: int) -> Path:
        return self.folder.picture(self.run.record.batch[index])

    def _combination(self, index: int) -> Combination:
        return self.folder.combinations[self.run.record.batch[index]]

    def _faults(self, snapshot: Snapshot) -> dict[int, Fault]:
        faults = {}
        for index, finite in enumerate(self.run.problem.finite(snapshot.image)):
            history = {term: values[index] for term, values in snapshot.history.items()}
            if (fault := fault_of(history, finite=finite)) is not None:
                faults[index] = fault
        return faults

    def _rescue(self, index: int, fault: Fault, snapshot: Snapshot | None) -> None:
        """Save a diverged picture as of an earlier snapshot, if there is one, and send an event."""
        result = "there is no picture"
        if snapshot is not None:
            result = f"{self._path(index)} is as it was after step {snapshot.step}"
            self._save(self._path(index), picture_of(self.run.problem, snapshot), snapshot, index)
        text = f"{self._combination(index).label}: {fault.message}, so {result}: {CURE}"
        message(self.callbacks, text, kind="diverged")

    def _save_all(self, snapshot: Snapshot, *, intermediate: bool = False) -> None:
        """Save all pictures of a snapshot except diverged ones."""
        pictures, steps = picture_of(self.run.problem, snapshot), self.run.problem.steps
        for index in range(len(pictures)):
            if index not in self.faults:
                path = self._path(index)
                path = numbered(path, snapshot.step, steps=steps) if intermediate else path
                self._save(path, pictures, snapshot, index)

    def _save(self, path: Path, pictures: np.ndarray, snapshot: Snapshot, index: int) -> None:
        run = self.folder.of_picture(self.run, index)
        run.save_picture(path, snapshot, pictures)
        run.save_record(path, snapshot)  # the entry of a finished picture replaces it

    def _write_entries(self, snapshot: Snapshot) -> None:
        """Append the steps of saved pictures to the log, and then write their entries."""
        batch, outputs = self.run.record.batch, self.folder.outputs
        runs = {i: self.folder.of_picture(self.run, i) for i in range(len(batch)) if i not in self.faults}
        if outputs.log is not None:
            rows: list[dict[str, Any]] = []
            for index, run in runs.items():
                names = {"picture": self._path(index).name, **self._combination(index).settings}
                rows += [names | row for row in log_rows(snapshot.sides, run.history(snapshot))]
            write_log(outputs.log, rows, mode="a")
        for index, run in runs.items():
            path, combination, history = self._path(index), self._combination(index), run.history(snapshot)
            terms = {term: float(values[-1]) for term, values in history.items()}
            curve, settings = thinned(history["total"].tolist()), dict(combination.settings)
            record = run.record_of(snapshot) if outputs.record or outputs.record_file else None
            digest = self.folder.hashes[batch[index]]
            write_entry(entry_of(path), Entry(path.name, combination.label, settings, terms, curve, digest, record))

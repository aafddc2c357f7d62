"""The runner: `iterate` yields a snapshot after every few steps, over all scales, and resumes from any of them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxstyle.errors import InputError, UnavailableError, out_of_memory
from jaxstyle.losses.objective import Objective
from jaxstyle.optim import loop
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.optim.optimizers import LBFGS
from jaxstyle.runtime import memory
from jaxstyle.runtime.callbacks import Callback, Event, never, notify
from jaxstyle.runtime.problem import CompiledScale, Problem
from jaxstyle.transfer.schedule import Scale

LEAST_PAIRS = 3  # of lbfgs, below which it is no better than gradient descent
CURE = "lower the weights or --learning-rate, or try --optimizer adam."


class Snapshot(NamedTuple):
    """Snapshot of a run, from which it can be resumed.

    Attributes:
        scale: number of the scale, from 0.
        scale_step: number of steps at this scale.
        state: state after these steps; the next steps donate it.
        image: image of the state, `[..., H, W, 3]`, in the layout of the program.
        sides: longest side of the image at every step so far, `[steps]`.
        history: every term at every step so far, `[..., steps]`.
        memory_plans: memory plans of scales so far by longest side, see `Problem.at`.
        start: initial image of the scale, on which the targets of custom objectives depend; None for other objectives.
    """

    scale: int
    scale_step: int
    state: loop.State
    image: jax.Array
    sides: np.ndarray
    history: Mapping[str, np.ndarray]
    memory_plans: Mapping[int, int]
    start: Any = None

    @property
    def step(self) -> int:
        """Number of steps over all scales."""
        return len(self.sides)

    @property
    def donated(self) -> bool:
        """Whether later steps have taken the memory of the state, as after an interruption within a segment."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state) if isinstance(leaf, jax.Array))


class Fault(NamedTuple):
    """First value of a picture that is not finite: a message with the term and the step."""

    message: str
    last_finite: int  # last number of steps at which the picture and all terms were finite; -1 for none


class Diverged(UnavailableError):
    """A term or the picture is not finite; `snapshot` is the last known finite one, or None."""

    def __init__(self, fault: Fault, snapshot: Snapshot | None) -> None:
        """Store the fault and the snapshot."""
        super().__init__(fault.message)
        self.fault, self.snapshot = fault, snapshot


def iterate(
    problem: Problem,
    *,
    resume: Snapshot | None = None,
    until: int | None = None,
    should_stop: Callable[[], object] = never,
    callbacks: Sequence[Callback] = (),
) -> Iterator[Snapshot]:
    """Yield a snapshot after every segment of steps, including every multiple of `problem.save_every`.

    The result, bit for bit, and early stopping do not depend on where a run is resumed.

    Args:
        problem: the problem.
        resume: snapshot to resume from; None for a new run.
        until: number of steps to stop after; None for all steps.
        should_stop: called before each segment; a true value stops the run.
        callbacks: called with the events "compiling", "compiled", "resumed", "steps" and "level off".

    Raises:
        InputError: if the snapshot is not of this problem.
        Diverged: if a term or the picture is not finite; in a batch, the other pictures continue.
        UnavailableError: if the steps of a scale need more memory than available.
    """
    scales, at = problem.schedule, problem.schedule[0]
    sides, image, before, snapshot = np.zeros(0, np.int32), None, None, resume
    history: dict[str, Any] = {}
    memory_plans: dict[int, int] = {}
    compiling: Future[None] | None = None

    ends = np.cumsum([0, *(each.steps for each in scales)])
    pixels = np.cumsum([0.0, *(float(each.steps) * each.width * each.height for each in scales)])

    def send(kind: str, step: int, scale: Scale | None = None, snapshot: Snapshot | None = None, **values: Any) -> None:
        size = (0, 0) if scale is None else (scale.width, scale.height)
        progress = float(np.interp(step, ends, pixels) / pixels[-1])
        notify(callbacks, Event(kind, step, int(ends[-1]), size, progress=progress, **values), snapshot)

    if resume is not None:
        if resume.scale >= len(scales) or resume.scale_step > scales[resume.scale].steps or resume.donated:
            raise InputError(
                f"The snapshot after step {resume.step} is of another problem, or later steps have used its state: "
                "resume from the last snapshot of the same problem."
            )
        at = scales[resume.scale]
        image, sides, memory_plans = resume.image, resume.sides, dict(resume.memory_plans)
        history = dict(resume.history)
        send("resumed", int(ends[resume.scale]) + resume.scale_step)
    with ThreadPoolExecutor(1) as thread:  # compiles each scale but the first while the previous one runs
        for number, scale in enumerate(scales):
            resumed = resume if resume is not None and number == resume.scale else None
            side, taken = max(scale.width, scale.height), resumed.scale_step if resumed else 0
            first = int(ends[number])  # of the schedule, with steps that were skipped
            left = min(scale.steps - taken, scale.steps if until is None else until - len(sides))
            if left <= 0 or resume is not None and number < resume.scale:
                continue
            began = time.perf_counter()
            send("compiling", first + taken, scale)
            if compiling is not None:
                compiling.exception()  # waits; `at` repeats a compilation that failed
            start = None if resumed is None else resumed.start
            if not resumed:
                start = problem.initial_image(scale, None if image is None else problem.unpadded(image, at))
            ready = problem.at(number, start, memory_plans=memory_plans if resumed else problem.memory_plans)
            missing = 0 if resumed else ready.state_bytes
            if memory.peak_of(ready.step, missing=missing) > memory.limit_with_swap():
                raise UnavailableError(shortage(problem, ready, scale, missing=missing))
            state = resumed.state if resumed else problem.begin(start)
            send("compiled", first + taken, scale, seconds=time.perf_counter() - began)
            if ready.memory_plan:
                memory_plans = {**memory_plans, side: ready.memory_plan}
            network, kept = problem.ready(scale), start if problem.keeps_start else None
            if number + 1 < len(scales) and (until is None or until - len(sides) > left):
                compiling = thread.submit(problem.compile_ahead, number + 1)
            while left and not should_stop() and not _stopped(problem, state).all():
                began = time.perf_counter()
                to_save = problem.save_every - len(sides) % problem.save_every if problem.save_every else left
                count = min(ready.segment, left, to_save)
                try:
                    state, rows = ready.step(state, network, ready.targets, problem.placed_objective, np.int32(count))
                    terms: Any = loop.named(np.asarray(rows)[..., :count, :], problem.objective)
                except (MemoryError, RuntimeError) as error:
                    if out_of_memory(error) is None:
                        raise
                    raise UnavailableError(shortage(problem, ready, scale)) from error
                image, at = problem.image_of(state, scale), scale
                if problem.batch_size is None:
                    fault = fault_of(terms, finite=bool(problem.finite(image)), done=len(sides))
                    if fault is not None:
                        raise Diverged(fault, last_finite((before, snapshot), fault))
                stopped = _stopped(problem, state)
                if stopped.all():  # later steps did not change anything
                    count = int(stopped.max()) - taken
                    terms = {name: values[..., :count] for name, values in terms.items()}
                left, taken = left - count, taken + count
                sides = np.append(sides, np.full(count, side, np.int32))
                history = {key: np.concatenate([history.get(key, new[..., :0]), new], -1) for key, new in terms.items()}
                before, snapshot = snapshot, Snapshot(number, taken, state, image, sides, history, memory_plans, kept)
                metrics, seconds = _metrics(terms, problem.objective), time.perf_counter() - began
                send("steps", first + taken, scale, snapshot, metrics=metrics, seconds=seconds)
                yield snapshot
            if should_stop():
                return
            if left:
                send("level off", first + taken + left, scale)


def _stopped(problem: Problem, state: loop.State) -> np.ndarray:
    """Return the step at which a state has stopped, 0 for none; of each image of a batch."""
    none: Any = None  # parameters may be large and are not needed
    few = loop.State(none, none, watch=problem.read(state.watch), stall=problem.read(state.stall))
    return np.asarray(few.stopped)


def picture_of(problem: Problem, snapshot: Snapshot) -> np.ndarray:
    """Return the picture of a snapshot, or all pictures of a batch; called in all processes together."""
    scale = problem.schedule[snapshot.scale]
    return np.asarray(jax.device_get(problem.finish(problem.unpadded(snapshot.image, scale))))


def shortage(problem: Problem, ready: CompiledScale, scale: Scale, *, missing: int = 0) -> str:
    """Return a message with the memory of a scale, including `missing` bytes of its state, and options that fit."""
    side, pixels, optimizer = max(scale.width, scale.height), scale.height * scale.width, problem.optimizer
    need, most, base = memory.peak_of(ready.step, missing=missing), memory.limit(), memory.in_use()
    free = max(0, most - base)
    cures = [f"--size {max(16, int(side * math.sqrt(free / max(1, need - base))) // 16 * 16)}"]
    if problem.count > 1:
        cures.insert(0, f"--batch-size {max(1, int(problem.count * free / max(1, need - base)))}")
    if isinstance(optimizer, LBFGS) and ready.state_bytes:
        pairs = optimizer.pairs(pixels)
        fewer = pairs - math.ceil((need - most) / (ready.state_bytes / (pairs + 1)))
        cures += [f"--lbfgs-history {fewer}"] if fewer >= LEAST_PAIRS else []
    if problem.count > 1 and isinstance(problem.objective, Objective):
        cures += [] if ready.memory_plan or getattr(problem.network, "remat", ()) else ["--remat"]
    if problem.layout is not None and not problem.spans_processes:
        cures.append("--devices 1")
    takes = f"{side} pixels take {need / 2**30:.3g} GiB, but only {most / 2**30:.3g} GiB are available"
    return f"{takes}: use {' or '.join(cures)}."


def is_complete(problem: Problem, snapshot: Snapshot) -> bool:
    """Return whether a run is complete at a snapshot."""
    scales = problem.schedule
    last = snapshot.scale == len(scales) - 1
    return last and (snapshot.scale_step == scales[-1].steps or bool(_stopped(problem, snapshot.state).all()))


def lbfgs_messages(problem: Problem, snapshot: Snapshot, *, before: int) -> list[tuple[int, str]]:
    """Return messages about restarts and stops of lbfgs after step `before`, each with its index in the batch."""
    if snapshot.state.stall is None:
        return []
    stall, start = problem.read(snapshot.state.stall), snapshot.step - snapshot.scale_step
    restarted, stopped = (start + np.atleast_1d(step) for step in (stall.restarted, stall.stopped))
    messages, side = [], snapshot.sides[-1]
    without = f"lbfgs made no progress in {getattr(problem.optimizer, 'patience', 0)} steps at {side} pixels"
    for index in map(int, np.flatnonzero(np.isfinite(np.atleast_2d(snapshot.history["total"])).all(axis=1))):
        if restarted[index] > max(before, start):
            messages.append((index, f"{without}: its history was restarted at step {restarted[index]}"))
        if stopped[index] > max(before, start):
            cure = "if the picture is not finished, lower --learning-rate or try --optimizer adam."
            messages.append((index, f"{without} after its restart, so it stopped at step {stopped[index]}: {cure}"))
    return messages


def fault_of(history: Mapping[str, np.ndarray], *, finite: bool, done: int = 0) -> Fault | None:
    """Return the first value of a picture that is not finite, or None; `history` begins after `done` steps."""
    finite_of = {name: np.isfinite(values) for name, values in history.items()}
    bad = [(int(np.argmin(of_term)), name) for name, of_term in finite_of.items() if not of_term.all()]
    if bad:
        step, name = min(bad)  # from 0; its terms are of the picture after as many steps
        return Fault(f"{name} is {history[name][step]} at step {done + step + 1}", done + step - 1)
    if not finite:  # after the last step, which its terms do not show
        steps = done + len(history["total"])
        return Fault(f"the picture is not finite after step {steps}", steps - 1)
    return None


def last_finite(snapshots: Iterable[Snapshot | None], fault: Fault) -> Snapshot | None:
    """Return the last snapshot before a fault."""
    before = (each for each in snapshots if each and each.step <= fault.last_finite)
    return max(before, key=lambda each: each.step, default=None)


def repeat(
    problem: Problem, *, until: int, should_stop: Callable[[], object], callbacks: Sequence[Callback] = ()
) -> Snapshot | None:
    """Repeat a run up to `until` steps and return its snapshot; None if there is none, or if it was stopped."""
    if until < 1:
        return None
    notify(callbacks, Event("resumed", total_steps=problem.steps))
    snapshots = deque(iterate(problem, until=until, should_stop=should_stop, callbacks=callbacks), maxlen=1)
    return snapshots[0] if snapshots and snapshots[0].step == until else None


def _metrics(history: Mapping[str, np.ndarray], objective: AnyObjective) -> dict[str, float]:
    """Return the total of the last step and the weighted contribution of each kind of term, as means over a batch."""
    last: Any = {name: values[..., -1] for name, values in history.items()}
    if not isinstance(objective, Objective):
        return {name: float(np.mean(value)) for name, value in last.items()}
    number: Any = jax.tree.map(np.asarray, objective)
    with np.errstate(all="ignore"):  # of diverged pictures
        metrics = {
            "total": last["total"],
            "content": sum(weight * last[f"content/{layer}"] for layer, weight in number.content.items()),
            "style": sum(weight * last[f"style/{layer}"] for layer, weight in number.style.items()),
        }
        metrics |= {"tv": number.tv * last["tv"]} if np.any(number.tv) else {}
        return {name: float(np.mean(value)) for name, value in metrics.items()}

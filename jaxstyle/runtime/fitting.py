"""`fit`: runs a problem to its end, until it converges, or until it is asked to stop.

It prints nothing, handles no signals and changes no global state, so that several runs may share a process in threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxstyle.errors import UnavailableError, check_whole
from jaxstyle.runtime.callbacks import Callback, Event, never, notify
from jaxstyle.runtime.checkpoint import EVERY, RunCheckpoints, identity_of, locked
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.runner import CURE, Diverged, Snapshot, is_complete, iterate, lbfgs_messages, picture_of, repeat


class Result(NamedTuple):
    """Result of `fit`.

    Attributes:
        image: picture after the last step, `[H, W, 3]` in [0, 1], or `[N, H, W, 3]` of a batch; None before a step.
        history: every term at every step, `[..., steps]`.
        snapshot: the last snapshot, to resume from; None before a step.
        steps: number of steps.
        seconds: duration of the steps of this call, without compilation.
        stop_reason: "done" after all steps, "converged" if every scale that ended early made no more progress,
            "stopped" if asked to stop before, or "diverged"; the result is then the last finite one.
        message: reason of the divergence.
        resumed_at: number of steps before this call, 0 for a new run.
    """

    image: np.ndarray | None
    history: Mapping[str, np.ndarray]
    snapshot: Snapshot | None
    steps: int
    seconds: float
    stop_reason: Literal["done", "stopped", "converged", "diverged"]
    message: str = ""
    resumed_at: int = 0

    @property
    def totals(self) -> str:
        """The first and the last total, as text; of the last pass if the objective of each pass differs."""
        total, snapshot, of_pass = self.history["total"].reshape(-1, self.steps)[-1], self.snapshot, ""
        if snapshot is not None and snapshot.start is not None and snapshot.scale_step < self.steps:
            total = total[-snapshot.scale_step :]
            of_pass = f" in the {len(total)} steps of the last pass"
        return f"total {total[0]:.4g} to {total[-1]:.4g}{of_pass}"


def fit(
    problem: Problem,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | RunCheckpoints | None = None,
    every: int = EVERY,
    resume: Snapshot | None = None,
    should_stop: Callable[[], object] = never,
    until: int | None = None,
) -> Result:
    """Run the steps of a problem and return the picture.

    Two calls in two threads have the results of two calls in sequence. A `KeyboardInterrupt` after the first snapshot
    ends the run as `should_stop` does, but with the snapshot before the interrupted steps.

    Args:
        problem: of `make_problem`.
        callbacks: called with every event.
        checkpoint: folder of checkpoints; the run is resumed from the last one of the same problem, and saves others.
        every: number of steps between checkpoints.
        resume: snapshot of the same problem to resume from; its state is donated.
        should_stop: called before each segment of a few steps, such as `threading.Event().is_set`.
        until: number of steps to stop after; None for all steps.

    Raises:
        InputError: if another process uses the folder of checkpoints, or it has checkpoints of another problem.
        UnavailableError: if the steps of a scale need more memory than available, or if the run has diverged without a
            finite picture.

    Example:
        >>> fit(make_problem(params, content, style, steps=100)).stop_reason  # doctest: +SKIP
        'done'
    """
    check_whole("every", every)
    if until is not None:
        check_whole("until", until)
    checkpoints = checkpoint if isinstance(checkpoint, RunCheckpoints) else None
    if checkpoint is not None and checkpoints is None:
        checkpoints = RunCheckpoints(Path(str(checkpoint)), problem, identity_of(problem), every=every)
    with nullcontext() if checkpoints is None else locked(checkpoints.folder):
        if checkpoints is not None and resume is None:
            resume = checkpoints.load(callbacks)
        snapshot, message, interrupted = resume, "", False
        before = since = 0 if resume is None else resume.step
        compiling, began = [0.0], time.perf_counter()

        def count(event: Event, _: Snapshot | None) -> None:
            compiling[0] += event.seconds if event.kind == "compiled" else 0.0

        callbacks = (count, *callbacks)
        options: dict[str, Any] = {"callbacks": callbacks, "should_stop": should_stop}
        try:
            for snapshot in iterate(problem, resume=resume, until=until, **options):
                for _, text in lbfgs_messages(problem, snapshot, before=before):
                    notify(callbacks, Event("warning", message=text))
                if checkpoints is not None and checkpoints.due(snapshot.step, before=before):
                    checkpoints.save(snapshot, callbacks)
                before = snapshot.step
        except Diverged as error:
            message = error.fault.message
            snapshot = error.snapshot or repeat(problem, until=error.fault.last_finite, **options)
            if snapshot is None:
                if should_stop():
                    return Result(None, {}, None, 0, 0.0, "stopped", message)
                raise UnavailableError(f"{message}, so there is no picture: {CURE}") from error
        except KeyboardInterrupt:
            if snapshot is None or problem.spans_processes:  # jax then ends the other processes too
                raise
            interrupted = True
        seconds = time.perf_counter() - began - compiling[0]
        if snapshot is None:
            return Result(None, {}, None, 0, seconds, "stopped")
        if checkpoints is not None and not message and before > since and not snapshot.donated:
            checkpoints.save(snapshot, callbacks)
        if message:
            reason = "diverged"
        elif snapshot.step == (problem.steps if until is None else until):
            reason = "done"
        else:
            reason = "stopped" if interrupted or not is_complete(problem, snapshot) else "converged"
        picture = picture_of(problem, snapshot)
        return Result(picture, snapshot.history, snapshot, snapshot.step, seconds, reason, message, since)

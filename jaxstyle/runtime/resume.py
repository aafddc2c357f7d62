"""Checkpoints of one run: saves snapshots at intervals, and resumes the same problem from the last one."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxstyle.distributed.processes import by_leader
from jaxstyle.errors import InputError, UnavailableError, excerpt
from jaxstyle.runtime import checkpoint_folder
from jaxstyle.runtime.callbacks import Callback, Event, message, notify
from jaxstyle.runtime.placement import cropped, padded_shapes
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.record import differences, settings_of
from jaxstyle.runtime.runner import Snapshot

if TYPE_CHECKING:
    from jaxstyle.runtime.checkpoint import CheckpointStore

EVERY = 50  # steps between checkpoints
VERSIONS = "versions."  # prefix of versions of packages in an identity


@dataclass(frozen=True)
class RunCheckpoints:
    """Checkpoints of a problem, in its layout on devices, after `every` so many steps.

    Only a run whose `identity` (JSON data, such as of `identity_of`) is equal can be resumed, except for versions of
    packages. `batch` are the numbers of the pictures of a batch of a sweep.
    """

    folder: Path
    problem: Problem
    identity: Mapping[str, Any]
    batch: Sequence[int] = ()
    every: int = EVERY

    @property
    def store(self) -> CheckpointStore:
        """The checkpoints of any run in this folder."""
        from jaxstyle.runtime.checkpoint import CheckpointStore  # Orbax is slow to import

        return CheckpointStore(self.folder)

    def load(self, callbacks: Sequence[Callback] = ()) -> Snapshot | None:
        """Return the last snapshot, or None; `InputError` if the folder has checkpoints of another problem."""
        found = self.store.latest(self._like, lambda text: message(callbacks, text, kind="warning"))
        if found is None:
            return None
        facts, arrays = found
        for name, before, now in self._differences(facts):  # of versions; of others, `_like` has raised an error
            text = f"{self.folder}: {name} was {before} and is {now}: the bytes may differ."
            message(callbacks, text, kind="warning")
        message(callbacks, f"{self.folder}: resuming after step {len(arrays['sides'])}")
        problem, number = self.problem, facts["scale"]
        scale = problem.schedule[number]
        names = problem.objective.term_names  # in the order of a run; checkpoints are sorted
        history = {name: np.asarray(arrays["history"][name]) for name in names}
        state = problem.resumed(cropped(arrays["state"], problem.shape(scale)))  # devices may have changed
        image, memory_plans = problem.image_of(state, scale), _memory_plans(facts)
        start = np.asarray(arrays["start"]) if "start" in arrays else None
        sides = np.asarray(arrays["sides"])
        return Snapshot(number, facts["scale_step"], state, image, sides, history, memory_plans, start)

    def due(self, step: int, *, before: int) -> bool:
        """Return whether to save a checkpoint after `step` steps, given the number `before` at the last snapshot."""
        return step // self.every > before // self.every

    def save(self, snapshot: Snapshot, callbacks: Sequence[Callback] = ()) -> None:
        """Save a snapshot and send an event "saved", or "failed" if it cannot be written."""
        layout = self.problem.layout
        arrays = {"state": snapshot.state, "sides": snapshot.sides, "history": dict(snapshot.history)}
        if snapshot.start is not None:
            arrays["start"] = np.asarray(snapshot.start)
        facts = {
            "run": dict(self.identity),
            "scale": snapshot.scale,
            "scale_step": snapshot.scale_step,
            "step": snapshot.step,
            "batch": list(self.batch),
            "layout": None if layout is None else [layout.axis, layout.mesh.size],
            "memory_plans": {str(side): plan for side, plan in snapshot.memory_plans.items()},
        }
        try:
            self.store.save(snapshot.step, arrays, facts)
        except (InputError, UnavailableError) as error:
            message(callbacks, str(error), kind="failed")
        else:
            notify(callbacks, Event("saved", snapshot.step, self.problem.steps, message=str(self.folder)))

    def interrupted_batch(self) -> tuple[int, ...]:
        """Return the numbers of the batch at which the same sweep was stopped; empty without one."""
        facts = self.store.facts()
        if facts is None:
            return ()
        self._compare(facts)
        batch: Any = facts.get("batch")
        valid = isinstance(batch, list) and all(type(number) is int for number in batch)
        return tuple(batch) if valid else ()

    def _like(self, facts: dict[str, Any]) -> Any:
        """Return the shapes of the arrays of a checkpoint; check that its facts match this problem."""
        self._compare(facts)
        problem, step = self.problem, facts["step"]
        scale = problem.schedule[range(len(problem.schedule))[facts["scale"]]]
        if not (0 < facts["scale_step"] <= scale.steps and facts["scale_step"] <= step <= problem.steps):
            raise ValueError("a checkpoint is at no step of this run")
        if facts["batch"] != list(self.batch):
            raise ValueError("a checkpoint is of another batch")
        if any(type(plan) is not int for plan in _memory_plans(facts).values()):
            raise ValueError("a checkpoint has memory plans that are no numbers of pixels")
        axes = () if problem.batch_size is None else (problem.batch_size,)
        history = dict.fromkeys(problem.objective.term_names, jax.ShapeDtypeStruct((*axes, step), np.float32))
        state = problem.shape(scale)
        if facts["layout"] is not None:
            axis, count = facts["layout"]
            state = padded_shapes(state, axis=axis, count=operator.index(count))
        found = {"state": state, "sides": jax.ShapeDtypeStruct((step,), np.int32), "history": history}
        return found | ({"start": problem.image_shape(scale)} if problem.keeps_start else {})

    def _compare(self, facts: dict[str, Any]) -> None:
        """Raise `InputError` if a checkpoint is of another problem."""
        for name, theirs, own in self._differences(facts):
            if not name.startswith(VERSIONS):
                raise InputError(
                    f"{self.folder} has a checkpoint of another run, whose {name} is {theirs} and not {own}: name "
                    "another folder, or repeat that run's command."
                )

    def _differences(self, facts: dict[str, Any]) -> list[tuple[str, ...]]:
        found = differences(facts["run"], self.identity)
        return [tuple(excerpt(each, most=60) for each in (name, repr(one), repr(two))) for name, one, two in found]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in process 0; raise `InputError` in all processes if another run holds it."""
    with ExitStack() as stack:
        by_leader(lambda: stack.enter_context(checkpoint_folder.locked(folder)))
        yield


def identity_of(problem: Problem) -> dict[str, Any]:
    """Return the identity of a problem: its options, and a hash of its arrays."""
    start = problem.start if isinstance(problem.start, str) else ""
    keys = [jax.random.key_data(key) for key in (problem.key, problem.noise) if key is not None]
    names = ("params", "picture", "content", "styles", "objective", "style_weights", "content_masks", "style_masks")
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves([*(getattr(problem, name) for name in names), keys, None if start else problem.start]):
        array = np.asarray(leaf)
        digest.update(repr((array.shape, array.dtype.str)).encode() + array.tobytes())
    facts = {"settings": settings_of(problem), "start": start, "steps": problem.steps}
    return facts | {"batch_size": problem.batch_size, "arrays": digest.hexdigest()}


def _memory_plans(facts: Mapping[str, Any]) -> dict[int, int]:
    return {int(side): plan for side, plan in facts["memory_plans"].items()}

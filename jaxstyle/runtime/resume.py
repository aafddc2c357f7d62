"""Checkpoints of a job: saves snapshots of a run at intervals, and resumes it with the same command."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.outputs import EVERY, Outputs
from jaxstyle.runtime.placement import cropped, longer
from jaxstyle.runtime.plain_data import differences, plain
from jaxstyle.runtime.problem import Work
from jaxstyle.runtime.record import Job, Record
from jaxstyle.runtime.runner import Place

NOT_COMPARED = (
    "device",
    "weights",
    "cuts",
    "steps",
    "trace",
    "lanes",
    "lane",
    "devices",
)  # may differ, or follow from others
VERSIONS = "versions."  # prefix of versions of packages in the facts


@dataclass(frozen=True)
class Resuming:
    """Checkpoints of a job in the folder of `saving`, if any."""

    saving: Outputs
    job: Job

    @property
    def folder(self) -> Path | None:
        """The folder of the checkpoints."""
        return self.saving.checkpoint

    def place(self, tell: Callable[[str], None]) -> Place | None:
        """Return the last snapshot of the same job, or None without a checkpoint.

        Raises:
            InputError: if the folder has checkpoints of another job.
        """
        if self.folder is None:
            return None
        from jaxstyle.runtime.checkpoint import Checkpoints  # Orbax is slow to import

        found = Checkpoints(self.folder).latest(self._like, tell)
        if found is None:
            return None
        facts, arrays = found
        for name, theirs, own in differences(facts["run"], identity(self.job.record)):
            if name.startswith(VERSIONS):
                shown = [excerpt(repr(each), most=60) for each in (theirs, own)]
                tell(f"{self.folder}: {excerpt(name, most=60)} was {shown[0]} and is {shown[1]}: the bytes may differ.")
        tell(f"{self.folder}: resuming after step {len(arrays['sides'])}")
        sides, trace = np.asarray(arrays["sides"]), {name: np.asarray(own) for name, own in arrays["trace"].items()}
        work, number = self.job.work, facts["scale"]
        scale = work.scales()[number]
        state = work.resumed(cropped(arrays["state"], work.shape(scale)))  # the number of devices may have changed
        return Place(number, facts["taken"], state, work.image_of(state, scale), sides, trace, _cuts(facts["cuts"]))

    def lanes(self) -> tuple[int, ...]:
        """Return the numbers of the batch at which the same sweep was stopped; empty without one."""
        if self.folder is None:
            return ()
        from jaxstyle.runtime.checkpoint import Checkpoints

        facts = Checkpoints(self.folder).facts()
        if facts is None:
            return ()
        self._compare(facts)
        lanes: Any = facts.get("lanes")
        known = isinstance(lanes, list) and all(type(lane) is int for lane in lanes)
        return tuple(lanes) if known else ()

    def forget(self) -> None:
        """Remove all checkpoints."""
        if self.folder is not None:
            from jaxstyle.runtime.checkpoint import Checkpoints

            Checkpoints(self.folder).clear()

    def due(self, steps: int, *, before: int) -> bool:
        """Return whether to save a checkpoint after `steps` steps, given the number `before` at the last snapshot."""
        every = self.saving.every or EVERY
        return self.folder is not None and steps // every > before // every

    def save(self, place: Place) -> None:
        """Save a snapshot.

        Raises:
            UnavailableError: if it cannot be written.
        """
        if self.folder is None:
            return
        from jaxstyle.runtime.checkpoint import Checkpoints

        arrays = {"state": place.state, "sides": place.sides, "trace": dict(place.trace)}
        facts = {"run": identity(self.job.record), "scale": place.scale, "taken": place.taken, "steps": place.steps}
        layout = self.job.work.layout
        facts |= {"layout": None if layout is None else [layout.axis, layout.mesh.size]}
        facts |= {"cuts": {str(side): cut for side, cut in place.cuts.items()}, "lanes": list(self.job.record.lanes)}
        Checkpoints(self.folder).save(place.steps, arrays, facts)

    def _like(self, facts: dict[str, Any]) -> Any:
        """Return the shapes of the arrays of a checkpoint; check that its facts match this job."""
        self._compare(facts)
        work, steps = self.job.work, facts["steps"]
        scale = work.scales()[range(len(work.scales()))[facts["scale"]]]
        if not (0 < facts["taken"] <= scale.steps and facts["taken"] <= steps <= work.steps):
            raise ValueError("a checkpoint is at no step of this run")
        if facts["lanes"] != list(self.job.record.lanes):
            raise ValueError("a checkpoint is of other lanes")
        if any(type(cut) is not int for cut in _cuts(facts["cuts"]).values()):
            raise ValueError("a checkpoint has cuts that are no numbers of pixels")
        lanes = () if work.lanes is None else (work.lanes,)
        trace = dict.fromkeys(_terms(work), jax.ShapeDtypeStruct((*lanes, steps), np.float32))
        state = work.shape(scale)
        if facts.get("layout") is not None:  # older checkpoints have none
            axis, count = facts["layout"]
            state = longer(state, axis=axis, count=operator.index(count))
        return {"state": state, "sides": jax.ShapeDtypeStruct((steps,), np.int32), "trace": trace}

    def _compare(self, facts: dict[str, Any]) -> None:
        """Raise `InputError` if a checkpoint is of another job."""
        for name, theirs, own in differences(facts["run"], identity(self.job.record)):
            if name.startswith(VERSIONS):
                continue  # `place` warns of them
            shown = [excerpt(repr(each), most=60) for each in (theirs, own)]
            raise InputError(
                f"{self.folder} has a checkpoint of another run, whose {excerpt(name, most=60)} is {shown[0]} and not "
                f"{shown[1]}: name another folder, or repeat that run's command."
            )


def facts_of(job: Job, saving: Outputs) -> dict[str, Any]:
    """Return the facts that must be equal in all processes of a job."""
    options = {name: value for name, value in plain(saving, paths={}).items() if name != "quiet"}
    return {**identity(job.record), "saving": options}


def identity(record: Record) -> dict[str, Any]:
    """Return the facts of a record that must be equal to resume a run; names of files may differ."""
    whole: dict[str, Any] = plain(record, paths={})
    same = {name: value for name, value in whole.items() if name not in NOT_COMPARED}
    network = {"name": record.network.name, "sha256": record.network.sha256}
    return same | {"inputs": [each.sha256 for each in record.inputs], "network": network}


def _cuts(facts: dict[str, int]) -> dict[int, int]:
    """Return memory plans from JSON."""
    return {int(side): cut for side, cut in facts.items()}


def _terms(work: Work) -> list[str]:
    """Return the names of terms in a history."""
    config = work.config
    names = [f"content/{layer}" for layer in config.content_layers]
    return [*names, *(f"style/{layer}" for layer in config.style_layers), "tv", "total", "bounds"]

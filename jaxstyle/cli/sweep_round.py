"""Some lanes of a sweep, painted at a time: each saved when all of them are finished, or as it was when it diverged."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import image
from jaxstyle.cli.progress import Reporter, Steps
from jaxstyle.cli.recording import Job, finished, numbers
from jaxstyle.cli.report import Entry, entry_of, thinned, write_entry
from jaxstyle.cli.resuming import Resuming
from jaxstyle.cli.saving import attempt, numbered, rows, write_log
from jaxstyle.cli.sweep_folder import SweepFolder
from jaxstyle.cli.walk import CURE, Place, fault_of, is_whole, news_of, walk
from jaxstyle.files import write_text
from jaxstyle.record import Record, text


class Sound(NamedTuple):
    """The last image of every lane whose terms are finite, and after how many steps it was there."""

    image: jax.Array
    steps: np.ndarray


@dataclass(frozen=True)
class SweepRound:
    """The job of some lanes, whose numbers its record has, and the folder that they go to."""

    job: Job
    folder: SweepFolder

    def paint(self, shown: Steps, reporter: Reporter, asked: Callable[[], int]) -> int:
        """Paint the lanes and save them, or where they were when it was asked to stop; return 1 if anything failed."""
        job, saving = self.job, self.folder.saving
        resuming = Resuming(saving, job)
        place = resumed = resuming.place(tell=reporter.console.print)
        before, faults, last, sound = 0 if place is None else place.steps, 0, place, None
        for place in walk(job.work, shown, save_every=saving.save_every, place=resumed, halted=asked):
            sound, last = _sound(place, last, sound), place
            for lane, said in news_of(job.work, place, before=before):
                label = self.folder.lanes[job.record.lanes[lane]].label
                reporter.console.print(f"{label}: {said}", style="yellow")
            if saving.due(place.steps, steps=job.work.steps):
                faults |= attempt(partial(self._save_on_the_way, place))
            if resuming.due(place.steps, before=before):
                faults |= attempt(partial(resuming.save, place))
            before = place.steps
        if place is None:
            return faults
        if asked() and not is_whole(job.work, place):
            return faults | attempt(partial(resuming.save, place))
        pictures = jax.device_get(job.work.finish(place.image))
        earlier = pictures if sound is None else jax.device_get(job.work.finish(sound.image))
        for lane in range(len(job.record.lanes)):
            steps = 0 if sound is None else int(sound.steps[lane])
            faults |= self._finish(place, lane, pictures[lane], earlier[lane], steps, reporter)
        resuming.forget()
        return faults

    def _finish(
        self, place: Place, lane: int, rgb: np.ndarray, sound: np.ndarray, steps: int, reporter: Reporter
    ) -> int:
        """Save a lane's picture and enter it; of one that has diverged save the last sound one, and return 1.

        That one is as it was after so many steps.
        """
        i = self.job.record.lanes[lane]
        path, lane_of = self.folder.picture(i), self.folder.lanes[i]
        own = {term: found[lane] for term, found in place.trace.items()}
        if fault := fault_of(own, rgb):
            if steps:
                self._save(path, sound, self._told(place, lane, steps))
            kept = f"{path} is as it was after step {steps}" if steps else "there is no picture"
            reporter.console.print(f"{lane_of.label}: {fault}, so {kept}: {CURE}", style="yellow")
            return 1
        told = self._told(place, lane, place.steps)
        self._save(path, rgb, told)
        settings = dict(lane_of.settings)
        if self.folder.saving.log is not None:
            names = {"picture": path.name, **settings}
            write_log(self.folder.saving.log, [names | row for row in rows(place.sides, own)], mode="a")
        terms, curve = {term: float(values[-1]) for term, values in own.items()}, thinned(own["total"])
        digest = self.folder.digests[i]
        write_entry(entry_of(path), Entry(path.name, lane_of.label, settings, terms, curve, digest, told))
        return 0

    def _save_on_the_way(self, place: Place) -> None:
        pictures = jax.device_get(self.job.work.finish(place.image))
        for lane, i in enumerate(self.job.record.lanes):
            if not fault_of({term: found[lane] for term, found in place.trace.items()}, pictures[lane]):
                path = numbered(self.folder.picture(i), place.steps, steps=self.job.work.steps)
                self._save(path, pictures[lane], self._told(place, lane, place.steps))

    def _told(self, place: Place, lane: int, steps: int) -> Record:
        """Return the record of one lane's picture as it was after so many steps."""
        trace = {term: found[lane, :steps] for term, found in place.trace.items()}
        own = finished(self.job.record, place._replace(sides=place.sides[:steps], trace=trace))
        return replace(own, lane=lane, weights=numbers(self.folder.weights[own.lanes[lane]]))

    def _save(self, path: Path, rgb: np.ndarray, told: Record) -> None:
        image.save(path, rgb, alpha=self.job.alpha, bits=self.folder.saving.bits, description=text(told))
        if self.folder.saving.record:  # of a lane that is finished its entry follows
            write_text(path.with_suffix(".json"), text(told, indent=1) + "\n")


def _sound(place: Place, last: Place | None, before: Sound | None) -> Sound | None:
    """Return the last images whose terms are finite, which the steps up to `place` have found of those at `last`."""
    if last is None:
        return None
    flat = jax.device_get(last.image).reshape(len(last.image), -1)
    fine = np.isfinite(flat).all(-1)
    for found in place.trace.values():
        fine &= np.isfinite(found[:, : last.steps + 1]).all(-1)
    steps = np.where(fine, last.steps, 0 if before is None else before.steps)
    if before is None or fine.all():
        return Sound(last.image, steps)
    return Sound(jnp.where(fine[:, None, None, None], last.image, before.image), steps)

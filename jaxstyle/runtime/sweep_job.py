"""The pictures of a sweep: their folder, and optimization in batches.

A batch is saved when it is finished; a diverged picture is saved as of its last finite step.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from jaxstyle.config import LossWeights
from jaxstyle.distributed.processes import of_leader
from jaxstyle.errors import InputError
from jaxstyle.files import write_text
from jaxstyle.images.load import load_image
from jaxstyle.images.save import check_output, save_image
from jaxstyle.runtime.callbacks import Messages, Progress
from jaxstyle.runtime.outputs import Outputs, attempt, numbered, read_log, rows, write_log
from jaxstyle.runtime.record import Job, Record, finished, numbers, text
from jaxstyle.runtime.resume import Resuming
from jaxstyle.runtime.runner import (
    CURE,
    Fault,
    Place,
    fault_of,
    is_whole,
    last_sound,
    news_of,
    picture_of,
    walk,
    walked_again,
)
from jaxstyle.runtime.sweep_grid import Lane
from jaxstyle.runtime.sweep_report import Entry, entry_of, read_entry, thinned, write_entry


@dataclass(frozen=True)
class SweepFolder:
    """Folder of a sweep, and the settings, weights, seed and hash of each picture."""

    folder: Path
    lanes: Sequence[Lane]
    weights: Sequence[LossWeights]
    seeds: Sequence[int]
    saving: Outputs
    digests: Sequence[str] = ()
    max_pixels: int | None = None

    def check(self, *, steps: int, inputs: Sequence[Path]) -> None:
        """Check before a long run that all outputs can be written."""
        pictures = [self.picture(i) for i in range(len(self.lanes))]
        for path in (self.folder / "sweep.csv", self.folder / "index.html", *map(entry_of, pictures)):
            if path.is_dir():
                raise InputError(f"{path} is a folder, where the sweep writes a file: name another folder.")
        for path in (self.folder / "grid.png", *pictures):
            check_output(path, bits=self.saving.bits, inputs=inputs)
        self.saving.check(pictures, steps=steps, inputs=inputs)
        if self.saving.log is not None and self.saving.log.absolute() == (self.folder / "sweep.csv").absolute():
            raise InputError(f"The log {self.saving.log} is where the sweep's table goes: name another file.")

    def picture(self, i: int) -> Path:
        """Return the path of a picture."""
        return self.folder / f"{self.lanes[i].name}.png"

    def finished(self) -> list[Entry]:
        """Return the entries of all finished pictures."""
        return [entry for i in range(len(self.lanes)) if (entry := self.entry(i)) is not None]

    def keep_log(self) -> None:
        """Remove unfinished pictures from the log."""
        if self.saving.log is None or not self.saving.log.exists():
            return
        finished = {entry.picture for entry in self.finished()}
        write_log(self.saving.log, [row for row in read_log(self.saving.log) if row.get("picture") in finished])

    def entry(self, i: int) -> Entry | None:
        """Return the entry of a picture if it is finished and has the same inputs and options; else None."""
        found = read_entry(entry_of(self.picture(i)))
        there = found is not None and found.digest == self.digests[i] and self.picture(i).is_file()
        return found if there else None

    def is_whole(self, i: int) -> bool:
        """Return whether a picture is finished and readable; remove the entry of a damaged picture."""
        if self.entry(i) is None:
            return False
        try:
            load_image(self.picture(i), max_pixels=self.max_pixels)
        except InputError:
            entry_of(self.picture(i)).unlink(missing_ok=True)  # another process may have removed it
            return False
        return True


@dataclass(frozen=True)
class SweepRound:
    """The job of one batch, whose numbers are in its record, and the folder of the sweep."""

    job: Job
    folder: SweepFolder

    def paint(self, shown: Progress, reporter: Messages, asked: Callable[[], int]) -> int:
        """Optimize and save the batch, or its last snapshot when asked to stop; return 1 if anything failed."""
        attempted = partial(attempt, fail=reporter.fail)
        work, saving, resuming = self.job.work, self.folder.saving, Resuming(self.folder.saving, self.job)
        place = resumed = resuming.place(tell=reporter.tell)
        lost = {} if place is None else self._faults(place)
        missing = [lane for lane in lost if not self._path(lane).is_file()]
        late = {lane: lost[lane] for lane in (of_leader(missing) if work.spans else missing)}
        before, faults, recent = 0 if place is None else place.steps, int(bool(lost)), (None, place)
        for place in walk(work, shown, place=resumed, halted=asked):
            for lane, fault in self._faults(place).items():
                if lane not in lost:
                    lost[lane], faults, sound = fault, 1, last_sound(recent, fault)
                    if sound is None:
                        late[lane] = fault  # repeated after this run, to save memory
                    else:
                        attempted(partial(self._rescue, lane, fault, sound, reporter))
            for lane, said in news_of(work, place, before=before):
                reporter.warn(f"{self._label(lane)}: {said}")
            if saving.due(place.steps, steps=work.steps):
                faults |= attempted(partial(self._save_all, place, lost, on_the_way=True))
            if resuming.due(place.steps, before=before):
                faults |= attempted(partial(resuming.save, place))
            before, recent = place.steps, (recent[1], place)
        if place is None:
            return faults
        if asked() and not is_whole(work, place):
            return faults | attempted(partial(resuming.save, place)) | attempted(partial(self._save_all, place, lost))
        self._save_all(place, lost)
        self._enter(place, [lane for lane in range(len(self.job.record.lanes)) if lane not in lost])
        for lane, fault in late.items():
            sound = walked_again(work, shown, asked, until=fault.sound)
            attempted(partial(self._rescue, lane, fault, sound, reporter))
        resuming.forget()
        return faults

    def _path(self, lane: int) -> Path:
        return self.folder.picture(self.job.record.lanes[lane])

    def _label(self, lane: int) -> str:
        return self.folder.lanes[self.job.record.lanes[lane]].label

    def _faults(self, place: Place) -> dict[int, Fault]:
        """Return the faults of diverged pictures by index."""
        finite = self.job.work.finite(place.image)
        found = [fault_of(_own(place, lane), finite=finite[lane]) for lane in range(len(finite))]
        return {lane: fault for lane, fault in enumerate(found) if fault is not None}

    def _rescue(self, lane: int, fault: Fault, place: Place | None, reporter: Messages) -> None:
        """Save a diverged picture as of an earlier snapshot, if there is one, and show a warning."""
        kept = "there is no picture"
        if place is not None:
            kept = f"{self._path(lane)} is as it was after step {place.steps}"
            rgb = picture_of(self.job.work, place)[lane]
            if self.job.work.leads:
                self._save(self._path(lane), rgb, place, lane)
        reporter.warn(f"{self._label(lane)}: {fault.said}, so {kept}: {CURE}")

    def _save_all(self, place: Place, lost: Collection[int], *, on_the_way: bool = False) -> None:
        """Save all pictures of a snapshot except diverged ones."""
        pictures = picture_of(self.job.work, place)
        for lane, rgb in enumerate(pictures if self.job.work.leads else ()):
            if lane not in lost:
                path = self._path(lane)
                self._save(
                    numbered(path, place.steps, steps=self.job.work.steps) if on_the_way else path, rgb, place, lane
                )

    def _enter(self, place: Place, lanes: Sequence[int]) -> None:
        """Append the steps of saved pictures to the log, and then write their entries."""
        if not self.job.work.leads:
            return
        of = {lane: self.folder.lanes[self.job.record.lanes[lane]] for lane in lanes}
        if self.folder.saving.log is not None:
            names = {lane: {"picture": self._path(lane).name, **of[lane].settings} for lane in lanes}
            found = [names[lane] | row for lane in lanes for row in rows(place.sides, _own(place, lane))]
            write_log(self.folder.saving.log, found, mode="a")
        for lane in lanes:
            path, own = self._path(lane), _own(place, lane)
            terms, curve = {term: float(values[-1]) for term, values in own.items()}, thinned(own["total"].tolist())
            told, digest = self._told(place, lane), self.folder.digests[self.job.record.lanes[lane]]
            settings = dict(of[lane].settings)
            write_entry(entry_of(path), Entry(path.name, of[lane].label, settings, terms, curve, digest, told))

    def _told(self, place: Place, lane: int) -> Record:
        """Return the record of one picture at a snapshot."""
        own = finished(self.job.record, place._replace(trace=_own(place, lane)))
        return replace(own, lane=lane, weights=numbers(self.folder.weights[own.lanes[lane]]))

    def _save(self, path: Path, rgb: np.ndarray, place: Place, lane: int) -> None:
        told = self._told(place, lane)
        save_image(path, rgb, alpha=self.job.alpha, bits=self.folder.saving.bits, description=text(told))
        if self.folder.saving.record:  # the entry of a finished picture replaces it
            write_text(path.with_suffix(".json"), text(told, indent=1) + "\n")


def _own(place: Place, lane: int) -> dict[str, np.ndarray]:
    """Return the history of one picture of a batch."""
    return {term: found[lane] for term, found in place.trace.items()}

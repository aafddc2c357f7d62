"""One run on the command line, with progress bar, interruption, checkpoints and saving."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jaxstyle.cli.dry_run import rehearse
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.saving import Saving
from jaxstyle.cli.signals import Interrupted, asked, status_of
from jaxstyle.distributed.processes import asked_of_any
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import write_text
from jaxstyle.images.save import check_output, save_image
from jaxstyle.runtime import record
from jaxstyle.runtime.outputs import attempt, numbered, rows, write_log
from jaxstyle.runtime.record import Job, check_same, finished, laid_out
from jaxstyle.runtime.resume import Resuming, facts_of
from jaxstyle.runtime.runner import CURE, Diverged, Place, news_of, picture_of, walk, walked_again


@dataclass(frozen=True)
class Session:
    """Output of a run and its other files."""

    output: Path
    steps: int
    saving: Saving

    def check(self, *, inputs: Sequence[Path]) -> None:
        """Raise `InputError` if a file cannot be written."""
        check_output(self.output, bits=self.saving.bits, inputs=inputs)
        self.saving.check([self.output], steps=self.steps, inputs=inputs)

    def run(self, job: Job, *, reporter: Reporter, until: int | None = None) -> int:
        """Run all steps, or those up to `until`, and save the result; a dry run only prints estimates.

        Returns:
            130 after Ctrl-C, 143 after SIGTERM, 1 if a file other than the picture could not be saved, else 0.

        Raises:
            UnavailableError: if the picture cannot be saved, or if the run has diverged; the picture is then the last
                finite one.
        """
        job = laid_out(job, tell=reporter.tell)
        if job.work.spans:
            check_same(facts_of(job, self.saving))
        if self.saving.dry_run:
            rehearse(job.work, reporter=reporter)
            return 0
        attempted = partial(attempt, fail=reporter.fail)
        resuming = Resuming(self.saving, job)
        place = resumed = resuming.place(tell=reporter.tell)
        since = before = 0 if place is None else place.steps
        diverged, stopped, faults, began = None, 0, 0, time.perf_counter()
        plan = [(scale.steps, scale.width * scale.height) for scale in job.work.scales()]
        stop = asked_of_any(asked) if job.work.spans else asked
        if number := stop():
            raise Interrupted(number - 128)
        with reporter.steps(plan) as shown:
            try:
                for place in walk(job.work, shown, place=resumed, until=until, halted=stop):
                    for _, said in news_of(job.work, place, before=before):
                        reporter.warn(said)
                    if self.saving.due(place.steps, steps=self.steps):
                        path = numbered(self.output, place.steps, steps=self.steps)
                        faults |= attempted(partial(self._write, path, job, place))
                        faults |= attempted(partial(self._write_record, path, job, place))
                    if resuming.due(place.steps, before=before):
                        faults |= attempted(partial(resuming.save, place))
                    before = place.steps
            except Diverged as error:
                diverged, sound = error, error.fault.sound
                place = error.place or walked_again(job.work, shown, stop, until=sound)
            except KeyboardInterrupt as error:  # the second signal, which interrupts at once
                if job.work.spans:
                    raise  # jax then ends the other processes too
                stopped = status_of(error)
        stopped = stopped or stop()
        if place is None:
            if diverged is not None:
                raise UnavailableError(f"{diverged}, so there is no picture: {CURE}")
            raise Interrupted(stopped - 128)
        seconds = time.perf_counter() - began - shown.wait_seconds
        if diverged is None and before > since and not place.donated:
            faults |= attempted(partial(resuming.save, place))
        self._save(job, place)
        faults |= attempted(partial(self._write_record, self.output, job, place))
        if self.saving.log is not None and job.work.leads:
            write_log(self.saving.log, list(rows(place.sides, _own(job, place).trace)))
        if diverged is not None:
            raise UnavailableError(f"{diverged}, so {self.output} is as it was after step {place.steps}: {CURE}")
        reporter.finished(
            self.output,
            _own(job, place),
            since=since,
            of=until or self.steps,
            stopped=bool(stopped),
            seconds=seconds,
        )
        if stopped and resuming.folder is not None:
            reporter.tell("Repeat the command to go on.")
        return stopped or faults

    def _save(self, job: Job, place: Place) -> None:
        """Save the picture; if that fails, save it as a PNG in the temporary folder."""
        rgb = picture_of(job.work, place)  # called in all processes; only the one that writes may fail
        try:
            self._write(self.output, job, place, rgb)
        except (InputError, UnavailableError) as error:
            reason = str(error).rstrip(".")
            kind = type(error) if self.output.parent.is_dir() else UnavailableError  # it existed at the start
            try:
                kept = Path(tempfile.mkdtemp(prefix="jaxstyle-")) / f"{self.output.stem}.png"
                self._write(kept, job, place, rgb)
            except OSError:
                raise kind(f"{reason}; nor can it be saved in the temporary folder.") from error
            raise kind(f"{reason}; until then the picture is {kept}.") from error

    def _write(self, path: Path, job: Job, place: Place, rgb: np.ndarray | None = None) -> None:
        shown = picture_of(job.work, place) if rgb is None else rgb
        told = record.text(finished(job.record, _own(job, place)))
        if job.work.leads:
            own = shown if job.work.lanes is None else shown[job.record.lane]
            save_image(path, own, alpha=job.alpha, bits=self.saving.bits, description=told)

    def _write_record(self, path: Path, job: Job, place: Place) -> None:
        if self.saving.record and job.work.leads:
            told = finished(job.record, _own(job, place))
            write_text(path.with_suffix(".json"), record.text(told, indent=1) + "\n")


def _own(job: Job, place: Place) -> Place:
    """Return a snapshot with the history of the selected picture of a batch."""
    if job.work.lanes is None:
        return place
    return place._replace(trace={name: found[job.record.lane] for name, found in place.trace.items()})

"""One run of the method as the command line sees it: in segments, watched, interruptible, saved."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxstyle import image
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.rehearsal import rehearse
from jaxstyle.cli.saving import Saving, numbered, write_log
from jaxstyle.cli.work import CURE, Segment, Work
from jaxstyle.errors import InputError, UnavailableError


@dataclass(frozen=True)
class Session:
    """Where the picture goes, and what is saved on the way."""

    output: Path
    steps: int
    saving: Saving

    def check(self, *, inputs: Sequence[Path]) -> None:
        """Raise `InputError` if something could not be written at the end."""
        image.check_output(self.output, bits=self.saving.bits, inputs=inputs)
        self.saving.check([self.output], steps=self.steps, inputs=inputs)

    def run(self, work: Work, *, alpha: np.ndarray | None, reporter: Reporter) -> int:
        """Optimise from scale to scale, save what comes of it, and return the exit status: 130 after Ctrl-C, else 0.

        A dry run is rehearsed only.
        """
        if self.saving.dry_run:
            rehearse(work, save_every=self.saving.save_every, reporter=reporter)
            return 0
        rows: list[dict[str, float]] = []
        painted: jax.Array | None = None
        interrupted = False
        began = time.perf_counter()
        with reporter.steps([(scale.steps, scale.width * scale.height) for scale in work.scales()]) as shown:
            try:
                for segment in work.walk(shown, save_every=self.saving.save_every):
                    painted, rows = segment.image, rows + _rows(segment, done=len(rows))
                    for _, said in segment.news:
                        reporter.console.print(said, style="yellow")
                    if self.saving.due(len(rows), steps=self.steps):
                        self._save(numbered(self.output, len(rows), steps=self.steps), work, painted, alpha)
            except KeyboardInterrupt:
                interrupted = True
        seconds = time.perf_counter() - began - shown.compile_seconds
        if painted is None:
            raise KeyboardInterrupt
        self._save(self.output, work, painted, alpha)
        reporter.finished(
            self.output, rows, of=self.steps, seconds=seconds, compiled=shown.compile_seconds, interrupted=interrupted
        )
        if self.saving.log is not None:
            write_log(self.saving.log, rows)
        return 130 if interrupted else 0

    def _save(self, path: Path, work: Work, painted: jax.Array, alpha: np.ndarray | None) -> None:
        """Save the picture; if it cannot go to `path`, keep hours of work as a PNG among the temporary files."""
        rgb = jax.device_get(work.finish(painted))
        if bad := int(np.isnan(rgb).sum()):  # what the last step made is in no trace
            raise UnavailableError(f"The last step left {bad} NaNs in the picture, so {path} is not written: {CURE}")
        try:
            image.save(path, rgb, alpha=alpha, bits=self.saving.bits)
        except (InputError, UnavailableError) as error:
            kept = Path(tempfile.mkdtemp(prefix="jaxstyle-")) / f"{path.stem}.png"
            image.save(kept, rgb, alpha=alpha, bits=self.saving.bits)
            raise type(error)(f"{str(error).rstrip('.')}; until then the picture is {kept}.") from error


def _rows(segment: Segment, *, done: int) -> list[dict[str, float]]:
    terms = {name: values.tolist() for name, values in segment.trace.items()}
    return [
        {"step": done + i + 1, "side": segment.side, **{name: values[i] for name, values in terms.items()}}
        for i in range(len(terms["total"]))
    ]

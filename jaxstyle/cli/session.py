"""One run of the method as the command line sees it: in segments, watched, interruptible, saved."""

import csv
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxstyle import image
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.work import CURE, Segment, Work
from jaxstyle.errors import InputError, UnavailableError


@dataclass(frozen=True)
class Session:
    """What is written, where and how often."""

    output: Path
    log: Path | None
    steps: int
    save_every: int
    bits: int

    def check(self, *, inputs: Iterable[Path]) -> None:
        """Raise `InputError` if something could not be written at the end."""
        inputs = list(inputs)
        image.check_output(self.output, bits=self.bits, inputs=inputs)
        for path in inputs:
            if self.save_every and path.exists() and self._is_numbered(path):
                raise InputError(f"{path} is an input that --save-every would replace: name another output.")
        if self.log is None:
            return
        if self.log.suffix.lower() != ".csv":
            raise InputError(f"The log {self.log} has the suffix {self.log.suffix!r}: use .csv.")
        if self.log.is_dir() or not os.access(self.log.absolute().parent, os.W_OK):
            raise InputError(f"The log {self.log} is a folder or lacks a writable one: name a file in one that exists.")
        if any(self.log.exists() and path.exists() and self.log.samefile(path) for path in inputs):
            raise InputError(f"The log {self.log} is an input too: name another file.")

    def run(self, work: Work, *, alpha: np.ndarray | None, reporter: Reporter) -> int:
        """Optimise from scale to scale, save what comes of it, and return the exit status: 130 after Ctrl-C, else 0."""
        rows: list[dict[str, float]] = []
        painted: jax.Array | None = None
        interrupted = False
        began = time.perf_counter()
        with reporter.steps([(scale.steps, scale.width * scale.height) for scale in work.scales()]) as shown:
            try:
                for segment in work.walk(shown, save_every=self.save_every):
                    painted, rows = segment.image, rows + _rows(segment)
                    if self.save_every and len(rows) % self.save_every == 0 and len(rows) < self.steps:
                        self._save(self._numbered(len(rows)), work, painted, alpha)
            except KeyboardInterrupt:
                interrupted = True
        seconds = time.perf_counter() - began - shown.compile_seconds
        if painted is None:
            raise KeyboardInterrupt
        self._save(self.output, work, painted, alpha)
        reporter.finished(
            self.output, rows, of=self.steps, seconds=seconds, compiled=shown.compile_seconds, interrupted=interrupted
        )
        if self.log is not None:
            write_log(self.log, rows)
        return 130 if interrupted else 0

    def _save(self, path: Path, work: Work, painted: jax.Array, alpha: np.ndarray | None) -> None:
        """Save the picture; if it cannot go to `path`, keep hours of work as a PNG among the temporary files."""
        rgb = jax.device_get(work.finish(painted))
        if bad := int(np.isnan(rgb).sum()):  # what the last step made is in no trace
            raise UnavailableError(f"The last step left {bad} NaNs in the picture, so {path} is not written: {CURE}")
        try:
            image.save(path, rgb, alpha=alpha, bits=self.bits)
        except (InputError, UnavailableError) as error:
            kept = Path(tempfile.mkdtemp(prefix="jaxstyle-")) / f"{path.stem}.png"
            image.save(kept, rgb, alpha=alpha, bits=self.bits)
            raise type(error)(f"{str(error).rstrip('.')}; until then the picture is {kept}.") from error

    def _numbered(self, step: int) -> Path:
        digits = max(4, len(str(self.steps)))
        return self.output.with_stem(f"{self.output.stem}_{step:0{digits}d}")

    def _is_numbered(self, path: Path) -> bool:
        step = path.stem.rpartition("_")[2]
        if not step.isdecimal() or int(step) >= self.steps or int(step) % self.save_every:
            return False
        numbered = self._numbered(int(step))
        return numbered.exists() and numbered.samefile(path)


def write_log(path: Path, rows: list[dict[str, float]]) -> None:
    """Write a line for each step: the longest side, the terms before weighting, the total and the penalty on bounds."""
    try:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *rows[0]])
            writer.writeheader()
            writer.writerows({"step": number, **row} for number, row in enumerate(rows, 1))
    except OSError as error:
        raise UnavailableError(
            f"The log {path} cannot be written ({error.strerror}), but the picture is: free space or name another log."
        ) from error


def _rows(segment: Segment) -> list[dict[str, float]]:
    terms = {name: values.tolist() for name, values in segment.trace.items()}
    return [
        {"side": segment.side, **{name: values[i] for name, values in terms.items()}}
        for i in range(len(terms["total"]))
    ]

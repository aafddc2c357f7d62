"""One run of the optimiser as the command line sees it: in segments, watched, interruptible, saved."""

import csv
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxstyle import image, optimize
from jaxstyle.cli.progress import Reporter
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.objective import Config, LossWeights, Targets
from jaxstyle.vgg import Params

MOST_STEPS_A_SEGMENT = 10  # on accelerators; a CPU takes long enough for one step


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
        if self.log is None:
            return
        if self.log.suffix != ".csv":
            raise InputError(f"The log {self.log} has the suffix {self.log.suffix!r}: use .csv.")
        if self.log.is_dir() or not self.log.absolute().parent.is_dir():
            raise InputError(f"The log {self.log} is a folder or lacks one: name a file in a folder that exists.")
        if any(self.log.exists() and path.exists() and self.log.samefile(path) for path in inputs):
            raise InputError(f"The log {self.log} is an input too: name another file.")

    def run(
        self,
        state: optimize.State,
        params: Params,
        targets: Targets,
        weights: LossWeights,
        *,
        config: Config,
        alpha: np.ndarray | None,
        reporter: Reporter,
    ) -> int:
        """Optimise, save what comes of it, and return the exit status: 130 after Ctrl-C, else 0."""
        segment = self._segment()
        with reporter.compiling():
            step = optimize.run.lower(state, params, targets, weights, config=config, steps=segment).compile()
        rows: list[dict[str, float]] = []
        interrupted = False
        began = time.perf_counter()
        with reporter.steps(self.steps) as advance:
            try:
                while len(rows) < self.steps:
                    after, trace = step(state, params, targets, weights)
                    new = _rows(jax.device_get(trace))
                    self._check_finite(new, done=len(rows))
                    state, rows = after, rows + new
                    advance(segment, _summary(new[-1], weights))
                    if self.save_every and len(rows) % self.save_every == 0 and len(rows) < self.steps:
                        self._save(self._numbered(len(rows)), state, alpha)
            except KeyboardInterrupt:
                interrupted = True
        seconds = time.perf_counter() - began
        if not rows:
            raise KeyboardInterrupt
        self._save(self.output, state, alpha)
        if self.log is not None:
            write_log(self.log, rows)
        reporter.finished(self.output, rows, of=self.steps, seconds=seconds, interrupted=interrupted)
        return 130 if interrupted else 0

    def _segment(self) -> int:
        """Return the steps between two looks at the state: few enough to interrupt, and one program serves all."""
        if jax.default_backend() == "cpu":
            return 1
        whole = math.gcd(self.steps, self.save_every)
        return max(n for n in range(1, MOST_STEPS_A_SEGMENT + 1) if whole % n == 0)

    def _save(self, path: Path, state: optimize.State, alpha: np.ndarray | None) -> None:
        image.save(path, jax.device_get(state.image), alpha=alpha, bits=self.bits)

    def _numbered(self, step: int) -> Path:
        digits = max(4, len(str(self.steps)))
        return self.output.with_stem(f"{self.output.stem}_{step:0{digits}d}")

    def _check_finite(self, rows: list[dict[str, float]], *, done: int) -> None:
        for number, row in enumerate(rows, done + 1):
            for name, value in row.items():
                if not math.isfinite(value):
                    raise UnavailableError(
                        f"{name} is {value} at step {number}, so nothing was written: "
                        "try a smaller --learning-rate or --optimizer adam."
                    )


def write_log(path: Path, rows: list[dict[str, float]]) -> None:
    """Write a line for each step, with every term before weighting, the total and the penalty on the bounds."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *rows[0]])
        writer.writeheader()
        writer.writerows({"step": number, **row} for number, row in enumerate(rows, 1))


def _rows(trace: dict[str, np.ndarray]) -> list[dict[str, float]]:
    steps = len(trace["total"])
    return [{name: float(values[i]) for name, values in trace.items()} for i in range(steps)]


def _summary(row: dict[str, float], weights: LossWeights) -> dict[str, float]:
    """Return the total and the weighted share of each kind of term in it."""
    return {
        "total": row["total"],
        "content": sum(float(w) * row[f"content/{layer}"] for layer, w in weights.content.items()),
        "style": sum(float(w) * row[f"style/{layer}"] for layer, w in weights.style.items()),
        "tv": float(weights.tv) * row["tv"],
    }

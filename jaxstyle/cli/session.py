"""One run of the optimiser as the command line sees it: in segments, watched, interruptible, saved."""

import csv
import math
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxstyle import image, optimize
from jaxstyle.cli.progress import Reporter
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.objective import Targets
from jaxstyle.vgg import Params

MOST_STEPS_A_SEGMENT = 10
WORK_A_SEGMENT = 3e10  # multiply-adds forwards: at 512 pixels one step of VGG-19, five of the mini network
CURE = "lower the weights or --learning-rate, or try --optimizer adam."


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
        segment = self._segment(params, pixels=state.image.size // 3)
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
        reporter.finished(self.output, rows, of=self.steps, seconds=seconds, interrupted=interrupted)
        if self.log is not None:
            write_log(self.log, rows)
        return 130 if interrupted else 0

    def _segment(self, params: Params, *, pixels: int) -> int:
        """Return the steps between two looks at the state: few enough to interrupt, and one program serves all.

        More than one where that takes no time: each call costs fresh memory, a fifth of a step of the mini network.
        """
        most = MOST_STEPS_A_SEGMENT
        if jax.default_backend() == "cpu":
            work = pixels * sum(layer["kernel"].size / 4 ** (int(name[4]) - 1) for name, layer in params.items())
            most = min(most, max(1, int(WORK_A_SEGMENT / work)))
        whole = math.gcd(self.steps, self.save_every)
        return max(n for n in range(1, most + 1) if whole % n == 0)

    def _save(self, path: Path, state: optimize.State, alpha: np.ndarray | None) -> None:
        """Save the picture; if it cannot go to `path`, keep hours of work as a PNG among the temporary files."""
        rgb = jax.device_get(state.image)
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

    def _check_finite(self, rows: list[dict[str, float]], *, done: int) -> None:
        for number, row in enumerate(rows, done + 1):
            for name, value in row.items():
                if not math.isfinite(value):
                    raise UnavailableError(
                        f"{name} is {value} at step {number}, so {self.output} is not written: {CURE}"
                    )


def write_log(path: Path, rows: list[dict[str, float]]) -> None:
    """Write a line for each step, with every term before weighting, the total and the penalty on the bounds."""
    try:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *rows[0]])
            writer.writeheader()
            writer.writerows({"step": number, **row} for number, row in enumerate(rows, 1))
    except OSError as error:
        raise UnavailableError(
            f"The log {path} cannot be written ({error.strerror}), but the picture is: free space or name another log."
        ) from error


def _rows(trace: dict[str, np.ndarray]) -> list[dict[str, float]]:
    steps = len(trace["total"])
    return [{name: float(values[i]) for name, values in trace.items()} for i in range(steps)]


def _summary(row: dict[str, float], weights: LossWeights) -> dict[str, float]:
    """Return the total and the weighted share of each kind of term in it."""
    number: Any = jax.tree.map(float, weights)
    summary = {
        "total": row["total"],
        "content": sum(weight * row[f"content/{layer}"] for layer, weight in number.content.items()),
        "style": sum(weight * row[f"style/{layer}"] for layer, weight in number.style.items()),
    }
    return summary | ({"tv": number.tv * row["tv"]} if number.tv else {})

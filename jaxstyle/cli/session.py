"""One run of the method as the command line sees it: in segments, watched, interruptible, saved."""

import csv
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxstyle import image, optimize, stage
from jaxstyle.cli.progress import Reporter, Steps
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.scales import Scale, plan
from jaxstyle.stage import Sizes
from jaxstyle.targets import Style, Targets
from jaxstyle.vgg import Params

MOST_STEPS_A_SEGMENT = 10
WORK_A_SEGMENT = 3e10  # multiply-adds forwards: at 512 pixels one step of VGG-19, five of the mini network
CURE = "lower the weights or --learning-rate, or try --optimizer adam."


@dataclass(frozen=True)
class Work:
    """What is computed: the arrays and static facts of `jaxstyle.stylize`, with the colours of the styles changed."""

    params: Params
    picture: jax.Array
    content: jax.Array
    styles: Sequence[Style | Sizes]
    weights: LossWeights
    config: Config
    start: str | jax.Array
    key: jax.Array
    blend: Sequence[float] | None
    content_masks: jax.Array | None
    style_masks: Sequence[jax.Array | None] | None

    def targets(self, scale: Scale) -> Targets:
        """Return what the image is held against at one scale."""
        return stage.targets_at(
            self.params,
            self.content,
            self.styles,
            scale,
            key=self.key,
            config=self.config,
            blend=self.blend,
            content_masks=self.content_masks,
            style_masks=self.style_masks,
        )

    def start_at(self, scale: Scale, painted: jax.Array | None) -> jax.Array:
        """Return the image to start a scale from, after what the scale before has painted."""
        if painted is None:
            return stage.start_at(self.content, self.styles, self.start, scale, key=self.key)
        return stage.enlarge(painted, self.content, self.styles, self.start, scale)

    def finish(self, painted: jax.Array) -> jax.Array:
        """Return the picture to save."""
        return stage.finish(painted, self.picture, config=self.config, content_masks=self.content_masks)


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
        scales = plan(*work.content.shape[:2], steps=self.steps, config=work.config)
        rows: list[dict[str, float]] = []
        painted: jax.Array | None = None
        interrupted = False
        began = time.perf_counter()
        with reporter.steps([(scale.steps, scale.width * scale.height) for scale in scales]) as shown:
            try:
                for scale in scales:
                    for state, new in self._at_scale(work, painted, scale, done=len(rows), shown=shown):
                        painted, rows = state.image, rows + new
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

    def _at_scale(
        self, work: Work, painted: jax.Array | None, scale: Scale, *, done: int, shown: Steps
    ) -> Iterator[tuple[optimize.State, list[dict[str, float]]]]:
        """Yield the state and the new rows of the log after each segment of steps at one scale."""
        side = max(scale.width, scale.height)
        with shown.compiling(side):
            targets = work.targets(scale)
            state = optimize.init(work.start_at(scale, painted), config=work.config)
            segment = self._segment(work.params, scale, done=done)
            arguments = (state, work.params, targets, work.weights)
            step = optimize.run.lower(*arguments, config=work.config, steps=segment).compile()
        for taken in range(segment, scale.steps + 1, segment):
            state, trace = step(state, work.params, targets, work.weights)
            new = [{"side": side, **row} for row in _rows(jax.device_get(trace))]
            self._check_finite(new, done=done + taken - segment)
            shown.advance(segment, _summary(new[-1], work.weights))
            yield state, new
            if state.watch is not None and bool(state.watch.done):
                shown.advance(scale.steps - taken, {"levelled off at": side})
                return

    def _segment(self, params: Params, scale: Scale, *, done: int) -> int:
        """Return the steps between two looks at the state: few enough to interrupt, and one program serves a scale.

        More than one where that takes no time: each call costs fresh memory, a fifth of a step of the mini network.
        """
        most = MOST_STEPS_A_SEGMENT
        if jax.default_backend() == "cpu":
            layers = sum(layer["kernel"].size / 4 ** (int(name[4]) - 1) for name, layer in params.items())
            most = min(most, max(1, int(WORK_A_SEGMENT / (scale.width * scale.height * layers))))
        whole = math.gcd(scale.steps, self.save_every, done if self.save_every else 0)
        return max(n for n in range(1, most + 1) if whole % n == 0)

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

    def _check_finite(self, rows: list[dict[str, float]], *, done: int) -> None:
        for number, row in enumerate(rows, done + 1):
            for name, value in row.items():
                if not math.isfinite(value):
                    raise UnavailableError(
                        f"{name} is {value} at step {number}, so {self.output} is not written: {CURE}"
                    )


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

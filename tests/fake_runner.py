"""A runner for tests of the command line: it stands in for the optimization loop and compiles nothing."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jaxstyle.losses.objective import Objective
from jaxstyle.runtime import fitting, run, runner, style_cache, sweep_job
from jaxstyle.runtime.callbacks import Event, never, notify
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.runner import Diverged, Snapshot, fault_of, last_finite
from jaxstyle.transfer import color


class FakeRunner:
    """Replaces `iterate`, `picture_of`, statistics and colors of styles; every other part of a command runs as usual.

    The image moves in equal steps from its start to the mean of content and mean style color, so that it depends on
    the inputs, the seed of the noise and the number of steps. Every term of the history falls as 1 / step.

    Attributes:
        problems: the problem of each run, in order: `problems[-1].objective`, `.optimizer`, `.steps`, ...
        resumed: the step from which each of them was resumed, or None.
        on_step: called with the number of each step after it; it may raise, send a signal or remove a folder.
        history: called with the number of a step, from 1, and returns values that replace terms of that step.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.resumed: list[int | None] = []
        self.on_step: Callable[[int], object] = lambda step: None
        self.history: Callable[[int], dict[str, Any]] = lambda step: {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replace_iterate(monkeypatch, self.iterate)
        for module in (fitting, run, sweep_job):
            monkeypatch.setattr(module, "picture_of", self.picture_of)
        monkeypatch.setattr(style_cache, "with_statistics", lambda problem: problem)
        monkeypatch.setattr(Problem, "compile_ahead", lambda problem, number: None)
        monkeypatch.setattr(color, "_recolor", lambda content, styles, change: (content, styles))
        monkeypatch.setattr(sweep_job, "fitting_batch_size", lambda problem, folder, todo, **_: len(todo))

    @staticmethod
    def replace_iterate(monkeypatch: pytest.MonkeyPatch, iterate: Callable[..., Iterator[Any]]) -> None:
        for module in (fitting, sweep_job, runner):
            monkeypatch.setattr(module, "iterate", iterate)

    def iterate(
        self,
        problem: Problem,
        *,
        resume: Snapshot | None = None,
        until: int | None = None,
        should_stop: Callable[[], object] = never,
        callbacks: Sequence[Any] = (),
    ) -> Iterator[Snapshot]:
        """Yield after every step, as `jaxstyle.runtime.runner.iterate` does."""
        self.problems.append(problem)
        self.resumed.append(None if resume is None else resume.step)
        axes = () if problem.batch_size is None else (problem.batch_size,)
        sides, history, first, snapshots = [], {}, 1, []
        before, last = 0, sum(scale.steps for scale in problem.schedule)
        if resume is not None:
            sides, history, first = list(resume.sides), dict(resume.history), resume.step + 1
            notify(callbacks, Event("resumed", resume.step, last, progress=resume.step / last))
        for number, scale in enumerate(problem.schedule):
            side = max(scale.width, scale.height)
            for kind in ("compiling", "compiled"):
                notify(callbacks, Event(kind, before, last, (scale.width, scale.height)))
            for step in range(max(first, before + 1), before + scale.steps + 1):
                if should_stop() or (until is not None and step > until):
                    return
                count = problem.batch_size or 1
                image = np.stack([self._image(problem, scale, step / last, index) for index in range(count)])
                sides.append(side)
                for name, value in (self._terms(problem, step) | self.history(step)).items():
                    actual = np.broadcast_to(np.asarray(value, np.float32), axes)[..., None]
                    history[name] = np.concatenate([history.get(name, actual[..., :0]), actual], -1)
                state: Any = SimpleNamespace(watch=None, stall=None)
                shaped: Any = image if axes else image[0]
                self.on_step(step)
                if not axes and (fault := fault_of(history, finite=bool(np.isfinite(shaped).all()))):
                    raise Diverged(fault, last_finite((*snapshots[-2:], resume), fault))
                sizes = np.asarray(sides, np.int32)
                snapshots.append(Snapshot(number, step - before, state, shaped, sizes, dict(history), {}))
                event = Event("steps", step, last, (scale.width, scale.height), progress=step / last)
                metrics = {"total": float(np.mean(history["total"][..., -1]))}
                notify(callbacks, event._replace(metrics=metrics), snapshots[-1])
                yield snapshots[-1]
            before += scale.steps

    def picture_of(self, problem: Problem, snapshot: Snapshot) -> np.ndarray:
        """Return the image of a snapshot in the size of the content."""
        return nearest(np.asarray(snapshot.image), *problem.picture.shape[-3:-1])

    @staticmethod
    def _image(problem: Problem, scale: Any, part: float, index: int) -> np.ndarray:
        content = nearest(np.asarray(problem.content), scale.height, scale.width)
        content = np.broadcast_to(content.astype(np.float32), (*content.shape[:-1], 3))
        start = content
        if not isinstance(problem.start, str):
            start = nearest(np.asarray(problem.start), scale.height, scale.width)
        elif problem.start == "noise":
            keys = np.asarray(jax.random.key_data(problem.key if problem.noise is None else problem.noise))
            start = np.random.default_rng(keys if problem.noise is None else keys[index]).uniform(size=content.shape)
        colors = [np.asarray(style).mean((0, 1)) for style in problem.styles if hasattr(style, "shape")]
        goal = (content + np.mean(colors or [np.full(3, 0.5)], axis=0)) / 2
        strength = np.asarray(sum(map(np.asarray, objective_of(problem).style.values()), np.zeros(())))
        share = np.broadcast_to(strength, (problem.batch_size or 1,))[index] / (1 + np.max(strength))
        return np.clip(start + part * (0.5 + 0.5 * share) * (goal - start), 0, 1).astype(np.float32)

    @staticmethod
    def _terms(problem: Problem, step: int) -> dict[str, Any]:
        objective = objective_of(problem)
        kinds = {"content": objective.content, "style": objective.style}
        terms = {f"{kind}/{layer}": 1 / step for kind, weights in kinds.items() for layer in sorted(weights)}
        total = sum(np.asarray(weight) / step for weights in kinds.values() for weight in weights.values())
        total = total + np.asarray(objective.tv) / step
        return {**terms, "tv": 1 / step, "total": total, "range_penalty": 0.0}  # in the order of `term_names`


def objective_of(problem: Problem) -> Objective:
    """Return the objective of a problem, which the command line always makes itself."""
    assert isinstance(problem.objective, Objective)
    return problem.objective


def nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return `[..., H, W, C]` resampled to another size by the nearest pixel."""
    rows = np.arange(height) * image.shape[-3] // height
    columns = np.arange(width) * image.shape[-2] // width
    return image[..., rows[:, None], columns, :]

"""A runner for tests of the command line: it stands in for the optimization loop and compiles nothing."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jaxstyle.cli import session, sweep_session
from jaxstyle.runtime import style_cache, sweep_job
from jaxstyle.runtime.problem import Work
from jaxstyle.runtime.runner import Diverged, Place, fault_of, last_sound
from jaxstyle.transfer import color


class FakeRunner:
    """Replaces `walk`, `picture_of`, statistics and colors of styles; every other part of a command runs as usual.

    The image moves in equal steps from its start to the mean of content and mean style color, so that it depends on
    the inputs, the seed of the noise and the number of steps. Every term of the history falls as 1 / step.

    Attributes:
        works: the arguments of each run, in order: `works[-1].config`, `.weights`, `.steps`, ...
        on_step: called with the number of each step after it; it may raise, send a signal or remove a folder.
        history: called with the number of a step, from 1, and returns values that replace terms of that step.
    """

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.on_step: Callable[[int], object] = lambda step: None
        self.history: Callable[[int], dict[str, Any]] = lambda step: {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (session, sweep_job):
            monkeypatch.setattr(module, "walk", self.walk)
            monkeypatch.setattr(module, "picture_of", self.picture_of)
        monkeypatch.setattr(style_cache, "look_at", lambda *_, **__: {})
        monkeypatch.setattr(color, "_recolor", lambda content, styles, change: (content, styles))
        monkeypatch.setattr(style_cache, "statistics_of", lambda style, *_, **__: style)
        monkeypatch.setattr(sweep_session.SweepSession, "_fitting", lambda self, work, todo, *_: len(todo))

    def walk(
        self,
        work: Work,
        shown: Any,
        *,
        place: Place | None = None,
        until: int | None = None,
        halted: Callable[[], Any] = lambda: False,
    ) -> Iterator[Place]:
        """Yield after every step, as `jaxstyle.runtime.runner.walk` does."""
        self.works.append(work)
        lanes = () if work.lanes is None else (work.lanes,)
        sides, history, first, places = [], {}, 1, []
        if place is not None:
            sides, history, first = list(place.sides), dict(place.trace), place.steps + 1
            shown.go_on(place.steps)
        before, last = 0, sum(scale.steps for scale in work.scales())
        for number, scale in enumerate(work.scales()):
            side = max(scale.width, scale.height)
            with shown.compiling(side):
                pass
            for step in range(max(first, before + 1), before + scale.steps + 1):
                if halted() or (until is not None and step > until):
                    return
                image = np.stack([self._image(work, scale, step / last, lane) for lane in range(work.lanes or 1)])
                sides.append(side)
                for name, value in (self._terms(work, step) | self.history(step)).items():
                    found = np.broadcast_to(np.asarray(value, np.float32), lanes)[..., None]
                    history[name] = np.concatenate([history.get(name, found[..., :0]), found], -1)
                shown.advance(1, {"total": float(np.mean(history["total"][..., -1]))})
                state: Any = SimpleNamespace(watch=None, stall=None)
                shaped: Any = image if lanes else image[0]
                self.on_step(step)
                if not lanes and (fault := fault_of(history, finite=bool(np.isfinite(shaped).all()))):
                    raise Diverged(fault, last_sound((*places[-2:], place), fault))
                places.append(
                    Place(number, step - before, state, shaped, np.asarray(sides, np.int32), dict(history), {})
                )
                yield places[-1]
            before += scale.steps

    def picture_of(self, work: Work, place: Place) -> np.ndarray:
        """Return the image of a place in the size of the content."""
        return nearest(np.asarray(place.image), *work.picture.shape[-3:-1])

    @staticmethod
    def _image(work: Work, scale: Any, part: float, lane: int) -> np.ndarray:
        content = nearest(np.asarray(work.content), scale.height, scale.width)
        content = np.broadcast_to(content.astype(np.float32), (*content.shape[:-1], 3))
        start = content
        if not isinstance(work.start, str):
            start = nearest(np.asarray(work.start), scale.height, scale.width)
        elif work.start == "noise":
            keys = np.asarray(jax.random.key_data(work.key if work.noise is None else work.noise))
            start = np.random.default_rng(keys if work.noise is None else keys[lane]).uniform(size=content.shape)
        colors = [np.asarray(style).mean((0, 1)) for style in work.styles if hasattr(style, "shape")]
        goal = (content + np.mean(colors or [np.full(3, 0.5)], axis=0)) / 2
        strength = np.asarray(sum(map(np.asarray, work.weights.style.values()), np.zeros(())))
        share = np.broadcast_to(strength, (work.lanes or 1,))[lane] / (1 + np.max(strength))
        return np.clip(start + part * (0.5 + 0.5 * share) * (goal - start), 0, 1).astype(np.float32)

    @staticmethod
    def _terms(work: Work, step: int) -> dict[str, Any]:
        kinds = {"content": work.weights.content, "style": work.weights.style}
        terms = {f"{kind}/{layer}": 1 / step for kind, weights in kinds.items() for layer in weights}
        total = sum(np.asarray(weight) / step for weights in kinds.values() for weight in weights.values())
        return {**terms, "tv": 1 / step, "bounds": 0.0, "total": total + np.asarray(work.weights.tv) / step}


def nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return `[..., H, W, C]` resampled to another size by the nearest pixel."""
    rows = np.arange(height) * image.shape[-3] // height
    columns = np.arange(width) * image.shape[-2] // width
    return image[..., rows[:, None], columns, :]

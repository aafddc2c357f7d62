"""`benchmark.py solve`: how soon the preset neural-style-pt stands where that tool's own recipe gets at its best."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import PRESET, Pictures, ratios
from tyro.conf import OmitArgPrefixes

from jaxstyle import load_image, load_params, make_targets, save_image, terms, total
from jaxstyle.runtime.problem import make_problem
from jaxstyle.runtime.runner import iterate, picture_of

Score = Callable[[Any], float]


@dataclass(frozen=True)
class Solve:
    """Time until the saved picture's objective is at the lowest that the baseline has among its saved pictures.

    The baseline is neural-style-pt's recipe in PyTorch: one scale, plain pixels, lbfgs with 100 pairs, one clip at the
    end. Pictures are saved with 8 bits and scored off the clock. Times include compiling, but not loading the network.
    """

    pictures: OmitArgPrefixes[Pictures]
    sizes: tuple[int, ...] = (256, 512)
    """Longest sides, in pixels."""
    evaluations: int = 500
    """Of the baseline."""
    every: int = 50
    """Evaluations of the baseline between its saved pictures."""
    steps: int = 200
    """Of the preset, at most."""

    def run(self) -> None:
        """Measure and print."""
        import torch_baseline

        params, results = load_params(self.pictures.network), []
        for size in self.sizes:
            content, style = self.pictures.load(size)
            score = scorer(params, content, style)
            rows: list[dict[str, float]] = []
            for _ in range(self.pictures.turns):
                jax.clear_caches()
                objective = torch_baseline.Objective(params, np.asarray(content), np.asarray(style))
                saved = torch_baseline.solve(objective, np.asarray(content), steps=self.evaluations, every=self.every)
                goal, seconds = min((score(picture), seconds) for seconds, picture in saved)
                ours, steps, reached = self._preset(params, content, style, score, goal)
                rows.append({"torch": seconds, "jaxstyle": ours, "goal": goal, "reached": reached, "steps": steps})
                print(f"{size} pixels: {rows[-1]}", flush=True)
            results.append({"size": size, **rows[-1], "turns": rows, **ratios(rows, "jaxstyle", "torch")})
        settings = {"evaluations": self.evaluations, "every": self.every, "steps": self.steps}
        self.pictures.report("solve", results, **settings)

    def _preset(
        self, params: Any, content: jax.Array, style: jax.Array, score: Score, goal: float
    ) -> tuple[float, int, float]:
        """Return seconds and steps until the picture is at the goal, or the last, and what it scores there."""
        seconds, steps, found, began = 0.0, 0, float("inf"), time.perf_counter()
        options: dict[str, Any] = {"weights": PRESET.loss_weights(), "config": PRESET.config, "steps": self.steps}
        problem = make_problem(params, content, style, **options)
        for snapshot in iterate(problem):
            seconds, steps = seconds + time.perf_counter() - began, snapshot.step
            found = score(picture_of(problem, snapshot))
            if found <= goal:
                break
            began = time.perf_counter()
        return seconds, steps, found


def scorer(params: Any, content: jax.Array, style: jax.Array) -> Score:
    """Return what saves a picture with 8 bits and returns the objective of the file."""
    targets = make_targets(params, content, style, config=PRESET.config)
    weights = PRESET.loss_weights()
    objective = jax.jit(lambda picture: total(weights, terms(params, picture, targets, config=PRESET.config)))
    compiled = objective.lower(content).compile()

    def score(picture: Any) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            save_image(path, picture)
            return float(compiled(jnp.asarray(load_image(path).rgb)))

    return score

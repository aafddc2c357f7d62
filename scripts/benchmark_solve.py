"""`benchmark.py solve`: time of preset neural-style-pt to the best objective of the recipe of that program."""

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
    """Time until the saved picture reaches the lowest objective of the saved pictures of the baseline.

    The baseline is neural-style-pt's recipe in PyTorch: one scale, plain pixels, lbfgs with 100 pairs, one clip at the
    end. Pictures are saved with 8 bits; computing their objectives is not timed. Times include compiling, but not
    loading the network.
    """

    pictures: OmitArgPrefixes[Pictures]
    sizes: tuple[int, ...] = (256, 512)
    """Longest sides, in pixels."""
    evaluations: int = 500
    """Number of evaluations of the baseline."""
    every: int = 50
    """Evaluations of the baseline between its saved pictures."""
    steps: int = 200
    """Maximum number of steps of the preset."""

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
        seconds, steps, value, began = 0.0, 0, float("inf"), time.perf_counter()
        options: dict[str, Any] = {"objective": PRESET.make_objective(), "network": PRESET.network, "steps": self.steps}
        options |= {"optimizer": PRESET.optimizer, "scales": PRESET.scales}
        problem = make_problem(params, content, style, **options)
        for snapshot in iterate(problem):
            seconds, steps = seconds + time.perf_counter() - began, snapshot.step
            value = score(picture_of(problem, snapshot))
            if value <= goal:
                break
            began = time.perf_counter()
        return seconds, steps, value


def scorer(params: Any, content: jax.Array, style: jax.Array) -> Score:
    """Return a function that saves a picture with 8 bits and returns the objective of the file."""
    options: dict[str, Any] = {"objective": PRESET.make_objective(), "network": PRESET.network}
    targets = make_targets(params, content, style, **options)
    value = jax.jit(lambda picture: total(PRESET.make_objective(), terms(params, picture, targets, **options)))
    compiled = value.lower(content).compile()

    def score(picture: Any) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            save_image(path, picture)
            return float(compiled(jnp.asarray(load_image(path).rgb)))

    return score

"""`benchmark.py gradient`: derivative of a run by every weight of the loss, with and without checkpoint segments."""

import operator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Pictures, in_turns
from tyro.conf import OmitArgPrefixes

from jaxstyle import Adam, Objective, init_state, load_params, make_targets, run_steps
from jaxstyle.errors import InputError
from jaxstyle.transfer.sweep import memory_of


@dataclass(frozen=True)
class Gradient:
    """Differentiate the mean of the final picture through steps of adam: time, memory, and errors of the gradients.

    Memory is XLA's plan of the program. Time is relative to the run without a gradient.
    """

    pictures: OmitArgPrefixes[Pictures]
    size: int = 128
    """Longest side, in pixels."""
    steps: tuple[int, ...] = (20, 200)
    """Lengths of runs."""
    checkpoint_segments: tuple[int, ...] = (20, 200)
    """Number of checkpoint segments of each run; 0 for about the square root of its steps."""

    def run(self) -> None:
        """Measure and print."""
        counts = self.checkpoint_segments
        if len(self.steps) != len(counts) or any(map(operator.gt, counts, self.steps)):
            raise InputError(
                f"--checkpoint-segments is {counts}: use 0 to the number of steps for each of {self.steps}."
            )
        params = load_params(self.pictures.network)
        content, style = self.pictures.load(self.size)
        objective = jax.tree.map(jnp.asarray, Objective())
        targets = make_targets(params, content, style, objective=objective)
        inputs = (objective, params, targets, init_state(content, objective=objective, optimizer=Adam()))
        results: list[dict[str, Any]] = []
        for steps, asked in zip(self.steps, counts, strict=True):
            count = asked or round(steps**0.5)
            programs = {
                "the run": jax.jit(lambda *inputs, n=steps: _mean(*inputs, steps=n)),
                "no segments": jax.jit(jax.grad(lambda *inputs, n=steps: _mean(*inputs, steps=n))),
                f"{count} segments": jax.jit(
                    jax.grad(lambda *inputs, n=steps, c=count: _mean(*inputs, steps=n, checkpoint_segments=c))
                ),
            }
            compiled = {name: program.lower(*inputs).compile() for name, program in programs.items()}
            gradients: dict[str, Any] = {}

            def keep(name: str, program: Any, gradients: dict[str, Any] = gradients) -> None:
                gradients[name] = jax.block_until_ready(program(*inputs))

            sides = {name: lambda name=name, each=each: keep(name, each) for name, each in compiled.items()}
            rows = in_turns(sides, turns=self.pictures.turns, warm=False)
            exact = _vector(gradients["no segments"])
            for name, program in compiled.items():
                difference = 0.0 if name == "the run" else np.linalg.norm(_vector(gradients[name]) - exact)
                seconds = [row[name] / row["the run"] for row in rows]
                results.append(
                    {
                        "steps": steps,
                        "program": name,
                        "MiB": memory_of(program) / 2**20,
                        "time over the run's": min(seconds),
                        "error": float(difference / np.linalg.norm(exact)),
                        "turns": [row[name] for row in rows],
                    }
                )
        self.pictures.report("gradient through the loop", results, size=self.size)


def _mean(objective: Objective, params: Any, targets: Any, state: Any, **options: Any) -> jax.Array:
    return run_steps(state, params, targets, objective, **options)[0].image.mean()


def _vector(tree: Any) -> np.ndarray:
    return np.asarray(jax.tree.leaves(tree), np.float64)

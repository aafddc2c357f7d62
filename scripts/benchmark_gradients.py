"""`benchmark.py gradient`: the derivative of a whole run by every weight of the loss, kept whole and in segments."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Pictures, in_turns
from tyro.conf import OmitArgPrefixes

from jaxstyle import Config, LossWeights, init, load_params, make_targets, run
from jaxstyle.errors import InputError
from jaxstyle.transfer.sweep import memory_of

CONFIG = Config(optimizer="adam", scales=1)


@dataclass(frozen=True)
class Gradient:
    """Differentiate the mean of the final picture through adam's steps: time, memory, and how far apart gradients are.

    Memory is what XLA has planned for the program. Time is over that of the run itself.
    """

    pictures: OmitArgPrefixes[Pictures]
    size: int = 128
    """Longest side, in pixels."""
    steps: tuple[int, ...] = (20, 200)
    """Lengths of runs."""
    segments: tuple[int, ...] = (20, 200)
    """Into how many each is cut; 0 for about the square root of its steps."""

    def run(self) -> None:
        """Measure and print."""
        many = len(self.steps) == len(self.segments)
        if not many or any(cut > steps for steps, cut in zip(self.steps, self.segments, strict=True)):
            raise InputError(f"--segments is {self.segments}: give each of --steps {self.steps} one up to it, or 0.")
        params = load_params(self.pictures.network)
        content, style = self.pictures.load(self.size)
        targets, start = make_targets(params, content, style, config=CONFIG), init(content, config=CONFIG)
        given = (jax.tree.map(jnp.asarray, LossWeights()), params, targets, start)
        results: list[dict[str, Any]] = []
        for steps, asked in zip(self.steps, self.segments, strict=True):
            cut = asked or round(steps**0.5)
            programs = {
                "the run": jax.jit(lambda *given, n=steps: _mean(*given, steps=n)),
                "kept whole": jax.jit(jax.grad(lambda *given, n=steps: _mean(*given, steps=n))),
                f"{cut} segments": jax.jit(jax.grad(lambda *given, n=steps, c=cut: _mean(*given, steps=n, segments=c))),
            }
            compiled = {name: program.lower(*given).compile() for name, program in programs.items()}
            found: dict[str, Any] = {}

            def keep(name: str, program: Any, found: dict[str, Any] = found) -> None:
                found[name] = jax.block_until_ready(program(*given))

            sides = {name: lambda name=name, each=each: keep(name, each) for name, each in compiled.items()}
            rows = in_turns(sides, turns=self.pictures.turns, warm=False)
            kept = _vector(found["kept whole"])
            for name, program in compiled.items():
                apart = 0.0 if name == "the run" else np.linalg.norm(_vector(found[name]) - kept) / np.linalg.norm(kept)
                seconds = [row[name] / row["the run"] for row in rows]
                results.append(
                    {
                        "steps": steps,
                        "program": name,
                        "MiB": memory_of(program) / 2**20,
                        "time over the run's": min(seconds),
                        "apart": float(apart),
                        "turns": [row[name] for row in rows],
                    }
                )
        self.pictures.report("gradient through the loop", results, size=self.size)


def _mean(weights: LossWeights, params: Any, targets: Any, start: Any, **options: Any) -> jax.Array:
    return run(start, params, targets, weights, config=CONFIG, **options)[0].image.mean()


def _vector(tree: Any) -> np.ndarray:
    return np.asarray(jax.tree.leaves(tree), np.float64)

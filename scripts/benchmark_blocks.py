"""`benchmark.py blocks`: a step of adam on an image in blocks, against the whole image, and its memory at each size."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_steps import status
from measuring import Pictures, in_turns, ratios
from tyro.conf import OmitArgPrefixes

from jaxstyle import Config, LossWeights, init, load_image, load_params, make_targets
from jaxstyle.networks.conv import prepared
from jaxstyle.optim.loop import run_segment

CONFIG = Config(optimizer="adam")


@dataclass(frozen=True)
class Blocks:
    """Time a step of the default objective in blocks, and take one at each size in a process of its own."""

    pictures: OmitArgPrefixes[Pictures]
    size: int = 1024
    """Side of the square image that is timed, in pixels."""
    window: int = 2**20 * 3 // 5
    """Pixels of a window where time is measured."""
    sides: tuple[int, ...] = (1000, 2000, 4000)
    """Sides of square images whose memory is measured; 8000 takes a quarter of an hour."""
    peak_window: int = 2**19
    """Pixels of a window where memory is measured."""

    def run(self) -> None:
        """Measure and print; Linux only."""
        timed = {
            name: _steps(*self._given(), side=self.size, window=window)
            for name, window in (("whole", None), ("blocks", self.window))
        }
        rows = in_turns(timed, turns=self.pictures.turns)
        found = [{name: min(row[name] for row in rows) for name in timed} | ratios(rows, "blocks", "whole")]
        settings = {"size": self.size, "window": self.window}
        self.pictures.report("blocks: seconds of a step", [{**found[0], "turns": rows}], **settings)
        results = []
        for side in self.sides:
            given = [*map(str, self._given()), str(side), str(self.peak_window)]
            done = subprocess.run([sys.executable, __file__, *given], check=True, stdout=subprocess.PIPE, text=True)
            results.append({"megapixels": side * side / 1e6, **json.loads(done.stdout.splitlines()[-1])})
        self.pictures.report("blocks: memory of a step", results, window=self.peak_window)

    def _given(self) -> tuple[Path, Path, str]:
        return self.pictures.content, self.pictures.style, self.pictures.network


def _steps(content: Path, style: Path, network: str, *, side: int, window: int | None) -> Callable[[], object]:
    """Return what takes a step on a square image, once it is compiled."""
    params, config = load_params(network), replace(CONFIG, block_pixels=window)
    picture = jnp.asarray(load_image(content, size=(side, side)).rgb)
    painting = jnp.asarray(load_image(style, size=512).rgb)
    targets, weights = make_targets(params, picture, painting, config=config), LossWeights()
    ready = jax.jit(prepared)(params)
    state = jax.tree.map(jnp.copy, init(picture, config=config))
    step = run_segment.lower(state, ready, targets, weights, np.int32(1), config=config, most_steps=1).compile()

    def take() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, ready, targets, weights, np.int32(1)))

    return take


def peak_of_one(content: str, style: str, network: str, side: str, window: str) -> dict[str, float]:
    """Return what one step in blocks takes in this process: seconds, and MiB of resident memory at most."""
    take = _steps(Path(content), Path(style), network, side=int(side), window=int(window))
    began = time.perf_counter()
    take()
    seconds, peak = time.perf_counter() - began, status("VmHWM")
    return {"first step, s": seconds, "peak, MiB": peak, "B a pixel": 2**20 * peak / int(side) ** 2}


if __name__ == "__main__":
    print(json.dumps(peak_of_one(*sys.argv[1:])))

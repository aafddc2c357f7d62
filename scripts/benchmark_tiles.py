"""`benchmark.py tiles`: time of a step of adam in tiles and without tiles, and its memory at each size."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_steps import status
from measuring import Pictures, in_turns, ratios
from tyro.conf import OmitArgPrefixes

from jaxstyle import VGG19, Adam, Objective, init_state, load_image, load_params, make_targets
from jaxstyle.networks.conv import prepared
from jaxstyle.optim.loop import run_segment


@dataclass(frozen=True)
class Tiles:
    """Time a step of the default objective in tiles, and measure the memory of a step in one process per size."""

    pictures: OmitArgPrefixes[Pictures]
    size: int = 1024
    """Side of the square image that is timed, in pixels."""
    window: int = 2**20 * 3 // 5
    """Pixels of a tile with its margin, for the measurement of time."""
    sides: tuple[int, ...] = (1000, 2000, 4000)
    """Sides of the square images of the measurement of memory; 8000 takes a quarter of an hour."""
    peak_window: int = 2**19
    """Pixels of a tile with its margin, for the measurement of memory."""

    def run(self) -> None:
        """Measure and print; Linux only."""
        timed = {
            name: _steps(*self._given(), side=self.size, window=window)
            for name, window in (("untiled", None), ("tiles", self.window))
        }
        rows = in_turns(timed, turns=self.pictures.turns)
        best = [{name: min(row[name] for row in rows) for name in timed} | ratios(rows, "tiles", "untiled")]
        settings = {"size": self.size, "window": self.window}
        self.pictures.report("tiles: seconds per step", [{**best[0], "turns": rows}], **settings)
        results = []
        for side in self.sides:
            arguments = [*map(str, self._given()), str(side), str(self.peak_window)]
            done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
            results.append({"megapixels": side * side / 1e6, **json.loads(done.stdout.splitlines()[-1])})
        self.pictures.report("tiles: memory of a step", results, window=self.peak_window)

    def _given(self) -> tuple[Path, Path, str]:
        return self.pictures.content, self.pictures.style, self.pictures.network


def _steps(content: Path, style: Path, network: str, *, side: int, window: int | None) -> Callable[[], object]:
    """Return a function that performs one compiled step on a square image; `window` is `VGG19.tile_pixels`."""
    params, tiled, objective = load_params(network), VGG19(tile_pixels=window), Objective()
    picture = jnp.asarray(load_image(content, size=(side, side)).rgb)
    painting = jnp.asarray(load_image(style, size=512).rgb)
    targets = make_targets(params, picture, painting, objective=objective, network=tiled)
    ready = jax.jit(prepared)(params)
    state = jax.tree.map(jnp.copy, init_state(picture, objective=objective, optimizer=Adam()))
    step = run_segment.lower(state, ready, targets, objective, np.int32(1), network=tiled, most_steps=1).compile()

    def take() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, ready, targets, objective, np.int32(1)))

    return take


def peak_of_one(content: str, style: str, network: str, side: str, window: str) -> dict[str, float]:
    """Return the seconds of one step in tiles in this process, and its peak of resident memory in MiB."""
    take = _steps(Path(content), Path(style), network, side=int(side), window=int(window))
    began = time.perf_counter()
    take()
    seconds, peak = time.perf_counter() - began, status("VmHWM")
    return {"first step, s": seconds, "peak, MiB": peak, "bytes per pixel": 2**20 * peak / int(side) ** 2}


if __name__ == "__main__":
    print(json.dumps(peak_of_one(*sys.argv[1:])))

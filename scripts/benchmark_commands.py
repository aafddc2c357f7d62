"""`benchmark.py sweep` and `startup`: whole commands, as a user types them."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from measuring import Pictures, in_turns, ratios
from tyro.conf import OmitArgPrefixes

from jaxstyle import Config, LossWeights, load_params, stylize
from jaxstyle.sweep import sweep

STRENGTHS = (3.0, 10.0, 30.0, 60.0, 100.0, 300.0)


@dataclass(frozen=True)
class Sweep:
    """Time six pictures by one sweep against six runs: whole processes on a CPU, warm calls on an accelerator."""

    pictures: OmitArgPrefixes[Pictures]
    sizes: tuple[int, ...] = (96, 192)
    """Longest sides, in pixels."""
    steps: int = 50
    """Gradient evaluations of each picture."""

    def run(self) -> None:
        """Measure and print."""
        make = self._processes if jax.default_backend() == "cpu" else self._warm
        results = []
        for size in self.sizes:
            with tempfile.TemporaryDirectory() as folder:
                rows = in_turns(make(size, Path(folder)), turns=self.pictures.turns, warm=make == self._warm)
            results.append({"size": size, "turns": rows, **ratios(rows, "one sweep", "six runs")})
        self.pictures.report("sweep", results, steps=self.steps)

    def _processes(self, size: int, folder: Path) -> dict[str, Callable[[], object]]:
        content, style = self.pictures.content, self.pictures.style
        shared = ["--size", size, "--steps", self.steps, "--optimizer", "adam", "--scales", 1, "--quiet"]
        shared += ["--network", self.pictures.network]

        def together() -> None:
            weights = ",".join(map(str, STRENGTHS))
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                jaxstyle("sweep", content, style, "-o", fresh, "--style-weight", weights, *shared)

        def alone() -> None:
            for strength in STRENGTHS:
                jaxstyle("stylize", content, style, "-o", folder / "a.png", "--style-weight", strength, *shared)

        return {"one sweep": together, "six runs": alone}

    def _warm(self, size: int, _: Path) -> dict[str, Callable[[], object]]:
        content, style = self.pictures.load(size)
        params, config = load_params(self.pictures.network), Config(optimizer="adam", scales=1)

        def weights(strength: jax.Array) -> LossWeights:
            return LossWeights(style={layer: strength / 5 for layer in config.style_layers})

        def together() -> None:
            lanes = weights(jnp.asarray(STRENGTHS))
            jax.block_until_ready(sweep(params, content, style, lanes, config=config, steps=self.steps).image)

        def alone() -> None:
            for strength in STRENGTHS:
                own = weights(jnp.asarray(strength))
                painted = stylize(params, content, style, weights=own, config=config, steps=self.steps)
                jax.block_until_ready(painted.image)

        return {"one sweep": together, "six runs": alone}


@dataclass(frozen=True)
class Startup:
    """Time `jaxstyle --help`, and a second `jaxstyle stylize` from the start of its process until one step is done."""

    pictures: OmitArgPrefixes[Pictures]
    size: int = 256
    """Longest side, in pixels."""

    def run(self) -> None:
        """Measure and print."""
        results = []
        with tempfile.TemporaryDirectory() as folder:
            for name, call in {
                "--help": lambda: jaxstyle("--help"),
                f"stylize, {self.size} pixels, to the first step": lambda: self._first_step(Path(folder)),
            }.items():
                rows = in_turns({name: call}, turns=self.pictures.turns)
                seconds = [row[name] for row in rows]
                results.append({"command": name, "best, s": min(seconds), "worst, s": max(seconds), "turns": seconds})
        self.pictures.report("startup", results, size=self.size)

    def _first_step(self, folder: Path) -> None:
        output, first = folder / "out.png", folder / "out_0001.png"
        first.unlink(missing_ok=True)
        command = ["stylize", self.pictures.content, self.pictures.style, "-o", output, "--size", self.size]
        command += ["--network", self.pictures.network, "--save-every", 1, "--quiet"]
        process = subprocess.Popen([sys.executable, "-m", "jaxstyle", *map(str, command)])
        while not first.exists() and process.poll() is None:
            time.sleep(0.005)
        process.terminate()
        process.wait()


def jaxstyle(*arguments: object) -> None:
    """Run the command and wait for it."""
    command = [sys.executable, "-m", "jaxstyle", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

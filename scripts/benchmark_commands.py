"""`benchmark.py sweep` and `startup`: complete commands, as a user types them."""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from measuring import Pictures, in_turns, ratios
from tyro.conf import OmitArgPrefixes

from jaxstyle import Adam, Objective, load_image, load_params, save_image, stylize
from jaxstyle.transfer.sweep import sweep

# Heights and widths: of cameras and phones, of squares, and of crops by hand.
RATIOS = ((3, 4), (4, 3), (9, 16), (16, 9), (1, 1), (2, 3), (3, 2), (13, 16), (5, 7), (10, 13), (11, 20), (17, 14))
STRENGTHS = (3.0, 10.0, 30.0, 60.0, 100.0, 300.0)


@dataclass(frozen=True)
class Sweep:
    """Time six pictures by one sweep and by six runs: complete processes on a CPU, warm calls on an accelerator."""

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
        images = load_params(self.pictures.network), content, style
        options: dict[str, Any] = {"optimizer": Adam(), "scales": 1, "steps": self.steps}

        def objective(strength: jax.Array) -> Objective:
            default = Objective()
            return replace(default, style=dict.fromkeys(default.style_layers, strength / len(default.style)))

        def together() -> None:
            jax.block_until_ready(sweep(*images, objective=objective(jnp.asarray(STRENGTHS)), **options).image)

        def alone() -> None:
            for strength in STRENGTHS:
                jax.block_until_ready(stylize(*images, objective=objective(jnp.asarray(strength)), **options).image)

        return {"one sweep": together, "six runs": alone}


@dataclass(frozen=True)
class Startup:
    """Time whole commands: with an empty cache of programs, again, at another size, and a batch of twelve sizes.

    With --baseline, a checkout of another version runs the same commands in turns, with caches of its own.
    """

    pictures: OmitArgPrefixes[Pictures]
    size: int = 256
    """Longest side, in pixels."""
    steps: int = 100
    """Gradient evaluations of each picture."""
    baseline: Path | None = None
    """A checkout of another version."""
    batch: bool = True
    """Time the batch too."""

    def run(self) -> None:
        """Measure and print."""
        sides = {"jaxstyle": None} | ({"baseline": self.baseline} if self.baseline else {})
        measured: dict[tuple[str, str], list[Run]] = {}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shapes = self._crops(folder / "contents") if self.batch else 0
            for turn in range(self.pictures.turns):
                for side, checkout in sides.items():
                    cache = folder / f"{side} {turn}"
                    for what, command in self._commands(folder, shapes).items():
                        run = timed(command, cache=cache, checkout=checkout)
                        measured.setdefault((what, side), []).append(run)
        rows = []
        for (what, side), runs in measured.items():
            best = min(runs, key=lambda run: run.seconds)
            row: dict[str, Any] = {"command": what, "version": side, **best._asdict()}
            if self.baseline and side == "jaxstyle":
                other = min(measured[what, "baseline"], key=lambda run: run.seconds)
                row["of the baseline's seconds"] = best.seconds / other.seconds
            rows.append({**row, "turns": [run._asdict() for run in runs]})
        self.pictures.report("startup", rows, size=self.size, steps=self.steps)

    def _commands(self, folder: Path, shapes: int) -> dict[str, list[object]]:
        shared = ["-o", folder / "out.png", "--steps", self.steps, "--network", self.pictures.network]
        stylize = ["stylize", self.pictures.content, self.pictures.style, *shared, "--size"]
        commands: dict[str, list[object]] = {
            "--help": ["--help"],
            "cold": [*stylize, self.size],
            "warm": [*stylize, self.size],
            "another size": [*stylize, self.size * 3 // 4],
            "four steps": [*stylize, self.size, "--steps", 4],
        }
        if shapes:
            out = folder / f"{time.monotonic_ns()}"
            batch = ["batch", folder / "contents", "--styles", self.pictures.style, "-o", out, *shared[2:]]
            commands[f"batch of {shapes} sizes"] = [*batch, "--size", self.size]
        return commands

    def _crops(self, folder: Path) -> int:
        """Save crops of the content of twelve aspect ratios; return their number."""
        folder.mkdir()
        content = load_image(self.pictures.content, size=2 * self.size).rgb
        longest = min(content.shape[:2])
        for number, (height, width) in enumerate(RATIOS):
            share = longest / max(height, width)
            save_image(folder / f"{number}.png", content[: round(share * height), : round(share * width)])
        return len(RATIOS)


class Run(NamedTuple):
    """What a command took; the steps and the programs are those of its summary lines."""

    seconds: float
    processor_seconds: float
    step_seconds: float
    programs: int


def timed(command: Sequence[object], *, cache: Path, checkout: Path | None = None) -> Run:
    """Run the command with a folder for what it caches, by the installed version or by a checkout."""
    environment = os.environ | {"JAXSTYLE_CACHE": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if checkout is not None:
        environment["PYTHONPATH"] = str(checkout)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program = [sys.executable, "-m", "jaxstyle", *map(str, command)]
    said = subprocess.run(program, env=environment, check=True, capture_output=True, text=True).stderr
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    steps = sum(map(float, re.findall(r"steps(?: [^(]*)? in ([0-9.]+) s", said)))
    programs = sum(map(int, re.findall(r"(\d+) programs compiled", said)))
    return Run(seconds, processor, steps, programs)


def jaxstyle(*arguments: object) -> None:
    """Run the command and wait for it."""
    command = [sys.executable, "-m", "jaxstyle", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

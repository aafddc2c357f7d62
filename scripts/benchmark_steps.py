"""`benchmark.py step` and `memory`: steps of adam in jaxstyle and in PyTorch."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from measuring import PRESET, Pictures, in_turns, matrix_peak, ratios
from tyro.conf import OmitArgPrefixes

from jaxstyle import Adam, init_state, load_params, make_targets, run_steps
from jaxstyle.errors import InputError
from jaxstyle.networks.conv import Precision, prepared
from jaxstyle.runtime.estimates import gflop_per_step
from jaxstyle.transfer.schedule import Scale

Side = Callable[[int], float]  # runs this many steps and returns the objective before the last one
Baseline = Literal["none", "torch", "compile", "both"]
SIDES: dict[Baseline, tuple[str, ...]] = {
    "none": (),
    "torch": ("torch",),
    "compile": ("torch.compile",),
    "both": ("torch", "torch.compile"),
}
MEASURED = ("jaxstyle", "jaxstyle --remat", "torch")
TOLERANCE = {
    "float32": 1e-3,
    "tf32": 1e-2,
    "bfloat16": 5e-2,
}  # maximum relative difference between the objectives of both sides


@dataclass(frozen=True)
class Step:
    """Time steps of adam, and compute the fraction of the machine's peak performance that they reach."""

    pictures: OmitArgPrefixes[Pictures]
    sizes: tuple[int, ...] = (256, 512)
    """Longest sides, in pixels."""
    steps: int = 3
    """Steps in each turn."""
    baseline: Baseline = "none"
    """Baseline: PyTorch, eager or by torch.compile, in the same precision."""
    precision: Precision = "float32"
    """Precision of convolutions, on both sides."""
    batch_size: int = 1
    """Number of images per batch, without a baseline."""

    def run(self) -> None:
        """Measure and print."""
        if self.batch_size > 1 and self.baseline != "none":
            raise InputError(
                f"--batch-size is {self.batch_size}, but --baseline {self.baseline} has 1 image: drop one of them."
            )
        params, peak, results = load_params(self.pictures.network), matrix_peak(precision=self.precision), []
        names = ("jaxstyle", *SIDES[self.baseline])
        for size in self.sizes:
            content, style = self.pictures.load(size)
            options: dict[str, Any] = {"precision": self.precision, "batch_size": self.batch_size}
            take = {name: side(name, params, content, style, **options) for name in names}
            began = time.perf_counter()
            first = [take["jaxstyle"](self.steps)]  # compiles the program
            seconds = time.perf_counter() - began
            first += [take[name](self.steps) for name in names[1:]]
            if max(first) > (1 + TOLERANCE[self.precision]) * min(first):
                raise InputError(
                    f"After {self.steps} steps the objectives are {first}, so the sides minimize different functions: "
                    "use fewer --steps or --precision float32."
                )
            calls = {name: lambda take_steps=take_steps: take_steps(self.steps) for name, take_steps in take.items()}
            rows = in_turns(calls, turns=self.pictures.turns)
            best = {name: min(row[name] for row in rows) / self.steps for name in names}
            scale = Scale(*content.shape[:2], steps=1)
            arithmetic = self.batch_size * gflop_per_step(params, scale, objective=PRESET.objective)
            speed = arithmetic / best["jaxstyle"]
            result = {"size": size, **{f"{name}, s": value for name, value in best.items()}}
            result |= {
                "first call of jaxstyle, s": seconds,
                "GFLOP": arithmetic,
                "GFLOP/s": speed,
                "of matrix peak": speed / peak,
                "turns": rows,
            }
            for name in names[1:]:
                result |= {f"over {name}, {key}": value for key, value in ratios(rows, "jaxstyle", name).items()}
            results.append(result)
        print(f"{self.precision} matrix products reach {peak:.0f} GFLOP/s; GFLOP are those of direct convolutions")
        settings = {name: value for name, value in vars(self).items() if name not in ("pictures", "sizes")}
        self.pictures.report("step", results, **settings, matrix_peak=peak)


@dataclass(frozen=True)
class Memory:
    """Run steps of adam in separate processes, and compare their peaks of resident memory above the idle process."""

    pictures: OmitArgPrefixes[Pictures]
    sizes: tuple[int, ...] = (1024,)
    """Longest sides, in pixels."""
    steps: int = 2
    """Steps in each process."""

    def run(self) -> None:
        """Measure and print; Linux only."""
        results = []
        for size in self.sizes:
            rows = [{name: self._peak(name, size) for name in MEASURED} for _ in range(self.pictures.turns)]
            best = {f"{name}, MiB": min(row[name] for row in rows) for name in MEASURED}
            over = {f"{name} over torch": ratios(rows, name, "torch")["median"] for name in MEASURED[:2]}
            results.append({"size": size, **best, **over, "turns": rows})
        self.pictures.report("memory", results, steps=self.steps)

    def _peak(self, name: str, size: int) -> float:
        arguments = [name, self.pictures.content, self.pictures.style, self.pictures.network, size, self.steps]
        command = [sys.executable, __file__, *map(str, arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])


def side(
    name: str,
    params: Any,
    content: jax.Array,
    style: jax.Array,
    *,
    precision: Precision = "float32",
    batch_size: int = 1,
) -> Side:
    """Return a function that runs steps of adam; the initial image is near the content, whose term is not zero."""
    start = 0.8 * content + 0.1
    if name.startswith("torch"):
        import torch
        import torch_baseline

        objective = torch_baseline.Objective(params, np.asarray(content), np.asarray(style), precision=precision)
        compiled: Any = torch.compile(objective) if name == "torch.compile" else objective
        return torch_baseline.Adam(compiled, np.asarray(start)).run
    network = PRESET.network.clone(precision=precision, remat=(1, 2) if name.endswith("--remat") else ())
    targets = make_targets(params, content, style, objective=PRESET.objective, network=network)
    params = jax.jit(prepared, static_argnames="precision")(params, precision=precision)
    images = start if batch_size == 1 else jnp.stack([start] * batch_size)
    state = init_state(images, objective=PRESET.objective, optimizer=Adam(learning_rate=1 / 255))

    def take(steps: int) -> float:
        nonlocal state
        state, history = run_steps(state, params, targets, PRESET.objective, network=network, steps=steps)
        return float(jnp.ravel(history["total"])[-1])

    return take


def status(field: str) -> float:
    """Return a field of the memory of this process, such as VmRSS or VmHWM, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak_of_one(name: str, content: str, style: str, network: str, size: str, steps: str) -> float:
    """Return the peak of resident memory of some steps above that before the first, in MiB."""
    params = load_params(network)
    take = side(name, params, *Pictures(Path(content), Path(style)).load(int(size)))
    jnp.zeros(1).block_until_ready()
    idle = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    take(int(steps))
    return status("VmHWM") - idle


if __name__ == "__main__":
    print(json.dumps(peak_of_one(*sys.argv[1:])))

"""What benchmarks share: pictures, turns, the machine, results as a table and as JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from tyro.conf import Positional, arg

from jaxstyle import load_image, presets
from jaxstyle.networks.conv import PRODUCTS, Precision

PRESET = presets.preset("neural-style-pt")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


@dataclass(frozen=True)
class Pictures:
    """What is painted, by which network, how often, and where results go."""

    content: Annotated[Positional[Path], arg(metavar="CONTENT")]
    """The photograph."""
    style: Annotated[Positional[Path], arg(metavar="STYLE")]
    """The painting."""
    network: str = "auto"
    """As of `jaxstyle stylize`."""
    turns: int = 3
    """How often both sides are timed."""
    json: Path | None = None
    """A file for results, machine, versions and settings."""

    def load(self, size: int) -> tuple[jax.Array, jax.Array]:
        """Return photograph and painting as neural-style-pt resizes them."""
        how: dict[str, Any] = {"size": size, "resample": PRESET.resample, "rounding": PRESET.rounding}
        content, style = (jnp.asarray(load_image(path, **how).rgb) for path in (self.content, self.style))
        return content, style

    def report(self, name: str, results: list[dict[str, Any]], **settings: Any) -> None:
        """Print results, and write them if a file is named."""
        report(name, {**vars(self), **settings}, results, self.json)


def in_turns(sides: Mapping[str, Callable[[], object]], *, turns: int, warm: bool = True) -> list[dict[str, float]]:
    """Return the seconds of each side in each turn; with `warm`, after one turn that does not count."""
    rows: list[dict[str, float]] = []
    for turn in range(turns + warm):
        row = {}
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            row[name] = time.perf_counter() - began
        rows += [row] if turn or not warm else []
    return rows


def ratios(rows: Sequence[Mapping[str, float]], over: str, under: str) -> dict[str, Any]:
    """Return the ratio of one side to another, turn by turn, with median, least and most."""
    each = [row[over] / row[under] for row in rows]
    return {"each": each, "median": statistics.median(each), "least": min(each), "most": max(each)}


def matrix_peak(*, precision: Precision = "float32", turns: int = 5) -> float:
    """Return how many GFLOP/s the device reaches in a product of square matrices of that precision, at best."""
    size = 3072 if jax.default_backend() == "cpu" else 8192
    square = jnp.ones((size, size), jnp.bfloat16 if precision == "bfloat16" else jnp.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=PRODUCTS[precision]))
    product(square, square).block_until_ready()
    rows = in_turns({"product": lambda: product(square, square).block_until_ready()}, turns=turns)
    return 2 * size**3 / min(row["product"] for row in rows) / 1e9


def machine() -> dict[str, Any]:
    """Return processor, device and versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def report(name: str, settings: Mapping[str, Any], results: Sequence[Mapping[str, Any]], path: Path | None) -> None:
    """Print results as a table, and write all there is to know as JSON."""
    here = machine()
    print(f"\n{name}: {here['processor']}, {here['processors']} processors, device {here['device']}")
    columns = list(dict.fromkeys(key for row in results for key, value in row.items() if not isinstance(value, list)))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in results:
        print("| " + " | ".join(_shown(row.get(column, "")) for column in columns) + " |", flush=True)
    if path is not None:
        whole = {"benchmark": name, "machine": here, "settings": dict(settings), "results": list(results)}
        path.write_text(json.dumps(whole, indent=1, default=str) + "\n")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

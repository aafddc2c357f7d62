"""What jaxstyle takes, against what it is held to: both sides in turns in one run, and the share of one in the other.

python scripts/benchmark.py sweep photo.jpg painting.jpg

`sweep`: six pictures by one `jaxstyle sweep` against six calls of `jaxstyle stylize` with the same settings, as whole
processes on a CPU; on an accelerator, one warm call of `sweep` against six warm runs of `stylize` in this process.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import tyro
from tyro.conf import Positional, arg

from jaxstyle import Config, LossWeights, image, load_params, stylize
from jaxstyle.errors import InputError
from jaxstyle.sweep import sweep

STRENGTHS = (3.0, 10.0, 30.0, 60.0, 100.0, 300.0)


def processes(content: Path, style: Path, *, size: int, steps: int, network: str) -> tuple[float, float]:
    """Return the seconds of one sweep of six lanes and of six single runs, each a command of its own."""
    shared = ["--size", str(size), "--steps", str(steps), "--optimizer", "adam", "--scales", "1", "--quiet"]
    shared += ["--network", network]
    with tempfile.TemporaryDirectory() as folder:
        weights = ",".join(map(str, STRENGTHS))
        began = time.perf_counter()
        _jaxstyle("sweep", content, style, "-o", f"{folder}/sweep", "--style-weight", weights, *shared)
        together = time.perf_counter() - began
        began = time.perf_counter()
        for strength in STRENGTHS:
            _jaxstyle("stylize", content, style, "-o", f"{folder}/a.png", "--style-weight", strength, *shared)
        return together, time.perf_counter() - began


def _jaxstyle(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "jaxstyle", *map(str, arguments)], check=True)


def warm(content: Path, style: Path, *, size: int, steps: int, network: str) -> tuple[float, float]:
    """Return the seconds of one sweep of six lanes and of six single runs in this process, compiled beforehand."""
    photograph, painting = (jnp.asarray(image.load(path, size=size).rgb) for path in (content, style))
    params, config = load_params(network), Config(optimizer="adam", scales=1)

    def weights(strength: jax.Array) -> LossWeights:
        return LossWeights(style={layer: strength / 5 for layer in config.style_layers})

    def together() -> None:
        found = sweep(params, photograph, painting, weights(jnp.asarray(STRENGTHS)), config=config, steps=steps)
        jax.block_until_ready(found.image)

    def alone() -> None:
        for strength in STRENGTHS:
            own = weights(jnp.asarray(strength))
            found = stylize(params, photograph, painting, weights=own, config=config, steps=steps)
            jax.block_until_ready(found.image)

    seconds = []
    for run in (together, alone):
        run()
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def main(
    what: Positional[Literal["sweep"]],
    content: Annotated[Positional[Path], arg(metavar="CONTENT")],
    style: Annotated[Positional[Path], arg(metavar="STYLE")],
    *,
    sizes: tuple[int, ...] = (96, 192),
    steps: int = 50,
    turns: int = 3,
    network: str = "auto",
) -> None:
    """Measure in turns and print the share of each, then their median.

    Args:
        what: which benchmark: sweep.
        content: the photograph.
        style: the painting.
        sizes: longest sides, in pixels.
        steps: gradient evaluations of each picture.
        turns: how often both sides are timed.
        network: as of `jaxstyle stylize`.
    """
    for path in (content, style):
        image.load(path, size=min(sizes))
    device = jax.devices()[0]
    timed = processes if device.platform == "cpu" else warm
    print(f"{device.device_kind}, jax {jax.__version__}, six lanes of adam, {steps} steps")
    for size in sizes:
        shares = []
        for _ in range(turns):
            together, alone = timed(content, style, size=size, steps=steps, network=network)
            shares.append(together / alone)
            print(f"{size} pixels: sweep {together:.1f} s, six runs {alone:.1f} s, share {shares[-1]:.2f}", flush=True)
        print(f"{size} pixels: median share {statistics.median(shares):.2f}")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (InputError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"benchmark.py: {error}")

"""`jaxstyle stylize --preview`: how long the real network would take for what the mini network has just done."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxstyle import optimize
from jaxstyle.conv import prepared
from jaxstyle.targets import make_targets
from jaxstyle.untrained import random_params

if TYPE_CHECKING:
    from jaxstyle.cli.progress import Reporter
    from jaxstyle.cli.work import Work
    from jaxstyle.config import Config, LossWeights

SIDE = 192  # pixels of the picture that is timed; a step's time goes with the number of pixels
STEPS = 3  # the fastest counts; the first one warms caches up


def forecast(work: Work, *, output: Path, reporter: Reporter) -> None:
    """Tell the user how long VGG-19 would take for what the mini network has just done."""
    height, width, _ = work.content.shape
    pixels = sum(scale.steps * scale.height * scale.width for scale in work.scales())
    try:
        with reporter.console.status("Timing VGG-19"):
            style = next((style for style in work.styles if not isinstance(style, Mapping)), work.content)
            seconds = seconds_a_step(work.content, style, work.weights, config=work.config)
        reporter.console.print(advice(seconds * pixels / (height * width), steps=work.steps, output=output))
    except (KeyboardInterrupt, MemoryError, jax.errors.JaxRuntimeError):
        reporter.console.print("VGG-19 was not timed.")  # the picture is saved all the same


def seconds_a_step(content: jax.Array, style: jax.Array, weights: LossWeights, *, config: Config) -> float:
    """Return how long a step on VGG-19 takes on this machine, timed on a reduced picture with random kernels.

    Kernels of any values cost the same, so VGG-19 need not be installed; a reduced picture costs little.
    """
    reduced, style = (_reduced(picture) for picture in (content, style))
    params = prepared(random_params(), precision=config.precision, conv=config.conv)
    targets = make_targets(params, reduced, style, key=jax.random.key(0), config=config)
    state = optimize.init(reduced, config=config)
    step = optimize.run.lower(state, params, targets, weights, config=config, steps=1).compile()
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, params, targets, weights))
        times.append(time.perf_counter() - began)
    return min(times) * content.size / reduced.size


def advice(seconds: float, *, steps: int, output: Path) -> str:
    """Return a line for the user: how long the real run would take, and how it can start from the preview."""
    duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return (
        f"VGG-19 would take about {duration} here for these {steps} steps (timed on {SIDE} pixels); to start it from "
        f"this picture, replace --preview by --network vgg19 --scales 1 --init {shlex.quote(str(output))} and name "
        "another output."
    )


def _reduced(picture: jax.Array) -> jax.Array:
    height, width, channels = picture.shape
    scale = min(1.0, SIDE / max(height, width))
    shape = (max(16, round(scale * height)), max(16, round(scale * width)), channels)
    return jnp.clip(jax.image.resize(picture, shape, "linear"), 0.0, 1.0)

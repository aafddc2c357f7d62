"""Estimates of a run: its memory, the time of its steps, and its operations, computed as direct convolutions."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import jax
import numpy as np

from jaxstyle.distributed.processes import allgather_json
from jaxstyle.images.resample import half_shape
from jaxstyle.networks.random_init import param_shapes
from jaxstyle.networks.vgg import CONV_LAYERS, VGG19, Params
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.runtime.callbacks import Callback, message
from jaxstyle.runtime.memory import limit, peak_of
from jaxstyle.runtime.problem import CompiledScale, Problem
from jaxstyle.transfer.schedule import Scale

# Time per operation of VGG-19 over that of the mini network, whose narrow layers reach less of the peak performance:
# 0.504 and 0.079 s per step at 256 pixels on two cores (AMD EPYC), for 14.8 times the operations.
RELATIVE_TIME = 0.43
LONG = 5.0  # seconds; longer segments are timed only once


class Estimate(NamedTuple):
    """Estimate of a run.

    Attributes:
        scales: the scales and their steps.
        gflop: operations of a step of the whole batch at the last scale, in GFLOP; NaN for a user-defined network.
        memory: most bytes in use by the process, or on the accelerator.
        limit: available bytes.
        fits: whether the targets of custom objectives and the last scale fit, in every process.
        seconds: duration of all steps, and of the targets of custom objectives, without compilation; None if they do
            not fit.
        seconds_per_step: duration of a step at the last scale; None if they do not fit.
    """

    scales: tuple[Scale, ...]
    gflop: float
    memory: int
    limit: int
    fits: bool
    seconds: float | None
    seconds_per_step: float | None


class MemoryPlan(NamedTuple):
    """How the steps of a scale fit into memory.

    Attributes:
        kind: "whole" for the full image at once, "row chunks", or "tiles".
        pixels: number of pixels of a tile, or of the image.
        memory: most bytes in use while the program runs.
    """

    kind: Literal["whole", "row chunks", "tiles"]
    pixels: int
    memory: int


def estimate(problem: Problem, *, callbacks: Sequence[Callback] = ()) -> Estimate:
    """Return an estimate of memory, time and operations; it compiles every scale, which a run then reuses.

    The targets of a custom objective are compiled once more, for their memory. Steps of the first scale and of all of
    the last size are timed, others interpolated by their number of pixels.

    Args:
        problem: the problem.
        callbacks: receive the events "estimating".

    Raises:
        InputError: if the steps do not fit into the memory budget of the problem.
    """
    scales, objective = problem.schedule, problem.objective
    message(callbacks, "Compiling and timing", kind="estimating")
    last, need, most, fits = scales[-1], 0, limit(), True
    timed: dict[int, float] = {}  # seconds per step
    if problem.keeps_start:  # targets depend on the initial image, such as those of matched features
        need = problem.memory_of_targets([scale[:2] for scale in scales].index(last[:2]))
        fits = need <= most
    for number, scale in enumerate(scales if fits else ()):
        ready = problem.at(number)
        need, most = max(need, peak_of(ready.step, missing=ready.state_bytes)), limit()
        fits = all(allgather_json(need <= most)) if problem.spans_processes else need <= most
        if fits and (number == 0 or scale[:2] == last[:2]):  # a last pass has another program than the one before
            timed[number] = seconds_per_step(problem, ready, scale)
    gflop = float("nan")
    if isinstance(problem.network, VGG19):
        gflop = problem.count * gflop_per_step(problem.params, last, objective=objective)
    if not fits:
        return Estimate(scales, gflop, need, most, fits, None, None)
    pixels = [pixels_per_step(scale, objective=objective) for scale in scales]
    ends = sorted(timed)[:2]  # the first scale, and the first of the last size
    line = [pixels[number] for number in ends], [timed[number] for number in ends]
    per_step = [timed.get(number, np.interp(count, *line)) for number, count in enumerate(pixels)]
    seconds = float(sum(scale.steps * one for scale, one in zip(scales, per_step, strict=True)))
    if problem.keeps_start:  # matching takes long
        began = time.perf_counter()
        for number in range(len(scales)):
            jax.block_until_ready(problem.targets(number))
        seconds += time.perf_counter() - began
    return Estimate(scales, gflop, need, most, fits, seconds, timed[len(scales) - 1])


def plan_memory(problem: Problem, limit: int | None = None) -> dict[int, MemoryPlan]:
    """Return the memory plan of each scale by its longest side, with the least additional work that fits.

    Args:
        problem: the problem; every scale is compiled.
        limit: memory budget of the process in bytes; None for most of the free memory.

    Raises:
        InputError: if the steps do not fit into the budget in the smallest tiles.

    Example:
        >>> plan_memory(make_problem(params, content, style), 2**32)[512].kind  # doctest: +SKIP
        'whole'
    """
    plans: dict[int, MemoryPlan] = {}
    for number, scale in enumerate(problem.schedule):
        ready, pixels = replace(problem, memory=limit).at(number), scale.height * scale.width
        memory = peak_of(ready.step, missing=ready.state_bytes)
        kind = "whole" if not ready.memory_plan else "tiles" if ready.memory_plan < pixels else "row chunks"
        plan, side = MemoryPlan(kind, ready.memory_plan or pixels, memory), max(scale.height, scale.width)
        plans[side] = max(plan, plans.get(side, plan), key=lambda each: each.memory)  # a last pass repeats the size
    return plans


def gflop_per_step(params: Params, scale: Scale, *, objective: AnyObjective) -> float:
    """Return the GFLOP of the objective and of its gradient with respect to the image; `params` may be shapes."""
    deepest = max(CONV_LAYERS.index("conv" + layer[4:]) for layer in objective.layers)
    style_layers = getattr(objective, "style_layers", ())
    operations = 0
    for name in filter(params.__contains__, CONV_LAYERS[: deepest + 1]):
        block = int(name[4]) - 1
        pixels = (scale.height >> block) * (scale.width >> block)
        kernel = params[name]["kernel"]
        operations += 2 * 2 * kernel.size * pixels  # forward and backward
        if {"relu" + name[4:], name} & set(style_layers):
            operations += 2 * 2 * kernel.shape[-1] ** 2 * pixels  # the Gram matrix, forward and backward
    return operations * pixels_per_step(scale, objective=objective) / (scale.height * scale.width) / 1e9


def pixels_per_step(scale: Scale, *, objective: AnyObjective) -> float:
    """Return the number of pixels that a step evaluates, including those at half resolution."""
    pixels, above = scale.height * scale.width, getattr(objective, "half_resolution_above", None)
    if above is None or max(scale.height, scale.width) <= above:
        return pixels
    return pixels + pixels_per_step(Scale(*half_shape(scale.height, scale.width), steps=0), objective=objective)


def seconds_per_step(problem: Problem, ready: CompiledScale, scale: Scale) -> float:
    """Return the seconds per step in the second call of a program, or in the first if that is long."""
    state, seconds = problem.begin(problem.initial_image(scale, None)), 0.0
    for _ in range(2):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(
            ready.step(state, problem.ready(scale), ready.targets, problem.placed_objective, np.int32(ready.segment))
        )
        seconds = time.perf_counter() - began
        seconds = max(allgather_json(seconds)) if problem.spans_processes else seconds
        if seconds > LONG:
            break
    return seconds / ready.segment


def vgg19_seconds(problem: Problem, *, seconds: float) -> float:
    """Estimate the time of VGG-19 from that of the mini network, by the ratio of operations and `RELATIVE_TIME`."""
    mini, full = (
        sum(scale.steps * gflop_per_step(params, scale, objective=problem.objective) for scale in problem.schedule)
        for params in (problem.params, param_shapes())
    )
    return RELATIVE_TIME * seconds * full / mini

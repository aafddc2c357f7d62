"""Estimates of a run: its floating-point operations, computed as direct convolutions, and the time of its steps."""

import time

import jax
import numpy as np

from jaxstyle.config import Config
from jaxstyle.distributed.processes import of_all
from jaxstyle.images.resample import half_shape
from jaxstyle.networks.random_init import param_shapes
from jaxstyle.networks.vgg import CONV_LAYERS, Params
from jaxstyle.runtime.problem import Ready, Work
from jaxstyle.transfer.schedule import Scale

# Time per operation of VGG-19 over that of the mini network, whose narrow layers reach less of the peak performance:
# 0.721 and 0.090 s per step at 256 pixels on two cores (AMD EPYC), for 14.8 times the operations.
RELATIVE_TIME = 0.54
LONG = 5.0  # seconds; longer segments are timed only once


def gflop_per_step(params: Params, scale: Scale, *, config: Config) -> float:
    """Return the operations of the objective and of its gradient with respect to the image, in GFLOP.

    Args:
        params: the network, or its shapes.
        scale: height and width are used.
        config: layers and `halve_above` are used.
    """
    compared = config.content_layers + config.style_layers
    deepest = max(CONV_LAYERS.index("conv" + layer[4:]) for layer in compared)
    operations = 0
    for name in CONV_LAYERS[: deepest + 1]:
        block = int(name[4]) - 1
        pixels = (scale.height >> block) * (scale.width >> block)
        kernel = params[name]["kernel"]
        operations += 2 * 2 * kernel.size * pixels  # forward and backward
        if {"relu" + name[4:], name} & set(config.style_layers):
            operations += 2 * 2 * kernel.shape[-1] ** 2 * pixels  # the Gram matrix, forward and backward
    return operations * pixels_per_step(scale, config=config) / (scale.height * scale.width) / 1e9


def pixels_per_step(scale: Scale, *, config: Config) -> float:
    """Return the number of pixels that a step evaluates, including those at half resolution.

    Args:
        scale: height and width are used.
        config: `halve_above` is used.
    """
    pixels = scale.height * scale.width
    halved = config.halve_above is not None and max(scale.height, scale.width) > config.halve_above
    half = Scale(*half_shape(scale.height, scale.width), steps=0)
    return pixels + (pixels_per_step(half, config=config) if halved else 0)


def seconds_a_step(work: Work, ready: Ready, scale: Scale) -> float:
    """Return the seconds per step in the second call of a program, or in the first if that is long."""
    state, seconds = work.begin(scale), 0.0
    for _ in range(2):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(
            ready.step(state, work.ready(scale), ready.targets, work.coefficients, np.int32(ready.segment))
        )
        seconds = time.perf_counter() - began
        seconds = max(of_all(seconds)) if work.spans else seconds
        if seconds > LONG:
            break
    return seconds / ready.segment


def whole_seconds(work: Work, *, least: float, longest: float) -> float:
    """Return the seconds of all steps, from the time of a step at the first and at the last scale.

    Other scales are interpolated by their number of pixels.
    """
    scales = work.scales()
    of = [pixels_per_step(scale, config=work.config) for scale in scales]
    slope = (longest - least) / max(1.0, of[-1] - of[0])
    return sum(scale.steps * (least + slope * (own - of[0])) for scale, own in zip(scales, of, strict=True))


def vgg19_seconds(work: Work, *, seconds: float) -> float:
    """Return an estimate of the time of VGG-19 for steps that took `seconds` with the mini network.

    It is `seconds` times the ratio of the operations of both networks and `RELATIVE_TIME`; nothing is compiled or
    timed.
    """
    mini, full = (
        sum(scale.steps * gflop_per_step(params, scale, config=work.config) for scale in work.scales())
        for params in (work.params, param_shapes())
    )
    return RELATIVE_TIME * seconds * full / mini

"""`--dry-run`: what a run would take, told before it begins."""

import time

import jax

from jaxstyle.cli.agreeing import of_all
from jaxstyle.cli.memory import limit, peak_of
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.work import Ready, Work
from jaxstyle.config import Config
from jaxstyle.scales import Scale, half_shape
from jaxstyle.vgg import CONV_LAYERS, Params

LONG = 5.0  # seconds of a few steps, which are timed only once if they take longer


def rehearse(work: Work, *, rounds: int = 1, reporter: Reporter) -> None:
    """Compile every scale, time a few steps, and print how long `rounds` of all take, in how much memory.

    The first and the last scale are timed, and others taken to lie between them by their pixels. What is compiled is
    kept for the run itself.
    """
    *before, last = scales = work.scales()
    least, ready, compiling = None, None, 0.0
    with reporter.console.status("Compiling"):
        for scale in scales:
            began = time.perf_counter()
            ready = work.at(scale)
            compiling += time.perf_counter() - began
            if before and scale is before[0]:
                least = _seconds_a_step(work, ready, scale)
    assert ready is not None  # noqa: S101  # there is at least one scale
    need, most = peak_of(ready.step, missing=ready.state_bytes), limit()
    short = any(of_all(need > most)) if work.spans else need > most
    tell = print if work.leads else silent
    shown = ", ".join(f"{scale.steps} steps at {scale.width}x{scale.height}" for scale in scales)
    tell(f"scales      {shown}")
    arithmetic = (work.lanes or 1) * gflop_a_step(work.params, last, config=work.config)
    tell(f"arithmetic  {arithmetic:.0f} GFLOP a step at the last scale, as direct convolutions")
    tell(f"memory      {need / 2**30:.2f} GiB at most, of {most / 2**30:.1f} GiB")
    if short:
        cure = "lower --size or --lanes" if work.lanes else "lower --size"
        tell(f"time        not measured, since the last scale does not fit: {cure}")
        return
    with reporter.console.status("Timing"):
        longest = _seconds_a_step(work, ready, last)
    least = least or longest
    of = [_pixels(scale, config=work.config) for scale in scales]
    slope = (longest - least) / max(1.0, of[-1] - of[0])
    whole = rounds * sum(scale.steps * (least + slope * (own - of[0])) for scale, own in zip(scales, of, strict=True))
    tell(f"time        {whole:.0f} s for all steps, {longest:.3g} s for one at the last scale")
    tell(f"compiling   {compiling:.0f} s, done and kept; no picture was painted")


def gflop_a_step(params: Params, scale: Scale, *, config: Config) -> float:
    """Return the arithmetic of the objective and its gradient with respect to the image, by direct convolutions."""
    compared = config.content_layers + config.style_layers
    deepest = max(CONV_LAYERS.index("conv" + layer[4:]) for layer in compared)
    operations = 0
    for name in CONV_LAYERS[: deepest + 1]:
        block = int(name[4]) - 1
        pixels = (scale.height >> block) * (scale.width >> block)
        kernel = params[name]["kernel"]
        operations += 2 * 2 * kernel.size * pixels  # forwards and back
        if {"relu" + name[4:], name} & set(config.style_layers):
            operations += 2 * 2 * kernel.shape[-1] ** 2 * pixels  # the Gram matrix, forwards and back
    return operations * _pixels(scale, config=config) / (scale.height * scale.width) / 1e9


def _pixels(scale: Scale, *, config: Config) -> float:
    """Return the pixels of a scale, those at half its size among them where it is compared there too."""
    pixels = scale.height * scale.width
    halved = config.halve_above is not None and max(scale.height, scale.width) > config.halve_above
    half = Scale(*half_shape(scale.height, scale.width), steps=0)
    return pixels + (_pixels(half, config=config) if halved else 0)


def _seconds_a_step(work: Work, ready: Ready, scale: Scale) -> float:
    """Return how long a step takes, in a program's second call unless that is long."""
    state, seconds = work.begin(scale), 0.0
    for _ in range(2):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(ready.step(state, work.ready, ready.targets, work.coefficients))
        seconds = time.perf_counter() - began
        seconds = max(of_all(seconds)) if work.spans else seconds
        if seconds > LONG:
            break
    return seconds / ready.segment


def silent(_: str) -> None:
    """Tell nothing: another process does, or it has been told."""

"""`--dry-run`: what a run would take, told before it begins."""

import time

import jax
import numpy as np

from jaxstyle.cli.arithmetic import gflop_per_step, pixels_per_step
from jaxstyle.cli.memory import limit, peak_of
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.work import Ready, Work
from jaxstyle.distributed.processes import of_all
from jaxstyle.runtime.compile_cache import CompileTimes
from jaxstyle.transfer.schedule import Scale

LONG = 5.0  # seconds of a few steps, which are timed only once if they take longer


def rehearse(work: Work, *, rounds: int = 1, reporter: Reporter) -> None:
    """Compile every scale, time a few steps, and print how long `rounds` of all take, in how much memory.

    The first and the last scale are timed, and others taken to lie between them by their pixels. What is compiled is
    kept for the run itself.
    """
    *before, last = scales = work.scales()
    least, ready = None, None
    with reporter.console.status("Compiling"):
        for scale in scales:
            ready = work.at(scale)
            if before and scale is before[0]:
                least = _seconds_a_step(work, ready, scale)
    assert ready is not None  # noqa: S101  # there is at least one scale
    need, most = peak_of(ready.step, missing=ready.state_bytes), limit()
    short = any(of_all(need > most)) if work.spans else need > most
    tell = print if work.leads else silent
    shown = ", ".join(f"{scale.steps} steps at {scale.width}x{scale.height}" for scale in scales)
    tell(f"scales      {shown}")
    arithmetic = (work.lanes or 1) * gflop_per_step(work.params, last, config=work.config)
    tell(f"arithmetic  {arithmetic:.0f} GFLOP a step at the last scale, as direct convolutions")
    tell(f"memory      {need / 2**30:.2f} GiB at most, of {most / 2**30:.1f} GiB")
    if short:
        cure = "lower --size or --lanes" if work.lanes else "lower --size"
        tell(f"time        not measured, since the last scale does not fit: {cure}")
        return
    with reporter.console.status("Timing"):
        longest = _seconds_a_step(work, ready, last)
    least = least or longest
    of = [pixels_per_step(scale, config=work.config) for scale in scales]
    slope = (longest - least) / max(1.0, of[-1] - of[0])
    whole = rounds * sum(scale.steps * (least + slope * (own - of[0])) for scale, own in zip(scales, of, strict=True))
    tell(f"time        {whole:.0f} s for all steps, {longest:.3g} s for one at the last scale")
    times = reporter.clock.take() if reporter.clock else CompileTimes()
    loading = f"{times.loaded:.1f} s to load {times.hits}" if times.hits else "loading"
    if times.programs:
        compiling = f"{times.compiled:.1f} s to compile {times.programs} programs, now in the cache"
        tell(f"compiling   first run: {times.traced:.1f} s to trace, {compiling}; later runs: tracing and {loading}")
    else:
        tell(f"compiling   every run: {times.traced:.1f} s to trace, {loading}, which are in the cache")


def _seconds_a_step(work: Work, ready: Ready, scale: Scale) -> float:
    """Return how long a step takes, in a program's second call unless that is long."""
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


def silent(_: str) -> None:
    """Tell nothing: another process does, or it has been told."""

"""`--dry-run`: estimates of time and memory before a run."""

from jaxstyle.cli.progress import Reporter
from jaxstyle.distributed.processes import of_all
from jaxstyle.runtime.compile_cache import CompileTimes
from jaxstyle.runtime.estimate import gflop_per_step, seconds_a_step, whole_seconds
from jaxstyle.runtime.memory import limit, peak_of
from jaxstyle.runtime.problem import Work


def rehearse(work: Work, *, rounds: int = 1, reporter: Reporter) -> None:
    """Compile every scale, time a few steps, and print the time of `rounds` runs and their memory.

    The first and the last scale are timed, and others interpolated by their number of pixels. The run reuses the
    compiled programs.
    """
    *before, last = scales = work.scales()
    least, ready = None, None
    with reporter.console.status("Compiling"):
        for scale in scales:
            ready = work.at(scale)
            if before and scale is before[0]:
                least = seconds_a_step(work, ready, scale)
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
        longest = seconds_a_step(work, ready, last)
    least = least or longest
    whole = rounds * whole_seconds(work, least=least, longest=longest)
    tell(f"time        {whole:.0f} s for all steps, {longest:.3g} s for one at the last scale")
    times = reporter.clock.take() if reporter.clock else CompileTimes()
    loading = f"{times.loaded:.1f} s to load {times.hits}" if times.hits else "loading"
    if times.programs:
        compiling = f"{times.compiled:.1f} s to compile {times.programs} programs, now in the cache"
        tell(f"compiling   first run: {times.traced:.1f} s to trace, {compiling}; later runs: tracing and {loading}")
    else:
        tell(f"compiling   every run: {times.traced:.1f} s to trace, {loading}, which are in the cache")


def silent(_: str) -> None:
    """Print nothing, where another process prints the message, or for a message shown before."""

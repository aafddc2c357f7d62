"""The persistent cache of compiled programs, and the time of tracing, compilation and loading.

The key of a program is its text and the compiler options, so all commands and Python programs of a user share the
cache. `executable_cache` is beside it.
"""

import contextlib
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring

from jaxstyle.networks import pretrained
from jaxstyle.runtime import executable_cache

MOST = 2**30  # bytes; the least recently used programs are removed first
TRACE = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
COMPILE = "/jax/core/compile/backend_compile_duration"  # loading included
LOAD = "/jax/compilation_cache/cache_retrieval_time_sec"


def enable_compile_cache(folder: str | Path | None = None) -> Path:
    """Enable JAX's persistent compilation cache, and that of `executable_cache`; call it before the first computation.

    A cache that cannot be read or written costs time but raises no error. Programs in it are run, so only trusted users
    may write to the folder.

    Args:
        folder: folder of the cache; None for `jax_compilation_cache_dir`, or else that of the `jaxstyle` command.

    Returns:
        The folder.

    Example:
        >>> enable_compile_cache()  # doctest: +SKIP
        PosixPath('/home/me/.cache/jaxstyle/programs')
    """
    named = jax.config.values["jax_compilation_cache_dir"]
    if folder is None and named is not None:
        return Path(named)
    folder = pretrained.cache() / "programs" if folder is None else Path(folder)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MOST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    with contextlib.suppress(OSError):
        (folder / executable_cache.FOLDER).mkdir(parents=True, exist_ok=True)
    return folder


class CompileTimes(NamedTuple):
    """Seconds of tracing and lowering, of compilation, and of loading from the cache."""

    traced: float = 0.0
    compiled: float = 0.0
    loaded: float = 0.0
    programs: int = 0  # number of compiled programs
    hits: int = 0  # number of loaded programs

    def __str__(self) -> str:
        """Return a phrase for the summary of a run."""
        parts = [f"traced in {self.traced:.1f} s"]
        if self.programs:
            parts.append(f"{self.programs} programs compiled in {self.compiled:.1f} s")
        if self.hits:
            parts.append(f"{self.hits} loaded in {self.loaded:.1f} s")
        return ", ".join(parts)


@dataclass
class CompileClock:
    """Sums the durations that JAX reports; nested traces count once."""

    times: CompileTimes = field(default_factory=CompileTimes)
    _traces: dict[int, list[tuple[float, float]]] = field(default_factory=dict)  # begin and end, by thread
    _lock: Any = field(default_factory=threading.Lock)

    def take(self) -> CompileTimes:
        """Return the times since the last call, and reset them."""
        with self._lock:
            times, self.times = self.times, CompileTimes()
        return times

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        with self._lock:
            traced, compiled, loaded, programs, hits = self.times
            if event in TRACE:
                end, traces = time.monotonic(), self._traces.setdefault(threading.get_ident(), [])
                begin = end - duration_secs
                inner = [trace for trace in traces if trace[0] >= begin]
                traces[:] = [trace for trace in traces if trace[0] < begin] + [(begin, end)]
                traced += duration_secs - sum(last - first for first, last in inner)
            elif event == COMPILE:
                compiled, programs = compiled + duration_secs, programs + 1
            elif event == LOAD:  # within a compilation, whose event follows
                compiled, programs = compiled - duration_secs, programs - 1
                loaded, hits = loaded + duration_secs, hits + 1
            elif event == executable_cache.LOADED:
                loaded, hits = loaded + duration_secs, hits + 1
            self.times = CompileTimes(traced, compiled, loaded, programs, hits)


@cache
def process_clock() -> CompileClock:
    """Return the clock of this process, started at the first call."""
    clock = CompileClock()
    jax.monitoring.register_event_duration_secs_listener(clock._listen)
    return clock


def cache_works() -> bool:
    """Return whether the cache works, which it does not on some processors, by compiling a small program twice."""
    before = jax.config.values["jax_compilation_cache_dir"]
    process_clock().take()
    with tempfile.TemporaryDirectory() as folder:
        try:
            enable_compile_cache(folder)
            for _ in range(2):
                jax.jit(lambda x: x @ x.T).lower(jax.ShapeDtypeStruct((8, 8), "float32")).compile()
        finally:
            jax.config.update("jax_compilation_cache_dir", before)
    return process_clock().take().hits > 0

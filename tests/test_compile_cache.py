"""The cache of compiled programs: where it is, and the time that programs take."""

import jax
import pytest

from jaxstyle.runtime import compile_cache
from jaxstyle.runtime.compile_cache import (
    COMPILE,
    LOAD,
    TRACE,
    CompileClock,
    CompileTimes,
    enable_compile_cache,
    process_clock,
)

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def options():
    """Restore JAX's options."""
    before = {name: jax.config.values[name] for name in OPTIONS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_folder_is_that_of_the_argument_before_that_of_jax_before_that_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_CACHE", str(tmp_path / "command"))
    jax.config.update("jax_compilation_cache_dir", None)
    assert enable_compile_cache() == tmp_path / "command" / "programs"
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
    assert enable_compile_cache() == tmp_path / "jax"
    assert enable_compile_cache(tmp_path / "argument") == tmp_path / "argument"
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "argument")
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 0.0


def test_a_trace_within_a_trace_counts_once_and_a_loaded_program_is_not_a_compiled_one(monkeypatch):
    clock, now = CompileClock(), [0.0]
    monkeypatch.setattr(compile_cache.time, "monotonic", lambda: now[0])
    trace, lower = TRACE
    for end, event, seconds in [
        (3.0, trace, 1.0),  # from 2 to 3, within
        (4.0, trace, 3.0),  # from 1 to 4
        (5.0, lower, 0.5),
        (7.0, COMPILE, 2.0),
        (8.0, LOAD, 0.25),
        (8.0, COMPILE, 0.5),
        (9.0, "/another/event", 9.0),
    ]:
        now[0] = end
        clock._listen(event, seconds, fun_name="f")
    assert clock.take() == CompileTimes(traced=3.5, compiled=2.25, loaded=0.25, programs=1, hits=1)
    assert clock.take() == CompileTimes()


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (CompileTimes(traced=0.26), "traced in 0.3 s"),
        (CompileTimes(1.0, 2.0, 0.5, 3, 4), "traced in 1.0 s, 3 programs compiled in 2.0 s, 4 loaded in 0.5 s"),
    ],
)
def test_the_summary_tells_tracing_compiling_and_loading_apart(times, text):
    assert str(times) == text


def test_commands_in_one_process_share_one_listener():
    assert process_clock() is process_clock()
    process_clock().take()
    jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((2,), "float32")).compile()
    times = process_clock().take()
    assert times.programs + times.hits == 1 and times.traced > 0

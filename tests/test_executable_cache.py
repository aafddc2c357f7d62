"""The cache of compiled programs by their inputs: what is loaded, what is not, and what a damaged file costs."""

import errno
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.parametrizations import PARAMETRIZATIONS
from jaxstyle.runtime import executable_cache
from jaxstyle.runtime.compile_cache import process_clock
from jaxstyle.runtime.executable_cache import FOLDER, load_or_compile

SHAPE = jax.ShapeDtypeStruct((3,), "float32")


@pytest.fixture
def folder(tmp_path):
    """The folder of a new cache."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    (tmp_path / FOLDER).mkdir()
    yield tmp_path / FOLDER
    jax.config.update("jax_compilation_cache_dir", before)


class Lower:
    """Lowers a program that adds a number to its input, and keeps the numbers of its calls."""

    def __init__(self) -> None:
        self.calls: list[float] = []

    def __call__(self, number: float) -> jax.stages.Lowered:
        self.calls.append(number)
        return jax.jit(lambda x: x + number, donate_argnums=0).lower(SHAPE)


@pytest.fixture
def lowered():
    return Lower()


def compiled(lower, number, *facts):
    program = load_or_compile(partial(lower, number), number, *facts)
    np.testing.assert_array_equal(program(jnp.zeros(3)), np.full(3, number, np.float32))
    return program


def test_a_program_is_traced_once_and_then_loaded_and_still_donates_its_input(folder, lowered):
    process_clock().take()
    compiled(lowered, 1.5)
    assert process_clock().take().hits == 0
    program = compiled(lowered, 1.5)
    times = process_clock().take()
    assert lowered.calls == [1.5] and times.hits == 1 and times.loaded > 0
    program(x := jnp.zeros(3))
    assert x.is_deleted()


def test_a_program_that_jax_has_loaded_is_not_saved_since_xla_cannot_serialize_it_again(folder, lowered):
    compiled(lowered, 2.5)
    [file] = folder.iterdir()
    file.unlink()
    jax.clear_caches()
    compiled(lowered, 2.5)
    assert lowered.calls == [2.5, 2.5] and not list(folder.iterdir())


@pytest.mark.parametrize(("number", "damage"), [(3.25, b""), (3.5, b"\x00" * 99), (3.75, None)])
def test_a_damaged_file_is_compiled_again(folder, lowered, number, damage):
    compiled(lowered, number)
    [file] = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    compiled(lowered, number)
    assert lowered.calls == [number, number]


def test_another_option_of_jax_flag_of_xla_or_source_is_another_program(folder, monkeypatch):
    facts = [(SHAPE,), (jax.ShapeDtypeStruct((4,), "float32"),), (VGG19(),), (VGG19(pooling="avg"),)]
    keys = [executable_cache._key(each) for each in facts]
    assert keys == [executable_cache._key(each) for each in facts] and keys[2] == executable_cache._key((VGG19(),))
    with jax.default_matmul_precision("highest"):
        keys.append(executable_cache._key((SHAPE,)))
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=nowhere")
    keys.append(executable_cache._key((SHAPE,)))
    monkeypatch.setattr(executable_cache, "CODE", b"another")
    keys.append(executable_cache._key((SHAPE,)))
    monkeypatch.setattr(executable_cache, "instruction_set", lambda: "another")
    keys.append(executable_cache._key((SHAPE,)))
    assert len({*keys, None}) == len(keys) + 1


def mean(x: jax.Array) -> jax.Array:
    """A user's function: the code behind its name is unknown."""
    return jnp.mean(x)


@pytest.mark.parametrize(
    "fact", [mean, partial(mean), [lambda x: x], Path("user")], ids=("function", "partial", "lambda", "path")
)
def test_a_program_of_a_users_code_is_not_saved(folder, lowered, fact):
    compiled(lowered, 4.5, fact)
    compiled(lowered, 4.5, fact)
    assert lowered.calls == [4.5, 4.5] and not list(folder.iterdir())


def test_functions_of_this_package_have_a_key():
    keys = [executable_cache._key((each.decode,)) for each in PARAMETRIZATIONS.values()]
    assert all(keys) and len(set(keys)) == len(keys)


def test_a_folder_that_cannot_be_written_costs_time_only(folder, lowered, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        compiled(lowered, 5.5)
    compiled(lowered, 5.75)
    monkeypatch.setattr(os, "utime", refuse)
    compiled(lowered, 5.75)
    assert lowered.calls == [5.5, 5.75] and len(list(folder.iterdir())) == 1


def test_jaxs_option_switches_the_cache_off(folder):
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert executable_cache._folder() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    assert executable_cache._folder() == folder


def test_the_oldest_files_are_removed_beyond_the_limit(folder, lowered, monkeypatch):
    for number in (6.5, 7.5):
        compiled(lowered, number)
    sizes = [file.stat().st_size for file in folder.iterdir()]
    monkeypatch.setattr(executable_cache, "MOST", max(sizes) * 5 // 2)
    compiled(lowered, 6.5)
    compiled(lowered, 8.5)
    lowered.calls.clear()
    for number in (6.5, 8.5, 7.5):
        compiled(lowered, number)
    assert lowered.calls == [7.5]


def test_without_a_folder_nothing_is_saved(lowered):
    assert executable_cache._folder() is None
    compiled(lowered, 9.5)
    compiled(lowered, 9.5)
    assert lowered.calls == [9.5, 9.5]

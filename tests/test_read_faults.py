"""Reads that fail in the middle of a file: nothing is removed, and the next best source is used.

Pictures, HDF5 and `.safetensors` files: `test_image_faults`, `test_weights_io` and `test_state_dict`.
"""

import builtins
import errno
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_style_cache import OBJECTIVE, STYLE, problem

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import sha256
from jaxstyle.losses import statistics_io
from jaxstyle.losses.moments import Moments
from jaxstyle.networks import hdf5, pretrained
from jaxstyle.runtime import style_cache
from jaxstyle.runtime.checkpoint import CheckpointStore
from jaxstyle.runtime.compile_cache import enable_compile_cache

FAULTS = {
    "EIO": OSError(errno.EIO, os.strerror(errno.EIO)),
    "ENOMEM": OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    "EACCES": PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "no memory": MemoryError(),
    "short read": None,
}


class Failing(io.RawIOBase):
    """The first half of a file, whose reads raise an error; with None, they end there."""

    def __init__(self, path: Any, fault: BaseException | None) -> None:
        data = contents(path)
        self.half, self.fault = io.BytesIO(data[: len(data) // 2]), fault

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self.fault is not None:
            raise self.fault
        return self.half.readinto(buffer)


OPEN = builtins.open


def contents(path: Any) -> bytes:
    with OPEN(path, "rb") as file:
        return file.read()


@pytest.fixture(params=FAULTS)
def fail(request, monkeypatch) -> Callable[[Path], BaseException | None]:
    """Let each read of the files below a path fail."""
    fault = FAULTS[request.param]

    def failing(folder: Path) -> BaseException | None:
        root = folder.absolute()

        def opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            inside = isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(root)
            if not inside or set(mode) & set("wax+"):
                return OPEN(path, mode, *rest, **options)
            file = io.BufferedReader(Failing(path, fault))
            return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

        for module in (builtins, io):
            monkeypatch.setattr(module, "open", opened)
        return fault

    return failing


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path): contents(path) for path in folder.rglob("*") if path.is_file()}


def test_the_checkpoint_before_one_that_cannot_be_read_is_used(fail, tmp_path):
    kept, array = CheckpointStore(tmp_path / "kept"), np.arange(12, dtype=np.float32)
    for step in (1, 2):
        kept.save(step, {"image": array * step}, {"step": step})
    before = listing(tmp_path)
    warned: list[str] = []
    fail(tmp_path / "kept" / "checkpoint-2.npz")
    actual = kept.latest(lambda _: {"image": array}, warned.append)
    assert actual is not None and actual[0] == {"step": 1}
    np.testing.assert_array_equal(actual[1]["image"], array)
    [sentence] = warned
    assert "checkpoint-2.npz cannot be read (" in sentence and sentence.endswith(") and is skipped.")
    assert listing(tmp_path) == before


def test_style_statistics_that_cannot_be_read_from_the_cache_are_computed(fail, isolated, params, monkeypatch):
    actual: Any = {"relu1_1": Moments(np.ones(4, np.float32), np.ones((4, 4), np.float32))}  # pyright: ignore
    computed: list[int] = []
    monkeypatch.setattr(style_cache, "_summarize", lambda *_, **__: computed.append(1) or {32: actual})
    run = problem(params=params)
    style_cache.statistics_of(STYLE, [32], run)
    before = listing(isolated)
    fault = fail(isolated)

    def refuse(path: Any, mode: str) -> Any:  # HDF5 does not read by `open`
        if mode != "r":
            return file(path, mode)
        raise OSError("Unable to synchronously open file (truncated file)") if fault is None else fault

    file = hdf5.h5py.File
    monkeypatch.setattr(hdf5.h5py, "File", refuse)
    assert style_cache.statistics_of(STYLE, [32], run) == {32: actual} and len(computed) == 2
    kinds = UnavailableError if not isinstance(fault, PermissionError) and fault is not None else InputError
    [path] = (pretrained.cache() / "styles").glob("*.h5")
    with pytest.raises(kinds, match=r"\.h5 .*: .*\.$"):
        statistics_io.read(path, params=params, objective=OBJECTIVE)
    assert listing(isolated).keys() == before.keys()


def test_a_compiled_program_that_cannot_be_read_is_compiled_again(fail, tmp_path, compilations):
    names = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")
    before = {name: jax.config.values[name] for name in names}
    shape = jax.ShapeDtypeStruct((3,), "float32")
    try:
        with warnings.catch_warnings():
            enable_compile_cache(tmp_path)
            jax.jit(lambda x: 3 * x).lower(shape).compile()
            kept = listing(tmp_path).keys()
            fail(tmp_path)
            program = jax.jit(lambda x: 3 * x).lower(shape).compile()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    np.testing.assert_array_equal(program(np.ones(3, np.float32)), np.full(3, 3, np.float32))
    assert len(compilations) == 2 and kept <= listing(tmp_path).keys()


def test_an_input_that_cannot_be_hashed_is_named(fail, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(bytes(100))
    if (fault := fail(path)) is not None:
        with pytest.raises((InputError, UnavailableError), match=r"a\.png .*: .*\.$"):
            sha256(path)
    assert path.exists() and (fault is not None or len(sha256(path)) == 64)

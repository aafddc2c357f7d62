"""The cache of compiled programs by their inputs and code, from which they are loaded without tracing.

The key of JAX's cache is the traced program, so each process traces a program before it can be loaded. Here the key is
what tracing depends on: shapes, static options, the source of this package, versions, JAX's options and the machine.
Functions without a name and those of unknown packages have no key. Replaced functions of this package are not seen.
A program that JAX loads from its own cache is not saved, since XLA loses functions of it.

Like those of JAX's cache, the files contain code and are as trusted as this package: a process runs what it loads.
"""

import contextlib
import hashlib
import io
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib import metadata
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.monitoring
from jax.experimental import serialize_executable  # the only public function that serializes an executable

from jaxstyle.files import atomic_write, limit_size
from jaxstyle.runtime.backends import device_name, instruction_set

FOLDER = "executables"  # in the folder of JAX's cache
MOST = 2**28  # bytes; the least recently used files are removed first
PACKAGES = ("jaxstyle", "jax", "jaxlib", "flax", "optax", "numpy")  # whose versions are part of the key
MODULES = (*PACKAGES, "builtins", "collections", "functools", "operator")
COMPILED = "/jax/compilation_cache/cache_misses"  # event of JAX when it saves a program
LOADED = "/jaxstyle/executable_loaded"  # event
DIGEST = 32  # bytes of SHA-256, before the program
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")


def load_or_compile(lower: Callable[[], jax.stages.Lowered], *facts: Any) -> jax.stages.Compiled:
    """Return a compiled program for the first device: from the cache, or else that of `lower()`, which is then saved.

    `facts` are all arguments that the program depends on, without the values of its inputs. A file that cannot be read
    or written costs time but raises no error.
    """
    folder, device = _folder(), jax.local_devices()[0]
    key = None if folder is None else _key(facts)
    if folder is None or key is None:
        return lower().compile()
    path, began = folder / key, time.perf_counter()
    with contextlib.suppress(Exception):  # unpickling raises many kinds
        saved = path.read_bytes()
        if hashlib.sha256(saved[DIGEST:]).digest() == saved[:DIGEST]:
            program = pickle.loads(saved[DIGEST:])  # noqa: S301  # see above
            executable = serialize_executable.deserialize_and_load(*program, execution_devices=[device])
            with contextlib.suppress(OSError):  # of a folder that this user may only read
                os.utime(path)
            jax.monitoring.record_event_duration_secs(LOADED, time.perf_counter() - began)
            return executable
    counts = _compilations()
    counts.saved = 0
    compiled = lower().compile()
    with contextlib.suppress(Exception):  # as of programs with large constants
        if counts.saved == 1:
            _write(path, pickle.dumps(serialize_executable.serialize(compiled)))
    return compiled


@cache
def _compilations() -> threading.local:
    """Return an object whose `saved` counts the programs that JAX compiles and saves in the thread that set it to 0."""
    counts = threading.local()

    def listen(event: str, **_: str | int) -> None:
        if event == COMPILED:
            counts.saved = getattr(counts, "saved", 0) + 1

    jax.monitoring.register_event_listener(listen)
    return counts


def _folder() -> Path | None:
    """Return the folder of `enable_compile_cache`; None without one, in a cluster, or for another default device."""
    options: Any = jax.config
    named = options.jax_compilation_cache_dir if options.jax_enable_compilation_cache else None
    usable = named is not None and options.jax_default_device is None and jax.process_count() == 1
    folder = os.path.join(named or "", FOLDER)
    return Path(folder) if usable and os.path.isdir(folder) else None  # Path.is_dir raises without permission


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as part:
        part.write_bytes(hashlib.sha256(data).digest() + data)
    limit_size(path.parent.glob("[!.]*"), MOST)  # not those that other processes are writing


class _KeyPickler(pickle.Pickler):
    """Pickles values, and functions and classes by name; raises `PicklingError` for those of other packages."""

    def persistent_id(self, obj: Any) -> None:
        if isinstance(obj, type | FunctionType | BuiltinFunctionType | ModuleType):
            module = getattr(obj, "__module__", None) or ""
            if module.partition(".")[0] not in MODULES:
                raise pickle.PicklingError(f"{obj} is of {module}")

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, nn.Module):  # whose state includes a serial number
            names = [field.name for field in fields(obj) if field.name not in ("parent", "name")]
            return type(obj), tuple((name, getattr(obj, name)) for name in names)
        return NotImplemented


def _key(facts: Any) -> str | None:
    """Return the name of the file of a program, or None if its code or its arguments have no names."""
    file = io.BytesIO()
    try:
        pickler = _KeyPickler(file)
        pickler.fast = True  # equal values have equal bytes
        pickler.dump(facts)
    except Exception:  # of objects that cannot be pickled, too
        return None
    options = {name: getattr(jax.config, name, value) for name, value in sorted(jax.config.values.items())}
    options = {name: value for name, value in options.items() if "cache" not in name}
    flags = [os.environ.get(name) for name in FLAGS]
    others = (options, flags, device_name(), instruction_set(), jax.devices()[0].client.platform_version)
    return hashlib.sha256(CODE + repr(others).encode() + file.getvalue()).hexdigest()


def _code() -> bytes:
    """Return a hash of the source of this package and of the versions of others."""
    digest = hashlib.sha256(sys.version.encode())
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            digest.update(metadata.version(package).encode())
    for path in sorted(Path(__file__).resolve().parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


CODE = _code()  # at import: the files may change before the first program

"""The cache of compiled programs by their inputs and code, from which they are loaded without tracing.

The key of JAX's cache is the traced program, so each process traces a program before it can be loaded. Here the key is
everything that tracing depends on: shapes, static options, the source of this package, versions, JAX's options and the
machine. Programs of functions or classes of other packages have no key, since their code is unknown.

Like those of JAX's cache, the files contain code and are as trusted as this package: a process runs what it loads.
"""

import contextlib
import hashlib
import io
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import jax
import jax.monitoring
from jax.experimental import serialize_executable  # the only public function that serializes an executable

from jaxstyle.errors import UnavailableError
from jaxstyle.files import atomic_write, limit_size
from jaxstyle.runtime.backends import device_name

FOLDER = "executables"  # in the folder of JAX's cache
MOST = 2**28  # bytes; the least recently used files are removed first
PACKAGES = ("jaxstyle", "jax", "jaxlib", "flax", "optax", "numpy")  # whose versions are part of the key
MODULES = (*PACKAGES, "builtins", "collections", "functools", "operator")
REQUEST, HIT = "/jax/compilation_cache/compile_requests_use_cache", "/jax/compilation_cache/cache_hits"
LOADED = "/jaxstyle/executable_loaded"  # event
DIGEST = 32  # bytes of SHA-256, before the program
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")


def load_or_compile(lower: Callable[[], jax.stages.Lowered], *facts: Any) -> jax.stages.Compiled:
    """Return a compiled program for the first device: from the cache, or else that of `lower()`, which is then saved.

    `facts` are all arguments that the program depends on, without the values of its inputs. A file that cannot be read
    is replaced; one that cannot be written costs time but raises no error.
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
            found = serialize_executable.deserialize_and_load(*program, execution_devices=[device])
            os.utime(path)
            jax.monitoring.record_event_duration_secs(LOADED, time.perf_counter() - began)
            return found
    with _events() as events:
        compiled = lower().compile()
    with contextlib.suppress(Exception):  # as of programs with large constants
        if REQUEST in events and HIT not in events:  # XLA loses functions of a loaded program when it is saved again
            _write(path, pickle.dumps(serialize_executable.serialize(compiled)))
    return compiled


@contextlib.contextmanager
def _events() -> Iterator[set[str]]:
    """Yield the events of JAX's cache in this thread."""
    thread, found = threading.get_ident(), set()

    def listen(event: str, **_: str | int) -> None:
        if threading.get_ident() == thread:
            found.add(event)

    jax.monitoring.register_event_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(listen)


def _folder() -> Path | None:
    """Return the folder of `enable_compile_cache`; None without one, in a cluster, or for another default device."""
    named = jax.config.values["jax_compilation_cache_dir"]
    device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    usable = named is not None and device is None and jax.process_count() == 1
    folder = Path(named or "", FOLDER)
    return folder if usable and folder.is_dir() else None


def _write(path: Path, data: bytes) -> None:
    with contextlib.suppress(UnavailableError), atomic_write(path) as part:
        part.write_bytes(hashlib.sha256(data).digest() + data)
    limit_size(path.parent.iterdir(), MOST)


class _KeyPickler(pickle.Pickler):
    """Pickles values, and functions and classes by name; raises `PicklingError` for those of other packages."""

    def persistent_id(self, obj: Any) -> None:
        if isinstance(obj, type | FunctionType | BuiltinFunctionType | ModuleType):
            module = getattr(obj, "__module__", None) or ""
            if module.partition(".")[0] not in MODULES:
                raise pickle.PicklingError(f"{obj} is of {module}")


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
    where = [name for name in options if "cache" in name]
    machine = (device_name(), jax.devices()[0].client.platform_version, [os.environ.get(name) for name in FLAGS])
    others = ({name: value for name, value in options.items() if name not in where}, machine)
    return hashlib.sha256(_code() + repr(others).encode() + file.getvalue()).hexdigest()


@cache
def _code() -> bytes:
    """Return a hash of the source of this package and of the versions of others."""
    from importlib import metadata

    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(repr([metadata.version(package) for package in PACKAGES]).encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()

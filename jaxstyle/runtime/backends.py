"""Backends of JAX: one sentence instead of a traceback if the requested one, or that of the GPU, does not start."""

import contextlib
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import jax
import numpy as np

from jaxstyle.errors import InputError, excerpt

GPUS = ("cuda", "rocm")
NAMES = (*GPUS, "tpu", "cpu")  # values of JAX_PLATFORMS, in JAX's order of preference
LOGGER = "jax._src.xla_bridge"  # of a failing plugin, with a traceback; JAX then continues without it
REPORTS = ("Jax plugin configuration error", "CUDA backend failed to initialize")
NO_GPU = r"CUDA_ERROR_NO_DEVICE|No visible GPU|CUDA error 303|SHARED_OBJECT|STUB_LIBRARY"  # of CUDA without a GPU
CURES = (  # by the words of CUDA, libtpu and JAX's plugins; "no supported devices" is a lack of memory, says JAX
    (r"driver version is insufficient|DRIVER_MISMATCH|INSUFFICIENT_DRIVER|DSO version", "update the driver"),
    (r"[Bb]uilt against|[Oo]utdated", "update the libraries (pip install -U 'jax[cuda12]')"),
    (r"OUT_OF_MEMORY|RESOURCE_EXHAUSTED|out of memory|no supported devices", "end other programs that use its memory"),
    (r"DEVICES?_UNAVAILABLE|already in use|in use by", "end the process that uses it"),
    (r"CUDA_ERROR", "check the GPU with nvidia-smi"),
)


def check_backend() -> None:
    """Start JAX's backend, and check that it is the requested one, or that of an installed GPU."""
    # Called after `jax.distributed.initialize`, and before the first computation.
    names = {"JAX_PLATFORMS": "jax_platforms", "JAX_PLATFORM_NAME": "jax_platform_name"}
    requested = {variable: value for variable, name in names.items() if (value := jax.config.values[name])}
    with _reports() as reports:
        try:
            _use(None)
        except Exception as error:  # RuntimeError of a backend, AssertionError if CUDA finds no GPU
            reason = _reason(error, reports)
            raise InputError(_sentence(requested, reason, _started())) from error
    # Without a request, JAX continues on the CPU if the GPU fails; that is an error here, but not a lack of a GPU.
    if requested or jax.default_backend() != "cpu":
        return
    for name in GPUS:
        try:
            _use(name)
        except RuntimeError as error:
            # "Unknown backend" if the plugin is absent, has failed, or has found no GPU
            reason = _reason(error, reports) if "failed to initialize" in str(error) else " ".join(reports[:1])
            if reason and not re.search(NO_GPU, reason):
                raise InputError(_sentence({}, reason, ["cpu"])) from error


def device_name() -> str:
    """Return the device on which rounding depends: the accelerator, or the processor and its number of cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    return f"{os.cpu_count()} x {_processor('model name') or platform.processor() or platform.machine()}"


def instruction_set() -> str:
    """Return the instructions that the processor supports; the name of the machine where Linux does not list them."""
    return f"{platform.machine()} {_processor('flags', 'Features') or platform.node()}"  # on x86, on ARM


@cache
def _processor(*names: str) -> str:
    """Return the first field of these names in Linux' description of the processor, "" without one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def _use(name: str | None) -> None:
    """Start a backend, by default the best one, and allocate a byte: a GPU whose memory is in use starts without."""
    device = jax.local_devices(backend=name)[0]
    jax.device_put(np.zeros(1, np.int8), device).block_until_ready()


@contextlib.contextmanager
def _reports() -> Iterator[list[str]]:
    """Yield the reasons that JAX logs for failing plugins, which it does not print meanwhile."""
    reasons: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        text = str(record.msg)
        if not text.startswith(REPORTS):
            return True
        error = record.exc_info[1] if record.exc_info else None
        reasons.append(str(error or record.getMessage()))
        return False

    logger = logging.getLogger(LOGGER)
    logger.addFilter(keep)
    try:
        yield reasons
    finally:
        logger.removeFilter(keep)


def _started() -> list[str]:
    """Return the values of JAX_PLATFORMS that work here; JAX then uses the best of them."""
    jax.config.update("jax_platforms", "")  # the command ends, but `jaxstyle doctor` continues
    names = []
    for name in NAMES:
        with contextlib.suppress(Exception):
            _use(name)
            names.append(name)
    return names or ["cpu"]  # a plugin may fail so that no other backend starts after it in this process


def _reason(error: Exception, reports: list[str]) -> str:
    if isinstance(error, AssertionError):  # JAX skips CUDA without a word if it finds no GPU
        return reports[0] if reports else "no NVIDIA GPU is visible"
    text = str(error)
    if match := re.search(r"('[^']*') is not in the list of known backends|Unknown backend (\w+)", text):
        return reports[0] if reports else f"no backend {match[1] or match[2]} is installed"
    text = re.sub(r" \((set JAX_PLATFORMS|you may need to uninstall).*", "", text, flags=re.DOTALL)
    text = re.sub(r"\.? Available backends are .*", "", text, flags=re.DOTALL)
    return re.sub(r".*?(Unable to initialize backend|failed to initialize)( '[^']*')?: ", "", text, flags=re.DOTALL)


def _sentence(requested: Mapping[str, str], reason: str, started: list[str]) -> str:
    cure = next((f"{cure}, or " for words, cure in CURES if re.search(words, reason)), "")
    reason, works = excerpt(reason, most=160), " or ".join(started)
    for variable, value in requested.items():
        problem = f"{variable} is {excerpt(repr(value))}, which does not start ({reason})"
        return f"{problem}: {cure}unset {variable}, or set it to {works}."
    return f"The accelerator does not start ({reason}): {cure}set JAX_PLATFORMS to {works} to run without it."

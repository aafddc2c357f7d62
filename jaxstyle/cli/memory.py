"""How much memory there is, and how much of it is taken: the accelerator's, or this process's on the CPU."""

import ctypes
import sys

import jax
import psutil

FREE_SHARE = 0.8  # of what is free, if nothing else is said
COMPILING = 2**28  # bytes that compiling a few more programs leaves taken on the CPU
ESTIMATED = 0.7  # of what a process takes; on the CPU convolutions and copies took a third more than the estimate


def room_for(memory: int | None) -> int:
    """Return the bytes that programs may take: of `memory` what is not taken yet, or most of what is free."""
    taken, free = taken_and_free()
    return int(ESTIMATED * (FREE_SHARE * free if memory is None else max(0, memory - taken)))


def taken_and_free() -> tuple[int, int]:
    """Return the bytes that are or will be taken whatever runs, and those that are free."""
    on_device = _on_device()
    return in_use() + (0 if on_device else COMPILING), limit() - in_use()


def in_use() -> int:
    """Return the bytes in use."""
    on_device = _on_device()
    return on_device["bytes_in_use"] if on_device else psutil.Process().memory_info().rss


def limit() -> int:
    """Return the bytes that could be in use."""
    on_device = _on_device()
    return on_device["bytes_limit"] if on_device else in_use() + psutil.virtual_memory().available


def give_back() -> None:
    """Return to the system what was freed, such as after compiling; glibc keeps hundreds of megabytes otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in other C libraries
        if trim is not None:
            trim(0)


def _on_device() -> dict[str, int] | None:
    """Return an accelerator's own account of its memory."""
    device = jax.local_devices()[0]
    return None if device.platform == "cpu" else device.memory_stats()

"""How much memory there is, and how much of it is taken: the accelerator's, or this process's on the CPU."""

import ctypes
import math
import sys
from typing import Any

import jax
import psutil

from jaxstyle.cli.containers import memory_left, swap_left

FREE_SHARE = 0.8  # of what is free, if nothing else is said
COMPILING = 2**28  # bytes that compiling a few more programs leaves taken on the CPU
LEAST_PAIRS = 3  # of lbfgs, below which it is no better than gradient descent
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
    if on_device:
        return on_device["bytes_limit"]
    return in_use() + min(psutil.virtual_memory().available, memory_left())


def most_of_all() -> int:
    """Return the bytes that could be in use, slowly: on the CPU those on disk among them."""
    return limit() + (0 if _on_device() else min(psutil.swap_memory().free, swap_left()))


def peak_of(step: jax.stages.Compiled, *, missing: int = 0) -> int:
    """Return the bytes that this process, or the accelerator, has in use while a program runs.

    Its inputs exist, but for `missing` bytes.
    """
    found: Any = step.memory_analysis()
    return in_use() + missing + found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes


def shortage(
    step: jax.stages.Compiled,
    side: int,
    *,
    pair: int,
    pairs: int,
    lanes: int,
    strips: bool,
    shared: bool = False,
    missing: int = 0,
) -> str:
    """Return what a program takes, what there is, and which options would fit.

    Args:
        step: the program.
        side: the longest side of its images, in pixels.
        pair: bytes of a curvature pair of lbfgs in all lanes, 0 for another optimiser.
        pairs: how many of them it keeps.
        lanes: how many pictures there are at a time.
        strips: whether it could go through its largest layers in strips, but does not.
        shared: whether several devices of this process share the work, which are not used in blocks.
        missing: bytes of its inputs that do not exist yet.
    """
    need, most, base = peak_of(step, missing=missing), limit(), in_use()
    free = max(0, most - base)
    cures = [f"--size {max(16, int(side * math.sqrt(free / max(1, need - base))) // 16 * 16)}"]
    if lanes > 1:
        cures.insert(0, f"--lanes {max(1, int(lanes * free / max(1, need - base)))}")
    fewer = pairs - math.ceil((need - most) / pair) if pair else 0
    if fewer >= LEAST_PAIRS:
        cures.append(f"--memory {fewer}")
    if strips:
        cures.append("--remat")
    if shared:
        cures.append("--devices 1")
    takes = f"{side} pixels take {need / 2**30:.3g} GiB, but only {most / 2**30:.3g} GiB are there"
    return f"{takes}: use {' or '.join(cures)}."


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

"""Memory: how much there is, how much a program needs, and how finely a scale is divided so that its steps fit.

Memory is the accelerator's, or this process's on the CPU, within the limits of its control groups (on Linux those of a
container, a job or a service). A scale whose steps do not fit keeps fewer activations (row chunks) or is processed in
tiles.
"""

import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import psutil

from jaxstyle.config import Config
from jaxstyle.errors import InputError
from jaxstyle.losses.layer_summaries import blocks_in_rows, least_pixels
from jaxstyle.transfer.schedule import Scale
from jaxstyle.transfer.sweep import memory_of

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
    if found is None:  # some backends have no analysis
        return in_use() + missing
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


STRIPS_SAVE = 2  # what they divide memory by, at most: 1,564 to 761 MiB at 1024 x 768 pixels
FINEST, COARSEST = 0.1, 0.8  # of a window that did not fit, how large the next one is


def cut_to_fit(
    program: Callable[[int], jax.stages.Compiled],
    scale: Scale,
    *,
    config: Config,
    alone: bool,
    memory: int | None,
    there: int,
) -> tuple[jax.stages.Compiled, int]:
    """Return the program of a scale that fits into memory, and how it is cut.

    Args:
        program: as for `fitted`.
        scale: its pixels count.
        config: the static facts.
        alone: whether there is one image; several lanes are not cut.
        memory: bytes that the whole command may take, None for most of what is free.
        there: bytes of the program's inputs that are taken already.

    Raises:
        InputError: if it does not fit into the memory that the command may take.
    """
    pixels = scale.height * scale.width
    fewer = blocks_in_rows(replace(config, remat=True), pixels) != blocks_in_rows(config, pixels)
    adds_up = config.statistic != "sliced" and not config.normalize_gradients
    least = least_pixels(config) if alone and adds_up else None
    room, (taken, _) = room_for(memory), taken_and_free()

    def need(step: jax.stages.Compiled) -> int:
        return memory_of(step) - there

    step, cut = fitted(program, pixels, need=need, room=room, strips=alone and fewer, least=least)
    if alone and memory is not None and need(step) > room:
        takes = (taken + need(step) / ESTIMATED) / 2**20
        raise InputError(
            f"--max-memory is {memory / 2**20:.0f} MiB, but steps at {max(scale.width, scale.height)} pixels "
            f"take {takes:.0f} MiB in the smallest blocks: give that, or lower --size."
        )
    return step, cut


def fitted(
    program: Callable[[int], jax.stages.Compiled],
    pixels: int,
    *,
    need: Callable[[jax.stages.Compiled], int],
    room: int,
    strips: bool,
    least: int | None,
) -> tuple[jax.stages.Compiled, int]:
    """Return the program that fits into memory with the least additional work, or the smallest, and how it is cut.

    Args:
        program: returns the compiled steps for a cut: 0 for none, or the most pixels of a window, those of the whole
            image for strips alone.
        pixels: of the image.
        need: returns the bytes that a program takes.
        room: bytes that there are.
        strips: whether strips would help.
        least: the fewest pixels of a window, or None where blocks cannot be.
    """
    step, cut = program(0), 0
    if room < need(step) <= STRIPS_SAVE * room and strips:
        step, cut = program(pixels), pixels
    window = pixels
    while need(step) > room and least is not None and window > least:
        found: Any = step.memory_analysis()
        temporary = 0 if found is None else found.temp_size_in_bytes
        share = 1 - (need(step) - room) / max(1, temporary)  # by which what is in between would fit
        window = max(least, int(window * min(COARSEST, max(FINEST, share))))
        step, cut = program(window), window
    return step, cut


NO_LIMIT = sys.maxsize  # bytes
UNLIMITED = 2**62  # bytes; for no limit version 1 says a little less than 2^63


def memory_left(root: Path = Path("/")) -> int:
    """Return the bytes of memory that every group around this process has left, of those that have a limit."""
    return min((_memory_left(group) for group in _groups(root)), default=NO_LIMIT)


def swap_left(root: Path = Path("/")) -> int:
    """Return the bytes on disk that every group around this process has left beside its memory."""
    return min((_swap_left(group) for group in _groups(root)), default=NO_LIMIT)


def _groups(root: Path) -> list[Path]:
    """Return the folders of this process's groups, and of all around them.

    A container may see its own group as the outermost one, whatever path the kernel names; so paths that do not exist
    are no mistake.
    """
    found: list[Path] = []
    for line in _read(root / "proc/self/cgroup").splitlines():  # such as "0::/user.slice" or "4:memory:/docker/1f"
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers in ("", "memory"):  # version 2 has all controllers in one tree
            top = root / "sys/fs/cgroup" / controllers
            group = top / path.strip("/")
            found += [each for each in (group, *group.parents) if each.is_relative_to(top)]
    return found


def _memory_left(group: Path) -> int:
    """Return the bytes of memory that a group of either version has left."""
    second = _left(group, "memory.max", "memory.current")
    second += _spare(group, "active_file", "inactive_file", mapped="file_mapped")
    first = _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes")
    first += _spare(group, "total_active_file", "total_inactive_file", mapped="total_mapped_file")
    return max(0, min(second, first))


def _swap_left(group: Path) -> int:
    """Return the bytes on disk that a group has left; version 1 limits them together with memory."""
    second = _left(group, "memory.swap.max", "memory.swap.current")
    both = _left(group, "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes")
    if both == NO_LIMIT:
        return max(0, second)
    return max(0, min(second, both - _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes")))


def _left(group: Path, limit: str, usage: str) -> int:
    """Return the bytes between the numbers in two files, or NO_LIMIT."""
    try:
        most, taken = int(_read(group / limit)), int(_read(group / usage))
    except ValueError:
        return NO_LIMIT
    return most - taken if most < UNLIMITED else NO_LIMIT


def _spare(group: Path, *cached: str, mapped: str) -> int:
    """Return the bytes of files in a group's memory that make way, all but those that programs run from."""
    rows = [line.partition(" ") for line in _read(group / "memory.stat").splitlines()]
    numbers = {name: int(number) for name, _, number in rows if number.isdecimal()}
    return max(0, sum(numbers.get(name, 0) for name in cached) - numbers.get(mapped, 0))


def _read(path: Path) -> str:
    """Return what a file says, nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""

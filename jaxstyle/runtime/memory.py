"""Memory: available memory, memory of a program, and the plan by which the steps of a scale fit.

Memory is that of the accelerator, or of this process on the CPU, within the limits of its control groups (on Linux
those of a container, a job or a service). A scale that does not fit is recomputed in row chunks, or processed in tiles.
"""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import psutil

from jaxstyle.errors import InputError
from jaxstyle.losses.layer_summaries import row_chunk_blocks, sized_layers, smallest_tile, tiling_obstacle
from jaxstyle.losses.objective import Objective
from jaxstyle.networks.vgg import VGG19
from jaxstyle.runtime.options import LARGEST_BLOCKS
from jaxstyle.transfer.scale import Transfer
from jaxstyle.transfer.schedule import Scale
from jaxstyle.transfer.sweep import memory_of

FREE_SHARE = 0.8  # default budget, as a fraction of the free memory
COMPILING = 2**28  # bytes still in use on the CPU after compilation of a few more programs
ESTIMATED = 0.7  # fraction of the memory of a process in the estimate; on the CPU it took a third more
ROW_CHUNKS_SAVE = 2  # maximum factor by which row chunks reduce memory: 1,564 to 761 MiB at 1024 x 768 pixels
FINEST, COARSEST = 0.1, 0.8  # ratio of the next window to one that did not fit
NO_LIMIT = sys.maxsize  # bytes
UNLIMITED = 2**62  # bytes; version 1 of control groups reports no limit as slightly less than 2^63

Programs = Callable[[int], jax.stages.Compiled]  # the program of a scale for each memory plan, see `CompiledScale`


def memory_budget(memory: int | None) -> int:
    """Return the bytes available to programs: the rest of the budget `memory`, or most of the free memory."""
    taken, free = taken_and_free()
    return int(ESTIMATED * (FREE_SHARE * free if memory is None else max(0, memory - taken)))


def taken_and_free() -> tuple[int, int]:
    """Return the bytes in use by any run, and the free bytes."""
    return in_use() + (0 if _on_device() else COMPILING), limit() - in_use()


def in_use() -> int:
    """Return the bytes in use."""
    on_device = _on_device()
    return on_device["bytes_in_use"] if on_device else psutil.Process().memory_info().rss


def limit() -> int:
    """Return the maximum bytes in use."""
    if on_device := _on_device():
        return on_device["bytes_limit"]
    return in_use() + min(psutil.virtual_memory().available, memory_left())


def limit_with_swap() -> int:
    """Return the maximum bytes in use, on the CPU including swap, which is slow."""
    return limit() + (0 if _on_device() else min(psutil.swap_memory().free, swap_left()))


def peak_of(step: jax.stages.Compiled, *, missing: int = 0) -> int:
    """Return the bytes in use while a program runs; all but `missing` bytes of its inputs are allocated already."""
    analysis: Any = step.memory_analysis()
    if analysis is None:  # some backends have no analysis
        return in_use() + missing
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return in_use() + missing + analysis.temp_size_in_bytes + results


def release_memory() -> None:
    """Return freed memory to the system, such as after compilation; otherwise glibc retains hundreds of megabytes."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in other C libraries
        if trim is not None:
            trim(0)


def _on_device() -> dict[str, int] | None:
    """Return the memory statistics of an accelerator, or None for a CPU."""
    device = jax.local_devices()[0]
    return None if device.platform == "cpu" else device.memory_stats()


def plan_scale(
    program: Programs, scale: Scale, transfer: Transfer, *, memory: int | None, allocated: int
) -> tuple[jax.stages.Compiled, int]:
    """Return the program of a scale that fits, beside `allocated` bytes of its inputs, and its memory plan."""
    objective, network, pixels = transfer.objective, transfer.network, scale.height * scale.width
    alone, fewer, least = transfer.count == 1, False, None
    if isinstance(network, VGG19) and isinstance(objective, Objective):
        complete = objective.complete_layers
        few = row_chunk_blocks(network.clone(remat=LARGEST_BLOCKS), pixels, complete=complete)
        fewer = few != row_chunk_blocks(network, pixels, complete=complete)
        if alone and tiling_obstacle(objective, network) is None:
            least = smallest_tile(sized_layers(network, objective.layers))
    budget, (taken, _) = memory_budget(memory), taken_and_free()

    def need(step: jax.stages.Compiled) -> int:
        return memory_of(step) - allocated

    step, memory_plan = fitted(program, pixels, need=need, budget=budget, row_chunks=alone and fewer, least=least)
    if alone and memory is not None and need(step) > budget:
        takes = (taken + need(step) / ESTIMATED) / 2**20
        raise InputError(
            f"--max-memory is {memory / 2**20:.0f} MiB, but steps at {max(scale.width, scale.height)} pixels "
            f"take {takes:.0f} MiB in the smallest tiles: allow that, or lower --size."
        )
    return step, memory_plan


def fitted(
    program: Programs,
    pixels: int,
    *,
    need: Callable[[jax.stages.Compiled], int],
    budget: int,
    row_chunks: bool,  # whether they reduce the memory
    least: int | None,  # the smallest possible window; None if tiles are not possible
) -> tuple[jax.stages.Compiled, int]:
    """Return the program that fits into memory with the least additional work, or the smallest, and its memory plan."""
    step, memory_plan = program(0), 0
    if budget < need(step) <= ROW_CHUNKS_SAVE * budget and row_chunks:
        step, memory_plan = program(pixels), pixels
    window = pixels
    while need(step) > budget and least is not None and window > least:
        analysis: Any = step.memory_analysis()
        if analysis is None:  # the need of a smaller window would be unknown too
            break
        share = 1 - (need(step) - budget) / max(1, analysis.temp_size_in_bytes)  # of temporary memory that would fit
        window = max(least, int(window * min(COARSEST, max(FINEST, share))))
        step, memory_plan = program(window), window
    return step, memory_plan


def memory_left(root: Path = Path("/")) -> int:
    """Return the minimum free memory in bytes over all control groups of this process with a limit."""
    return min((_memory_left(group) for group in _groups(root)), default=NO_LIMIT)


def swap_left(root: Path = Path("/")) -> int:
    """Return the minimum free swap in bytes over all control groups of this process."""
    return min((_swap_left(group) for group in _groups(root)), default=NO_LIMIT)


def _groups(root: Path) -> list[Path]:
    """Return the folders of the control groups of this process and of their parents."""
    groups: list[Path] = []
    for line in _read(root / "proc/self/cgroup").splitlines():  # such as "0::/user.slice" or "4:memory:/docker/1f"
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers in ("", "memory"):  # version 2 has all controllers in one tree
            top = root / "sys/fs/cgroup" / controllers
            group = top / path.strip("/")  # may not exist: in a container, its group may be the root
            groups += [each for each in (group, *group.parents) if each.is_relative_to(top)]
    return groups


def _memory_left(group: Path) -> int:
    """Return the free memory of a group of either version; cached files, except mapped ones, can be reclaimed."""
    rows = [line.partition(" ") for line in _read(group / "memory.stat").splitlines()]
    sizes = {name: int(number) for name, _, number in rows if number.isdecimal()}
    left = NO_LIMIT
    for limit, usage, of, mapped in (
        ("memory.max", "memory.current", "", "file_mapped"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_", "total_mapped_file"),
    ):
        cached = sizes.get(f"{of}active_file", 0) + sizes.get(f"{of}inactive_file", 0)
        left = min(left, _left(group, limit, usage) + max(0, cached - sizes.get(mapped, 0)))
    return max(0, left)


def _swap_left(group: Path) -> int:
    """Return the free swap of a group; version 1 limits it together with memory."""
    swap = _left(group, "memory.swap.max", "memory.swap.current")
    both = _left(group, "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes")
    if both != NO_LIMIT:
        swap = min(swap, both - _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes"))
    return max(0, swap)


def _left(group: Path, limit: str, usage: str) -> int:
    try:
        most, taken = int(_read(group / limit)), int(_read(group / usage))
    except ValueError:
        return NO_LIMIT
    return most - taken if most < UNLIMITED else NO_LIMIT


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""

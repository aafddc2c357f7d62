"""What the control groups of this process leave it of memory: on Linux the limits of a container, a job or a service.

Docker, Kubernetes, Slurm and systemd write them into files, which the kernel shows in folders, a group within another
being a folder within another. What cannot be read, or says "max", limits nothing.

Reference: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

import sys
from pathlib import Path

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

"""What a process that paints has of the parent that watches it: two pipes and a file, see `watching`."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Any

from jaxstyle.cli.signals import VARIABLE


def is_watched() -> bool:
    """Return whether this process is one of several, with a parent that watches it."""
    return VARIABLE in os.environ


def begin() -> None:
    """Begin to be such a process: end with the parent, and leave the terminal to Python."""
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # jax ends by SIGABRT
    alive, _, said = descriptors = _descriptors()
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    sys.stdout, sys.stderr = (_apart(stream, said) for stream in (sys.stdout, sys.stderr))


def tell(line: str) -> None:
    """Tell the parent how this process ends."""
    with contextlib.suppress(OSError):  # the parent has just died
        os.write(_descriptors()[1], f"{line}\n".encode())


def _end_with(alive: int) -> None:
    """End the process when its parent has."""
    os.read(alive, 1)
    os._exit(1)


def _apart(stream: Any, said: int) -> Any:
    """Return a stream to where `stream` goes, and let what libraries in C write there go to the file `said`."""
    descriptor = stream.fileno()
    copy = os.fdopen(os.dup(descriptor), "w", 1, stream.encoding, stream.errors)
    os.dup2(said, descriptor)
    return copy


def _descriptors() -> list[int]:
    return [int(number) for number in os.environ[VARIABLE].split(",")]

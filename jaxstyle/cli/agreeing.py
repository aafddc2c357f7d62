"""What the processes of one run have to agree on: the command and its files, what is left to do, and when to stop."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from jaxstyle.errors import InputError, excerpt
from jaxstyle.plain_data import differences


def together() -> bool:
    """Return whether there are several processes."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def leads() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def of_all(value: Any) -> list[Any]:
    """Return what each process has for a value that is JSON."""
    if not together():
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = process_allgather(np.asarray(len(text)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = text
    every = process_allgather(padded)
    return [json.loads(bytes(own[:length])) for own, length in zip(every, lengths, strict=True)]


def of_leader(value: Any) -> Any:
    """Return what the process that leads has for a value that is JSON."""
    return of_all(value)[0]


def check_same(what: dict[str, Any]) -> None:
    """Refuse to go on where another process has other facts.

    Raises:
        InputError: in all processes, if two of them differ.
    """
    every = of_all(what)
    for number, theirs in enumerate(every[1:], 1):
        for name, own, other in differences(every[0], theirs):
            shown = [excerpt(repr(each), most=60) for each in (own, other)]
            raise InputError(
                f"Process 0 has {excerpt(name, most=60)} {shown[0]}, but process {number} has {shown[1]}: "
                "give all processes the same command and the same files."
            )


def asked_of_any(asked: Callable[[], int]) -> Callable[[], int]:
    """Return what tells, once any process was asked to stop, the status that asks for it; all have to call it alike."""
    if not together():
        return asked
    found = 0

    def of_any() -> int:
        nonlocal found
        found = found or max(of_all(asked()))
        return found

    return of_any

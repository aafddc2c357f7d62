"""Communication of the processes of one run: what process 0 decides for all, and values gathered from each."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from jaxstyle.errors import InputError, UnavailableError


def by_leader(function: Callable[[], int | None]) -> int:
    """Return what a function returns in process 0; the others wait for it, and fail where it does.

    Args:
        function: returns a number from 0, or None for 0.

    Returns:
        The number, in all processes.

    Raises:
        InputError: as the function does, in all processes.
        UnavailableError: likewise; in the others for whatever else it raises.

    Example:
        >>> by_leader(lambda: 3)
        3
    """
    if jax.process_count() == 1:
        return function() or 0
    found, raised = 0, None
    if jax.process_index() == 0:
        try:
            found = function() or 0
        except Exception as error:
            found, raised = -2 if isinstance(error, InputError) else -1, error
    first = of_each(found)[0]
    if raised is not None:
        raise raised
    if first < 0:
        kind = InputError if first == -2 else UnavailableError
        raise kind("Process 0 of this run has failed, and said why: mend that, and repeat the command in all of them.")
    return first


def of_each(number: int) -> list[int]:
    """Return what each process has for a number; all of them have to ask.

    Args:
        number: this process's.

    Returns:
        A number of each, process 0 first.

    Example:
        >>> of_each(3)
        [3]
    """
    return [number] if jax.process_count() == 1 else [int(each) for each in process_allgather(np.asarray(number))]


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

"""The processes of one run: connection, what process 0 decides for all, and values gathered from each.

`jax.distributed` watches them: where one ends early, it ends the others with a message of its own. A scheduler such as
Slurm restarts them then, and the run resumes from its checkpoint.
"""

import json
import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather, sync_global_devices

from jaxstyle.errors import InputError, UnavailableError, excerpt


def initialize(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    initialization_timeout: int,
    heartbeat_timeout: int,
) -> None:
    """Connect this process with the others; without a coordinator (host:port of process 0), jax finds a cluster."""
    jax.config.update("jax_enable_preemption_service", False)  # it would handle SIGTERM
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)  # it warns of `no_grpc_proxy`
    options: dict[str, Any] = {}
    host, _, port = (coordinator or "").rpartition(":")
    if coordinator is not None:
        os.environ.setdefault("no_grpc_proxy", host)
        options = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
        options["cluster_detection_method"] = "deactivate"  # it would give each process a device of its own

    def connect() -> None:
        if coordinator is not None and process_id == 0:
            _try_port(int(port))
        jax.distributed.initialize(
            **options,
            initialization_timeout=initialization_timeout + heartbeat_timeout,  # jax would abort the process
            heartbeat_timeout_seconds=heartbeat_timeout,  # a process without a sign of life ends the others
            shutdown_timeout_seconds=heartbeat_timeout,
        )

    where = coordinator or "The coordinator"
    try:
        in_time = _interruptible(connect, timeout=initialization_timeout)
    except Exception as error:
        if str(error).endswith("be defined."):  # of the address, the count or the number
            raise InputError(
                "--distributed finds no cluster that names the processes: add --coordinator, --num-processes and "
                "--process-id."
            ) from error
        reason = excerpt(getattr(error, "strerror", None) or error)
        raise UnavailableError(
            f"{where} cannot be used ({reason}): name a free port of process 0 with --coordinator."
        ) from error
    if not in_time:
        raise UnavailableError(
            f"{where} was not reached by all processes within {initialization_timeout} seconds: start the command in "
            "each of them, let them connect to process 0, or raise --initialization-timeout."
        )
    check_devices(device.process_index for device in jax.devices())
    allgather_json(0)  # connects the devices while the processes are in step: Gloo waits 30 seconds for the others


def finish() -> None:
    """Wait until all processes are here, then disconnect."""

    def disconnect() -> None:
        sync_global_devices("the end of the command")
        jax.distributed.shutdown()

    _interruptible(disconnect)


def _interruptible(call: Callable[[], None], *, timeout: float | None = None) -> bool:
    """Make a call that may block signals while it waits in C; return whether it ended within `timeout` seconds."""
    raised: list[Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            call()
        except Exception as error:
            raised.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    done.wait(timeout)
    if raised:
        raise raised[0]
    return done.is_set()


def check_devices(processes: Iterable[int]) -> None:
    """Check that all processes have the same number of devices, given the process of each device."""
    counts = Counter(processes).values()
    if min(counts) < max(counts):
        raise InputError(
            f"The processes have {min(counts)} to {max(counts)} devices each: give all of them the same number, such "
            "as by $CUDA_VISIBLE_DEVICES."
        )


def _try_port(port: int) -> None:
    """Raise `OSError` if process 0 could not have its port: jax may crash instead."""
    both: dict[str, Any] = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    socket.create_server(("", port), **both).close()


def on_process_zero(function: Callable[[], int | None]) -> int:
    """Return the result of process 0, from 0 or None for 0, for which the others wait; its errors are raised in all."""
    if jax.process_count() == 1:
        return function() or 0
    status, raised = 0, None
    if jax.process_index() == 0:
        try:
            status = function() or 0
        except Exception as error:
            status, raised = -2 if isinstance(error, InputError) else -1, error
    first = allgather_json(status)[0]
    if raised is not None:
        raise raised
    if first < 0:
        kind = InputError if first == -2 else UnavailableError
        raise kind("Process 0 of this run has failed and printed why: fix that, and rerun the command in all of them.")
    return first


def is_distributed() -> bool:
    """Return whether there are several processes."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_process_zero() -> bool:
    """Return whether this process is the one that writes and prints."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def allgather_json(value: Any) -> list[Any]:
    """Return the values, which are JSON data, of all processes, process 0 first; all processes have to call it."""
    if not is_distributed():
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = process_allgather(np.asarray(len(text)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = text
    texts = process_allgather(padded)
    return [json.loads(bytes(text[:length])) for text, length in zip(texts, lengths, strict=True)]


def any_process_asked(asked: Callable[[], int]) -> Callable[[], int]:
    """Return a function that returns the exit status of a stop request to any process; all have to call it alike."""
    status = 0

    def of_any() -> int:
        nonlocal status
        status = status or max(allgather_json(asked()))
        return status

    return of_any if is_distributed() else asked

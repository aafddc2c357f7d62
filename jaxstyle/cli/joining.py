"""One of several processes that paint together: how it joins the others, and how it leaves them.

It is the child of a process that watches it (`watching`). After the command's end it waits for the others, since one
that goes takes jax's connections along; after an error it does not, so that all the others end soon too.

`$JAXSTYLE_JOINING` is how many seconds processes wait for each other at the beginning (60).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from jaxstyle.cli.signals import SIGNALS, end_at_once, status_of
from jaxstyle.cli.watched import begin, tell
from jaxstyle.cli.watching import ENDED, LOST
from jaxstyle.errors import InputError, UnavailableError, excerpt, own

if TYPE_CHECKING:
    from jaxstyle.cli.processes import Processes

JOINING = 60.0  # seconds
HEARTBEAT = 20  # seconds without a sign of life after which jax gives a process up, and ends all
GRACE = 3.0  # seconds for the others to say what is wrong with them too
YEAR = 365 * 24 * 3600  # for the longest batch of all
OF_OTHERS = ("gloo", "nccl", "coordination", "heartbeat", "barrier", "connection reset", "connection closed")
OF_OTHERS += ("broken pipe", "socket closed", "connection refused")

_joined = threading.Event()


def live(status: Callable[[], int]) -> NoReturn:
    """Be the process that paints, and end with the status that is returned, as soon as that can be."""
    begin()
    try:
        code = status()
    except KeyboardInterrupt as error:
        code = status_of(error)
    except BaseException:
        traceback.print_exc()
        code = 1
    end_at_once()
    _leave(f"{ENDED} {code}", code, grace=GRACE)


def run(command: Any) -> int:
    """Carry a command out together with other processes, wait until all are through, and return its exit status."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # they are handled by now
    try:
        join(command.processes)
        status = command.run()
        try:
            _in_background(_part)
        except KeyboardInterrupt as error:  # of one that is tired of waiting
            _leave(f"{ENDED} {status_of(error)}", status_of(error))
        except Exception:
            _leave(LOST, 1)
        return status
    except Exception as error:
        if own(error) is None and is_of_others(error):
            _leave(f"{LOST} {excerpt(error, most=160)}", 1)
        raise


def join(processes: Processes) -> None:
    """Join the other processes.

    Raises:
        InputError: if nothing tells who they are.
        UnavailableError: if they are not there in time.
    """
    limit = _limit()
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # which would have SIGTERM for itself
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
    told: dict[str, Any] = {}
    if processes.coordinator is not None:
        host = processes.coordinator.rpartition(":")[0]
        os.environ.setdefault("no_grpc_proxy", host)  # processes know each other without a proxy
        told = {
            "coordinator_address": processes.coordinator,
            "num_processes": processes.num_processes,
            "process_id": processes.process_id,
            "cluster_detection_method": "deactivate",  # it would give each process a device of its own
        }
    where = processes.coordinator or "The coordinator"

    def connect() -> None:
        if processes.coordinator is not None and processes.process_id == 0:
            _try_port(int(processes.coordinator.rpartition(":")[2]))
        jax.distributed.initialize(
            **told,
            initialization_timeout=math.ceil(limit) + HEARTBEAT,  # where jax would end the process
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=YEAR,
        )

    try:
        in_time = _in_background(connect, limit)
    except Exception as error:
        if str(error).endswith("be defined."):  # of the address, the count or the number
            raise InputError(
                "--distributed finds no cluster that tells who takes part: add --coordinator, --num-processes and "
                "--process-id."
            ) from error
        reason = excerpt(getattr(error, "strerror", None) or error)
        raise UnavailableError(
            f"{where} cannot be used ({reason}): name a free port of process 0 with --coordinator."
        ) from error
    if not in_time:
        raise UnavailableError(
            f"{where} was not reached by all processes within {limit:g} seconds: start the command in each of them "
            "and let them connect to process 0."
        )
    check_devices(device.process_index for device in jax.devices())
    _joined.set()


def check_devices(processes: Iterable[int]) -> None:
    """Refuse processes that have not all as many devices; `processes` has for each device whose it is."""
    counts = Counter(processes).values()
    if min(counts) < max(counts):
        raise InputError(
            f"The processes have {min(counts)} to {max(counts)} devices each: give all of them as many, such as by "
            "$CUDA_VISIBLE_DEVICES."
        )


def is_of_others(error: BaseException) -> bool:
    """Return whether an error of jax's may come from the end of another process, or of the network between."""
    text = f"{type(error).__name__} {error}".lower()
    return any(each in text for each in OF_OTHERS)


def _try_port(port: int) -> None:
    """Raise `OSError` if process 0 could not have its port: jax may crash instead."""
    both: dict[str, Any] = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    socket.create_server(("", port), **both).close()


def _limit() -> float:
    text = os.environ.get("JAXSTYLE_JOINING", f"{JOINING}")
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit <= YEAR:
        raise InputError(f"$JAXSTYLE_JOINING is {excerpt(repr(text))}: use seconds, such as {JOINING:g}.")
    return limit


def _part() -> None:
    """Wait until all processes have come here, and leave them."""
    import jax
    from jax._src import distributed

    client: Any = distributed.global_state.client
    client.wait_at_barrier("jaxstyle", YEAR * 1000)  # that of `shutdown` waits for 5 minutes only
    jax.distributed.shutdown()
    _joined.clear()


def _in_background(call: Callable[[], None], limit: float | None = None) -> bool:
    """Call what may wait in C, where signals would wait too, and return whether it ended within `limit` seconds."""
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
    done.wait(limit)
    if raised:
        raise raised[0]
    return done.is_set()


def _leave(line: str, code: int, *, grace: float = 0) -> NoReturn:
    """Tell the parent how this process ends, give the others `grace` seconds to end too, and end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            stream.flush()
    tell(line)
    if grace and _joined.is_set():
        with contextlib.suppress(Exception):
            _in_background(_part, grace)
    os._exit(code)

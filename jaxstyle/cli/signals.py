"""SIGINT, SIGTERM and SIGHUP: the first one asks a command to stop, a second one interrupts it at once.

A command that has been asked to stop saves its picture between two segments of steps; before it has one, it ends at the
next `check`.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_received: list[int] = []  # by the running command: a handler can only reach global state


class Interrupted(KeyboardInterrupt):
    """A signal has stopped the command."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(number)
        self.status = 128 + number


def status_of(error: KeyboardInterrupt) -> int:
    """Return the exit status after an interruption: 130 after Ctrl-C, 143 after SIGTERM."""
    return error.status if isinstance(error, Interrupted) else 128 + signal.SIGINT


def stop_status() -> int:
    """Return the exit status that the first signal of this command asks for, or 0."""
    return 128 + _received[0] if _received else 0


def check() -> None:
    """Raise `Interrupted` if this command has been asked to stop."""
    if _received:
        raise Interrupted(_received[0])


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle the signals of one command, where it runs in the main thread; those that are ignored stay ignored."""

    def handle(number: int, _: object) -> None:
        _received.append(number)
        if len(_received) > 1:
            raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # ignored, as by nohup, or handled in C
                before[number] = signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def end_at_once() -> None:
    """Let each signal end the process in silence: nothing is left to save, and Python would show a traceback."""
    with contextlib.suppress(ValueError):  # only the main thread can have handlers
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, signal.SIG_DFL)

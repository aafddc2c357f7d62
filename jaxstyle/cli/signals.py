"""SIGINT, SIGTERM and SIGHUP: they stop a command, between two looks at the picture where one is being painted."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """A signal has stopped the command."""

    def __init__(self, number: int) -> None:
        """Note the signal's number."""
        super().__init__(number)
        self.status = 128 + number


def status_of(error: KeyboardInterrupt) -> int:
    """Return the exit status after an interruption: 130 after Ctrl-C, 143 after SIGTERM."""
    return error.status if isinstance(error, Interrupted) else 128 + signal.SIGINT


def raising() -> contextlib.AbstractContextManager[None]:
    """Let each signal raise `Interrupted` at once."""

    def handle(number: int, _: Any) -> None:
        raise Interrupted(number)

    return _handled_by(handle)


@contextlib.contextmanager
def held() -> Iterator[Callable[[], int]]:
    """Let the first signal only be noted, and a second one raise `Interrupted`.

    Yields:
        What returns the exit status that the noted signal asks for, or 0.
    """
    asked: list[int] = []

    def handle(number: int, _: Any) -> None:
        if asked:
            raise Interrupted(number)
        asked.append(128 + number)

    with _handled_by(handle):
        yield lambda: asked[0] if asked else 0


@contextlib.contextmanager
def _handled_by(handle: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can have handlers
        return
    before = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # ignored, as nohup has it for SIGHUP, or C's
                before[number] = signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""SIGINT, SIGTERM and SIGHUP: they stop a command, between two looks at the picture where one is being painted.

What a signal raises may get lost: Python only reports what is raised in a `__del__` or in a callback of the garbage
collector, and C may make another error of it. So each signal is noted too, until the next command begins, and looked
for where a command can stop. Libraries in C that are just being imported may even crash, so that is waited for.
"""

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
VARIABLE = "JAXSTYLE_WATCHED"  # what a process finds that has a parent to pass signals on to it, see `watching`
AT_ONCE = 0.5  # seconds within which two signals are one, that a scheduler has sent to such a process and to its parent
PAUSE = 0.02  # seconds from one look at whether an import is over to the next

# the numbers of this command's signals: a handler can reach nothing but what is global
_noted: list[int] = []  # all
_stopping: list[int] = []  # those that came while signals are to raise
_waiting: list[int] = []  # those of them that wait for an import


class Interrupted(KeyboardInterrupt):
    """A signal has stopped the command."""

    def __init__(self, number: int) -> None:
        """Note the signal's number."""
        super().__init__(number)
        self.status = 128 + number


def status_of(error: KeyboardInterrupt) -> int:
    """Return the exit status after an interruption: 130 after Ctrl-C, 143 after SIGTERM."""
    return error.status if isinstance(error, Interrupted) else 128 + signal.SIGINT


def noted() -> int:
    """Return the exit status that this command's first signal asks for, or 0."""
    return 128 + _noted[0] if _noted else 0


def end_at_once() -> None:
    """Let each signal end the process in silence: nothing is left to save, and Python would show a traceback."""
    with contextlib.suppress(ValueError):  # only the main thread can have handlers
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, signal.SIG_DFL)


def stopping() -> int:
    """Return the exit status of the first signal that has raised `Interrupted`, or is about to, or 0."""
    return 128 + _stopping[0] if _stopping else 0


def check() -> None:
    """Raise `Interrupted` if there was a signal, however it got lost."""
    if _noted:
        _waiting.clear()
        raise Interrupted(_noted[0])


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Begin a command: let each signal raise `Interrupted` at once, or after an import that is going on."""

    def handle(number: int, frame: FrameType | None) -> None:
        _noted.append(number)
        _stopping.append(number)
        _waiting.clear()
        if not _imports(frame):
            raise Interrupted(number)
        _waiting.append(number)
        _thread.start_new_thread(_repeat, (number,))  # not by `threading`, whose locks this thread may hold

    for seen in (_noted, _stopping, _waiting):
        seen.clear()
    with _unreported(), handled_by(handle):
        try:
            yield
        finally:
            _waiting.clear()


@contextlib.contextmanager
def held() -> Iterator[Callable[[], int]]:
    """Let the first signal only be noted, and a second one raise `Interrupted`.

    Yields:
        What returns the exit status that the noted signal asks for, or 0.

    Raises:
        Interrupted: if there was a signal before.
    """
    asked: list[int] = []
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        again = asked and now - first > (AT_ONCE if VARIABLE in os.environ else 0)
        if again and not _imports(frame):
            raise Interrupted(number)
        first = first or now
        asked.append(number)

    try:
        with handled_by(handle):
            check()
            yield lambda: 128 + asked[0] if asked else 0
    finally:
        _noted.extend(asked)  # it may have come too late for whoever asked


def _imports(frame: FrameType | None) -> bool:
    """Return whether a frame of a command is in the middle of an import."""
    while frame is not None and frame.f_globals.get("__name__") != "jaxstyle.cli":
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _repeat(number: int) -> None:
    """Send a signal that waits once more, a little later."""
    time.sleep(PAUSE)
    if number in _waiting:
        _thread.interrupt_main(signal.Signals(number))


@contextlib.contextmanager
def handled_by(handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Let `handle` have each signal that is not ignored."""
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


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Keep off the terminal where an `Interrupted` got lost, since it is noted."""
    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            before(unraisable)

    sys.unraisablehook = report
    try:
        yield
    finally:
        sys.unraisablehook = before

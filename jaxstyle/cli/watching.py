"""The process that watches one of several that paint together.

jax ends a process where another of the same run has died, at once and in words of its own. So with `--distributed`
the process that the user has started is only the parent of the one that paints, and says in a sentence how that ended.

The two are joined by two pipes and a file, whose numbers the child finds in `$JAXSTYLE_WATCHED`. By the end of the
first pipe the child notices that its parent has died. Into the second one it writes how it ends: `LOST` and why, or
`ENDED` and the exit status. What libraries in C would write on the terminal, the file gets.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import jaxstyle
from jaxstyle.cli.signals import SIGNALS, VARIABLE, handled_by
from jaxstyle.errors import UnavailableError, excerpt

LOST, ENDED = "lost", "ended"
AGAIN = "repeat the command in all of them, which goes on from the last checkpoint if there is one."
MOST_SAID = 2**20  # bytes of it that are looked at
OF_JAX = "distributed service detected fatal errors"  # how jax says that another process has died, or this one is lost


def watch(arguments: Sequence[str]) -> int:
    """Run `jaxstyle` with these arguments in another process, pass signals on to it, and return its exit status.

    Raises:
        UnavailableError: if it ended without an exit status: it was killed, or another process of the run was.
    """
    alive, held = os.pipe()
    told, telling = os.pipe()
    with tempfile.TemporaryFile() as said, os.fdopen(told) as told_lines:
        inherited = (alive, telling, said.fileno())
        try:
            with _passing_on() as running:
                try:
                    child = _start(arguments, inherited)
                finally:
                    os.close(alive)
                    os.close(telling)
                running.append(child)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                code = child.wait()
        finally:
            os.close(held)
        return _status(code, told_lines.read().splitlines(), said)


@contextlib.contextmanager
def _passing_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Pass each signal on to the process in the list; until `watch` has put it there, signals wait."""
    running: list[subprocess.Popen[bytes]] = []

    def handle(number: int, _: object) -> None:
        for child in running:
            child.send_signal(number)

    with handled_by(handle):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield running
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _start(arguments: Sequence[str], inherited: tuple[int, int, int]) -> subprocess.Popen[bytes]:
    """Start the process that paints: its signals wait until it can handle them; those of the terminal pass it by."""
    here = Path(jaxstyle.__file__).resolve().parents[1] == Path.cwd()  # else files there are not meant to be modules
    command = [sys.executable, *([] if here else ["-P"]), "-m", "jaxstyle", *arguments]
    numbers = ",".join(map(str, inherited))
    return subprocess.Popen(  # noqa: S603  # a list of arguments, and no shell
        command, env={**os.environ, VARIABLE: numbers}, pass_fds=inherited, start_new_session=True
    )


def _status(code: int, told: Sequence[str], said: IO[bytes]) -> int:
    """Return the exit status that a process has `told`, or raise what became of one that ended with `code` instead."""
    last = told[-1] if told else ""
    if last.startswith(ENDED):
        return int(last.removeprefix(ENDED))
    said.seek(max(0, said.seek(0, os.SEEK_END) - MOST_SAID))
    text = said.read().decode(errors="replace")
    if last.startswith(LOST) or OF_JAX in text:
        reason = excerpt(last.removeprefix(LOST).strip(), most=160)
        raise UnavailableError(
            f"Another process of this run has ended or is out of reach{f' ({reason})' if reason else ''}: {AGAIN}"
        )
    name = signal.Signals(-code).name if code < 0 else f"status {code}"
    why = excerpt(text.strip().rpartition("\n")[2]) or "it has not said why"
    if code == -signal.SIGKILL:
        why = "for want of memory perhaps"
    raise UnavailableError(f"The process that paints has died here ({name}, {why}): {AGAIN}")

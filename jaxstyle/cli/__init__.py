"""The command line: one file a command, and the only place that prints.

Nothing here imports jax before a command runs, so that `--help` answers at once, and nothing that takes time before
signals are handled.
"""

import os
import sys
from collections.abc import Sequence

from jaxstyle import __version__
from jaxstyle.cli.signals import VARIABLE, end_at_once, noted, raising, status_of, stopping
from jaxstyle.errors import InputError, own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `jaxstyle` with `arguments` and return its exit status.

    Args:
        arguments: those of the process if None; then it is about to end, and signals end it at once.

    Returns:
        0; 2 for what the user can mend, 1 for what the user cannot, 130 after Ctrl-C, 143 after SIGTERM.

    Example:
        >>> main(["--version"])
        jaxstyle 0.1.0
        0
    """
    if arguments is not None:
        return _status(list(arguments))
    try:
        if VARIABLE in os.environ:
            from jaxstyle.cli.joining import live

            live(lambda: _status(sys.argv[1:]))
        return _status(sys.argv[1:])
    finally:
        end_at_once()


def _status(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"jaxstyle {__version__}")
        return 0
    try:
        with raising():
            try:
                from jaxstyle.cli.commands import run  # which takes its time

                return run(arguments) or noted()
            except Exception as error:
                if not stopping():  # else it may be what became of the interruption
                    return _told(error)
                status = stopping()
    except KeyboardInterrupt as error:
        status = status_of(error)
    print("jaxstyle: interrupted before a picture was saved.", file=sys.stderr)
    return status


def _told(error: Exception) -> int:
    """Say what is wrong and return the exit status; raise a fault of the program."""
    fault = own(error)
    if fault is None:
        raise error
    print(f"jaxstyle: {fault}", file=sys.stderr)
    return 2 if isinstance(fault, InputError) else 1

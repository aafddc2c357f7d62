"""The command line: one file per command; only this package prints.

Commands import jax only when they run, so that `--help` is fast, and slow modules only after signal handlers are
installed.
"""

import gc
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from jaxstyle import __version__
from jaxstyle.cli.signals import end_at_once, handled, status_of, stop_status
from jaxstyle.errors import InputError, PictureWarning, user_error

NEW_OBJECTS = 200_000  # between garbage collections; imports and traces create many objects, which remain in use
SIGNALLED = 128  # exit statuses above are those of signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0; 2 for an error in the command, 1 for others, 130 after Ctrl-C, 143 after SIGTERM."""
    if arguments is not None:  # else those of the process, which then ends, and signals end it at once
        return _status(list(arguments))
    gc.set_threshold(NEW_OBJECTS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows console, or a pipe, may lack a character of a path
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _status(sys.argv[1:])
    except Exception:
        traceback.print_exc()
        status = 1
    finally:
        end_at_once()
    _leave(status)
    gc.freeze()  # otherwise the interpreter searches all objects for garbage before it ends: half a second
    return status


def _status(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"jaxstyle {__version__}")
        return 0
    try:
        with handled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of metadata
            warnings.showwarning = _show_warning
            try:
                from jaxstyle.cli.commands import run  # takes a second

                return run(arguments) or stop_status()
            except Exception as error:
                return _report(error)
    except KeyboardInterrupt as error:
        status = status_of(error)
    print("jaxstyle: interrupted before a picture was saved.", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """Print a warning about a picture in one line, and any other one as Python does."""
    text = f"jaxstyle: {message}"
    if not issubclass(category, PictureWarning):
        text = warnings.formatwarning(message, category, filename, lineno).rstrip()
    print(text, file=sys.stderr)


def _leave(status: int) -> None:
    """End this process at once where the end of the interpreter is not safe."""
    # As one of several processes, jax would wait for the others. After an interrupted compilation, jaxlib crashes.
    jax = sys.modules.get("jax")
    if jax is not None and (status > SIGNALLED or jax.distributed.is_initialized()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _report(error: Exception) -> int:
    """Print an error and return the exit status; raise it again if it is a bug."""
    fault = user_error(error)
    if fault is None:
        raise error
    print(f"jaxstyle: {fault}", file=sys.stderr)
    return 2 if isinstance(fault, InputError) else 1

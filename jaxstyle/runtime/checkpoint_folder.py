"""The folder of the checkpoints of a run, whose names are numbers, and its lock.

The operating system releases the lock when the process ends that saves checkpoints there, which a file beside it names.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from jaxstyle.errors import InputError, excerpt

TEMPORARY = ".orbax-checkpoint-tmp"
PARTS = ("arrays", "facts.json", "_CHECKPOINT_METADATA")  # each checkpoint has at least one of them, even if incomplete
LOCK, HOLDER = "lock", "lock.txt"


def check(folder: Path) -> None:
    """Check a folder for checkpoints: other contents must not have the names of checkpoints."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--checkpoint {folder} is a file: name a folder for the checkpoints.")
    try:
        for path in sorted(folder.iterdir()):
            if (path.name.isdecimal() or TEMPORARY in path.name) and path.is_dir() and not path.is_symlink():
                names = [file.name for file in path.iterdir()]
                if names and not any(name.startswith(PARTS) for name in names):
                    strange = f"--checkpoint {folder} holds {path.name}, which is no checkpoint"
                    raise InputError(f"{strange}: name another folder.")
    except OSError as error:
        raise InputError(
            f"--checkpoint {folder} cannot be read ({error.strerror}): name a folder that you may read."
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, and create the folder if it does not exist; raise `InputError` if it is in use."""
    check(folder)
    lock, holder = FileLock(folder / LOCK, timeout=0), folder / HOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}", encoding="utf-8")
    except Timeout as error:
        who = "another process"
        with contextlib.suppress(OSError):
            who = excerpt(holder.read_text(encoding="utf-8", errors="replace")) or who
        raise InputError(
            f"--checkpoint {folder} is in use by {who}: wait until it ends, or name another folder."
        ) from error
    except OSError as error:
        _release(lock, folder)
        reason = error.strerror or excerpt(error)
        raise InputError(f"--checkpoint {folder} cannot be written ({reason}): name another folder.") from error
    try:
        yield
    finally:
        _release(lock, folder)


def _release(lock: BaseFileLock, folder: Path) -> None:
    """Release the lock of a folder, and remove the folder if it is empty."""
    with contextlib.suppress(OSError):
        if lock.is_locked:  # filelock takes no lock whose file is removed
            for name in (HOLDER, LOCK):
                (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    lock.release()

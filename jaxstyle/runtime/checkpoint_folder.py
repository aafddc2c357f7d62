"""The folder of the checkpoints of a run, and its lock.

A file beside the lock names the process that holds it. The operating system releases the lock when that process ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxstyle.errors import InputError, excerpt

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK, HOLDER = "lock", "lock.txt"


def check(folder: Path) -> None:
    """Raise `InputError` if a folder for checkpoints is a file or cannot be read."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--checkpoint {folder} is a file: name a folder for the checkpoints.")
    try:
        os.listdir(folder)
    except OSError as error:
        raise InputError(
            f"--checkpoint {folder} cannot be read ({error.strerror}): name a folder that you may read."
        ) from error


def check_unlocked(folder: Path) -> None:
    """Raise `InputError` if a process holds the lock of a folder."""
    if (folder / LOCK).exists():
        with locked(folder):
            pass


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, and create the folder if it does not exist; raise `InputError` if it is in use."""
    from filelock import FileLock, Timeout  # a fifth of the time of `--help`

    check(folder)
    lock, holder = FileLock(folder / LOCK, timeout=0), folder / HOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except FileNotFoundError:  # a process that released its lock removed the folder at the same time
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.unlink(missing_ok=True)  # it might be a link
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}", encoding="utf-8")
    except Timeout as error:
        who = "another process"
        with contextlib.suppress(OSError):
            who = excerpt(holder.read_text(encoding="utf-8", errors="replace")) or who
        raise InputError(
            f"--checkpoint {folder} is in use by {who}: wait until it ends, or name another folder; if it has ended, "
            f"remove {folder / LOCK}."
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
    for name in (HOLDER, LOCK) if lock.is_locked else ():  # filelock takes no lock whose file is removed
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    lock.release()
    with contextlib.suppress(OSError):
        folder.rmdir()

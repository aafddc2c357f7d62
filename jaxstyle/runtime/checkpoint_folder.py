"""The folder of the checkpoints of a run, whose names are numbers, and its lock.

The lock is a file that names the process that saves checkpoints there. It is stale, and replaced, if that process of
this host has ended, or if another host has not renewed it for some minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from jaxstyle.errors import InputError, excerpt

TEMPORARY = ".orbax-checkpoint-tmp"
PARTS = ("arrays", "facts.json", "_CHECKPOINT_METADATA")  # each checkpoint has at least one of them, even if incomplete
LOCK = "lock.json"
HEARTBEAT = 20.0  # seconds between renewals of a lock
STALE = 300.0  # seconds after the last renewal
SAME_START = 2.0  # seconds by which the start of a process may differ, after changes of the clock


class Holder(NamedTuple):
    """The process that holds a lock, and its host."""

    process: int
    host: str
    started: float  # start of the process, in seconds since 1970
    since: str  # local time of the lock


def check(folder: Path) -> None:
    """Check a folder for checkpoints: other contents must not have the names of checkpoints."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--checkpoint {folder} is a file: name a folder for the checkpoints.")
    try:
        strange = [path.name for path in sorted(folder.iterdir()) if _is_called_as(path) and not _is_checkpoint(path)]
    except OSError as error:
        raise InputError(
            f"--checkpoint {folder} cannot be read ({error.strerror}): name a folder that you may read."
        ) from error
    if strange:
        raise InputError(f"--checkpoint {folder} holds {strange[0]}, which is no checkpoint: name another folder.")


def _is_called_as(path: Path) -> bool:
    return (path.name.isdecimal() or TEMPORARY in path.name) and path.is_dir() and not path.is_symlink()


def _is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint, or an incomplete one of a killed process."""
    names = [path.name for path in folder.iterdir()]
    return not names or any(name.startswith(PARTS) for name in names)


def check_unlocked(folder: Path) -> str | None:
    """Raise `InputError` if a running process holds the lock of a folder; return the text of a stale lock, or None."""
    try:
        text = (folder / LOCK).read_text(encoding="utf-8", errors="replace")
        age = time.time() - (folder / LOCK).stat().st_mtime
    except OSError:
        return None
    if _is_stale(holder := _holder(text), age):
        return text
    who = "another process"
    if holder is not None:
        who = f"process {holder.process} on {excerpt(holder.host, most=60)} since {excerpt(holder.since, most=30)}"
    raise InputError(f"--checkpoint {folder} is in use by {who}: wait until it ends, or name another folder.")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, and create the folder if it does not exist."""
    lock, release = acquire(folder), threading.Event()

    def renew() -> None:
        while not release.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(lock)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        release.set()
        thread.join()
        with contextlib.suppress(OSError):
            lock.unlink()
            folder.rmdir()  # only if it is empty


def acquire(folder: Path) -> Path:
    """Create the lock of a folder for this process, and return its path."""
    check(folder)
    lock, process = folder / LOCK, psutil.Process()
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    own = json.dumps(Holder(process.pid, socket.gethostname(), process.create_time(), since)._asdict())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while not _create(lock, own):
            text = check_unlocked(folder)
            if text is None:
                continue  # just released
            aside = lock.with_name(f"{LOCK}.{secrets.token_hex(8)}")
            with contextlib.suppress(OSError):
                lock.rename(aside)  # fails where another process was faster
                if aside.read_text(encoding="utf-8", errors="replace") == text:
                    aside.unlink()
                else:  # the lock of a process that has replaced the stale one
                    aside.rename(lock)
    except OSError as error:
        reason = error.strerror or excerpt(error)
        raise InputError(f"--checkpoint {folder} cannot be written ({reason}): name another folder.") from error
    return lock


def _create(lock: Path, text: str) -> bool:
    """Create a lock unless it exists; if it cannot be written, such as on a full disk, remove it again."""
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        lock.write_text(text, encoding="utf-8")
    except OSError:
        lock.unlink()
        raise
    return True


def _holder(text: str) -> Holder | None:
    """Return the holder that a lock names, or None if it is damaged."""
    try:
        found = json.loads(text)
        return Holder(int(found["process"]), str(found["host"]), float(found["started"]), str(found["since"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _is_stale(holder: Holder | None, age: float) -> bool:
    """Return whether the holder of a lock has ended, given the seconds since its last renewal."""
    if holder is None or holder.host != socket.gethostname():
        return age > STALE
    try:
        return abs(psutil.Process(holder.process).create_time() - holder.started) > SAME_START
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return True
    except psutil.AccessDenied:
        return False

"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxstyle.errors import UnavailableError


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield where to write a file that is then, at once, at `path`; if anything goes wrong, `path` stays as it was.

    Args:
        path: the file to write or replace; of a link, what it leads to.

    Yields:
        A path that does not exist yet, in the same folder.

    Raises:
        UnavailableError: if the file cannot be written, such as on a full disk.

    Example:
        >>> with whole("notes.txt") as part:  # doctest: +SKIP
        ...     part.write_text("all of it")
    """
    target = Path(os.path.realpath(path))  # through a link, as `open` would
    part = target.with_name(f".{secrets.token_hex(8)}.part")  # not by tempfile, whose files only their owner may read
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # lest a power cut leave the name without the bytes
        os.replace(part, target)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        raise UnavailableError(f"{path} cannot be written ({reason}): free space or use another folder.") from error
    finally:
        with contextlib.suppress(OSError):  # on Ctrl-C, too; once replaced it is gone already
            part.unlink()


def check_room(folder: Path, size: int) -> None:
    """Raise if a folder has no room for a file of that size.

    Args:
        folder: that exists.
        size: bytes.

    Raises:
        OSError: such as on a full disk, or over a quota.

    Example:
        >>> check_room(Path("."), 2**20)
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, in UTF-8, whole or not at all.

    Args:
        path: the file to write or replace.
        text: all of it.

    Raises:
        UnavailableError: if the file cannot be written.

    Example:
        >>> write_text("notes.txt", "all of it")  # doctest: +SKIP
    """
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")

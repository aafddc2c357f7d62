"""Atomic writes of files, their hashes, and limits of their space."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxstyle.errors import InputError, UnavailableError, excerpt, read_error


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, then move it to `path`; after an error `path` is unchanged."""
    target = Path(os.path.realpath(path))  # follows links, as `open` does
    # Files of tempfile are readable by their owner only.
    part = target.with_name(f".{target.stem[:20]}.{secrets.token_hex(8)}.part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # after a power failure, the name must not exist without the data
        os.replace(part, target)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        raise UnavailableError(f"{path} cannot be written ({reason}): free space or use another folder.") from error
    finally:
        with contextlib.suppress(OSError):  # also on Ctrl-C; after the move it does not exist
            part.unlink()


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, MemoryError) as error:
        reason = excerpt(getattr(error, "strerror", error))
        other = InputError(f"{path} cannot be read ({reason}): name a file that you may read.")
        raise read_error(path, error) or other from error


def limit_size(files: Iterable[Path], most: int) -> None:
    """Remove the least recently used files of a cache beyond `most` bytes in all."""
    entries = []
    for file in files:
        with contextlib.suppress(OSError):  # another process may have removed it
            entries.append((file.stat().st_mtime, file.stat().st_size, file))
    for _, size, file in sorted(entries, reverse=True):
        most -= size
        if most < 0:
            file.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8 atomically."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", newline="")

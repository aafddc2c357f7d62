"""Errors of reading a file whose cause is the machine, not the contents of the file."""

import errno
import os
from typing import Any

from jaxstyle.errors import InputError, UnavailableError

HARDWARE = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV})  # disk or network drive
OPEN_FILES = frozenset({errno.EMFILE, errno.ENFILE})


def of_machine(path: str | os.PathLike[str], error: BaseException) -> InputError | UnavailableError | None:
    """Return the error to show if the machine could not read a file, else None, such as for damaged contents."""
    number: Any = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        cure = "close other programs or raise the memory limit, and repeat the command."
        return UnavailableError(f"{path} cannot be read, as memory is exhausted: {cure}")
    if number in (errno.EACCES, errno.EPERM):
        return InputError(f"{path} may not be read by this user: change its permissions.")
    if number in HARDWARE:
        cure = "check the disk or network drive, or use a copy of the file elsewhere."
        return UnavailableError(f"{path} cannot be read ({os.strerror(number)}): {cure}")
    if number in OPEN_FILES:
        return UnavailableError(f"{path} cannot be read ({os.strerror(number)}): raise the limit (ulimit -n).")
    return None

"""Exceptions for invalid input and for failures of the environment.

Every message is one sentence with the value, the limit and the cure; the command line prints it without a traceback.
Control characters from file names and contents are escaped.
"""

import errno
import os
from numbers import Integral
from typing import Any

MOST_WHOLE = 2**31 - 1  # programs use 32-bit integers
HARDWARE = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV})  # disk or network drive
OPEN_FILES = frozenset({errno.EMFILE, errno.ENFILE})


class _OneLine(Exception):
    def __str__(self) -> str:
        return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in super().__str__())


class InputError(_OneLine, ValueError):
    """Invalid input; the command line exits with status 2."""


class UnavailableError(_OneLine, OSError):
    """Failure outside the program, such as of a download; the command line exits with status 1."""


class PictureWarning(_OneLine, UserWarning):
    """A picture file has missing rows or more than one image; see `images.load.load_image`."""


def printable(text: str) -> str:
    """Return untrusted text with spaces instead of line breaks and control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def excerpt(text: object, *, most: int = 80) -> str:
    r"""Return at most `most` characters of untrusted text, or of an exception, for use in a message.

    >>> excerpt(ValueError("bad chunk\n\x00.")), excerpt(MemoryError()), excerpt("abcdef", most=5)
    ('bad chunk', 'MemoryError', 'ab...')
    """
    line = " ".join(printable(str(text)).split()).rstrip(". ").replace(". ", ", ")
    if not line and isinstance(text, Exception):
        line = type(text).__name__
    return line if len(line) <= most else f"{line[: most - 3]}..."


def check_whole(name: str, value: Any, *, least: int = 1, most: int = MOST_WHOLE) -> None:
    """Raise `InputError` unless a value is a whole number in a range; True and 3.0 are refused.

    >>> check_whole("steps", 300)
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise InputError(f"{name} is {excerpt(repr(value))}: use a whole number from {least} to {most}.")


def out_of_memory(error: Exception) -> str | None:
    """Return a message for the user if `error`, of Python or jax, means that memory is exhausted, else None."""
    reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    if not isinstance(error, MemoryError) and not reason.startswith("RESOURCE_EXHAUSTED"):
        return None
    cure = "use --remat, a smaller --size or --batch-size or, for lbfgs, a shorter --lbfgs-history"
    return f"memory is too small ({reason}): {cure}."


def user_error(error: Exception) -> InputError | UnavailableError | None:
    """Return the error to show to the user if `error` is not a bug of the program, else None."""
    if isinstance(error, InputError | UnavailableError):
        return error
    if (sentence := out_of_memory(error)) is not None:
        return UnavailableError(sentence)
    if not isinstance(error, OSError):
        return None
    reason = excerpt(error.strerror or error)
    if error.filename is None:
        return UnavailableError(f"The operating system reports an error ({reason}): fix it and rerun the command.")
    return InputError(f"{error.filename} cannot be used ({reason}): name another path or change permissions.")


def read_error(path: str | os.PathLike[str], error: BaseException) -> InputError | UnavailableError | None:
    """Return the error to show if the machine could not read a file, else None, such as for damaged contents."""
    number: Any = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        cure = "close other programs or raise the memory limit, and rerun the command."
        return UnavailableError(f"{path} cannot be read, as memory is exhausted: {cure}")
    if number in (errno.EACCES, errno.EPERM):
        return InputError(f"{path} may not be read by this user: change its permissions.")
    if number in HARDWARE:
        cure = "check the disk or network drive, or use a copy of the file elsewhere."
        return UnavailableError(f"{path} cannot be read ({os.strerror(number)}): {cure}")
    if number in OPEN_FILES:
        return UnavailableError(f"{path} cannot be read ({os.strerror(number)}): raise the limit (ulimit -n).")
    return None

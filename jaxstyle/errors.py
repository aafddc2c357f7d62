"""What jaxstyle raises when the user, or the world, and not the program is at fault.

Every message is one sentence with the value, the limit and the cure; the command line prints it without a traceback.
What a file's name or contents would do to a terminal is escaped in it.
"""


class InputError(ValueError):
    """Something the user gave cannot be used; the command line exits with status 2."""

    def __str__(self) -> str:
        """Return the message, on one line whatever the user gave."""
        return _printable(super().__str__())


class UnavailableError(OSError):
    """Something outside the program failed, such as a download; the command line exits with status 1."""

    def __str__(self) -> str:
        """Return the message, on one line whatever failed."""
        return _printable(super().__str__())


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def printable(text: str) -> str:
    r"""Return a text that a file has made with spaces for line breaks and whatever else a terminal might obey.

    Args:
        text: anything.

    Returns:
        As many characters.

    Example:
        >>> printable("of\n\x1b[31mred")
        'of  [31mred'
    """
    return "".join(letter if letter.isprintable() else " " for letter in text)


def excerpt(text: object, *, most: int = 80) -> str:
    r"""Return what a file or another program has made so that it fits into a sentence: printable, and not a long one.

    Args:
        text: anything; an error without a text gives its name.
        most: characters.

    Returns:
        Part of a line.

    Example:
        >>> excerpt(ValueError("bad chunk\n\x00.")), excerpt(MemoryError()), excerpt("abcdef", most=5)
        ('bad chunk', 'MemoryError', 'ab...')
    """
    line = " ".join(printable(str(text)).split()).rstrip(". ").replace(". ", ", ")
    if not line and isinstance(text, Exception):
        line = type(text).__name__
    return line if len(line) <= most else f"{line[: most - 3]}..."


def out_of_memory(error: Exception) -> str | None:
    """Return what to tell the user if `error`, Python's or jax's, says that memory has run out, else None.

    Args:
        error: whatever was raised.

    Returns:
        One sentence, or None.

    Example:
        >>> out_of_memory(MemoryError()) is None, out_of_memory(ValueError("no")) is None
        (False, True)
    """
    reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    if not isinstance(error, MemoryError) and not reason.startswith("RESOURCE_EXHAUSTED"):
        return None
    return (
        f"memory is too small ({reason}): take --remat, a smaller --size, fewer --lanes or, for lbfgs, less --memory."
    )


def own(error: Exception) -> InputError | UnavailableError | None:
    """Return what to tell the user of an error that is not the program's fault, else None.

    Args:
        error: whatever was raised.

    Returns:
        An error whose text is one sentence, the same one if `error` has one already.

    Example:
        >>> own(FileNotFoundError(2, "No such file or directory", "content.jpg"))
        InputError('content.jpg cannot be used (No such file or directory): name another path or change permissions.')
    """
    if isinstance(error, InputError | UnavailableError):
        return error
    if (sentence := out_of_memory(error)) is not None:
        return UnavailableError(sentence)
    if not isinstance(error, OSError):
        return None
    reason = excerpt(error.strerror or error)
    if error.filename is None:
        return UnavailableError(f"The system refused something ({reason}): mend that and repeat the command.")
    return InputError(f"{error.filename} cannot be used ({reason}): name another path or change permissions.")

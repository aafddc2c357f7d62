"""What jaxstyle raises when the user, or the world, and not the program is at fault.

Every message is one sentence with the value, the limit and the cure; the command line prints it without a traceback.
"""


class InputError(ValueError):
    """Something the user gave cannot be used; the command line exits with status 2."""


class UnavailableError(OSError):
    """Something outside the program failed, such as a download; the command line exits with status 1."""

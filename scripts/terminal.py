"""How a short script is started: arguments as its `main` names them, and what a user can mend as one sentence."""

import sys
from collections.abc import Callable
from pathlib import Path

import tyro

from jaxstyle.errors import user_error


def start(main: Callable[..., None]) -> None:
    """Call `main` with what stands on the command line; end with a sentence where the user or the world is at fault."""
    try:
        tyro.cli(main)
    except Exception as error:
        if (message := user_error(error)) is None:
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {message}")

"""Callbacks of a run: the interfaces of progress bars and messages."""

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """A progress bar over the steps of a run."""

    def compiling(self, side: int) -> AbstractContextManager[None]:
        """Show within the context that the program for images of this longest side is being compiled."""
        ...

    def go_on(self, taken: int) -> None:
        """Continue after this many steps."""
        ...

    def advance(self, steps: int, terms: dict[str, float]) -> None:
        """Advance by this many steps and show these terms of the objective."""
        ...


class Messages(Protocol):
    """Messages for the user."""

    def tell(self, text: str) -> None:
        """Show a message."""
        ...

    def warn(self, text: str) -> None:
        """Show a warning."""
        ...

    def fail(self, error: Exception) -> None:
        """Show the reason why a file other than the picture could not be saved."""
        ...

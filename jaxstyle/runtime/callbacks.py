"""What a run reports while it goes on: the interfaces of a progress bar and of messages."""

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """A progress bar over the steps of a run."""

    def compiling(self, side: int) -> AbstractContextManager[None]:
        """Show, within the context, that the program for images of this longest side is compiled."""
        ...

    def go_on(self, taken: int) -> None:
        """Continue after this many steps."""
        ...

    def advance(self, steps: int, terms: dict[str, float]) -> None:
        """Advance by this many steps and show these terms of the objective."""
        ...


class Messages(Protocol):
    """Where sentences for the user go."""

    def tell(self, text: str) -> None:
        """Show a sentence."""
        ...

    def warn(self, text: str) -> None:
        """Show a sentence that needs attention."""
        ...

    def fail(self, error: Exception) -> None:
        """Show why something besides a picture could not be saved."""
        ...

"""Events of a run and the callbacks that receive them: progress bars, logs, pictures of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jaxstyle.runtime.runner import Snapshot


class Event(NamedTuple):
    """An event of a run.

    Attributes:
        kind: "compiling" (the program of a scale), "compiled", "resumed" (at `step`, 0 if steps are repeated), "steps"
            (a segment of steps, the only kind with a snapshot), "level off" (the rest of a scale is skipped), "saved"
            (a file, named in `message`), "failed" (a file other than the picture could not be saved), "diverged" (a
            picture of a sweep), "estimating" (memory), "message" or "warning".
        step: number of steps so far.
        total_steps: number of steps of the whole run, over all batches of a sweep.
        size: width and height of the image in pixels.
        metrics: total and weighted kinds of terms after the last step, as means over a batch.
        seconds: duration of the compilation or of the segment of steps.
        progress: fraction of the whole run that is done, by pixels of steps, to which time is proportional.
        message: text for the user.
    """

    kind: str
    step: int = 0
    total_steps: int = 0
    size: tuple[int, int] = (0, 0)
    metrics: Mapping[str, float] = MappingProxyType({})
    seconds: float = 0.0
    progress: float = 0.0
    message: str = ""


Callback = Callable[[Event, "Snapshot | None"], None]


def never() -> bool:
    """Return False: a run with this `should_stop` is not stopped."""
    return False


def notify(callbacks: Iterable[Callback], event: Event, snapshot: Snapshot | None = None) -> None:
    """Call every callback."""
    for callback in callbacks:
        callback(event, snapshot)


def message(callbacks: Iterable[Callback], text: str, *, kind: str = "message") -> None:
    """Send an event with a text for the user."""
    notify(callbacks, Event(kind, message=text))

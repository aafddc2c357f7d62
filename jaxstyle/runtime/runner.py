"""The runner: iterates over scales and segments of a few steps, and resumes at any of them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxstyle.config import LossWeights
from jaxstyle.errors import UnavailableError, out_of_memory
from jaxstyle.optim import loop
from jaxstyle.runtime.callbacks import Progress
from jaxstyle.runtime.memory import most_of_all, peak_of, shortage
from jaxstyle.runtime.problem import Ready, Work

CURE = "lower the weights or --learning-rate, or try --optimizer adam."


class Place(NamedTuple):
    """Snapshot of a run, from which it can be resumed.

    Attributes:
        scale: number of the scale, from 0.
        taken: number of steps at this scale.
        state: state after these steps; the next steps donate it.
        image: image of the state, `[..., H, W, 3]`, in the layout of the program.
        sides: longest side of the image at every step so far, `[steps]`.
        trace: history of every term so far, `[..., steps]`.
        cuts: memory plans of scales so far by longest side, see `Work.at`.
    """

    scale: int
    taken: int
    state: loop.State
    image: jax.Array
    sides: np.ndarray
    trace: Mapping[str, np.ndarray]
    cuts: Mapping[int, int]

    @property
    def steps(self) -> int:
        """Number of steps over all scales."""
        return len(self.sides)

    @property
    def donated(self) -> bool:
        """Whether later steps have taken the memory of the state, as after an interruption between two places."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state) if isinstance(leaf, jax.Array))


class Fault(NamedTuple):
    """First value of a picture that is not finite.

    Attributes:
        said: message with the term and the step.
        sound: last number of steps at which the picture and all terms were finite; -1 for none.
    """

    said: str
    sound: int


class Diverged(UnavailableError):
    """A term or the picture is not finite; `place` is the last known finite snapshot, or None."""

    def __init__(self, fault: Fault, place: Place | None) -> None:
        """Store the fault and the snapshot."""
        super().__init__(fault.said)
        self.fault, self.place = fault, place


def walk(
    work: Work,
    shown: Progress,
    *,
    place: Place | None = None,
    until: int | None = None,
    halted: Callable[[], Any] = lambda: False,
) -> Iterator[Place]:
    """Yield a snapshot after every segment of steps, including every multiple of `save_every`.

    The result, bit for bit, and early stopping do not depend on where a run is resumed.

    Args:
        work: the problem.
        shown: progress bar.
        place: snapshot to resume from; None for a new run.
        until: number of steps to stop after; None for all steps.
        halted: called before each segment; a true value stops the run.

    Raises:
        Diverged: if a term or the picture is not finite; in a batch, the other pictures continue.
        UnavailableError: if the steps of a scale need more memory than available.
    """
    with ThreadPoolExecutor(1) as thread:
        yield from _walk(work, shown, thread, place=place, until=until, halted=halted)


def _walk(
    work: Work,
    shown: Progress,
    thread: Executor,
    *,
    place: Place | None,
    until: int | None,
    halted: Callable[[], Any],
) -> Iterator[Place]:
    """Implement `walk`; each scale but the first is compiled in a thread while the previous one runs."""
    scales, resumed = work.scales(), place
    at = scales[0 if place is None else place.scale]
    sides, image, before = np.zeros(0, np.int32), None, None
    cuts: dict[int, int] = {}
    trace: dict[str, Any] = {}
    if place is not None:
        image, sides, trace, cuts = place.image, place.sides, dict(place.trace), dict(place.cuts)
        shown.go_on(sum(scale.steps for scale in scales[: place.scale]) + place.taken)
    compiling: Future[None] | None = None
    for number, scale in enumerate(scales):
        here = resumed if resumed is not None and number == resumed.scale else None
        side, taken = max(scale.width, scale.height), here.taken if here else 0
        left = min(scale.steps - taken, scale.steps if until is None else until - len(sides))
        if left <= 0 or resumed is not None and number < resumed.scale:
            continue
        with shown.compiling(side):
            if compiling is not None:
                compiling.result()
            ready = work.at(scale, cuts=cuts if here else work.cuts)
            missing = 0 if here else ready.state_bytes
            if peak_of(ready.step, missing=missing) > most_of_all():
                raise UnavailableError(_shortage(work, ready, side, missing=missing))
            state = here.state if here else work.begin(scale, image if image is None else work.seen(image, at))
        cuts, network = {**cuts, side: ready.cut} if ready.cut else cuts, work.ready(scale)
        if number + 1 < len(scales) and (until is None or until - len(sides) > left):
            compiling = thread.submit(work.compile_ahead, scales[number + 1])
        while left and not halted() and not _stopped(work, state).all():
            to_save = work.save_every - len(sides) % work.save_every if work.save_every else left
            count = min(ready.segment, left, to_save)
            try:
                state, history = ready.step(state, network, ready.targets, work.coefficients, np.int32(count))
                found: Any = loop.named(np.asarray(history)[..., :count, :], config=work.config)
            except (MemoryError, RuntimeError) as error:
                if out_of_memory(error) is None:
                    raise
                raise UnavailableError(_shortage(work, ready, side)) from error
            image, at = work.image_of(state, scale), scale
            if work.lanes is None and (fault := fault_of(found, finite=bool(work.finite(image)), done=len(sides))):
                raise Diverged(fault, last_sound((before, place), fault))
            stopped = _stopped(work, state)
            if stopped.all():  # later steps did not change anything
                count = int(stopped.max()) - taken
                found = {name: own[..., :count] for name, own in found.items()}
            left, taken = left - count, taken + count
            sides = np.append(sides, np.full(count, side, np.int32))
            trace = {name: np.concatenate([trace.get(name, new[..., :0]), new], -1) for name, new in found.items()}
            shown.advance(count, _summary(found, work.weights))
            before, place = place, Place(number, taken, state, image, sides, trace, cuts)
            yield place
        if halted():
            return
        if left:
            shown.advance(left, {"leveled off at": side})


def _stopped(work: Work, state: loop.State) -> np.ndarray:
    """Return the step at which a state has stopped, 0 for none; of each image of a batch."""
    none: Any = None  # parameters may be large and are not needed
    few = loop.State(none, None, watch=work.read(state.watch), stall=work.read(state.stall))
    return np.asarray(few.stopped)


def picture_of(work: Work, place: Place) -> np.ndarray:
    """Return the picture of a snapshot, or all pictures of a batch; called in all processes together."""
    return jax.device_get(work.finish(work.seen(place.image, work.scales()[place.scale])))


def _shortage(work: Work, ready: Ready, side: int, *, missing: int = 0) -> str:
    """Return the message for a scale that needs more memory than available, including `missing` bytes of state."""
    config, lanes = work.config, work.lanes or 1
    lbfgs = config.optimizer == "lbfgs"
    pixels = max(scale.height * scale.width for scale in work.scales() if side in scale[:2])
    pairs = config.pairs(pixels)
    pair = ready.state_bytes // (pairs + 1) if lbfgs else 0
    strips = lanes > 1 and not (ready.cut or config.remat)
    shared = work.layout is not None and not work.spans
    found = {"pair": pair, "pairs": pairs, "lanes": lanes, "strips": strips, "shared": shared}
    return shortage(ready.step, side, missing=missing, **found)


def is_whole(work: Work, place: Place) -> bool:
    """Return whether a run is complete at a snapshot."""
    scales = work.scales()
    last = place.scale == len(scales) - 1
    return last and (place.taken == scales[-1].steps or bool(_stopped(work, place.state).all()))


def news_of(work: Work, place: Place, *, before: int) -> list[tuple[int, str]]:
    """Return messages about restarts and stops of lbfgs after step `before`, each with its index in the batch."""
    if place.state.stall is None:
        return []
    stall, start, patience = work.read(place.state.stall), place.steps - place.taken, work.config.patience
    restarted, stopped = (start + np.atleast_1d(step) for step in (stall.restarted, stall.stopped))
    news, without = [], f"lbfgs made no progress in {patience} steps at {place.sides[-1]} pixels"
    for lane in map(int, np.flatnonzero(np.isfinite(np.atleast_2d(place.trace["total"])).all(axis=1))):
        if restarted[lane] > max(before, start):
            news.append((lane, f"{without}: its memory was restarted at step {restarted[lane]}"))
        if stopped[lane] > max(before, start):
            cure = "if the picture is not finished, lower --learning-rate or try --optimizer adam."
            news.append((lane, f"{without} after its restart, so it stopped at step {stopped[lane]}: {cure}"))
    return news


def fault_of(trace: Mapping[str, np.ndarray], *, finite: bool, done: int = 0) -> Fault | None:
    """Return the first value of a picture that is not finite, or None; `done` is the number of steps before the trace.

    `finite` is whether the picture after the last step is finite, which its terms do not show.
    """
    bad = [(int(np.argmin(np.isfinite(own))), name) for name, own in trace.items() if not np.isfinite(own).all()]
    if bad:
        step, name = min(bad)  # from 0; its terms are of the picture after as many steps
        return Fault(f"{name} is {trace[name][step]} at step {done + step + 1}", done + step - 1)
    if not finite:
        steps = done + len(trace["total"])
        return Fault(f"the picture is not finite after step {steps}", steps - 1)
    return None


def last_sound(places: Iterable[Place | None], fault: Fault) -> Place | None:
    """Return the last snapshot before a fault."""
    return max(
        (each for each in places if each and each.steps <= fault.sound), key=lambda each: each.steps, default=None
    )


def walked_again(work: Work, shown: Progress, halted: Callable[[], Any], *, until: int) -> Place | None:
    """Repeat a run up to `until` steps and return its snapshot; None if there is none, or if it was halted."""
    if until < 1:
        return None
    shown.go_on(0)
    places = deque(walk(work, shown, until=until, halted=halted), maxlen=1)
    return places[0] if places and places[0].steps == until else None


def _summary(trace: dict[str, np.ndarray], weights: LossWeights) -> dict[str, float]:
    """Return the total of the last step and the weighted contribution of each kind of term, as means over a batch."""
    last: Any = {name: values[..., -1] for name, values in trace.items()}
    number: Any = jax.tree.map(np.asarray, weights)
    with np.errstate(all="ignore"):  # of diverged pictures
        summary = {
            "total": last["total"],
            "content": sum(weight * last[f"content/{layer}"] for layer, weight in number.content.items()),
            "style": sum(weight * last[f"style/{layer}"] for layer, weight in number.style.items()),
        }
        summary |= {"tv": number.tv * last["tv"]} if np.any(number.tv) else {}
        return {name: float(np.mean(value)) for name, value in summary.items()}

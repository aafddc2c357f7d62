"""What a command computes, and how it is walked through: from scale to scale, a few steps at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import optimize, stage
from jaxstyle.cli.memory import give_back, room_for
from jaxstyle.cli.progress import Steps
from jaxstyle.coloring import Sizes
from jaxstyle.config import Config, LossWeights
from jaxstyle.conv import prepared
from jaxstyle.errors import UnavailableError
from jaxstyle.objective import blocks_in_rows
from jaxstyle.scales import Scale, plan
from jaxstyle.sweep import memory_of
from jaxstyle.targets import Style, Targets
from jaxstyle.vgg import Params

MOST_STEPS_A_SEGMENT = 10
WORK_A_SEGMENT = 2e11  # multiply-adds forwards: two steps of VGG-19 at 512 pixels, more than a second
CURE = "lower the weights or --learning-rate, or try --optimizer adam."


class Segment(NamedTuple):
    """What a few steps have made: the image so far, its longest side, and each term of each step (in each lane).

    `news` is what to tell of them, each with the lane that it is about.
    """

    image: jax.Array
    side: int
    trace: dict[str, np.ndarray]
    news: list[tuple[int, str]]


class Ready(NamedTuple):
    """What one scale starts with: a program that takes `segment` steps from the state against the targets."""

    state: optimize.State
    targets: Targets
    segment: int
    step: jax.stages.Compiled


@dataclass(frozen=True)
class Work:
    """The arrays and static facts of `jaxstyle.stylize`, with the colours of the styles changed.

    With lanes, weights have a leading axis, and `noise` has the key of each lane. Works made from each other by
    `dataclasses.replace` share what was compiled.
    """

    params: Params
    picture: jax.Array
    content: jax.Array
    styles: Sequence[Style | Sizes]
    weights: LossWeights
    config: Config
    start: str | jax.Array
    key: jax.Array
    steps: int
    blend: Sequence[float] | None = None
    content_masks: jax.Array | None = None
    style_masks: Sequence[jax.Array | None] | None = None
    lanes: int | None = None
    noise: jax.Array | None = None
    compiled: dict[tuple, jax.stages.Compiled] = field(default_factory=dict)

    @cached_property
    def ready(self) -> Params:
        """The network as the steps take it."""
        ready = jax.jit(prepared, static_argnames=("precision", "conv"))
        return ready(self.params, precision=self.config.precision, conv=self.config.conv)

    def scales(self) -> tuple[Scale, ...]:
        """Return the scales and their steps."""
        return plan(*self.content.shape[:2], steps=self.steps, config=self.config)

    def targets(self, scale: Scale) -> Targets:
        """Return what the image is held against at one scale."""
        return stage.targets_at(
            self.params,
            self.content,
            self.styles,
            scale,
            key=self.key,
            config=self.config,
            blend=self.blend,
            content_masks=self.content_masks,
            style_masks=self.style_masks,
        )

    def start_at(self, scale: Scale, painted: jax.Array | None) -> jax.Array:
        """Return the image to start a scale from, after what the scale before has painted."""
        if painted is not None:
            circular = self.config.border == "circular"
            return self._each(
                lambda image: stage.enlarge(image, self.content, self.styles, self.start, scale, circular=circular),
                painted,
            )
        if self.noise is not None:
            return self._each(
                lambda key: stage.start_at(self.content, self.styles, self.start, scale, key=key), self.noise
            )
        image = stage.start_at(self.content, self.styles, self.start, scale, key=self.key)
        return image if self.lanes is None else jnp.broadcast_to(image, (self.lanes, *image.shape))

    def finish(self, painted: jax.Array) -> jax.Array:
        """Return the picture to save, or those of all lanes."""
        return self._each(
            lambda image: stage.finish(image, self.picture, config=self.config, content_masks=self.content_masks),
            painted,
        )

    def _each(self, function: Callable[[jax.Array], jax.Array], array: jax.Array) -> jax.Array:
        return function(array) if self.lanes is None else jax.vmap(function)(array)

    def program(
        self, state: optimize.State, targets: Targets, *, steps: int, remat: bool = False
    ) -> jax.stages.Compiled:
        """Return the compiled program that takes so many steps from a state of that shape, in that state's memory."""
        config = replace(self.config, remat=remat or self.config.remat)
        name = (state.parameters[0].shape, steps, config.remat)
        if name not in self.compiled:
            lower = optimize.run_in_place.lower
            lowered = lower(state, self.ready, targets, self.weights, config=config, steps=steps)
            self.compiled[name] = lowered.compile()
        return self.compiled[name]

    def at(self, scale: Scale, painted: jax.Array | None = None, *, done: int = 0, save_every: int = 0) -> Ready:
        """Return what a scale starts with.

        A single picture whose steps do not fit into what memory is free goes through its largest layers in strips.
        """
        targets = self.targets(scale)
        state = optimize.init(self.start_at(scale, painted), config=self.config)
        state = jax.tree.map(jnp.copy, state)  # steps take its memory, which it may share
        segment = steps_a_segment(self.params, scale, lanes=self.lanes or 1, done=done, save_every=save_every)
        step = self.program(state, targets, steps=segment)
        pixels, strips = scale.height * scale.width, replace(self.config, remat=True)
        helps = (self.lanes or 1) == 1 and blocks_in_rows(strips, pixels) != blocks_in_rows(self.config, pixels)
        if helps and memory_of(step) > room_for(None):
            step = self.program(state, targets, steps=segment, remat=True)
        give_back()
        return Ready(state, targets, segment, step)

    def walk(self, shown: Steps, *, save_every: int = 0) -> Iterator[Segment]:
        """Yield after every few steps what they have made, and so after every `save_every`th.

        Raises:
            UnavailableError: if a term is not finite; where there are lanes, the others go on.
        """
        painted, done = None, 0
        for scale in self.scales():
            side, left = max(scale.width, scale.height), scale.steps
            with shown.compiling(side):
                state, targets, segment, step = self.at(scale, painted, done=done, save_every=save_every)
            while left and not state.done.all():
                state, trace = step(state, self.ready, targets, self.weights)
                trace = jax.device_get(trace)
                if self.lanes is None:
                    _check_finite(trace, done=done)
                start, patience = done + left - scale.steps, self.config.patience
                news = _news(state.stall, trace, side=side, start=start, done=done, patience=patience)
                left, done = left - segment, done + segment
                shown.advance(segment, _summary(trace, self.weights))
                painted = state.image
                yield Segment(painted, side, trace, news)
            if left:
                shown.advance(left, {"levelled off at": side})


def steps_a_segment(params: Params, scale: Scale, *, lanes: int = 1, done: int = 0, save_every: int = 0) -> int:
    """Return the steps between two looks at the state: few enough to interrupt, and one program serves a scale.

    More than one where that takes no time: each call costs fresh memory, a fifth of a step of the mini network.
    """
    most = MOST_STEPS_A_SEGMENT
    if jax.default_backend() == "cpu":
        layers = sum(layer["kernel"].size / 4 ** (int(name[4]) - 1) for name, layer in params.items())
        most = min(most, max(1, int(WORK_A_SEGMENT / (scale.width * scale.height * lanes * layers))))
    whole = math.gcd(scale.steps, save_every, done if save_every else 0)
    return max(n for n in range(1, most + 1) if whole % n == 0)


def _check_finite(trace: dict[str, np.ndarray], *, done: int) -> None:
    for name, values in trace.items():
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            value = values[tuple(bad[0])]
            raise UnavailableError(
                f"{name} is {value} at step {done + 1 + bad[0][-1]}, so the picture is not written: {CURE}"
            )


def _news(
    stall: optimize.Stall | None, trace: dict[str, np.ndarray], *, side: int, start: int, done: int, patience: int
) -> list[tuple[int, str]]:
    """Return what to tell of lanes whose lbfgs restarted or stopped after step `done`, at the scale from `start` on."""
    if stall is None:
        return []
    news, without = [], f"lbfgs made no progress in {patience} steps at {side} pixels"
    restarted, stopped = (start + np.atleast_1d(step) for step in jax.device_get((stall.restarted, stall.stopped)))
    for lane in map(int, np.flatnonzero(np.isfinite(np.atleast_2d(trace["total"])).all(axis=1))):
        if restarted[lane] > done:
            news.append((lane, f"{without}: its memory was restarted at step {restarted[lane]}"))
        if stopped[lane] > done:
            cure = "if the picture is not finished, lower --learning-rate or try --optimizer adam."
            news.append((lane, f"{without} after its restart, so it stopped at step {stopped[lane]}: {cure}"))
    return news


def _summary(trace: dict[str, np.ndarray], weights: LossWeights) -> dict[str, float]:
    """Return the last step's total and the weighted share of each kind of term in it, in the mean over lanes."""
    last: Any = {name: values[..., -1] for name, values in trace.items()}
    number: Any = jax.tree.map(np.asarray, weights)
    summary = {
        "total": last["total"],
        "content": sum(weight * last[f"content/{layer}"] for layer, weight in number.content.items()),
        "style": sum(weight * last[f"style/{layer}"] for layer, weight in number.style.items()),
    }
    summary |= {"tv": number.tv * last["tv"]} if np.any(number.tv) else {}
    return {name: float(np.mean(value)) for name, value in summary.items()}

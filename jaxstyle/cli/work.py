"""What a command computes: its arrays and facts, and the program for a few steps of each scale."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle import optimize, stage
from jaxstyle.cli.cutting import fitted
from jaxstyle.cli.memory import ESTIMATED, give_back, room_for, taken_and_free
from jaxstyle.coloring import Sizes
from jaxstyle.config import Config, LossWeights
from jaxstyle.conv import prepared
from jaxstyle.errors import InputError
from jaxstyle.reading import blocks_in_rows, least_pixels
from jaxstyle.scales import Scale, plan
from jaxstyle.sweep import memory_of
from jaxstyle.targets import Style, Targets
from jaxstyle.vgg import Params

MOST_STEPS_A_SEGMENT = 10
WORK_A_SEGMENT = 2e11  # multiply-adds forwards: two steps of VGG-19 at 512 pixels, more than a second


class Ready(NamedTuple):
    """What the steps of one scale need besides a state: a program that takes `segment` of them.

    Attributes:
        targets: what the image is held against.
        segment: steps.
        step: the program.
        cut: how it was cut to fit into memory: 0 for not at all, or the most pixels that it sees at a time, those of
            the whole image where only its largest layers are gone through in strips.
        state_bytes: what a state takes.
    """

    targets: Targets
    segment: int
    step: jax.stages.Compiled
    cut: int
    state_bytes: int


@dataclass(frozen=True)
class Work:
    """The arrays and static facts of `jaxstyle.stylize`, with the colours of the styles changed.

    With lanes, weights have a leading axis, and `noise` has the key of each lane. Works made from each other by
    `dataclasses.replace` share what was compiled. `cuts` is for `at`, `memory` the bytes that the whole command may
    take. Steps are looked at between segments, which end at each multiple of `save_every`.
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
    cuts: Mapping[int, int] | None = None
    memory: int | None = None
    save_every: int = 0
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

    def program(self, state: optimize.State, targets: Targets, *, steps: int, cut: int = 0) -> jax.stages.Compiled:
        """Return the compiled program that takes so many steps from a state of that shape, in the state's memory.

        It is cut as `Ready` has it.
        """
        *_, height, width, _ = state.parameters[0].shape
        config = replace(self.config, remat=cut > 0 or self.config.remat)
        if 0 < cut < height * width:
            config = replace(config, block_pixels=cut)
        name = (state.parameters[0].shape, steps, config.remat, config.block_pixels)
        if name not in self.compiled:
            lower = optimize.run_in_place.lower
            lowered = lower(state, self.ready, targets, self.weights, config=config, steps=steps)
            self.compiled[name] = lowered.compile()
        return self.compiled[name]

    def begin(self, scale: Scale, painted: jax.Array | None = None) -> optimize.State:
        """Return the state in which a scale starts after what the one before has painted."""
        leaves, structure = jax.tree.flatten(optimize.init(self.start_at(scale, painted), config=self.config))
        for i, leaf in enumerate(leaves):  # one by one, lest there are two of all
            leaves[i] = jnp.copy(leaf)  # steps take its memory, which it may share
        return jax.tree.unflatten(structure, leaves)

    def shape(self, scale: Scale) -> optimize.State:
        """Return the shapes and types of a scale's state."""
        lanes = () if self.lanes is None else (self.lanes,)
        image = jax.ShapeDtypeStruct((*lanes, scale.height, scale.width, 3), jnp.float32)
        return jax.eval_shape(partial(optimize.init, config=self.config), image)

    def at(self, scale: Scale, *, cuts: Mapping[int, int] | None = None) -> Ready:
        """Return what the steps of a scale need, before there is a state, which may be larger than memory.

        It is cut as `cuts` has it for its longest side; if that is None, as far as memory asks for it.

        Raises:
            InputError: if its steps do not fit into the memory that the command may take.
        """
        targets, state, segment = self.targets(scale), self.shape(scale), self.segment(scale)
        program = partial(self._cut, state, targets, segment)
        if cuts is not None:
            cut = cuts.get(max(scale.width, scale.height), 0)
            step = program(cut)
        else:
            step, cut = self._fitted(program, scale, there=bytes_of(targets) + bytes_of(self.ready))
        give_back()
        return Ready(targets, segment, step, cut, bytes_of(state))

    def _cut(self, state: optimize.State, targets: Targets, segment: int, cut: int) -> jax.stages.Compiled:
        return self.program(state, targets, steps=segment, cut=cut)

    def _fitted(
        self, program: Callable[[int], jax.stages.Compiled], scale: Scale, *, there: int
    ) -> tuple[jax.stages.Compiled, int]:
        """Return the program that fits into memory, `there` bytes of whose inputs are taken already, and its cut."""
        pixels, alone = scale.height * scale.width, (self.lanes or 1) == 1
        fewer = blocks_in_rows(replace(self.config, remat=True), pixels) != blocks_in_rows(self.config, pixels)
        adds_up = self.config.statistic != "sliced" and not self.config.normalize_gradients
        least = least_pixels(self.config) if alone and adds_up else None
        room, (taken, _) = room_for(self.memory), taken_and_free()

        def need(step: jax.stages.Compiled) -> int:
            return memory_of(step) - there

        step, cut = fitted(program, pixels, need=need, room=room, strips=alone and fewer, least=least)
        if alone and self.memory is not None and need(step) > room:
            takes = (taken + need(step) / ESTIMATED) / 2**20
            raise InputError(
                f"--max-memory is {self.memory / 2**20:.0f} MiB, but steps at {max(scale.width, scale.height)} pixels "
                f"take {takes:.0f} MiB in the smallest blocks: give that, or lower --size."
            )
        return step, cut

    def segment(self, scale: Scale) -> int:
        """Return the steps between two looks at the state: few enough to interrupt, and one program serves a scale.

        More than one where that takes no time: each call costs fresh memory, a fifth of a step of the mini network.
        """
        most = MOST_STEPS_A_SEGMENT
        if jax.default_backend() == "cpu":
            kernels = ((int(name[4]) - 1, layer["kernel"].size) for name, layer in self.params.items())
            work = scale.width * scale.height * (self.lanes or 1) * sum(size / 4**block for block, size in kernels)
            most = min(most, max(1, int(WORK_A_SEGMENT / work)))
        whole = math.gcd(scale.steps, self.save_every)
        return max(n for n in range(1, most + 1) if whole % n == 0)


def bytes_of(tree: Any) -> int:
    """Return how much memory the arrays of a tree take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

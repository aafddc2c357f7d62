"""What a command computes: its arrays and facts, and the program for a few steps of each scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.config import Config, LossWeights
from jaxstyle.distributed.sharding import HEIGHT
from jaxstyle.images.resample import array_module
from jaxstyle.losses.targets import Style, Targets
from jaxstyle.networks.conv import prepared, winograd_pays
from jaxstyle.networks.vgg import Params
from jaxstyle.optim import loop
from jaxstyle.runtime.memory import cut_to_fit, give_back
from jaxstyle.runtime.placement import Layout, cropped, placed
from jaxstyle.transfer import stylize
from jaxstyle.transfer.color import Sizes
from jaxstyle.transfer.schedule import Scale, plan

MOST_STEPS_A_SEGMENT = 10
WORK_A_SEGMENT = 2e11  # multiply-adds forwards: two steps of VGG-19 at 512 pixels, more than a second


class Ready(NamedTuple):
    """What the steps of one scale need besides a state: a program that takes up to `MOST_STEPS_A_SEGMENT` of them.

    Attributes:
        targets: what the image is held against, where the program wants it.
        segment: steps.
        step: the program.
        cut: how it was cut to fit into memory: 0 for not at all, or the most pixels that it sees at a time, those of
            the whole image where only its largest layers are gone through in strips.
        state_bytes: what a state takes, of the memory of one device.
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
    take. Steps are looked at between segments, which end at each multiple of `save_every`. With a `layout`, several of
    the `devices` that may be used, None for all, work together; states and their images are as it keeps them.
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
    devices: int | None = None
    layout: Layout | None = None
    compiled: dict[tuple, jax.stages.Compiled] = field(default_factory=dict)
    networks: dict[bool, Params] = field(default_factory=dict)

    def ready(self, scale: Scale) -> Params:
        """Return the network as the steps of a scale take it."""
        split = self.layout is not None and self.layout.axis == HEIGHT  # which takes the direct convolution
        pixels = scale.height * scale.width * (self.lanes or 1)
        wide = not split and winograd_pays(self.params, pixels=pixels, steps=scale.steps, layers=self.config.layers)
        if wide not in self.networks:
            params = self.params
            if wide or self.config.precision == "bfloat16" and not split:
                prepare = jax.jit(prepared, static_argnames=("precision", "conv"))
                params = prepare(params, precision=self.config.precision, conv=self.config.conv)
            self.networks[wide] = params if self.layout is None else placed(params, self.layout.whole(params))
        return self.networks[wide]

    @cached_property
    def coefficients(self) -> LossWeights:
        """The weights as the steps take them."""
        return self.weights if self.layout is None else self.layout.coefficients(self.weights)

    def scales(self) -> tuple[Scale, ...]:
        """Return the scales and their steps."""
        return plan(*self.content.shape[:2], steps=self.steps, config=self.config)

    def targets(self, scale: Scale) -> Targets:
        """Return what the image is held against at one scale."""
        return stylize.targets_at(
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

    def start_at(self, scale: Scale, painted: Any) -> Any:
        """Return the image to start a scale from, after what the scale before has painted."""
        if painted is not None:
            circular = self.config.border == "circular"
            painted = np.asarray(painted)
            return stylize.enlarge(painted, self.content, self.styles, self.start, scale, circular=circular)
        if self.noise is not None:
            shape = (scale.height, scale.width, 3)
            return np.asarray(jax.jit(jax.vmap(partial(jax.random.uniform, shape=shape)))(self.noise))
        image = np.asarray(stylize.start_at(self.content, self.styles, self.start, scale, key=self.key))
        return image if self.lanes is None else np.broadcast_to(image, (self.lanes, *image.shape))

    def finish(self, painted: Any) -> Any:
        """Return the picture to save, or those of all lanes."""
        finish = partial(stylize.finish, config=self.config, content_masks=self.content_masks)
        painted = np.asarray(painted)
        if self.lanes is None or self.config.color != "keep" and self.content_masks is None:
            return finish(painted, self.picture)
        return np.stack([np.asarray(finish(image, self.picture)) for image in painted])

    def program(self, scale: Scale, targets: Targets, *, cut: int = 0) -> jax.stages.Compiled:
        """Return the compiled program that takes steps from a scale's state, in the state's memory.

        It is cut as `Ready` has it.
        """
        config = replace(self.config, remat=cut > 0 or self.config.remat)
        if 0 < cut < scale.height * scale.width:
            config = replace(config, block_pixels=cut)
        state = self.shape(scale)
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves((state, self.ready(scale))))
        name = (scale.height, scale.width, shapes, config.remat, config.block_pixels, self.layout)
        if name not in self.compiled:
            given = (self.ready(scale), targets, self.weights)
            if self.layout is not None:
                self.compiled[name] = self.layout.program(state, *given, config=config, most_steps=MOST_STEPS_A_SEGMENT)
            else:
                steps = jax.ShapeDtypeStruct((), jnp.int32)
                run = loop.run_segment
                lowered = run.lower(state, *given, steps, config=config, most_steps=MOST_STEPS_A_SEGMENT)
                self.compiled[name] = lowered.compile()
        return self.compiled[name]

    def begin(self, scale: Scale, painted: jax.Array | None = None) -> loop.State:
        """Return the state in which a scale starts after what the one before, as `seen`, has painted."""
        image: Any = np.asarray(self.start_at(scale, painted))
        if self.layout is not None:
            return self.layout.begin(image, config=self.config)
        return loop.init(image, config=self.config)

    def resumed(self, state: loop.State) -> loop.State:
        """Return a state that was saved, as it is kept."""
        return state if self.layout is None else placed(state, self.layout.kept(state))

    def image_of(self, state: loop.State, scale: Scale) -> Any:
        """Return the image of a scale's state, as it is kept."""
        if self.layout is not None:
            return self.layout.image_of(state, self.shape(scale))
        return loop.image_on_host(state)

    def seen(self, image: jax.Array, scale: Scale) -> jax.Array:
        """Return the image of a scale's state as it is, that of all lanes; all processes have to ask for it."""
        if self.layout is None:
            return image
        return cropped(self.read(image), self._image_at(scale))

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes, if several share the work."""
        return not self.spans or jax.process_index() == 0

    @property
    def spans(self) -> bool:
        """Whether several processes share the work."""
        return self.layout is not None and self.layout.spans

    def read(self, tree: Any) -> Any:
        """Return arrays on the host, as they are kept; all processes have to ask for them."""
        return jax.device_get(tree) if self.layout is None else self.layout.read(tree)

    def finite(self, image: jax.Array) -> np.ndarray:
        """Return whether an image, as it is kept, is finite, or which lanes are."""
        module = array_module(image)
        found = np.asarray(self.read(module.isfinite(image).all((-3, -2, -1))))
        return found if self.lanes is None else found[: self.lanes]

    def shape(self, scale: Scale) -> loop.State:
        """Return the shapes and types of a scale's state."""
        return jax.eval_shape(partial(loop.init, config=self.config), self._image_at(scale))

    def _image_at(self, scale: Scale) -> jax.ShapeDtypeStruct:
        lanes = () if self.lanes is None else (self.lanes,)
        return jax.ShapeDtypeStruct((*lanes, scale.height, scale.width, 3), jnp.float32)

    def at(self, scale: Scale, *, cuts: Mapping[int, int] | None = None) -> Ready:
        """Return what the steps of a scale need, before there is a state, which may be larger than memory.

        It is cut as `cuts` has it for its longest side; if that is None, as far as memory asks for it, unless devices
        share it.

        Raises:
            InputError: if its steps do not fit into the memory that the command may take.
        """
        targets, segment, state_bytes = self.targets(scale), self.segment(scale), bytes_of(self.shape(scale))

        def program(cut: int) -> jax.stages.Compiled:
            return self.program(scale, targets, cut=cut)

        if self.layout is not None:
            step = program(0)
            give_back()
            state_bytes = state_bytes * self.layout.at_once // self.layout.mesh.size
            return Ready(placed(targets, self.layout.shapes_of(targets)), segment, step, 0, state_bytes)
        if cuts is not None:
            cut = cuts.get(max(scale.width, scale.height), 0)
            step = program(cut)
        else:
            there = bytes_of(targets) + bytes_of(self.ready(scale))
            alone = (self.lanes or 1) == 1
            step, cut = cut_to_fit(program, scale, config=self.config, alone=alone, memory=self.memory, there=there)
        give_back()
        return Ready(targets, segment, step, cut, state_bytes)

    def compile_ahead(self, scale: Scale) -> None:
        """Trace and compile the program of a scale that does not run yet; `at` then finds it, unless it has to be cut.

        For a thread beside the steps of the scale before: compiling does not hold Python's lock.
        """
        if self.layout is None:
            self.program(scale, jax.eval_shape(partial(self.targets, scale)))

    def segment(self, scale: Scale) -> int:
        """Return the number of steps between two looks at the state: few enough to interrupt.

        More than one where that takes no time: each call costs fresh memory, a fifth of a step of the mini network.
        """
        most = MOST_STEPS_A_SEGMENT
        if jax.default_backend() == "cpu":
            kernels = ((int(name[4]) - 1, layer["kernel"].size) for name, layer in self.params.items())
            work = scale.width * scale.height * (self.lanes or 1) * sum(size / 4**block for block, size in kernels)
            most = min(most, max(1, int(WORK_A_SEGMENT / work)))
        return most


def bytes_of(tree: Any) -> int:
    """Return how much memory the arrays of a tree take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

"""The problem of a run: its arrays and static options, and the compiled program of each scale."""

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
WORK_A_SEGMENT = 2e11  # multiply-adds of forward passes: two steps of VGG-19 at 512 pixels, over a second


class Ready(NamedTuple):
    """A compiled scale: the program for up to `MOST_STEPS_A_SEGMENT` steps, and its inputs besides a state.

    Attributes:
        targets: the optimization targets, on the devices of the program.
        segment: number of steps per call.
        step: the program.
        cut: memory plan: 0 for the full image at once, the number of pixels of a tile, or that of the full image for
            row chunks only.
        state_bytes: memory of a state on one device.
    """

    targets: Targets
    segment: int
    step: jax.stages.Compiled
    cut: int
    state_bytes: int


@dataclass(frozen=True)
class Work:
    """The arrays and static options of `jaxstyle.stylize`, after color matching of the styles.

    In a batch of `lanes`, weights have a leading axis, and `noise` has one key per image. Copies by
    `dataclasses.replace` share compiled programs. `cuts` are memory plans, see `at`, and `memory` is the memory budget
    in bytes. Segments of steps end at multiples of `save_every`. With a `layout`, several of the allowed `devices`
    (None for all) share the work; states and images are then stored in that layout.
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
        """Return the network prepared for the steps of a scale."""
        split = self.layout is not None and self.layout.axis == HEIGHT  # uses the direct convolution
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
        """The weights in the layout of the program."""
        return self.weights if self.layout is None else self.layout.coefficients(self.weights)

    def scales(self) -> tuple[Scale, ...]:
        """Return the scales and their steps."""
        return plan(*self.content.shape[:2], steps=self.steps, config=self.config)

    def targets(self, scale: Scale) -> Targets:
        """Return the optimization targets of one scale."""
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
        """Return the initial image of a scale, given the result of the previous one."""
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
        """Return the picture to save, or all pictures of a batch."""
        finish = partial(stylize.finish, config=self.config, content_masks=self.content_masks)
        painted = np.asarray(painted)
        if self.lanes is None or self.config.color != "keep" and self.content_masks is None:
            return finish(painted, self.picture)
        return np.stack([np.asarray(finish(image, self.picture)) for image in painted])

    def program(self, scale: Scale, targets: Targets, *, cut: int = 0) -> jax.stages.Compiled:
        """Return the compiled program of a scale, which donates the state; `cut` is as for `Ready`."""
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
        """Return the initial state of a scale, given the result of the previous one by `seen`."""
        image: Any = np.asarray(self.start_at(scale, painted))
        if self.layout is not None:
            return self.layout.begin(image, config=self.config)
        return loop.init(image, config=self.config)

    def resumed(self, state: loop.State) -> loop.State:
        """Return a saved state in the layout of the program."""
        return state if self.layout is None else placed(state, self.layout.kept(state))

    def image_of(self, state: loop.State, scale: Scale) -> Any:
        """Return the image of a state, in the layout of the program."""
        if self.layout is not None:
            return self.layout.image_of(state, self.shape(scale))
        return loop.image_on_host(state)

    def seen(self, image: jax.Array, scale: Scale) -> jax.Array:
        """Return the image of a state, or all images of a batch, without padding; called in all processes together."""
        if self.layout is None:
            return image
        return cropped(self.read(image), self._image_at(scale))

    @property
    def leads(self) -> bool:
        """Whether this process writes files, if several share the work."""
        return not self.spans or jax.process_index() == 0

    @property
    def spans(self) -> bool:
        """Whether several processes share the work."""
        return self.layout is not None and self.layout.spans

    def read(self, tree: Any) -> Any:
        """Return arrays on the host, with padding; called in all processes together."""
        return jax.device_get(tree) if self.layout is None else self.layout.read(tree)

    def finite(self, image: jax.Array) -> np.ndarray:
        """Return whether an image in the layout of the program is finite; of each image of a batch."""
        module = array_module(image)
        found = np.asarray(self.read(module.isfinite(image).all((-3, -2, -1))))
        return found if self.lanes is None else found[: self.lanes]

    def shape(self, scale: Scale) -> loop.State:
        """Return the shapes and dtypes of the state of a scale."""
        return jax.eval_shape(partial(loop.init, config=self.config), self._image_at(scale))

    def _image_at(self, scale: Scale) -> jax.ShapeDtypeStruct:
        lanes = () if self.lanes is None else (self.lanes,)
        return jax.ShapeDtypeStruct((*lanes, scale.height, scale.width, 3), jnp.float32)

    def at(self, scale: Scale, *, cuts: Mapping[int, int] | None = None) -> Ready:
        """Return the compiled scale, before its state is allocated, which may not fit into memory.

        `cuts` are memory plans by longest side; None for one that fits into memory, unless devices share the work.

        Raises:
            InputError: if the steps do not fit into the memory budget.
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
        """Compile the program of the next scale; `at` then uses it, unless memory requires row chunks or tiles.

        It runs in a thread beside the steps of the previous scale: compilation releases the global interpreter lock.
        """
        if self.layout is None:
            self.program(scale, jax.eval_shape(partial(self.targets, scale)))

    def segment(self, scale: Scale) -> int:
        """Return the number of steps per call, few enough to interrupt a run.

        It is above 1 for fast steps: each call allocates memory, which costs a fifth of a step of the mini network.
        """
        most = MOST_STEPS_A_SEGMENT
        if jax.default_backend() == "cpu":
            kernels = ((int(name[4]) - 1, layer["kernel"].size) for name, layer in self.params.items())
            work = scale.width * scale.height * (self.lanes or 1) * sum(size / 4**block for block, size in kernels)
            most = min(most, max(1, int(WORK_A_SEGMENT / work)))
        return most


def bytes_of(tree: Any) -> int:
    """Return the memory of the arrays of a pytree in bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

"""The problem of a run: its arrays and static options, and the compiled program of each scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.config import Config, LossWeights
from jaxstyle.distributed.sharding import HEIGHT
from jaxstyle.images.resample import array_module
from jaxstyle.losses.targets import Style, Targets
from jaxstyle.networks.conv import prepared, winograd_pays
from jaxstyle.networks.vgg import Params
from jaxstyle.optim import loop
from jaxstyle.runtime.memory import plan_scale, release_memory
from jaxstyle.runtime.placement import Layout, cropped, placed, row_layout
from jaxstyle.runtime.plain_data import plain
from jaxstyle.transfer import stylize
from jaxstyle.transfer.color import Sizes, Styles, recolor
from jaxstyle.transfer.schedule import Scale, plan

MOST_STEPS_PER_SEGMENT = 10
# Fields of a config that are functions, or used by them.
FUNCTIONS = ("conv", "own_terms", "own_layers", "network")
WORK_PER_SEGMENT = 2e11  # multiply-adds of forward passes: two steps of VGG-19 at 512 pixels, over a second


class CompiledScale(NamedTuple):
    """A compiled scale: the program for up to `MOST_STEPS_PER_SEGMENT` steps, and its inputs besides a state.

    Attributes:
        targets: the optimization targets, on the devices of the program.
        segment: number of steps per call.
        step: the program.
        memory_plan: 0 for the full image at once, the number of pixels of a tile, or that of the full image for row
            chunks only.
        state_bytes: memory of a state on one device.
    """

    targets: Targets
    segment: int
    step: jax.stages.Compiled
    memory_plan: int
    state_bytes: int


@dataclass(frozen=True)
class Problem:
    """The arrays and static options of `jaxstyle.stylize`, after color matching of the styles.

    In a batch of `batch_size`, weights have a leading axis, and `noise` has one key per image. Copies by
    `dataclasses.replace` share compiled programs. `memory_plans` are those of `at`, and `memory` is the memory budget
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
    style_weights: Sequence[float] | None = None
    content_masks: jax.Array | None = None
    style_masks: Sequence[jax.Array | None] | None = None
    batch_size: int | None = None
    noise: jax.Array | None = None
    memory_plans: Mapping[int, int] | None = None
    memory: int | None = None
    save_every: int = 0
    devices: int | None = None
    layout: Layout | None = None
    compiled: dict[tuple, jax.stages.Compiled] = field(default_factory=dict)
    networks: dict[bool, Params] = field(default_factory=dict)

    def ready(self, scale: Scale) -> Params:
        """Return the network prepared for the steps of a scale."""
        split = self.layout is not None and self.layout.axis == HEIGHT  # uses the direct convolution
        pixels = scale.height * scale.width * (self.batch_size or 1)
        wide = not split and winograd_pays(self.params, pixels=pixels, steps=scale.steps, layers=self.config.layers)
        if wide not in self.networks:
            params = self.params
            if wide or self.config.precision == "bfloat16" and not split:
                prepare = jax.jit(prepared, static_argnames=("precision", "conv"))
                params = prepare(params, precision=self.config.precision, conv=self.config.conv)
            self.networks[wide] = params if self.layout is None else placed(params, self.layout.whole(params))
        return self.networks[wide]

    @cached_property
    def placed_weights(self) -> LossWeights:
        """The weights in the layout of the program."""
        return self.weights if self.layout is None else self.layout.placed_weights(self.weights)

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
            blend=self.style_weights,
            content_masks=self.content_masks,
            style_masks=self.style_masks,
        )

    def initial_image(self, scale: Scale, painted: Any) -> Any:
        """Return the initial image of a scale, given the result of the previous one."""
        if painted is not None:
            circular = self.config.border == "circular"
            painted = np.asarray(painted)
            return stylize.enlarge(painted, self.content, self.styles, self.start, scale, circular=circular)
        if self.noise is not None:
            shape = (scale.height, scale.width, 3)
            return np.asarray(jax.jit(jax.vmap(partial(jax.random.uniform, shape=shape)))(self.noise))
        image = np.asarray(stylize.start_at(self.content, self.styles, self.start, scale, key=self.key))
        return image if self.batch_size is None else np.broadcast_to(image, (self.batch_size, *image.shape))

    def finish(self, painted: Any) -> Any:
        """Return the picture to save, or all pictures of a batch."""
        finish = partial(stylize.finish, config=self.config, content_masks=self.content_masks)
        painted = np.asarray(painted)
        if self.batch_size is None or self.config.color != "keep" and self.content_masks is None:
            return finish(painted, self.picture)
        return np.stack([np.asarray(finish(image, self.picture)) for image in painted])

    def program(self, scale: Scale, targets: Targets, *, memory_plan: int = 0) -> jax.stages.Compiled:
        """Return the compiled program of a scale, which donates the state; `memory_plan` is as for `CompiledScale`."""
        config = replace(self.config, remat=memory_plan > 0 or self.config.remat)
        if 0 < memory_plan < scale.height * scale.width:
            config = replace(config, block_pixels=memory_plan)
        state = self.shape(scale)
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves((state, self.ready(scale))))
        name = (scale.height, scale.width, shapes, config.remat, config.block_pixels, self.layout)
        if name not in self.compiled:
            given = (self.ready(scale), targets, self.weights)
            if self.layout is not None:
                self.compiled[name] = self.layout.program(
                    state, *given, config=config, most_steps=MOST_STEPS_PER_SEGMENT
                )
            else:
                steps = jax.ShapeDtypeStruct((), jnp.int32)
                run = loop.run_segment
                lowered = run.lower(state, *given, steps, config=config, most_steps=MOST_STEPS_PER_SEGMENT)
                self.compiled[name] = lowered.compile()
        return self.compiled[name]

    def begin(self, scale: Scale, painted: jax.Array | None = None) -> loop.State:
        """Return the initial state of a scale, given the result of the previous one by `unpadded`."""
        image: Any = np.asarray(self.initial_image(scale, painted))
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

    def unpadded(self, image: jax.Array, scale: Scale) -> jax.Array:
        """Return the image of a state, or all images of a batch, without padding; called in all processes together."""
        if self.layout is None:
            return image
        return cropped(self.read(image), self._image_at(scale))

    @property
    def writes_files(self) -> bool:
        """Whether this process writes files, if several share the work."""
        return not self.spans_processes or jax.process_index() == 0

    @property
    def spans_processes(self) -> bool:
        """Whether several processes share the work."""
        return self.layout is not None and self.layout.spans_processes

    def read(self, tree: Any) -> Any:
        """Return arrays on the host, with padding; called in all processes together."""
        return jax.device_get(tree) if self.layout is None else self.layout.read(tree)

    def finite(self, image: jax.Array) -> np.ndarray:
        """Return whether an image in the layout of the program is finite; of each image of a batch."""
        module = array_module(image)
        found = np.asarray(self.read(module.isfinite(image).all((-3, -2, -1))))
        return found if self.batch_size is None else found[: self.batch_size]

    def shape(self, scale: Scale) -> loop.State:
        """Return the shapes and dtypes of the state of a scale."""
        return jax.eval_shape(partial(loop.init, config=self.config), self._image_at(scale))

    def _image_at(self, scale: Scale) -> jax.ShapeDtypeStruct:
        batch_size = () if self.batch_size is None else (self.batch_size,)
        return jax.ShapeDtypeStruct((*batch_size, scale.height, scale.width, 3), jnp.float32)

    def at(self, scale: Scale, *, memory_plans: Mapping[int, int] | None = None) -> CompiledScale:
        """Return the compiled scale, before its state is allocated, which may not fit into memory.

        `memory_plans` are those of scales by longest side; None for one that fits into memory, unless devices share the
        work.

        Raises:
            InputError: if the steps do not fit into the memory budget.
        """
        targets, segment, state_bytes = self.targets(scale), self.segment(scale), bytes_of(self.shape(scale))

        def program(memory_plan: int) -> jax.stages.Compiled:
            return self.program(scale, targets, memory_plan=memory_plan)

        if self.layout is not None:
            step = program(0)
            release_memory()
            state_bytes = state_bytes * self.layout.at_once // self.layout.mesh.size
            return CompiledScale(placed(targets, self.layout.shapes_of(targets)), segment, step, 0, state_bytes)
        if memory_plans is not None:
            memory_plan = memory_plans.get(max(scale.width, scale.height), 0)
            step = program(memory_plan)
        else:
            allocated = bytes_of(targets) + bytes_of(self.ready(scale))
            alone = (self.batch_size or 1) == 1
            options: Any = {"alone": alone, "memory": self.memory, "allocated": allocated}
            step, memory_plan = plan_scale(program, scale, config=self.config, **options)
        release_memory()
        return CompiledScale(targets, segment, step, memory_plan, state_bytes)

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
        most = MOST_STEPS_PER_SEGMENT
        if jax.default_backend() == "cpu":
            kernels = ((int(name[4]) - 1, layer["kernel"].size) for name, layer in self.params.items())
            pixels = scale.width * scale.height * (self.batch_size or 1)
            multiply_adds = pixels * sum(size / 4**block for block, size in kernels)
            most = min(most, max(1, int(WORK_PER_SEGMENT / multiply_adds)))
        return most


def bytes_of(tree: Any) -> int:
    """Return the memory of the arrays of a pytree in bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def config_facts(config: Config) -> dict[str, Any]:
    """Return the static options as JSON data, without functions."""
    return {name: plain(value, paths={}) for name, value in vars(config).items() if name not in FUNCTIONS}


def make_problem(
    params: Params,
    content: ArrayLike,
    styles: Styles,
    *,
    weights: LossWeights | None = None,
    config: Config | None = None,
    init: str | ArrayLike = "content",
    key: jax.Array | None = None,
    steps: int = 300,
    style_weights: Sequence[float] | None = None,
    content_masks: ArrayLike | None = None,
    style_masks: Sequence[Any] | None = None,
    max_memory: int | None = None,
    devices: int | None = None,
    save_every: int = 0,
) -> Problem:
    """Return the problem of a picture, with the styles recolored as `config.color` says.

    Args:
        params: the network.
        content: `[H, W, 3]` sRGB in [0, 1].
        styles: a style image `[h, w, 3]`, its statistics, or a sequence of them.
        weights: weights of the loss; None for the defaults.
        config: the static options; None for the defaults.
        init: initial image: "content", "style", "noise", or `[H, W, 3]`.
        key: key of the noise; None for `jax.random.key(0)`.
        steps: number of gradient evaluations over all scales.
        style_weights: weight of each style; None for equal weights.
        content_masks: `[N, H, W]` in [0, 1], the region of each style; None for the whole image.
        style_masks: `[h, w]` for each style, or None for all of it.
        max_memory: memory budget in bytes; None for most of the free memory.
        devices: number of devices that share the rows of the picture; None for one.
        save_every: a segment of steps ends at each multiple of this number; 0 for none.

    Raises:
        InputError: if there is no style, the statistic needs all rows on one device, or there are fewer devices.

    Example:
        >>> make_problem(params, content, style, steps=100)  # doctest: +SKIP
    """
    config = Config() if config is None else config
    picture: Any = content
    recolored, several = recolor(picture, styles, config=config)
    if config.color != "none":
        recolored, several = jax.device_get((recolored, several))
    start: Any = init
    masks: Any = content_masks
    problem = Problem(
        params=params,
        picture=picture,
        content=recolored,
        styles=several,
        weights=LossWeights() if weights is None else weights,
        config=config,
        start=start,
        key=jax.random.key(0) if key is None else key,
        steps=steps,
        style_weights=style_weights,
        content_masks=masks,
        style_masks=style_masks,
        memory=max_memory,
        save_every=save_every,
        devices=devices,
    )
    return replace(problem, layout=None if devices is None else row_layout(devices, config=config))

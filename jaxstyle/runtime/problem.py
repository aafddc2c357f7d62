"""The problem of a run: its arrays and static options, and the compiled program of each scale."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.distributed.sharding import HEIGHT
from jaxstyle.errors import check_whole
from jaxstyle.images.resample import array_module
from jaxstyle.losses.layer_summaries import AnyNetwork, is_circular
from jaxstyle.losses.objective import BatchTargets, Objective
from jaxstyle.networks.conv import prepared
from jaxstyle.networks.vgg import VGG19, Params
from jaxstyle.optim import loop
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.optim.optimizers import LBFGS, Optimizer, Transformation, as_optimizer
from jaxstyle.runtime.executable_cache import load_or_compile
from jaxstyle.runtime.memory import peak_of, plan_scale, release_memory
from jaxstyle.runtime.options import LARGEST_BLOCKS
from jaxstyle.runtime.placement import Layout, cropped, placed, row_layout
from jaxstyle.transfer.color import Color, Styles
from jaxstyle.transfer.scale import Transfer
from jaxstyle.transfer.schedule import Scale, Scales

MOST_STEPS_PER_SEGMENT = 10
MOST_PIXELS_AHEAD = 2**20  # of images whose targets are computed while other steps run, which takes memory
WORK_PER_SEGMENT = 2e11  # multiply-adds of forward passes: two steps of VGG-19 at 512 pixels, over a second


class CompiledScale(NamedTuple):
    """A compiled scale: the program of its steps, and the optimization targets on its devices."""

    targets: Any
    segment: int  # maximum number of steps per call
    step: jax.stages.Compiled
    # 0 for the full image at once, the number of pixels of a tile, or that of the full image for row chunks only.
    memory_plan: int
    state_bytes: int  # on one device


@dataclass(frozen=True)
class Problem(Transfer):
    """A `Transfer` with a memory budget, on devices, whose scales are compiled.

    In a batch of `batch_size`, weights of the objective have a leading axis, and `noise` has one key per image. Copies
    by `dataclasses.replace` share compiled programs. `memory_plans` are those of `at`, and `memory` is the memory
    budget in bytes. Segments of steps end at multiples of `save_every`. With a `layout`, several of the allowed
    `devices` (None for all) share the work; states and images are then stored in that layout.
    """

    batch_size: int | None = None
    noise: jax.Array | None = None
    memory_plans: Mapping[int, int] | None = None
    memory: int | None = None
    save_every: int = 0
    devices: int | None = None
    layout: Layout | None = None
    compiled: dict[tuple, Future[jax.stages.Compiled]] = field(default_factory=dict)
    networks: dict[bool, Params] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of images that are optimized together."""
        return self.batch_size or 1

    def ready(self, scale: Scale) -> Params:
        """Return the params prepared for the steps of a scale."""
        network = self.network
        if not isinstance(network, VGG19):
            return self.params
        split = self.layout is not None and self.layout.axis == HEIGHT  # uses the direct convolution
        wide = not split and self.uses_winograd(scale)
        if wide not in self.networks:
            params = self.params
            if wide or network.precision == "bfloat16" and not split:
                prepare = jax.jit(prepared, static_argnames=("precision", "conv"))
                params = prepare(params, precision=network.precision, conv=network.conv)
            self.networks[wide] = params if self.layout is None else placed(params, self.layout.replicated(params))
        return self.networks[wide]

    @cached_property
    def placed_objective(self) -> AnyObjective:
        """The objective in the layout of the program."""
        return self.objective if self.layout is None else self.layout.placed_objective(self.objective)

    def targets(self, number: int, image: Any = None) -> Any:
        """Return the targets of a scale for its initial image, on which those of custom objectives depend."""
        if self.batch_size is not None and self.keeps_start:
            each = [
                self._single(i).targets(number, None if image is None else image[i]) for i in range(self.batch_size)
            ]
            return BatchTargets(jax.tree.map(lambda *parts: jnp.stack(parts), *each))
        return super().targets(number, image)

    def memory_of_targets(self, number: int) -> int:
        """Return the bytes in use while targets that depend on the initial image are computed; 0 if it is unknown.

        Matching may need more memory than a step.
        """
        single = self if self.batch_size is None else self._single(0)

        def targets(params: Params, styles: Any, image: jax.Array) -> Any:  # arguments: XLA would fold constants
            return replace(single, params=params, styles=styles, networks={}).targets(number, image)

        shape = jax.ShapeDtypeStruct((*self.schedule[number][:2], 3), self.content.dtype)
        try:
            program = jax.jit(targets).lower(self.params, self.styles, shape).compile()
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):  # of a custom objective that needs values
            return 0
        return peak_of(program, missing=(self.count - 1) * bytes_of(program.out_info))

    def _single(self, index: int) -> "Problem":
        objective = jax.tree.map(lambda weight: weight[index] if np.ndim(weight) else weight, self.objective)
        return replace(self, objective=objective, batch_size=None, noise=None, layout=None)

    @property
    def keeps_start(self) -> bool:
        """Whether the targets of a scale may depend on its initial image, which a resumed run then needs."""
        return not isinstance(self.objective, Objective)

    def initial_image(self, scale: Scale, previous: Any) -> Any:
        """Return the initial image of a scale, given the result of the previous one."""
        if previous is not None:
            return super().initial_image(scale, np.asarray(previous))
        if self.noise is not None:
            shape = (scale.height, scale.width, 3)
            return np.asarray(jax.jit(jax.vmap(partial(jax.random.uniform, shape=shape)))(self.noise))
        image = np.asarray(super().initial_image(scale, None))
        return image if self.batch_size is None else np.broadcast_to(image, (self.batch_size, *image.shape))

    def finish(self, image: Any) -> Any:
        """Return the picture to save, or all pictures of a batch, given the image after the last step."""
        image = np.asarray(image)
        if self.batch_size is None or self.color != "keep" and self.content_masks is None:
            return super().finish(image)
        return np.stack([np.asarray(super(Problem, self).finish(picture)) for picture in image])

    def program(self, scale: Scale, targets: Any, memory_plan: int = 0) -> jax.stages.Compiled:
        """Return the compiled program of a scale, which donates the state; `memory_plan` is as for `CompiledScale`."""
        network = self.network
        if memory_plan and isinstance(network, VGG19):
            network = network.clone(remat=LARGEST_BLOCKS)  # in row chunks
            if memory_plan < scale.height * scale.width:
                network = network.clone(tile_pixels=memory_plan)
        inputs = (self.shape(scale), self.ready(scale), targets, self.objective)
        leaves, structure = jax.tree.flatten(inputs)
        dtypes = [(str(getattr(leaf, "dtype", type(leaf))), getattr(leaf, "weak_type", False)) for leaf in leaves]
        shapes = tuple(zip(map(np.shape, leaves), dtypes, strict=True))
        name = (shapes, structure, network, self.layout)
        options: dict[str, Any] = {"network": network, "most_steps": MOST_STEPS_PER_SEGMENT}
        if self.layout is not None:
            return once(self.compiled, name, partial(self.layout.program, *inputs, **options))
        lower = partial(loop.run_segment.lower, *inputs, jax.ShapeDtypeStruct((), jnp.int32), **options)
        if any(getattr(leaf, "committed", False) for leaf in leaves):  # perhaps on another device
            return once(self.compiled, name, lambda: lower().compile())
        return once(self.compiled, name, partial(load_or_compile, lower, "steps", *name, MOST_STEPS_PER_SEGMENT))

    def begin(self, image: Any) -> loop.State:
        """Return the initial state of a scale, given its initial image, in the layout of the program."""
        if self.layout is None:
            return super().begin(np.asarray(image))
        options: dict[str, Any] = {"optimizer": self.optimizer, "circular": is_circular(self.network)}
        return self.layout.begin(np.asarray(image), objective=self.objective, **options)

    def saved(self, state: loop.State, scale: Scale) -> loop.State:
        """Return a state for a checkpoint, on the host and without padding; called in all processes together.

        In other processes than 0, which save nothing, its arrays are empty.
        """
        if self.layout is None:
            return self.read(state)

        def of_leaf(leaf: Any, like: Any) -> np.ndarray:  # one after the other, since they may be large
            unpadded = cropped(self.read(leaf), like)
            return np.asarray(unpadded) if self.writes_files else np.zeros(0)

        return jax.tree.map(of_leaf, state, self.shape(scale))

    def resumed(self, state: loop.State) -> loop.State:
        """Return a saved state in the layout of the program."""
        return state if self.layout is None else placed(state, self.layout.sharded(state))

    def image_of(self, state: loop.State, scale: Scale) -> Any:
        """Return the image of a state, in the layout of the program."""
        if self.layout is not None:
            return self.layout.image_of(state, self.shape(scale))
        return loop.image_on_host(state)

    def unpadded(self, image: jax.Array, scale: Scale) -> jax.Array:
        """Return the image of a state, or all images of a batch, without padding; called in all processes together."""
        return image if self.layout is None else cropped(self.read(image), self.image_shape(scale))

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
        finite = np.asarray(self.read(array_module(image).isfinite(image).all((-3, -2, -1))))
        return finite if self.batch_size is None else finite[: self.batch_size]

    def shape(self, scale: Scale) -> loop.State:
        """Return the shapes and dtypes of the state of a scale."""
        return jax.eval_shape(super().begin, self.image_shape(scale))

    def image_shape(self, scale: Scale) -> jax.ShapeDtypeStruct:
        """Return shape and dtype of the image of a scale."""
        batch_size = () if self.batch_size is None else (self.batch_size,)
        return jax.ShapeDtypeStruct((*batch_size, scale.height, scale.width, 3), self.content.dtype)

    def at(self, number: int, image: Any = None, *, memory_plans: Mapping[int, int] | None = None) -> CompiledScale:
        """Return a compiled scale for its initial image, before its state is allocated, which may not fit into memory.

        `memory_plans` are those of scales by longest side; None for one that fits into memory, unless devices share the
        work. `InputError` is raised if the steps do not fit into the memory budget.
        """
        scale, targets = self.schedule[number], self.targets(number, image)
        program, segment = partial(self.program, scale, targets), self.segment(scale)
        state_bytes = bytes_of(self.shape(scale))
        if self.layout is not None:
            step, state_bytes = program(), state_bytes * self.layout.at_once // self.layout.mesh.size
            release_memory()
            return CompiledScale(placed(targets, self.layout.target_shapes(targets)), segment, step, 0, state_bytes)
        if memory_plans is not None:
            memory_plan = memory_plans.get(max(scale.width, scale.height), 0)
            step = program(memory_plan)
        else:
            allocated = bytes_of(targets) + bytes_of(self.ready(scale))
            step, memory_plan = plan_scale(program, scale, self, memory=self.memory, allocated=allocated)
        release_memory()
        return CompiledScale(targets, segment, step, memory_plan, state_bytes)

    def compile_ahead(self, number: int) -> None:
        """Compile the programs of a scale; `at` then uses them, unless memory requires row chunks or tiles.

        It runs in a thread beside other steps: compilation releases the global interpreter lock. The program of the
        targets is compiled by a call, whose result is discarded, if this takes little memory.
        """
        if self.layout is None and isinstance(self.objective, Objective):
            scale = self.schedule[number]
            small = self.count * scale.height * scale.width <= MOST_PIXELS_AHEAD
            if small and all(isinstance(style, Mapping) for style in self.styles):
                self.program(scale, self.targets(number))
            else:
                self.program(scale, jax.eval_shape(partial(self.targets, number), self.image_shape(scale)))

    def segment(self, scale: Scale) -> int:
        """Return the number of steps per call, few enough to interrupt a run.

        It is above 1 for fast steps: each call allocates memory, which costs a fifth of a step of the mini network.
        """
        if jax.default_backend() != "cpu" or not isinstance(self.network, VGG19):
            return MOST_STEPS_PER_SEGMENT
        kernels = ((int(name[4]) - 1, layer["kernel"].size) for name, layer in self.params.items())
        pixels = scale.width * scale.height * self.count
        multiply_adds = pixels * sum(size / 4**block for block, size in kernels)
        return min(MOST_STEPS_PER_SEGMENT, max(1, int(WORK_PER_SEGMENT / multiply_adds)))


def once(
    values: dict[tuple, Future[jax.stages.Compiled]], key: tuple, make: Callable[[], jax.stages.Compiled]
) -> jax.stages.Compiled:
    """Return the value of a key, made by the first thread that asks for it; others wait, and try if that one failed."""
    value: Future[jax.stages.Compiled] = Future()
    while (earlier := values.setdefault(key, value)) is not value:
        if earlier.exception() is None:  # waits
            return earlier.result()
    try:
        made = make()
    except BaseException as error:
        values.pop(key, None)
        value.set_exception(error)
        raise
    value.set_result(made)
    return made


def bytes_of(tree: Any) -> int:
    """Return the memory of the arrays of a pytree in bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def make_problem(
    params: Params,
    content: ArrayLike,
    styles: Styles,
    *,
    objective: AnyObjective = Objective(),
    network: AnyNetwork = VGG19(),
    optimizer: Optimizer | Transformation = LBFGS(),
    steps: int = 205,
    scales: Scales = None,
    init: str | ArrayLike = "content",
    color: Color = "none",
    key: jax.Array | None = None,
    style_weights: Sequence[float] | None = None,
    content_masks: ArrayLike | None = None,
    style_masks: Sequence[Any] | None = None,
    max_memory: int | None = None,
    devices: int | None = None,
    save_every: int = 0,
) -> Problem:
    """Return the problem of a picture, with the styles recolored as `color` says.

    Args:
        params: of the network.
        content: `[H, W, 3]` sRGB in [0, 1].
        styles: a style image `[h, w, 3]`, its statistics, or a sequence of them.
        objective: weights and options of the loss.
        network: VGG-19 with its options, or a user-defined network.
        optimizer: L-BFGS, Adam or a gradient transformation of Optax, with its options.
        steps: number of gradient evaluations over all scales.
        scales: number of scales, or their longest sides.
        init: initial image: "content", "recolored", "style", "noise", or `[H, W, 3]`, as for `stylize`.
        color: as for `stylize`.
        key: key of the noise; None for `jax.random.key(0)`.
        style_weights: as for `stylize`.
        content_masks: as for `stylize`.
        style_masks: as for `stylize`.
        max_memory: memory budget in bytes; None for most of the free memory.
        devices: number of devices that share the rows of the picture; None for one.
        save_every: a segment of steps ends at each multiple of this number; 0 for none.

    Raises:
        InputError: if there is no style, a value is not in [0, 1], the statistic needs all rows on one device, or there
            are fewer devices.
    """
    check_whole("save_every", save_every, least=0)
    if devices is not None:
        check_whole("devices", devices)
    key = jax.random.key(0) if key is None else key
    method = (objective, network, as_optimizer(optimizer), init, key, steps, scales, color)
    arrays = (params, content, content, styles)
    host: dict[str, Any] = {"memory": max_memory, "devices": devices, "save_every": save_every}
    problem = Problem(*arrays, *method, style_weights, content_masks, style_masks, **host).checked()
    layout = None if devices is None else row_layout(devices, objective=objective)
    return replace(problem, objective=loop.with_dtype(objective, problem.picture.dtype), layout=layout)

"""Placement of a run on devices: which devices share the work, and how its arrays lie on them.

The pictures of a batch, or the rows of one image, are distributed over devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxstyle.config import Config, LossWeights
from jaxstyle.distributed.processes import together
from jaxstyle.distributed.sharding import BATCH, HEIGHT, SplitRows, evened, map_lanes, mesh_of
from jaxstyle.errors import InputError, excerpt
from jaxstyle.losses.targets import Targets
from jaxstyle.networks.vgg import Params
from jaxstyle.optim import loop


@dataclass(frozen=True)
class Layout:
    """What is shared out among the devices of a mesh: lanes if its axis is `BATCH`, rows if it is `HEIGHT`."""

    mesh: Mesh

    @property
    def axis(self) -> str:
        """The mesh's only axis."""
        return self.mesh.axis_names[0]

    @cached_property
    def spans(self) -> bool:
        """Whether some of the devices are other processes'."""
        return len({device.process_index for device in self.mesh.devices.flat}) > 1

    @property
    def at_once(self) -> int:
        """How many of the devices take of the same memory: those of this process, if they are its processor."""
        return self.mesh.local_mesh.size if self.mesh.devices.flat[0].platform == "cpu" else 1

    def kept(self, like: Any) -> Any:
        """Return the shapes of arrays as they are kept, and on which devices, for their own shapes."""

        def of_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
            own = _along(leaf, self.axis)
            axes = [self.axis if i == own else None for i in range(leaf.ndim)]
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(self.mesh, PartitionSpec(*axes)))

        return jax.tree.map(of_leaf, longer(like, axis=self.axis, count=self.mesh.size))

    def whole(self, like: Any) -> Any:
        """Return the shapes of arrays that all devices have."""
        where = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), like)

    def shapes_of(self, targets: Targets) -> Targets:
        """Return the shapes of targets as programs take them; the content's features may be as large as the image."""
        half = None if targets.half is None else self.shapes_of(targets.half)
        content = self.kept(targets.content) if self.axis == HEIGHT else self.whole(targets.content)
        return self.whole(targets._replace(content={}, half=None))._replace(content=content, half=half)

    def coefficients(self, weights: LossWeights) -> LossWeights:
        """Return the coefficients as programs take them: with lanes, each has one for each of them."""
        arrays: Any = jax.tree.map(partial(np.asarray, dtype=np.float32), weights)
        return placed(arrays, self.kept(arrays) if self.axis == BATCH else self.whole(arrays))

    def read(self, tree: Any) -> Any:
        """Return arrays as they are kept on the host of every process."""
        return process_allgather(tree, tiled=True) if self.spans else jax.device_get(tree)

    def begin(self, image: jax.Array, *, config: Config) -> loop.State:
        """Return the state that a scale starts from, as it is kept, for an image that every process has."""
        like = jax.ShapeDtypeStruct(image.shape, image.dtype)
        return _begin(placed(image, self.kept(like)), like=like, config=config, layout=self)

    def image_of(self, state: loop.State, like: loop.State) -> jax.Array:
        """Return the image of a state, both as they are kept; `like` has the state's own shapes."""
        return _image_of(state, like=like, layout=self)

    def program(
        self,
        like: loop.State,
        params: Params,
        targets: Targets,
        weights: LossWeights,
        *,
        config: Config,
        most_steps: int,
    ) -> jax.stages.Compiled:
        """Return the program that takes so many steps from a state as it is kept, in its memory.

        Args:
            like: the state's own shapes.
            params: the network, or its shapes.
            targets: or their shapes.
            weights: the coefficients.
            config: the static facts; rows that are shared out are gone through neither in strips nor in blocks.
            most_steps: that it takes at a time.
        """
        if self.axis == HEIGHT:
            config = replace(config, conv=SplitRows(self.mesh), remat=False, block_pixels=None)
        own = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (like, targets))
        step = partial(_steps, like=own, config=config, most_steps=most_steps, layout=self)
        where = (jax.tree.map(lambda leaf: leaf.sharding, self.kept(like)), NamedSharding(self.mesh, PartitionSpec()))
        lower = jax.jit(step, donate_argnums=0, out_shardings=where).lower
        arrays = (self.kept(like), self.whole(params), self.shapes_of(targets), self.coefficients(weights))
        return lower(*arrays, self.whole(jax.ShapeDtypeStruct((), jnp.int32))).compile()


def longer(like: Any, *, axis: str, count: int) -> Any:
    """Return the shapes of arrays as they are kept on so many devices, for their own shapes."""

    def of_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
        own = _along(leaf, axis)
        shape = tuple(side + (-side % count if i == own else 0) for i, side in enumerate(leaf.shape))
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree.map(of_leaf, like)


def placed(tree: Any, like: Any) -> Any:
    """Return arrays, all of which every process has, as long as `like` and on its devices."""

    def of_leaf(leaf: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
        more = [(0, kept - own) for kept, own in zip(like.shape, leaf.shape, strict=True)]
        host: np.ndarray = np.pad(np.asarray(leaf), more, mode="edge") if any(map(sum, more)) else np.asarray(leaf)
        assert like.sharding is not None  # noqa: S101  # narrows the type
        return jax.make_array_from_callback(like.shape, like.sharding, lambda part: host[part])

    return jax.tree.map(of_leaf, tree, like)


def cropped(tree: Any, like: Any) -> Any:
    """Return arrays as long as `like`, as they are and not as they are kept."""
    return jax.tree.map(lambda leaf, own: leaf[tuple(map(slice, own.shape))], tree, like)


def _along(leaf: Any, axis: str) -> int | None:
    """Return which axis of an array that is kept is shared out: its lanes, or the rows of `[..., H, W, C]`."""
    if axis == BATCH:
        return 0
    return leaf.ndim - 3 if leaf.ndim >= 3 else None


def _evened(tree: Any, layout: Layout) -> Any:
    def of_leaf(leaf: jax.Array) -> jax.Array:
        axis = _along(leaf, layout.axis)
        if axis is not None:
            leaf = evened(leaf, layout.mesh.size, axis=axis, mode="edge")
        return jax.lax.with_sharding_constraint(leaf, layout.kept(leaf).sharding)

    return jax.tree.map(of_leaf, tree)


def _steps(
    state: loop.State,
    params: Params,
    targets: Targets,
    weights: LossWeights,
    steps: jax.Array,
    *,
    like: tuple[loop.State, Targets],
    config: Config,
    most_steps: int,
    layout: Layout,
) -> tuple[loop.State, jax.Array]:
    run = partial(loop.run_segment, config=config, most_steps=most_steps)
    if layout.axis == HEIGHT:
        state, trace = run(cropped(state, like[0]), params, cropped(targets, like[1]), weights, steps)
        return _evened(state, layout), trace

    def each(shared: tuple[Params, Targets, jax.Array], own: tuple[loop.State, LossWeights]) -> Any:
        return run(own[0], *shared[:2], own[1], shared[2])

    state, trace = map_lanes(each, (params, targets, steps), (state, weights), mesh=layout.mesh)
    count = jax.tree.leaves(like[0])[0].shape[0]
    return state, trace[:count]


@partial(jax.jit, static_argnames=("like", "config", "layout"))
def _begin(image: jax.Array, *, like: jax.ShapeDtypeStruct, config: Config, layout: Layout) -> loop.State:
    state = loop.init(cropped(image, like), config=config)
    return _evened(jax.tree.map(jnp.copy, state), layout)  # steps take its memory, which it may share


@partial(jax.jit, static_argnames=("like", "layout"))
def _image_of(state: loop.State, *, like: loop.State, layout: Layout) -> jax.Array:
    return _evened(cropped(state, like).image, layout)


def available(count: int | None) -> Sequence[Any]:
    """Return so many devices, or all that are there, those of other processes included.

    Raises:
        InputError: if there are fewer.
    """
    devices = jax.devices()
    if count is not None and not 1 <= count <= len(devices):
        there = f"{len(devices)} {'is' if len(devices) == 1 else 'are'} there ({devices[0].platform.upper()})"
        raise InputError(f"--devices is {excerpt(count)}, but {there}: use at most as many.")
    return devices[:count]


def lanes_among(count: int | None, *, lanes: int) -> Layout | None:
    """Return how lanes are shared out among so many devices, None for all; None where one will do.

    Raises:
        InputError: as `available` does.
    """
    devices = available(count)
    used = devices if together() else devices[:lanes]
    return Layout(mesh_of(used, BATCH)) if len(used) > 1 else None


def rows_among(count: int | None, *, config: Config) -> Layout | None:
    """Return how the rows of an image are distributed over devices.

    Args:
        count: number of devices; None for one device, or for all where there are several processes.
        config: some statistics are not sums over rows.

    Returns:
        The layout; None for one device.

    Raises:
        InputError: as `available` does, or if the statistic needs all rows on one device.
    """
    if count is None and not together():
        return None
    devices = available(count)
    if len(devices) < 2:
        return None
    whole = {"--statistic sliced": config.statistic == "sliced", "--normalize-gradients": config.normalize_gradients}
    if cause := next((name for name, found in whole.items() if found), None):
        raise InputError(f"{cause} needs all rows at once, but {len(devices)} devices share them: use one device.")
    return Layout(mesh_of(devices, HEIGHT))

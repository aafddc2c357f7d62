"""Placement of a run on devices: layouts of arrays that distribute a batch, or the rows of one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxstyle.distributed.processes import is_distributed
from jaxstyle.distributed.sharding import BATCH, HEIGHT, SplitRows, map_batch, mesh_of, pad_to_multiple
from jaxstyle.errors import InputError, excerpt
from jaxstyle.losses.layer_summaries import AnyNetwork
from jaxstyle.losses.objective import Objective
from jaxstyle.networks.vgg import VGG19, Params
from jaxstyle.optim import loop
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.optim.optimizers import Optimizer


@dataclass(frozen=True)
class Layout:
    """Distribution over the devices of a mesh: of a batch if its axis is `BATCH`, of rows if it is `HEIGHT`."""

    mesh: Mesh

    @property
    def axis(self) -> str:
        """The only axis of the mesh."""
        return self.mesh.axis_names[0]

    @cached_property
    def spans_processes(self) -> bool:
        """Whether devices of several processes are used."""
        return len({device.process_index for device in self.mesh.devices.flat}) > 1

    @property
    def at_once(self) -> int:
        """Number of devices that share one memory: those of this process on a CPU, else 1."""
        return self.mesh.local_mesh.size if self.mesh.devices.flat[0].platform == "cpu" else 1

    def sharded(self, like: Any) -> Any:
        """Return the padded shapes and the shardings of distributed arrays, given their original shapes."""

        def of_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
            distributed = _distributed_axis(leaf, self.axis)
            axes = [self.axis if i == distributed else None for i in range(leaf.ndim)]
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(self.mesh, PartitionSpec(*axes)))

        return jax.tree.map(of_leaf, padded_shapes(like, axis=self.axis, count=self.mesh.size))

    def replicated(self, like: Any) -> Any:
        """Return the shapes and shardings of arrays that are replicated on all devices."""
        where = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), like)

    def target_shapes(self, targets: Any) -> Any:
        """Return the shapes of targets; with distributed rows, those of content features are too (large as images)."""
        if self.axis == BATCH:
            return self.replicated(targets)
        half = None if targets.half is None else self.target_shapes(targets.half)
        others = self.replicated(targets._replace(content={}, half=None))
        return others._replace(content=self.sharded(targets.content), half=half)

    def placed_objective(self, objective: AnyObjective) -> AnyObjective:
        """Return the objective for the program; for a batch, each weight has a batch axis."""
        arrays: Any = jax.tree.map(partial(np.asarray, dtype=np.float32), objective)
        return placed(arrays, self.sharded(arrays) if self.axis == BATCH else self.replicated(arrays))

    def read(self, tree: Any) -> Any:
        """Return distributed arrays on the host of every process."""

        def of_leaf(leaf: Any) -> Any:
            if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
                return leaf
            return leaf.addressable_data(0) if leaf.is_fully_replicated else process_allgather(leaf, tiled=True)

        return jax.device_get(jax.tree.map(of_leaf, tree))

    def begin(self, image: Any, *, objective: AnyObjective, optimizer: Optimizer, circular: bool) -> loop.State:
        """Return the distributed initial state for an image that is available in every process."""
        like = jax.ShapeDtypeStruct(image.shape, image.dtype)
        options: dict[str, Any] = {"optimizer": optimizer, "circular": circular, "layout": self}
        return _begin(placed(image, self.sharded(like)), objective, like=like, **options)

    @partial(jax.jit, static_argnames=("self", "like"))
    def image_of(self, state: loop.State, like: loop.State) -> jax.Array:
        """Return the distributed image of a distributed state; `like` has the original shapes of the state."""
        return _distributed(cropped(state, like).image, self)

    def program(
        self, like: loop.State, params: Params, targets: Any, objective: AnyObjective, *, network: AnyNetwork, **options
    ) -> jax.stages.Compiled:
        """Return the program that runs steps from a distributed state with original shapes `like`, which it donates."""
        if self.axis == HEIGHT and isinstance(network, VGG19):  # distributed rows exclude row chunks and tiles
            network = network.clone(conv=SplitRows(self.mesh), remat=(), tile_pixels=None)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (like, targets))
        step = partial(_steps, like=shapes, layout=self, run=partial(loop.run_segment, network=network, **options))
        of_state = jax.tree.map(lambda leaf: leaf.sharding, self.sharded(like))
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        lower = jax.jit(step, donate_argnums=0, out_shardings=(of_state, everywhere)).lower
        arrays = self.sharded(like), self.replicated(params), self.target_shapes(targets)
        steps = self.replicated(jax.ShapeDtypeStruct((), jnp.int32))
        return lower(*arrays, self.placed_objective(objective), steps).compile()


def padded_shapes(like: Any, *, axis: str, count: int) -> Any:
    """Return the padded shapes of arrays distributed over `count` devices, given their original shapes."""

    def of_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
        distributed = _distributed_axis(leaf, axis)
        shape = tuple(side + (-side % count if i == distributed else 0) for i, side in enumerate(leaf.shape))
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree.map(of_leaf, like)


def placed(tree: Any, like: Any) -> Any:
    """Return arrays, available in every process, padded to the shapes of `like` and placed on its devices."""

    def of_leaf(leaf: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
        more = [(0, side - length) for side, length in zip(like.shape, leaf.shape, strict=True)]
        host: np.ndarray = np.pad(np.asarray(leaf), more, mode="edge") if any(map(sum, more)) else np.asarray(leaf)
        assert like.sharding is not None  # noqa: S101  # narrows the type
        return jax.make_array_from_callback(like.shape, like.sharding, lambda part: host[part])

    return jax.tree.map(of_leaf, tree, like)


def cropped(tree: Any, like: Any) -> Any:
    """Return arrays without padding, in the shapes of `like`."""
    return jax.tree.map(lambda leaf, unpadded: leaf[tuple(map(slice, unpadded.shape))], tree, like)


def _distributed_axis(leaf: Any, axis: str) -> int | None:
    """Return the distributed axis of an array: that of the batch, or the rows of `[..., H, W, C]`."""
    if axis == BATCH:
        return 0
    return leaf.ndim - 3 if leaf.ndim >= 3 else None


def _distributed(tree: Any, layout: Layout) -> Any:
    def of_leaf(leaf: jax.Array) -> jax.Array:
        axis = _distributed_axis(leaf, layout.axis)
        if axis is not None:
            leaf = pad_to_multiple(leaf, layout.mesh.size, axis=axis, mode="edge")
        return jax.lax.with_sharding_constraint(leaf, layout.sharded(leaf).sharding)

    return jax.tree.map(of_leaf, tree)


def _steps(
    state: loop.State, params: Params, targets: Any, objective: AnyObjective, steps: jax.Array, *, like, run, layout
) -> tuple[loop.State, jax.Array]:
    """Run steps from a distributed state by `run`; `like` has the original shapes of state and targets."""
    if layout.axis == HEIGHT:
        state, history = run(cropped(state, like[0]), params, cropped(targets, like[1]), objective, steps)
        return _distributed(state, layout), history

    def each(shared: tuple[Params, Any, jax.Array], batched: tuple[loop.State, AnyObjective]) -> Any:
        return run(batched[0], *shared[:2], batched[1], shared[2])

    state, history = map_batch(each, (params, targets, steps), (state, objective), mesh=layout.mesh)
    return state, history[: jax.tree.leaves(like[0])[0].shape[0]]


@partial(jax.jit, static_argnames=("like", "circular", "layout"))
def _begin(image: jax.Array, objective: AnyObjective, *, like, optimizer, circular: bool, layout: Layout) -> loop.State:
    state = loop.init_state(cropped(image, like), objective=objective, optimizer=optimizer, circular=circular)
    return _distributed(jax.tree.map(jnp.copy, state), layout)  # steps donate the state; its arrays may share memory


def available(count: int | None) -> Sequence[Any]:
    """Return `count` devices, or all, including those of other processes; raise `InputError` if there are fewer."""
    devices = jax.devices()
    if count is not None and not 1 <= count <= len(devices):
        count_text = f"{len(devices)} {'is' if len(devices) == 1 else 'are'} available ({devices[0].platform.upper()})"
        raise InputError(f"--devices is {excerpt(count)}, but {count_text}: use at most as many.")
    return devices[:count]


def batch_layout(count: int | None, *, batch_size: int, objective: AnyObjective = Objective()) -> Layout | None:
    """Return the layout of a batch on `count` devices (None for all); None if one device is enough."""
    if not isinstance(objective, Objective):  # whose targets differ within a batch
        if (count or 1) > 1 or is_distributed():
            raise InputError(
                f"A sweep of {type(objective).__name__} uses one device: drop --devices and --distributed."
            )
        return None
    devices = available(count)
    used = devices if is_distributed() else devices[:batch_size]
    return Layout(mesh_of(used, BATCH)) if len(used) > 1 else None


def row_layout(count: int | None, *, objective: AnyObjective) -> Layout | None:
    """Return the layout of rows on `count` devices, or None for one device; all are used in several processes."""
    if count is None and not is_distributed():
        return None
    devices = available(count)
    if len(devices) < 2:
        return None
    causes = {type(objective).__name__: True}
    if isinstance(objective, Objective):
        causes = {"--statistic sliced": objective.statistic == "sliced"}
        causes["--normalize-gradients"] = objective.normalize_gradients
    if cause := next((name for name, present in causes.items() if present), None):
        raise InputError(f"{cause} needs all rows on one device, but there are {len(devices)} devices: use one.")
    return Layout(mesh_of(devices, HEIGHT))

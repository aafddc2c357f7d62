"""Devices: the rows of an image shared out among them, or lanes.

Rows are shared out by constraints on what goes into the convolutions and comes out of them. XLA then exchanges the rows
that a convolution sees beyond a border, and adds up what is summed over the image. Lanes need nothing of each other.
Heights and lanes need not divide by the number of devices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxstyle.errors import InputError
from jaxstyle.networks.conv import conv3x3

BATCH, HEIGHT = "batch", "height"


def mesh_of(devices: Sequence[Any], axis: str) -> Mesh:
    """Return devices in a row.

    Args:
        devices: of `jax.devices()`, one process's or those of several.
        axis: what is shared out among them, `BATCH` (lanes) or `HEIGHT` (rows of an image).

    Returns:
        The mesh.

    Raises:
        InputError: if there is no device.

    Example:
        >>> dict(mesh_of(jax.devices()[:1], HEIGHT).shape)
        {'height': 1}
    """
    if not devices:
        raise InputError("There are 0 devices to share work out among: name at least 1.")
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


@dataclass(frozen=True)
class SplitRows:
    """The 3x3 convolution of images whose rows are shared out among devices: a `conv` of `Config`.

    The direct one: XLA would gather the tiles of Winograd's from all devices.

    Attributes:
        mesh: of `mesh_of`, along `HEIGHT`.
    """

    mesh: Mesh

    def __call__(
        self,
        image: jax.Array,
        kernel: jax.Array,
        *_: object,
        precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
        **__: object,
    ) -> jax.Array:
        """Return what `conv3x3` does, its rows where those of the image are."""
        return self.shared(conv3x3(self.shared(image), kernel, precision=precision))

    def shared(self, x: jax.Array, *, axis: int = -3) -> jax.Array:
        """Return `x` with what lies along `axis` shared out."""
        return jax.lax.with_sharding_constraint(x, self.sharding(x.ndim, axis=axis))

    def sharding(self, ndim: int, *, axis: int = -3) -> NamedSharding:
        """Return where the parts of an array of so many axes are, if it is shared out along `axis`."""
        return NamedSharding(self.mesh, PartitionSpec(*(HEIGHT if i == ndim + axis else None for i in range(ndim))))


def evened(x: jax.Array, count: int, *, axis: int, mode: Literal["constant", "edge"] = "constant") -> jax.Array:
    """Return `x` so much longer that it divides into `count` parts.

    Args:
        x: any array.
        count: of parts.
        axis: along which.
        mode: what is added at the end, zeros ("constant") or what is there already ("edge").

    Returns:
        An array that is at most `count - 1` longer.

    Example:
        >>> evened(jnp.ones((5, 2)), 4, axis=0).shape
        (8, 2)
    """
    more = [(0, 0)] * x.ndim
    more[axis] = (0, -x.shape[axis] % count)
    return jnp.pad(x, more, mode=mode)


def map_lanes(function: Callable[..., Any], shared: Any, own: Any, *, mesh: Mesh) -> Any:
    """Return `function(shared, own)`, each device computing its part of `own` for itself.

    Args:
        function: takes both, and returns a tree of arrays with the leading axis of `own`, no lane of which may depend
            on another.
        shared: a tree of arrays that all lanes see.
        own: a tree of arrays with a leading axis that divides by the devices.
        mesh: of `mesh_of`, along `BATCH`.

    Returns:
        What the function returned.

    Example:
        >>> map_lanes(lambda a, b: a + b, jnp.ones(()), jnp.ones((4,)), mesh=mesh_of(jax.devices()[:1], BATCH)).tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    lanes = PartitionSpec(BATCH)
    specs = (PartitionSpec(), lanes)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=lanes, check_vma=False)(shared, own)

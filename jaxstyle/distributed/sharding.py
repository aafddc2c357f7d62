"""Sharding of the rows of an image, or of a batch, over devices.

Rows are distributed by sharding constraints on the inputs and outputs of convolutions. XLA then exchanges the rows that
a convolution needs from neighboring devices, and reduces sums over the image. The images of a batch are independent.
Heights and batch sizes need not be multiples of the number of devices.
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
    """Return a one-dimensional mesh of devices for an axis, `BATCH` or `HEIGHT` (rows of an image)."""
    if not devices:
        raise InputError("There are 0 devices: use at least 1.")
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


@dataclass(frozen=True)
class SplitRows:
    """The 3x3 convolution of images whose rows are distributed along `HEIGHT` of a mesh: a `conv` of `VGG19`."""

    mesh: Mesh

    def __call__(
        self,
        image: jax.Array,
        kernel: jax.Array,
        *_: object,
        precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
        **__: object,
    ) -> jax.Array:
        """Return the result of `conv3x3`, sharded like the image."""
        # For Winograd convolution, XLA would gather the Winograd tiles from all devices.
        return self.shared(conv3x3(self.shared(image), kernel, precision=precision))

    def shared(self, x: jax.Array) -> jax.Array:
        """Return `x`, `[..., H, W, C]`, with distributed rows."""
        spec = PartitionSpec(*[None] * (x.ndim - 3), HEIGHT, None, None)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))


def pad_to_multiple(
    x: jax.Array, count: int, *, axis: int, mode: Literal["constant", "edge"] = "constant"
) -> jax.Array:
    """Return `x` padded at the end of an axis to a multiple of `count`: with zeros ("constant") or the last element."""
    more = [(0, 0)] * x.ndim
    more[axis] = (0, -x.shape[axis] % count)
    return jnp.pad(x, more, mode=mode)


def map_batch(function: Callable[..., Any], shared: Any, batched: Any, *, mesh: Mesh) -> Any:
    """Return `function(shared, batched)` for independent elements of `batched`, a multiple of the devices of a mesh."""
    specs = (PartitionSpec(), PartitionSpec(BATCH))
    program = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs[1], check_vma=False)
    return program(shared, batched)

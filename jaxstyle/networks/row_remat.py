"""Layers in row chunks that are recomputed for the gradient: exact, with a fraction of the memory.

The activations of the first blocks of VGG take most of the memory of a gradient. In row chunks, only their summaries
and the input of the next block are stored. This needs a loop: with `jax.checkpoint` alone, XLA on the CPU merges the
recomputation with the first computation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

CHUNKS = 8


class Rows(NamedTuple):
    """The rows of one chunk."""

    start: jax.Array
    length: int  # the last chunk may extend beyond the image
    height: int  # of the full layer

    def inside(self, *, margin: int = 0) -> jax.Array:
        """Return a mask of the rows of the chunk, with `margin` on either side, in the image, `[rows, 1, 1]`."""
        row = self.start + jnp.arange(-margin, self.length + margin)
        return ((row >= 0) & (row < self.height))[:, None, None]

    def cut(self, x: jax.Array) -> jax.Array:
        """Return these rows of `x`, `[..., H, W]`, zero-padded."""
        beyond = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, self.length), (0, 0)])
        return jax.lax.dynamic_slice_in_dim(beyond, self.start, self.length, axis=-2)


def map_row_chunks(
    layers: Callable[[jax.Array, Rows], tuple[jax.Array, Any]], x: jax.Array, *, margin: int, mode: str
) -> tuple[jax.Array, Any]:
    """Return the pooled layer of `x`, `[..., H, W, C]`, and sums over its rows, computed in row chunks."""
    height = x.shape[-3]
    count = 2 * -(-height // (2 * CHUNKS))
    below = CHUNKS * count - height + margin
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(margin, below), (0, 0), (0, 0)], mode=mode)

    @jax.checkpoint
    def chunk(start: jax.Array) -> tuple[jax.Array, Any]:
        rows = jax.lax.dynamic_slice_in_dim(padded, start, count + 2 * margin, axis=-3)
        # The pooled chunk, `[..., rows / 2, w, c]`, and a pytree of sums.
        return layers(rows, Rows(start, count, height))

    halves, sums = jax.lax.map(chunk, count * jnp.arange(CHUNKS))
    halves = jnp.moveaxis(halves, 0, -4)
    pooled = halves.reshape(*halves.shape[:-4], -1, *halves.shape[-2:])
    return pooled[..., : height // 2, :, :], jax.tree.map(lambda each: jnp.sum(each, axis=0), sums)

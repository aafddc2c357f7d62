"""Layers in row chunks that are recomputed for the gradient: exact, with a fraction of the memory.

The activations of the first blocks of VGG take most of the memory of a gradient. In row chunks, only their summaries
and the input of the next block are stored. This needs a loop: with `jax.checkpoint` alone, XLA on the CPU merges the
recomputation with the first computation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

STRIPS = 8


class Rows(NamedTuple):
    """The rows of one chunk.

    Attributes:
        start: first row.
        length: number of rows; the last chunk may extend beyond the image.
        height: number of rows of the full layer.
    """

    start: jax.Array
    length: int
    height: int

    def inside(self, *, margin: int = 0) -> jax.Array:
        """Return a mask of the rows of the chunk, with `margin` on either side, in the image, `[rows, 1, 1]`."""
        row = self.start + jnp.arange(-margin, self.length + margin)
        return ((row >= 0) & (row < self.height))[:, None, None]

    def cut(self, x: jax.Array) -> jax.Array:
        """Return these rows of `x`, `[..., H, W]`, zero-padded."""
        beyond = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, self.length), (0, 0)])
        return jax.lax.dynamic_slice_in_dim(beyond, self.start, self.length, axis=-2)


def in_strips(
    layers: Callable[[jax.Array, Rows], tuple[jax.Array, Any]], x: jax.Array, *, margin: int, mode: str
) -> tuple[jax.Array, Any]:
    """Apply `layers` to `x` in row chunks.

    Args:
        layers: function of a chunk with `margin` rows on either side, `[..., rows, W, C]`, and its `Rows` that returns
            the pooled chunk, `[..., rows / 2, w, c]`, and a pytree of sums over its rows.
        x: `[..., H, W, C]`.
        margin: radius of the receptive field of the layers, in rows.
        mode: padding beyond the image: "constant" (zeros), "edge" or "wrap", as for `jnp.pad`.

    Returns:
        The pooled layer, `[..., H // 2, w, c]`, and the sum of the pytrees.

    Example:
        >>> in_strips(lambda x, rows: (x[1:-1:2], x[1:-1].sum()), jnp.ones((64, 2, 3)), margin=1, mode="edge")[1]
        Array(384., dtype=float32)
    """
    height = x.shape[-3]
    count = 2 * -(-height // (2 * STRIPS))
    below = STRIPS * count - height + margin
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(margin, below), (0, 0), (0, 0)], mode=mode)

    @jax.checkpoint
    def strip(start: jax.Array) -> tuple[jax.Array, Any]:
        seen = jax.lax.dynamic_slice_in_dim(padded, start, count + 2 * margin, axis=-3)
        return layers(seen, Rows(start, count, height))

    halves, parts = jax.lax.map(strip, count * jnp.arange(STRIPS))
    halves = jnp.moveaxis(halves, 0, -4)
    whole = halves.reshape(*halves.shape[:-4], -1, *halves.shape[-2:])
    return whole[..., : height // 2, :, :], jax.tree.map(lambda part: jnp.sum(part, axis=0), parts)

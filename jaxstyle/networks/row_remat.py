"""A few layers at a time in strips of rows, computed again for the gradient: exact, with a fraction of the memory.

The first blocks of VGG hold most of what a gradient needs. In strips, only what is read of them and what the next block
sees is kept. It is a loop, not `jax.checkpoint` alone, since XLA on the CPU drops what keeps the latter's second
computation apart from its first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

STRIPS = 8


class Rows(NamedTuple):
    """The rows of one strip.

    Attributes:
        start: the first of them.
        length: how many; the last strip may go beyond the image.
        height: rows of the whole image.
    """

    start: jax.Array
    length: int
    height: int

    def inside(self, *, margin: int = 0) -> jax.Array:
        """Return which rows of the strip and `margin` more on either side are of the image, `[rows, 1, 1]`."""
        row = self.start + jnp.arange(-margin, self.length + margin)
        return ((row >= 0) & (row < self.height))[:, None, None]

    def cut(self, x: jax.Array) -> jax.Array:
        """Return these rows of `x`, `[..., H, W]`; zero beyond it."""
        beyond = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, self.length), (0, 0)])
        return jax.lax.dynamic_slice_in_dim(beyond, self.start, self.length, axis=-2)


def in_strips(
    layers: Callable[[jax.Array, Rows], tuple[jax.Array, Any]], x: jax.Array, *, margin: int, mode: str
) -> tuple[jax.Array, Any]:
    """Return what `layers` make of `x`, strip by strip.

    Args:
        layers: takes a strip with `margin` rows more on either side, `[..., rows, W, C]`, and where it lies; returns
            what it is halved to, `[..., rows / 2, w, c]`, and a tree of what adds up over strips.
        x: `[..., H, W, C]`.
        margin: rows that the layers see around a strip.
        mode: what lies beyond the image: "constant" (zeros), "edge" or "wrap", as `jnp.pad` takes it.

    Returns:
        The halved image, `[..., H // 2, w, c]`, and the sum of the trees.

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

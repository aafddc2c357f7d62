"""How VGG-19 halves its layers: 2x2 pixels joined into one, by slices.

Linen's pools give the same, but the gradient of its max_pool takes ten times as long on the CPU.
"""

from typing import Literal

import jax
import jax.numpy as jnp

Pooling = Literal["max", "avg", "l2"]


def halve(x: jax.Array, pooling: Pooling) -> jax.Array:
    """Return `x` with 2x2 pixels joined into one; an odd last row or column is dropped.

    Args:
        x: `[..., H, W, C]`.
        pooling: "max" takes the largest, "avg" the mean, "l2" the root of the sum of squares.

    Returns:
        `[..., H // 2, W // 2, C]`.

    Example:
        >>> halve(jnp.arange(4.0).reshape(2, 2, 1), "max").tolist()
        [[[3.0]]]
    """
    join = JOINS[pooling]
    height, width = x.shape[-3] // 2 * 2, x.shape[-2] // 2 * 2
    rows = join(x[..., 0:width:2, :], x[..., 1:width:2, :])
    return join(rows[..., 0:height:2, :, :], rows[..., 1:height:2, :, :])


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the maximum; where both are equal, all of the gradient goes to `a`, as other frameworks have it."""
    return jnp.where(a >= b, a, b)


def _norm(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the root of the sum of squares, with a gradient of zero where both are zero."""
    squares = jnp.square(a) + jnp.square(b)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


def _mean(a: jax.Array, b: jax.Array) -> jax.Array:
    return (a + b) / 2


JOINS = {"max": _larger, "avg": _mean, "l2": _norm}

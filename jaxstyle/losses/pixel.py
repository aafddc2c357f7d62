"""What is compared pixel by pixel: features by distance, the image by its variation and by what leaves its range.

Arrays in, arrays out. Features are `[..., H, W, C]`, images `[..., H, W, 3]` in [0, 1]; leading axes are kept, so that
a batch gives a value for each of its images. Sums run in float32 or wider, whatever the features' type. How style is
compared is in `style`.

Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

Divisor = Literal["energy", "elements", "none"]
Reduction = Literal["mean", "sum"]
Variation = Literal["separate", "joint", "nine_point"]


def squared_distance(x: jax.Array, target: jax.Array, *, axes: int, divisor: Divisor = "energy") -> jax.Array:
    r"""Return the squared distance of `x` to `target`, :math:`\sum (x - t)^2 / D`.

    Deviation from Gatys et al.: they take half the sum for content and :math:`\sum / 4 C^2` for style. Divided by the
    target's energy, :math:`D = \sum t^2`, a term is 1 where `x` is all zeros, for any size, style or network.

    Args:
        x: `[..., *shape]`, features or Gram matrices.
        target: `[*shape]`, or of the shape of `x`.
        axes: how many trailing axes make up one value.
        divisor: D is the target's "energy" (1 where that is zero), the number of "elements" (the mean square), or 1
            for "none".

    Returns:
        `[...]`, not negative.

    Example:
        >>> float(squared_distance(jnp.zeros((4, 4, 8)), jnp.ones((4, 4, 8)), axes=3))
        1.0
    """
    x, target = _widen(x), _widen(jnp.broadcast_to(target, x.shape))
    return divided(jnp.sum(jnp.square(x - target), axis=tuple(range(-axes, 0))), target, axes=axes, divisor=divisor)


def divided(distance: jax.Array, target: jax.Array, *, axes: int, divisor: Divisor) -> jax.Array:
    """Return a sum of squares over D, as `squared_distance` has it.

    Args:
        distance: of anything to `target`, `[...]`.
        target: `[..., *shape]`.
        axes: how many trailing axes make up one value.
        divisor: as for `squared_distance`.

    Returns:
        `[...]`, not negative.

    Example:
        >>> float(divided(jnp.asarray(8.0), jnp.ones((2, 2)), axes=2, divisor="elements"))
        2.0
    """
    if divisor == "energy":
        return distance / positive(jnp.sum(jnp.square(_widen(target)), axis=tuple(range(-axes, 0))))
    return distance / (math.prod(target.shape[-axes:]) if divisor == "elements" else 1)


def positive(energy: jax.Array) -> jax.Array:
    """Return a target's `energy` to divide by: 1 where it is zero, as of a black picture or an untrained network.

    Args:
        energy: `[...]`, not negative.

    Returns:
        `[...]`, positive.

    Example:
        >>> positive(jnp.asarray([0.0, 3.0])).tolist()
        [1.0, 3.0]
    """
    return jnp.where(energy > 0, energy, 1.0)


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def total_variation(
    image: jax.Array,
    *,
    form: Variation = "separate",
    power: float = 2,
    reduction: Reduction = "mean",
    circular: bool = False,
) -> jax.Array:
    r"""Return how much neighbouring pixels differ.

    With differences :math:`d` to the pixel below and :math:`r` to the one on the right, "separate" is
    :math:`\sum |d|^p + \sum |r|^p`. "joint" is :math:`\sum (d^2 + r^2)^{p/2}` over the pixels that have both
    neighbours: Mahendran and Vedaldi, *Understanding Deep Image Representations by Inverting Them*, arXiv:1412.0035.
    "nine_point" takes diagonals in and continues the image by its border, as crowsonkb's style-transfer-pytorch does:
    2/3 of the mean squares along rows and columns and 1/6 of those along both diagonals. Gatys et al. have no such
    term.

    Args:
        image: `[..., H, W, 3]`.
        form: "separate", "joint" or "nine_point".
        power: p, from 1; "nine_point" is always of squares.
        reduction: "sum", or "mean" for the mean over each direction, then the sum of them; "nine_point" is always a
            mean.
        circular: whether pixels at a border are neighbours of those across from them.

    Returns:
        `[...]`, zero for a constant image.

    Example:
        >>> float(total_variation(jnp.ones((4, 4, 3))))
        0.0
    """
    if form == "nine_point":
        around = [(0, 0)] * (image.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
        around = jnp.pad(image, around, mode="wrap" if circular else "edge")
        here, below, right = around[..., 1:-1, 1:-1, :], around[..., 2:, 1:-1, :], around[..., 1:-1, 2:, :]
        diagonals = (
            (around[..., 1:, 1:, :], around[..., :-1, :-1, :]),
            (around[..., 1:, :-1, :], around[..., :-1, 1:, :]),
        )
        straight = _reduced(jnp.square(below - here), "mean") + _reduced(jnp.square(right - here), "mean")
        return 2 / 3 * straight + sum((_reduced(jnp.square(a - b), "mean") for a, b in diagonals), jnp.zeros(())) / 6
    if circular:
        down, right = (jnp.roll(image, -1, axis=axis) - image for axis in (-3, -2))
    else:
        down = image[..., 1:, :, :] - image[..., :-1, :, :]
        right = image[..., :, 1:, :] - image[..., :, :-1, :]
    if form == "joint":
        squares = jnp.square(down[..., :, : right.shape[-2], :]) + jnp.square(right[..., : down.shape[-3], :, :])
        return _reduced(_power(squares, power / 2), reduction)
    return _reduced(_power(jnp.abs(down), power), reduction) + _reduced(_power(jnp.abs(right), power), reduction)


def _power(x: jax.Array, power: float) -> jax.Array:
    """Return a power of what is not negative; its derivative at zero, which need not be finite, is 0."""
    if power in (1, 2):
        return x if power == 1 else jnp.square(x)
    return jnp.where(x > 0, jnp.where(x > 0, x, 1.0) ** power, 0.0)


def _reduced(cost: jax.Array, reduction: Reduction) -> jax.Array:
    # an image one pixel high or wide has no neighbours in that direction
    count = max(1, math.prod(cost.shape[-3:])) if reduction == "mean" else 1
    return jnp.sum(cost, axis=(-3, -2, -1)) / count


def out_of_range(image: jax.Array, *, reduction: Reduction = "mean", upper: float = 1.0) -> jax.Array:
    r"""Return how far the image leaves [0, upper], :math:`\sum \max(-x, 0)^2 + \max(x - u, 0)^2`.

    Unlike a clip at each step this leaves the gradient's differences meaningful, which lbfgs lives on. No published
    system has it.

    Args:
        image: `[..., H, W, 3]`.
        reduction: "mean" or "sum" over all values.
        upper: u, the white of the image's scale.

    Returns:
        `[...]`, zero for an image in range.

    Example:
        >>> float(out_of_range(jnp.full((4, 4, 3), 1.5)))
        0.25
    """
    reduce = jnp.mean if reduction == "mean" else jnp.sum
    return reduce(jnp.square(image - jnp.clip(image, 0.0, upper)), axis=(-3, -2, -1))

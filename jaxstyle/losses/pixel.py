"""Pixelwise losses: squared distance of features, total variation and range penalty of the image.

Features are `[..., H, W, C]`, images `[..., H, W, 3]` in [0, 1]; leading axes are batch axes, with one value per image.
Sums accumulate in float32 or wider, whatever the dtype of the features. Style losses are in `style`.

Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

Normalization = Literal["energy", "elements", "none"]
Reduction = Literal["mean", "sum"]
Variation = Literal["separate", "joint", "nine_point"]


def squared_distance(
    x: jax.Array, target: jax.Array, *, axes: int, normalization: Normalization = "energy"
) -> jax.Array:
    r"""Return the squared distance of `x` to `target`, :math:`\sum (x - t)^2 / D`.

    Deviation from Gatys et al.: they use half the sum for content and :math:`\sum / 4 C^2` for style. Normalized by the
    energy of the target, :math:`D = \sum t^2`, a term is 1 for `x` all zeros, for any size, style or network.

    Args:
        x: `[..., *shape]`, features or Gram matrices.
        target: `[*shape]`, or of the shape of `x`.
        axes: number of trailing axes to sum over.
        normalization: D is the "energy" of the target (1 where that is zero), the number of "elements" (the mean
            square), or 1 for "none".

    Returns:
        `[...]`, not negative.

    Example:
        >>> float(squared_distance(jnp.zeros((4, 4, 8)), jnp.ones((4, 4, 8)), axes=3))
        1.0
    """
    x, target = _widen(x), _widen(jnp.broadcast_to(target, x.shape))
    squared = jnp.sum(jnp.square(x - target), axis=tuple(range(-axes, 0)))
    return divided(squared, target, axes=axes, normalization=normalization)


def divided(distance: jax.Array, target: jax.Array, *, axes: int, normalization: Normalization) -> jax.Array:
    """Return a sum of squares, `[...]`, divided by D of `squared_distance`."""
    if normalization == "energy":
        return distance / positive(jnp.sum(jnp.square(_widen(target)), axis=tuple(range(-axes, 0))))
    return distance / (math.prod(target.shape[-axes:]) if normalization == "elements" else 1)


def positive(energy: jax.Array) -> jax.Array:
    """Return `energy` as a normalization: 1 where it is zero, as for a black image or an untrained network."""
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
    r"""Return the total variation of an image.

    With differences :math:`d` to the pixel below and :math:`r` to the pixel on the right, "separate" is
    :math:`\sum |d|^p + \sum |r|^p`. "joint" is :math:`\sum (d^2 + r^2)^{p/2}` over the pixels that have both
    neighbors: Mahendran and Vedaldi, *Understanding Deep Image Representations by Inverting Them*, arXiv:1412.0035.
    "nine_point" includes diagonals and replicates the border, as crowsonkb's style-transfer-pytorch does: 2/3 of the
    mean squares along rows and columns and 1/6 of those along both diagonals. Gatys et al. have no such term.

    Args:
        image: `[..., H, W, 3]`.
        form: "separate", "joint" or "nine_point".
        power: p, at least 1; "nine_point" always uses squares.
        reduction: "sum", or "mean" for the sum of the means of each direction; "nine_point" is always a mean.
        circular: whether the image is periodic.

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
        straight = _reduced(jnp.square(below - here), "mean") + _reduced(jnp.square(right - here), "mean")
        around = around[..., 1:, 1:, :] if circular else around  # each pair of neighbors once
        falling = _reduced(jnp.square(around[..., 1:, 1:, :] - around[..., :-1, :-1, :]), "mean")
        rising = _reduced(jnp.square(around[..., 1:, :-1, :] - around[..., :-1, 1:, :]), "mean")
        return 2 / 3 * straight + (falling + rising) / 6
    if circular:
        down, right = (jnp.roll(image, -1, axis=axis) - image for axis in (-3, -2))
    else:
        down = image[..., 1:, :, :] - image[..., :-1, :, :]
        right = image[..., :, 1:, :] - image[..., :, :-1, :]
    if form == "joint":
        squares = jnp.square(down[..., :, : right.shape[-2], :]) + jnp.square(right[..., : down.shape[-3], :, :])
        return _reduced(_power(squares, power / 2), reduction)
    return _reduced(_power(absolute(down), power), reduction) + _reduced(_power(absolute(right), power), reduction)


def absolute(x: jax.Array) -> jax.Array:
    """Return absolute values, with derivative 0 at zero as in PyTorch; that of `jnp.abs` is 1 there.

    Example:
        >>> float(jax.grad(absolute)(0.0))
        0.0
    """
    return jnp.where(x == 0, 0.0, jnp.abs(x))


def _power(x: jax.Array, power: float) -> jax.Array:
    """Return a power of nonnegative values, with derivative 0 at zero, where it need not be finite."""
    if power in (1, 2):
        return x if power == 1 else jnp.square(x)
    return jnp.where(x > 0, jnp.where(x > 0, x, 1.0) ** power, 0.0)


def _reduced(cost: jax.Array, reduction: Reduction) -> jax.Array:
    # An image one pixel high or wide has no neighbors in that direction.
    count = max(1, math.prod(cost.shape[-3:])) if reduction == "mean" else 1
    return jnp.sum(cost, axis=(-3, -2, -1)) / count


def out_of_range(image: jax.Array, *, reduction: Reduction = "mean", upper: float = 1.0) -> jax.Array:
    r"""Return the range penalty of values outside of [0, upper], :math:`\sum \max(-x, 0)^2 + \max(x - u, 0)^2`.

    Unlike clipping at each step, it preserves gradient differences, from which lbfgs estimates curvature. No published
    system has it.

    Args:
        image: `[..., H, W, 3]`.
        reduction: "mean" or "sum" over all values.
        upper: u, the value of white.

    Returns:
        `[...]`, zero for an image in range.

    Example:
        >>> float(out_of_range(jnp.full((4, 4, 3), 1.5)))
        0.25
    """
    reduce = jnp.mean if reduction == "mean" else jnp.sum
    return reduce(jnp.square(image - jnp.clip(image, 0.0, upper)), axis=(-3, -2, -1))

"""What is compared: features by distance, style by Gram matrices, the image by its variation.

Arrays in, arrays out. Features are `[..., H, W, C]`, images `[..., H, W, 3]` in [0, 1]; leading axes are kept, so that
a batch gives a value for each of its images. Sums run in float32 or wider, whatever the features' type.

Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

Divisor = Literal["energy", "elements"]
GramDivisor = Literal["pixels", "elements"]
Reduction = Literal["mean", "sum"]


def squared_distance(x: jax.Array, target: jax.Array, *, axes: int, divisor: Divisor = "energy") -> jax.Array:
    r"""Return the squared distance of `x` to `target`, :math:`\sum (x - t)^2 / D`.

    Deviation from Gatys et al.: they take half the sum for content and :math:`\sum / 4 C^2` for style. Divided by the
    target's energy, :math:`D = \sum t^2`, a term is 1 where `x` is all zeros, for any size, style or network.

    Args:
        x: `[..., *shape]`, features or Gram matrices.
        target: `[*shape]`, or of the shape of `x`.
        axes: how many trailing axes make up one value.
        divisor: D is the target's "energy" (1 where that is zero), or the number of "elements" (the mean square).

    Returns:
        `[...]`, not negative.

    Example:
        >>> float(squared_distance(jnp.zeros((4, 4, 8)), jnp.ones((4, 4, 8)), axes=3))
        1.0
    """
    over = tuple(range(-axes, 0))
    x, target = _widen(x), _widen(jnp.broadcast_to(target, x.shape))
    if divisor == "elements":
        return jnp.mean(jnp.square(x - target), axis=over)
    energy = jnp.sum(jnp.square(target), axis=over)
    # A target of zeros (a black picture, an untrained network) has no energy to divide by.
    return jnp.sum(jnp.square(x - target), axis=over) / jnp.where(energy > 0, energy, 1.0)


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def gram(features: jax.Array, *, divisor: GramDivisor = "pixels") -> jax.Array:
    r"""Return the Gram matrix of `features`, :math:`G_{ij} = \sum_k F_{ik} F_{jk} / D` over all pixels k.

    Deviation from Gatys et al.: they leave G undivided, so that it grows with the picture.

    Args:
        features: `[..., H, W, C]`.
        divisor: D is the number of "pixels", H W, or of "elements", C H W.

    Returns:
        `[..., C, C]`, symmetric, positive semidefinite.

    Example:
        >>> gram(jnp.ones((4, 4, 2))).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    *batch, height, width, channels = features.shape
    # One contracted axis, not two: XLA has a fast matrix product on the CPU for the former only.
    rows = features.reshape(*batch, height * width, channels)  # [..., N, C]
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    products = jnp.einsum("...ki,...kj->...ij", rows, rows, precision="highest", preferred_element_type=dtype)
    # [..., C, C]
    return products / (height * width * (channels if divisor == "elements" else 1))


def total_variation(image: jax.Array, *, power: int = 2, reduction: Reduction = "mean") -> jax.Array:
    r"""Return how much neighbouring pixels differ, :math:`\sum |x_{i+1,j} - x_{ij}|^p + \sum |x_{i,j+1} - x_{ij}|^p`.

    Mahendran and Vedaldi, *Understanding Deep Image Representations by Inverting Them*, arXiv:1412.0035, without their
    exponent over both directions together. Gatys et al. have no such term.

    Args:
        image: `[..., H, W, 3]`.
        power: p, 1 for absolute or 2 for squared differences.
        reduction: "sum", or "mean" for the mean over each direction, then the sum of the two.

    Returns:
        `[...]`, zero for a constant image.

    Example:
        >>> float(total_variation(jnp.ones((4, 4, 3))))
        0.0
    """
    down = image[..., 1:, :, :] - image[..., :-1, :, :]
    right = image[..., :, 1:, :] - image[..., :, :-1, :]
    cost = jnp.abs if power == 1 else jnp.square
    by_direction = []
    for difference in (down, right):
        # an image one pixel high or wide has no neighbours in that direction
        count = max(1, math.prod(difference.shape[-3:])) if reduction == "mean" else 1
        by_direction.append(jnp.sum(cost(difference), axis=(-3, -2, -1)) / count)
    return by_direction[0] + by_direction[1]


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

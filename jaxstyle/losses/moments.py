r"""Moments of features over pixels, from which the statistics of `style` follow, and their covariance.

Moments do not depend on position. A weighted mean of the moments of several styles mixes these styles. A `guide`, of
the height and width of the features, is the weight of each pixel; it sums to one.

Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576, and *Controlling Perceptual Factors
in Neural Style Transfer*, arXiv:1611.07865 (guides).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

RIDGE = 1e-4  # added to variances, so that their roots are differentiable at 0; from crowsonkb's style-transfer-pytorch


class Moments(NamedTuple):
    """First and second moments over pixels, which may be averaged over styles."""

    mean: jax.Array  # of each channel, `[..., C]`
    second: jax.Array  # mean product of each pair of channels, `[..., C, C]`: the Gram matrix per pixel


def moments(features: jax.Array, *, guide: jax.Array | None = None) -> Moments:
    r"""Return the means :math:`\sum_k w_k F_{ki}` and :math:`\sum_k w_k F_{ki} F_{kj}` over all pixels k.

    Deviation from Gatys et al.: they do not divide the second by the number of pixels. With a guide T whose squares sum
    to one, :math:`w = T^2` gives their guided Gram matrix.

    Args:
        features: `[..., H, W, C]`.
        guide: w, `[H, W]`; 1 / H W for None.

    Returns:
        The moments, in float32 or wider.

    Example:
        >>> moments(jnp.ones((4, 4, 2))).mean.tolist()
        [1.0, 1.0]
    """
    *batch, height, width, channels = features.shape
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    # One contracted axis, not two: on the CPU, XLA has a fast matrix product only for one.
    rows = features.reshape(*batch, height * width, channels)  # [..., N, C]
    if guide is None:
        return Moments(jnp.mean(rows, axis=-2, dtype=dtype), _products(rows, None) / (height * width))
    counts = jnp.broadcast_to(guide.reshape(-1, 1), rows.shape)
    return Moments(jnp.sum(rows * counts, axis=-2, dtype=dtype), _products(rows, counts))  # [..., C], [..., C, C]


@jax.custom_jvp
def _products(rows: jax.Array, counts: jax.Array | None) -> jax.Array:
    r"""Return :math:`\sum_k w_k F_{ki} F_{kj}`; by symmetry its gradient is one matrix product."""
    return _product(rows, rows, counts)


def _product(left: jax.Array, right: jax.Array, counts: jax.Array | None) -> jax.Array:
    dtype = jnp.promote_types(left.dtype, jnp.float32)
    left = left if counts is None else left * counts
    return jnp.einsum("...ki,...kj->...ij", left, right, precision="highest", preferred_element_type=dtype)


def _products_jvp(primals: Any, tangents: Any) -> Any:
    (rows, counts), (d_rows, d_counts) = primals, tangents
    value = _products(rows, counts)
    tangent = jnp.zeros_like(value)
    if not isinstance(d_rows, SymbolicZero):
        half = _product(rows, d_rows, counts)
        tangent = half + jnp.swapaxes(half, -1, -2)
    if counts is not None and not isinstance(d_counts, SymbolicZero):
        tangent = tangent + _product(rows, rows, d_counts)
    return value, tangent


_products.defjvp(_products_jvp, symbolic_zeros=True)


def covariance(moments: Moments) -> jax.Array:
    r"""Return the covariance of channels, :math:`\Sigma_{ij} = E[F_i F_j] - \mu_i \mu_j`, `[..., C, C]`.

    Example:
        >>> covariance(moments(jnp.ones((4, 4, 1)))).tolist()
        [[0.0]]
    """
    mean = moments.mean
    return moments.second - jnp.einsum("...i,...j->...ij", mean, mean, precision="highest")

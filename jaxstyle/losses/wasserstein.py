r"""Wasserstein distances between distributions of features.

`wasserstein` assumes Gaussian distributions, `sliced` compares quantiles along random directions. Guides are as in
`moments`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.losses.moments import RIDGE, Moments, covariance
from jaxstyle.losses.pixel import Normalization, positive

NOISE = 5e-6  # bound on the relative rounding error of second moments summed in float32
ROOT_STEPS = 12  # of the Newton-Schulz iteration, as in crowsonkb's style-transfer-pytorch
DIRECTIONS = 64  # at most; fewer in layers with fewer channels
LEVELS = 512  # quantiles per direction


class Quantiles(NamedTuple):
    """Quantiles of features along directions."""

    directions: jax.Array  # orthonormal, `[C, K]`
    values: jax.Array  # of each direction at `LEVELS` evenly spaced levels, `[..., K, LEVELS]`


def wasserstein(x: Moments, target: Moments, *, normalization: Normalization = "energy") -> jax.Array:
    r"""Return the squared 2-Wasserstein distance of two Gaussians with these moments.

    .. math:: |\mu - \mu_t|^2 + \mathrm{tr}(\Sigma + \Sigma_t - 2 (\Sigma_t^{1/2} \Sigma \Sigma_t^{1/2})^{1/2})

    As a style loss: crowsonkb's style-transfer-pytorch. Gatys et al. compare Gram matrices. Deviation: covariances have
    :math:`10^{-4}` added to their diagonals, as there, and more if they are below a tenth of the second moments, so
    that the covariance of a constant image stays positive despite rounding.

    Args:
        x: moments of the features of the image.
        target: moments of the style.
        normalization: "energy" is :math:`|\mu_t|^2 + \mathrm{tr} \Sigma_t`, the distance from zero; "elements" is C.

    Returns:
        `[...]`, not negative except for rounding.

    Example:
        >>> zero = Moments(jnp.zeros(1), jnp.zeros((1, 1)))
        >>> float(wasserstein(zero, Moments(jnp.ones(1), jnp.ones((1, 1)))).round(3))
        1.0
    """
    channels = target.mean.shape[-1]
    of_x, of_target = _positive_covariance(x), _positive_covariance(target)
    root = _square_root(of_target)
    cross = _square_root(_product(root, _product(of_x, root)))
    means = jnp.sum(jnp.square(x.mean - jnp.broadcast_to(target.mean, x.mean.shape)), axis=-1)
    spread = jnp.trace(of_x, axis1=-2, axis2=-1) + jnp.trace(of_target, axis1=-2, axis2=-1)
    squared = means + spread - 2 * jnp.trace(cross, axis1=-2, axis2=-1)
    if normalization == "energy":
        energy = jnp.sum(jnp.square(target.mean), axis=-1) + jnp.trace(covariance(target), axis1=-2, axis2=-1)
        return squared / positive(energy)
    return squared / (channels if normalization == "elements" else 1)


def _positive_covariance(moments: Moments) -> jax.Array:
    matrix = covariance(moments)
    spread, power = (jnp.trace(each, axis1=-2, axis2=-1) for each in (matrix, moments.second))
    ridge = RIDGE + jax.lax.stop_gradient(jnp.maximum(NOISE * (power - 10 * spread), 0.0))
    identity = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return matrix + ridge[..., None, None] * jnp.broadcast_to(identity, matrix.shape)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum("...ij,...jk->...ik", a, b, precision="highest")


def _square_root(matrix: jax.Array) -> jax.Array:
    """Return the square root of a positive matrix `[..., C, C]` by the differentiable Newton-Schulz iteration."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(matrix), axis=(-2, -1), keepdims=True))
    scaled = matrix / largest  # the squares of a product of covariances may overflow
    norm = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=(-2, -1), keepdims=True))
    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)

    def step(pair: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        root, inverse = pair
        middle = (3 * identity - _product(inverse, root)) / 2
        return (_product(root, middle), _product(middle, inverse)), None

    (root, _), _ = jax.lax.scan(step, (scaled / norm, identity), length=ROOT_STEPS)
    return root * jnp.sqrt(largest * norm)


def quantiles(features: jax.Array, *, key: jax.Array, guide: jax.Array | None = None) -> Quantiles:
    """Return the quantiles of `features` along random directions.

    Args:
        features: `[..., H, W, C]`.
        key: random key of the directions.
        guide: weight of each pixel, `[H, W]`, or None for equal weights.

    Example:
        >>> quantiles(jnp.ones((4, 4, 2)), key=jax.random.key(0)).values.shape
        (2, 512)
    """
    channels = features.shape[-1]
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    directions = jax.random.orthogonal(key, channels, dtype=dtype)[:, : min(DIRECTIONS, channels)]
    values, levels, shares = _sorted(features, directions, guide)
    if guide is not None:
        # Ramps between values are as wide as the smaller weight, so that pixels of weight 0 have no effect.
        ramps = jnp.minimum(shares[..., 1:], shares[..., :-1]) / 2
        before, after = (jnp.pad(ramps, [(0, 0)] * (ramps.ndim - 1) + [side]) for side in ((1, 0), (0, 1)))
        levels = jnp.stack([levels - shares / 2 + before, levels + shares / 2 - after], axis=-1)
        levels, values = levels.reshape(*values.shape[:-1], -1), jnp.repeat(values, 2, axis=-1)
    at = (jnp.arange(LEVELS, dtype=dtype) + 0.5) / LEVELS
    look_up = jnp.vectorize(lambda levels, values: jnp.interp(at, levels, values), signature="(n),(n)->(q)")
    return Quantiles(directions, look_up(jnp.broadcast_to(levels, values.shape), values))


def sliced(
    features: jax.Array, target: Quantiles, *, guide: jax.Array | None = None, normalization: Normalization = "energy"
) -> jax.Array:
    r"""Return the sum of squared 1-D Wasserstein distances over directions, of sorted values from quantiles.

    .. math:: \sum_d \sum_k w_k (p_{d(k)} - Q_d(c_k))^2, \quad c_k = \sum_{l<k} w_l + w_k / 2

    with projections p in ascending order and the target's quantile function Q. Heitz et al., *A Sliced Wasserstein Loss
    for Neural Texture Synthesis*, arXiv:2006.07229. Deviation: they draw new directions at each step; ours are
    orthonormal and drawn once, so that the loss is a fixed function, as lbfgs requires.

    Args:
        features: `[..., H, W, C]`.
        target: of `quantiles`.
        guide: w, `[H, W]`, or None for equal weights.
        normalization: "energy" is the mean square of the target, summed over directions; "elements" the number of
            directions.

    Returns:
        `[...]`, not negative.

    Example:
        >>> style = quantiles(jnp.ones((4, 4, 2)), key=jax.random.key(0))
        >>> float(sliced(jnp.ones((4, 4, 2)), style).round(6))
        0.0
    """
    values, levels, counts = _sorted(features, target.directions, guide)
    place = jnp.clip(levels * LEVELS - 0.5, 0, LEVELS - 1)
    below = jnp.minimum(place.astype(jnp.int32), LEVELS - 2)
    quantiles = jnp.broadcast_to(target.values, (*values.shape[:-1], LEVELS))
    below, part = (jnp.broadcast_to(each, values.shape) for each in (below, place - below))
    low, high = (jnp.take_along_axis(quantiles, below + i, axis=-1) for i in (0, 1))
    squares = jnp.square(values - (low + part * (high - low)))
    squared = jnp.sum(jnp.broadcast_to(counts, squares.shape) * squares, axis=(-2, -1))
    if normalization == "energy":
        return squared / positive(jnp.sum(jnp.mean(jnp.square(target.values), axis=-1), axis=-1))
    return squared / (target.directions.shape[-1] if normalization == "elements" else 1)


def _sorted(
    features: jax.Array, directions: jax.Array, guide: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return projections in ascending order, their levels in (0, 1), and their weights: `[..., K, N]` or `[N]`."""
    rows = features.reshape(*features.shape[:-3], -1, features.shape[-1])
    projections = jnp.einsum("...nc,ck->...kn", rows, directions, precision="highest")
    count = rows.shape[-2]
    if guide is None:
        levels = (jnp.arange(count, dtype=projections.dtype) + 0.5) / count
        return jnp.sort(projections), levels, jnp.full(count, 1 / count, projections.dtype)
    counts = jnp.broadcast_to(guide.reshape(-1), projections.shape)
    order = jnp.argsort(jnp.where(counts > 0, projections, jnp.inf))  # pixels of weight 0 come last
    shares = jnp.take_along_axis(counts, order, axis=-1)
    levels = jnp.cumsum(shares, axis=-1) - shares / 2
    return jnp.take_along_axis(projections, order, axis=-1), levels, shares

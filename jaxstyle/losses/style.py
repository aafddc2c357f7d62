"""Style statistics by name: the Gram matrix and others, summaries of features, and distances between them.

The summary of a layer's features `[..., H, W, C]` are their moments over pixels, or their quantiles along random
directions. Li et al., *Demystifying Neural Style Transfer*, arXiv:1701.01036, compare several of these.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError
from jaxstyle.losses.moments import RIDGE, Moments, covariance, moments
from jaxstyle.losses.pixel import Normalization, squared_distance
from jaxstyle.losses.wasserstein import Quantiles, quantiles, sliced, wasserstein

Statistic = Literal["gram", "mean_std", "covariance", "wasserstein", "sliced"]
Summary = Moments | Quantiles


def gram(moments: Moments, *, shift: float = 0.0, scale: float = 1.0) -> jax.Array:
    r"""Return the Gram matrix of features plus `shift`, :math:`c \sum_k w_k (F_{ki} + s) (F_{kj} + s)`.

    Args:
        moments: of the unshifted features.
        shift: s; Novak and Nikulin, *Improving the Neural Algorithm of Artistic Style*, arXiv:1605.04603, use -1.
        scale: c, such as 1 / C for division by the number of elements instead of pixels.

    Returns:
        `[..., C, C]`, symmetric, positive semidefinite.

    Example:
        >>> gram(moments(jnp.ones((4, 4, 2))), shift=-1.0).tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    second = moments.second
    if shift:
        cross = shift * moments.mean[..., :, None] + jnp.zeros_like(second)
        second = second + cross + jnp.swapaxes(cross, -1, -2) + shift**2
    return scale * second


def mean_std(moments: Moments) -> jax.Array:
    r"""Return mean and standard deviation of each channel, :math:`\mu_i` and :math:`\sqrt{\sigma_i^2 + \epsilon}`.

    Li et al., *Demystifying Neural Style Transfer*, arXiv:1701.01036, section 4.2. Deviation: the ridge
    :math:`\epsilon`, without which the root has no derivative for a constant channel.

    Returns:
        `[..., 2, C]`.

    Example:
        >>> mean_std(moments(jnp.ones((4, 4, 1)))).round(1).tolist()
        [[1.0], [0.0]]
    """
    variance = jnp.diagonal(moments.second, axis1=-2, axis2=-1) - jnp.square(moments.mean)
    return jnp.stack([moments.mean, jnp.sqrt(jnp.maximum(variance, 0.0) + RIDGE)], axis=-2)


def summarize(
    features: jax.Array, *, key: jax.Array | None = None, statistic: Statistic = "gram", guide: jax.Array | None = None
) -> Summary:
    """Return the style summary of `features`.

    Args:
        features: `[..., H, W, C]`.
        key: random key of the directions, for "sliced".
        statistic: name of the statistic; all but "sliced" use `Moments`.
        guide: weight of each pixel, `[H, W]`, or None for equal weights.

    Raises:
        InputError: if "sliced" has no key.

    Example:
        >>> summarize(jnp.ones((4, 4, 2))).second.tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    if statistic != "sliced":
        return moments(features, guide=guide)
    if key is None:
        raise InputError("The statistic 'sliced' needs random directions: pass key=jax.random.key(0).")
    return quantiles(features, key=key, guide=guide)


def distance(
    x: jax.Array | Moments,
    target: Summary,
    *,
    statistic: Statistic = "gram",
    guide: jax.Array | None = None,
    normalization: Normalization = "energy",
    shift: float = 0.0,
    scale: float = 1.0,
) -> jax.Array:
    """Return the distance of features from a style.

    Args:
        x: features `[..., H, W, C]`, or their moments, except for "sliced".
        target: of `summarize`.
        statistic: "gram", "mean_std", "covariance", "wasserstein" or "sliced".
        guide: weight of each pixel of the features, `[H, W]`, or None for equal weights.
        normalization: normalization as in `pixel.squared_distance`; "energy" is the distance of the target from zero
            features, and for "covariance" and "mean_std" the sum of squares of the target statistic.
        shift: see `gram`.
        scale: see `gram`.

    Returns:
        `[...]`, not negative.

    Raises:
        InputError: if `target` is of another statistic, or if `x` is `Moments` and the statistic is "sliced".

    Example:
        >>> float(distance(jnp.zeros((4, 4, 2)), summarize(jnp.ones((4, 4, 2)))))
        1.0
    """
    if isinstance(target, Quantiles) != (statistic == "sliced"):
        kind = type(target).__name__
        raise InputError(f"The target is {kind}, which does not fit {statistic!r}: summarize the style again.")
    if isinstance(target, Quantiles):
        if isinstance(x, Moments):
            raise InputError("The statistic 'sliced' cannot be computed from moments: pass features.")
        return sliced(x, target, guide=guide, normalization=normalization)
    of_features = x if isinstance(x, Moments) else moments(x, guide=guide)
    if statistic == "wasserstein":
        return wasserstein(of_features, target, normalization=normalization)
    if statistic == "gram":
        of_x, of_target = (gram(each, shift=shift, scale=scale) for each in (of_features, target))
    else:
        of_x, of_target = map(mean_std if statistic == "mean_std" else covariance, (of_features, target))
    return squared_distance(of_x, of_target, axes=2, normalization=normalization)

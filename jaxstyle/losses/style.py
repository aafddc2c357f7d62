"""Style statistics by name: summaries of features and distances between them.

The summary of a layer's features `[..., H, W, C]` are their moments over pixels, or their quantiles along random
directions. Li et al., *Demystifying Neural Style Transfer*, arXiv:1701.01036, compare several of these.
"""

from typing import Literal

import jax

from jaxstyle.errors import InputError
from jaxstyle.losses.moments import Moments, covariance, gram, mean_std, moments
from jaxstyle.losses.pixel import Normalization, squared_distance
from jaxstyle.losses.wasserstein import Quantiles, quantiles, sliced, wasserstein

Statistic = Literal["gram", "mean_std", "covariance", "wasserstein", "sliced"]
Summary = Moments | Quantiles


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
    found = x if isinstance(x, Moments) else moments(x, guide=guide)
    if statistic == "wasserstein":
        return wasserstein(found, target, normalization=normalization)
    if statistic == "gram":
        of_x, of_target = (gram(each, shift=shift, scale=scale) for each in (found, target))
    else:
        of_x, of_target = map(mean_std if statistic == "mean_std" else covariance, (found, target))
    return squared_distance(of_x, of_target, axes=2, normalization=normalization)

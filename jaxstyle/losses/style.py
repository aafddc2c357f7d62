"""What style is, as numbers: one name for each way to sum features up and to compare them.

Each layer's features, `[..., H, W, C]`, are summed up by their moments over pixels, or by their quantiles along random
directions. Li et al., *Demystifying Neural Style Transfer*, arXiv:1701.01036, compare some of these.
"""

from typing import Literal

import jax

from jaxstyle.errors import InputError
from jaxstyle.losses.moments import Moments, covariance, gram, mean_std, moments
from jaxstyle.losses.pixel import Divisor, squared_distance
from jaxstyle.losses.wasserstein import Quantiles, quantiles, sliced, wasserstein

Statistic = Literal["gram", "mean_std", "covariance", "wasserstein", "sliced"]
Summary = Moments | Quantiles


def summarize(
    features: jax.Array, *, key: jax.Array | None = None, statistic: Statistic = "gram", guide: jax.Array | None = None
) -> Summary:
    """Return what is kept of `features` as a style's.

    Args:
        features: `[..., H, W, C]`.
        key: of the random directions, for "sliced".
        statistic: what the summary is for; all but "sliced" share `Moments`.
        guide: how much each pixel counts, `[H, W]`, or None for all alike.

    Returns:
        Moments or quantiles, with the leading axes of `features`.

    Raises:
        InputError: if "sliced" has no key.

    Example:
        >>> summarize(jnp.ones((4, 4, 2))).second.tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    if statistic != "sliced":
        return moments(features, guide=guide)
    if key is None:
        raise InputError("The statistic 'sliced' has no seed for its directions: pass key=jax.random.key(0).")
    return quantiles(features, key=key, guide=guide)


def distance(
    x: jax.Array | Moments,
    target: Summary,
    *,
    statistic: Statistic = "gram",
    guide: jax.Array | None = None,
    divisor: Divisor = "energy",
    shift: float = 0.0,
    scale: float = 1.0,
) -> jax.Array:
    """Return how far features are from the style that `target` sums up.

    Args:
        x: the features, `[..., H, W, C]`, or, but for "sliced", their moments.
        target: of `summarize`.
        statistic: "gram", "mean_std", "covariance", "wasserstein" or "sliced".
        guide: how much each pixel of the features counts, `[H, W]`, or None for all alike.
        divisor: as of `pixel.squared_distance`; "energy" is the distance from features that are all zero,
            but for covariances and deviations, whose own squares it is.
        shift: see `gram`.
        scale: see `gram`.

    Returns:
        `[...]`, not negative.

    Raises:
        InputError: if `target` is of another statistic, or if `x` are moments and the statistic is "sliced".

    Example:
        >>> float(distance(jnp.zeros((4, 4, 2)), summarize(jnp.ones((4, 4, 2)))))
        1.0
    """
    if isinstance(target, Quantiles) != (statistic == "sliced"):
        raise InputError(f"The target is {type(target).__name__}, not what {statistic!r} compares: summarize it again.")
    if isinstance(target, Quantiles):
        if isinstance(x, Moments):
            raise InputError("Moments have no directions for the statistic 'sliced': pass the features.")
        return sliced(x, target, guide=guide, divisor=divisor)
    found = x if isinstance(x, Moments) else moments(x, guide=guide)
    if statistic == "wasserstein":
        return wasserstein(found, target, divisor=divisor)
    if statistic == "gram":
        of_x, of_target = (gram(each, shift=shift, scale=scale) for each in (found, target))
    else:
        of_x, of_target = map(mean_std if statistic == "mean_std" else covariance, (found, target))
    return squared_distance(of_x, of_target, axes=2, divisor=divisor)

"""What an image is written as while it is optimised: arrays, with the pure function that turns them into the image."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle.config import Config
from jaxstyle.own import Parametrization
from jaxstyle.parametrizations import PARAMETRIZATIONS


@jax.tree_util.register_pytree_node_class
class Parameters:
    """What an image is written as, with the function that turns it into the image.

    Attributes:
        values: a pytree of arrays, with a leading axis for a batch.
        decode: takes them, returns the image `[H, W, 3]`.
        ranks: of the arrays of one image.
    """

    def __init__(self, values: Any, decode: Callable[[Any], jax.Array], ranks: tuple[int, ...] | None = None) -> None:
        """Keep the three; the ranks are those of `values` for None."""
        self.values, self.decode = values, decode
        self.ranks = tuple(map(jnp.ndim, jax.tree.leaves(values))) if ranks is None else ranks

    @property
    def batched(self) -> bool:
        """Whether it is of several images, along the leading axis of each array."""
        return any(leaf.ndim > rank for leaf, rank in zip(jax.tree.leaves(self.values), self.ranks, strict=True))

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Callable[[Any], jax.Array], tuple[int, ...]]]:
        """Return the arrays, and what is static."""
        return (self.values,), (self.decode, self.ranks)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, tuple[int, ...]], values: tuple[Any]) -> "Parameters":
        """Return them as what they are."""
        return cls(values[0], *static)


def parametrization(config: Config) -> Parametrization:
    """Return how the image is written.

    Args:
        config: its parametrisation, optimiser and border count.

    Returns:
        The two functions.

    Example:
        >>> parametrization(Config(parametrization="pixels")).decode(0.5)
        0.5
    """
    chosen = config.parametrization or ("pyramid" if config.optimizer == "lbfgs" else "pixels")
    if isinstance(chosen, Parametrization):
        return chosen
    return PARAMETRIZATIONS["circular pyramid" if (chosen, config.border) == ("pyramid", "circular") else chosen]


def encode(image: jax.Array, *, config: Config) -> Parameters:
    """Return parameters that decode to `image`; up to `MARGIN` from it, for "sigmoid".

    Args:
        image: `[H, W, 3]`, in [0, 1].
        config: as for `parametrization`.

    Returns:
        The parameters.

    Example:
        >>> [level.shape for level in encode(jnp.zeros((32, 24, 3)), config=Config()).values]
        [(32, 24, 3), (16, 12, 3), (8, 6, 3), (4, 3, 3), (2, 2, 3)]
    """
    chosen = parametrization(config)
    return Parameters(chosen.encode(image), chosen.decode)


def decode(parameters: Parameters) -> jax.Array:
    """Return the image that `parameters` stand for.

    Args:
        parameters: of `encode`.

    Returns:
        `[H, W, 3]`, or `[N, H, W, 3]` for a batch, not clipped.

    Example:
        >>> decode(encode(jnp.ones((8, 8, 3)), config=Config())).shape
        (8, 8, 3)
    """
    function = parameters.decode
    return (jax.vmap(function) if parameters.batched else function)(parameters.values)


def compose(*parts: Parametrization) -> Parametrization:
    """Return one parametrisation after the other; make it once, as a program knows it by which functions it has.

    Args:
        parts: the one that gives the image first; all but the last write an image as an image.

    Returns:
        The two functions.

    Example:
        >>> both = compose(PARAMETRIZATIONS["sigmoid"], PARAMETRIZATIONS["fourier"])
        >>> float(abs(both.decode(both.encode(jnp.full((8, 8, 3), 0.25))) - 0.25).max()) < 1e-5
        True
    """

    def through(image: jax.Array) -> Any:
        return reduce(lambda x, part: part.encode(x), parts, image)

    def back(values: Any) -> jax.Array:
        return reduce(lambda x, part: part.decode(x), reversed(parts), values)

    return Parametrization(through, back)

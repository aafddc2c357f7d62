"""What an image is written as while it is optimised: arrays, with the pure function that turns them into the image."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.config import Config
from jaxstyle.own import Parametrization
from jaxstyle.parametrizations import OF_LEVELS, PARAMETRIZATIONS
from jaxstyle.scales import array_module


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

    def replace(self, values: Any) -> "Parameters":
        """Return parameters of other values of the same structure."""
        return Parameters(values, self.decode, self.ranks)

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
        >>> encode(jnp.zeros((32, 24, 3)), config=Config(optimizer="adam")).values.shape
        (32, 24, 3)
    """
    chosen = parametrization(config)
    values = chosen.encode(image)
    if config.optimizer != "lbfgs":
        return Parameters(values, chosen.decode)
    leaves, structure = jax.tree.flatten(values)
    shapes = tuple(leaf.shape for leaf in leaves)
    flat = array_module(*leaves).concatenate([leaf.reshape(-1) for leaf in leaves])
    return Parameters(flat, FlatDecode(chosen.decode, structure, shapes))


@dataclass(frozen=True)
class FlatDecode:
    """The decoder of parameters that are one vector: the arrays of a parametrization one after the other."""

    decode: Callable[[Any], jax.Array]
    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    def __call__(self, vector: jax.Array) -> jax.Array:
        """Return the image `[..., H, W, 3]` of a vector `[..., n]`."""
        leaves, end = [], 0
        for shape in self.shapes:
            begin, end = end, end + math.prod(shape)
            leaves.append(vector[..., begin:end].reshape(*vector.shape[:-1], *shape))
        return self.decode(jax.tree.unflatten(self.structure, leaves))


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
    linear = function.decode if isinstance(function, FlatDecode) else function
    return (jax.vmap(function) if parameters.batched and linear not in OF_LEVELS else function)(parameters.values)


def decode_on_host(parameters: Parameters) -> np.ndarray:
    """Return the image of `decode`, clipped to [0, 1], by NumPy where it is linear in levels, else by one program.

    Args:
        parameters: of `encode`.

    Returns:
        `[H, W, 3]`, or `[N, H, W, 3]` for a batch.

    Example:
        >>> decode_on_host(encode(np.ones((8, 8, 3), np.float32), config=Config())).shape
        (8, 8, 3)
    """
    function = parameters.decode
    linear = function.decode if isinstance(function, FlatDecode) else function
    if linear in OF_LEVELS:
        return np.clip(function(jax.device_get(parameters.values)), 0.0, 1.0)
    return np.asarray(_decode_clipped(parameters))


@jax.jit
def _decode_clipped(parameters: Parameters) -> jax.Array:
    return jnp.clip(decode(parameters), 0.0, 1.0)


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

"""Parametrizations of the image: which arrays are optimized, and the pure function that turns them into the image.

All but "sigmoid" can write every image, and all begin at the same one; what differs is the metric in which an optimiser
takes its steps.

- `pixels` is the image itself.
- `pyramid` adds coarser levels, each enlarged bilinearly to full size and a quarter as strong. A coarse level moves
  many pixels at once, so large smooth changes, which come last in plain pixels, come first.
- `decorrelated` has three channels, of brightness and two of colour, that vary independently in photographs.
- `fourier` has the waves of the image, long ones stronger than short ones, as photographs have them. It is meant for
  adam: the steps of lbfgs are of full length, which sends long waves far out of range now and then.
- `sigmoid` is what a logistic function, whose values lie between 0 and 1, is taken of: no bounds need to be kept.

Olah, Mordvintsev and Schubert, *Feature Visualization*, Distill 2017, has the last three.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.config import Config, Parametrization
from jaxstyle.images.resample import array_module, resample

PYRAMID_LEVELS = 5  # full size to 1/16, as many halvings as VGG-19 has
# Of every level but the finest. Preset neural-style-pt stood higher after 100 steps with 1, 1/2, 1/3 and 1/8.
COARSE_GAIN = 0.25
# A root of the covariance of ImageNet's colours (rows are red, green and blue): lucid, optvis/param/color.py.
COLOR_ROOT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
MARGIN = 0.01  # which `sigmoid` keeps from black and white at the start, where it could not move any more


def _same(image: Any) -> Any:
    return image


def _levels(image: jax.Array) -> tuple[jax.Array, ...]:
    """Return a pyramid whose finest level is the image; each has half the sides of the one before, rounded up."""
    height, width, channels = image.shape
    coarse = [(-(-height // 2**i), -(-width // 2**i), channels) for i in range(1, PYRAMID_LEVELS)]
    return image, *(array_module(image).zeros(shape, image.dtype) for shape in coarse)


def _sum_of_levels(levels: tuple[jax.Array, ...], *, circular: bool) -> jax.Array:
    r"""Return :math:`x = z_0 + g \sum_i U_i z_i` with bilinear enlargements U."""
    image, *coarse = levels
    enlarged = (resample(level, *image.shape[-3:-1], circular=circular, method="linear") for level in coarse)
    return image + COARSE_GAIN * sum(enlarged)


def _root(dtype: Any) -> jax.Array:
    root = jnp.asarray(COLOR_ROOT, dtype)
    return root / jnp.max(jnp.linalg.norm(root, axis=0))


def _decorrelate(image: jax.Array) -> jax.Array:
    return jnp.matmul(image, jnp.linalg.inv(_root(image.dtype)).T, precision="highest")


def _correlate(channels: jax.Array) -> jax.Array:
    return jnp.matmul(channels, _root(channels.dtype).T, precision="highest")


def _to_waves(image: jax.Array) -> jax.Array:
    return _hartley(image) / _strengths(image)


def _from_waves(waves: jax.Array) -> jax.Array:
    return _hartley(waves * _strengths(waves))


def _hartley(x: jax.Array) -> jax.Array:
    """Return Hartley's transform, real waves of real pixels: the transform of Fourier's, and its own inverse."""
    found = jnp.fft.fft2(x, axes=(0, 1), norm="ortho")
    return found.real - found.imag


def _strengths(x: jax.Array) -> jax.Array:
    """Return what waves are multiplied by: one over their frequency, the shortest by one, the mean as the longest."""
    height, width = x.shape[:2]
    rows, columns = jnp.fft.fftfreq(height)[:, None], jnp.fft.fftfreq(width)[None, :]
    frequency = jnp.hypot(jnp.broadcast_to(rows, (height, width)), jnp.broadcast_to(columns, (height, width)))
    strengths = jnp.sqrt(0.5) / jnp.maximum(frequency, 1 / max(height, width))
    return jnp.broadcast_to(strengths[..., None], x.shape).astype(x.dtype)


def _logit(image: jax.Array) -> jax.Array:
    return jax.scipy.special.logit(jnp.clip(image, MARGIN, 1 - MARGIN))


PARAMETRIZATIONS = {
    "pixels": Parametrization(_same, _same),
    "pyramid": Parametrization(_levels, partial(_sum_of_levels, circular=False)),
    "circular pyramid": Parametrization(_levels, partial(_sum_of_levels, circular=True)),
    "decorrelated": Parametrization(_decorrelate, _correlate),
    "fourier": Parametrization(_to_waves, _from_waves),
    "sigmoid": Parametrization(_logit, jax.nn.sigmoid),
}
# Those whose first array is the finest level, so that the image moves as it does.
OF_LEVELS = tuple(PARAMETRIZATIONS[name].decode for name in ("pixels", "pyramid", "circular pyramid"))
# Those that NumPy can apply, so that a state takes no program.
HOST_ENCODERS = (_same, _levels)


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

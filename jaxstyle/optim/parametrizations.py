"""Parametrizations of the image: the arrays that are optimized, and the pure functions that convert to and from them.

All but "sigmoid" can represent every image, and all start from the same image; they differ in the metric of the
optimization steps.

- `pixels` are the pixels of the image.
- `pyramid` adds coarser levels, each enlarged bilinearly to full size and weighted by 1/4. A coarse level changes many
  pixels at once, so large smooth changes, which converge last with plain pixels, converge first.
- `laplacian` are the levels of a Laplacian pyramid, from differences of neighboring pixels to the coarsest image: all
  can change at once, and a step of adam is as large in each.
- `decorrelated` are one brightness and two color channels, which vary independently in photographs.
- `fourier` are Hartley coefficients of the image, with low frequencies stronger than high ones, as in photographs. Use
  it with adam: full steps of lbfgs occasionally send low frequencies far out of range.
- `sigmoid` are logits of the pixels; the image is always in [0, 1].

Olah, Mordvintsev and Schubert, *Feature Visualization*, Distill 2017, use the last three.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.images.resample import array_module, resample
from jaxstyle.optim.optimizers import Parametrization, ParametrizationName

PYRAMID_LEVELS = 5  # full size to 1/16, as many halvings as VGG-19 has
LAPLACIAN_LEVELS = 8  # as in the program of NNST
# Weight of every level but the finest. Preset neural-style-pt had higher totals after 100 steps with 1, 1/2, 1/3, 1/8.
COARSE_GAIN = 0.25
# Square root of the covariance of ImageNet's colors (rows are red, green and blue): lucid, optvis/param/color.py.
COLOR_ROOT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
MARGIN = 0.01  # initial distance of `sigmoid` from black and white, where its gradient vanishes


def _same(image: Any) -> Any:
    return image


def _levels(image: jax.Array) -> tuple[jax.Array, ...]:
    """Return a pyramid: the image, and zeros in coarser levels of half the previous sides each, rounded up."""
    height, width, channels = image.shape
    coarse = [(-(-height // 2**i), -(-width // 2**i), channels) for i in range(1, PYRAMID_LEVELS)]
    return image, *(array_module(image).zeros(shape, image.dtype) for shape in coarse)


def _sum_of_levels(levels: tuple[jax.Array, ...], *, circular: bool = False) -> jax.Array:
    r"""Return :math:`x = z_0 + g \sum_i U_i z_i` with bilinear enlargements U."""
    image, *coarse = levels
    enlarged = (resample(level, *image.shape[-3:-1], circular=circular, method="linear") for level in coarse)
    return image + COARSE_GAIN * sum(enlarged)


def _sum_of_circular_levels(levels: tuple[jax.Array, ...]) -> jax.Array:
    return _sum_of_levels(levels, circular=True)


def _details(image: jax.Array) -> tuple[jax.Array, ...]:
    """Return a Laplacian pyramid: the difference of each level from the enlarged next one, and the coarsest level."""
    levels = []
    while len(levels) < LAPLACIAN_LEVELS and min(image.shape[:2]) >= 4:
        height, width = image.shape[:2]
        smaller = resample(image, height // 2, width // 2, method="linear")
        levels.append(image - resample(smaller, height, width, method="linear"))
        image = smaller
    return (*levels, image)


def _from_details(levels: tuple[jax.Array, ...]) -> jax.Array:
    image = levels[-1]
    for level in levels[-2::-1]:
        image = level + resample(image, *level.shape[-3:-1], method="linear")
    return image


def _root(dtype: Any) -> jax.Array:
    root = jnp.asarray(COLOR_ROOT, dtype)
    return root / jnp.max(jnp.linalg.norm(root, axis=0))


def _decorrelated(image: jax.Array) -> jax.Array:
    return jnp.matmul(image, jnp.linalg.inv(_root(image.dtype)).T, precision="highest")


def _correlated(channels: jax.Array) -> jax.Array:
    return jnp.matmul(channels, _root(channels.dtype).T, precision="highest")


def _hartley(x: jax.Array) -> jax.Array:
    """Return the Hartley transform, a real version of the Fourier transform and its own inverse."""
    spectrum = jnp.fft.fft2(x, axes=(0, 1), norm="ortho")
    return spectrum.real - spectrum.imag


def _strengths(x: jax.Array) -> jax.Array:
    """Return the weights of frequencies: inverse frequency, 1 for the highest, and for the mean as for the lowest."""
    height, width = x.shape[:2]
    rows, columns = jnp.fft.fftfreq(height)[:, None], jnp.fft.fftfreq(width)[None, :]
    frequency = jnp.hypot(jnp.broadcast_to(rows, (height, width)), jnp.broadcast_to(columns, (height, width)))
    strengths = jnp.sqrt(0.5) / jnp.maximum(frequency, 1 / max(height, width))
    return jnp.broadcast_to(strengths[..., None], x.shape).astype(x.dtype)


def _frequencies(image: jax.Array) -> jax.Array:
    return _hartley(image) / _strengths(image)


def _from_frequencies(waves: jax.Array) -> jax.Array:
    return _hartley(waves * _strengths(waves))


def _logits(image: jax.Array) -> jax.Array:
    return jax.scipy.special.logit(jnp.clip(image, MARGIN, 1 - MARGIN))


def _sigmoid(logits: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(logits)


PARAMETRIZATIONS = {  # of functions with names, which `runtime.executable_cache` needs
    "pixels": Parametrization(_same, _same),
    "pyramid": Parametrization(_levels, _sum_of_levels),
    "circular pyramid": Parametrization(_levels, _sum_of_circular_levels),
    "laplacian": Parametrization(_details, _from_details),
    "decorrelated": Parametrization(_decorrelated, _correlated),
    "fourier": Parametrization(_frequencies, _from_frequencies),
    "sigmoid": Parametrization(_logits, _sigmoid),
}
OF_LEVELS = tuple(PARAMETRIZATIONS[name].decode for name in ("pixels", "pyramid", "circular pyramid"))
# Encoders that run in NumPy, so that the initial state needs no compilation.
HOST_ENCODERS = (_same, _levels)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Parameters:
    """Parameters of an image: a pytree of arrays, and the function that decodes those of one image."""

    values: Any
    decode: Callable[[Any], jax.Array] = field(metadata={"static": True})
    ranks: tuple[int, ...] = field(metadata={"static": True})  # of the arrays of one image

    @property
    def has_levels(self) -> bool:
        """Whether the first array is the finest level, which can be clipped with the image."""
        return self.has_decoder(*OF_LEVELS)

    def has_decoder(self, *decoders: Callable[[Any], jax.Array]) -> bool:
        """Return whether the decoder, of arrays or of one vector, is one of these."""
        return (self.decode.decode if isinstance(self.decode, FlatDecode) else self.decode) in decoders

    @property
    def batched(self) -> bool:
        """Whether the arrays have a batch axis."""
        return any(leaf.ndim > rank for leaf, rank in zip(jax.tree.leaves(self.values), self.ranks, strict=True))


def named_parametrization(chosen: ParametrizationName | Parametrization, *, circular: bool = False) -> Parametrization:
    """Return a parametrization by name; a user-defined one is returned unchanged.

    Args:
        chosen: a name, or a user-defined parametrization.
        circular: whether the image is periodic, which changes the pyramid.
    """
    if isinstance(chosen, Parametrization):
        return chosen
    return PARAMETRIZATIONS["circular pyramid" if circular and chosen == "pyramid" else chosen]


def encode(image: jax.Array, parametrization: Parametrization, *, flat: bool = False) -> Parameters:
    """Return parameters that decode to `image`; with "sigmoid", to within `MARGIN` of it.

    Args:
        image: `[H, W, 3]`, in [0, 1].
        parametrization: of `named_parametrization`.
        flat: whether to concatenate the arrays to one vector, as L-BFGS needs.
    """
    values, decode = parametrization.encode(image), parametrization.decode
    leaves, structure = jax.tree.flatten(values)
    if not flat:
        return Parameters(values, decode, tuple(map(jnp.ndim, leaves)))
    shapes = tuple(leaf.shape for leaf in leaves)
    vector = array_module(*leaves).concatenate([leaf.reshape(-1) for leaf in leaves])
    return Parameters(vector, FlatDecode(decode, structure, shapes), (1,))


@dataclass(frozen=True)
class FlatDecode:
    """Decoder of a vector: the concatenated arrays of a parametrization."""

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
    """Return the image of `parameters`, `[H, W, 3]` or `[N, H, W, 3]` for a batch, not clipped."""
    function = parameters.decode
    return (jax.vmap(function) if parameters.batched and not parameters.has_levels else function)(parameters.values)


def decode_on_host(parameters: Parameters) -> np.ndarray:
    """Return the image of `decode`, clipped to [0, 1]: by NumPy for pixels and pyramids, else by one program."""
    if parameters.has_decoder(*OF_LEVELS, _from_details):
        return np.clip(parameters.decode(jax.device_get(parameters.values)), 0.0, 1.0)
    return np.asarray(_decode_clipped(parameters))


@jax.jit
def _decode_clipped(parameters: Parameters) -> jax.Array:
    return jnp.clip(decode(parameters), 0.0, 1.0)


def compose(*parts: Parametrization) -> Parametrization:
    """Return the composition of parametrizations; create it once, since functions are hashed by identity.

    Args:
        parts: parametrizations, that next to the image first; all but the last must encode an image as an image.

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

r"""The ways to write an image that are built in: which arrays stand for it, and how they become the image.

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

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle.own import Parametrization
from jaxstyle.scales import array_module, resample

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

"""Resizing of images and styles from one scale to another."""

import jax

from jaxstyle.images.resample import array_module, resample
from jaxstyle.networks.vgg import smallest_side


def resize(picture: jax.Array, height: int, width: int, *, circular: bool = False) -> jax.Array:
    """Return `picture` resized with antialiasing; the same array if it has this size already.

    Args:
        picture: `[..., H, W, 3]` or a mask `[H, W]`, in [0, 1].
        height: new height in pixels.
        width: new width in pixels.
        circular: whether the image is periodic.

    Returns:
        `[..., height, width, 3]` or `[height, width]`, in [0, 1].
    """
    resized = resample(picture, height, width, circular=circular)
    return picture if resized is picture else array_module(resized).clip(resized, 0.0, 1.0)


def resize_style(style: jax.Array, factor: float, *, layers: tuple[str, ...]) -> jax.Array:
    """Return a style or mask reduced by `factor`, but not below the minimum size of `layers`.

    Args:
        style: `[H, W, 3]`, or a mask `[H, W]`, of its size at the last scale.
        factor: ratio of the size of this scale to that of the last.
        layers: style layers.

    Example:
        >>> resize_style(jnp.ones((64, 32, 3)), 0.5, layers=("relu1_1",)).shape
        (32, 16, 3)
    """
    height, width = style.shape[:2]
    need = max(map(smallest_side, layers), default=1)
    factor = min(1.0, max(factor, need / min(height, width)))
    return style if factor == 1 else resize(style, *(max(1, round(factor * each)) for each in (height, width)))

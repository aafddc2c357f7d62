r"""Masks: style regions, as guides of the statistics, and composition of the result with the content.

A mask is `[H, W]` in [0, 1], 1 inside its region. Gatys et al., *Controlling Perceptual Factors in Neural Style
Transfer*, arXiv:1611.07865, section 4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.images.resample import resample
from jaxstyle.losses.pixel import positive


class Regions(NamedTuple):
    """Style regions of an image."""

    guides: dict[str, jax.Array]  # by layer, the weight of each pixel in each of R regions, `[R, h, w]`, with sum one
    shares: jax.Array  # fraction of the image that each region covers, `[R]`
    cover: jax.Array  # opacity of the stylized image, `[H, W]`
    backdrop: jax.Array  # image behind it, the content, `[..., H, W, 3]`


def make_regions(masks: jax.Array, content: jax.Array, shapes: dict[str, tuple[int, int]]) -> Regions:
    """Return the regions of `masks`.

    Args:
        masks: one per style, `[R, H, W]`; styles mix where masks overlap, and the content remains where all are 0.
        content: `[..., H, W, 3]`.
        shapes: height and width of each layer.

    Example:
        >>> make_regions(jnp.ones((1, 8, 8)), jnp.ones((8, 8, 3)), {"relu2_1": (4, 4)}).shares.tolist()
        [1.0]
    """
    guides = {
        layer: jax.vmap(lambda mask, shape=shape: guide(mask, height=shape[0], width=shape[1]))(masks)
        for layer, shape in shapes.items()
    }
    return Regions(guides, jnp.mean(masks, axis=(1, 2)), cover(masks), content)


def guide(mask: jax.Array, *, height: int, width: int) -> jax.Array:
    r"""Return the weight of each pixel of a layer, :math:`w_k = T_k^2 / \sum_l T_l^2` for the resized mask T.

    The mask is `[H, W]`, the result `[height, width]`, the size of the layer, with sum one; all zero for an empty mask.

    Example:
        >>> guide(jnp.ones((8, 8)), height=2, width=2).round(6).tolist()
        [[0.25, 0.25], [0.25, 0.25]]
    """
    squares = jnp.square(resample(mask, height, width, method="linear"))
    return squares / positive(jnp.sum(squares))


def cover(masks: jax.Array) -> jax.Array:
    """Return the opacity of the stylized image, `[H, W]`: the sum of the masks, `[R, H, W]`, at most 1."""
    return jnp.minimum(jnp.sum(masks, axis=0), 1.0)


def compose(image: jax.Array, backdrop: jax.Array, *, cover: jax.Array) -> jax.Array:
    """Return `image` with opacity `cover`, `[H, W]`, over `backdrop`; where `cover` is 0, bit for bit `backdrop`.

    Example:
        >>> compose(jnp.ones((1, 1, 3)), jnp.zeros((1, 1, 3)), cover=jnp.full((1, 1), 0.5)).tolist()
        [[[0.5, 0.5, 0.5]]]
    """
    share = jnp.broadcast_to(cover[..., None], image.shape)
    return jnp.where(share < 1, backdrop + share * (image - backdrop), image)


def feather(mask: jax.Array, *, pixels: int) -> jax.Array:
    """Return `mask` with edges softened into ramps of width `pixels`, centered at the edge.

    Args:
        mask: `[H, W]`, in [0, 1]; its border is replicated.
        pixels: width of the ramp, rounded down to an even number, at least 2; 0 for no change. Pixels farther from the
            mask stay exactly zero.

    Example:
        >>> feather(jnp.asarray([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]), pixels=2).round(2).tolist()
        [[0.0, 0.0, 0.25, 0.75, 1.0, 1.0]]
    """
    if not pixels:
        return mask
    reach = max(1, pixels // 2)
    tent = reach + 1 - jnp.abs(jnp.arange(-reach, reach + 1, dtype=mask.dtype))
    padded = jnp.pad(mask, reach, mode="edge")
    for weights in (tent[:, None], tent[None, :]):
        padded = jax.scipy.signal.convolve2d(padded, weights / jnp.sum(tent), mode="valid", precision="highest")
    return jnp.clip(padded, 0.0, 1.0)

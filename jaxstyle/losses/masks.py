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
    """Style regions of an image.

    Attributes:
        guides: by layer, the weight of each pixel in each of R regions, `[R, h, w]`, which sum to one per region.
        shares: fraction of the image that each region covers, `[R]`.
        cover: opacity of the stylized image, `[H, W]`.
        backdrop: image behind it, the content, `[..., H, W, 3]`.
    """

    guides: dict[str, jax.Array]
    shares: jax.Array
    cover: jax.Array
    backdrop: jax.Array


def make_regions(masks: jax.Array, content: jax.Array, shapes: dict[str, tuple[int, int]]) -> Regions:
    """Return the regions of `masks`.

    Args:
        masks: one per style, `[R, H, W]`; styles mix where masks overlap, and the content remains where all are 0.
        content: `[..., H, W, 3]`.
        shapes: height and width of each layer.

    Returns:
        The regions.

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

    Args:
        mask: `[H, W]`, in [0, 1].
        height: of the layer, in pixels.
        width: of the layer, in pixels.

    Returns:
        `[height, width]`, with sum one; all zero for an empty mask.

    Example:
        >>> guide(jnp.ones((8, 8)), height=2, width=2).round(6).tolist()
        [[0.25, 0.25], [0.25, 0.25]]
    """
    squares = jnp.square(resample(mask, height, width, method="linear"))
    return squares / positive(jnp.sum(squares))


def cover(masks: jax.Array) -> jax.Array:
    """Return the opacity of the stylized image.

    Args:
        masks: `[R, H, W]`, in [0, 1].

    Returns:
        `[H, W]`, in [0, 1]: the sum of the masks, at most 1.

    Example:
        >>> cover(jnp.ones((2, 1, 2))).tolist()
        [[1.0, 1.0]]
    """
    return jnp.minimum(jnp.sum(masks, axis=0), 1.0)


def compose(image: jax.Array, backdrop: jax.Array, *, cover: jax.Array) -> jax.Array:
    """Return `image` over `backdrop`; where `cover` is 0, bit for bit `backdrop`.

    Args:
        image: `[..., H, W, 3]`.
        backdrop: `[..., H, W, 3]`.
        cover: opacity of `image`, `[H, W]` in [0, 1].

    Returns:
        `[..., H, W, 3]`.

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

    Returns:
        `[H, W]`.

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

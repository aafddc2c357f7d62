"""What a part of an image adds to sums over the pixels of a layer: a strip of rows, a block, or a strip of a block.

What is read of all parts adds up to what is read of the image.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxstyle import vgg
from jaxstyle.grid import Block
from jaxstyle.losses import squared_distance
from jaxstyle.mesh import evened
from jaxstyle.moments import Moments, moments
from jaxstyle.strips import Rows


@dataclass(frozen=True)
class Part:
    """Which part of an image's layer features are of.

    Attributes:
        height: of the layer of the whole image.
        width: likewise.
        stride: pixels of the image that one of the layer stands for.
        block: that the image is seen through, or None for all of it.
        rows: of what is seen, or None for all of them.
        devices: how many of them the rows of the layer are shared out among.
    """

    height: int
    width: int
    stride: int
    block: Block | None
    rows: Rows | None
    devices: int = 1

    def own(self, x: jax.Array, height: int, width: int) -> jax.Array:
        """Return what the part sees of `x`, `[..., h, w]`, zero for pixels that are another part's.

        Args:
            x: a layer of the whole image.
            height: of the layer of what is seen: of the block's window, if there is one.
            width: likewise.
        """
        if self.block is not None:
            own = self.block.own(height, width, stride=self.stride)
            x = self.block.cut(x, height, width, stride=self.stride, axis=-2)
            x = jnp.where(jnp.broadcast_to(own, x.shape), x, jnp.zeros((), x.dtype))
        return x if self.rows is None else self.rows.cut(x)

    def counts(self, height: int, width: int) -> jax.Array:
        """Return how much each pixel counts where all of the image's count alike, as `own` returns it."""
        alike = jnp.full((height, width), 1 / (self.height * self.width))
        if self.block is not None:
            alike = jnp.where(self.block.own(height, width, stride=self.stride), alike, 0.0)
        return alike if self.rows is None else self.rows.cut(alike)


def whole(layer: str, height: int, width: int) -> Part:
    """Return the part that is all of a layer.

    Args:
        layer: its name.
        height: of the image, in pixels.
        width: likewise.

    Returns:
        The part.

    Example:
        >>> whole("relu2_1", 64, 33).width
        16
    """
    stride = vgg.smallest_side(layer)
    return Part(height // stride, width // stride, stride, None, None)


def read_moments(features: jax.Array, part: Part, *, guide: jax.Array | None = None) -> Moments:
    """Return what a part adds to the moments of a layer.

    Args:
        features: of the part, `[..., h, w, C]`.
        part: which it is.
        guide: how much each pixel of the whole layer counts, `[H, W]`, or None for all alike.

    Returns:
        The moments.

    Example:
        >>> read_moments(jnp.ones((4, 4, 2)), Part(4, 4, 1, None, None)).mean.tolist()
        [1.0, 1.0]
    """
    if part.devices > 1:  # rows and columns become one axis, which has to divide
        counts = part.counts(*features.shape[-3:-1]) if guide is None else guide
        even = partial(evened, count=part.devices)
        return moments(even(features, axis=-3), guide=even(counts, axis=-2))
    if part.block is None and part.rows is None:
        return moments(features, guide=guide)
    height, width = features.shape[-3] if part.rows is None else part.rows.height, features.shape[-2]
    counts = part.counts(height, width) if guide is None else part.own(guide, height, width)
    return moments(features, guide=counts)


def read_distance(features: jax.Array, part: Part, *, target: jax.Array) -> jax.Array:
    """Return what a part adds to the squared distance of a layer from its target.

    Args:
        features: of the part, a block or all of the image, `[..., h, w, C]`.
        part: which it is.
        target: of the whole layer, `[..., H, W, C]`.

    Returns:
        `[...]`, not divided by anything.

    Example:
        >>> float(read_distance(jnp.ones((4, 4, 2)), Part(4, 4, 1, None, None), target=jnp.zeros((4, 4, 2))))
        32.0
    """
    if part.block is not None:
        height, width = features.shape[-3:-1]
        target = part.block.cut(target, height, width, stride=part.stride, axis=-3)
        own = part.block.own(height, width, stride=part.stride)[..., None]
        features, target = (jnp.where(jnp.broadcast_to(own, x.shape), x, 0.0) for x in (features, target))
    return squared_distance(features, target, axes=3, divisor="none")

"""What an image is written as while it is optimised: a tuple of arrays that a pure `decode` turns into the image.

`pixels` is the image itself. `pyramid` adds coarser levels, each enlarged bilinearly to full size and a quarter as
strong. Both can write every image; what differs is the metric in which lbfgs takes its steps. A coarse level moves many
pixels at once, so large smooth changes, which come last in plain pixels, come first.
"""

import jax
import jax.numpy as jnp

from jaxstyle.scales import resample

PYRAMID_LEVELS = 5  # full size to 1/16, as many halvings as VGG-19 has
# Of every level but the finest. Preset neural-style-pt stood higher after 100 steps with 1, 1/2, 1/3 and 1/8.
COARSE_GAIN = 0.25

Parameters = tuple[jax.Array, ...]


@jax.tree_util.register_pytree_node_class
class Circular(tuple):
    """Parameters of an image that continues across its border, as do the enlargements of its levels."""

    def tree_flatten(self) -> tuple[tuple[jax.Array, ...], None]:
        """Return the levels; nothing else is in it."""
        return tuple(self), None

    @classmethod
    def tree_unflatten(cls, _: None, levels: Parameters) -> "Circular":
        """Return the levels as what they are."""
        return cls(levels)


def encode(image: jax.Array, *, levels: int, circular: bool = False) -> Parameters:
    """Return parameters that decode to `image`: the finest level is the image, the others are zero.

    Args:
        image: `[H, W, 3]`, in [0, 1].
        levels: how many; each has half the height and width of the one before, rounded up.
        circular: whether the image continues across its border.

    Returns:
        Arrays `[H, W, 3]`, `[H / 2, W / 2, 3]`, ...

    Example:
        >>> [level.shape for level in encode(jnp.zeros((32, 24, 3)), levels=3)]
        [(32, 24, 3), (16, 12, 3), (8, 6, 3)]
    """
    height, width, channels = image.shape
    coarse = [(-(-height // 2**i), -(-width // 2**i), channels) for i in range(1, levels)]
    parameters = (image, *(jnp.zeros(shape, image.dtype) for shape in coarse))
    return Circular(parameters) if circular else parameters


def decode(parameters: Parameters) -> jax.Array:
    r"""Return the image that `parameters` stand for, :math:`x = z_0 + g \sum_i U_i z_i` with bilinear enlargements U.

    Args:
        parameters: of `encode`.

    Returns:
        `[H, W, 3]`, not clipped.

    Example:
        >>> decode((jnp.zeros((2, 2, 3)), jnp.ones((1, 1, 3)))).tolist()[0][0]
        [0.25, 0.25, 0.25]
    """
    image, *coarse = parameters
    how = {"circular": isinstance(parameters, Circular), "method": "linear"}
    return image + COARSE_GAIN * sum(resample(level, *image.shape[-3:-1], **how) for level in coarse)

"""Number of floating-point operations of an optimization step, computed as direct convolutions."""

from jaxstyle.config import Config
from jaxstyle.images.resample import half_shape
from jaxstyle.networks.vgg import CONV_LAYERS, Params
from jaxstyle.transfer.schedule import Scale


def gflop_per_step(params: Params, scale: Scale, *, config: Config) -> float:
    """Return the arithmetic of the objective and of its gradient with respect to the image, in GFLOP.

    Args:
        params: the network, or its shapes.
        scale: its height and width count.
        config: its layers and `halve_above` count.
    """
    compared = config.content_layers + config.style_layers
    deepest = max(CONV_LAYERS.index("conv" + layer[4:]) for layer in compared)
    operations = 0
    for name in CONV_LAYERS[: deepest + 1]:
        block = int(name[4]) - 1
        pixels = (scale.height >> block) * (scale.width >> block)
        kernel = params[name]["kernel"]
        operations += 2 * 2 * kernel.size * pixels  # forward and backward
        if {"relu" + name[4:], name} & set(config.style_layers):
            operations += 2 * 2 * kernel.shape[-1] ** 2 * pixels  # the Gram matrix, forward and backward
    return operations * pixels_per_step(scale, config=config) / (scale.height * scale.width) / 1e9


def pixels_per_step(scale: Scale, *, config: Config) -> float:
    """Return the number of pixels that a step evaluates, those at half the size included.

    Args:
        scale: its height and width count.
        config: its `halve_above` counts.
    """
    pixels = scale.height * scale.width
    halved = config.halve_above is not None and max(scale.height, scale.width) > config.halve_above
    half = Scale(*half_shape(scale.height, scale.width), steps=0)
    return pixels + (pixels_per_step(half, config=config) if halved else 0)

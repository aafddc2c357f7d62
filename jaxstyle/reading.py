"""How layers of an image are read on the way through the network: all at once, in strips of rows or in blocks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from jaxstyle import vgg
from jaxstyle.blocks import map_blocks, sum_over_blocks
from jaxstyle.config import Config
from jaxstyle.grid import Block, Grid, grid, smallest_window
from jaxstyle.mesh import SplitRows
from jaxstyle.own_network import activations
from jaxstyle.parts import Part, whole
from jaxstyle.strips import Rows

# Pixels from which strips of the first block cost nothing: 1.05 of a step's time on two cores at 1024 x 768, with
# 0.62 of its memory, and 1.1 at a quarter of the pixels. With the second block it is 1.1 and 0.49.
LARGE = 2**19
LOOKED_AT = 2**19  # pixels of a window where a picture is looked at once, for targets


def blocks_in_rows(config: Config, pixels: int) -> tuple[int, ...]:
    """Return the blocks to go through in strips: the largest, if only sums over their pixels are read.

    Args:
        config: its `remat`, statistic, convolution and content layers count.
        pixels: of the image.

    Returns:
        Numbers of blocks.

    Example:
        >>> blocks_in_rows(Config(), 512 * 512), blocks_in_rows(Config(), 1024 * 768)
        ((), (1,))
    """
    blocks = (1, 2) if config.remat else (1,) if pixels >= LARGE else ()
    whole = config.statistic == "sliced" or config.own_terms or config.network is not None
    if whole or isinstance(config.conv, SplitRows):  # whose devices have parts of all rows
        return ()
    return tuple(block for block in blocks if all(int(layer[4]) != block for layer in config.content_layers))


def image_features(
    params: vgg.Params,
    image: jax.Array,
    *,
    config: Config,
    layers: tuple[str, ...] | None = None,
    read: Callable[[str, jax.Array, Rows | None], Any] | None = None,
    in_rows: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Return activations of `image` by the network as `config` has it.

    Args:
        params: the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        config: its pooling, border, white, precision and convolution count.
        layers: which activations; those that `config` reads for None.
        read: as for `vgg.features`.
        in_rows: likewise.

    Returns:
        The activations, as `vgg.features` returns them.

    Raises:
        InputError: if a network of one's own does not give one of the layers, or gives it without an axis of channels.

    Example:
        >>> image_features(params, image, config=Config())["relu4_2"].shape  # doctest: +SKIP
        (32, 32, 512)
    """
    layers = config.layers if layers is None else layers
    if config.network is not None:
        return activations(config.network, params, image, layers=layers, read=read)
    return vgg.features(
        params,
        image,
        pooling=config.pooling,
        pooling_gain=config.pooling_gain,
        border=config.border,
        white=config.white,
        precision=config.precision,
        conv=config.conv,
        layers=layers,
        read=read,
        in_rows=in_rows,
    )


def part_of(layer: str, features: jax.Array, height: int, width: int, *, config: Config) -> Part:
    """Return the part that is all of a layer, of which `features` may be a strip or a block, as only VGG-19's can be.

    Args:
        layer: its name.
        features: `[..., h, w, C]`.
        height: of the image, in pixels.
        width: likewise.
        config: its network counts.

    Returns:
        The part.

    Example:
        >>> part_of("relu2_1", jnp.zeros((4, 4, 8)), 16, 16, config=Config()).width
        8
    """
    if config.network is not None:
        return Part(features.shape[-3], features.shape[-2], 1, None, None)
    return whole(layer, height, width)


def read_layers(
    params: vgg.Params,
    image: jax.Array,
    read: Callable[[str, jax.Array, Part, Any], Any],
    context: Any,
    *,
    config: Config,
    layers: tuple[str, ...],
) -> dict[str, Any]:
    """Return what is read of layers of `image`, which is cut into blocks of the size that `config` allows.

    Args:
        params: the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        read: takes a layer's name, features, part and the context, and returns a tree of sums over pixels, or anything
            where the image is not cut.
        context: a tree of arrays, the only ones besides the image and the network that `read` may depend on.
        config: the static facts.
        layers: which to read.

    Returns:
        What `read` returned by layer, summed over all parts.

    Raises:
        InputError: if not even the smallest block has as few pixels as `config` allows.

    Example:
        >>> def mean(layer, features, part, _):
        ...     return read_moments(features, part).mean
        >>> read_layers(params, image, mean, None, config=Config(), layers=("relu1_1",))  # doctest: +SKIP
    """
    height, width = image.shape[-3:-1]
    devices = config.conv.mesh.size if isinstance(config.conv, SplitRows) else 1

    def of_block(image: jax.Array, block: Block | None, inputs: Any) -> dict[str, Any]:
        params, context = inputs

        def of_layer(layer: str, features: jax.Array, rows: Rows | None) -> Any:
            part = part_of(layer, features, height, width, config=config)
            part = replace(part, block=block, rows=rows, devices=devices)
            return read(layer, features, part, context)

        in_rows = blocks_in_rows(config, image.shape[-3] * image.shape[-2])
        return image_features(params, image, config=config, layers=layers, read=of_layer, in_rows=in_rows)

    cut = _cut(height, width, config=config, layers=layers)
    if cut is None:
        return of_block(image, None, (params, context))
    return sum_over_blocks(of_block, image, (params, context), grid=cut)


def layers_of(
    params: vgg.Params, picture: jax.Array, *, config: Config, layers: tuple[str, ...]
) -> dict[str, jax.Array]:
    """Return activations of `picture`, which is cut into blocks as `read_layers` does.

    Args:
        params: the network.
        picture: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        config: as for `image_features`, and its `block_pixels`.
        layers: which activations.

    Returns:
        The activations, `[..., h, w, C]`.

    Example:
        >>> layers_of(params, content, config=Config(), layers=("relu4_2",))["relu4_2"].shape  # doctest: +SKIP
        (32, 32, 512)
    """
    found = {}
    for layer in layers:
        cut = _cut(*picture.shape[-3:-1], config=config, layers=(layer,))
        if cut is None:
            return image_features(params, picture, config=config, layers=layers)

        def of_window(window: jax.Array, layer: str = layer) -> jax.Array:
            return image_features(params, window, config=config, layers=(layer,))[layer]

        found[layer] = map_blocks(of_window, picture, grid=cut, stride=vgg.smallest_side(layer))
    return found


def least_pixels(config: Config) -> int:
    """Return the least `block_pixels` with which an image of any size can be cut.

    Args:
        config: its layers count.

    Returns:
        Pixels.

    Example:
        >>> least_pixels(Config())
        36864
    """
    return smallest_window(max(map(vgg.halo, config.sized(config.layers)), default=0))


def looking(config: Config) -> Config:
    """Return `config` for a picture that is looked at once: a large one in blocks, whatever memory there is.

    So what is seen of it does not depend on that memory.

    Args:
        config: the static facts.

    Returns:
        Them, with `block_pixels`.

    Example:
        >>> looking(Config()).block_pixels == LOOKED_AT
        True
    """
    if config.whole_only or config.border == "circular":
        return config
    return replace(config, block_pixels=min(config.block_pixels or LOOKED_AT, LOOKED_AT))


def _cut(height: int, width: int, *, config: Config, layers: tuple[str, ...]) -> Grid | None:
    if config.block_pixels is None:
        return None
    halo, circular = max(map(vgg.halo, layers), default=0), config.border == "circular"
    return grid(height, width, most=config.block_pixels, halo=halo, circular=circular)

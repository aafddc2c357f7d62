"""Layer summaries: sums over the pixels of network layers, computed from the full image, in row chunks or in tiles.

A `Part` is the set of pixels of a layer in one row chunk or tile; the sum over all parts is that over the image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle.config import Config
from jaxstyle.distributed.sharding import SplitRows, evened
from jaxstyle.losses.moments import Moments, moments
from jaxstyle.losses.pixel import squared_distance
from jaxstyle.losses.tiling import Block, Grid, grid, map_blocks, smallest_window, sum_over_blocks
from jaxstyle.networks import vgg
from jaxstyle.networks.row_remat import Rows
from jaxstyle.networks.user_network import activations


@dataclass(frozen=True)
class Part:
    """Part of a layer.

    Attributes:
        height: of the layer of the full image.
        width: of the layer of the full image.
        stride: stride of the layer, in pixels of the image.
        block: tile of the image, or None for the full image.
        rows: row chunk, or None for all rows.
        devices: number of devices that share the rows of the layer.
    """

    height: int
    width: int
    stride: int
    block: Block | None
    rows: Rows | None
    devices: int = 1

    def own(self, x: jax.Array, height: int, width: int) -> jax.Array:
        """Return this part of `x`, `[..., h, w]`, with zeros for pixels of other parts.

        Args:
            x: layer of the full image, one number per pixel.
            height: of the layer of the tile's window, or of the full image without a tile.
            width: of the same layer.
        """
        if self.block is not None:
            own = self.block.own(height, width, stride=self.stride)
            x = self.block.cut(x, height, width, stride=self.stride, axis=-2)
            x = jnp.where(jnp.broadcast_to(own, x.shape), x, jnp.zeros((), x.dtype))
        return x if self.rows is None else self.rows.cut(x)

    def counts(self, height: int, width: int) -> jax.Array:
        """Return equal weights of all pixels of the image, as `own` returns them."""
        alike = jnp.full((height, width), 1 / (self.height * self.width))
        if self.block is not None:
            alike = jnp.where(self.block.own(height, width, stride=self.stride), alike, 0.0)
        return alike if self.rows is None else self.rows.cut(alike)


def whole(layer: str, height: int, width: int) -> Part:
    """Return the part that covers a full layer.

    Args:
        layer: name of the layer.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        The part.

    Example:
        >>> whole("relu2_1", 64, 33).width
        16
    """
    stride = vgg.smallest_side(layer)
    return Part(height // stride, width // stride, stride, None, None)


def read_moments(features: jax.Array, part: Part, *, guide: jax.Array | None = None) -> Moments:
    """Return the contribution of a part to the moments of a layer.

    Args:
        features: of the part, `[..., h, w, C]`.
        part: the part.
        guide: weight of each pixel of the full layer, `[H, W]`, or None for equal weights.

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
    """Return the contribution of a part to the squared distance of a layer from its target.

    Args:
        features: of the part, a tile or the full image, `[..., h, w, C]`.
        part: the part.
        target: of the full layer, `[..., H, W, C]`.

    Returns:
        `[...]`, without normalization.

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


# Pixels from which row chunks of the first block are almost free: 1.05 of a step's time on two cores at 1024 x 768,
# with 0.62 of its memory, and 1.1 at a quarter of the pixels. With the second block it is 1.1 and 0.49.
LARGE = 2**19
LOOKED_AT = 2**19  # pixels of a window of a tile for targets


def blocks_in_rows(config: Config, pixels: int) -> tuple[int, ...]:
    """Return the VGG blocks to compute in row chunks: the largest, if only sums over their pixels are needed.

    Args:
        config: `remat`, statistic, convolution and content layers are used.
        pixels: number of pixels of the image.

    Returns:
        Numbers of blocks.

    Example:
        >>> blocks_in_rows(Config(), 512 * 512), blocks_in_rows(Config(), 1024 * 768)
        ((), (1,))
    """
    blocks = (1, 2) if config.remat else (1,) if pixels >= LARGE else ()
    whole = config.statistic == "sliced" or config.own_terms or config.network is not None
    if whole or isinstance(config.conv, SplitRows):  # which distributes rows among devices
        return ()
    return tuple(block for block in blocks if all(int(layer[4]) != block for layer in config.content_layers))


def image_features(
    params: vgg.Params,
    image: jax.Array,
    *,
    config: Config,
    layers: tuple[str, ...] | None = None,
    read: Callable[[str, jax.Array, Rows | None], Any] | None = None,
    remat: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Return activations of `image` by the network of `config`.

    Args:
        params: the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        config: network, pooling, padding, input scale, precision and convolution are used.
        layers: names of layers; None for all layers of `config`.
        read: `summarize` of `vgg.evaluate_layers`.
        remat: of `vgg.VGG19`.

    Returns:
        The activations or summaries by layer, as of `vgg.evaluate_layers`.

    Raises:
        InputError: if a user-defined network does not return one of the layers, or returns it without a channel axis.

    Example:
        >>> image_features(params, image, config=Config())["relu4_2"].shape  # doctest: +SKIP
        (32, 32, 512)
    """
    layers = config.layers if layers is None else layers
    if config.network is not None:
        return activations(config.network, params, image, layers=layers, read=read)
    network = vgg.VGG19.from_params(
        params,
        pooling=config.pooling,
        pooling_gain=config.pooling_gain,
        padding=config.border,
        input_scale=config.white,
        precision=config.precision,
        conv=config.conv,
        remat=remat,
    )
    return vgg.evaluate_layers(network, params, image, layers=layers, summarize=read)


def part_of(layer: str, features: jax.Array, height: int, width: int, *, config: Config) -> Part:
    """Return the part that covers a full layer.

    Args:
        layer: name of the layer.
        features: `[..., h, w, C]`; with VGG-19 they may be a row chunk or a tile of the layer.
        height: of the image, in pixels.
        width: of the image, in pixels.
        config: `network` is used.

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
    """Return summaries of layers of `image`, computed in tiles if `config` requires it.

    Args:
        params: the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        read: function of a layer's name, features, part and the context that returns a pytree of sums over pixels, or
            any pytree without tiles.
        context: pytree of all arrays, besides image and network, that `read` depends on.
        config: the static options.
        layers: names of layers.

    Returns:
        The summaries by layer, summed over all parts.

    Raises:
        InputError: if the smallest tile has more than `config.block_pixels` pixels.

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

        remat = blocks_in_rows(config, image.shape[-3] * image.shape[-2])
        return image_features(params, image, config=config, layers=layers, read=of_layer, remat=remat)

    cut = _cut(height, width, config=config, layers=layers)
    if cut is None:
        return of_block(image, None, (params, context))
    return sum_over_blocks(of_block, image, (params, context), grid=cut)


def layers_of(
    params: vgg.Params, picture: jax.Array, *, config: Config, layers: tuple[str, ...]
) -> dict[str, jax.Array]:
    """Return activations of `picture`, computed in tiles as by `read_layers`.

    Args:
        params: the network.
        picture: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        config: as for `image_features`, and `block_pixels`.
        layers: names of layers.

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
    """Return the smallest `block_pixels` that suffices for images of any size.

    Args:
        config: layers are used.

    Returns:
        Pixels.

    Example:
        >>> least_pixels(Config())
        36864
    """
    return smallest_window(max(map(vgg.halo, config.sized(config.layers)), default=0))


def looking(config: Config) -> Config:
    """Return `config` for targets: large images are processed in tiles whose size does not depend on the memory.

    So the targets do not depend on the memory either.

    Args:
        config: the static options.

    Returns:
        The config with `block_pixels`.

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

"""Layer summaries: sums over the pixels of network layers, computed from the full image, in row chunks or in tiles.

A `Part` is the set of pixels of a layer in one row chunk or tile; the sum over all parts is that over the image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle.distributed.sharding import SplitRows, evened
from jaxstyle.errors import InputError
from jaxstyle.losses.moments import Moments, moments
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.pixel import squared_distance
from jaxstyle.losses.tiling import Block, Grid, grid, map_blocks, smallest_window, sum_over_blocks
from jaxstyle.networks import vgg
from jaxstyle.networks.row_remat import Rows
from jaxstyle.networks.user_network import Network, activations

AnyNetwork = vgg.VGG19 | Network


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
    return squared_distance(features, target, axes=3, normalization="none")


# Pixels from which row chunks of the first block are almost free: 1.05 of a step's time on two cores at 1024 x 768,
# with 0.62 of its memory, and 1.1 at a quarter of the pixels. With the second block it is 1.1 and 0.49.
LARGE = 2**19
TARGET_TILE_PIXELS = 2**19  # of a window of a tile for targets


def blocks_in_rows(network: AnyNetwork, pixels: int, *, complete: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Return the VGG blocks to compute in row chunks: the largest, if only sums over their pixels are needed.

    Args:
        network: `remat` and the convolution are used.
        pixels: number of pixels of the image.
        complete: layers of which all features are needed at once.

    Returns:
        Numbers of blocks.

    Example:
        >>> blocks_in_rows(VGG19(), 512 * 512), blocks_in_rows(VGG19(), 1024 * 768)
        ((), (1,))
    """
    if not isinstance(network, vgg.VGG19) or isinstance(network.conv, SplitRows):  # which distributes rows
        return ()
    blocks = network.remat or ((1,) if pixels >= LARGE else ())
    return tuple(block for block in blocks if all(int(layer[4]) != block for layer in complete))


def whole_only(objective: Objective, network: AnyNetwork) -> str | None:
    """Return what excludes tiles because it needs complete layers; None if nothing does.

    Args:
        objective: statistic, normalization of gradients and extra terms are used.
        network: the network.

    Returns:
        The cause, as a part of a sentence.

    Example:
        >>> whole_only(Objective(statistic="sliced"), VGG19())
        'sliced statistics'
    """
    causes = {
        "sliced statistics": objective.statistic == "sliced",
        "normalized gradients": objective.normalize_gradients,
        "extra terms": bool(objective.extra_terms),
        "activations of a user-defined network": not isinstance(network, vgg.VGG19),
    }
    return next((cause for cause, given in causes.items() if given), None)


def check_options(objective: Objective, network: AnyNetwork) -> None:
    """Check that an objective and a network fit together.

    Args:
        objective: the objective.
        network: the network.

    Raises:
        InputError: if there is no layer and no extra term, if VGG-19 has no such layer, if an extra term has no weight,
            if tiles are excluded, or if the network is no function.

    Example:
        >>> check_options(Objective(), VGG19())
    """
    if not callable(network):
        raise InputError(f"network is {network!r}: pass a VGG19 or a function of params and an image.")
    for layer in sized_layers(network, objective.layers):
        vgg.smallest_side(layer)
    names = dict(objective.extra_terms)
    if not objective.layer_terms and not names:
        raise InputError("There are no content layers and no style layers: give at least one a weight.")
    if differ := ", ".join(sorted(names.keys() ^ objective.extra.keys())):
        raise InputError(f"Extra terms and their weights differ in {differ}: give each extra term one weight.")
    check_tiles(objective, network)
    if not isinstance(network, vgg.VGG19) and objective.gram_normalization == "image":
        raise InputError("gram_normalization is 'image', but the network is user-defined: use 'pixels' or 'elements'.")


def check_tiles(objective: Objective, network: AnyNetwork) -> None:
    """Check that an objective can be computed in the tiles of a network, if it has any.

    Args:
        objective: the objective.
        network: the network.

    Raises:
        InputError: if something needs complete layers.

    Example:
        >>> check_tiles(Objective(), VGG19(tile_pixels=2**20))
    """
    tiles = network.tile_pixels if isinstance(network, vgg.VGG19) else None
    if tiles is not None and (cause := whole_only(objective, network)):
        raise InputError(f"tile_pixels is {tiles}, but {cause} cannot be computed in tiles: use None.")


def sized_layers(network: AnyNetwork, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the layers whose size follows from the image size: all of VGG-19, none of a user-defined network.

    Args:
        network: the network.
        layers: names of layers.

    Returns:
        The layers, or ().

    Example:
        >>> sized_layers(VGG19(), ("relu1_1",))
        ('relu1_1',)
    """
    return layers if isinstance(network, vgg.VGG19) else ()


def is_circular(network: AnyNetwork) -> bool:
    """Return whether images are periodic for a network.

    Args:
        network: its padding is used.

    Returns:
        False for a user-defined network.

    Example:
        >>> is_circular(VGG19(padding="circular"))
        True
    """
    return isinstance(network, vgg.VGG19) and network.padding == "circular"


def image_features(
    params: vgg.Params,
    image: jax.Array,
    *,
    network: AnyNetwork,
    layers: tuple[str, ...],
    read: Callable[[str, jax.Array, Rows | None], Any] | None = None,
    remat: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Return activations of `image`.

    Args:
        params: of the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        network: VGG-19 or a user-defined network.
        layers: names of layers.
        read: `summarize` of `vgg.evaluate_layers`.
        remat: blocks of VGG-19 to compute in row chunks.

    Returns:
        The activations or summaries by layer, as of `vgg.evaluate_layers`.

    Raises:
        InputError: if a user-defined network does not return one of the layers, or returns it without a channel axis.

    Example:
        >>> image_features(params, image, network=VGG19(), layers=("relu4_2",))["relu4_2"].shape  # doctest: +SKIP
        (32, 32, 512)
    """
    if not isinstance(network, vgg.VGG19):
        return activations(network, params, image, layers=layers, read=read)
    fitted = network.fitted(params).clone(remat=remat)
    return vgg.evaluate_layers(fitted, params, image, layers=layers, summarize=read)


def part_of(layer: str, features: jax.Array, height: int, width: int, *, network: AnyNetwork) -> Part:
    """Return the part that covers a full layer.

    Args:
        layer: name of the layer.
        features: `[..., h, w, C]`; with VGG-19 they may be a row chunk or a tile of the layer.
        height: of the image, in pixels.
        width: of the image, in pixels.
        network: the network.

    Returns:
        The part.

    Example:
        >>> part_of("relu2_1", jnp.zeros((4, 4, 8)), 16, 16, network=VGG19()).width
        8
    """
    if not isinstance(network, vgg.VGG19):
        return Part(features.shape[-3], features.shape[-2], 1, None, None)
    return whole(layer, height, width)


def read_layers(
    params: vgg.Params,
    image: jax.Array,
    read: Callable[[str, jax.Array, Part, Any], Any],
    context: Any,
    *,
    network: AnyNetwork,
    layers: tuple[str, ...],
    complete: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return summaries of layers of `image`, computed in tiles if the network requires it.

    Args:
        params: of the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        read: function of a layer's name, features, part and the context that returns a pytree of sums over pixels, or
            any pytree without tiles.
        context: pytree of all arrays, besides image and params, that `read` depends on.
        network: VGG-19 or a user-defined network.
        layers: names of layers.
        complete: layers of which `read` needs all features at once.

    Returns:
        The summaries by layer, summed over all parts.

    Raises:
        InputError: if the smallest tile has more than `tile_pixels` pixels.

    Example:
        >>> def mean(layer, features, part, _):
        ...     return read_moments(features, part).mean
        >>> read_layers(params, image, mean, None, network=VGG19(), layers=("relu1_1",))  # doctest: +SKIP
    """
    height, width = image.shape[-3:-1]
    conv = network.conv if isinstance(network, vgg.VGG19) else None
    devices = conv.mesh.size if isinstance(conv, SplitRows) else 1

    def of_block(image: jax.Array, block: Block | None, inputs: Any) -> dict[str, Any]:
        params, context = inputs

        def of_layer(layer: str, features: jax.Array, rows: Rows | None) -> Any:
            part = part_of(layer, features, height, width, network=network)
            part = replace(part, block=block, rows=rows, devices=devices)
            return read(layer, features, part, context)

        remat = blocks_in_rows(network, image.shape[-3] * image.shape[-2], complete=complete)
        return image_features(params, image, network=network, layers=layers, read=of_layer, remat=remat)

    tiles = _tiles(height, width, network=network, layers=layers)
    if tiles is None:
        return of_block(image, None, (params, context))
    return sum_over_blocks(of_block, image, (params, context), grid=tiles)


def layers_of(
    params: vgg.Params, picture: jax.Array, *, network: AnyNetwork, layers: tuple[str, ...]
) -> dict[str, jax.Array]:
    """Return activations of `picture`, computed in tiles as by `read_layers`.

    Args:
        params: of the network.
        picture: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        network: VGG-19 or a user-defined network.
        layers: names of layers.

    Returns:
        The activations, `[..., h, w, C]`.

    Example:
        >>> layers_of(params, content, network=VGG19(), layers=("relu4_2",))["relu4_2"].shape  # doctest: +SKIP
        (32, 32, 512)
    """
    found = {}
    for layer in layers:
        tiles = _tiles(*picture.shape[-3:-1], network=network, layers=(layer,))
        if tiles is None:
            return image_features(params, picture, network=network, layers=layers)

        def of_window(window: jax.Array, layer: str = layer) -> jax.Array:
            return image_features(params, window, network=network, layers=(layer,))[layer]

        found[layer] = map_blocks(of_window, picture, grid=tiles, stride=vgg.smallest_side(layer))
    return found


def smallest_tile(layers: tuple[str, ...]) -> int:
    """Return the smallest `tile_pixels` that suffices for images of any size.

    Args:
        layers: names of layers of VGG-19.

    Returns:
        Pixels.

    Example:
        >>> smallest_tile(("relu5_1",))
        36864
    """
    return smallest_window(max(map(vgg.halo, layers), default=0))


def network_for_targets(network: AnyNetwork, objective: Objective) -> AnyNetwork:
    """Return `network` for targets: large images are processed in tiles whose size does not depend on the memory.

    So the targets do not depend on the memory either.

    Args:
        network: the network.
        objective: the objective.

    Returns:
        The network with `tile_pixels`.

    Example:
        >>> network_for_targets(VGG19(), Objective()).tile_pixels == TARGET_TILE_PIXELS
        True
    """
    if not isinstance(network, vgg.VGG19) or whole_only(objective, network) or network.padding == "circular":
        return network
    return network.clone(tile_pixels=min(network.tile_pixels or TARGET_TILE_PIXELS, TARGET_TILE_PIXELS))


def _tiles(height: int, width: int, *, network: AnyNetwork, layers: tuple[str, ...]) -> Grid | None:
    if not isinstance(network, vgg.VGG19) or network.tile_pixels is None:
        return None
    halo, circular = max(map(vgg.halo, layers), default=0), network.padding == "circular"
    return grid(height, width, most=network.tile_pixels, halo=halo, circular=circular)

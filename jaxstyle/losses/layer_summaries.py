"""Layer summaries: sums over the pixels of network layers, computed from the full image, in row chunks or in tiles.

A `Part` is the set of pixels of a layer in one row chunk or tile; the sum over all parts is that over the image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle.distributed.sharding import SplitRows, pad_to_multiple
from jaxstyle.errors import InputError, excerpt
from jaxstyle.losses.moments import Moments, moments
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.pixel import squared_distance
from jaxstyle.losses.tiling import ALIGNMENT, Grid, Tile, grid, map_tiles, sum_over_tiles
from jaxstyle.networks import vgg
from jaxstyle.networks.row_remat import Rows

Network = Callable[[Any, jax.Array], Mapping[str, jax.Array]]
"""Function of params, any pytree, and an image `[H, W, 3]` that returns activations `[h, w, C]` by name."""

AnyNetwork = vgg.VGG19 | Network


@dataclass(frozen=True)
class Part:
    """Part of a layer."""

    height: int  # of the layer of the full image
    width: int
    stride: int = 1  # of the layer, in pixels of the image
    tile: Tile | None = None
    rows: Rows | None = None
    devices: int = 1  # which share the rows of the layer

    def weights(self, height: int, width: int, guide: jax.Array | None) -> jax.Array:
        """Return weights of the pixels of a layer, 0 outside of the tile; equal ones without a guide."""
        tile = self.tile
        if guide is None:
            guide = jnp.full((height, width), 1 / (self.height * self.width))
        elif tile is not None:
            guide = tile.cut(guide, height, width, stride=self.stride, axis=-2)
        if tile is not None:
            mask = tile.mask(height, width, stride=self.stride)
            guide = jnp.where(jnp.broadcast_to(mask, guide.shape), guide, jnp.zeros((), guide.dtype))
        return guide if self.rows is None else self.rows.cut(guide)


def part_moments(features: jax.Array, part: Part, *, guide: jax.Array | None = None) -> Moments:
    """Return the contribution of the features of a part to the moments of the layer; `guide` is of the full layer."""
    if part.tile is None and part.rows is None and part.devices == 1:
        return moments(features, guide=guide)
    height = features.shape[-3] if part.rows is None else part.rows.height
    weights = part.weights(height, features.shape[-2], guide)
    if part.devices > 1:  # rows and columns become one axis, which has to divide
        features = pad_to_multiple(features, part.devices, axis=-3)
        weights = pad_to_multiple(weights, part.devices, axis=-2)
    return moments(features, guide=weights)


def part_distance(features: jax.Array, part: Part, *, target: jax.Array) -> jax.Array:
    """Return the contribution of a tile or the image to the sum of squared distances from the target of the layer."""
    if part.tile is not None:
        height, width = features.shape[-3:-1]
        target = part.tile.cut(target, height, width, stride=part.stride, axis=-3)
        mask = part.tile.mask(height, width, stride=part.stride)[..., None]
        features, target = (jnp.where(jnp.broadcast_to(mask, x.shape), x, 0.0) for x in (features, target))
    return squared_distance(features, target, axes=3, normalization="none")


# Pixels from which row chunks of the first block are almost free: 1.05 of a step's time on two cores at 1024 x 768,
# with 0.62 of its memory, and 1.1 at a quarter of the pixels. With the second block it is 1.1 and 0.49.
LARGE = 2**19
TARGET_TILE_PIXELS = 2**19  # of a window of a tile for targets


def row_chunk_blocks(network: AnyNetwork, pixels: int, *, complete: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Return the VGG blocks to compute in row chunks: the largest without `complete` layers, needed as one array."""
    if not isinstance(network, vgg.VGG19) or isinstance(network.conv, SplitRows):  # which distributes rows
        return ()
    blocks = network.remat or ((1,) if pixels >= LARGE else ())
    return tuple(block for block in blocks if all(int(layer[4]) != block for layer in complete))


def tiling_obstacle(objective: Objective, network: AnyNetwork) -> str | None:
    """Return what excludes tiles because it needs complete layers, as a part of a sentence."""
    causes = {
        "sliced statistics": objective.statistic == "sliced",
        "normalized gradients": objective.normalize_gradients,
        "extra terms": bool(objective.extra_terms),
        "activations of a user-defined network": not isinstance(network, vgg.VGG19),
    }
    return next((cause for cause, present in causes.items() if present), None)


def check_options(objective: Objective, network: AnyNetwork) -> None:
    """Check that an objective and a network fit together."""
    if not callable(network):
        raise InputError(f"network is {network!r}: pass a VGG19 or a function of params and an image.")
    for layer in sized_layers(network, objective.layers):
        vgg.smallest_side(layer)
    names = dict(objective.extra_terms)
    if not objective.layer_terms and not names:
        raise InputError("There are no content layers and no style layers: give at least one a weight.")
    if differ := ", ".join(sorted(names.keys() ^ objective.extra.keys())):
        raise InputError(f"Extra terms and their weights differ in {differ}: give each extra term one weight.")
    tiles = network.tile_pixels if isinstance(network, vgg.VGG19) else None
    if tiles is not None and (cause := tiling_obstacle(objective, network)):
        raise InputError(f"tile_pixels is {tiles}, but {cause} cannot be computed in tiles: use None.")
    if not isinstance(network, vgg.VGG19) and objective.gram_normalization == "image":
        raise InputError("gram_normalization is 'image', but the network is user-defined: use 'pixels' or 'elements'.")


def sized_layers(network: AnyNetwork, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the layers whose size follows from the image size: all of VGG-19, none of a user-defined network."""
    return layers if isinstance(network, vgg.VGG19) else ()


def is_circular(network: AnyNetwork) -> bool:
    """Return whether images are periodic for a network."""
    return isinstance(network, vgg.VGG19) and network.padding == "circular"


def layer_size(layer: str, height: int, width: int) -> tuple[int, int]:
    """Return height and width of a layer of VGG-19 for an image of this size."""
    stride = vgg.smallest_side(layer)
    return height // stride, width // stride


def image_features(
    params: vgg.Params,
    image: jax.Array,
    *,
    network: AnyNetwork,
    layers: tuple[str, ...],
    summarize: Callable[[str, jax.Array, Rows | None], Any] | None = None,
    remat: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Return activations of `image`, `[H, W, 3]` or `[N, H, W, 3]`, by layer, or summaries as `vgg.evaluate_layers`."""
    if not isinstance(network, vgg.VGG19):
        activations = _user_activations(network, params, image, layers=layers)
        if summarize is None:
            return activations
        return {layer: summarize(layer, activations[layer], None) for layer in layers}
    fitted = network.fitted(params).clone(remat=remat)
    return vgg.evaluate_layers(fitted, params, image, layers=layers, summarize=summarize)


def _user_activations(
    network: Network, params: Any, image: jax.Array, *, layers: tuple[str, ...]
) -> dict[str, jax.Array]:
    """Return activations of a user-defined network by name."""
    function = partial(network, params)
    activations = (jax.vmap(function) if image.ndim == 4 else function)(image)
    if not isinstance(activations, Mapping):
        raise InputError(f"The network returns {excerpt(type(activations).__name__)}: return activations by name.")
    if missing := [layer for layer in layers if layer not in activations]:
        names = excerpt(", ".join(map(str, activations)))
        raise InputError(f"The network has no layers {missing}: choose from {names}.")
    for layer in layers:
        if activations[layer].ndim != image.ndim:
            shapes = f"an array {list(activations[layer].shape)} for an image {list(image.shape)}"
            raise InputError(f"The network returns {layer!r} as {shapes}: return activations [h, w, C].")
    return {layer: activations[layer] for layer in layers}


def full_part(layer: str, features: jax.Array, height: int, width: int, *, network: AnyNetwork) -> Part:
    """Return the part that covers a layer of an image; features of a user-defined network have to be those of it."""
    if not isinstance(network, vgg.VGG19):
        height, width = features.shape[-3:-1]
        return Part(height, width)
    return Part(*layer_size(layer, height, width), vgg.smallest_side(layer))


def summarize_layers(
    params: vgg.Params,
    image: jax.Array,
    summarize: Callable[[str, jax.Array, Part, Any], Any],
    context: Any,  # a pytree of all other arrays that `summarize` depends on
    *,
    network: AnyNetwork,
    layers: tuple[str, ...],
    complete: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return summaries of layers of `image`, summed over its parts; `complete` layers have no row chunks."""
    height, width = image.shape[-3:-1]
    conv = network.conv if isinstance(network, vgg.VGG19) else None
    devices = conv.mesh.size if isinstance(conv, SplitRows) else 1

    def of_window(window: jax.Array, tile: Tile | None, inputs: Any) -> dict[str, Any]:
        params, context = inputs

        def of_layer(layer: str, features: jax.Array, rows: Rows | None) -> Any:
            part = full_part(layer, features, height, width, network=network)
            part = replace(part, tile=tile, rows=rows, devices=devices)
            return summarize(layer, features, part, context)

        remat = row_chunk_blocks(network, window.shape[-3] * window.shape[-2], complete=complete)
        return image_features(params, window, network=network, layers=layers, summarize=of_layer, remat=remat)

    tiles = _tiles(height, width, network=network, layers=layers)
    if tiles is None:
        return of_window(image, None, (params, context))
    return sum_over_tiles(of_window, image, (params, context), grid=tiles)


def tiled_features(
    params: vgg.Params, image: jax.Array, *, network: AnyNetwork, layers: tuple[str, ...]
) -> dict[str, jax.Array]:
    """Return activations of `image` by layer, `[..., h, w, C]`, computed in tiles if the network requires it."""
    features = {}
    for layer in layers:
        tiles = _tiles(*image.shape[-3:-1], network=network, layers=(layer,))
        if tiles is None:
            return image_features(params, image, network=network, layers=layers)

        def of_window(window: jax.Array, layer: str = layer) -> jax.Array:
            return image_features(params, window, network=network, layers=(layer,))[layer]

        features[layer] = map_tiles(of_window, image, grid=tiles, stride=vgg.smallest_side(layer))
    return features


def _tiles(height: int, width: int, *, network: AnyNetwork, layers: tuple[str, ...]) -> Grid | None:
    if not isinstance(network, vgg.VGG19) or network.tile_pixels is None:
        return None
    halo, circular = max(map(vgg.halo, layers), default=0), network.padding == "circular"
    return grid(height, width, max_pixels=network.tile_pixels, halo=halo, circular=circular)


def smallest_tile(layers: tuple[str, ...]) -> int:
    """Return the smallest `tile_pixels` that suffices for images of any size."""
    halo = max(map(vgg.halo, layers), default=0)
    # A tile with its margin, and the remainder of a side that is not a multiple of 16.
    return (ALIGNMENT * (2 * -(-halo // ALIGNMENT) + 2)) ** 2


def network_for_targets(network: AnyNetwork, objective: Objective) -> AnyNetwork:
    """Return the network for targets, with tiles whose size does not depend on the memory: nor do the targets, then."""
    if not isinstance(network, vgg.VGG19) or tiling_obstacle(objective, network) or network.padding == "circular":
        return network
    return network.clone(tile_pixels=min(network.tile_pixels or TARGET_TILE_PIXELS, TARGET_TILE_PIXELS))

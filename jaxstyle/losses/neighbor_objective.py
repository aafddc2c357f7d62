"""The objective of Neural Neighbor Style Transfer: every feature of the image approaches its nearest one in the style.

At each scale the target of a position is the style's hypercolumn nearest to that of the content, mixed with the result
so far. In the last pass each layer is matched separately and anew at every step. There is no content term: the content
enters by the targets and by the initial image.

Kolkin, Kucera, Paris, Sykora, Shechtman and Shakhnarovich, *Neural Neighbor Style Transfer*, arXiv:2203.13215.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError
from jaxstyle.losses import pixel
from jaxstyle.losses.layer_summaries import AnyNetwork, image_features
from jaxstyle.losses.neighbors import (
    cosine_distance,
    hypercolumns,
    matched_targets,
    orientations,
    sample_grid,
    split_loss,
)
from jaxstyle.losses.objective import static_field
from jaxstyle.networks.vgg import VGG19

LAYERS = (
    "relu1_1",
    "relu1_2",
    "relu2_1",
    "relu2_2",
    "relu3_1",
    "relu3_2",
    "relu3_3",
    "relu4_1",
    "relu4_2",
    "relu4_3",
)
STRIDE = 4  # pixels of the image between the positions of hypercolumns


class FixedTargets(NamedTuple):
    """Targets of a scale.

    Attributes:
        vectors: hypercolumn of the style for each position, `[h, w, C]`.
    """

    vectors: jax.Array


class SplitTargets(NamedTuple):
    """Targets of the last pass.

    Attributes:
        styles: sampled features `[h, w, C]` of each style by layer.
        key: random key of the positions.
    """

    styles: tuple[dict[str, jax.Array], ...]
    key: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NeighborObjective:
    """Nearest-neighbor matching; a pytree whose leaves are its numbers.

    Deviations from NNST: VGG-19 in place of VGG-16; features in the units of the weights of Caffe; the initial
    image keeps its finest levels; a range penalty; total variation is optional.

    Attributes:
        content_share: share of the content in the image whose hypercolumns are matched, from 0 to 1; the rest is the
            result of the scale before. At the first scale it is 1.
        tv: weight of total variation.
        range_penalty: weight of the penalty on values out of [0, 1].
        layers: layers of the hypercolumns.
        rotations: number of orientations of each style in the matching: 1, 2 or 4.
        split_pass: whether a last pass matches each layer separately at every step.
        split_rotations: number of orientations of each style in that pass.
        limit: positions along the longer side of a layer above which that pass samples it.
    """

    content_share: jax.typing.ArrayLike = 0.75
    tv: jax.typing.ArrayLike = 0.0
    range_penalty: jax.typing.ArrayLike = 100.0
    layers: tuple[str, ...] = static_field(LAYERS)
    rotations: int = static_field(4)
    split_pass: bool = static_field(True)
    split_rotations: int = static_field(1)
    limit: int = static_field(64)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: if one is out of range.
        """
        object.__setattr__(self, "layers", (self.layers,) if isinstance(self.layers, str) else tuple(self.layers))
        for name in ("rotations", "split_rotations"):
            if getattr(self, name) not in (1, 2, 4):
                raise InputError(f"{name} is {getattr(self, name)}: use 1, 2 or 4.")
        if self.limit < 1:
            raise InputError(f"limit is {self.limit}: use at least 1 position.")

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names in the history."""
        return ("neighbors", "tv", "total", "range_penalty")

    @property
    def passes(self) -> int:
        """Number of runs at the last scale."""
        return 2 if self.split_pass else 1

    def make_targets(
        self,
        params: Any,
        content: jax.Array,
        styles: Sequence[Any],
        *,
        network: AnyNetwork,
        key: jax.Array | None = None,
        style_weights: Any = None,
        content_masks: jax.Array | None = None,
        style_masks: Any = None,
        image: jax.Array | None = None,
        part: tuple[int, bool] = (0, False),
    ) -> FixedTargets | SplitTargets:
        """Return the targets of a scale, or those of the last pass.

        Args:
            params: of the network.
            content: `[H, W, 3]`, in [0, 1].
            styles: images; with several, each position takes the nearest vector of all of them.
            network: the network.
            key: random key of the positions of the last pass; None for key 0.
            style_weights: not supported.
            content_masks: region of each style, `[K, H, W]`, in which only its vectors are taken.
            style_masks: not supported.
            image: initial image of the scale, `[H, W, 3]`; None for the content.
            part: number of the scale, and whether it repeats the size of the one before.

        Returns:
            The targets.

        Raises:
            InputError: for an argument that is not supported.
        """
        if any(isinstance(style, Mapping) for style in styles):
            raise InputError("Nearest neighbors need pictures of the styles: pass the images, not their statistics.")
        if style_weights is not None or style_masks is not None:
            raise InputError("Nearest neighbors have no style weights or style masks: drop them, or use content masks.")
        if content.ndim != 3:
            raise InputError(f"The content is {list(content.shape)}: use jax.vmap for a batch of contents.")
        if isinstance(network, VGG19) and network.tile_pixels is not None:
            raise InputError("Nearest neighbors need complete layers, which tiles do not have: use tile_pixels=None.")
        number, repeated = part
        key = jax.random.key(0) if key is None else key
        if self.split_pass and repeated:
            turned = [each for style in styles for each in orientations(style, rotations=self.split_rotations)]
            features = partial(_features, network=network, layers=self.layers)
            found = [features(params, jnp.asarray(each)) for each in turned]
            return SplitTargets(_sampled(found, key, limit=self.limit), key)
        share = self.content_share if number else 1.0
        mixed = content if image is None else share * content + (1 - share) * image
        query = _columns(params, jnp.asarray(mixed), network=network, layers=self.layers)
        of_styles = []
        for style in styles:
            turned = orientations(style, rotations=self.rotations)
            columns = [_columns(params, jnp.asarray(each), network=network, layers=self.layers) for each in turned]
            of_styles.append(columns)
        if content_masks is None:
            return FixedTargets(_matched(query, [each for columns in of_styles for each in columns]))
        matches = [_matched(query, columns) for columns in of_styles]
        return FixedTargets(_composed(query, matches, content_masks))

    def value(
        self, params: Any, image: jax.Array, targets: Any, *, network: AnyNetwork, step: jax.typing.ArrayLike = 0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the value to minimize and its terms.

        Args:
            params: of the network.
            image: `[H, W, 3]`.
            targets: of `make_targets`.
            network: the network.
            step: number of steps before this one, which chooses the positions of the last pass.

        Returns:
            The value, `[]`, and all of `term_names`.
        """
        features = image_features(params, image, network=network, layers=self.layers)
        if isinstance(targets, SplitTargets):
            key = jax.random.fold_in(targets.key, step)
            found = split_loss(features, targets.styles, key=key, limit=self.limit)
            distance = sum(found.values()) / len(found)
        else:
            distance = cosine_distance(hypercolumns(features, targets.vectors.shape[:2]), targets.vectors)
        tv, penalty = pixel.total_variation(image), pixel.out_of_range(image)
        total = jnp.asarray(distance + self.tv * tv)
        terms = {"neighbors": distance, "tv": tv, "total": total, "range_penalty": penalty}
        return jnp.asarray(total + self.range_penalty * penalty), terms


@partial(jax.jit, static_argnames=("network", "layers"))
def _features(params: Any, image: jax.Array, *, network: AnyNetwork, layers: tuple[str, ...]) -> dict[str, jax.Array]:
    return image_features(params, image, network=network, layers=layers)


@partial(jax.jit, static_argnames=("network", "layers"))
def _columns(params: Any, image: jax.Array, *, network: AnyNetwork, layers: tuple[str, ...]) -> jax.Array:
    """Return the hypercolumns of an image, `[h, w, C]`."""
    height, width = (max(1, side // STRIDE) for side in image.shape[:2])
    return hypercolumns(image_features(params, image, network=network, layers=layers), (height, width))


@jax.jit
def _matched(query: jax.Array, references: list[jax.Array]) -> jax.Array:
    return matched_targets(query, jnp.concatenate([each.reshape(-1, each.shape[-1]) for each in references]))


@jax.jit
def _composed(query: jax.Array, matches: list[jax.Array], masks: jax.Array) -> jax.Array:
    """Return the matches of each region; where there is none, the query itself."""
    height, width = query.shape[:2]
    shares = jax.image.resize(masks, (len(matches), height, width), "linear")[..., None]
    rest = jnp.clip(1 - jnp.sum(shares, axis=0), 0.0, 1.0)
    return sum((share * each for share, each in zip(shares, matches, strict=True)), rest * query)


@partial(jax.jit, static_argnames="limit")
def _sampled(styles: list[dict[str, jax.Array]], key: jax.Array, *, limit: int) -> tuple[dict[str, jax.Array], ...]:
    """Return at most about `limit` rows and columns of every layer, so that the targets are small."""
    found = []
    for number, style in enumerate(styles):
        keys = jax.random.split(jax.random.fold_in(key, number), len(style))
        found.append(
            {
                name: sample_grid(layer, key=of_layer, stride=max(1, max(layer.shape[:2]) // limit))
                for of_layer, (name, layer) in zip(keys, style.items(), strict=True)
            }
        )
    return tuple(found)

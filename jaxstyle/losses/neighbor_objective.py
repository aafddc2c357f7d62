"""The objective of Neural Neighbor Style Transfer: every feature of the image approaches its nearest one in the style.

At each scale the target of a position is the style's hypercolumn nearest to that of the content, mixed with the result
so far. In the last pass each layer is matched separately and anew at every step. There is no content term: the content
enters by the targets and by the initial image.

Kolkin, Kucera, Paris, Sykora, Shechtman and Shakhnarovich, *Neural Neighbor Style Transfer*, arXiv:2203.13215.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.errors import InputError
from jaxstyle.losses import pixel
from jaxstyle.losses.layer_summaries import AnyNetwork, image_features, is_circular
from jaxstyle.losses.loss_terms import feature_terms
from jaxstyle.losses.neighbors import (
    cosine_distance,
    hypercolumns,
    matched_targets,
    orientations,
    sample_grid,
    split_loss,
)
from jaxstyle.losses.objective import Objective, static_field
from jaxstyle.losses.style import Statistic
from jaxstyle.losses.targets import Styling, Targets, make_targets, network_of_styles
from jaxstyle.networks.vgg import VGG19

LAYERS = tuple("relu1_1 relu1_2 relu2_1 relu2_2 relu3_1 relu3_2 relu3_3 relu4_1 relu4_2 relu4_3".split())
STRIDE = 4  # pixels of the image between the positions of hypercolumns
# Pixels at the borders of a style that are no matches. Features there include the padding, so that the borders of the
# image would match them, and get the frame of the painting or the edge of its canvas.
BORDER = 8
COLORS = Objective(content={}, style={"colors": 1.0}, statistic="sliced")


class FixedTargets(NamedTuple):
    """Targets of a scale.

    Attributes:
        vectors: hypercolumn of the style for each position, `[h, w, C]`.
        statistics: statistics of the styles; None without style terms.
        colors: distribution of the colors of the styles; None without a color term.
    """

    vectors: jax.Array
    statistics: Targets | None
    colors: Targets | None


class SplitTargets(NamedTuple):
    """Targets of the last pass.

    Attributes:
        groups: for each region, sampled features `[h, w, C]` by layer of each orientation of its styles.
        usable: as `groups`, whether each position `[h, w]` may be a match; None for all.
        regions: weight of each pixel in each region, `[R, H, W]`; None for one region, the complete image.
        key: random key of the positions.
        statistics: statistics of the styles; None without style terms.
        colors: distribution of the colors of the styles; None without a color term.
    """

    groups: tuple[tuple[dict[str, jax.Array], ...], ...]
    usable: tuple[tuple[dict[str, jax.Array], ...], ...] | None
    regions: jax.Array | None
    key: jax.Array
    statistics: Targets | None
    colors: Targets | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NeighborObjective:
    """Nearest-neighbor matching; a pytree whose leaves are its numbers.

    With several styles each position takes the nearest vector of all of them. With style weights there are targets for
    each style, which are mixed; with content masks they apply in the region of the style.

    Deviations from NNST: VGG-19, or VGG-16 if the params are; features in the units of the weights of Caffe; vectors
    are centered by the mean of all positions; borders of styles are no matches; in the last pass the positions of the
    style are drawn once, by the stride of its layers, and the loss is the mean over layers, not the sum; a range
    penalty; total variation, style terms, which preserve the global statistics of the style, and a color term are
    optional.

    Attributes:
        content_share: share of the content in the image whose hypercolumns are matched, from 0 to 1; the rest is the
            result of the scale before. At the first scale it is 1. With 0 the content is not used at all.
        style_weight: weight of the mean of the style terms, see `style.distance`.
        color_weight: weight of the color term, the sliced Wasserstein distance of the colors of all pixels from those
            of the style, see `wasserstein.sliced`. Cosine distances hardly depend on the colors of flat areas.
        tv: weight of total variation.
        range_penalty: weight of the penalty on values out of [0, 1].
        layers: layers of the hypercolumns.
        rotations: number of rotations of each style in the matching: 1, 2 or 4.
        flips: whether to match mirror images of all rotations too, in both kinds of passes.
        split_pass: whether a last pass matches each layer separately at every step.
        split_rotations: number of rotations of each style in that pass.
        limit: positions along the longer side of a layer above which that pass samples it.
        style_layers: those of `layers` with a style term; () for no such terms.
        statistic: statistic of the style terms, such as "gram".
        color_term: whether there is a color term.
    """

    content_share: jax.typing.ArrayLike = 0.75
    style_weight: jax.typing.ArrayLike = 0.0
    color_weight: jax.typing.ArrayLike = 0.0
    tv: jax.typing.ArrayLike = 0.0
    range_penalty: jax.typing.ArrayLike = 100.0
    layers: tuple[str, ...] = static_field(LAYERS)
    rotations: int = static_field(4)
    flips: bool = static_field(False)
    split_pass: bool = static_field(True)
    split_rotations: int = static_field(1)
    limit: int = static_field(64)
    style_layers: tuple[str, ...] = static_field(())
    statistic: Statistic = static_field("gram")
    color_term: bool = static_field(False)

    def __post_init__(self) -> None:
        """Raise `InputError` if an option is out of range."""
        for name in ("layers", "style_layers"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if unknown := ", ".join(sorted({*self.style_layers} - {*self.layers})):
            raise InputError(
                f"style_layers has {unknown}, which is not in layers: use some of {', '.join(self.layers)}."
            )
        self.style_terms  # noqa: B018  # checks the statistic
        share = self.content_share
        if isinstance(share, int | float | np.number) and not 0 <= share <= 1:
            raise InputError(f"The share of the content (content_share, --content-weight) is {share}: use 0 to 1.")
        for name in ("rotations", "split_rotations"):
            if getattr(self, name) not in (1, 2, 4):
                raise InputError(f"{name} is {getattr(self, name)}: use 1, 2 or 4.")
        if self.limit < 1:
            raise InputError(f"limit is {self.limit}: use at least 1 position.")

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names in the history."""
        colors = ("colors",) if self.color_term else ()
        return ("neighbors", *self.style_terms.layer_terms, *colors, "tv", "total", "range_penalty")

    @property
    def passes(self) -> int:
        """Number of runs at the last scale."""
        return 2 if self.split_pass else 1

    @property
    def style_terms(self) -> Objective:
        """The objective of the style terms alone."""
        return Objective(content={}, style=dict.fromkeys(self.style_layers, 1.0), statistic=self.statistic)

    def without_content(self) -> "NeighborObjective":
        """Return the objective of a texture, which does not use the content."""
        return replace(self, content_share=0.0)

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

        Arguments are those of `CustomObjective.make_targets`. `key` chooses positions of the last pass; None for key 0.
        Style weights are shares of the targets; without them each position takes the nearest vector of all styles.
        Matches are where a style mask is at least half of its maximum. None for `image` is the content.

        Raises:
            InputError: for statistics in place of a style, a batch of contents, or a network with tiles.
        """
        check_pictures(content, styles, network)
        key = jax.random.key(0) if key is None else key
        weights = None if style_weights is None else jnp.asarray(style_weights, jnp.float32)
        masks = None if style_masks is None else list(style_masks)
        styling, part = Styling(key, weights, content_masks, masks), (min(1, part[0]), part[1])
        image = content if image is None else image
        return self._targets(params, content, image, list(styles), styling, network=network, part=part)

    @partial(jax.jit, static_argnames=("network", "part"))
    def _targets(
        self, params: Any, content: jax.Array, image: jax.Array, styles: Any, styling: Styling, *, network, part
    ) -> FixedTargets | SplitTargets:
        """Return the targets of the first scale, another one or the last pass: one program for all styles."""
        key: Any
        key, style_weights, regions, style_masks = styling
        interiors = list(map(_interior, styles, style_masks or [None] * len(styles)))
        inside = styling._replace(style_masks=interiors)._asdict()
        parts: Any = style_masks and [
            jnp.ones(style.shape[:2]) if mask is None else mask for style, mask in zip(styles, interiors, strict=True)
        ]
        statistics = colors = None
        if self.style_layers:
            statistics = make_targets(params, content, styles, objective=self.style_terms, network=network, **inside)
        if self.color_term:
            colors = make_targets(params, content, styles, objective=COLORS, network=_colors, **inside)
        if style_weights is not None:
            shares = style_weights / jnp.sum(style_weights)
            regions = jnp.broadcast_to(shares[:, None, None], (len(styles), *content.shape[:2]))
        if self.split_pass and part[1]:
            groups: Any
            groups, usable = _split_targets(self, params, styles, parts, key, network=network)
            if regions is None:  # one region of all styles
                groups, usable = (each and (sum(each, ()),) for each in (groups, usable))
            return SplitTargets(groups, usable, regions, key, statistics, colors)
        share = jnp.asarray(self.content_share)
        share = share if part[0] else jnp.where(share > 0, 1.0, 0.0)
        mixed = share * content + (1 - share) * image
        vectors = _fixed_targets(self, params, mixed, styles, parts, regions, network=network)
        return FixedTargets(vectors, statistics, colors)

    def value(
        self, params: Any, image: jax.Array, targets: Any, *, network: AnyNetwork, step: jax.typing.ArrayLike = 0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the value to minimize and all of `term_names`, see `CustomObjective.value`."""
        features = image_features(params, image, network=network, layers=self.layers)
        if isinstance(targets, SplitTargets):
            distance = self._split_distance(features, targets, step)
        else:
            distance = cosine_distance(hypercolumns(features, targets.vectors.shape[:2]), targets.vectors)
        tv, penalty = pixel.total_variation(image, circular=is_circular(network)), pixel.out_of_range(image)
        terms = {"neighbors": distance, "tv": tv, "range_penalty": penalty}
        total, size = distance + self.tv * tv, image.shape[:2]
        if targets.statistics is not None:
            style = feature_terms(features, targets.statistics, *size, objective=self.style_terms, network=network)
            total += self.style_weight * sum(style.values()) / len(style)
            terms |= style
        if targets.colors is not None:
            color = feature_terms({"colors": image}, targets.colors, *size, objective=COLORS, network=_colors)
            terms["colors"] = color["style/colors"]
            total += self.color_weight * terms["colors"]
        terms["total"] = total = jnp.asarray(total)
        return jnp.asarray(total + self.range_penalty * penalty), terms

    def _split_distance(self, features: Any, targets: SplitTargets, step: jax.typing.ArrayLike) -> jax.Array:
        """Return the mean of `split_loss` over layers, summed over regions."""
        key = jax.random.fold_in(targets.key, step)
        distances = []
        for number, group in enumerate(targets.groups):
            by_layer = split_loss(
                features,
                group,
                key=jax.random.fold_in(key, number),
                weights=None if targets.regions is None else targets.regions[number],
                usable=None if targets.usable is None else targets.usable[number],
                limit=self.limit,
            )
            distances.append(sum(by_layer.values()) / len(by_layer))
        return sum(distances[1:], distances[0])


def check_pictures(content: jax.Array, styles: Sequence[Any], network: AnyNetwork) -> None:
    """Check that an objective can match the features of these images.

    Raises:
        InputError: for statistics in place of a style, a batch of contents, or a network with tiles.
    """
    if any(isinstance(style, Mapping) for style in styles):
        raise InputError("This objective matches features: pass the images of the styles, not their statistics.")
    if content.ndim != 3:
        raise InputError(f"The content is {list(content.shape)}: use jax.vmap for a batch of contents.")
    if isinstance(network, VGG19) and network.tile_pixels is not None:
        raise InputError("This objective matches complete layers, which tiles do not have: use tile_pixels=None.")


def _colors(params: Any, image: jax.Array) -> dict[str, jax.Array]:
    """Return the image as the only layer of a network."""
    return {"colors": image}


def _fixed_targets(
    objective: NeighborObjective,
    params: Any,
    mixed: jax.Array,
    styles: list[jax.Array],
    parts: list[jax.Array] | None,
    regions: jax.Array | None,
    *,
    network: AnyNetwork,
) -> jax.Array:
    def columns(image: jax.Array, network: AnyNetwork) -> jax.Array:
        return hypercolumns(image_features(params, image, network=network, layers=objective.layers), _grid(image))

    query = columns(mixed, network)

    def of_style(image: jax.Array) -> jax.Array:
        vectors = columns(image, network_of_styles(network))
        return vectors if parts else _inner(vectors, STRIDE)

    def of_mask(mask: jax.Array) -> jax.Array:
        return _resized(mask, *_grid(mask))

    turned = partial(orientations, rotations=objective.rotations, flips=objective.flips)
    references = [_vectors(of_style, turned(style)) for style in styles]  # [m, C] each
    usable = None
    if parts is not None:
        usable = [_usable(_vectors(of_mask, turned(part))[:, 0]) for part in parts]
    if regions is None:
        allowed = None if usable is None else jnp.concatenate(usable)
        return matched_targets(query, jnp.concatenate(references), usable=allowed)
    shares = [_resized(region, *query.shape[:2]) for region in regions]  # [h, w, 1] each
    matched = jnp.clip(1 - sum(shares), 0.0, 1.0) * query  # outside of all regions
    for number, (share, reference) in enumerate(zip(shares, references, strict=True)):
        allowed = None if usable is None else usable[number]
        matched += share * matched_targets(query, reference, weights=share, usable=allowed)
    return matched


def _grid(image: jax.Array) -> tuple[int, int]:
    return max(1, image.shape[0] // STRIDE), max(1, image.shape[1] // STRIDE)


def _resized(mask: jax.Array, height: int, width: int) -> jax.Array:
    return jax.image.resize(mask, (height, width), "linear")[..., None]


def _inner(layer: jax.Array, stride: int) -> jax.Array:
    """Return a layer without its borders, if it is larger than they are."""
    count = BORDER // stride
    return layer if not count or min(layer.shape[:2]) <= 4 * count else layer[count:-count, count:-count]


def _interior(style: jax.Array, mask: jax.Array | None) -> Any:
    """Return the mask `[h, w]` of a style without its borders, or `mask` if only positions there are usable."""
    height, width = style.shape[:2]
    if min(height, width) <= 4 * BORDER:
        return mask
    inner = np.pad(np.ones((height - 2 * BORDER, width - 2 * BORDER), np.float32), BORDER)
    return inner if mask is None else jnp.where(jnp.any(inner * _usable(mask)), inner * mask, mask)


def _usable(mask: jax.Array) -> jax.Array:
    """Return where a mask is at least half of its maximum: somewhere, also if it is too small for these positions."""
    return mask >= jnp.max(mask) / 2


def _sampled(mask: jax.Array, sample: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Return where sampled positions of a layer are in a mask `[h, w, 1]`, or next to one that lies between them."""
    usable = _usable(mask)
    sampled = sample(usable)[..., 0]
    near = _usable(jax.image.resize(usable[..., 0].astype(mask.dtype), sampled.shape, "linear"))  # antialiased
    return jnp.where(jnp.any(sampled), sampled, near)


def _vectors(function: Callable[[jax.Array], jax.Array], images: Sequence[jax.Array]) -> jax.Array:
    """Return the vectors `[n, C]` that a function returns for all images; it is compiled once for each shape."""
    shapes = dict.fromkeys(image.shape for image in images)
    of_one_shape = (jnp.stack([image for image in images if image.shape == shape]) for shape in shapes)
    layers = [jax.lax.map(function, same) for same in of_one_shape]
    return jnp.concatenate([layer.reshape(-1, layer.shape[-1]) for layer in layers])


def _split_targets(
    objective: NeighborObjective,
    params: Any,
    styles: list[jax.Array],
    parts: list[jax.Array] | None,
    key: jax.Array,
    *,
    network: AnyNetwork,
) -> tuple[tuple[tuple[dict[str, jax.Array], ...], ...], tuple[tuple[dict[str, jax.Array], ...], ...] | None]:
    """Return, for each style and orientation, at most about `limit` rows and columns of its layers, and their masks."""
    layers, limit = objective.layers, objective.limit
    turned = partial(orientations, rotations=objective.split_rotations, flips=objective.flips)
    groups, usable = [], []
    for number, style in enumerate(styles):
        images = turned(style)
        masks = [None] * len(images) if parts is None else turned(parts[number])
        group, allowed = [], []
        for turn, (image, mask) in enumerate(zip(images, masks, strict=True)):
            features = image_features(params, image, network=network_of_styles(network), layers=layers)
            if parts is None:
                strides = {name: image.shape[0] // layer.shape[0] for name, layer in features.items()}
                features = {name: _inner(layer, strides[name]) for name, layer in features.items()}
            keys = jax.random.split(jax.random.fold_in(key, number * len(images) + turn), len(layers))
            sample = {
                name: partial(sample_grid, key=each, stride=max(1, max(features[name].shape[:2]) // limit))
                for name, each in zip(features, keys, strict=True)
            }
            group.append({name: sample[name](features[name]) for name in features})
            if mask is not None:
                parts_of = {name: _resized(mask, *layer.shape[:2]) for name, layer in features.items()}
                allowed.append({name: _sampled(part, sample[name]) for name, part in parts_of.items()})
        groups.append(tuple(group))
        usable.append(tuple(allowed))
    return tuple(groups), None if parts is None else tuple(usable)

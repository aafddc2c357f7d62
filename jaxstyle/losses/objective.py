r"""The objective: loss terms of an image and their weighted sum.

The total is :math:`\sum_l a_l C_l + \sum_l b_l S_l + t\,TV` with content terms C and style terms S by layer.
Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.images.resample import half_shape, resample
from jaxstyle.losses import pixel
from jaxstyle.losses.layer_summaries import Part, image_features, part_of, read_distance, read_layers, read_moments
from jaxstyle.losses.masks import compose
from jaxstyle.losses.moments import Moments
from jaxstyle.losses.style import distance
from jaxstyle.losses.targets import Targets, check_picture
from jaxstyle.losses.targets import make_targets as make_targets
from jaxstyle.networks import vgg

Terms = dict[str, jax.Array]
FEATURES = "features"  # key of the activations in a layer's summaries; not the name of a term


def terms(params: vgg.Params, image: jax.Array, targets: Targets, *, config: Config) -> Terms:
    """Return the loss terms by name, unweighted.

    Args:
        params: the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        targets: of `make_targets`.
        config: the config of the targets.

    Returns:
        `{"content/relu4_2": [...], "style/relu1_1": ..., "tv": ...}`, each with the leading axis of `image`.
        With targets for half resolution, all terms but "tv" are means over both resolutions: Snelgrove,
        *High-Resolution Multi-Scale Neural Texture Synthesis*, SIGGRAPH Asia 2017.

    Raises:
        InputError: if `image` is not an image or too small for the layers.

    Example:
        >>> terms(params, image, targets, config=Config())["tv"]  # doctest: +SKIP
    """
    image = check_picture("image", image, config.sized(config.layers))
    image = painted(image, targets)
    parts = _compared(params, image, targets, config=config)
    parts["tv"] = pixel.total_variation(
        config.pixel_range * image,
        form=config.tv_form,
        power=config.tv_power,
        reduction=config.pixel_reduction,
        circular=config.border == "circular",
    )
    return parts


def _compared(params: vgg.Params, image: jax.Array, targets: Targets, *, config: Config) -> Terms:
    """Return content, style and extra terms; means over both resolutions if the targets have half resolution."""
    height, width = image.shape[-3:-1]
    read = partial(_read, config=config)
    seen = read_layers(params, image, read, targets._replace(half=None), config=config, layers=config.layers)
    parts = {
        name: _term(name, seen[name.partition("/")[2]][name], targets, config=config, height=height, width=width)
        for name in _names(config)
    }
    activations = {layer: found[FEATURES] for layer, found in seen.items() if FEATURES in found}
    for name, term in dict(config.own_terms).items():
        parts[name] = _number(name, term(image, activations, targets), of=image)
    if targets.half is None:
        return parts
    halved = resample(image, *half_shape(height, width), circular=config.border == "circular")
    coarse = _compared(params, halved, targets.half, config=config)
    return {name: (value + coarse[name]) / 2 for name, value in parts.items()}


def painted(image: jax.Array, targets: Targets) -> jax.Array:
    """Return `image` with the content outside of all regions.

    Args:
        image: `[..., H, W, 3]`.
        targets: of `make_targets`.

    Returns:
        `[..., H, W, 3]`; `image` itself without regions.

    Example:
        >>> painted(image, make_targets(params, content, style, config=Config()))  # doctest: +SKIP
    """
    regions = targets.regions
    return image if regions is None else compose(image, regions.backdrop, cover=regions.cover)


def gradient_factors(params: vgg.Params, image: jax.Array, targets: Targets, *, config: Config) -> Terms:
    """Return factors that normalize the gradient of each term, where it enters the network, to an absolute sum of 1.

    As in Johnson's neural-style (`-normalize_gradients`), which has no such factor for total variation.

    Args:
        params: the network.
        image: `[H, W, 3]`, in [0, 1].
        targets: of `make_targets`.
        config: the config of the targets.

    Returns:
        A factor for each of `terms`; 1 for "tv" and extra terms.

    Example:
        >>> gradient_factors(params, image, targets, config=Config())["tv"]  # doctest: +SKIP
    """
    image = painted(image, targets)
    features = image_features(params, image, config=config)
    height, width = image.shape[-3:-1]

    def term(x: jax.Array, name: str) -> jax.Array:
        part = part_of(name.partition("/")[2], x, height, width, config=config)
        seen = _seen(name, x, targets, config=config, part=part)
        return _term(name, seen, targets, config=config, height=height, width=width)

    factors = {name: jnp.ones(()) for name in ("tv", *dict(config.own_terms))}
    for name in _names(config):
        gradient = jax.grad(term)(features[name.partition("/")[2]], name)
        factors[name] = 1 / (jnp.sum(jnp.abs(gradient)) + 1e-8)
    return factors


def total(weights: LossWeights, terms: Mapping[str, jax.Array]) -> jax.Array:
    """Return the objective, the weighted sum of `terms`.

    Args:
        weights: the weights; a layer without a weight is an error.
        terms: of `terms`.

    Returns:
        A scalar, or `[N]` for the terms of a batch.

    Raises:
        InputError: if the layers of `weights` are not those of `terms`.

    Example:
        >>> float(total(LossWeights({"relu4_2": 2.0}, {}, tv=1.0), {"content/relu4_2": jnp.ones(()), "tv": 3.0}))
        5.0
    """
    coefficients = {f"content/{layer}": weight for layer, weight in weights.content.items()}
    coefficients |= {f"style/{layer}": weight for layer, weight in weights.style.items()}
    coefficients["tv"] = weights.tv
    if twice := coefficients.keys() & weights.own.keys():
        raise InputError(
            f"LossWeights.own has {', '.join(sorted(twice))}, which have a weight: use names of extra terms."
        )
    coefficients |= weights.own
    if coefficients.keys() != terms.keys():
        differ = ", ".join(sorted(coefficients.keys() ^ terms.keys()))
        raise InputError(f"Weights and loss terms differ in {differ}: give each layer and each extra term one weight.")
    # A Python number takes the precision of its term, also with float64 enabled.
    return jnp.asarray(sum(weight * terms[name] for name, weight in coefficients.items()))


def objective_value(
    params: vgg.Params,
    image: jax.Array,
    targets: Targets,
    weights: LossWeights,
    *,
    config: Config,
    factors: Mapping[str, jax.Array] | None = None,
) -> tuple[jax.Array, Terms]:
    """Return the value that every run minimizes: the total plus the weighted range penalty.

    Args:
        params: the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        targets: of `make_targets`.
        weights: the weights.
        config: the config of the targets.
        factors: of `gradient_factors`, which multiply the terms in the value; None for 1.

    Returns:
        The value, `[]` or `[N]`, and all of `term_names`: terms, "total" and "bounds", the unweighted range penalty.

    Raises:
        InputError: as `terms` and `total` do.

    Example:
        >>> value, metrics = objective_value(params, image, targets, LossWeights(), config=Config())  # doctest: +SKIP
    """
    parts = terms(params, image, targets, config=config)
    objective = total(weights, parts)
    minimized = objective if factors is None else total(weights, {name: factors[name] * parts[name] for name in parts})
    penalty = pixel.out_of_range(
        config.pixel_range * painted(image, targets), reduction=config.pixel_reduction, upper=config.pixel_range
    )
    return minimized + weights.bounds * penalty, {**parts, "total": objective, "bounds": penalty}


def term_names(config: Config) -> tuple[str, ...]:
    """Return the names in the history of a run: all terms, the total and the range penalty.

    Args:
        config: layers and extra terms are used.

    Returns:
        The names.

    Example:
        >>> term_names(Config(style_layers=()))
        ('content/relu4_2', 'tv', 'total', 'bounds')
    """
    return (*_names(config), *dict(config.own_terms), "tv", "total", "bounds")


def _names(config: Config) -> list[str]:
    return [f"content/{layer}" for layer in config.content_layers] + [f"style/{layer}" for layer in config.style_layers]


def _read(layer: str, features: jax.Array, part: Part, targets: Targets, *, config: Config) -> dict[str, Any]:
    """Return the inputs of the terms of a layer."""
    names = [name for name in _names(config) if name.partition("/")[2] == layer]
    whole = {FEATURES: features} if config.own_terms else {}
    return {name: _seen(name, features, targets, config=config, part=part) for name in names} | whole


def _number(name: str, value: jax.typing.ArrayLike, *, of: jax.Array) -> jax.Array:
    """Return the value of an extra term; check that it is one number per image."""
    found = jnp.asarray(value)
    if found.shape != of.shape[:-3]:
        raise InputError(
            f"The extra term {name!r} is an array {list(found.shape)} for images {list(of.shape)}: "
            "return one number per image."
        )
    return found


def _seen(name: str, features: jax.Array, targets: Targets, *, config: Config, part: Part) -> Any:
    """Return the input of a term: sums that add up over parts of the layer, or its features."""
    kind, _, layer = name.partition("/")
    if kind == "content":
        return read_distance(features, part, target=targets.content[layer])
    if config.statistic == "sliced":
        return features
    if targets.regions is not None:
        return jax.vmap(lambda guide: read_moments(features, part, guide=guide))(
            targets.regions.guides[layer]
        )  # [R, ...]
    return read_moments(features, part)


def _term(name: str, seen: Any, targets: Targets, *, config: Config, height: int, width: int) -> jax.Array:
    """Return one term from its input, for an image of this size."""
    kind, _, layer = name.partition("/")
    if kind == "content":
        return pixel.divided(seen, targets.content[layer], axes=3, divisor=config.content_divisor)
    channels = (seen.mean if isinstance(seen, Moments) else seen).shape[-1]
    scale = {"pixels": 1.0, "elements": 1 / channels}.get(config.gram_divisor)
    if scale is None:
        side = vgg.smallest_side(layer)
        scale = (height // side) * (width // side) / (height * width)
    compare = partial(
        distance, statistic=config.statistic, divisor=config.style_divisor, shift=config.shift, scale=scale
    )
    regions = targets.regions
    if regions is None:
        return compare(seen, targets.style[layer])
    if isinstance(seen, Moments):
        each = jax.vmap(compare)(seen, targets.style[layer])  # [R, ...]
    else:
        each = jax.vmap(lambda target, guide: compare(seen, target, guide=guide))(
            targets.style[layer], regions.guides[layer]
        )
    # Weighted by area, so that the ratio of style to content is that of a run without regions.
    return jnp.tensordot(regions.shares, each, axes=1)

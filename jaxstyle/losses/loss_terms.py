"""Loss terms of an image, their weighted sum, and `objective_value`, the function that every run minimizes."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError
from jaxstyle.images.resample import half_shape, resample
from jaxstyle.losses import pixel
from jaxstyle.losses.layer_summaries import (
    AnyNetwork,
    Part,
    check_options,
    full_part,
    image_features,
    is_circular,
    layer_size,
    part_distance,
    part_moments,
    sized_layers,
    summarize_layers,
)
from jaxstyle.losses.masks import compose
from jaxstyle.losses.moments import Moments
from jaxstyle.losses.objective import BatchTargets, CustomObjective, Objective
from jaxstyle.losses.style import distance
from jaxstyle.losses.targets import Targets, check_picture
from jaxstyle.networks import vgg

Terms = dict[str, jax.Array]
FEATURES = "features"  # key of the activations in a layer's summaries; not the name of a term


def terms(
    params: vgg.Params,
    image: jax.Array,
    targets: Targets,
    *,
    objective: Objective = Objective(),
    network: AnyNetwork = vgg.VGG19(),
) -> Terms:
    """Return the loss terms by name, unweighted.

    Args:
        params: of the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        targets: of `make_targets`.
        objective: the objective of the targets; its weights are not used.
        network: the network of the targets.

    Returns:
        `{"content/relu4_2": [...], "style/relu1_1": ..., "tv": ...}`, each with the leading axis of `image`.
        With targets for half resolution, all terms but "tv" are means over both resolutions: Snelgrove,
        *High-Resolution Multi-Scale Neural Texture Synthesis*, SIGGRAPH Asia 2017.

    Raises:
        InputError: if `image` is no image or too small for the layers, or if objective and network do not fit together.

    Example:
        >>> terms(params, image, targets)["tv"]  # doctest: +SKIP
    """
    check_options(objective, network)
    image = composed(check_picture("image", image, sized_layers(network, objective.layers)), targets)
    values = _layer_terms(params, image, targets, objective=objective, network=network)
    values["tv"] = pixel.total_variation(
        objective.pixel_range * image,
        form=objective.tv_form,
        power=objective.tv_power,
        reduction=objective.pixel_reduction,
        circular=is_circular(network),
    )
    return values


def _layer_terms(
    params: vgg.Params, image: jax.Array, targets: Targets, *, objective: Objective, network: AnyNetwork
) -> Terms:
    """Return content, style and extra terms; means over both resolutions if the targets have half resolution."""
    height, width = image.shape[-3:-1]
    summaries = summarize_layers(
        params,
        image,
        partial(_term_inputs, objective=objective),
        targets._replace(half=None),
        network=network,
        layers=objective.layers,
        complete=objective.complete_layers,
    )
    inputs = {name: value for summary in summaries.values() for name, value in summary.items() if name != FEATURES}
    term = partial(_term, targets=targets, objective=objective, height=height, width=width)
    values = {name: term(name, inputs[name]) for name in objective.layer_terms}
    activations = {layer: summary[FEATURES] for layer, summary in summaries.items() if FEATURES in summary}
    for name, extra in dict(objective.extra_terms).items():
        values[name] = jnp.asarray(extra(image, activations, targets))
        if values[name].shape != image.shape[:-3]:
            shapes = f"an array {list(values[name].shape)} for images {list(image.shape)}"
            raise InputError(f"The extra term {name!r} is {shapes}: return one number per image.")
    if targets.half is None:
        return values
    halved = resample(image, *half_shape(height, width), circular=is_circular(network))
    coarse = _layer_terms(params, halved, targets.half, objective=objective, network=network)
    return {name: (value + coarse[name]) / 2 for name, value in values.items()}


def feature_terms(
    features: Mapping[str, jax.Array],
    targets: Targets,
    height: int,
    width: int,
    *,
    objective: Objective,
    network: AnyNetwork,
) -> Terms:
    """Return the unweighted terms `[]` of features `[h, w, C]` of an image `[height, width, 3]`, at one resolution."""
    values = {}
    for name in objective.layer_terms:
        layer = name.partition("/")[2]
        arguments = features[layer], name, targets, height, width
        values[name] = _feature_term(*arguments, objective=objective, network=network)
    return values


def _feature_term(
    x: jax.Array, name: str, targets: Targets, height: int, width: int, *, objective: Objective, network: AnyNetwork
) -> jax.Array:
    """Return one term from the features of its layer."""
    layer = name.partition("/")[2]
    part = full_part(layer, x, height, width, network=network)
    inputs = _term_inputs(layer, x, part, targets, objective=objective)
    return _term(name, inputs[name], targets, objective=objective, height=height, width=width)


def composed(image: jax.Array, targets: Targets) -> jax.Array:
    """Return `image`, `[..., H, W, 3]`, with the content outside of all regions; `image` itself without regions."""
    regions = targets.regions
    return image if regions is None else compose(image, regions.backdrop, cover=regions.cover)


def gradient_factors(
    params: vgg.Params, image: jax.Array, targets: Targets, *, objective: Objective, network: AnyNetwork = vgg.VGG19()
) -> Terms:
    """Return factors that normalize the gradient of each term, where it enters the network, to an absolute sum of 1.

    As in Johnson's neural-style (`-normalize_gradients`), which has no such factor for total variation. Arguments are
    as for `terms`, without a batch; the factors of "tv" and extra terms are 1.
    """
    image = composed(image, targets)
    features = image_features(params, image, network=network, layers=objective.layers)
    height, width = image.shape[-3:-1]
    term = partial(_feature_term, objective=objective, network=network)
    factors = {name: jnp.ones(()) for name in ("tv", *dict(objective.extra_terms))}
    for name in objective.layer_terms:
        layer = name.partition("/")[2]
        gradient = jax.grad(term)(features[layer], name, targets, height, width)
        factors[name] = 1 / (jnp.sum(jnp.abs(gradient)) + 1e-8)
    return factors


def total(objective: Objective, terms: Mapping[str, jax.Array]) -> jax.Array:
    """Return the weighted sum of `terms`.

    Args:
        objective: its weights are used.
        terms: of `terms`, `[]`, or `[N]` for a batch, as the result.

    Raises:
        InputError: if the layers of `objective` are not those of `terms`.

    Example:
        >>> float(total(Objective({"relu4_2": 2.0}, {}, tv=1.0), {"content/relu4_2": jnp.ones(()), "tv": 3.0}))
        5.0
    """
    weights = {f"content/{layer}": weight for layer, weight in objective.content.items()}
    weights |= {f"style/{layer}": weight for layer, weight in objective.style.items()}
    weights |= {"tv": objective.tv, **objective.extra}
    if weights.keys() != terms.keys():
        differ = ", ".join(sorted(weights.keys() ^ terms.keys()))
        raise InputError(f"Weights and loss terms differ in {differ}: give each layer and each extra term one weight.")
    # A Python number takes the precision of its term, also with float64 enabled.
    return jnp.asarray(sum(weight * terms[name] for name, weight in weights.items()))


def objective_value(
    params: vgg.Params,
    image: jax.Array,
    targets: Any,
    objective: Objective | CustomObjective = Objective(),
    *,
    network: AnyNetwork = vgg.VGG19(),
    factors: Mapping[str, jax.Array] | None = None,
    step: jax.typing.ArrayLike = 0,
) -> tuple[jax.Array, Terms]:
    """Return the value that every run minimizes: the total plus the weighted range penalty.

    Args:
        params: of the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        targets: of `make_targets`.
        objective: the objective of the targets.
        network: the network of the targets.
        factors: of `gradient_factors`, which multiply the terms in the value; None for 1.
        step: number of steps before this one, for custom objectives with random parts.

    Returns:
        The value, `[]` or `[N]`, and all of `objective.term_names`: terms, "total" and "range_penalty", unweighted.

    Raises:
        InputError: as `terms` and `total` do.

    Example:
        >>> value, metrics = objective_value(params, image, targets)  # doctest: +SKIP
    """
    if not isinstance(objective, Objective):
        targets = targets.each if isinstance(targets, BatchTargets) else targets
        value = partial(objective.value, network=network, step=step)
        value = value if image.ndim == 3 else jax.vmap(value, in_axes=(None, 0, None))
        return value(params, image, targets)
    values = terms(params, image, targets, objective=objective, network=network)
    weighted = total(objective, values)
    minimized = weighted
    if factors is not None:
        minimized = total(objective, {name: factors[name] * value for name, value in values.items()})
    penalty = pixel.out_of_range(
        objective.pixel_range * composed(image, targets),
        reduction=objective.pixel_reduction,
        upper=objective.pixel_range,
    )
    return minimized + objective.range_penalty * penalty, {**values, "total": weighted, "range_penalty": penalty}


def _term_inputs(layer: str, features: jax.Array, part: Part, targets: Targets, *, objective: Objective) -> dict:
    """Return the inputs of the terms of a layer: sums that add up over parts of the layer, or its features."""
    inputs: dict[str, Any] = {FEATURES: features} if objective.extra_terms else {}
    if layer in objective.content:
        inputs[f"content/{layer}"] = part_distance(features, part, target=targets.content[layer])
    if layer in objective.style:
        moments_of = partial(part_moments, features, part)
        if objective.statistic == "sliced":
            inputs[f"style/{layer}"] = features
        elif targets.regions is None:
            inputs[f"style/{layer}"] = moments_of()
        else:
            inputs[f"style/{layer}"] = jax.vmap(lambda guide: moments_of(guide=guide))(targets.regions.guides[layer])
    return inputs


def _term(name: str, x: Any, targets: Targets, *, objective: Objective, height: int, width: int) -> jax.Array:
    """Return one term from its input, for an image of this size."""
    kind, _, layer = name.partition("/")
    if kind == "content":
        return pixel.divided(x, targets.content[layer], axes=3, normalization=objective.content_normalization)
    scale = 1.0
    if objective.gram_normalization == "elements":
        scale = 1 / (x.mean if isinstance(x, Moments) else x).shape[-1]
    elif objective.gram_normalization == "image":
        rows, columns = layer_size(layer, height, width)
        scale = rows * columns / (height * width)
    compare = partial(
        distance,
        statistic=objective.statistic,
        normalization=objective.style_normalization,
        shift=objective.shift,
        scale=scale,
    )
    target, regions = targets.style[layer], targets.regions
    if regions is None:
        return compare(x, target)
    if isinstance(x, Moments):
        each = jax.vmap(compare)(x, target)  # [R, ...]
    else:
        each = jax.vmap(lambda target, guide: compare(x, target, guide=guide))(target, regions.guides[layer])
    # Weighted by area, so that the ratio of style to content is that of a run without regions.
    return jnp.tensordot(regions.shares, each, axes=1)

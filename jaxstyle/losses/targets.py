"""Optimization targets: features of the content, statistics of the styles, and regions."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import checkify

from jaxstyle.errors import InputError, excerpt
from jaxstyle.losses.layer_summaries import (
    AnyNetwork,
    Part,
    check_options,
    image_features,
    is_circular,
    layer_size,
    network_for_targets,
    part_moments,
    sized_layers,
    summarize_layers,
    tiled_features,
)
from jaxstyle.losses.masks import Regions, guide, make_regions
from jaxstyle.losses.objective import CustomObjective, Objective
from jaxstyle.losses.style import Summary, summarize
from jaxstyle.networks import vgg

Style = jax.Array | Mapping[str, Summary]  # an image, or its statistics by `summarize_style`

RANGE_TOLERANCE = 1e-3  # of values out of [0, 1], by rounding


class Targets(NamedTuple):
    """Optimization targets.

    Attributes:
        content: features of the content by layer, `[..., H, W, C]`.
        style: statistics of the styles by layer; with regions, one per region along the leading axis.
        regions: regions of the styles, or None.
        half: targets at half resolution, or None.
        picture: the content for extra terms, `[..., H, W, 3]`, in gray if its colors are preserved; None without such
            terms.
    """

    content: dict[str, jax.Array]
    style: dict[str, Summary]
    regions: Regions | None = None
    half: "Targets | None" = None
    picture: jax.Array | None = None


def make_targets(
    params: vgg.Params,
    content: jax.Array,
    styles: Style | Sequence[Style],
    *,
    objective: Objective | CustomObjective = Objective(),
    network: AnyNetwork = vgg.VGG19(),
    key: jax.Array | None = None,
    style_weights: jax.typing.ArrayLike | Sequence[float] | None = None,
    content_masks: jax.Array | None = None,
    style_masks: Sequence[jax.Array | None] | None = None,
    image: jax.Array | None = None,
    part: tuple[int, bool] = (0, False),
) -> Targets:
    """Return the optimization targets of a content and its styles, or the targets of a custom objective.

    Args:
        params: of the network.
        content: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        styles: one style or a sequence of K: images `[H, W, 3]` of any size, or statistics of `summarize_style`.
        objective: its layers and options are used; other weights do not change the targets.
        network: VGG-19 or a user-defined network.
        key: random key of the directions, for the statistic "sliced".
        style_weights: weights of the styles, `[K]`, not negative; None for equal weights. They average the statistics.
        content_masks: region of each style, `[K, H, W]` in [0, 1]; None for no regions.
        style_masks: mask of each style, `[H, W]` of its size in [0, 1], or None for the complete style.
        image: initial image of the scale, `[..., H, W, 3]`, for custom objectives.
        part: number of the scale, and whether it repeats the size of the one before, for custom objectives.

    Raises:
        InputError: if an array is not an image, or too small for the deepest layer, or if weights or masks do not match
            the styles, or if objective and network do not fit together.

    Example:
        >>> make_targets(params, content, style).style["relu5_1"].second.shape  # doctest: +SKIP
        (512, 512)
    """
    styles = listed(styles)
    if not styles:
        raise InputError("There is no style: pass a picture, or a sequence of at least one.")
    styling = Styling(key, style_weights, content_masks, style_masks)
    content = check_picture("content", content, sized_layers(network, objective.layers), in_range=True)
    layers = sized_layers(network, objective.style_layers) if isinstance(objective, Objective) else ()
    styles = check_styles(styles, layers)
    styling = styling.checked(content, len(styles))
    if not isinstance(objective, Objective):
        options: dict[str, Any] = {"network": network, "image": image, "part": part, **styling._asdict()}
        return objective.make_targets(params, content, styles, **options)
    check_options(objective, network)
    return _make_targets(params, content, styles, objective.without_weights(), styling, network=network)


class Styling(NamedTuple):
    """How styles are used, with the arguments of `make_targets`."""

    key: jax.Array | None
    style_weights: Any
    content_masks: jax.Array | None
    style_masks: Sequence[jax.Array | None] | None

    def checked(self, content: jax.Array, count: int) -> "Styling":
        """Return masks as by `check_masks`; check that they are one for each style, and the shapes of content masks."""
        key, weights, content_masks, style_masks = self
        style_masks = None if style_masks is None else list(style_masks)
        content_masks, style_masks = check_masks("content", content_masks), check_masks("style", style_masks)
        if style_masks is not None and len(style_masks) != count:
            raise InputError(f"There are {len(style_masks)} style masks for {count} styles: pass one per style.")
        if weights is not None and np.shape(weights) != (count,):
            raise InputError(f"There are {np.size(weights)} style weights for {count} styles: pass one per style.")
        check_weights(weights)
        if content_masks is not None and weights is not None:
            raise InputError("Styles have both regions and weights: pass content_masks or style_weights, not both.")
        if content_masks is not None and content_masks.shape != (count, *content.shape[-3:-1]):
            raise InputError(
                f"The content masks are {list(content_masks.shape)} for {count} styles and a content "
                f"{list(content.shape)}: pass one mask of its height and width per style."
            )
        return Styling(key, weights, content_masks, style_masks)


def check_weights(style_weights: Any) -> None:
    """Check that weights of styles `[..., K]` are from 0, and have finite sums above 0; see `check_range`."""
    if any(isinstance(each, Tracer) for each in jax.tree.leaves(style_weights)):
        traced = jnp.atleast_1d(style_weights)
        sums = jnp.sum(traced, axis=-1)
        valid = jnp.all(traced >= 0) & jnp.all(sums > 0) & jnp.all(sums < jnp.inf)
        checkify.debug_check(valid, "style_weights are negative, not finite or all 0: pass numbers from 0, not all 0.")
    elif style_weights is not None:
        weights = np.asarray(style_weights)
        sums = np.zeros(0) if weights.dtype.kind in "bOSU" else np.sum(weights, axis=-1, dtype=float)
        if not (np.size(sums) and np.min(weights, initial=0) >= 0 and np.min(sums) > 0 and np.max(sums) < np.inf):
            raise InputError(f"style_weights is {excerpt(style_weights)}: pass numbers from 0, not all 0.")


@partial(jax.jit, static_argnames="network")
def _make_targets(
    params: vgg.Params, content: jax.Array, styles: list[Style], objective: Objective, styling: Styling, *, network
) -> Targets:
    masks = [None] * len(styles) if styling.style_masks is None else list(styling.style_masks)
    of_style = partial(summarize_style, objective=objective, network=network, key=styling.key)
    summaries = [
        dict(style) if isinstance(style, Mapping) else of_style(params, style, mask=mask)
        for style, mask in zip(styles, masks, strict=True)
    ]
    tiled = network_for_targets(network, objective)
    features = tiled_features(params, content, network=tiled, layers=objective.content_layers)
    picture = content if objective.extra_terms else None
    if styling.content_masks is None:
        weights = jnp.ones(len(styles)) if styling.style_weights is None else styling.style_weights
        shares = jnp.asarray(weights, content.dtype)
        shares = shares / jnp.sum(shares)
        mean = jax.tree.map(lambda *each: sum(map(jnp.multiply, shares, each)), *summaries)
        return Targets(features, mean, picture=picture)
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *summaries)
    sizes = _layer_sizes(params, content, objective.style_layers, network=network)
    return Targets(features, stacked, make_regions(styling.content_masks, content, sizes), picture=picture)


def summarize_style(
    params: vgg.Params,
    style: jax.Array,
    *,
    objective: Objective = Objective(),
    network: AnyNetwork = vgg.VGG19(),
    key: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> dict[str, Summary]:
    """Return the statistics of a style by layer, which replace it wherever a style is an argument.

    Args:
        params: of the network.
        style: image `[H, W, 3]` of any size, in [0, 1].
        objective: style layers and statistic are used.
        network: VGG-19 or a user-defined network. Circular padding is replaced by zeros, as a style is not periodic.
        key: random key of the directions, for the statistic "sliced".
        mask: weight of each pixel, `[H, W]` in [0, 1].

    Raises:
        InputError: if `style` is not an image or too small for a layer, or if the mask has another shape.

    Example:
        >>> summarize_style(params, style)["relu1_1"].mean.shape  # doctest: +SKIP
        (64,)
    """
    check_options(objective, network)
    layers = objective.style_layers
    style = check_picture("style", style, sized_layers(network, layers), ranks=(3,), in_range=True)
    mask = check_masks("style", mask)
    if mask is not None and mask.shape != style.shape[:2]:
        shapes = f"A style mask is {list(mask.shape)}, but its style is {list(style.shape)}"
        raise InputError(f"{shapes}: use the same size.")
    network = network_for_targets(network_of_styles(network), objective)
    keys = dict(zip(layers, [None] * len(layers) if key is None else jax.random.split(key, len(layers)), strict=True))
    guides: dict[str, jax.Array | None] = dict.fromkeys(layers)
    if mask is not None:
        sizes = _layer_sizes(params, style, layers, network=network)
        guides = {layer: guide(mask, height=height, width=width) for layer, (height, width) in sizes.items()}

    def of_layer(layer: str, features: jax.Array, part: Part, guides: dict[str, jax.Array | None]) -> Summary:
        if objective.statistic != "sliced":
            return part_moments(features, part, guide=guides[layer])
        return summarize(features, key=keys[layer], statistic=objective.statistic, guide=guides[layer])

    complete = layers if objective.statistic == "sliced" else ()
    return summarize_layers(params, style, of_layer, guides, network=network, layers=layers, complete=complete)


def network_of_styles(network: AnyNetwork) -> AnyNetwork:
    """Return the network for styles, whose padding is never circular."""
    return network.clone(padding="zeros") if isinstance(network, vgg.VGG19) and is_circular(network) else network


def _layer_sizes(
    params: vgg.Params, picture: jax.Array, layers: tuple[str, ...], *, network: AnyNetwork
) -> dict[str, tuple[int, int]]:
    if isinstance(network, vgg.VGG19):
        return {layer: layer_size(layer, *picture.shape[-3:-1]) for layer in layers}
    activations = jax.eval_shape(partial(image_features, network=network, layers=layers), params, picture)
    return {layer: activations[layer].shape[-3:-1] for layer in layers}


def check_picture(
    what: str,
    picture: jax.typing.ArrayLike,
    layers: tuple[str, ...] = (),
    *,
    ranks: tuple[int, ...] = (3, 4),
    in_range: bool = False,
) -> jax.Array:
    """Return an image in float32 or wider; check its number of axes and that each layer has at least one pixel.

    `in_range` checks the values too, as `check_range` does.

    Example:
        >>> check_picture("content", np.zeros((32, 32, 3), np.float16), ("relu5_1",)).dtype
        dtype('float32')
    """
    array = _as_array(what, picture)
    is_image = array.ndim in ranks and array.shape[-1] == 3 and array.size
    if not is_image or not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"The {what} is an array {array.dtype}{list(array.shape)}, not a picture: pass float32 [H, W, 3] in [0, 1]"
            f"{', divided by 255.' if jnp.issubdtype(array.dtype, jnp.integer) else '.'}"
        )
    if in_range:
        check_range(what, array)
    *_, height, width, _ = array.shape
    for layer in layers:
        if min(height, width) < (side := vgg.smallest_side(layer)):
            raise InputError(
                f"The {what} is {width}x{height} pixels, but {layer} needs at least {side}x{side}: "
                "pass a larger picture or drop deep layers with --style-layers and --content-layers."
            )
    floats: Any = array.astype(jax.dtypes.canonicalize_dtype(jnp.promote_types(array.dtype, jnp.float32)))
    return floats


def listed(styles: Any) -> list[Any]:
    """Return one style or a sequence of styles as a list."""
    return list(styles) if isinstance(styles, Sequence) and not isinstance(styles, str) else [styles]


def check_styles(styles: Sequence[Any], layers: tuple[str, ...] = (), *, ranks: tuple[int, ...] = (3,)) -> list[Any]:
    """Return styles with their images checked as by `check_picture`, and with statistics unchanged."""
    check = partial(check_picture, "style", layers=layers, ranks=ranks, in_range=True)
    return [style if isinstance(style, Mapping) else check(style) for style in styles]


def check_range(what: str, values: Any) -> None:
    """Check that a pytree of arrays has no integers, and that its values are finite and in [0, 1].

    The values of traced arrays are checked in functions that `jax.experimental.checkify.checkify` transforms.
    """
    for leaf in jax.tree.leaves(values):
        array = _as_array(what, leaf)
        if not jnp.issubdtype(array.dtype, jnp.floating) and array.dtype != bool:
            cure = ", divided by 255" if jnp.issubdtype(array.dtype, jnp.integer) else ""
            raise InputError(f"The {what} has values of type {array.dtype}: pass float32 in [0, 1]{cure}.")
        if not array.size:
            continue
        if isinstance(array, Tracer):
            _debug_check_range(what, array)
            continue
        if not getattr(array, "is_fully_addressable", True):
            continue
        least, most = np.min(array := np.asarray(array)), np.max(array)
        if not np.isfinite(least) or not np.isfinite(most):
            count = np.size(array) - np.count_nonzero(np.isfinite(array))
            raise InputError(f"The {what} has {count} of {np.size(array)} values that are not finite: use [0, 1].")
        if least < -RANGE_TOLERANCE or most > 1 + RANGE_TOLERANCE:
            cure = "divide by 255" if least >= 0 else "rescale them"
            raise InputError(f"The {what} has values from {least:g} to {most:g}: use [0, 1], or {cure}.")


def check_masks(kind: str, masks: Any) -> Any:
    """Return masks, bool or in [0, 1], in float32 or wider; `kind` is "content" or "style", which must not be empty."""
    check_range(f"{kind} mask", masks)

    def of_leaf(mask: Any) -> Any:
        mask = _as_array(f"{kind} mask", mask)
        is_known = not isinstance(mask, Tracer) and getattr(mask, "is_fully_addressable", True)
        if kind == "style" and is_known and not np.asarray(mask).any():
            raise InputError("A style mask is 0 everywhere: make the part of the style to use white.")
        return mask.astype(jax.dtypes.canonicalize_dtype(jnp.promote_types(mask.dtype, jnp.float32)))

    return jax.tree.map(of_leaf, masks)


def _debug_check_range(what: str, array: jax.Array) -> None:
    least, most = jnp.min(array), jnp.max(array)  # not a number, if one value is none
    valid = (least >= -RANGE_TOLERANCE) & (most <= 1 + RANGE_TOLERANCE)
    checkify.debug_check(valid, f"The {what} has values from {{}} to {{}}: use [0, 1].", least, most)


def _as_array(what: str, value: Any) -> Any:
    """Return a value as an array; raise `InputError` for what is no array, such as a path or None."""
    try:
        return value if isinstance(value, np.ndarray | jax.Array) else jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"The {what} is {excerpt(repr(value))}: pass an array, float32 in [0, 1].") from error

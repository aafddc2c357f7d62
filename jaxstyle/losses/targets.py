"""Optimization targets: features of the content, statistics of the styles, and regions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.compiled import compiled
from jaxstyle.config import Config
from jaxstyle.errors import InputError
from jaxstyle.losses.layer_summaries import Part, image_features, layers_of, looking, read_layers, read_moments
from jaxstyle.losses.masks import Regions, guide, make_regions
from jaxstyle.losses.style import Summary, summarize
from jaxstyle.networks import vgg

Style = jax.Array | Mapping[str, Summary]  # an image, or its statistics by `summarize_style`


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


@compiled("config")
def make_targets(
    params: vgg.Params,
    content: jax.Array,
    styles: Style | Sequence[Style],
    *,
    key: jax.Array | None = None,
    config: Config,
    blend: jax.typing.ArrayLike | Sequence[float] | None = None,
    content_masks: jax.Array | None = None,
    style_masks: Sequence[jax.Array | None] | None = None,
) -> Targets:
    """Return the optimization targets of a content and its styles.

    Args:
        params: the network.
        content: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        styles: one style or a sequence of K: images `[H, W, 3]` of any size, or statistics of `summarize_style`.
        key: random key of the directions, for the statistic "sliced".
        config: the static options.
        blend: style weights, `[K]`, not negative; None for equal weights. They average the statistics of the styles.
        content_masks: region of each style, `[K, H, W]` in [0, 1]; None for no regions.
        style_masks: mask of each style, `[H, W]` of its size in [0, 1], or None for the complete style.

    Returns:
        Content features (with the leading axis of `content`) and style statistics.

    Raises:
        InputError: if an array is not an image, or too small for the deepest layer, or if weights or masks do not match
            the styles.

    Example:
        >>> make_targets(params, content, style, config=Config()).style["relu5_1"].second.shape  # doctest: +SKIP
        (512, 512)
    """
    several = list(styles) if isinstance(styles, Sequence) else [styles]
    if not several:
        raise InputError("There is no style: pass a picture, or a sequence of at least one.")
    content = check_picture("content", content, config.sized(config.layers))
    masks = [None] * len(several) if style_masks is None else list(style_masks)
    if len(masks) != len(several):
        raise InputError(f"There are {len(masks)} style masks for {len(several)} styles: pass one per style.")
    summaries = [
        summarize_style(params, style, key=key, config=config, mask=mask)
        if not isinstance(style, Mapping)
        else dict(style)
        for style, mask in zip(several, masks, strict=True)
    ]
    kept = layers_of(params, content, config=looking(config), layers=config.content_layers)
    picture = content if config.own_terms else None
    if content_masks is None:
        shares = jnp.ones(len(several), content.dtype) if blend is None else jnp.asarray(blend, content.dtype)
        if shares.shape != (len(several),):
            raise InputError(f"There are {shares.size} blend weights for {len(several)} styles: pass one per style.")
        shares = shares / jnp.sum(shares)
        blended = jax.tree.map(lambda *each: sum(map(jnp.multiply, shares, each)), *summaries)
        return Targets(kept, blended, picture=picture)
    if blend is not None:
        raise InputError("Styles have both regions and blend weights: pass content_masks or blend, not both.")
    if content_masks.shape != (len(several), *content.shape[-3:-1]):
        raise InputError(
            f"The content masks are {list(content_masks.shape)} for {len(several)} styles and a content "
            f"{list(content.shape)}: pass one mask of its height and width per style."
        )
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *summaries)
    shapes = _shapes(params, content, config.style_layers, config=config)
    return Targets(kept, stacked, make_regions(content_masks, content, shapes), picture=picture)


def summarize_style(
    params: vgg.Params,
    style: jax.Array,
    *,
    key: jax.Array | None = None,
    config: Config,
    mask: jax.Array | None = None,
) -> dict[str, Summary]:
    """Return the statistics of a style, which replace it wherever a style is an argument.

    Args:
        params: the network.
        style: image `[H, W, 3]` of any size.
        key: random key of the directions, for the statistic "sliced".
        config: style layers, statistic and network options are used.
        mask: weight of each pixel, `[H, W]` in [0, 1].

    Returns:
        Moments or quantiles by style layer.

    Raises:
        InputError: if `style` is not an image or too small for a layer, or if the mask has another shape.

    Example:
        >>> summarize_style(params, style, config=Config())["relu1_1"].mean.shape  # doctest: +SKIP
        (64,)
    """
    style = check_picture("style", style, config.sized(config.style_layers), ranks=(3,))
    if mask is not None and mask.shape != style.shape[:2]:
        raise InputError(
            f"A style mask is {list(mask.shape)}, but its style is {list(style.shape)}: use the same size."
        )
    config, layers = looking(replace(config, border=config.style_border)), config.style_layers
    keys = dict(zip(layers, [None] * len(layers) if key is None else jax.random.split(key, len(layers)), strict=True))
    guides: dict[str, jax.Array | None] = dict.fromkeys(layers)
    if mask is not None:
        shapes = _shapes(params, style, layers, config=config)
        guides = {layer: guide(mask, height=height, width=width) for layer, (height, width) in shapes.items()}

    def read(layer: str, features: jax.Array, part: Part, guides: dict[str, jax.Array | None]) -> Summary:
        if config.statistic != "sliced":
            return read_moments(features, part, guide=guides[layer])
        return summarize(features, key=keys[layer], statistic=config.statistic, guide=guides[layer])

    return read_layers(params, style, read, guides, config=config, layers=layers)


def _shapes(
    params: vgg.Params, picture: jax.Array, layers: tuple[str, ...], *, config: Config
) -> dict[str, tuple[int, int]]:
    """Return height and width of each layer of an image."""
    if config.network is not None:
        found = jax.eval_shape(partial(image_features, config=config, layers=layers), params, picture)
        return {layer: found[layer].shape[-3:-1] for layer in layers}
    height, width = picture.shape[-3:-1]
    sides = {layer: vgg.smallest_side(layer) for layer in layers}
    return {layer: (height // side, width // side) for layer, side in sides.items()}


def check_picture(
    what: str, picture: jax.typing.ArrayLike, layers: tuple[str, ...] = (), *, ranks: tuple[int, ...] = (3, 4)
) -> jax.Array:
    """Check an image and return it in float32 or wider.

    Args:
        what: role of the image, for the message.
        picture: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        layers: layers that must have at least one pixel.
        ranks: allowed numbers of axes.

    Returns:
        The array.

    Raises:
        InputError: if the shape or dtype is not that of an image, or if it is too small for a layer.

    Example:
        >>> check_picture("content", np.zeros((32, 32, 3), np.float16), ("relu5_1",)).dtype
        dtype('float32')
    """
    array = picture if isinstance(picture, np.ndarray) else jnp.asarray(picture)
    if array.ndim not in ranks or array.shape[-1] != 3 or not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"The {what} is an array {array.dtype}{list(array.shape)}, not a picture: pass float32 [H, W, 3] in [0, 1]."
        )
    *_, height, width, _ = array.shape
    for layer in layers:
        if min(height, width) < (side := vgg.smallest_side(layer)):
            raise InputError(
                f"The {what} is {width}x{height} pixels, but {layer} needs at least {side}x{side}: "
                "pass a larger picture or drop deep layers with --style-layers and --content-layers."
            )
    floats: Any = array.astype(jax.dtypes.canonicalize_dtype(jnp.promote_types(array.dtype, jnp.float32)))
    return floats

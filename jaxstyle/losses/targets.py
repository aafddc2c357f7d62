"""What the image is held against: features of the content, statistics of the styles, and the regions of each."""

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

Style = jax.Array | Mapping[str, Summary]  # a picture, or what `summarize_style` keeps of it


class Targets(NamedTuple):
    """What the image is held against.

    Attributes:
        content: the content's features by layer, `[..., H, W, C]`.
        style: the styles' statistics by layer; with regions, of each of them along the leading axis.
        regions: which part takes which style, or None.
        half: what the image at half its size is held against as well, or None.
        picture: the content as it is compared, in grey where its colours are kept, `[..., H, W, 3]`, for
            `Config.own_terms`; None without them.
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
    """Return what an image is to be held against.

    Args:
        params: the network.
        content: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        styles: one style or a sequence of K: pictures `[H, W, 3]` of any size, or statistics of `summarize_style`.
        key: of the directions of the statistic "sliced".
        config: the static facts.
        blend: how much each style counts, `[K]`, not negative; None for all alike. Statistics are mixed, not pictures.
        content_masks: the region of each style, `[K, H, W]` in [0, 1]; None for the whole picture.
        style_masks: which part of each style to take, `[H, W]` of its own shape in [0, 1], or None for all of it.

    Returns:
        Content features (with the leading axis of `content`) and statistics.

    Raises:
        InputError: if an array is not a picture, or too small for the deepest layer asked for, or if weights or masks
            do not fit the styles.

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
        raise InputError(f"There are {len(masks)} style masks for {len(several)} styles: pass one for each.")
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
            raise InputError(f"There are {shares.size} blend weights for {len(several)} styles: pass one for each.")
        shares = shares / jnp.sum(shares)
        blended = jax.tree.map(lambda *each: sum(map(jnp.multiply, shares, each)), *summaries)
        return Targets(kept, blended, picture=picture)
    if blend is not None:
        raise InputError("Styles have regions and blend weights: a region has one style, so drop the one or the other.")
    if content_masks.shape != (len(several), *content.shape[-3:-1]):
        raise InputError(
            f"The content masks are {list(content_masks.shape)} for {len(several)} styles and a content of "
            f"{list(content.shape)}: pass one of its height and width for each style."
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
    """Return what is kept of a style, which serves in its place wherever styles are taken.

    Args:
        params: the network.
        style: a picture `[H, W, 3]` of any size.
        key: of the directions of the statistic "sliced".
        config: its layers, statistic and network options count.
        mask: which part of it to take, `[H, W]` in [0, 1].

    Returns:
        Moments or quantiles by style layer.

    Raises:
        InputError: if `style` is not a picture or too small for a layer, or if the mask has another shape.

    Example:
        >>> summarize_style(params, style, config=Config())["relu1_1"].mean.shape  # doctest: +SKIP
        (64,)
    """
    style = check_picture("style", style, config.sized(config.style_layers), ranks=(3,))
    if mask is not None and mask.shape != style.shape[:2]:
        raise InputError(f"A style mask is {list(mask.shape)}, but its style is {list(style.shape)}: make them alike.")
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
    """Return height and width of each layer of a picture."""
    if config.network is not None:
        found = jax.eval_shape(partial(image_features, config=config, layers=layers), params, picture)
        return {layer: found[layer].shape[-3:-1] for layer in layers}
    height, width = picture.shape[-3:-1]
    sides = {layer: vgg.smallest_side(layer) for layer in layers}
    return {layer: (height // side, width // side) for layer, side in sides.items()}


def check_picture(
    what: str, picture: jax.typing.ArrayLike, layers: tuple[str, ...] = (), *, ranks: tuple[int, ...] = (3, 4)
) -> jax.Array:
    """Return `picture` in float32 or wider, or say why it is none.

    Args:
        what: its role, for the message.
        picture: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        layers: activations that it must have pixels at.
        ranks: how many axes it may have.

    Returns:
        The array.

    Raises:
        InputError: if it has another shape, is not of floating point, or is too small for a layer.

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

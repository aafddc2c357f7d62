"""The parts of one scale: its targets, its initial image, and the result at full size.

For each scale of the schedule, `targets_for_scale` computes the optimization targets, and `initial_image` or `enlarge`
the initial image; `finish` restores colors and masked regions at the end.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError
from jaxstyle.images.resample import array_module, half_shape, resample
from jaxstyle.losses.layer_summaries import AnyNetwork, sized_layers
from jaxstyle.losses.masks import compose, cover
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.style import Summary
from jaxstyle.losses.targets import Style, check_picture, make_targets
from jaxstyle.networks.vgg import VGG19, Params, smallest_side
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.transfer.color import Color, Sizes, with_colors_of
from jaxstyle.transfer.oklab import chroma_transfer
from jaxstyle.transfer.resize import resize, resize_style
from jaxstyle.transfer.schedule import Scale, shared_shape

PALETTE = 256  # pixels of the longest side of a style from which colors are taken


def targets_for_scale(
    params: Params,
    content: jax.Array,
    styles: Sequence[Style | Sizes],
    scale: Scale,
    *,
    objective: AnyObjective = Objective(),
    network: AnyNetwork = VGG19(),
    key: jax.Array | None = None,
    style_weights: jax.typing.ArrayLike | Sequence[float] | None = None,
    content_masks: jax.Array | None = None,
    style_masks: Sequence[jax.Array | None] | None = None,
    image: jax.Array | None = None,
    part: tuple[int, bool] = (0, False),
) -> Any:
    """Return the optimization targets of one scale.

    Args:
        params: the network.
        content: of `color.recolor`.
        styles: of `color.recolor`.
        scale: one of `plan`; images and masks are resized to it, and to half of it above `half_resolution_above`.
        objective: as for `stylize`.
        network: as for `stylize`.
        key: as for `stylize`.
        style_weights: as for `stylize`.
        content_masks: as for `stylize`, of the full size of the content.
        style_masks: as for `stylize`, of the full size of each style.
        image: initial image of the scale, for custom objectives.
        part: number of the scale, and whether it repeats the size of the one before, for custom objectives.

    Returns:
        The targets, of `make_targets`.

    Raises:
        InputError: as `make_targets` does.

    Example:
        >>> targets_for_scale(params, content, [style], Scale(96, 128, 20))  # doctest: +SKIP
    """
    height, width, _ = scale
    factor = max(height, width) / max(content.shape[-3:-1])
    layers = sized_layers(network, objective.layers)
    style_layers = sized_layers(network, getattr(objective, "style_layers", objective.layers))
    shrink = partial(resize_style, factor=factor, layers=style_layers)
    at_scale: list[Style] = []
    for style in styles:
        if isinstance(style, Mapping):
            at_scale.append(_nearest(style, max(height, width)))
        else:
            at_scale.append(shrink(check_picture("style", style, style_layers, ranks=(3,))))
    masks, style_parts = content_masks, style_masks
    if content_masks is not None and content_masks.shape[-2:] == content.shape[-3:-1]:
        masks = array_module(content_masks).stack([resize(mask, height, width) for mask in content_masks])
    if style_masks is not None:
        style_parts = [None if mask is None else shrink(mask) for mask in style_masks]
    without_key = isinstance(objective, Objective) and objective.statistic != "sliced"
    targets = make_targets(
        params,
        resize(content, height, width),
        at_scale,
        objective=objective,
        network=network,
        key=None if key is None or without_key else jax.random.fold_in(key, 1),
        style_weights=style_weights,
        content_masks=masks,
        style_masks=style_parts,
        image=image,
        part=part,
    )
    half, above = Scale(*half_shape(height, width), steps=0), getattr(objective, "half_resolution_above", None)
    need = max(map(smallest_side, layers), default=1)
    if above is None or max(height, width) <= above or min(half[:2]) < need:
        return targets
    coarse = targets_for_scale(
        params,
        content,
        styles,
        half,
        objective=objective,
        network=network,
        key=key,
        style_weights=style_weights,
        content_masks=content_masks,
        style_masks=style_masks,
    )
    return targets._replace(half=coarse)


def style_sides(longest: int, scales: Sequence[Scale], *, objective: AnyObjective = Objective()) -> list[int]:
    """Return the longest sides for which `targets_for_scale` needs style statistics at these scales.

    Args:
        longest: longest side of the result, in pixels.
        scales: of `plan`.
        objective: `half_resolution_above` is used.

    Returns:
        Pixels, in ascending order.

    Example:
        >>> style_sides(600, [Scale(300, 424, 1), Scale(424, 600, 1)])
        [300, 424, 600]
    """
    sides = {max(scale.height, scale.width) for scale in scales} | {longest}
    above = getattr(objective, "half_resolution_above", None) or longest
    halves = {side for side in sides if side > above}
    while halves:
        halves = {half_shape(side, side)[0] for side in halves}
        sides |= halves
        halves = {side for side in halves if side > above}
    return sorted(sides)


def _nearest(statistics: Mapping, side: int) -> Mapping[str, Summary]:
    if all(isinstance(layer, str) for layer in statistics):
        return statistics
    return statistics[min(statistics, key=lambda own: abs(math.log(own / side)))]


def initial_image(
    content: jax.Array,
    styles: Sequence[Style | Sizes],
    start: str | jax.Array,
    scale: Scale,
    *,
    key: jax.Array | None = None,
) -> jax.Array:
    """Return the initial image of the first scale.

    Args:
        content: of `color.recolor`.
        styles: of `color.recolor`; the first is used.
        start: "content", "style" (resized), "noise" (uniform in [0, 1], as in Gatys et al.), or an image
            `[..., h, w, 3]` of any size, which is resized.
        scale: one of `plan`.
        key: random key of the noise.

    Returns:
        An image of the size of the scale, with the leading axis of `content`.

    Raises:
        InputError: if `start` is unknown or not an image, if noise has no key, or if "style" are statistics.

    Example:
        >>> initial_image(content, [style], "noise", scale, key=jax.random.key(0))  # doctest: +SKIP
    """
    height, width, _ = scale
    shape = (*content.shape[:-3], height, width, 3)
    if not isinstance(start, str):
        start = check_picture("initial image", start, in_range=True)
        if start.ndim != content.ndim:
            raise InputError(
                f"The initial image is {list(start.shape)}, but the content is {list(content.shape)}: "
                "pass as many initial images as contents."
            )
        return resize(start, height, width)
    if start == "content":
        return resize(content, height, width)
    if start == "style":
        if isinstance(styles[0], Mapping):
            raise InputError("The initial image is the style, which has no picture: start from content or noise.")
        style = resize(check_picture("style", styles[0], ranks=(3,)), height, width)
        return array_module(style).broadcast_to(style, shape)
    if start == "noise":
        if key is None:
            raise InputError("The initial image is noise, which has no seed: pass key=jax.random.key(0).")
        return jax.random.uniform(key, shape, content.dtype)
    raise InputError(f"The initial image {start!r} is unknown: use 'content', 'style', 'noise' or an image.")


def enlarge(
    image: jax.Array,
    content: jax.Array,
    styles: Sequence[Style | Sizes],
    start: str | jax.Array,
    scale: Scale,
    *,
    circular: bool = False,
) -> jax.Array:
    """Return the initial image of the next scale.

    The change of the initial image is enlarged and added to the initial image at its new size, which preserves its
    detail. For noise, the result of the previous scale is enlarged.

    Args:
        image: result of the previous scale, `[..., h, w, 3]`.
        content: of `color.recolor`.
        styles: of `color.recolor`.
        start: initial image of the first scale, as for `initial_image`.
        scale: one of `plan`.
        circular: whether the image is periodic.

    Returns:
        An image of the size of the scale, in [0, 1].

    Example:
        >>> enlarge(jnp.ones((4, 4, 3)), jnp.zeros((8, 8, 3)), [], "content", Scale(8, 8, 1)).shape
        (8, 8, 3)
    """
    if isinstance(start, str) and start == "noise":
        return resize(image, scale.height, scale.width, circular=circular)
    before = Scale(*image.shape[-3:-1], steps=0)
    then, now = (initial_image(content, styles, start, each) for each in (before, scale))
    painted = resample(image - then, scale.height, scale.width, circular=circular)
    return array_module(now, painted).clip(now + painted, 0.0, 1.0)


def finish(
    image: jax.Array,
    content: jax.Array,
    styles: Sequence[Any] = (),
    *,
    color: Color = "none",
    content_masks: jax.Array | None = None,
) -> jax.Array:
    """Return the result at full size in its final colors, with the content outside of masks.

    Args:
        image: the optimized image, `[..., h, w, 3]`, of any scale.
        content: the original content, `[..., H, W, 3]`.
        styles: the styles, of whose colors "chroma" is the distribution.
        color: as for `stylize.stylize`.
        content_masks: as for `stylize.stylize`.

    Returns:
        `[..., H, W, 3]`, in [0, 1].

    Example:
        >>> finish(jnp.ones((4, 4, 3)), jnp.zeros((8, 8, 3))).shape
        (8, 8, 3)
    """
    image = resize(image, *content.shape[-3:-1])
    if color == "chroma":
        styles = [resize(style, *shared_shape(*style.shape[:2], PALETTE)) for style in styles]
    elif color != "keep" and content_masks is None:
        return image
    return _finish(image, content, list(styles) if color == "chroma" else [], content_masks, color=color)


@partial(jax.jit, static_argnames="color")
def _finish(
    image: jax.Array, content: jax.Array, styles: list[Any], content_masks: jax.Array | None, *, color: Color
) -> jax.Array:
    """Return `image` in its final colors, and the content outside of its masks."""
    if color == "keep":
        image = with_colors_of(content, image)
    if color == "chroma":
        palette = jnp.concatenate([style.reshape(1, -1, 3) for style in styles], axis=1)
        transfer = partial(chroma_transfer, content, palette)
        image = jax.vmap(transfer)(image) if image.ndim == 4 else transfer(image)
    return image if content_masks is None else compose(image, content, cover=cover(content_masks))

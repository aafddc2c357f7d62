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

PALETTE = 256  # maximum longest side of a style from which colors are taken, in pixels


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
    """Return the optimization targets of one scale, as of `make_targets`.

    Content and styles are those of `color.recolor`. Images and masks of full size are resized to the scale, and to half
    of it above `half_resolution_above`. `image`, the initial image, and `part` of `part_of` are for custom objectives.
    """
    height, width, _ = scale
    factor = max(height, width) / max(content.shape[-3:-1])
    layers = sized_layers(network, objective.layers)
    style_layers = sized_layers(network, getattr(objective, "style_layers", objective.layers))
    shrink = partial(resize_style, factor=factor, layers=style_layers)

    def resized(style: Style | Sizes) -> Style:
        if isinstance(style, Mapping):
            return _nearest(style, max(height, width))
        return shrink(check_picture("style", style, style_layers, ranks=(3,)))

    masks, style_parts = content_masks, style_masks
    if content_masks is not None and content_masks.shape[-2:] == content.shape[-3:-1]:
        masks = array_module(content_masks).stack([resize(mask, height, width) for mask in content_masks])
    if style_masks is not None:
        style_parts = [None if mask is None else shrink(mask) for mask in style_masks]
    without_key = isinstance(objective, Objective) and objective.statistic != "sliced"
    options: dict[str, Any] = {"objective": objective, "network": network, "style_weights": style_weights}
    targets = make_targets(
        params,
        resize(content, height, width),
        [resized(style) for style in styles],
        key=None if key is None or without_key else jax.random.fold_in(key, 1),
        content_masks=masks,
        style_masks=style_parts,
        image=image,
        part=part,
        **options,
    )
    half, above = Scale(*half_shape(height, width), steps=0), getattr(objective, "half_resolution_above", None)
    need = max(map(smallest_side, layers), default=1)
    if above is None or max(height, width) <= above or min(half[:2]) < need:
        return targets
    options |= {"key": key, "content_masks": content_masks, "style_masks": style_masks}
    return targets._replace(half=targets_for_scale(params, content, styles, half, **options))


def style_sides(longest: int, scales: Sequence[Scale], *, objective: AnyObjective = Objective()) -> list[int]:
    """Return the longest sides for which `targets_for_scale` needs style statistics, in ascending order."""
    sides = {max(scale.height, scale.width) for scale in scales} | {longest}
    above = getattr(objective, "half_resolution_above", None) or longest

    def with_halves(side: int) -> set[int]:
        return {side} | (with_halves(half_shape(side, side)[0]) if side > above else set())

    return sorted(set().union(*map(with_halves, sides)))


def _nearest(statistics: Mapping, side: int) -> Mapping[str, Summary]:
    if all(isinstance(layer, str) for layer in statistics):
        return statistics
    return statistics[min(statistics, key=lambda longest: abs(math.log(longest / side)))]


def initial_image(
    content: jax.Array,
    styles: Sequence[Style | Sizes],
    start: str | jax.Array,
    scale: Scale,
    *,
    key: jax.Array | None = None,
) -> jax.Array:
    """Return the initial image of the first scale, with the leading axis of `content`.

    `start` is "content", "style" (the first, resized), "noise" (uniform in [0, 1], as in Gatys et al.), or an image
    `[..., h, w, 3]` of any size.
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
    """Return the initial image of the next scale from the result of the previous one.

    The change of the initial image is enlarged and added to the initial image at its new size, which preserves its
    detail. For noise, the result of the previous scale is enlarged.
    """
    if isinstance(start, str) and start == "noise":
        return resize(image, scale.height, scale.width, circular=circular)
    before = Scale(*image.shape[-3:-1], steps=0)
    then, now = (initial_image(content, styles, start, each) for each in (before, scale))
    change = resample(image - then, scale.height, scale.width, circular=circular)
    return array_module(now, change).clip(now + change, 0.0, 1.0)


def finish(
    image: jax.Array,
    content: jax.Array,
    styles: Sequence[Any] = (),
    *,
    color: Color = "none",
    content_masks: jax.Array | None = None,
) -> jax.Array:
    """Return the result at full size in its final colors, with the content outside of masks."""
    image = resize(image, *content.shape[-3:-1])
    reduced = []
    for style in styles if color == "chroma" else ():
        height, width, _ = style.shape
        reduced.append(resize(style, *shared_shape(height, width, min(PALETTE, max(height, width)))))
    if color not in ("keep", "chroma") and content_masks is None:
        return image
    return _finish(image, content, reduced, content_masks, color=color)


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

"""Style transfer (`stylize`), texture synthesis (`texture`) and reconstruction (`reconstruct`), coarse to fine.

For each scale of the schedule, `targets_at` computes the optimization targets and `start_at` or `enlarge` the initial
image; `finish` restores colors and masked regions at the end. The command line calls the same functions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxstyle.compiled import compiled
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.images.resample import array_module, half_shape, resample
from jaxstyle.losses.masks import compose, cover
from jaxstyle.losses.style import Summary
from jaxstyle.losses.targets import Style, Targets, check_picture, make_targets
from jaxstyle.networks.conv import prepared, winograd_pays
from jaxstyle.networks.vgg import Params, smallest_side
from jaxstyle.optim import loop
from jaxstyle.optim.loop import Trace
from jaxstyle.transfer import color
from jaxstyle.transfer.color import Sizes, Styles, recolor
from jaxstyle.transfer.resize import resize, resize_style
from jaxstyle.transfer.schedule import Scale, plan


def targets_at(
    params: Params,
    content: jax.Array,
    styles: Sequence[Style | Sizes],
    scale: Scale,
    *,
    key: jax.Array | None = None,
    config: Config,
    blend: jax.typing.ArrayLike | Sequence[float] | None = None,
    content_masks: jax.Array | None = None,
    style_masks: Sequence[jax.Array | None] | None = None,
) -> Targets:
    """Return the optimization targets of one scale.

    Args:
        params: the network.
        content: of `color.recolor`.
        styles: of `color.recolor`.
        scale: one of `plan`; images and masks are resized to it, and to half of it above `config.halve_above`.
        key: as for `stylize`.
        config: the static options.
        blend: as for `stylize`.
        content_masks: as for `stylize`, of the full size of the content.
        style_masks: as for `stylize`, of the full size of each style.

    Returns:
        The targets, of `make_targets`.

    Raises:
        InputError: as `make_targets` does.

    Example:
        >>> targets_at(params, content, [style], Scale(96, 128, 20), config=Config())  # doctest: +SKIP
    """
    height, width, _ = scale
    factor = max(height, width) / max(content.shape[-3:-1])
    shrink = partial(resize_style, factor=factor, layers=config.sized(config.style_layers))
    at_scale: list[Style] = []
    for style in styles:
        if isinstance(style, Mapping):
            at_scale.append(_nearest(style, max(height, width)))
        else:
            at_scale.append(shrink(check_picture("style", style, config.sized(config.style_layers), ranks=(3,))))
    masks, style_parts = content_masks, style_masks
    if content_masks is not None and content_masks.shape[-2:] == content.shape[-3:-1]:
        masks = array_module(content_masks).stack([resize(mask, height, width) for mask in content_masks])
    if style_masks is not None:
        style_parts = [None if mask is None else shrink(mask) for mask in style_masks]
    targets = make_targets(
        params,
        resize(content, height, width),
        at_scale,
        key=None if key is None or config.statistic != "sliced" else jax.random.fold_in(key, 1),
        config=config,
        blend=blend,
        content_masks=masks,
        style_masks=style_parts,
    )
    half = Scale(*half_shape(height, width), steps=0)
    need = max(map(smallest_side, config.sized(config.layers)), default=1)
    if config.halve_above is None or max(height, width) <= config.halve_above or min(half[:2]) < need:
        return targets
    same = {"key": key, "config": config, "blend": blend, "content_masks": content_masks, "style_masks": style_masks}
    return targets._replace(half=targets_at(params, content, styles, half, **same))


def style_sides(longest: int, scales: Sequence[Scale], *, config: Config) -> list[int]:
    """Return the longest sides for which `targets_at` needs style statistics at these scales.

    Args:
        longest: longest side of the result, in pixels.
        scales: of `plan`.
        config: `halve_above` is used.

    Returns:
        Pixels, in ascending order.

    Example:
        >>> style_sides(600, [Scale(300, 424, 1), Scale(424, 600, 1)], config=Config())
        [300, 424, 600]
    """
    sides = {max(scale.height, scale.width) for scale in scales} | {longest}
    above = config.halve_above or longest
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


def start_at(
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
        >>> start_at(content, [style], "noise", scale, key=jax.random.key(0))  # doctest: +SKIP
    """
    height, width, _ = scale
    shape = (*content.shape[:-3], height, width, 3)
    if not isinstance(start, str):
        start = check_picture("initial image", start)
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
        start: initial image of the first scale, as for `start_at`.
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
    then, now = (start_at(content, styles, start, each) for each in (before, scale))
    painted = resample(image - then, scale.height, scale.width, circular=circular)
    return array_module(now, painted).clip(now + painted, 0.0, 1.0)


def finish(
    image: jax.Array, content: jax.Array, *, config: Config, content_masks: jax.Array | None = None
) -> jax.Array:
    """Return the result at full size, with the colors of the content if preserved, and the content outside of masks.

    Args:
        image: the optimized image, `[..., h, w, 3]`, of any scale.
        content: the original content, `[..., H, W, 3]`.
        config: `color` is used.
        content_masks: as for `stylize.stylize`.

    Returns:
        `[..., H, W, 3]`, in [0, 1].

    Example:
        >>> finish(jnp.ones((4, 4, 3)), jnp.zeros((8, 8, 3)), config=Config()).shape
        (8, 8, 3)
    """
    image = resize(image, *content.shape[-3:-1])
    if config.color != "keep" and content_masks is None:
        return image
    return _with_content(image, content, content_masks, keep=config.color == "keep")


@compiled("keep")
def _with_content(image: jax.Array, content: jax.Array, content_masks: jax.Array | None, *, keep: bool) -> jax.Array:
    """Return `image` with the colors of the content if `keep`, and the content outside of its masks."""
    if keep:
        image = color.with_colors_of(content, image)
    return image if content_masks is None else compose(image, content, cover=cover(content_masks))


def on_host(array: Any) -> Any:
    """Return a NumPy array, which is resized without compilation; traced arrays unchanged."""
    return np.asarray(array) if isinstance(array, jax.Array) and _is_readable(array) else array


def _is_readable(array: Any) -> bool:
    """Return whether an array is not traced and is on devices of this process."""
    return not isinstance(array, Tracer) and array.is_fully_addressable


class Result(NamedTuple):
    """Result of `stylize`.

    Attributes:
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        trace: history of every term, `[steps]` or `[N, steps]`.
    """

    image: jax.Array
    trace: Trace


def stylize(
    params: Params,
    content: jax.Array,
    styles: Styles,
    *,
    key: jax.Array | None = None,
    weights: LossWeights = LossWeights(),
    config: Config = Config(),
    steps: int = 300,
    init: str | jax.Array = "content",
    blend: jax.typing.ArrayLike | Sequence[float] | None = None,
    content_masks: jax.Array | None = None,
    style_masks: Sequence[jax.Array | None] | None = None,
    segments: int | None = None,
) -> Result:
    """Return `content` in the style of `styles`; compatible with `jit`, `vmap` and `grad`.

    Deviations from Gatys et al., all of them options: coarse-to-fine scales, terms normalized by the energy of their
    target, the content as initial image, max pooling, lbfgs without a line search on a pyramid, and a range penalty.

    Args:
        params: the network, of `load_params`.
        content: `[H, W, 3]`, or `[N, H, W, 3]` for a batch, in [0, 1].
        styles: one style or a sequence of K: images `[H, W, 3]` of any size (a smaller image gives a finer style), or
            statistics of `summarize_style`, optionally by longest side in pixels; each scale uses the nearest.
        key: random key of the noise, if `init` is "noise", and of the directions, if the statistic is "sliced".
        weights: weights of the loss.
        config: the static options. With color "keep" only the luminance of the content changes; "match" and
            "match-cholesky" recolor the styles linearly, "histogram" channel by channel.
        steps: number of gradient evaluations over all scales.
        init: initial image: "content", "style", "noise" or an image of the shape of `content`.
        blend: style weights, `[K]`, not negative; None for equal weights. They average the statistics of the styles.
        content_masks: region of each style, `[K, H, W]` in [0, 1]; pixels outside of all regions do not change.
        style_masks: mask of each style, `[H, W]` of its size in [0, 1], or None for the complete style.
        segments: number of checkpoint segments per scale, at most its steps, for differentiation through the steps in
            less memory, see `loop.run`; None for none.

    Returns:
        The stylized image and the history of every term, concatenated over scales.

    Raises:
        InputError: if an array is not an image or too small for the layers, if weights and config differ in layers, or
            if scales, style weights or masks do not match the images.

    Example:
        >>> stylize(params, content, style, steps=100).image  # doctest: +SKIP

    Reference:
        Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
    """
    content = check_picture("content", on_host(content))
    grounds, several = jax.tree.map(on_host, recolor(content, jax.tree.map(on_host, styles), config=config))
    init = init if isinstance(init, str) else on_host(init)
    image: Any = None
    traces = []
    for scale in plan(*content.shape[-3:-1], steps=steps, config=config):
        targets = targets_at(
            params,
            grounds,
            several,
            scale,
            key=key,
            config=config,
            blend=blend,
            content_masks=content_masks,
            style_masks=style_masks,
        )
        if image is None:
            image = start_at(grounds, several, init, scale, key=key)
        else:
            image = enlarge(image, grounds, several, init, scale, circular=config.border == "circular")
        state = loop.init(image, config=config)
        cut = segments and min(segments, scale.steps)
        ready = params
        if config.network is None:
            pixels = math.prod(image.shape[:-1])
            wide = winograd_pays(params, pixels=pixels, steps=scale.steps, layers=config.layers)
            ready = prepared(params, precision=config.precision, conv=config.conv, use_winograd=wide)
        state, trace = loop.run(state, ready, targets, weights, config=config, steps=scale.steps, segments=cut)
        readable = all(map(_is_readable, jax.tree.leaves(state.parameters)))
        image = loop.image_on_host(state) if readable else state.image
        traces.append(jax.tree.map(on_host, trace))
    assert image is not None  # noqa: S101  # there is at least one scale
    whole = jax.tree.map(lambda *parts: array_module(*parts).concatenate(parts, axis=-1), *traces)
    return Result(finish(image, content, config=config, content_masks=content_masks), whole)


def reconstruct(
    params: Params,
    image: jax.Array,
    *,
    key: jax.Array,
    content_layers: tuple[str, ...] = ("relu4_2",),
    style_layers: tuple[str, ...] = (),
    config: Config = Config(),
    tv: jax.typing.ArrayLike = 0.0,
    steps: int = 300,
) -> Result:
    """Reconstruct `image` from noise by its features or style statistics in some layers.

    Gatys et al., figure 1: content layers preserve the arrangement, deeper layers less exactly; style layers preserve
    texture.

    Args:
        params: the network.
        image: `[H, W, 3]`, in [0, 1].
        key: random key of the noise.
        content_layers: layers whose features to match, pixel by pixel; () for none.
        style_layers: layers whose statistics to match; () for none.
        config: the other static options.
        tv: weight of total variation; the weight of each layer is 1 over their number.
        steps: number of gradient evaluations over all scales.

    Returns:
        The reconstruction and the history of every term.

    Raises:
        InputError: if no layer is named, or as `stylize` does.

    Example:
        >>> reconstruct(params, image, key=jax.random.key(0), content_layers=("relu5_1",)).image  # doctest: +SKIP
    """
    config = replace(config, content_layers=content_layers, style_layers=style_layers, own_terms=(), own_layers=())
    count = len(config.content_layers) + len(config.style_layers)
    content, style = (dict.fromkeys(layers, 1 / count) for layers in (config.content_layers, config.style_layers))
    weights = LossWeights(content=content, style=style, tv=tv)
    return stylize(params, image, image, key=key, weights=weights, config=config, steps=steps, init="noise")


def texture(
    params: Params,
    styles: Styles,
    *,
    key: jax.Array,
    height: int,
    width: int,
    tileable: bool = False,
    weights: LossWeights = LossWeights(),
    config: Config = Config(),
    steps: int = 300,
    blend: jax.typing.ArrayLike | Sequence[float] | None = None,
) -> Result:
    """Synthesize a texture of any size from noise, with the statistics of `styles`.

    Gatys, Ecker and Bethge, *Texture Synthesis Using Convolutional Neural Networks*, arXiv:1505.07376. Deviations:
    those of `stylize`; coarse-to-fine scales give large structures, which a single scale from noise lacks.

    Args:
        params: the network.
        styles: as for `stylize`.
        key: random key of the noise.
        height: height of the texture in pixels, independent of the styles.
        width: width of the texture in pixels.
        tileable: whether the texture is periodic; height and width should then be multiples of 16.
        weights: weights of the loss; those of content are ignored.
        config: the static options; content layers are ignored.
        steps: number of gradient evaluations over all scales.
        blend: as for `stylize`.

    Returns:
        The texture, `[height, width, 3]`, and the history of every term.

    Raises:
        InputError: as `stylize` does.

    Example:
        >>> texture(params, style, key=jax.random.key(0), height=512, width=768).image  # doctest: +SKIP
    """
    config = replace(config, content_layers=(), border="circular" if tileable else config.border)
    return stylize(
        params,
        jnp.zeros((height, width, 3)),
        styles,
        key=key,
        weights=replace(weights, content={}),
        config=config,
        steps=steps,
        init="noise",
        blend=blend,
    )

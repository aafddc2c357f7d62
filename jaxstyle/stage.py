"""One scale of the method, in pure parts that the command line calls as `transfer.stylize` does.

Targets and start of a scale, then colours and unpainted regions on the way out.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import jax

from jaxstyle import color
from jaxstyle.coloring import Sizes
from jaxstyle.compiled import compiled
from jaxstyle.config import Config
from jaxstyle.errors import InputError
from jaxstyle.regions import compose, cover
from jaxstyle.scales import Scale, array_module, half_shape, resample, resize, resize_style
from jaxstyle.statistic import Summary
from jaxstyle.targets import Style, Targets, check_picture, make_targets
from jaxstyle.vgg import Params, smallest_side


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
    """Return what the image is held against at one scale.

    Args:
        params: the network.
        content: of `coloring.recolor`.
        styles: of `coloring.recolor`.
        scale: one of `plan`; pictures and masks are reduced to it, and to half of it above `config.halve_above`.
        key: as for `stylize`.
        config: the static facts.
        blend: as for `stylize`.
        content_masks: as for `stylize`, of the content's full size.
        style_masks: as for `stylize`, of each style's full size.

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
    """Return the longest sides of pictures that statistics of a style are asked for, by `targets_at` at these scales.

    Args:
        longest: side of the picture that is to come out, in pixels.
        scales: of `plan`.
        config: its `halve_above` counts.

    Returns:
        Pixels, rising.

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
    """Return the image to start the first scale from.

    Args:
        content: of `coloring.recolor`.
        styles: of `coloring.recolor`, of which the first counts.
        start: "content", "style" (resized), "noise" (uniform in [0, 1], Gatys et al.'s choice), or an image
            `[..., h, w, 3]` of any size, resized too.
        scale: one of `plan`.
        key: of the noise.

    Returns:
        An image of the scale's size, with the leading axis of `content`.

    Raises:
        InputError: if `start` is unknown or of another shape than a picture, if noise has no key, or if "style" has no
            picture.

    Example:
        >>> start_at(content, [style], "noise", scale, key=jax.random.key(0))  # doctest: +SKIP
    """
    height, width, _ = scale
    shape = (*content.shape[:-3], height, width, 3)
    if not isinstance(start, str):
        start = check_picture("initial image", start)
        if start.ndim != content.ndim:
            raise InputError(
                f"The initial image is {list(start.shape)}, but the content is {list(content.shape)}: pass as many."
            )
        return resize(start, height, width)
    if start == "content":
        return resize(content, height, width)
    if start == "style":
        if isinstance(styles[0], Mapping):
            raise InputError("The initial image is the style's, which has no picture: start from content or noise.")
        style = resize(check_picture("style", styles[0], ranks=(3,)), height, width)
        return array_module(style).broadcast_to(style, shape)
    if start == "noise":
        if key is None:
            raise InputError("Noise as the initial image has no seed: pass key=jax.random.key(0).")
        return jax.random.uniform(key, shape)
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
    """Return the image to go on from at the next scale.

    What was painted over the picture that the run started from is enlarged and added to that picture at its new size,
    whose detail is so kept. Noise has no detail to keep: what became of it is enlarged whole.

    Args:
        image: of the scale before, `[..., h, w, 3]`.
        content: of `coloring.recolor`.
        styles: of `coloring.recolor`.
        start: what the first scale started from, as for `start_at`.
        scale: one of `plan`.
        circular: whether the image continues across its border.

    Returns:
        An image of the scale's size, in [0, 1].

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
    """Return the picture that comes out: of full size, in the content's colours if kept, untouched outside of masks.

    Args:
        image: what was optimised, `[..., h, w, 3]`, at any scale.
        content: as it came, `[..., H, W, 3]`.
        config: its `color` counts.
        content_masks: as for `transfer.stylize`.

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
    """Return `image` in the content's colours if they are to be kept, and the content outside of its masks."""
    if keep:
        image = color.with_colors_of(content, image)
    return image if content_masks is None else compose(image, content, cover=cover(content_masks))

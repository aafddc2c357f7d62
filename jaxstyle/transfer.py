"""The whole method as one function, content and style in, picture and trace out, and its two halves by themselves."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxstyle import optimize
from jaxstyle.coloring import Styles, recolor
from jaxstyle.config import Config, LossWeights
from jaxstyle.conv import prepared, winograd_pays
from jaxstyle.optimize import Trace
from jaxstyle.scales import array_module, plan
from jaxstyle.stage import enlarge, finish, start_at, targets_at
from jaxstyle.targets import check_picture
from jaxstyle.vgg import Params


def on_host(array: Any) -> Any:
    """Return a NumPy array, which is then resized without a program; what `jit`, `vmap` or `grad` traces as it is."""
    return np.asarray(array) if isinstance(array, jax.Array) and _is_readable(array) else array


def _is_readable(array: Any) -> bool:
    """Return whether the values of an array are known and on devices of this process."""
    return not isinstance(array, Tracer) and array.is_fully_addressable


class Result(NamedTuple):
    """What `stylize` returns.

    Attributes:
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        trace: every term of every step, `[steps]` or `[N, steps]`.
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
    """Repaint `content` in the style of `styles`; traceable from end to end by `jit`, `vmap` and `grad`.

    Deviations from Gatys et al., all of them options: from coarse to fine, terms divided by their target's energy,
    start from the content, max pooling, lbfgs without a line search over a pyramid, a penalty on values out of range.

    Args:
        params: the network, of `load_params`.
        content: `[H, W, 3]`, or `[N, H, W, 3]` for N pictures at once, in [0, 1].
        styles: one style or a sequence of K: pictures `[H, W, 3]` of any size (a smaller one shows a finer style), or
            statistics of `summarize_style`, also by longest side in pixels, of which each scale takes the nearest.
        key: of the noise, if `init` is "noise", and of the directions, if the statistic is "sliced".
        weights: the coefficients of the loss.
        config: the static facts, among them the scales and the colours: "keep" keeps the content's by changing
            luminance only; "match" and "match-cholesky" recolour the styles linearly, "histogram" channel by channel.
        steps: how many gradient evaluations, over all scales.
        init: "content", "style", "noise" or an image of the shape of `content`.
        blend: how much each style counts, `[K]`, not negative; None for all alike. Statistics are mixed, not pictures.
        content_masks: the region of each style, `[K, H, W]` in [0, 1]; what no region covers stays as it is.
        style_masks: which part of each style to take, `[H, W]` of its own shape in [0, 1], or None for all of it.
        segments: into how many the steps of a scale are cut, as many as it has at most, for a gradient through them in
            less memory, see `optimize.run`; None for none.

    Returns:
        The picture and the trace of every term, one scale after the other.

    Raises:
        InputError: if an array is not a picture or too small for the layers, if weights and config differ in layers, or
            if scales, blend weights or masks do not fit the pictures.

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
        state = optimize.init(image, config=config)
        cut = segments and min(segments, scale.steps)
        ready = params
        if config.network is None:
            pixels = math.prod(image.shape[:-1])
            wide = winograd_pays(params, pixels=pixels, steps=scale.steps, layers=config.layers)
            ready = prepared(params, precision=config.precision, conv=config.conv, use_winograd=wide)
        state, trace = optimize.run(state, ready, targets, weights, config=config, steps=scale.steps, segments=cut)
        readable = all(map(_is_readable, jax.tree.leaves(state.parameters)))
        image = optimize.image_on_host(state) if readable else state.image
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
    """Return what layers keep of `image`: another picture, from noise, with the same features or statistics there.

    Gatys et al., figure 1: content layers keep where things are, deeper ones less exactly; style layers keep texture.

    Args:
        params: the network.
        image: `[H, W, 3]`, in [0, 1].
        key: of the noise.
        content_layers: where features are to be the same, pixel by pixel; () for none.
        style_layers: where statistics are to be the same; () for none.
        config: the other static facts.
        tv: the weight of total variation; each layer has the weight 1 over their number.
        steps: how many gradient evaluations, over all scales.

    Returns:
        The picture and the trace of every term.

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
    """Return a picture of any size, from noise, with the statistics of `styles` and no content.

    Gatys, Ecker and Bethge, *Texture Synthesis Using Convolutional Neural Networks*, arXiv:1505.07376. Deviations:
    those of `stylize`; from coarse to fine, which gives large structures that one scale from noise does not find.

    Args:
        params: the network.
        styles: as `stylize` takes them.
        key: of the noise.
        height: pixels of the picture, more or fewer than the styles have.
        width: likewise.
        tileable: whether it is to continue across its border; height and width are best multiples of 16.
        weights: the coefficients of the loss; those of content do not count.
        config: the static facts; its content layers do not count.
        steps: how many gradient evaluations, over all scales.
        blend: as for `stylize`.

    Returns:
        The picture, `[height, width, 3]`, and the trace of every term.

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
        weights=weights._replace(content={}),
        config=config,
        steps=steps,
        init="noise",
        blend=blend,
    )

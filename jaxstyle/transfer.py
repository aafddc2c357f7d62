"""The whole method as one function: content and style in, picture and trace out."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle import optimize
from jaxstyle.config import Config, LossWeights
from jaxstyle.optimize import Trace
from jaxstyle.scales import plan
from jaxstyle.stage import Styles, enlarge, finish, recolor, start_at, targets_at
from jaxstyle.targets import check_picture
from jaxstyle.vgg import Params


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
    content = check_picture("content", content)
    grounds, several = recolor(content, styles, config=config)
    image, traces = None, []
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
            image = enlarge(image, grounds, several, init, scale)
        state = optimize.init(image, config=config)
        state, trace = optimize.run(state, params, targets, weights, config=config, steps=scale.steps)
        image = state.image
        traces.append(trace)
    assert image is not None  # there is at least one scale
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *traces)
    return Result(finish(image, content, config=config, content_masks=content_masks), whole)

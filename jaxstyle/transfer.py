"""The whole method as one function: content and style in, picture and trace out."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle import optimize
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.objective import check_picture, make_targets
from jaxstyle.optimize import Trace
from jaxstyle.vgg import Params


class Result(NamedTuple):
    """What `stylize` returns.

    Attributes:
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        trace: every term of every step, `[steps]` or `[N, steps]`.
    """

    image: jax.Array
    trace: Trace


def initial_image(
    content: jax.Array, styles: jax.Array | Sequence[jax.Array], start: str | jax.Array, *, key: jax.Array | None = None
) -> jax.Array:
    """Return the image to start from.

    Args:
        content: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        styles: one picture, or a sequence of which the first counts.
        start: "content", "style" (resized), "noise" (uniform in [0, 1], Gatys et al.'s choice), or an image.
        key: of the noise.

    Returns:
        An image of the shape of `content`.

    Raises:
        InputError: if `start` is unknown or of another shape, or if noise has no key.

    Example:
        >>> initial_image(content, style, "noise", key=jax.random.key(0))  # doctest: +SKIP
    """
    if not isinstance(start, str):
        start = check_picture("initial image", start)
        if start.shape != content.shape:
            raise InputError(
                f"The initial image is {list(start.shape)}, but the content is {list(content.shape)}: "
                "resize the one to the other."
            )
        return start
    if start == "content":
        return content
    if start == "style":
        style = styles[0] if isinstance(styles, Sequence) else styles
        resized = jnp.clip(jax.image.resize(style, content.shape[-3:], "cubic"), 0.0, 1.0)
        return jnp.broadcast_to(resized, content.shape)
    if start == "noise":
        if key is None:
            raise InputError("Noise as the initial image has no seed: pass key=jax.random.key(0).")
        return jax.random.uniform(key, content.shape)
    raise InputError(f"The initial image {start!r} is unknown: use 'content', 'style', 'noise' or an image.")


def stylize(
    params: Params,
    content: jax.Array,
    styles: jax.Array | Sequence[jax.Array],
    *,
    key: jax.Array | None = None,
    weights: LossWeights = LossWeights(),
    config: Config = Config(),
    steps: int = 200,
    init: str | jax.Array = "content",
) -> Result:
    """Repaint `content` in the style of `styles`; traceable from end to end by `jit`, `vmap` and `grad`.

    Deviations from Gatys et al., all of them options: terms divided by their target's energy, start from the content,
    max pooling, lbfgs without a line search over a pyramid, a penalty on values out of range.

    Args:
        params: the network, of `load_params`.
        content: `[H, W, 3]`, or `[N, H, W, 3]` for N pictures at once, in [0, 1].
        styles: one picture `[H, W, 3]` of any size, or a sequence of them, whose Gram matrices are averaged.
        key: of the noise, if `init` is "noise".
        weights: the coefficients of the loss.
        config: the static facts.
        steps: how many gradient evaluations.
        init: "content", "style", "noise" or an image of the shape of `content`.

    Returns:
        The picture and the trace of every term.

    Raises:
        InputError: if an array is not a picture or too small for the layers, or if weights and config differ in layers.

    Example:
        >>> stylize(params, content, style, steps=100).image  # doctest: +SKIP

    Reference:
        Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
    """
    targets = make_targets(params, content, styles, config=config)
    state = optimize.init(initial_image(content, styles, init, key=key), config=config)
    state, trace = optimize.run(state, params, targets, weights, config=config, steps=steps)
    return Result(state.image, trace)

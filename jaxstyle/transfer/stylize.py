"""Style transfer (`stylize`), texture synthesis (`texture`) and reconstruction (`reconstruct`), coarse to fine."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError, check_whole
from jaxstyle.images.resample import array_module
from jaxstyle.losses.layer_summaries import AnyNetwork
from jaxstyle.losses.objective import Objective
from jaxstyle.networks.vgg import VGG19, Params
from jaxstyle.optim.loop import AnyObjective, History, image_on_host, run_steps
from jaxstyle.optim.optimizers import LBFGS, Optimizer, Transformation, as_optimizer
from jaxstyle.transfer.color import Color, Styles
from jaxstyle.transfer.scale import Transfer, is_readable, on_host
from jaxstyle.transfer.schedule import Scales


class Result(NamedTuple):
    """Result of `stylize`."""

    image: jax.Array  # [H, W, 3] or [N, H, W, 3], in [0, 1]
    history: History  # of every term, [steps] or [N, steps]


def stylize(
    params: Params,
    content: jax.Array,
    styles: Styles,
    *,
    objective: AnyObjective = Objective(),
    network: AnyNetwork = VGG19(),
    optimizer: Optimizer | Transformation = LBFGS(),
    steps: int = 205,
    scales: Scales = None,
    init: str | jax.Array = "content",
    color: Color = "none",
    key: jax.Array | None = None,
    style_weights: jax.typing.ArrayLike | Sequence[float] | None = None,
    content_masks: jax.Array | None = None,
    style_masks: Sequence[jax.Array | None] | None = None,
    checkpoint_segments: int | None = None,
) -> Result:
    """Return `content` in the style of `styles`; compatible with `jit`, `vmap` and `grad`.

    Deviations from Gatys et al., all of them options: coarse-to-fine scales, terms normalized by the energy of their
    target, the content as initial image, max pooling, L-BFGS without a line search on a pyramid, and a range penalty.

    Args:
        params: of the network, of `load_params`.
        content: `[H, W, 3]`, or `[N, H, W, 3]` for a batch, in [0, 1].
        styles: one style or a sequence of K: images `[H, W, 3]` of any size (a smaller image gives a finer style), or
            statistics of `summarize_style`, optionally by longest side in pixels; each scale uses the nearest.
        objective: weights and options of the loss.
        network: VGG-19 with its options, or a user-defined network.
        optimizer: L-BFGS, Adam or a gradient transformation of Optax, with its options.
        steps: number of gradient evaluations over all scales.
        scales: number of scales, or their longest sides, see `schedule.Scales`.
        init: initial image: "content"; "recolored" for the content with the mean and covariance of the colors of the
            styles, weighted and masked as they are; "style"; "noise"; or an image of the shape of `content`.
        color: "none"; "keep" changes only the luminance of the content; "match" and "match-cholesky" recolor the
            styles linearly, "histogram" channel by channel; "chroma" gives the result the chroma of the content, moved
            to the distribution of the style's, see `oklab.chroma_transfer`.
        key: random key of the noise, if `init` is "noise", and of random directions and positions in the objective.
        style_weights: weights of the styles, `[K]`, not negative, of the mean of their statistics; None for equal ones.
        content_masks: region of each style, `[K, H, W]` in [0, 1]; pixels outside of all regions do not change.
        style_masks: mask of each style, `[H, W]` of its size in [0, 1], or None for the complete style.
        checkpoint_segments: number of checkpoint segments per scale, at most its steps, for differentiation through the
            steps in less memory, see `loop.run_steps`; None for none.

    Returns:
        The stylized image and the history of every term, concatenated over scales.

    Raises:
        InputError: if an array is not an image or too small for the layers, if a value is not in [0, 1] (under
            `jit` only if `jax.experimental.checkify.checkify` transforms the function), or if scales, style weights or
            masks do not match the images.

    Example:
        >>> stylize(params, content, style, steps=100).image  # doctest: +SKIP

    Reference:
        Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
    """
    if checkpoint_segments is not None:
        check_whole("checkpoint_segments", checkpoint_segments)
    method = (objective, network, as_optimizer(optimizer), init, key, steps, scales, color)
    arrays = (params, content, content, styles)
    transfer = Transfer(*arrays, *method, style_weights, content_masks, style_masks).checked()
    image: Any = None
    histories = []
    for number, scale in enumerate(transfer.schedule):
        image = transfer.initial_image(scale, image)
        targets = transfer.targets(number, image)
        segments = checkpoint_segments and min(checkpoint_segments, scale.steps)
        options: dict[str, Any] = {"network": network, "steps": scale.steps, "checkpoint_segments": segments}
        state, history = run_steps(transfer.begin(image), transfer.ready(scale), targets, objective, **options)
        image = image_on_host(state) if all(map(is_readable, jax.tree.leaves(state.parameters))) else state.image
        histories.append(jax.tree.map(on_host, history))
    joined = jax.tree.map(lambda *parts: array_module(*parts).concatenate(parts, axis=-1), *histories)
    return Result(transfer.finish(image), joined)


def reconstruct(
    params: Params,
    image: jax.Array,
    *,
    key: jax.Array,
    content_layers: tuple[str, ...] = ("relu4_2",),
    style_layers: tuple[str, ...] = (),
    tv: jax.typing.ArrayLike = 0.0,
    objective: Objective = Objective(),
    network: AnyNetwork = VGG19(),
    optimizer: Optimizer | Transformation = LBFGS(),
    steps: int = 205,
    scales: Scales = None,
) -> Result:
    """Reconstruct `image` from noise by its features or style statistics in some layers.

    Gatys et al., figure 1: content layers preserve the arrangement, deeper layers less exactly; style layers preserve
    texture. The weight of each layer is 1 over their number.

    Args:
        params: of the network.
        image: `[H, W, 3]`, in [0, 1].
        key: random key of the noise.
        content_layers: layers whose features to match, pixel by pixel; () for none.
        style_layers: layers whose statistics to match; () for none.
        tv: weight of total variation.
        objective: its options are used, not its layers and weights.
        network: as for `stylize`.
        optimizer: as for `stylize`.
        steps: as for `stylize`.
        scales: as for `stylize`.

    Raises:
        InputError: if no layer is named, or as `stylize` does.

    Example:
        >>> reconstruct(params, image, key=jax.random.key(0), content_layers=("relu5_1",)).image  # doctest: +SKIP
    """
    share = 1 / max(1, len(content_layers) + len(style_layers))
    content, style = (dict.fromkeys(layers, share) for layers in (content_layers, style_layers))
    objective = replace(objective, content=content, style=style, tv=tv, extra={}, extra_terms=(), extra_layers=())
    options: dict[str, Any] = {"network": network, "optimizer": optimizer, "steps": steps, "scales": scales}
    return stylize(params, image, image, objective=objective, key=key, init="noise", **options)


def texture(
    params: Params,
    styles: Styles,
    *,
    key: jax.Array,
    height: int,
    width: int,
    tileable: bool = False,
    objective: AnyObjective = Objective(),
    network: AnyNetwork = VGG19(),
    optimizer: Optimizer | Transformation = LBFGS(),
    steps: int = 205,
    scales: Scales = None,
    style_weights: jax.typing.ArrayLike | Sequence[float] | None = None,
) -> Result:
    """Synthesize a texture of any size from noise, with the statistics of `styles`.

    Gatys, Ecker and Bethge, *Texture Synthesis Using Convolutional Neural Networks*, arXiv:1505.07376. Deviations:
    those of `stylize`; coarse-to-fine scales give large structures, which a single scale from noise lacks.

    Args:
        params: of the network.
        styles: as for `stylize`.
        key: random key of the noise.
        height: height of the texture in pixels, independent of the styles.
        width: width of the texture in pixels.
        tileable: whether the texture is periodic; height and width should then be multiples of 16.
        objective: as for `stylize`, without its content layers.
        network: as for `stylize`.
        optimizer: as for `stylize`.
        steps: as for `stylize`.
        scales: as for `stylize`.
        style_weights: as for `stylize`.

    Raises:
        InputError: as `stylize` does.

    Example:
        >>> texture(params, style, key=jax.random.key(0), height=512, width=768).image  # doctest: +SKIP
    """
    for name, side in (("height", height), ("width", width)):
        check_whole(name, side)
    without_content: Any = getattr(objective, "without_content", None)
    if without_content is not None:
        objective = without_content()
    if tileable:
        if not isinstance(network, VGG19):
            raise InputError("tileable needs VGG-19 with circular padding, but the network is user-defined: drop it.")
        network = network.clone(padding="circular")
    options: dict[str, Any] = {"network": network, "optimizer": optimizer, "steps": steps, "scales": scales}
    options |= {"objective": objective, "key": key, "style_weights": style_weights}
    return stylize(params, jnp.zeros((height, width, 3)), styles, init="noise", **options)

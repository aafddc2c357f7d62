"""Style transfer (`stylize`), texture synthesis (`texture`) and reconstruction (`reconstruct`), coarse to fine."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxstyle.errors import InputError, check_whole, excerpt
from jaxstyle.images.resample import array_module
from jaxstyle.losses.layer_summaries import AnyNetwork, check_options, is_circular, sized_layers
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import check_picture, check_range, check_styles, listed
from jaxstyle.networks.conv import prepared, winograd_pays
from jaxstyle.networks.vgg import VGG19, Params
from jaxstyle.optim.loop import AnyObjective, History, image_on_host, init_state, run_steps
from jaxstyle.optim.optimizers import LBFGS, Optimizer, Transformation
from jaxstyle.transfer.color import Color, Styles, recolor
from jaxstyle.transfer.scale import enlarge, finish, initial_image, targets_for_scale
from jaxstyle.transfer.schedule import Scales, part_of, plan


def on_host(array: Any) -> Any:
    """Return a NumPy array, which is resized without compilation; traced arrays unchanged."""
    return np.asarray(array) if isinstance(array, jax.Array) and _is_readable(array) else array


def _is_readable(array: Any) -> bool:
    """Return whether an array is not traced and is on devices of this process."""
    return not isinstance(array, Tracer) and array.is_fully_addressable


class Result(NamedTuple):
    """Result of `stylize`."""

    image: jax.Array  # [H, W, 3] or [N, H, W, 3], in [0, 1]
    history: History  # of every term, [steps] or [N, steps]


class Inputs(NamedTuple):
    """Checked arrays on the host: `picture` is the content; `content` and `styles` are recolored."""

    picture: Any
    content: Any
    styles: list[Any]
    init: Any
    content_masks: Any
    style_masks: Any


def prepare_inputs(
    content: Any,
    styles: Styles,
    init: Any,
    content_masks: Any,
    style_masks: Any,
    *,
    objective: AnyObjective,
    network: AnyNetwork,
    color: Color,
) -> Inputs:
    """Check the arrays of `stylize`, move them to the host and recolor them."""
    if isinstance(objective, Objective):
        check_options(objective, network)
    picture = check_picture("content", on_host(content), in_range=True)
    styles = check_styles([jax.tree.map(on_host, style) for style in listed(styles)])
    content_masks, style_masks = jax.tree.map(on_host, (content_masks, style_masks))
    check_range("content mask", content_masks)
    check_range("style mask", style_masks)
    if not isinstance(init, str):
        init = check_picture("initial image", on_host(init), in_range=True)
    recolored, several = jax.tree.map(on_host, recolor(picture, styles, color=color))
    return Inputs(picture, recolored, several, init, content_masks, style_masks)


def check_key(key: Any) -> None:
    """Raise `InputError` unless `key` is None, or a random key or several of either kind of JAX."""
    dtype: Any = getattr(key, "dtype", None)
    if key is not None and not (dtype == np.uint32 and key.ndim or jnp.issubdtype(dtype, jax.dtypes.prng_key)):
        raise InputError(f"key is {excerpt(repr(key))}: use a random key, such as jax.random.key(0).")


def stylize(
    params: Params,
    content: jax.Array,
    styles: Styles,
    *,
    objective: AnyObjective = Objective(),
    network: AnyNetwork = VGG19(),
    optimizer: Optimizer | Transformation = LBFGS(),
    steps: int = 300,
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
        init: initial image: "content", "style", "noise" or an image of the shape of `content`.
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
        InputError: if an array is not an image or too small for the layers, if a value is not in [0, 1] (which cannot
            be checked under `jit`), or if scales, style weights or masks do not match the images.

    Example:
        >>> stylize(params, content, style, steps=100).image  # doctest: +SKIP

    Reference:
        Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
    """
    picture, content, several, init, content_masks, style_masks = prepare_inputs(
        content, styles, init, content_masks, style_masks, objective=objective, network=network, color=color
    )
    check_key(key)
    if checkpoint_segments is not None:
        check_whole("checkpoint_segments", checkpoint_segments)
    circular, layers = is_circular(network), sized_layers(network, objective.layers)
    options: dict[str, Any] = {"objective": objective, "network": network, "key": key, "style_weights": style_weights}
    options |= {"content_masks": content_masks, "style_masks": style_masks}
    image: Any = None
    histories = []
    size = content.shape[-3:-1]
    planned = plan(*size, steps=steps, scales=scales, layers=layers, circular=circular, passes=objective.passes)
    for number, scale in enumerate(planned):
        if image is None:
            image = initial_image(content, several, init, scale, key=key)
        else:
            image = enlarge(image, content, several, init, scale, circular=circular)
        part = part_of(planned, number)
        targets = targets_for_scale(params, content, several, scale, image=image, part=part, **options)
        state = init_state(image, objective=objective, optimizer=optimizer, circular=circular)
        ready = params
        if isinstance(network, VGG19):
            pixels = math.prod(image.shape[:-1])
            wide = winograd_pays(params, pixels=pixels, steps=scale.steps, layers=objective.layers)
            ready = prepared(params, precision=network.precision, conv=network.conv, use_winograd=wide)
        segments = checkpoint_segments and min(checkpoint_segments, scale.steps)
        state, history = run_steps(
            state, ready, targets, objective, network=network, steps=scale.steps, checkpoint_segments=segments
        )
        readable = all(map(_is_readable, jax.tree.leaves(state.parameters)))
        image = image_on_host(state) if readable else state.image
        histories.append(jax.tree.map(on_host, history))
    assert image is not None  # noqa: S101  # there is at least one scale
    joined = jax.tree.map(lambda *parts: array_module(*parts).concatenate(parts, axis=-1), *histories)
    return Result(finish(image, picture, several, color=color, content_masks=content_masks), joined)


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
    steps: int = 300,
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
    steps: int = 300,
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

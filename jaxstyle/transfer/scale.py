"""A style transfer as data, and what each of its scales starts from: initial image, targets and params.

`stylize` runs all steps of a scale in one program; `jaxstyle.runtime` runs a few at a time. Both run the scales
of a `Transfer` in order.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxstyle.errors import InputError, check_whole, excerpt
from jaxstyle.images.resample import array_module, half_shape, resample
from jaxstyle.losses.layer_summaries import AnyNetwork, check_options, is_circular, sized_layers
from jaxstyle.losses.masks import compose, cover
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.pixel import positive
from jaxstyle.losses.style import Summary
from jaxstyle.losses.targets import Style, Styling, check_picture, check_styles, listed, make_targets
from jaxstyle.networks.conv import prepared, winograd_pays
from jaxstyle.networks.vgg import VGG19, Params, smallest_side
from jaxstyle.optim.loop import AnyObjective, State, init_state
from jaxstyle.optim.optimizers import Optimizer
from jaxstyle.transfer.color import Color, Sizes, match, recolor, with_colors_of
from jaxstyle.transfer.oklab import chroma_transfer
from jaxstyle.transfer.resize import resize, resize_style
from jaxstyle.transfer.schedule import Scale, Scales, plan, shared_shape

PALETTE = 256  # maximum longest side of a style from which colors are taken, in pixels


def check_key(key: Any) -> None:
    """Raise `InputError` unless `key` is None, or a random key or several of either kind of JAX."""
    dtype: Any = getattr(key, "dtype", None)
    if key is not None and not (dtype == np.uint32 and key.ndim or jnp.issubdtype(dtype, jax.dtypes.prng_key)):
        raise InputError(f"key is {excerpt(repr(key))}: use a random key, such as jax.random.key(0).")


@dataclass(frozen=True)
class Transfer:
    """The arrays and options of `stylize`; `picture` is the content before it is recolored, `start` its `init`."""

    params: Params
    picture: Any
    content: Any
    styles: Any
    objective: AnyObjective
    network: AnyNetwork
    optimizer: Optimizer
    start: Any
    key: Any  # random key, or None
    steps: int
    scales: Scales = None
    color: Color = "none"
    style_weights: Any = None
    content_masks: Any = None
    style_masks: Sequence[Any] | None = None

    def checked(self) -> Self:
        """Return the transfer with checked arrays on the host, a list of styles, and recolored content and styles."""
        check_whole("steps", self.steps)
        check_key(self.key)
        if isinstance(self.objective, Objective):
            check_options(self.objective, self.network)
        picture = check_picture("content", on_host(self.content), in_range=True)
        styles = check_styles([jax.tree.map(on_host, style) for style in listed(self.styles)])
        content_masks, style_masks, start = jax.tree.map(on_host, (self.content_masks, self.style_masks, self.start))
        if not isinstance(start, str):
            start = check_picture("initial image", start, in_range=True)
        styling = Styling(self.key, self.style_weights, content_masks, style_masks)
        _, _, content_masks, style_masks = styling.checked(picture, len(styles))
        content, styles = jax.tree.map(on_host, recolor(picture, styles, color=self.color))
        masks: dict[str, Any] = {"content_masks": content_masks, "style_masks": style_masks}
        return replace(self, picture=picture, content=content, styles=styles, start=start, **masks)

    @cached_property
    def schedule(self) -> tuple[Scale, ...]:
        """The scales and their steps."""
        layers, passes = sized_layers(self.network, self.objective.layers), self.objective.passes
        options: dict[str, Any] = {"layers": layers, "circular": is_circular(self.network), "passes": passes}
        return plan(*self.content.shape[-3:-1], steps=self.steps, scales=self.scales, **options)

    @property
    def count(self) -> int:
        """Number of images that are optimized together."""
        return math.prod(self.content.shape[:-3])

    def initial_image(self, scale: Scale, previous: Any) -> Any:
        """Return the initial image of a scale, given the result of the previous one, None for the first scale."""
        size, circular = scale[:2], is_circular(self.network)
        if previous is None:
            return self._start(*size)
        if isinstance(self.start, str) and self.start == "noise":
            return resize(previous, *size, circular=circular)
        then, now = self._start(*previous.shape[-3:-1]), self._start(*size)
        # Only the change is enlarged, which preserves the detail of the initial image.
        change = resample(previous - then, *size, circular=circular)
        return array_module(now, change).clip(now + change, 0.0, 1.0)

    def _start(self, height: int, width: int) -> Any:
        """Return the initial image of this size, with the leading axis of the content."""
        content, start = self.content, self.start
        shape = (*content.shape[:-3], height, width, 3)
        if not isinstance(start, str):
            if start.ndim != content.ndim:
                raise InputError(
                    f"The initial image is {list(start.shape)}, but the content is {list(content.shape)}: "
                    "pass as many initial images as contents."
                )
            return resize(start, height, width)
        if start == "content":
            return resize(content, height, width)
        if start == "recolored":
            return resize(self._recolored, height, width)
        if start == "style":
            if isinstance(self.styles[0], Mapping):
                raise InputError("The initial image is the style, which has no picture: start from content or noise.")
            style = resize(self.styles[0], height, width)
            return array_module(style).broadcast_to(style, shape)
        if start == "noise":
            if self.key is None:
                raise InputError("The initial image is noise, which has no seed: pass key=jax.random.key(0).")
            return jax.random.uniform(self.key, shape, content.dtype)  # as in Gatys et al.
        names = "'content', 'recolored', 'style', 'noise'"
        raise InputError(f"The initial image {start!r} is unknown: use {names} or an image.")

    @cached_property
    def _recolored(self) -> Any:
        """The content with the mean and covariance of the styles' colors, see `color.match`."""
        if any(isinstance(style, Mapping) for style in self.styles):
            raise InputError("The initial image has the colors of a style, which has no picture: start from content.")
        return on_host(_with_style_colors(self.content, self._palettes, self.style_weights, self.content_masks))

    @property
    def _palettes(self) -> list[tuple[Any, Any]]:
        """The styles and their masks, reduced to few pixels for their colors."""
        palettes = []
        masks = [None] * len(self.styles) if self.style_masks is None else self.style_masks
        for style, mask in zip(self.styles, masks, strict=True):
            height, width, _ = style.shape
            size = shared_shape(height, width, min(PALETTE, max(height, width)))
            palettes.append((resize(style, *size), None if mask is None else resample(mask, *size, method="linear")))
        return palettes

    def targets(self, number: int, image: Any = None) -> Any:
        """Return the targets of a scale for its initial image, on which those of custom objectives depend."""
        scales = self.schedule
        repeats = number > 0 and scales[number][:2] == scales[number - 1][:2]
        return self.targets_of_size(*scales[number][:2], image=image, part=(number, repeats))

    def targets_of_size(
        self, height: int, width: int, *, image: Any = None, part: tuple[int, bool] = (0, False)
    ) -> Any:
        """Return the targets of an image, as of `make_targets`, and of half its size above `half_resolution_above`."""
        objective, network, content, content_masks = self.objective, self.network, self.content, self.content_masks
        longest = max(height, width)
        layers = sized_layers(network, objective.layers)
        style_layers = objective.style_layers if isinstance(objective, Objective) else objective.layers
        style_layers = sized_layers(network, style_layers)
        shrink = partial(resize_style, factor=longest / max(content.shape[-3:-1]), layers=style_layers)

        def resized(style: Style | Sizes) -> Style:
            if isinstance(style, Mapping):
                return _nearest(style, longest)
            return shrink(check_picture("style", style, style_layers, ranks=(3,)))

        if content_masks is not None and content_masks.shape[-2:] == content.shape[-3:-1]:
            content_masks = array_module(content_masks).stack([resize(mask, height, width) for mask in content_masks])
        style_masks = self.style_masks
        if style_masks is not None:
            style_masks = [None if mask is None else shrink(mask) for mask in style_masks]
        without_key = isinstance(objective, Objective) and objective.statistic != "sliced"
        targets = make_targets(
            self.params,
            resize(content, height, width),
            [resized(style) for style in self.styles],
            objective=objective,
            network=network,
            key=None if self.key is None or without_key else jax.random.fold_in(self.key, 1),
            style_weights=self.style_weights,
            content_masks=content_masks,
            style_masks=style_masks,
            image=image,
            part=part,
        )
        half, above = half_shape(height, width), getattr(objective, "half_resolution_above", None)
        if above is None or longest <= above or min(half) < max(map(smallest_side, layers), default=1):
            return targets
        return targets._replace(half=self.targets_of_size(*half))

    def uses_winograd(self, scale: Scale) -> bool:
        """Return whether Winograd convolution pays for its compilation at a scale of VGG-19."""
        pixels = self.count * scale.height * scale.width
        return winograd_pays(self.params, pixels=pixels, steps=scale.steps, layers=self.objective.layers)

    def ready(self, scale: Scale) -> Params:
        """Return the params prepared for the steps of a scale."""
        if not isinstance(self.network, VGG19):
            return self.params
        options: dict[str, Any] = {"precision": self.network.precision, "conv": self.network.conv}
        return prepared(self.params, **options, use_winograd=self.uses_winograd(scale))

    def begin(self, image: Any) -> State:
        """Return the initial state of a scale, given its initial image."""
        circular = is_circular(self.network)
        return init_state(image, objective=self.objective, optimizer=self.optimizer, circular=circular)

    def finish(self, image: Any) -> Any:
        """Return the picture at full size in its final colors, with the content outside of masks."""
        image = resize(image, *self.picture.shape[-3:-1])
        if self.color not in ("keep", "chroma") and self.content_masks is None:
            return image
        palettes = self._palettes if self.color == "chroma" else []
        return _finish(image, self.picture, palettes, self.style_weights, self.content_masks, color=self.color)


@partial(jax.jit, static_argnames="color")
def _finish(
    image: jax.Array,
    content: jax.Array,
    palettes: list[Any],
    style_weights: Any,
    content_masks: jax.Array | None,
    *,
    color: Color,
) -> jax.Array:
    """Return `image` in its final colors, and the content outside of its masks."""
    if color == "keep":
        image = with_colors_of(content, image)
    if color == "chroma":
        regions = content_masks
        if regions is not None:  # complete chroma at soft edges, which `compose` mixes
            regions = regions / positive(jnp.sum(regions, axis=0, keepdims=True))

        def of_image(image: jax.Array) -> jax.Array:
            recolored = partial(chroma_transfer, content, image=image)
            return _by_region(recolored, image, palettes, style_weights, regions)

        image = _map_images(of_image, image)
    return image if content_masks is None else compose(image, content, cover=cover(content_masks))


@jax.jit
def _with_style_colors(
    content: jax.Array, palettes: list[Any], style_weights: Any, content_masks: jax.Array | None
) -> jax.Array:
    """Return the content with the mean and covariance of the styles' colors, in each region those of its style."""
    regions = content_masks
    if regions is not None:  # overlapping regions mix
        regions = regions / jnp.maximum(jnp.sum(regions, axis=0, keepdims=True), 1.0)

    def of_image(content: jax.Array) -> jax.Array:
        matched = _by_region(partial(match, content), content, palettes, style_weights, regions)
        return jnp.clip(matched, 0.0, 1.0)

    return _map_images(of_image, content).astype(content.dtype)


def _by_region(
    recolored: Callable[..., jax.Array],
    image: jax.Array,
    palettes: list[Any],
    style_weights: Any,
    regions: jax.Array | None,
) -> jax.Array:
    """Return the image recolored by the pixels and weights of all styles, or in each region by those of its style."""
    pixels = [style.reshape(1, -1, 3) for style, _ in palettes]
    masks = [jnp.ones(style.shape[:2], style.dtype) if mask is None else mask for style, mask in palettes]
    masks = [jnp.where(jnp.any(mask > 0), mask, 1.0) for mask in masks]
    weights = [(mask / jnp.sum(mask)).reshape(1, -1) for mask in masks]
    if regions is None:
        of_styles = jnp.asarray([1.0] * len(palettes) if style_weights is None else style_weights, image.dtype)
        weights = [of_style * each for of_style, each in zip(of_styles, weights, strict=True)]
        return recolored(jnp.concatenate(pixels, axis=1), weights=jnp.concatenate(weights, axis=1))
    result = image
    for region, style, of_pixels in zip(regions, pixels, weights, strict=True):
        result += region[..., None] * (recolored(style, weights=of_pixels) - image)
    return result


def _map_images(function: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """Return the results for an image `[H, W, 3]`, or for each image of a batch."""
    return jax.vmap(function)(images) if images.ndim == 4 else function(images)


def _nearest(statistics: Mapping, side: int) -> Mapping[str, Summary]:
    if all(isinstance(layer, str) for layer in statistics):
        return statistics
    return statistics[min(statistics, key=lambda longest: abs(math.log(longest / side)))]


def style_sides(longest: int, scales: Sequence[Scale], *, objective: AnyObjective = Objective()) -> list[int]:
    """Return the longest sides for which a `Transfer` needs style statistics, in ascending order."""
    sides = {max(scale.height, scale.width) for scale in scales} | {longest}
    above = getattr(objective, "half_resolution_above", None) or longest

    def with_halves(side: int) -> set[int]:
        return {side} | (with_halves(half_shape(side, side)[0]) if side > above else set())

    return sorted(set().union(*map(with_halves, sides)))


def on_host(array: Any) -> Any:
    """Return a NumPy array, which is resized without compilation; traced arrays and other values unchanged."""
    return np.asarray(array) if isinstance(array, jax.Array) and is_readable(array) else array


def is_readable(array: Any) -> bool:
    """Return whether an array is not traced and is on devices of this process."""
    return not isinstance(array, Tracer) and array.is_fully_addressable

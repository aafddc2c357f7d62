r"""What is minimised: targets hold what an image is compared with, terms say how far off it is, the total weighs them.

The total is :math:`\sum_l a_l C_l + \sum_l b_l S_l + t\,TV`, with content terms C and style terms S by layer.
Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxstyle import losses, statistic, vgg
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.moments import Moments, moments
from jaxstyle.regions import compose
from jaxstyle.scales import half_shape, resample
from jaxstyle.strips import Rows
from jaxstyle.targets import Targets, check_picture, image_features
from jaxstyle.targets import make_targets as make_targets

Terms = dict[str, jax.Array]

# Pixels from which strips of the first block cost nothing: 1.05 of a step's time on two cores at 1024 x 768, with
# 0.62 of its memory, and 1.1 at a quarter of the pixels. With the second block it is 1.1 and 0.49.
LARGE = 2**19


def terms(params: vgg.Params, image: jax.Array, targets: Targets, *, config: Config) -> Terms:
    """Return the parts of the loss by name, before weighting.

    Args:
        params: the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        targets: of `make_targets`.
        config: the static facts that the targets were made with.

    Returns:
        `{"content/relu4_2": [...], "style/relu1_1": ..., "tv": ...}`, each with the leading axis of `image`.
        With targets for half the size, terms of content and style are the mean over both sizes: Snelgrove,
        *High-Resolution Multi-Scale Neural Texture Synthesis*, SIGGRAPH Asia 2017.

    Raises:
        InputError: if `image` is not a picture or too small for the layers.

    Example:
        >>> terms(params, image, targets, config=Config())["tv"]  # doctest: +SKIP
    """
    image = check_picture("image", image, config.content_layers + config.style_layers)
    image = painted(image, targets)
    parts = _compared(params, image, targets, config=config)
    parts["tv"] = losses.total_variation(
        config.pixel_range * image,
        form=config.tv_form,
        power=config.tv_power,
        reduction=config.pixel_reduction,
        circular=config.border == "circular",
    )
    return parts


def _compared(params: vgg.Params, image: jax.Array, targets: Targets, *, config: Config) -> Terms:
    """Return the terms of content and style: the means over both sizes where the image is compared at half its own."""
    height, width = image.shape[-3:-1]

    def read(layer: str, features: jax.Array, rows: Rows | None) -> dict[str, Any]:
        names = [name for name in _names(config) if name.partition("/")[2] == layer]
        return {name: _seen(name, features, targets, config=config, rows=rows) for name in names}

    seen = image_features(params, image, config=config, read=read, in_rows=blocks_in_rows(config, height * width))
    parts = {
        name: _term(name, seen[name.partition("/")[2]][name], targets, config=config, height=height, width=width)
        for name in _names(config)
    }
    if targets.half is None:
        return parts
    halved = resample(image, *half_shape(height, width), circular=config.border == "circular")
    coarse = _compared(params, halved, targets.half, config=config)
    return {name: (value + coarse[name]) / 2 for name, value in parts.items()}


def painted(image: jax.Array, targets: Targets) -> jax.Array:
    """Return `image` with the content wherever no region is to be painted.

    Args:
        image: `[..., H, W, 3]`.
        targets: of `make_targets`.

    Returns:
        `[..., H, W, 3]`; `image` itself without regions.

    Example:
        >>> painted(image, make_targets(params, content, style, config=Config()))  # doctest: +SKIP
    """
    regions = targets.regions
    return image if regions is None else compose(image, regions.backdrop, cover=regions.cover)


def gradient_factors(params: vgg.Params, image: jax.Array, targets: Targets, *, config: Config) -> Terms:
    """Return what each term is multiplied by so that its gradient, where it enters the network, sums to one.

    Johnson's neural-style (`-normalize_gradients`); total variation has no such factor there.

    Args:
        params: the network.
        image: `[H, W, 3]`, in [0, 1].
        targets: of `make_targets`.
        config: the static facts that the targets were made with.

    Returns:
        A factor for each of `terms`, 1 for "tv".

    Example:
        >>> gradient_factors(params, image, targets, config=Config())["tv"]  # doctest: +SKIP
    """
    image = painted(image, targets)
    features = image_features(params, image, config=config)
    height, width = image.shape[-3:-1]

    def term(x: jax.Array, name: str) -> jax.Array:
        seen = _seen(name, x, targets, config=config)
        return _term(name, seen, targets, config=config, height=height, width=width)

    factors = {"tv": jnp.ones(())}
    for name in _names(config):
        gradient = jax.grad(term)(features[name.partition("/")[2]], name)
        factors[name] = 1 / (jnp.sum(jnp.abs(gradient)) + 1e-8)
    return factors


def total(weights: LossWeights, terms: Mapping[str, jax.Array]) -> jax.Array:
    """Return the objective, the weighted sum of `terms`.

    Args:
        weights: the coefficients; a layer without one is an error, not a zero.
        terms: of `terms`.

    Returns:
        A scalar, or `[N]` for the terms of a batch.

    Raises:
        InputError: if the layers of `weights` are not those of `terms`.

    Example:
        >>> float(total(LossWeights({"relu4_2": 2.0}, {}, tv=1.0), {"content/relu4_2": jnp.ones(()), "tv": 3.0}))
        5.0
    """
    coefficients = {f"content/{layer}": weight for layer, weight in weights.content.items()}
    coefficients |= {f"style/{layer}": weight for layer, weight in weights.style.items()}
    coefficients["tv"] = weights.tv
    if coefficients.keys() != terms.keys():
        differ = ", ".join(sorted(coefficients.keys() ^ terms.keys()))
        raise InputError(
            f"The loss's weights and its terms differ in {differ}: give each layer of the config one weight."
        )
    return sum((jnp.asarray(weight) * terms[name] for name, weight in coefficients.items()), jnp.zeros(()))


def _names(config: Config) -> list[str]:
    return [f"content/{layer}" for layer in config.content_layers] + [f"style/{layer}" for layer in config.style_layers]


def blocks_in_rows(config: Config, pixels: int) -> tuple[int, ...]:
    """Return the blocks to go through in strips: the largest, if only sums over their pixels are read.

    Args:
        config: its `remat`, statistic and content layers count.
        pixels: of the image.

    Returns:
        Numbers of blocks.

    Example:
        >>> blocks_in_rows(Config(), 512 * 512), blocks_in_rows(Config(), 1024 * 768)
        ((), (1,))
    """
    blocks = (1, 2) if config.remat else (1,) if pixels >= LARGE else ()
    if config.statistic == "sliced":
        return ()
    return tuple(block for block in blocks if all(int(layer[4]) != block for layer in config.content_layers))


def _seen(name: str, features: jax.Array, targets: Targets, *, config: Config, rows: Rows | None = None) -> Any:
    """Return what a term needs of the features of its layer: moments, which add up over rows, or the features."""
    kind, _, layer = name.partition("/")
    if kind == "content" or config.statistic == "sliced":
        return features
    if targets.regions is not None:
        guides = targets.regions.guides[layer]
        guides = guides if rows is None else rows.cut(guides)
        return jax.vmap(lambda guide: moments(features, guide=guide))(guides)  # [R, ...]
    if rows is None:
        return moments(features)
    width = features.shape[-2]
    return moments(features, guide=rows.cut(jnp.full((rows.height, width), 1 / (rows.height * width))))


def _term(name: str, seen: Any, targets: Targets, *, config: Config, height: int, width: int) -> jax.Array:
    """Return one term from what was seen of its layer, of an image of that size."""
    kind, _, layer = name.partition("/")
    if kind == "content":
        return losses.squared_distance(seen, targets.content[layer], axes=3, divisor=config.content_divisor)
    side = vgg.smallest_side(layer)
    of_image = (height // side) * (width // side) / (height * width)
    channels = (seen.mean if isinstance(seen, Moments) else seen).shape[-1]
    scale = {"pixels": 1.0, "elements": 1 / channels, "image": of_image}[config.gram_divisor]
    distance = partial(
        statistic.distance, statistic=config.statistic, divisor=config.style_divisor, shift=config.shift, scale=scale
    )
    regions = targets.regions
    if regions is None:
        return distance(seen, targets.style[layer])
    if isinstance(seen, Moments):
        each = jax.vmap(distance)(seen, targets.style[layer])  # [R, ...]
    else:
        each = jax.vmap(lambda target, guide: distance(seen, target, guide=guide))(
            targets.style[layer], regions.guides[layer]
        )
    # by its share of the picture, so that style and content weigh in each pixel what they weigh without regions
    return jnp.tensordot(regions.shares, each, axes=1)

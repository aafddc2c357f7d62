r"""What is minimised: targets hold what an image is compared with, terms say how far off it is, the total weighs them.

The total is :math:`\sum_l a_l C_l + \sum_l b_l S_l + t\,TV`, with content terms C and style terms S by layer.
Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle import losses, vgg
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError

Terms = dict[str, jax.Array]


class Targets(NamedTuple):
    """What the image is held against.

    Attributes:
        content: the content's features by layer, `[..., H, W, C]`.
        style: the styles' Gram matrices by layer, `[C, C]`.
    """

    content: dict[str, jax.Array]
    style: dict[str, jax.Array]


@partial(jax.jit, static_argnames="config")
def make_targets(
    params: vgg.Params, content: jax.Array, styles: jax.Array | Sequence[jax.Array], *, config: Config
) -> Targets:
    """Return what an image is to be held against.

    Args:
        params: the network.
        content: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        styles: one picture `[H, W, 3]` of any size, or a sequence of them, whose Gram matrices are averaged.
        config: the static facts.

    Returns:
        Content features (with the leading axis of `content`) and Gram matrices.

    Raises:
        InputError: if an array is not a picture, or too small for the deepest layer asked for.

    Example:
        >>> make_targets(params, content, style, config=Config()).style["relu5_1"].shape  # doctest: +SKIP
        (512, 512)
    """
    pictures = list(styles) if isinstance(styles, Sequence) else [styles]
    if not pictures:
        raise InputError("There is no style: pass a picture, or a sequence of at least one.")
    content = check_picture("content", content, config.content_layers + config.style_layers)
    pictures = [check_picture("style", picture, config.style_layers, ranks=(3,)) for picture in pictures]
    statistics = [_grams(_features(params, picture, config), config) for picture in pictures]
    features = _features(params, content, config)
    return Targets(
        content={layer: features[layer] for layer in config.content_layers},
        style=jax.tree.map(lambda *grams: sum(grams) / len(grams), *statistics),
    )


def terms(params: vgg.Params, image: jax.Array, targets: Targets, *, config: Config) -> Terms:
    """Return the parts of the loss by name, before weighting.

    Args:
        params: the network.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        targets: of `make_targets`.
        config: the static facts that the targets were made with.

    Returns:
        `{"content/relu4_2": [...], "style/relu1_1": ..., "tv": ...}`, each with the leading axis of `image`.

    Raises:
        InputError: if `image` is not a picture or too small for the layers.

    Example:
        >>> terms(params, image, targets, config=Config())["tv"]  # doctest: +SKIP
    """
    image = check_picture("image", image, config.content_layers + config.style_layers)
    features = _features(params, image, config)
    grams = _grams(features, config)
    distance = partial(losses.squared_distance, divisor=config.divisor)
    parts = {}
    for layer in config.content_layers:
        parts[f"content/{layer}"] = distance(features[layer], targets.content[layer], axes=3)
    for layer in config.style_layers:
        parts[f"style/{layer}"] = distance(grams[layer], targets.style[layer], axes=2)
    parts["tv"] = losses.total_variation(
        config.pixel_range * image, power=config.tv_power, reduction=config.pixel_reduction
    )
    return parts


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


def check_picture(
    what: str, picture: jax.typing.ArrayLike, layers: tuple[str, ...] = (), *, ranks: tuple[int, ...] = (3, 4)
) -> jax.Array:
    """Return `picture` in float32 or wider, or say why it is none.

    Args:
        what: its role, for the message.
        picture: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        layers: activations that it must have pixels at.
        ranks: how many axes it may have.

    Returns:
        The array.

    Raises:
        InputError: if it has another shape, is not of floating point, or is too small for a layer.

    Example:
        >>> check_picture("content", np.zeros((32, 32, 3), np.float16), ("relu5_1",)).dtype
        dtype('float32')
    """
    array = jnp.asarray(picture)
    if array.ndim not in ranks or array.shape[-1] != 3 or not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"The {what} is an array {array.dtype}{list(array.shape)}, not a picture: pass float32 [H, W, 3] in [0, 1]."
        )
    *_, height, width, _ = array.shape
    for layer in layers:
        if min(height, width) < (side := vgg.smallest_side(layer)):
            raise InputError(
                f"The {what} is {width}x{height} pixels, but {layer} needs at least {side}x{side}: "
                "pass a larger picture or drop deep layers with --style-layers and --content-layers."
            )
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _features(params: vgg.Params, image: jax.Array, config: Config) -> dict[str, jax.Array]:
    return vgg.features(params, image, pooling=config.pooling, conv=config.conv)


def _grams(features: dict[str, jax.Array], config: Config) -> dict[str, jax.Array]:
    return {layer: losses.gram(features[layer], divisor=config.gram_divisor) for layer in config.style_layers}

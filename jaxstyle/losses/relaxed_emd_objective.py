r"""The objective of STROTSS: a relaxed earth mover's distance to the style, and the self-similarity of the content.

With the content weight a of a scale the total is :math:`(a L_c + L_r + L_m + L_p / \max(a, 1)) / (a + 2)`, see
`relaxed_emd`. It is evaluated at about 1,000 positions, drawn anew at each step.

Kolkin, Salavon and Shakhnarovich, *Style Transfer by Relaxed Optimal Transport and Self-Similarity*, arXiv:1904.12785.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError
from jaxstyle.losses import pixel
from jaxstyle.losses.layer_summaries import AnyNetwork, image_features, is_circular
from jaxstyle.losses.neighbor_objective import check_pictures
from jaxstyle.losses.neighbors import hypercolumns
from jaxstyle.losses.objective import static_field
from jaxstyle.losses.relaxed_emd import (
    MeanCovariance,
    color_distance,
    mean_covariance,
    moment_distance,
    relaxed_emd,
    sample_positions,
    self_similarity,
    weighted_positions,
)
from jaxstyle.losses.targets import network_of_styles

LAYERS = tuple("relu1_1 relu1_2 relu2_1 relu2_2 relu3_1 relu3_2 relu3_3 relu4_3 relu5_3".split())
FIRST_CONTENT_WEIGHT = 16.0  # at the first scale, halved at each of the next ones
# The moment term depends on the unit of activations. STROTSS divides colors in [0, 1] by a deviation of 0.225; Caffe's
# weights, which are ours, are for colors in [0, 255], and activations are nearly proportional to the input.
ACTIVATION_UNIT = 255 * 0.225


class RelaxedEmdTargets(NamedTuple):
    """Targets of a scale.

    Attributes:
        content: image and layers of the content, `[h, w, C]`, by name.
        styles: sampled vectors of each style, `[m, C]`; of one region, those of all styles.
        moments: mean and covariance of each of `styles`.
        shares: weight of each of `styles`, `[R]`; the sum is 1, or less where masks leave a part of the image out.
        regions: density of the positions of each of `styles`, `[R, H, W]`; None for the complete image.
        content_weight: a.
        key: random key of the positions.
    """

    content: dict[str, jax.Array]
    styles: tuple[jax.Array, ...]
    moments: tuple[MeanCovariance, ...]
    shares: jax.Array
    regions: jax.Array | None
    content_weight: jax.Array
    key: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RelaxedEmdObjective:
    """Optimal transport and self-similarity; a pytree whose leaves are its numbers.

    Several styles are one set of vectors. With style weights the weighted sum of the distances from each style is
    minimized; with content masks the distance from a style is that of its region.

    Deviations from STROTSS: VGG-19, or VGG-16 if the params are; activations of Caffe's weights, divided by
    `ACTIVATION_UNIT`; positions on a grid with random offsets, drawn once for the style; a range penalty; total
    variation is optional.

    Attributes:
        content_weight: factor of the content weight a, which is 16 at the first scale and is halved at each of the
            next ones; 0 ignores the content.
        tv: weight of total variation.
        range_penalty: weight of the penalty on values out of [0, 1].
        layers: layers of the hypercolumns, to which the image is added.
        positions: number of positions of the image at each step.
        samples: number of vectors of all styles.
    """

    content_weight: jax.typing.ArrayLike = 1.0
    tv: jax.typing.ArrayLike = 0.0
    range_penalty: jax.typing.ArrayLike = 100.0
    layers: tuple[str, ...] = static_field(LAYERS)
    positions: int = static_field(1024)
    samples: int = static_field(5000)

    def __post_init__(self) -> None:
        """Raise `InputError` if an option is out of range."""
        object.__setattr__(self, "layers", (self.layers,) if isinstance(self.layers, str) else tuple(self.layers))
        if min(self.positions, self.samples) < 2:
            raise InputError(f"{self.positions} positions and {self.samples} samples are too few: use at least 2.")

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names in the history."""
        return ("self_similarity", "relaxed_emd", "moments", "colors", "tv", "total", "range_penalty")

    @property
    def passes(self) -> int:
        """Number of runs at the last scale."""
        return 1

    def without_content(self) -> "RelaxedEmdObjective":
        """Return the objective of a texture, which does not use the content."""
        return replace(self, content_weight=0.0)

    def make_targets(
        self,
        params: Any,
        content: jax.Array,
        styles: Sequence[Any],
        *,
        network: AnyNetwork,
        key: jax.Array | None = None,
        style_weights: Any = None,
        content_masks: jax.Array | None = None,
        style_masks: Any = None,
        image: jax.Array | None = None,
        part: tuple[int, bool] = (0, False),
    ) -> RelaxedEmdTargets:
        """Return the targets of a scale.

        Arguments are those of `CustomObjective.make_targets`; `image` is not used. `key` chooses positions; None for
        key 0. Style weights are shares of the distance; without them the vectors of all styles are one set. Style masks
        are densities of positions.

        Raises:
            InputError: for statistics in place of a style, a batch of contents, or a network with tiles.
        """
        check_pictures(content, styles, network)
        key = jax.random.key(0) if key is None else key
        apart = content_masks is not None or style_weights is not None
        masks = [None] * len(styles) if style_masks is None else list(style_masks)
        inputs = params, content, list(styles), masks, key
        of_content, groups, moments = self._features(*inputs, network=network, apart=apart)
        if content_masks is not None:
            shares = jnp.mean(content_masks, axis=(1, 2))
        elif style_weights is not None:
            shares = jnp.asarray(style_weights, jnp.float32)
            shares /= jnp.sum(shares)
        else:
            shares = jnp.ones(1, jnp.float32)
        weight = jnp.asarray(FIRST_CONTENT_WEIGHT * self.content_weight / 2 ** part[0], jnp.float32)
        return RelaxedEmdTargets(of_content, groups, moments, shares, content_masks, weight, key)

    @partial(jax.jit, static_argnames=("network", "apart"))
    def _features(self, params: Any, content: jax.Array, styles: Any, masks: Any, key: Any, *, network, apart) -> Any:
        """Return the layers of the content, and vectors `[m, C]` and their moments, of each style or of all."""
        features = partial(image_features, params, network=network, layers=self.layers)
        of_style = partial(image_features, params, network=network_of_styles(network), layers=self.layers)
        samples = self.samples if apart else max(2, self.samples // len(styles))
        vectors = []
        for number, (style, mask) in enumerate(zip(styles, masks, strict=True)):
            key_of_style = jax.random.fold_in(key, number)
            if mask is None:
                positions: Any = sample_positions(*style.shape[:2], key=key_of_style, count=samples)
            else:
                positions = weighted_positions(mask, key=key_of_style, count=samples)
            vectors.append(_columns(_with_image(style, of_style(style)), positions))
        groups = tuple(vectors) if apart else (jnp.concatenate(vectors),)
        return _with_image(content, features(content)), groups, tuple(map(mean_covariance, groups))

    def value(
        self, params: Any, image: jax.Array, targets: Any, *, network: AnyNetwork, step: jax.typing.ArrayLike = 0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the value to minimize and all of `term_names`, see `CustomObjective.value`."""
        layers = _with_image(image, image_features(params, image, network=network, layers=self.layers))
        grid, *keys = jax.random.split(jax.random.fold_in(targets.key, step), 1 + len(targets.styles))
        even = sample_positions(*image.shape[:2], key=grid, count=self.positions)
        vectors = _columns(layers, even)
        similarity = self_similarity(vectors, _columns(targets.content, even))
        by_region = []
        for number, (style, moments, key) in enumerate(zip(targets.styles, targets.moments, keys, strict=True)):
            if targets.regions is not None:
                at_region = weighted_positions(targets.regions[number], key=key, count=self.positions)
                vectors = _columns(layers, at_region)
            transport = relaxed_emd(vectors, style)
            colors = color_distance(vectors[:, :3], style[:, :3])
            by_region.append(jnp.stack([transport, moment_distance(mean_covariance(vectors), moments), colors]))
        transport, moments, colors = jnp.tensordot(targets.shares, jnp.stack(by_region), axes=1)
        a = targets.content_weight
        distance = (a * similarity + transport + moments + colors / jnp.maximum(a, 1.0)) / (a + 2)
        tv, penalty = pixel.total_variation(image, circular=is_circular(network)), pixel.out_of_range(image)
        total = jnp.asarray(distance + self.tv * tv)
        values = (similarity, transport, moments, colors, tv, total, penalty)
        terms = dict(zip(self.term_names, values, strict=True))
        return jnp.asarray(total + self.range_penalty * penalty), terms


def _columns(layers: dict[str, jax.Array], positions: Any) -> jax.Array:
    """Return hypercolumns, `[n, C]`."""
    columns = hypercolumns(layers, positions, divisor="none")
    return columns.reshape(-1, columns.shape[-1])


def _with_image(image: jax.Array, layers: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"image": image, **{name: layer / ACTIVATION_UNIT for name, layer in layers.items()}}

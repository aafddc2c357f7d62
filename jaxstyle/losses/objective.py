r"""The objective as data: weights of the loss terms, layers, and the options of each term.

The total is :math:`\sum_l a_l C_l + \sum_l b_l S_l + t\,TV` with content terms C and style terms S by layer.
Gatys, Ecker and Bethge, *A Neural Algorithm of Artistic Style*, arXiv:1508.06576. `loss_terms` computes it.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import jax

from jaxstyle.errors import InputError, excerpt
from jaxstyle.losses import pixel
from jaxstyle.losses.style import Statistic

Term = Callable[[jax.Array, Mapping[str, jax.Array], Any], jax.typing.ArrayLike]
"""Extra term: a function of an image `[H, W, 3]`, its activations by layer and the `Targets` that returns a number.

For a batch, image and activations have a leading axis, and the term returns `[N]`.
"""

GramNormalization = Literal["pixels", "elements", "image"]

CONTENT_LAYERS = ("relu4_2",)
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
BUILT_IN = ("tv", "total", "range_penalty")


@runtime_checkable
class CustomObjective(Protocol):
    """User-defined objective: a registered pytree whose leaves are its numbers.

    For `stylize.texture` a method `without_content` may return the objective that ignores the content.

    `make_targets` and `value` are traced, as by `jax.jit`; `value` is mapped over the images of a batch.

    Attributes:
        layers: names of all layers that it reads.
        term_names: names in the history, among them "total"; the keys of the metrics of `value`.
        passes: number of runs at the last scale, each with separate targets.
    """

    @property
    def layers(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def term_names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def passes(self) -> int: ...  # noqa: D102

    def make_targets(
        self,
        params: Any,
        content: jax.Array,
        styles: Any,
        *,
        network: Any,
        key: Any,
        style_weights: Any,
        content_masks: Any,
        style_masks: Any,
        image: Any,
        part: tuple[int, bool],
    ) -> Any:
        """Return a pytree of targets for one scale.

        `content` is `[H, W, 3]`, and `styles` a sequence of images `[h, w, 3]` or statistics.
        `key` to `style_masks` are as for `targets.make_targets`; `image` is the initial image of the scale or None, and
        `part` the number of the scale, and whether it repeats the size of the one before.
        """

    def value(
        self, params: Any, image: jax.Array, targets: Any, *, network: Any, step: jax.typing.ArrayLike
    ) -> tuple[jax.Array, dict]:
        """Return the value to minimize, `[]`, for an image `[H, W, 3]` at a step from 0, and the metrics by name."""
        ...


class BatchTargets(NamedTuple):
    """Targets of a custom objective for a batch: those of each image, with a leading axis."""

    each: Any


def static_field(default: Any) -> Any:
    """Return a field of a data class that is no leaf of its pytree."""
    return field(default=default, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Objective:
    """Weights and options of the loss; a pytree whose leaves are the weights, for sweeps, `vmap` and derivatives.

    The defaults are those of preset `jaxstyle`. Layers are used in sorted order. Other static options trigger a
    recompilation, other weights do not. Extra terms are hashed by identity.

    Attributes:
        content: weight of each content layer; content terms compare features pixel by pixel.
        style: weight of each style layer; style terms compare a statistic.
        tv: weight of total variation.
        range_penalty: weight of the penalty on values out of [0, 1], which is minimized but is not part of the total.
        extra: weight of each extra term.
        extra_terms: extra terms by name, see `Term`. They exclude row chunks and tiles. Above `half_resolution_above`
            each term is the mean of its values at full and half resolution.
        extra_layers: layers that extra terms receive besides those of content and style.
        statistic: "gram", "mean_std", "covariance", "wasserstein" or "sliced", see `style.distance`.
        shift: number added to features before their Gram matrices, see `style.gram`.
        content_normalization: normalization of content terms, by the "energy" of the target, the number of "elements",
            or "none".
        style_normalization: normalization of style terms, as for content.
        gram_normalization: normalization of Gram matrices, by the number of "pixels" or "elements" of their layer, or
            by the number of pixels of the "image".
        tv_form: form of total variation, "separate", "joint" or "nine_point", see `pixel.total_variation`.
        tv_power: exponent of total variation.
        pixel_reduction: reduction of total variation and range penalty over pixels, "mean" or "sum".
        pixel_range: value of white in these two terms, such as 1 or 255.
        half_resolution_above: longest side in pixels above which the objective also includes the image at half
            resolution, so that large images have large structures too; None for never.
        normalize_gradients: divide the gradient of each built-in term, where it enters the network, by its sum of
            absolute values.
    """

    content: Mapping[str, jax.typing.ArrayLike] = field(default_factory=lambda: dict.fromkeys(CONTENT_LAYERS, 1.0))
    style: Mapping[str, jax.typing.ArrayLike] = field(default_factory=lambda: dict.fromkeys(STYLE_LAYERS, 6.0))
    tv: jax.typing.ArrayLike = 5.0
    range_penalty: jax.typing.ArrayLike = 1e4
    extra: Mapping[str, jax.typing.ArrayLike] = field(default_factory=dict)
    extra_terms: Mapping[str, Term] | Iterable[tuple[str, Term]] = static_field(())
    extra_layers: tuple[str, ...] = static_field(())
    statistic: Statistic = static_field("gram")
    shift: float = static_field(0.0)
    content_normalization: pixel.Normalization = static_field("energy")
    style_normalization: pixel.Normalization = static_field("energy")
    gram_normalization: GramNormalization = static_field("pixels")
    tv_form: pixel.Variation = static_field("separate")
    tv_power: float = static_field(2)
    pixel_reduction: pixel.Reduction = static_field("mean")
    pixel_range: float = static_field(1.0)
    half_resolution_above: int | None = static_field(512)
    normalize_gradients: bool = static_field(False)

    def __post_init__(self) -> None:
        """Check names and options; weights may be traced."""
        for name in ("content", "style", "extra"):
            value = getattr(self, name)
            if isinstance(value, str | tuple | list | set):
                raise InputError(f"{name} is {excerpt(repr(value))}: pass a weight for each name, such as {{name: 1}}.")
            if isinstance(value, Mapping):
                object.__setattr__(self, name, dict(value))  # a pytree, and a copy
        object.__setattr__(self, "extra_terms", _named_terms(self.extra_terms))
        layers = (self.extra_layers,) if isinstance(self.extra_layers, str) else tuple(self.extra_layers)
        object.__setattr__(self, "extra_layers", layers)
        for name, kind in _CHOICES.items():
            if (value := getattr(self, name)) not in (allowed := get_args(kind)):
                raise InputError(f"{name} {excerpt(repr(value))} is unknown: use {' or '.join(map(repr, allowed))}.")
        if isinstance(self.extra, dict) and (twice := ", ".join(sorted(self.extra.keys() & {*BUILT_IN}))):
            raise InputError(f"extra has {twice}, which is a built-in term: use another name.")
        if not 1 <= self.tv_power < math.inf:
            raise InputError(f"tv_power is {self.tv_power}: use a number from 1.")
        if self.half_resolution_above is not None and not self.half_resolution_above >= 1:
            raise InputError(f"half_resolution_above is {self.half_resolution_above}: use at least 1 pixel, or None.")

    def without_content(self) -> "Objective":
        """Return the objective of a texture, without content layers."""
        return replace(self, content={})

    @property
    def content_layers(self) -> tuple[str, ...]:
        """Names of the content layers, sorted."""
        return tuple(sorted(self.content))

    @property
    def style_layers(self) -> tuple[str, ...]:
        """Names of the style layers, sorted."""
        return tuple(sorted(self.style))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers in use, without duplicates."""
        return tuple(dict.fromkeys(self.content_layers + self.style_layers + self.extra_layers))

    @property
    def layer_terms(self) -> tuple[str, ...]:
        """Names of the content and style terms, such as "content/relu4_2"."""
        content = (f"content/{layer}" for layer in self.content_layers)
        return (*content, *(f"style/{layer}" for layer in self.style_layers))

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names in the history of a run: all terms, the total and the range penalty."""
        return (*self.layer_terms, *dict(self.extra_terms), *BUILT_IN)

    @property
    def passes(self) -> int:
        """Number of runs at the last scale."""
        return 1

    @property
    def complete_layers(self) -> tuple[str, ...]:
        """Layers of which a term needs all features at once, not only sums over their pixels."""
        if self.extra_terms:
            return self.layers
        return self.content_layers + (self.style_layers if self.statistic == "sliced" else ())

    def without_weights(self) -> "Objective":
        """Return the objective with all weights zero, so that programs that do not use them are shared."""
        return jax.tree.map(lambda _: 0.0, self)


_CHOICES = {
    "statistic": Statistic,
    "content_normalization": pixel.Normalization,
    "style_normalization": pixel.Normalization,
    "gram_normalization": GramNormalization,
    "tv_form": pixel.Variation,
    "pixel_reduction": pixel.Reduction,
}


def _named_terms(terms: Mapping[str, Term] | Iterable[tuple[str, Term]]) -> tuple[tuple[str, Term], ...]:
    """Return extra terms in hashable form; check their names and that they are callable."""
    pairs = tuple(dict(terms).items())
    for name, term in pairs:
        if not name or name in BUILT_IN or "/" in name:
            problem = f"An extra term cannot be named {excerpt(repr(name))}"
            raise InputError(f"{problem}: use a name without '/', not {BUILT_IN}.")
        if not callable(term):
            raise InputError(f"The extra term {excerpt(repr(name))} is {excerpt(repr(term))}: pass a function.")
    return pairs

"""Configuration of a run: static options (`Config`) and weights of the loss (`LossWeights`).

A config selects the compiled program; weights are arguments of that program. User-supplied terms, networks, optimizers
and parametrizations are pure functions, hashed by identity; a new function object triggers a recompilation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeGuard, get_args

import jax

from jaxstyle.errors import InputError, excerpt
from jaxstyle.networks import vgg
from jaxstyle.networks.conv import PRODUCTS, Precision, conv3x3
from jaxstyle.networks.user_network import Network

if TYPE_CHECKING:  # the losses import this module
    from jaxstyle.losses import pixel
    from jaxstyle.losses.style import Statistic

Term = Callable[[jax.Array, Mapping[str, jax.Array], Any], jax.typing.ArrayLike]
"""Extra term: a function of an image `[H, W, 3]`, its activations by layer and the `Targets` that returns a number.

For a batch, image and activations have a leading axis, and the term returns `[N]`.
"""


class Parametrization(NamedTuple):
    """Parametrization of an image: two pure functions, inverse to each other.

    Attributes:
        encode: maps an image `[H, W, 3]` in [0, 1] to the pytree of arrays that is optimized.
        decode: maps such a pytree to the image, without clipping.
    """

    encode: Callable[[jax.Array], Any]
    decode: Callable[[Any], jax.Array]


class Optimizer(Protocol):
    """Gradient transformation of Optax; it may take `value`, `grad` and `value_fn`, as line searches do.

    Attributes:
        init: maps parameters to the optimizer state.
        update: maps gradients, state and parameters to updates and the new state.
    """

    @property
    def init(self) -> Callable[..., Any]: ...  # noqa: D102

    @property
    def update(self) -> Callable[..., Any]: ...  # noqa: D102


BUILT_IN = ("tv", "total", "bounds")


def is_optimizer(value: object) -> TypeGuard[Optimizer]:
    """Return whether `value` is a user-defined optimizer.

    Args:
        value: any object.

    Returns:
        Whether it has callable `init` and `update`.

    Example:
        >>> is_optimizer("adam")
        False
    """
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def named_terms(terms: Mapping[str, Term] | Iterable[tuple[str, Term]]) -> tuple[tuple[str, Term], ...]:
    """Return extra terms in hashable form.

    Args:
        terms: functions by name.

    Returns:
        Pairs of name and function.

    Raises:
        InputError: if a name is that of a built-in term or contains a slash, or if a term is not callable.

    Example:
        >>> def darkness(image, activations, targets):
        ...     return 1 - image.mean((-3, -2, -1))
        >>> [name for name, _ in named_terms({"darkness": darkness})]
        ['darkness']
    """
    pairs = tuple(dict(terms).items())
    for name, term in pairs:
        if not name or name in BUILT_IN or "/" in name:
            raise InputError(
                f"An extra term cannot be named {excerpt(repr(name))}: use a name without '/', not {BUILT_IN}."
            )
        if not callable(term):
            raise InputError(f"The extra term {excerpt(repr(name))} is {excerpt(repr(term))}: pass a function.")
    return pairs


CONTENT_LAYERS = ("relu4_2",)
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

Parametrizations = Literal["pixels", "pyramid", "decorrelated", "fourier", "sigmoid"]
Color = Literal["none", "keep", "match", "match-cholesky", "histogram"]


# Of lbfgs: 20 pairs gave totals 0.5 to 1.7 % below those of 10 in three runs at 256 pixels. In large images the pairs
# would take most of the memory.
PAIRS, PAIRS_OF_MANY_PIXELS, MANY_PIXELS = 20, 10, 2**20


@dataclass(frozen=True)
class Config:
    """Static options of a run; hashable. A different config triggers a recompilation.

    Attributes:
        content_layers: layers of the content loss, compared pixel by pixel.
        style_layers: layers of the style loss, compared by a statistic.
        statistic: "gram", "mean_std", "covariance", "wasserstein" or "sliced", see `style.distance`.
        shift: number added to features before their Gram matrices, see `moments.gram`.
        pooling: "max", "avg" or "l2", see `vgg.VGG19`.
        pooling_gain: factor of pooled layers.
        border: padding, "zeros", "replicate" or "circular", see `vgg.VGG19`.
        white: input scale, the value of white in the network's units.
        precision: precision of convolutions, "float32", "tf32" or "bfloat16", see `vgg.VGG19`.
        remat: recompute the first two blocks, which have the largest activations, in row chunks for the gradient
            instead of storing them. Always on for the first block in images of 2**19 pixels or more; never for a block
            with a content layer, and never with the statistic "sliced".
        block_pixels: process larger images in overlapping tiles of at most this many pixels, see `tiling`: the same
            objective and gradient in less memory and about twice the time; None for never. Not with the statistic
            "sliced" or normalized gradients.
        conv: convolution, see `vgg.VGG19`.
        content_divisor: normalization of content terms, by the "energy" of the target, the number of "elements", or
            "none".
        style_divisor: normalization of style terms, as for content.
        gram_divisor: normalization of Gram matrices, by the number of "pixels" or "elements" of their layer, or by the
            number of pixels of the "image".
        tv_form: form of total variation, "separate", "joint" or "nine_point", see `pixel.total_variation`.
        tv_power: exponent of total variation.
        pixel_reduction: reduction of total variation and range penalty over pixels, "mean" or "sum".
        pixel_range: value of white in these two terms, such as 1 or 255.
        color: color of the result, see `stylize.stylize`.
        scales: number of scales, whose longest sides are a geometric series from 128 pixels, or their longest sides,
            the largest that of the result; None for a number of scales that starts near 128 pixels.
        halve_above: longest side in pixels above which the objective also includes the image at half resolution, so
            that large images have large structures too; None for never.
        optimizer: "lbfgs", "adam", or any gradient transformation of Optax. With the latter the image is not clipped,
            and differentiation through steps follows its rules: `optax.adam` needs `eps_root` above 0, a line search
            supports forward mode only.
        learning_rate: step size; None for 1 (lbfgs) or 0.02 (adam).
        memory: history size of lbfgs, its number of curvature pairs; None for 20, and for 10 from 2^20 pixels up.
        betas: decay rates of adam's two moments.
        epsilon: number that adam adds to the denominator.
        averaging: decay of the exponential moving average of iterates, which is then the result; 0 for none.
        tolerance: stop when the total falls by less than this fraction in 10 steps; 0 for never.
        patience: number of steps without a new lowest value of the objective after which lbfgs drops its history, and
            the second time stops; 0 for never. No effect with normalized gradients.
        normalize_gradients: divide the gradient of each built-in term, where it enters the network, by its sum of
            absolute values.
        parametrization: "pixels", "pyramid", "decorrelated", "fourier" or "sigmoid", see `parametrizations`, or a
            user-defined one; None for pyramid (lbfgs) or pixels (all others).
        own_terms: extra terms by name, see `config.Term`. They exclude row chunks and tiles. Above `halve_above` each
            term is the mean of its values at full and half resolution.
        own_layers: layers that extra terms receive besides those of content and style.
        network: user-defined network instead of VGG-19, see `user_network.Network`. Options of VGG-19, such as pooling,
            border and precision, do not apply to it.
    """

    content_layers: tuple[str, ...] = CONTENT_LAYERS
    style_layers: tuple[str, ...] = STYLE_LAYERS
    statistic: Statistic = "gram"
    shift: float = 0.0
    pooling: vgg.Pooling = "max"
    pooling_gain: float = 1.0
    border: vgg.Padding = "zeros"
    white: float = 255.0
    precision: Precision = "tf32"
    remat: bool = False
    block_pixels: int | None = None
    conv: Callable[..., jax.Array] = conv3x3
    content_divisor: pixel.Divisor = "energy"
    style_divisor: pixel.Divisor = "energy"
    gram_divisor: Literal["pixels", "elements", "image"] = "pixels"
    tv_form: pixel.Variation = "separate"
    tv_power: float = 2
    pixel_reduction: pixel.Reduction = "mean"
    pixel_range: float = 1.0
    color: Color = "none"
    scales: int | tuple[int, ...] | None = None
    halve_above: int | None = 512
    optimizer: Literal["lbfgs", "adam"] | Optimizer = "lbfgs"
    learning_rate: float | None = None
    memory: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    averaging: float = 0.0
    tolerance: float = 0.0
    patience: int = 30
    normalize_gradients: bool = False
    parametrization: Parametrizations | Parametrization | None = None
    own_terms: Mapping[str, Term] | tuple[tuple[str, Term], ...] = ()
    own_layers: tuple[str, ...] = ()
    network: Network | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: if an option is unknown, out of range or incompatible with another.
        """
        object.__setattr__(self, "own_terms", named_terms(self.own_terms))
        for name in ("content_layers", "style_layers", "own_layers"):
            layers = getattr(self, name)
            if isinstance(layers, Mapping):
                raise InputError(
                    f"{name} is {excerpt(repr(layers))}: name layers here, and pass their weights as LossWeights."
                )
            object.__setattr__(self, name, (layers,) if isinstance(layers, str) else tuple(layers))  # hashable
        for name in ("scales", "betas"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        for layer in self.sized(self.layers):
            vgg.smallest_side(layer)
        if not self.layers and not self.own_terms:
            raise InputError("There are no content layers and no style layers: name at least one.")
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed and not self._is_own(name):
                raise InputError(f"{name} {excerpt(repr(value))} is unknown: use {' or '.join(map(repr, allowed))}.")
        for name, (least, most, cure) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value < most:
                raise InputError(f"{name} is {value}: use {cure}.")
        if self.block_pixels is not None and (cause := self.whole_only):
            raise InputError(f"block_pixels is {self.block_pixels}, but {cause} cannot be computed in tiles: use None.")
        if self._is_own("optimizer"):
            defaults = {field.name: field.default for field in fields(self)}
            for name in ("learning_rate", "memory", "betas", "epsilon"):
                if (value := getattr(self, name)) != defaults[name]:
                    raise InputError(
                        f"{name} is {excerpt(repr(value))}, but the optimizer is user-defined: set it there."
                    )
        if self.network is not None and not callable(self.network):
            raise InputError(f"network is {excerpt(repr(self.network))}: pass a function of params and an image.")
        if self.network is not None and self.gram_divisor == "image":
            raise InputError("gram_divisor is 'image', but the network is user-defined: use 'pixels' or 'elements'.")
        counts = isinstance(self.scales, tuple) and all(isinstance(side, int) for side in self.scales) and self.scales
        if not (self.scales is None or isinstance(self.scales, int) or counts):
            raise InputError(f"scales is {excerpt(repr(self.scales))}: use their number, or their longest sides.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas are {self.betas}: use two numbers from 0 and below 1.")

    def _is_own(self, name: str) -> bool:
        value = getattr(self, name)
        if name == "parametrization":
            return isinstance(value, Parametrization)
        return name == "optimizer" and is_optimizer(value)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers in use, without duplicates."""
        return tuple(dict.fromkeys(self.content_layers + self.style_layers + self.own_layers))

    @property
    def whole_only(self) -> str | None:
        """Name of the first option that excludes tiles because it needs complete layers; None without one."""
        causes = {
            "sliced statistics": self.statistic == "sliced",
            "normalized gradients": self.normalize_gradients,
            "extra terms": bool(self.own_terms),
            "activations of a user-defined network": self.network is not None,
        }
        return next((cause for cause, given in causes.items() if given), None)

    def sized(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Return the `layers` whose size follows from the image size: all of VGG-19, none of a user-defined network."""
        return layers if self.network is None else ()

    def pairs(self, pixels: int) -> int:
        """Return the history size of lbfgs for an image of this many pixels."""
        if self.memory is not None:
            return self.memory
        return PAIRS if pixels < MANY_PIXELS else PAIRS_OF_MANY_PIXELS

    @property
    def style_border(self) -> vgg.Padding:
        """Padding of style images, which is never circular."""
        return "zeros" if self.border == "circular" else self.border


_CHOICES = {
    "statistic": ("gram", "mean_std", "covariance", "wasserstein", "sliced"),
    "pooling": ("max", "avg", "l2"),
    "border": ("zeros", "replicate", "circular"),
    "precision": tuple(PRODUCTS),
    "content_divisor": ("energy", "elements", "none"),
    "style_divisor": ("energy", "elements", "none"),
    "gram_divisor": ("pixels", "elements", "image"),
    "tv_form": ("separate", "joint", "nine_point"),
    "pixel_reduction": ("mean", "sum"),
    "color": ("none", "keep", "match", "match-cholesky", "histogram"),
    "optimizer": ("lbfgs", "adam"),
    "parametrization": (None, *get_args(Parametrizations)),
}
_LEAST, _MOST, _INT32 = 1e-30, math.inf, 2**31
_RANGES = {
    "memory": (1, _INT32, f"1 to {_INT32 - 1} pairs"),
    "block_pixels": (1, _MOST, "at least 1 pixel, or None"),
    "halve_above": (1, _MOST, "at least 1 pixel, or None"),
    "learning_rate": (_LEAST, 1e38, "a positive number below 1e38"),
    "tv_power": (1, _MOST, "a number from 1"),
    "averaging": (0, 1, "a number from 0 and below 1, such as 0.99"),
    "tolerance": (0, 1, "a number from 0 and below 1, such as 0.001"),
    "patience": (0, _INT32, f"1 to {_INT32 - 1} steps, or 0 for never"),
    "epsilon": (0, _MOST, "a number from 0"),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms: a pytree of numbers, for sweeps, `vmap` and derivatives.

    The defaults are those of preset `jaxstyle`.

    Attributes:
        content: weight of each content layer.
        style: weight of each style layer.
        tv: weight of total variation.
        bounds: weight of the range penalty, which is minimized but is not part of the total.
        own: weight of each extra term, `Config.own_terms`.
    """

    content: Mapping[str, jax.typing.ArrayLike] = field(default_factory=lambda: dict.fromkeys(CONTENT_LAYERS, 1.0))
    style: Mapping[str, jax.typing.ArrayLike] = field(default_factory=lambda: dict.fromkeys(STYLE_LAYERS, 6.0))
    tv: jax.typing.ArrayLike = 5.0
    bounds: jax.typing.ArrayLike = 1e4
    own: Mapping[str, jax.typing.ArrayLike] = field(default_factory=dict)

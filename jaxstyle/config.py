"""What a run is told: a config of static facts, and the weights that each term of the loss counts with.

A config selects the program and is never swept inside one; weights are numbers that go into it. User-supplied terms,
networks, optimizers and parametrizations are pure functions, hashed by identity: a new function object is compiled
again.
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
"""Takes an image `[H, W, 3]`, its activations by layer, and the `Targets`; returns a number.

With a leading axis on image and activations it returns one for each, `[N]`.
"""


class Parametrization(NamedTuple):
    """What an image is written as while it is optimised: two pure functions, inverse to each other.

    Attributes:
        encode: takes an image `[H, W, 3]` in [0, 1]; returns a pytree of arrays that it is written as.
        decode: takes such a pytree; returns the image, not clipped.
    """

    encode: Callable[[jax.Array], Any]
    decode: Callable[[Any], jax.Array]


class Optimizer(Protocol):
    """What Optax calls a gradient transformation; it may take `value`, `grad` and `value_fn`, as line searches do.

    Attributes:
        init: takes parameters; returns its state.
        update: takes gradients, its state and parameters; returns updates and its state.
    """

    @property
    def init(self) -> Callable[..., Any]: ...  # noqa: D102

    @property
    def update(self) -> Callable[..., Any]: ...  # noqa: D102


BUILT_IN = ("tv", "total", "bounds")


def is_optimizer(value: object) -> TypeGuard[Optimizer]:
    """Return whether `value` is an optimiser of one's own.

    Args:
        value: what was given for one.

    Returns:
        Whether it can begin and go on.

    Example:
        >>> is_optimizer("adam")
        False
    """
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def named_terms(terms: Mapping[str, Term] | Iterable[tuple[str, Term]]) -> tuple[tuple[str, Term], ...]:
    """Return terms of one's own in a form that can be hashed.

    Args:
        terms: functions by name.

    Returns:
        Pairs of name and function.

    Raises:
        InputError: if a name is that of a built-in term or has a slash, as those of layers have, or if a term is none.

    Example:
        >>> def darkness(image, activations, targets):
        ...     return 1 - image.mean((-3, -2, -1))
        >>> [name for name, _ in named_terms({"darkness": darkness})]
        ['darkness']
    """
    pairs = tuple(dict(terms).items())
    for name, term in pairs:
        if not name or name in BUILT_IN or "/" in name:
            raise InputError(f"A term cannot be called {excerpt(repr(name))}: take a name without '/', not {BUILT_IN}.")
        if not callable(term):
            raise InputError(f"The term {excerpt(repr(name))} is {excerpt(repr(term))}: pass a function.")
    return pairs


CONTENT_LAYERS = ("relu4_2",)
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

Parametrizations = Literal["pixels", "pyramid", "decorrelated", "fourier", "sigmoid"]
Color = Literal["none", "keep", "match", "match-cholesky", "histogram"]


# Of lbfgs: totals with 20 pairs were 0.5 to 1.7 % below those with 10 in three runs at 256 pixels. The pairs of a large
# image would take most of the memory.
PAIRS, PAIRS_OF_MANY_PIXELS, MANY_PIXELS = 20, 10, 2**20


@dataclass(frozen=True)
class Config:
    """The static facts of a run: hashable, and never swept inside one program.

    Attributes:
        content_layers: activations compared pixel by pixel.
        style_layers: activations compared by a statistic.
        statistic: what of them: "gram", "mean_std", "covariance", "wasserstein" or "sliced", see `style.distance`.
        shift: added to features before their Gram matrices, see `moments.gram`.
        pooling: "max", "avg" or "l2", see `vgg.VGG19`.
        pooling_gain: what pooled layers are multiplied by.
        border: what lies outside the image, "zeros", "replicate" or "circular", see `vgg.VGG19`.
        white: what 1 becomes in the network's units.
        precision: of what convolutions multiply, "float32", "tf32" or "bfloat16", see `vgg.VGG19`.
        remat: whether the activations of the first two blocks, which are the largest, are computed again for the
            gradient instead of kept, strip by strip; those of the first block are so in images of 2**19 pixels or more.
            Not a block with a content layer, and none where the statistic is "sliced".
        block_pixels: larger images are gone through in overlapping blocks of at most so many pixels, see `tiling`: the
            same objective and gradient in less memory, in about twice the time; None for never. Not for the statistic
            "sliced", nor where gradients are normalised.
        conv: the convolution, see `vgg.VGG19`.
        content_divisor: content terms are divided by their target's "energy", their number of "elements" or not at
            all ("none").
        style_divisor: style terms likewise.
        gram_divisor: Gram matrices are divided by the number of "pixels" or "elements" of their layer, or by the
            pixels of the "image".
        tv_form: total variation is "separate", "joint" or "nine_point", see `pixel.total_variation`.
        tv_power: its exponent.
        pixel_reduction: total variation and what is out of range are a "mean" or a "sum" over pixels.
        pixel_range: the white that those two terms count in, such as 1 or 255.
        color: whose colours the picture has, see `stylize.stylize`.
        scales: number of sizes, whose longest sides are a geometric series from 128 pixels, or these sides, the largest
            being the picture's own; None for as many as start near 128 pixels.
        halve_above: the longest side in pixels above which a picture is also compared at half its size, where the
            network sees structures twice as large, lest large pictures lack what small ones have; None for never.
        optimizer: "lbfgs", "adam", or any gradient transformation of Optax. Nothing is clipped then, and derivatives
            through it are its own: `optax.adam` needs `eps_root` above 0, a line search has them forwards only.
        learning_rate: step size; None for 1 (lbfgs) or 0.02 (adam).
        memory: number of curvature pairs of lbfgs; None for 20, and for 10 from 2^20 pixels up.
        betas: how much of adam's two means is kept at each step.
        epsilon: what adam adds to the root that it divides by.
        averaging: how much of the mean over iterates is kept at each step, 0 for none; the mean is the picture.
        tolerance: stop when the total falls by less than this share in 10 steps; 0 for never.
        patience: after so many steps in which what is minimised has no new lowest value, lbfgs forgets its pairs the
            first time and stops the second; 0 for never, and never where gradients are normalised.
        normalize_gradients: divide each built-in term's gradient, where it enters the network, by its sum of absolute
            values.
        parametrization: "pixels", "pyramid", "decorrelated", "fourier" or "sigmoid", see
            `parametrizations`, or one of one's own; None for pyramid (lbfgs) or pixels (all others).
        own_terms: further terms by name, see `config.Term`; images are then gone through whole, without strips or
            blocks. Above `halve_above` each term is the mean of its values for the image and for it at half its size.
        own_layers: activations that those see besides the layers of content and style.
        network: what gives activations in VGG-19's place, see `user_network.Network`; it sees none of VGG-19's options,
            such as pooling, border and precision.
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
        """Refuse what no later stage could explain as well."""
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
            raise InputError(
                f"block_pixels is {self.block_pixels}, but {cause} are no sums over blocks: leave it None."
            )
        if self._is_own("optimizer"):
            defaults = {field.name: field.default for field in fields(self)}
            for name in ("learning_rate", "memory", "betas", "epsilon"):
                if (value := getattr(self, name)) != defaults[name]:
                    raise InputError(f"{name} is {excerpt(repr(value))}, but the optimizer is your own: set it there.")
        if self.network is not None and not callable(self.network):
            raise InputError(f"network is {excerpt(repr(self.network))}: pass a function of params and an image.")
        if self.network is not None and self.gram_divisor == "image":
            raise InputError("gram_divisor is 'image', but the network is your own: use 'pixels' or 'elements'.")
        counts = isinstance(self.scales, tuple) and all(isinstance(side, int) for side in self.scales) and self.scales
        if not (self.scales is None or isinstance(self.scales, int) or counts):
            raise InputError(f"scales is {excerpt(repr(self.scales))}: use their number, or their longest sides.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"Adam's betas are {self.betas}: use two numbers from 0 and below 1.")

    def _is_own(self, name: str) -> bool:
        value = getattr(self, name)
        if name == "parametrization":
            return isinstance(value, Parametrization)
        return name == "optimizer" and is_optimizer(value)

    @property
    def layers(self) -> tuple[str, ...]:
        """All activations that are read, each once."""
        return tuple(dict.fromkeys(self.content_layers + self.style_layers + self.own_layers))

    @property
    def whole_only(self) -> str | None:
        """What of this config needs whole layers, which then cannot be gone through in blocks; None for nothing."""
        causes = {
            "sliced statistics": self.statistic == "sliced",
            "normalised gradients": self.normalize_gradients,
            "your own terms": bool(self.own_terms),
            "activations of your own network": self.network is not None,
        }
        return next((cause for cause, given in causes.items() if given), None)

    def sized(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `layers` whose size is known from the image's: all of VGG-19, none of one's own network."""
        return layers if self.network is None else ()

    def pairs(self, pixels: int) -> int:
        """Return the number of curvature pairs of lbfgs for an image of so many pixels."""
        if self.memory is not None:
            return self.memory
        return PAIRS if pixels < MANY_PIXELS else PAIRS_OF_MANY_PIXELS

    @property
    def style_border(self) -> vgg.Padding:
        """What lies outside a style, which does not continue across its border even where the image does."""
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
    """Weights of the terms of the loss: a pytree of numbers, for sweeps, `vmap` and derivatives.

    The defaults are those of preset `jaxstyle`.

    Attributes:
        content: weight of each content layer.
        style: weight of each style layer.
        tv: weight of total variation.
        bounds: weight of the penalty on values out of range, which is minimized but is not part of the total.
        own: weight of each of `Config.own_terms`.
    """

    content: Mapping[str, jax.typing.ArrayLike] = field(default_factory=lambda: dict.fromkeys(CONTENT_LAYERS, 1.0))
    style: Mapping[str, jax.typing.ArrayLike] = field(default_factory=lambda: dict.fromkeys(STYLE_LAYERS, 6.0))
    tv: jax.typing.ArrayLike = 5.0
    bounds: jax.typing.ArrayLike = 1e4
    own: Mapping[str, jax.typing.ArrayLike] = field(default_factory=dict)

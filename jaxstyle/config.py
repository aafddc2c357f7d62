"""What a run is told: a config of static facts, and the weights that each term of the loss counts with.

A config selects the program and is never swept inside one; weights are numbers that go into it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax

from jaxstyle import losses, vgg
from jaxstyle.conv import conv3x3
from jaxstyle.errors import InputError

CONTENT_LAYERS = ("relu4_2",)
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@dataclass(frozen=True)
class Config:
    """The static facts of a run: hashable, and never swept inside one program.

    Attributes:
        content_layers: activations compared pixel by pixel.
        style_layers: activations compared by their Gram matrices.
        pooling: "max" or "avg", see `features`.
        conv: the convolution, see `features`.
        divisor: content and style terms are divided by their target's "energy" or their number of "elements".
        gram_divisor: Gram matrices are divided by the number of "pixels" or of "elements".
        tv_power: total variation of absolute (1) or squared (2) differences.
        pixel_reduction: total variation and what is out of range are a "mean" or a "sum" over pixels.
        pixel_range: the white that those two terms count in, 1 or 255.
        optimizer: "lbfgs" or "adam".
        learning_rate: step size; None for 1 (lbfgs) or 0.02 (adam).
        memory: how many curvature pairs lbfgs keeps.
        parametrization: "pixels" or "pyramid"; None for pyramid (lbfgs) or pixels (adam).
    """

    content_layers: tuple[str, ...] = CONTENT_LAYERS
    style_layers: tuple[str, ...] = STYLE_LAYERS
    pooling: vgg.Pooling = "max"
    conv: Callable[..., jax.Array] = conv3x3
    divisor: losses.Divisor = "energy"
    gram_divisor: losses.GramDivisor = "pixels"
    tv_power: int = 2
    pixel_reduction: losses.Reduction = "mean"
    pixel_range: float = 1.0
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    learning_rate: float | None = None
    memory: int = 10
    parametrization: Literal["pixels", "pyramid"] | None = None

    def __post_init__(self) -> None:
        """Refuse what no later stage could explain as well."""
        for name in ("content_layers", "style_layers"):
            layers = getattr(self, name)
            object.__setattr__(self, name, (layers,) if isinstance(layers, str) else tuple(layers))  # hashable
        for layer in self.content_layers + self.style_layers:
            vgg.smallest_side(layer)
        if not self.content_layers + self.style_layers:
            raise InputError("There are no content layers and no style layers: name at least one.")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown: use {' or '.join(map(repr, allowed))}.")
        if self.memory < 1:
            raise InputError(f"A memory of {self.memory} pairs is too small for lbfgs: use at least 1.")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise InputError(f"A learning rate of {self.learning_rate} makes no step: use a positive number.")


_CHOICES = {
    "pooling": ("max", "avg"),
    "divisor": ("energy", "elements"),
    "gram_divisor": ("pixels", "elements"),
    "tv_power": (1, 2),
    "pixel_reduction": ("mean", "sum"),
    "optimizer": ("lbfgs", "adam"),
    "parametrization": (None, "pixels", "pyramid"),
}


class LossWeights(NamedTuple):
    """The coefficients of the loss: a pytree of numbers, to be swept, blended and differentiated.

    The defaults are those of preset `jaxstyle`. They are shared: make new mappings instead of changing them.

    Attributes:
        content: a coefficient for each content layer.
        style: a coefficient for each style layer.
        tv: of total variation.
        bounds: of the penalty on values out of range, which is minimised too but is not part of the objective.
    """

    content: Mapping[str, jax.typing.ArrayLike] = {layer: 1.0 for layer in CONTENT_LAYERS}
    style: Mapping[str, jax.typing.ArrayLike] = {layer: 6.0 for layer in STYLE_LAYERS}
    tv: jax.typing.ArrayLike = 5.0
    bounds: jax.typing.ArrayLike = 1e4

"""Optimizers: L-BFGS, Adam and gradient transformations of Optax, with all options of how an image changes.

An optimizer is a pytree whose only leaf is its learning rate, so that another rate, which may be traced or batched,
uses the same program. All other fields are static. Behavior depends on these fields only: `Optax(optax.adam(0.02),
clip=True)` behaves as `Adam()` does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from jaxstyle.errors import InputError, check_whole, excerpt
from jaxstyle.losses.objective import static_field


class Parametrization(NamedTuple):
    """Parametrization of an image: two pure functions, inverse to each other.

    `encode` maps an image `[H, W, 3]` in [0, 1] to the pytree of arrays that is optimized, `decode` maps such a pytree
    to the image, without clipping.
    """

    encode: Callable[[jax.Array], Any]
    decode: Callable[[Any], jax.Array]


ParametrizationName = Literal["pixels", "pyramid", "laplacian", "decorrelated", "fourier", "sigmoid"]

# Of lbfgs: 20 pairs gave totals 0.5 to 1.7 % below those of 10 in three runs at 256 pixels. In large images the pairs
# would take most of the memory.
PAIRS, PAIRS_OF_MANY_PIXELS, MANY_PIXELS = 20, 10, 2**20


Transformation = optax.GradientTransformation  # `update` may take `value`, `grad` and `value_fn`, as for line searches

_RANGES = {
    "b1": (0, 1, "a number from 0 and below 1"),
    "b2": (0, 1, "a number from 0 and below 1"),
    "eps": (0, math.inf, "a number from 0"),
    "tolerance": (0, 1, "a number from 0 and below 1, such as 0.001"),
    "ema_decay": (0, 1, "a number from 0 and below 1, such as 0.99"),
}


def _check(optimizer: "LBFGS | Adam | Optax") -> None:
    for name, least in (("history_size", 1), ("patience", 0)):
        if (value := getattr(optimizer, name, None)) is not None:
            check_whole(name, value, least=least)
    for name, (least, most, cure) in _RANGES.items():
        value = getattr(optimizer, name, least)
        if isinstance(value, bool) or not isinstance(value, Real) or not least <= value < most:
            raise InputError(f"{name} is {excerpt(repr(value))}: use {cure}.")
    chosen = optimizer.parametrization
    if not isinstance(chosen, Parametrization) and chosen not in get_args(ParametrizationName):
        names = " or ".join(map(repr, get_args(ParametrizationName)))
        raise InputError(f"parametrization {excerpt(repr(chosen))} is unknown: use {names}.")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LBFGS:
    """L-BFGS without a line search, see `lbfgs`: one gradient evaluation per step.

    Attributes:
        learning_rate: factor of each step.
        history_size: number of curvature pairs; None for 20, and for 10 from 2^20 pixels up.
        parametrization: a name, see `parametrizations`, or a user-defined one.
        patience: number of steps without a new lowest value after which the pairs are dropped, and the second time the
            run stops; 0 for never. No effect with normalized gradients.
        tolerance: stop when the total falls by less than this fraction in 10 steps; 0 for never.
        ema_decay: decay of the exponential moving average of iterates, which is then the result; 0 for none.
    """

    learning_rate: jax.typing.ArrayLike = 1.0
    history_size: int | None = static_field(None)
    parametrization: ParametrizationName | Parametrization = static_field("pyramid")
    patience: int = static_field(30)
    tolerance: float = static_field(0.0)
    ema_decay: float = static_field(0.0)

    __post_init__ = _check

    def pairs(self, pixels: int) -> int:
        """Return the number of curvature pairs for an image of this many pixels."""
        if self.history_size is not None:
            return self.history_size
        return PAIRS if pixels < MANY_PIXELS else PAIRS_OF_MANY_PIXELS


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Adam:
    """Adam: Kingma and Ba, arXiv:1412.6980; parametrization, tolerance and averaging as for `LBFGS`.

    Attributes:
        learning_rate: step size.
        b1: decay rate of the first moment, from 0 and below 1.
        b2: decay rate of the second moment, from 0 and below 1.
        eps: number added to the denominator.
        clip: clip the image to [0, 1] at each step; parametrizations other than pixels and pyramid are not clipped.
    """

    learning_rate: jax.typing.ArrayLike = 0.02
    b1: float = static_field(0.9)
    b2: float = static_field(0.999)
    eps: float = static_field(1e-8)
    parametrization: ParametrizationName | Parametrization = static_field("pixels")
    clip: bool = static_field(True)
    tolerance: float = static_field(0.0)
    ema_decay: float = static_field(0.0)

    __post_init__ = _check


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Optax:
    """A gradient transformation of Optax, hashed by identity; the other fields are as for `Adam`.

    Differentiation through steps follows its rules: `optax.adam` needs `eps_root` above 0, a line search supports
    forward mode only.
    """

    transformation: Transformation = field(metadata={"static": True})
    parametrization: ParametrizationName | Parametrization = static_field("pixels")
    clip: bool = static_field(False)
    tolerance: float = static_field(0.0)
    ema_decay: float = static_field(0.0)

    def __post_init__(self) -> None:
        """Raise `InputError` if a field is out of range."""
        updates = self.transformation
        if not all(callable(getattr(updates, name, None)) for name in ("init", "update")):
            cure = "pass LBFGS(), Adam() or an optimizer of Optax"
            raise InputError(f"The optimizer is {excerpt(repr(updates))}: {cure}.")
        _check(self)


Optimizer = LBFGS | Adam | Optax


def as_optimizer(value: Optimizer | Transformation) -> Optimizer:
    """Return an optimizer; a gradient transformation of Optax is wrapped.

    Raises:
        InputError: if `value` is neither, or if its learning rate is not positive.
    """
    optimizer = value if isinstance(value, LBFGS | Adam | Optax) else Optax(value)
    # Not in the class, since the leaf of a gradient or a tangent may be any number.
    rate = getattr(optimizer, "learning_rate", 1.0)
    if isinstance(rate, list | tuple):
        raise InputError(f"learning_rate is {excerpt(repr(rate))}: pass an array for different images.")
    known: Any = np.asarray(1.0 if isinstance(rate, Tracer) else rate)
    if known.dtype.kind in "bOSU" or not np.all((known >= 1e-30) & (known < 1e38)):
        raise InputError(f"learning_rate is {rate}: use a positive number below 1e38.")
    return optimizer


def transformation(optimizer: Adam | Optax) -> optax.GradientTransformationExtraArgs:
    """Return the gradient transformation of an optimizer but L-BFGS; it ignores extra arguments."""
    updates: Any = optimizer.transformation if isinstance(optimizer, Optax) else _adam(optimizer)
    return optax.with_extra_args_support(updates)


def _adam(optimizer: Adam) -> optax.GradientTransformation:
    """Return Optax's adam, with both bias corrections in one factor and the epsilons (arXiv:1412.6980, section 2)."""
    # This form has no product or quotient that a compiler may round in different ways depending on its context. So a
    # run is the same bit for bit with and without its gradient, which is the same for any checkpoint segments.
    rate, first, second, epsilon = optimizer.learning_rate, optimizer.b1, optimizer.b2, optimizer.eps
    moments = optax.scale_by_adam(first, second)
    least = 1e-16  # under the root, so that the derivative at a zero gradient is finite

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count: Any = optax.safe_increment(state.count)
        mean = jax.tree.map(lambda g, m: (1 - first) * g + first * m, updates, state.mu)
        square = jax.tree.map(lambda g, v: (1 - second) * jnp.square(g) + second * v, updates, state.nu)

        def step(mean: jax.Array, square: jax.Array) -> jax.Array:
            steps = count.astype(mean.dtype)
            of_mean, of_square = 1 - first**steps, 1 - second**steps  # bias corrections
            factor = rate * jnp.sqrt(of_square) / of_mean
            return -(factor * mean) / (jnp.sqrt(square + least * of_square) + epsilon * jnp.sqrt(of_square))

        return jax.tree.map(step, mean, square), state._replace(count=count, mu=mean, nu=square)

    return optax.GradientTransformation(moments.init, update)

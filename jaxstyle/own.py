"""What one brings along beside what is built in: types of one's own terms, networks, optimisers, parametrisations.

All are pure functions, known to a program by which functions they are: made anew, they are compiled anew.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeGuard

import jax

from jaxstyle.errors import InputError, excerpt

Term = Callable[[jax.Array, Mapping[str, jax.Array], Any], jax.typing.ArrayLike]
"""Takes an image `[H, W, 3]`, its activations by layer, and the `Targets`; returns a number.

With a leading axis on image and activations it returns one for each, `[N]`.
"""

Network = Callable[[Any, jax.Array], Mapping[str, jax.Array]]
"""Takes params, any pytree, and an image `[H, W, 3]`; returns activations `[h, w, C]` by name."""


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

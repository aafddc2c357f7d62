"""`jax.jit` as a decorator that preserves the type annotations of a function."""

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

import jax

Given = ParamSpec("Given")
Returned = TypeVar("Returned", covariant=True)


class Compiled(Protocol[Given, Returned]):
    """A function that is compiled at its first call with arrays of given shapes."""

    def __call__(self, *args: Given.args, **kwargs: Given.kwargs) -> Returned:
        """Call the function."""
        ...

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Return the lowered program for arrays or shapes."""
        ...


def compiled(
    *static: str, donated: tuple[str, ...] = ()
) -> Callable[[Callable[Given, Returned]], Compiled[Given, Returned]]:
    """Return a decorator that compiles a function.

    Args:
        *static: names of static arguments; the others are arrays.
        donated: names of arguments whose memory the program may reuse for its results.

    Returns:
        The decorator.

    Example:
        >>> twice = compiled("by")(lambda x, by: x * by)
        >>> float(twice(jnp.ones(()), by=2))
        2.0
    """
    decorator: Any = partial(jax.jit, static_argnames=static, donate_argnames=donated)
    return decorator

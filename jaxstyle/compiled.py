"""`jax.jit` as a decorator that leaves a function's types what they are, for those who call it."""

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

import jax

Given = ParamSpec("Given")
Returned = TypeVar("Returned", covariant=True)


class Compiled(Protocol[Given, Returned]):
    """A function that is compiled when it is first called with arrays of some shapes."""

    def __call__(self, *args: Given.args, **kwargs: Given.kwargs) -> Returned:
        """Call it."""
        ...

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Return its program for arrays, or shapes, without running it."""
        ...


def compiled(
    *static: str, donated: tuple[str, ...] = ()
) -> Callable[[Callable[Given, Returned]], Compiled[Given, Returned]]:
    """Return a decorator that compiles a function.

    Args:
        *static: the arguments that select a program; the others are arrays that go into it.
        donated: arguments whose memory the program may take for what it returns.

    Returns:
        The decorator.

    Example:
        >>> twice = compiled("by")(lambda x, by: x * by)
        >>> float(twice(jnp.ones(()), by=2))
        2.0
    """
    decorator: Any = partial(jax.jit, static_argnames=static, donate_argnames=donated)
    return decorator

"""When a run ends before its steps do: totals that have levelled off, and lbfgs that gets nowhere.

Both are counted inside of the loop, so that what comes out does not depend on how the steps are divided into segments.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.config import Config

WINDOW = 10  # steps over which a total has to fall, lest it count as levelled off


class Watch(NamedTuple):
    """Whether totals have levelled off, after which nothing changes any more.

    Attributes:
        totals: the last `WINDOW`.
        steps: how many there were.
        stopped: the step, counted from 1, at which they had levelled off, 0 for none; that and later ones leave the
            image as it is.
    """

    totals: jax.Array
    steps: jax.Array
    stopped: jax.Array


class Stall(NamedTuple):
    """How lbfgs gets on: at first it restarts when it gets nowhere, then it stops, and nothing changes any more.

    Attributes:
        steps: how many it has taken.
        lowest: the least that it has reached of what it minimises, since it restarted if it has.
        since: how many steps ago that was.
        restarted: the step, counted from 1, at which it forgot its pairs; 0 for none.
        stopped: the step at which it stopped, 0 for none; that and later ones leave the image as it is.
    """

    steps: jax.Array
    lowest: jax.Array
    since: jax.Array
    restarted: jax.Array
    stopped: jax.Array

    @property
    def restarting(self) -> jax.Array:
        """Whether the last step counted is the one to restart at."""
        return self.restarted == self.steps


def init_halting(config: Config, *, dtype: jax.typing.DTypeLike) -> tuple[Watch | None, Stall | None]:
    """Return what is counted from the first step on, as far as `config` asks for it.

    Args:
        config: its tolerance, patience, optimiser and whether gradients are normalised count.
        dtype: of the image.

    Returns:
        The watch and the stall, or None.

    Example:
        >>> init_halting(Config(optimizer="adam"), dtype=jnp.float32)
        (None, None)
    """
    none: Any = np.zeros((), np.int32)
    totals: Any = np.full(WINDOW, np.inf, dtype)
    watch = Watch(totals, none, none) if config.tolerance else None
    if not config.patience or config.optimizer != "lbfgs" or config.normalize_gradients:
        return watch, None  # what normalised gradients minimise is another thing at each step
    lowest: Any = np.full((), np.inf, dtype)
    return watch, Stall(none, lowest, none, none, none)


def levelled_off(watch: Watch, total: jax.Array, *, tolerance: float) -> Watch:
    """Return the watch after one more step.

    Args:
        watch: before it.
        total: the objective, `[]`.
        tolerance: the share of it by which it has to fall in `WINDOW` steps.

    Returns:
        The watch, which stays stopped once it is.

    Example:
        >>> watch = Watch(jnp.ones(WINDOW), jnp.asarray(10), jnp.asarray(0))
        >>> int(levelled_off(watch, jnp.asarray(0.999), tolerance=0.01).stopped)
        11
    """
    totals, steps = (
        jnp.append(watch.totals[1:], jax.lax.stop_gradient(total).astype(watch.totals.dtype)),
        watch.steps + 1,
    )
    stop = (watch.stopped == 0) & (totals[-1] >= (1 - tolerance) * watch.totals[0])
    return Watch(totals, steps, jnp.where(stop, steps, watch.stopped))


def stalled(stall: Stall, minimized: jax.Array, *, patience: int) -> Stall:
    """Return the stall after one more step.

    It restarts after `patience` steps without a new lowest value, and stops after as many since the restart.

    Args:
        stall: before it.
        minimized: what lbfgs minimises, `[]`; a NaN is no progress.
        patience: how many steps without a new lowest value are too many.

    Returns:
        The stall, which stays stopped once it is.

    Example:
        >>> _, stall = init_halting(Config(), dtype=jnp.float32)
        >>> for value in (3.0, 2.0, 2.0, 2.5, 2.4, 2.4, 2.4):
        ...     stall = stalled(stall, jnp.asarray(value), patience=2)
        >>> int(stall.restarted), int(stall.stopped)
        (4, 6)
    """
    value, steps = jax.lax.stop_gradient(minimized).astype(stall.lowest.dtype), stall.steps + 1
    fallen = value < stall.lowest
    since = jnp.where(fallen, 0, stall.since + 1)
    late = since >= patience
    restart, stop = late & (stall.restarted == 0), late & (stall.restarted > 0) & (stall.stopped == 0)
    return Stall(
        steps=steps,
        lowest=jnp.where(fallen, value, stall.lowest),
        since=jnp.where(restart, 0, since),
        restarted=jnp.where(restart, steps, stall.restarted),
        stopped=jnp.where(stop, steps, stall.stopped),
    )

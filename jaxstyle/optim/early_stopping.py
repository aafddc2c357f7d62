"""Early stopping: of totals that have leveled off, and of lbfgs without progress.

Both are part of the loop, so that the result does not depend on the division of steps into segments.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.optim.optimizers import LBFGS, Optimizer

WINDOW = 10  # number of steps over which the decrease of the total is measured


class Watch(NamedTuple):
    """Detection of totals that have leveled off, which stops the run.

    Attributes:
        totals: the last `WINDOW` totals.
        steps: number of steps so far.
        stopped: step, from 1, at which the run stopped, 0 for none; this and later steps do not change the image.
    """

    totals: jax.Array
    steps: jax.Array
    stopped: jax.Array


class Stall(NamedTuple):
    """Detection of lbfgs without progress, which restarts it the first time and stops it the second.

    Attributes:
        steps: number of steps so far.
        lowest: lowest minimized value so far.
        since: number of steps since that value, or since the restart.
        restarted: step, from 1, at which lbfgs dropped its pairs; 0 for none.
        stopped: step at which the run stopped, 0 for none; this and later steps do not change the image.
    """

    steps: jax.Array
    lowest: jax.Array
    since: jax.Array
    restarted: jax.Array
    stopped: jax.Array

    @property
    def restarting(self) -> jax.Array:
        """Whether to restart at the last step."""
        return self.restarted == self.steps


def init_early_stopping(
    optimizer: Optimizer, *, normalized_gradients: bool = False, dtype: jax.typing.DTypeLike
) -> tuple[Watch | None, Stall | None]:
    """Return the initial states of early stopping.

    Args:
        optimizer: tolerance and patience are used.
        normalized_gradients: whether each step minimizes a different function, in which case nothing can stall.
        dtype: of the image.

    Returns:
        The watch and the stall; None for each that is not in use.

    Example:
        >>> init_early_stopping(Adam(), dtype=jnp.float32)
        (None, None)
    """
    none: Any = np.zeros((), np.int32)
    totals: Any = np.full(WINDOW, np.inf, dtype)
    watch = Watch(totals, none, none) if optimizer.tolerance else None
    if not isinstance(optimizer, LBFGS) or not optimizer.patience or normalized_gradients:
        return watch, None
    lowest: Any = np.full((), np.inf, dtype)
    return watch, Stall(none, lowest, none, none, none)


def levelled_off(watch: Watch, total: jax.Array, *, tolerance: float) -> Watch:
    """Return the watch after one more step.

    Args:
        watch: before the step.
        total: the total, `[]`.
        tolerance: minimum decrease of the total in `WINDOW` steps, as a fraction.

    Returns:
        The watch; once stopped, it stays stopped.

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

    It restarts after `patience` steps without a new lowest value, and stops after `patience` more such steps.

    Args:
        stall: before the step.
        minimized: the value that lbfgs minimizes, `[]`; NaN is no progress.
        patience: number of steps without a new lowest value.

    Returns:
        The stall; once stopped, it stays stopped.

    Example:
        >>> _, stall = init_early_stopping(LBFGS(), dtype=jnp.float32)
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

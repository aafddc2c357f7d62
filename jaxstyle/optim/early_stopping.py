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
    """Detection of totals that have leveled off, which stops the run."""

    totals: jax.Array  # the last `WINDOW` totals
    steps: jax.Array  # number of steps so far
    stopped: jax.Array  # step, from 1, at which the run stopped, 0 for none; this and later ones change no image


class Stall(NamedTuple):
    """Detection of L-BFGS without progress, which restarts it the first time and stops it the second."""

    steps: jax.Array  # number of steps so far
    lowest: jax.Array  # lowest minimized value so far
    since: jax.Array  # number of steps since that value, or since the restart
    restarted: jax.Array  # step, from 1, at which L-BFGS dropped its pairs; 0 for none
    stopped: jax.Array  # as for `Watch`


def init_early_stopping(
    optimizer: Optimizer, *, normalized_gradients: bool = False, dtype: jax.typing.DTypeLike
) -> tuple[Watch | None, Stall | None]:
    """Return the initial watch and stall, None for each that is not in use."""
    none: Any = np.zeros((), np.int32)
    totals: Any = np.full(WINDOW, np.inf, dtype)
    watch = Watch(totals, none, none) if optimizer.tolerance else None
    # With normalized gradients each step minimizes a different function, so that nothing can stall.
    if not isinstance(optimizer, LBFGS) or not optimizer.patience or normalized_gradients:
        return watch, None
    lowest: Any = np.full((), np.inf, dtype)
    return watch, Stall(none, lowest, none, none, none)


def levelled_off(watch: Watch, total: jax.Array, *, tolerance: float) -> Watch:
    """Return the watch after a step; it stops if the total fell by less than this fraction in `WINDOW` steps."""
    total, steps = jax.lax.stop_gradient(total).astype(watch.totals.dtype), watch.steps + 1
    totals = jnp.append(watch.totals[1:], total)
    stop = (watch.stopped == 0) & (totals[-1] >= (1 - tolerance) * watch.totals[0])
    return Watch(totals, steps, jnp.where(stop, steps, watch.stopped))


def stalled(stall: Stall, minimized: jax.Array, *, patience: int) -> Stall:
    """Return the stall after a step: it restarts after `patience` steps without a new lowest value, and then stops."""
    value, steps = jax.lax.stop_gradient(minimized).astype(stall.lowest.dtype), stall.steps + 1
    fallen = value < stall.lowest  # false for NaN
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

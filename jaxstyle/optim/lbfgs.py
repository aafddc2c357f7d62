r"""L-BFGS without a line search over one flat vector: one evaluation per step; a step that raises the value is undone.

Each step evaluates the trial point :math:`z + a\,t\,d` for the best point z so far, the direction d of the two-loop
recursion, the learning rate a and the step length t. If the value is not higher, the trial point becomes the best
point, a pair (s, y) is stored and t is reset to 1; otherwise z stays and t is divided by 4. So the best point is the
last accepted one.

There is no control flow on values, only selection, so that the functions can be scanned, vmapped and differentiated.
They stay finite where a gradient is zero.

The recursion runs on coefficients of s, y and the gradient, so that one matrix-vector product uses all pairs. On a CPU
these products are plain sums in float32, which changes directions by 1e-4 (of 300,000 numbers) to 2e-3 (of 4 million).

Nocedal and Wright, *Numerical Optimization*, 2006, algorithm 7.4; pairs with :math:`s^T y \le 0` are skipped. The
recursion on coefficients is from Chen, Wang and Zhou, *Large-scale L-BFGS using MapReduce*, 2014.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.images.resample import array_module

SHRINK = 0.25  # factor of the step length after a step that was undone
LEAST_CURVATURE = 1e-10  # of s.y over y.y, below which a pair is skipped

_dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)


class LBFGSState(NamedTuple):
    """State of L-BFGS for a vector of n numbers and m pairs."""

    value: jax.Array  # minimized value at the best point, []; infinity before the first evaluation
    gradient: jax.Array  # at the best point, [n]
    direction: jax.Array  # of the next step, [n]; zero before the first evaluation
    length: jax.Array  # fraction of the direction that the next step takes, []
    steps: jax.Array  # differences s of points, [m, n]
    changes: jax.Array  # differences y of gradients, [m, n]
    cross: jax.Array  # products s_i.y_j for i not newer than j, [m, m]
    squares: jax.Array  # products y_i.y_j, [m, m]
    inverse_curvatures: jax.Array  # 1 / s.y, [m]; 0 for an empty pair
    stored: jax.Array  # number of pairs stored so far, []


def init(point: jax.Array, *, history_size: int) -> LBFGSState:
    """Return the state before the first evaluation."""
    xp = array_module(point)
    pairs = history_size, point.size
    return LBFGSState(
        value=xp.full((), xp.inf, point.dtype),
        gradient=xp.zeros_like(point),  # no array twice, since a state can be donated
        direction=xp.zeros_like(point),
        length=xp.ones((), point.dtype),
        steps=xp.zeros(pairs, point.dtype),
        changes=xp.zeros(pairs, point.dtype),
        cross=xp.zeros((history_size, history_size), point.dtype),
        squares=xp.zeros((history_size, history_size), point.dtype),
        inverse_curvatures=xp.zeros(history_size, point.dtype),
        stored=xp.zeros((), xp.int32),
    )


def trial(point: jax.Array, state: LBFGSState, *, learning_rate: float) -> jax.Array:
    """Return the point to evaluate next; the best point before the first evaluation."""
    return point + learning_rate * state.length * state.direction


def improves(value: jax.Array, state: LBFGSState, *, guarded: bool = True) -> jax.Array:
    """Return whether a step to a value is accepted: if finite and, if guarded, not above that of the best point."""
    finite = jnp.isfinite(value)
    return finite & (value <= state.value) if guarded else finite


def update(
    point: jax.Array,
    tried: jax.Array,
    value: jax.Array,
    gradient: jax.Array,
    state: LBFGSState,
    *,
    restart: jax.Array | bool = False,
    frozen: jax.Array | bool = False,
    guarded: bool = True,
) -> tuple[jax.Array, LBFGSState, jax.Array]:
    """Accept or undo a step; return the best point, the state, and whether the step was accepted.

    `tried` is the point of `trial`; value and gradient are those of it. `restart` removes all pairs first, `frozen`
    rejects the step, and `guarded` undoes a step that raises the value instead of only one to a value that is not
    finite.
    """
    count = jnp.where(restart, 0, state.stored)
    inverse = jnp.where(restart, 0.0, state.inverse_curvatures)
    accepted = improves(value, state, guarded=guarded) & ~jnp.asarray(frozen)
    s, y = tried - point, gradient - state.gradient
    curvature = _dot(s, y)
    store = accepted & (curvature > LEAST_CURVATURE * _dot(y, y)) & jnp.isfinite(curvature) & jnp.isfinite(state.value)
    slot = count % len(inverse)

    def put(pairs: jax.Array, new: jax.Array) -> jax.Array:
        return pairs.at[slot].set(jnp.where(store, new, pairs[slot]))

    steps, changes = put(state.steps, s), put(state.changes, y)
    inverse = put(inverse, 1 / jnp.where(store, curvature, 1.0))
    row = _dot(changes, changes[slot])
    squares = state.squares.at[slot].set(row).at[:, slot].set(row)
    cross = state.cross.at[:, slot].set(_dot(steps, changes[slot]))
    count = count + store
    gradient = jnp.where(accepted, gradient, state.gradient)
    after = LBFGSState(
        value=jnp.where(accepted, value, state.value),
        gradient=gradient,
        direction=state.direction,
        length=jnp.where(accepted | restart, 1.0, SHRINK * state.length),
        steps=steps,
        changes=changes,
        cross=cross,
        squares=squares,
        inverse_curvatures=inverse,
        stored=count,
    )
    return jnp.where(accepted, tried, point), after._replace(direction=_direction(after)), accepted


def _direction(state: LBFGSState) -> jax.Array:
    """Return -H g by the two-loop recursion; without pairs, -g scaled to length 1 at most."""
    gradient, steps, changes = state.gradient, state.steps, state.changes
    cross, squares, inverse = state.cross, state.squares, state.inverse_curvatures
    order = (state.stored - 1 - jnp.arange(len(inverse))) % len(inverse)  # newest first
    along, across = _dot(steps, gradient), _dot(changes, gradient)

    def backward(alphas: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        return alphas.at[i].set(inverse[i] * (along[i] - _dot(cross[i], alphas))), None  # with newer pairs so far

    def forward(coefficients: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        beta = inverse[i] * (scale * across[i] + _dot(cross[:, i], coefficients))  # with older pairs so far
        return coefficients.at[i].set(alphas[i] - beta), None

    squared = _dot(gradient, gradient)
    first = jnp.where(squared > 1, jax.lax.rsqrt(jnp.where(squared > 1, squared, 1.0)), 1.0)
    newest = order[0]
    scale = inverse[newest] * squares[newest, newest]
    scale = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1.0), first)
    alphas, _ = jax.lax.scan(backward, jnp.zeros_like(inverse), order)
    across -= _dot(squares, alphas)
    of_steps, _ = jax.lax.scan(forward, jnp.zeros_like(inverse), order, reverse=True)
    return -(scale * (gradient - _dot(alphas, changes)) + _dot(of_steps, steps))

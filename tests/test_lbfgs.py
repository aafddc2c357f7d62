"""L-BFGS on a function of six numbers, compared with NumPy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_problem import lbfgs_direction

from jaxstyle.optim import lbfgs

PAIRS, STEPS = 3, 14
CURVATURES, WAVES = np.arange(1.0, 7.0), 3.0
START = np.random.default_rng(0).normal(size=6)


def function(x: Any, waves: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """Return a value, convex without waves, and its gradient."""
    value = (CURVATURES * x**2).sum() / 2 + waves * xp.cos(WAVES * x).sum()
    return value, CURVATURES * x - waves * WAVES * xp.sin(WAVES * x)


@jax.jit
def minimized(start, rate, waves, restarts, frozen, factor):
    """Return every evaluated point, best point and acceptance of a run, and the derivative by `factor`: one program.

    The second run, of the same start, is not guarded.
    """

    def run(factor, guarded):
        def step(carry, when):
            point, state = carry
            tried = lbfgs.trial(point, state, learning_rate=rate)
            value, gradient = (factor * each for each in function(tried, waves))
            options = {"restart": when[0], "frozen": when[1], "guarded": guarded}
            point, state, accepted = lbfgs.update(point, tried, value, gradient, state, **options)
            return (point, state), (tried, point, accepted)

        begin = start, lbfgs.init(start, history_size=PAIRS)
        return jax.lax.scan(step, begin, (restarts, frozen))[1]

    guarded, slopes = jax.jvp(partial(run, guarded=True), (factor,), (jnp.ones_like(factor),))
    return guarded, run(factor, guarded=False), slopes[1]


def run(*, rate=1.0, waves=0.0, restart_at=None, frozen_from=STEPS, start=START, factor=1.0):
    restarts, frozen = np.arange(STEPS) == restart_at, np.arange(STEPS) >= frozen_from
    with jax.enable_x64(True):
        inputs = (np.asarray(each) for each in (rate, waves, restarts, frozen, factor))
        return jax.tree.map(np.asarray, minimized(start, *inputs))


def expected(*, rate=1.0, waves=0.0, restart_at=None):
    """Return what `run` should, by the definition."""
    points, gradients, best, length = [START], [function(START, waves, np)[1]], np.inf, 1.0
    rows = []
    for i in range(STEPS):
        tried = points[-1] - (rate * length * lbfgs_direction(points, gradients, history_size=PAIRS) if i else 0)
        value, gradient = function(tried, waves, np)
        accepted = bool(value <= best)
        if i == restart_at:
            points, gradients, length = points[-1:], gradients[-1:], 1.0
        if accepted:
            best, length = value, 1.0
            if i and i != restart_at:
                points, gradients = [*points, tried], [*gradients, gradient]
            elif i == restart_at:  # the pair of this step is the first of the new ones
                points, gradients = [points[-1], tried], [gradients[-1], gradient]
        elif i != restart_at:
            length /= 4
        rows.append((tried, points[-1], accepted))
    return [np.asarray(each) for each in zip(*rows, strict=True)]


@pytest.mark.parametrize("restart_at", [None, 1, 6], ids=str)
@pytest.mark.parametrize(("rate", "waves"), [(1.0, 0.0), (3.0, 0.0), (1.0, 2.0)], ids=["convex", "long", "waves"])
def test_the_steps_are_those_of_numpy_and_one_that_raises_the_value_is_undone(rate, waves, restart_at):
    """With the two-loop recursion over the latest accepted pairs of positive curvature."""
    actual, _, _ = run(rate=rate, waves=waves, restart_at=restart_at)
    for values, wanted in zip(actual, expected(rate=rate, waves=waves, restart_at=restart_at), strict=True):
        np.testing.assert_allclose(values, wanted, rtol=1e-7, atol=1e-9)
    assert 0 < actual[2].sum() < STEPS


def test_values_at_the_best_point_never_rise_and_end_at_the_minimum():
    (_, best, _), _, _ = run(rate=1.0)
    values = [function(point, 0.0, np)[0] for point in best]
    assert values == sorted(values, reverse=True) and values[-1] < 1e-3 * values[0]


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e6])
def test_the_first_step_is_the_gradient_cut_to_length_one(factor):
    (tried, _, _), _, _ = run(factor=factor)
    gradient = factor * function(START, 0.0, np)[1]
    np.testing.assert_allclose(tried[0], START)
    np.testing.assert_allclose(tried[1], START - gradient / max(1.0, np.linalg.norm(gradient)), rtol=1e-12)


def test_a_frozen_run_keeps_its_best_point():
    (_, best, accepted), _, _ = run(frozen_from=5)
    assert (best[5:] == best[4]).all() and not (best[4] == best[3]).all()
    assert accepted[:5].all() and not accepted[5:].any()


def test_values_that_are_not_finite_are_undone_and_without_a_guard_only_those():
    _, (tried, best, accepted), _ = run(rate=3.0)
    assert accepted.all() and (best == tried).all()
    assert max(function(point, 0.0, np)[0] for point in best) > function(START, 0.0, np)[0]
    for _, best, accepted in run(start=np.full(6, np.nan))[:2]:
        assert not accepted.any() and np.isnan(best).all()


def test_nothing_moves_where_all_gradients_are_zero_and_derivatives_are_finite():
    (tried, best, accepted), _, slope = run(start=np.zeros(6))
    assert not tried.any() and not best.any() and accepted.all() and np.isfinite(slope).all()

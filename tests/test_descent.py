"""Adam and lbfgs on six numbers, compared with NumPy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_problem import lbfgs_direction

from jaxstyle.config import Config
from jaxstyle.descent import forget_pairs, transformation

MEMORY = 3
SPREAD = np.arange(1.0, 7.0)


@jax.jit
def lbfgs_steps(xs, gradients, forget):
    """Return the update at each of `xs`, and its derivative by a factor on all gradients.

    Where `forget` is true, the pairs are dropped first.
    """
    method = transformation(Config(memory=MEMORY))

    def steps(factor):
        def update(state, now):
            x, gradient, when = now
            step, state = method.update(gradient, forget_pairs(state, when=when), x)
            return state, step

        return jax.lax.scan(update, method.init(xs[0]), (xs, factor * gradients, forget))[1]

    return jax.jvp(steps, (jnp.ones(()),), (jnp.ones(()),))


def convex(seed=0, count=9, size=1.0):
    """Return points and the gradients of a quadratic function there."""
    xs = size * np.random.default_rng(seed).normal(size=(count, 6))
    return xs, xs * SPREAD


def expected_steps(xs, gradients, begin=0):
    return [-lbfgs_direction(xs[begin : k + 1], gradients[begin : k + 1], memory=MEMORY) for k in range(begin, len(xs))]


def check(xs, gradients, expected, forget=None):
    """Compare the steps with what is expected; the derivative has to be finite."""
    with jax.enable_x64(True):
        found, slopes = lbfgs_steps(xs, gradients, np.zeros(len(xs), bool) if forget is None else forget)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        assert np.isfinite(slopes).all()
        return np.asarray(slopes)


def test_lbfgs_is_the_two_loop_recursion_over_the_latest_pairs():
    xs, gradients = convex()
    check(xs, gradients, expected_steps(xs, gradients))


@pytest.mark.parametrize("flat", [False, True], ids=["downwards", "flat"])
@pytest.mark.parametrize("at", [(1,), (2,), (5,), (1, 2, 3), (4, 5, 8)], ids=str)
def test_lbfgs_skips_pairs_without_positive_curvature(at, flat):
    """The first pair, a later one, one that finds the memory full, and several in a row."""
    xs, gradients = convex(1)
    for k in at:
        gradients[k] = gradients[k - 1] - (0 if flat else 1) * (xs[k] - xs[k - 1])
    check(xs, gradients, expected_steps(xs, gradients))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("length", [0.25, 1.0, 8.0])
def test_the_first_step_of_lbfgs_is_the_gradient_cut_to_length_one(sign, length):
    """Also where start and gradient point in opposite directions; the derivative includes that of the length."""
    xs, gradients = convex(2)
    gradients[0] *= sign * length / np.linalg.norm(gradients[0])
    slopes = check(xs, gradients, expected_steps(xs, gradients))
    np.testing.assert_allclose(
        expected_steps(xs, gradients)[0], -gradients[0] * min(1, 1 / length), rtol=1e-12
    )  # of the oracle
    np.testing.assert_allclose(slopes[0], 0 if length > 1 else -gradients[0], atol=1e-12)


def test_lbfgs_takes_no_step_where_all_gradients_are_zero():
    xs, _ = convex(5)
    check(xs, np.zeros_like(xs), np.zeros_like(xs))


@pytest.mark.parametrize("at", [1, 2, 5, 7])
def test_lbfgs_without_its_pairs_starts_afresh(at):
    xs, gradients = convex(3)
    gradients[[4, 6]] *= -1  # also pairs that are skipped, before and after
    expected = expected_steps(xs[:at], gradients[:at]) + expected_steps(xs, gradients, at)
    check(xs, gradients, expected, forget=np.arange(len(xs)) == at)


def test_pairs_are_dropped_from_the_state_only_when_asked_for():
    lbfgs: Any = transformation(Config(memory=2)).init(jnp.ones(3))
    state = (lbfgs[0], optax.EmptyState())
    state = (state[0]._replace(count=np.int32(5), weights_memory=np.ones(2, np.float32)), *state[1:])
    for when, count, weight in ((False, 5, 1), (True, 0, 0)):
        found = forget_pairs(state, when=jnp.asarray(when))
        assert found[0].count == count and (np.asarray(found[0].weights_memory) == weight).all()
        assert found[1:] == state[1:] and found[0].params is state[0].params


ADAM = {"betas": (0.8, 0.95), "epsilon": 1e-3}


@partial(jax.jit, static_argnames="config")
def adam_steps(gradients, config):
    method = transformation(config)

    def update(state, gradient):
        step, state = method.update(gradient, state, gradient)
        return state, step

    return jax.lax.scan(update, method.init(gradients[0]), gradients)[1]


@pytest.mark.parametrize(
    ("chosen", "rate"), [(ADAM | {"learning_rate": 0.3}, 0.3), ({}, 0.02)], ids=["chosen", "default"]
)
def test_adam_divides_corrected_means_of_gradients_and_of_their_squares(chosen, rate):
    config = Config(optimizer="adam", **chosen)
    (first, second), epsilon = config.betas, config.epsilon
    gradients = 0.01 * np.random.default_rng(0).normal(size=(7, 5))
    with jax.enable_x64(True):
        found = adam_steps(gradients, config)
    mean, square = np.zeros((2, 5))
    for k, gradient in enumerate(gradients, 1):
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        expected = -rate * (mean / (1 - first**k)) / (np.sqrt(square / (1 - second**k)) + epsilon)
        np.testing.assert_allclose(found[k - 1], expected, rtol=1e-8)


def test_adam_takes_no_step_and_has_a_finite_derivative_where_all_gradients_are_zero():
    config = Config(optimizer="adam")
    value, slope = jax.jvp(lambda factor: adam_steps(factor * np.zeros((7, 5), np.float32), config), (1.0,), (1.0,))
    assert not np.asarray(value).any() and np.isfinite(slope).all()


def test_a_transformation_of_optax_is_used_as_it_is():
    method = transformation(Config(optimizer=optax.sgd(0.5)))
    gradient = np.ones(3, np.float32)
    step, _ = method.update(gradient, method.init(gradient), gradient, value=1.0, grad=gradient)
    np.testing.assert_array_equal(np.asarray(step), -0.5 * gradient)

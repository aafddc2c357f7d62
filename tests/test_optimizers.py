"""Adam on a few numbers, compared with NumPy."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxstyle.config import Config
from jaxstyle.optim.optimizers import transformation

ADAM = {"betas": (0.8, 0.95), "epsilon": 1e-3}


@partial(jax.jit, static_argnames="config")
def adam_steps(gradients, config):
    """Return the updates, and their derivatives by a factor on all gradients."""
    method = transformation(config)

    def updates(factor):
        def update(state, gradient):
            step, state = method.update(factor * gradient, state, gradient)
            return state, step

        return jax.lax.scan(update, method.init(gradients[0]), gradients)[1]

    return jax.jvp(updates, (1.0,), (1.0,))


@pytest.mark.parametrize(
    ("chosen", "rate"), [(ADAM | {"learning_rate": 0.3}, 0.3), ({}, 0.02)], ids=["chosen", "default"]
)
def test_adam_divides_corrected_means_of_gradients_and_of_their_squares(chosen, rate):
    config = Config(optimizer="adam", **chosen)
    (first, second), epsilon = config.betas, config.epsilon
    gradients = 0.01 * np.random.default_rng(0).normal(size=(7, 5))
    with jax.enable_x64(True):
        found, _ = adam_steps(gradients, config)
    mean, square = np.zeros((2, 5))
    for k, gradient in enumerate(gradients, 1):
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        expected = -rate * (mean / (1 - first**k)) / (np.sqrt(square / (1 - second**k)) + epsilon)
        np.testing.assert_allclose(found[k - 1], expected, rtol=1e-8)


def test_adam_takes_no_step_and_has_a_finite_derivative_where_all_gradients_are_zero():
    with jax.enable_x64(True):
        found, slopes = adam_steps(np.zeros((7, 5)), Config(optimizer="adam"))
    assert not np.asarray(found).any() and np.isfinite(slopes).all()


def test_a_transformation_of_optax_is_used_as_it_is():
    method = transformation(Config(optimizer=optax.sgd(0.5)))
    gradient = np.ones(3, np.float32)
    step, _ = method.update(gradient, method.init(gradient), gradient, value=1.0, grad=gradient)
    np.testing.assert_array_equal(np.asarray(step), -0.5 * gradient)

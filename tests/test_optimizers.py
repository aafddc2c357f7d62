"""Adam on a few numbers, compared with NumPy."""

import jax
import numpy as np
import optax
import pytest

from jaxstyle.config import Config
from jaxstyle.optim.optimizers import transformation

ADAM = {"betas": (0.8, 0.95), "epsilon": 1e-3}


CONFIGS = {
    "default": Config(optimizer="adam"),
    "chosen": Config(optimizer="adam", learning_rate=0.3, **ADAM),
}


@jax.jit
def adam_steps(gradients):
    """Return for each config the updates, and their derivatives by a factor on all gradients: one program."""

    def of(config):
        method = transformation(config)

        def updates(factor):
            def update(state, gradient):
                step, state = method.update(factor * gradient, state, gradient)
                return state, step

            return jax.lax.scan(update, method.init(gradients[0]), gradients)[1]

        return jax.jvp(updates, (1.0,), (1.0,))

    return {name: of(config) for name, config in CONFIGS.items()}


@pytest.mark.parametrize(("name", "rate"), [("chosen", 0.3), ("default", 0.02)])
def test_adam_divides_corrected_means_of_gradients_and_of_their_squares(name, rate):
    (first, second), epsilon = CONFIGS[name].betas, CONFIGS[name].epsilon
    gradients = 0.01 * np.random.default_rng(0).normal(size=(7, 5))
    with jax.enable_x64(True):
        found, _ = adam_steps(gradients)[name]
    mean, square = np.zeros((2, 5))
    for k, gradient in enumerate(gradients, 1):
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        expected = -rate * (mean / (1 - first**k)) / (np.sqrt(square / (1 - second**k)) + epsilon)
        np.testing.assert_allclose(found[k - 1], expected, rtol=1e-8)


def test_adam_takes_no_step_and_has_a_finite_derivative_where_all_gradients_are_zero():
    with jax.enable_x64(True):
        found, slopes = adam_steps(np.zeros((7, 5)))["default"]
    assert not np.asarray(found).any() and np.isfinite(slopes).all()


def test_a_transformation_of_optax_is_used_as_it_is():
    method = transformation(Config(optimizer=optax.sgd(0.5)))
    gradient = np.ones(3, np.float32)
    step, _ = method.update(gradient, method.init(gradient), gradient, value=1.0, grad=gradient)
    np.testing.assert_array_equal(np.asarray(step), -0.5 * gradient)

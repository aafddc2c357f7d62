"""Options of the optimizers, and Adam on a few numbers, compared with NumPy."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxstyle.errors import InputError
from jaxstyle.optim.optimizers import LBFGS, Adam, Optax, as_optimizer, transformation

ADAMS = {"default": Adam(), "chosen": Adam(learning_rate=0.3, b1=0.8, b2=0.95, eps=1e-3)}


@jax.jit
def adam_steps(gradients):
    """Return for each optimizer the updates, and their derivatives by a factor on all gradients: one program."""

    def of(optimizer):
        method = transformation(optimizer)

        def updates(factor):
            def update(state, gradient):
                step, state = method.update(factor * gradient, state, gradient)
                return state, step

            return jax.lax.scan(update, method.init(gradients[0]), gradients)[1]

        return jax.jvp(updates, (1.0,), (1.0,))

    return {name: of(optimizer) for name, optimizer in ADAMS.items()}


@pytest.mark.parametrize(("name", "rate"), [("chosen", 0.3), ("default", 0.02)])
def test_adam_divides_corrected_means_of_gradients_and_of_their_squares(name, rate):
    first, second, epsilon = ADAMS[name].b1, ADAMS[name].b2, ADAMS[name].eps
    gradients = 0.01 * np.random.default_rng(0).normal(size=(7, 5))
    with jax.enable_x64(True):
        actual, _ = adam_steps(gradients)[name]
    mean, square = np.zeros((2, 5))
    for k, gradient in enumerate(gradients, 1):
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        expected = -rate * (mean / (1 - first**k)) / (np.sqrt(square / (1 - second**k)) + epsilon)
        np.testing.assert_allclose(actual[k - 1], expected, rtol=1e-8)


def test_adam_takes_no_step_and_has_a_finite_derivative_where_all_gradients_are_zero():
    with jax.enable_x64(True):
        actual, slopes = adam_steps(np.zeros((7, 5)))["default"]
    assert not np.asarray(actual).any() and np.isfinite(slopes).all()


def test_a_transformation_of_optax_is_used_unchanged():
    method = transformation(Optax(optax.sgd(0.5)))
    gradient = np.ones(3, np.float32)
    step, _ = method.update(gradient, method.init(gradient), gradient, value=1.0, grad=gradient)
    np.testing.assert_array_equal(np.asarray(step), -0.5 * gradient)


@pytest.mark.parametrize(
    ("optimizer", "leaves"),
    [(LBFGS(), [1.0]), (Adam(learning_rate=0.3), [0.3]), (Optax(optax.sgd(0.5)), [])],
    ids=["lbfgs", "adam", "optax"],
)
def test_the_learning_rate_is_the_only_leaf_and_other_options_are_compared_by_value(optimizer, leaves):
    assert jax.tree.leaves(optimizer) == leaves
    structure, again = jax.tree.structure(optimizer), jax.tree.structure(dataclasses.replace(optimizer))
    assert structure == again and hash(structure) == hash(again)
    assert structure != jax.tree.structure(dataclasses.replace(optimizer, tolerance=0.5))


def test_a_traced_learning_rate_is_accepted():
    rates = jnp.asarray([0.1, 0.2])
    actual: Any = jax.eval_shape(jax.vmap(lambda rate: (LBFGS(rate), Adam(rate))), rates)
    assert all(optimizer.learning_rate.shape == (2,) for optimizer in actual)


@pytest.mark.parametrize(
    ("optimizer", "change", "message"),
    [
        (LBFGS, {"parametrization": "waves"}, "parametrization 'waves' is unknown: use .*'pixels' or 'pyramid'"),
        (Adam, {"ema_decay": 1.0}, "ema_decay is 1.0: use a number from 0 and below 1"),
        (LBFGS, {"tolerance": -0.1}, "tolerance is -0.1"),
        (LBFGS, {"patience": -1}, "patience is -1: use a whole number from 0 to 2147483647"),
        (LBFGS, {"patience": 2**31}, "patience is 2147483648: use a whole number from 0 to 2147483647"),
        (Adam, {"b2": 1.0}, "b2 is 1.0: use a number from 0 and below 1"),
        (Adam, {"b1": -0.1}, "b1 is -0.1"),
        (Adam, {"eps": -1e-8}, "eps is -1e-08: use a number from 0"),
        (LBFGS, {"history_size": 0}, "history_size is 0: use a whole number from 1 to 2147483647"),
        (
            LBFGS,
            {"history_size": 10**20},
            "history_size is 100000000000000000000: use a whole",
        ),
        (Optax, {"transformation": "sgd"}, r"The optimizer is 'sgd': pass LBFGS\(\)"),
        (Optax, {"transformation": optax.sgd(0.1), "ema_decay": -1.0}, "ema_decay is -1.0"),
    ],
)
def test_an_option_out_of_range_is_refused(optimizer, change, message):
    with pytest.raises(InputError, match=message):
        optimizer(**change)


@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), np.float32(np.inf), np.asarray([0.1, 0.0])])
def test_a_learning_rate_that_is_not_positive_is_refused_where_a_run_begins(rate):
    """Not where the optimizer is made: its derivative is such a pytree, too."""
    slope = jax.tree.map(lambda _: rate, Adam())
    with pytest.raises(InputError, match=f"learning_rate is {re.escape(str(rate))}: use a positive number"):
        as_optimizer(slope)


def test_values_at_the_ends_of_their_ranges_are_accepted():
    LBFGS(ema_decay=0.0, tolerance=0.0, patience=2**31 - 1, history_size=1)
    Adam(b1=0.0, b2=0.0, eps=0)


def test_lbfgs_has_half_as_many_pairs_in_images_of_a_million_pixels():
    counts = [LBFGS().pairs(pixels) for pixels in (1, 2**20 - 1, 2**20, 2**24)]
    assert counts == [20, 20, 10, 10] and LBFGS(history_size=3).pairs(2**24) == 3

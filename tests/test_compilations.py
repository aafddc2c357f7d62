"""Compilations: numbers are arguments of programs, so that other weights, learning rates and steps compile nothing."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import toy_problem as toy

from jaxstyle.losses.targets import make_targets
from jaxstyle.optim.loop import init_state, run_segment, run_steps
from jaxstyle.optim.optimizers import LBFGS, Adam
from jaxstyle.transfer.stylize import stylize

pytestmark = pytest.mark.slow

CONTENT: Any
STYLE: Any
CONTENT, STYLE = (np.asarray(each, np.float32) for each in (toy.CONTENT, toy.STYLE))
PARAMS: Any = jax.tree.map(np.float32, toy.PARAMS)
OTHER_WEIGHTS = dataclasses.replace(toy.OBJECTIVE, content={"full": 0.2}, tv=3, range_penalty=0.0)


def begin(objective, optimizer) -> tuple[Any, Any, Any, Any]:
    """Return the arguments of a run on the linear network: state, params, targets and objective."""
    targets = make_targets(PARAMS, CONTENT, STYLE, objective=objective, network=toy.network)
    return init_state(CONTENT, objective=objective, optimizer=optimizer), PARAMS, targets, objective


@pytest.mark.parametrize("optimizer", [Adam, LBFGS])
def test_other_weights_and_learning_rates_and_equal_options_compile_nothing(compilations, optimizer):
    def image(objective, learning_rate):
        inputs = begin(objective, optimizer(learning_rate, parametrization="pixels", ema_decay=0.5))
        return run_steps(*inputs, network=toy.network, steps=3)[0].image

    first = image(toy.OBJECTIVE, 0.05)
    compilations.clear()
    again = image(dataclasses.replace(toy.OBJECTIVE), 0.05)
    others = [image(OTHER_WEIGHTS, 0.05), image(toy.OBJECTIVE, 0.1), image(toy.OBJECTIVE, 1)]
    assert compilations == []
    np.testing.assert_array_equal(again, first)
    assert all(np.abs(other - first).max() > 1e-4 for other in others)


def test_another_number_of_steps_of_a_segment_compiles_nothing(compilations):
    def history(steps):
        inputs = begin(toy.OBJECTIVE, Adam())
        return np.asarray(run_segment(*inputs, steps, network=toy.network, most_steps=4)[1])

    first = history(2)
    compilations.clear()
    actual = history(3)
    assert compilations == []
    assert [row.any() for row in first] == [True, True, False, False]
    assert [row.any() for row in actual] == [True, True, True, False]
    np.testing.assert_array_equal(actual[:2], first[:2])


def test_stylize_is_mapped_over_learning_rates():
    def image(rate):
        options: dict[str, Any] = {"objective": toy.OBJECTIVE, "network": toy.network, "steps": 3, "scales": 1}
        return stylize(PARAMS, CONTENT, STYLE, optimizer=Adam(rate), **options).image

    rates = np.asarray([0.02, 0.1], np.float32)
    actual = jax.vmap(image)(rates)
    np.testing.assert_allclose(actual, [image(rate) for rate in rates], atol=1e-5)
    assert np.abs(actual[1] - actual[0]).max() > 1e-2

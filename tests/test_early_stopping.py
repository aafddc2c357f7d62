"""Restart and stop of lbfgs, and totals that have levelled off."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy

from jaxstyle.config import Config, LossWeights
from jaxstyle.losses.objective import make_targets
from jaxstyle.optim.early_stopping import WINDOW, Stall, Watch, init_halting, levelled_off, stalled
from jaxstyle.optim.loop import init, run, run_segment
from jaxstyle.optim.parametrizations import decode
from jaxstyle.transfer.sweep import memory_of

PATIENCE, STEPS = 2, 20
# Steps so long that two in a row are undone.
STUCK = Config(
    network=toy.network,
    scales=1,
    parametrization="pixels",
    memory=2,
    patience=PATIENCE,
    learning_rate=1.7,
    **toy.LAYERS,
)
VGG = Config(content_layers=("relu2_2",), style_layers=("relu1_1", "relu2_1"), memory=50)
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)


def counted(values, patience: int) -> tuple[int, int]:
    """The steps at which a run of such values restarts and stops, by the definition."""
    found = [0]
    for step in range(1, 1 + len(values)):
        lowest = 1 + int(np.argmin(values[:step]))  # the first of equal ones
        if step - max(lowest, found[-1]) >= patience:
            found.append(step)
    restart, stop, *_ = [*found[1:], 0, 0]
    return restart, stop


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def step_by_step(image, *, weights=toy.WEIGHTS) -> tuple[list[Any], list[float]]:
    """Return the states before and after each step, and the values that are minimized."""
    with jax.enable_x64(True):
        states, values = [init(jnp.asarray(image), config=STUCK)], []
        for _ in range(STEPS):
            state, trace = run(states[-1], toy.PARAMS, toy.TARGETS, weights, config=STUCK, steps=1)
            states.append(state)
            values.append(float(trace["total"][0] + weights.bounds * trace["bounds"][0]))
        return states, values


@pytest.fixture(scope="module")
def stuck():
    return step_by_step(toy.CONTENT)


def test_a_run_without_progress_restarts_once_and_then_stops(double, stuck):
    states, values = stuck
    restarted, stopped = counted(values, PATIENCE)
    assert PATIENCE < restarted < stopped < STEPS - 2
    for i, state in enumerate(states):
        assert state.stall.restarted == (restarted if i >= restarted else 0), i
        assert state.stall.stopped == (stopped if i >= stopped else 0), i
        assert state.stopped == state.stall.stopped and state.done == (i >= stopped), i
        if i > stopped:
            assert (decode(state.parameters) == decode(states[i - 1].parameters)).all(), i
    assert len(set(values[stopped - 1 :])) == 1


def test_lbfgs_holds_value_and_gradient_of_objective_and_penalty_at_the_best_iterate(double, stuck):
    states, values = stuck
    assert values == sorted(values, reverse=True) and len(set(values)) > 3
    excess = 0.0
    for k, state in enumerate(states[1:]):
        terms, slopes, _ = toy.evaluate(decode(state.parameters))
        excess = max(excess, terms["bounds"])
        assert values[k] == pytest.approx(toy.weighted(toy.WEIGHTS, terms), rel=1e-9)
        gradient = toy.weighted(toy.WEIGHTS, slopes)
        np.testing.assert_allclose(state.optimizer.gradient.reshape(gradient.shape), gradient, rtol=1e-7, atol=1e-9)
    assert excess > 0


def test_without_weights_nothing_moves(compilations, stuck):
    compilations.clear()
    states, values = step_by_step(toy.CONTENT, weights=jax.tree.map(lambda _: 0.0, toy.WEIGHTS))
    assert values == [0.0] * STEPS and compilations == []
    np.testing.assert_array_equal(decode(states[-1].parameters), toy.CONTENT)
    assert (int(states[-1].stall.restarted), int(states[-1].stall.stopped)) == (PATIENCE + 1, 2 * PATIENCE + 1)


@pytest.mark.slow
def test_the_gradient_goes_through_restart_and_stop(double):
    """Compared with a central difference."""

    @jax.jit
    def program(factor):
        def brightness(factor):
            weights = dataclasses.replace(
                toy.WEIGHTS, style={name: factor * own for name, own in toy.WEIGHTS.style.items()}
            )
            state = init(jnp.asarray(toy.CONTENT), config=STUCK)
            state, _ = run(state, toy.PARAMS, toy.TARGETS, weights, config=STUCK, steps=STEPS)
            return state.image[1:, ::2].mean(), state.stall

        return jax.value_and_grad(brightness, has_aux=True)(factor)

    at, step = 1.0, 1e-6
    (_, stall), gradient = program(at)
    assert 0 < stall.restarted < stall.stopped < STEPS
    difference = (program(at + step)[0][0] - program(at - step)[0][0]) / (2 * step)
    assert gradient == pytest.approx(float(difference), rel=1e-4) and difference != 0


@pytest.mark.parametrize(
    "chosen",
    [{"optimizer": "adam"}, {"normalize_gradients": True}, {"patience": 0}],
    ids=["adam", "normalized", "no patience"],
)
def test_only_lbfgs_with_patience_and_plain_gradients_is_watched(chosen):
    assert init_halting(Config(**chosen), dtype=np.float32) == (None, None)


def test_a_watch_and_a_stall_begin_with_nothing_reached():
    watch, stall = init_halting(Config(tolerance=0.1), dtype=np.float32)
    assert watch is not None and np.isposinf(watch.totals).all() and watch.totals.shape == (WINDOW,)
    assert stall is not None and np.isposinf(stall.lowest) and stall.lowest.dtype == np.float32
    assert not any([watch.steps, watch.stopped, stall.steps, stall.since, stall.restarted, stall.stopped])


@jax.jit
def scanned(values, patience):
    """Return restart and stop of many runs."""

    def one(values, patience):
        zero: Any = jnp.zeros((), jnp.int32)
        begin = Stall(zero, jnp.full((), jnp.inf), zero, zero, zero)
        return jax.lax.scan(lambda s, value: (stalled(s, value, patience=patience), None), begin, values)[0]

    return jax.vmap(one)(values, patience)


def test_restart_and_stop_are_counted_from_the_lowest_value():
    """Also where values are not finite, which are no progress."""
    rng = np.random.default_rng(0)
    patience = np.resize([1, 2, 5], 62)
    values = rng.integers(0, 30, (62, 40)) + rng.uniform(-1, 0.5, (62, 1)) * np.arange(40)
    values = values.astype(np.float32)
    values[60:] = 3.0
    values[60, 1:], values[61, 1:] = np.nan, np.inf
    found = scanned(values, patience)
    for lane in range(62):
        expected = counted(np.nan_to_num(values[lane], nan=np.inf), patience[lane])
        assert (int(found.restarted[lane]), int(found.stopped[lane])) == expected, lane


@jax.jit
def watched(values):
    zero: Any = jnp.zeros((), jnp.int32)
    begin = Watch(jnp.full(WINDOW, jnp.inf), zero, zero)
    return jax.lax.scan(lambda watch, value: (levelled_off(watch, value, tolerance=0.25), None), begin, values)[0]


@pytest.mark.parametrize("at", [11, 12, 17, 0])
def test_a_total_has_levelled_off_when_it_has_not_fallen_by_the_tolerance_within_the_window(at):
    """At exactly that share it counts as not fallen; the first such step is remembered."""
    values = 8 * 0.9 ** np.arange(24)  # 0.35 of itself after 10 steps
    if at:
        values[at - 1] = 0.75 * values[at - 1 - WINDOW]
    state = watched(values.astype(np.float32))
    assert (int(state.steps), int(state.stopped)) == (24, at)
    np.testing.assert_allclose(state.totals, values[-WINDOW:], rtol=1e-6)


@pytest.mark.slow
def test_a_step_of_lbfgs_that_is_undone_does_not_count_as_levelled_off(double):
    """The stop is that of the totals of the best iterates, which the history has."""
    tolerance = 0.2
    config = dataclasses.replace(STUCK, tolerance=tolerance, patience=0)
    given = (init(jnp.asarray(toy.CONTENT), config=config), toy.PARAMS, toy.TARGETS, toy.WEIGHTS)
    state, trace = run(*given, config=config, steps=40)
    totals = np.asarray(trace["total"])
    late = [k for k in range(WINDOW, 40) if totals[k] >= (1 - tolerance) * totals[k - WINDOW]]
    assert late and state.stopped == late[0] + 1 and (totals[late[0] :] == totals[late[0]]).all()


@pytest.mark.slow
def test_lanes_restart_and_stop_each_by_itself(double):
    """In the first lane, without weights, nothing falls; the second is that of a run without patience."""
    config = dataclasses.replace(STUCK, learning_rate=1.0)
    idle = jax.tree.map(lambda weight: np.asarray([0.0, weight]), toy.WEIGHTS)
    states = init(jnp.stack([toy.START] * 2), config=config)
    state: Any
    state, _ = run(states, toy.PARAMS, toy.TARGETS, idle, config=config, steps=9)
    assert state.stall.restarted.tolist() == [3, 0] and state.stall.stopped.tolist() == [5, 0]
    assert state.done.tolist() == [True, False]
    np.testing.assert_array_equal(state.image[0], toy.START)
    config = dataclasses.replace(config, patience=0)
    given = (init(jnp.asarray(toy.START), config=config), toy.PARAMS, toy.TARGETS, toy.WEIGHTS)
    free, _ = run(*given, config=config, steps=9)
    assert free.stall is None
    np.testing.assert_allclose(state.image[1], free.image, atol=1e-9)


@pytest.mark.slow(optimized=True)
@pytest.mark.soak(long=True)
def test_patience_and_tolerance_take_no_second_memory_of_lbfgs(params, content, style):
    def taken(**chosen):
        config = dataclasses.replace(VGG, **chosen)
        given = jax.eval_shape(
            lambda: (init(content, config=config), params, make_targets(params, content, style, config=config))
        )
        return memory_of(run_segment.lower(*given, WEIGHTS, np.int32(4), config=config, most_steps=4).compile())

    assert taken(patience=30, tolerance=0.01) <= 1.02 * taken(patience=0)

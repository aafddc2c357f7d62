"""Restart and stop of lbfgs, and totals that have levelled off."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy

from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.early_stopping import WINDOW, Stall, Watch, init_early_stopping, levelled_off, stalled
from jaxstyle.optim.loop import init_state, run_segment, run_steps
from jaxstyle.optim.optimizers import LBFGS, Adam
from jaxstyle.optim.parametrizations import decode
from jaxstyle.transfer.sweep import memory_of

PATIENCE, STEPS = 2, 20
# Steps so long that two in a row are undone.
STUCK = LBFGS(learning_rate=1.7, history_size=2, parametrization="pixels", patience=PATIENCE)
VGG = Objective(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)


def begin(image, *, objective=toy.OBJECTIVE, optimizer=STUCK) -> tuple[Any, Any, Any, Any]:
    """Return the arguments of a run on the linear network: state, params, targets and objective."""
    return init_state(jnp.asarray(image), objective=objective, optimizer=optimizer), toy.PARAMS, toy.TARGETS, objective


def counted(values, patience: int) -> tuple[int, int]:
    """The steps at which a run of such values restarts and stops, by the definition."""
    actual = [0]
    for step in range(1, 1 + len(values)):
        lowest = 1 + int(np.argmin(values[:step]))  # the first of equal ones
        if step - max(lowest, actual[-1]) >= patience:
            actual.append(step)
    restart, stop, *_ = [*actual[1:], 0, 0]
    return restart, stop


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def step_by_step(image, *, objective=toy.OBJECTIVE) -> tuple[list[Any], list[float]]:
    """Return the states before and after each step, and the values that are minimized."""
    with jax.enable_x64(True):
        state, *inputs = begin(image, objective=objective)
        states, values = [state], []
        for _ in range(STEPS):
            state, history = run_steps(states[-1], *inputs, network=toy.network, steps=1)
            states.append(state)
            values.append(float(history["total"][0] + objective.range_penalty * history["range_penalty"][0]))
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
        excess = max(excess, terms["range_penalty"])
        assert values[k] == pytest.approx(toy.weighted(toy.OBJECTIVE, terms), rel=1e-9)
        gradient = toy.weighted(toy.OBJECTIVE, slopes)
        np.testing.assert_allclose(state.memory.gradient.reshape(gradient.shape), gradient, rtol=1e-7, atol=1e-9)
    assert excess > 0


def test_without_weights_nothing_moves(compilations, stuck):
    compilations.clear()
    states, values = step_by_step(toy.CONTENT, objective=jax.tree.map(lambda _: 0.0, toy.OBJECTIVE))
    assert values == [0.0] * STEPS and compilations == []
    np.testing.assert_array_equal(decode(states[-1].parameters), toy.CONTENT)
    assert (int(states[-1].stall.restarted), int(states[-1].stall.stopped)) == (PATIENCE + 1, 2 * PATIENCE + 1)


@pytest.mark.slow
def test_the_gradient_goes_through_restart_and_stop(double):
    """Compared with a central difference."""

    @jax.jit
    def program(factor):
        def brightness(factor):
            style = {layer: factor * weight for layer, weight in toy.OBJECTIVE.style.items()}
            inputs = begin(toy.CONTENT, objective=dataclasses.replace(toy.OBJECTIVE, style=style))
            state, _ = run_steps(*inputs, network=toy.network, steps=STEPS)
            return state.image[1:, ::2].mean(), state.stall

        return jax.value_and_grad(brightness, has_aux=True)(factor)

    at, step = 1.0, 1e-6
    (_, stall), gradient = program(at)
    assert 0 < stall.restarted < stall.stopped < STEPS
    difference = (program(at + step)[0][0] - program(at - step)[0][0]) / (2 * step)
    assert gradient == pytest.approx(float(difference), rel=1e-4) and difference != 0


@pytest.mark.parametrize(
    ("optimizer", "normalized"),
    [(Adam(), False), (LBFGS(), True), (LBFGS(patience=0), False)],
    ids=["adam", "normalized", "no patience"],
)
def test_only_lbfgs_with_patience_and_plain_gradients_is_watched(optimizer, normalized):
    assert init_early_stopping(optimizer, normalized_gradients=normalized, dtype=np.float32) == (None, None)


def test_a_watch_and_a_stall_begin_with_nothing_reached():
    watch, stall = init_early_stopping(LBFGS(tolerance=0.1), dtype=np.float32)
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
    actual = scanned(values, patience)
    for run in range(62):
        expected = counted(np.nan_to_num(values[run], nan=np.inf), patience[run])
        assert (int(actual.restarted[run]), int(actual.stopped[run])) == expected, run


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
    inputs = begin(toy.CONTENT, optimizer=dataclasses.replace(STUCK, tolerance=tolerance, patience=0))
    state, history = run_steps(*inputs, network=toy.network, steps=40)
    totals = np.asarray(history["total"])
    late = [k for k in range(WINDOW, 40) if totals[k] >= (1 - tolerance) * totals[k - WINDOW]]
    assert late and state.stopped == late[0] + 1 and (totals[late[0] :] == totals[late[0]]).all()
    averaging = dataclasses.replace(STUCK, tolerance=tolerance, patience=0, ema_decay=0.9)
    inputs = begin(toy.CONTENT, optimizer=averaging)
    images = [run_steps(*inputs, network=toy.network, steps=steps)[0].image for steps in (40, 60)]
    np.testing.assert_array_equal(images[0], images[1])


@pytest.mark.slow
def test_images_of_a_batch_restart_and_stop_each_by_itself(double):
    """In the first run, without weights, nothing falls; the second is that of a run without patience."""
    optimizer = dataclasses.replace(STUCK, learning_rate=1.0)
    idle = jax.tree.map(lambda weight: np.asarray([0.0, weight]), toy.OBJECTIVE)
    state: Any
    state, *_ = begin(np.stack([toy.START] * 2), optimizer=optimizer)
    state, _ = run_steps(state, toy.PARAMS, toy.TARGETS, idle, network=toy.network, steps=9)
    assert state.stall.restarted.tolist() == [3, 0] and state.stall.stopped.tolist() == [5, 0]
    assert state.done.tolist() == [True, False]
    np.testing.assert_array_equal(state.image[0], toy.START)
    inputs = begin(toy.START, optimizer=dataclasses.replace(optimizer, patience=0))
    free, _ = run_steps(*inputs, network=toy.network, steps=9)
    assert free.stall is None
    np.testing.assert_allclose(state.image[1], free.image, atol=1e-9)


@pytest.mark.slow(optimized=True)
@pytest.mark.soak(long=True)
def test_patience_and_tolerance_take_no_second_memory_of_lbfgs(params, content, style):
    def taken(**chosen):
        optimizer = LBFGS(history_size=50, **chosen)
        inputs = jax.eval_shape(
            lambda: (
                init_state(content, objective=VGG, optimizer=optimizer),
                params,
                make_targets(params, content, style, objective=VGG),
            )
        )
        lowered = run_segment.lower(*inputs, VGG, np.int32(4), network=VGG19(), most_steps=4)
        return memory_of(lowered.compile())

    assert taken(patience=30, tolerance=0.01) <= 1.02 * taken(patience=0)

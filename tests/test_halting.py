import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture

from jaxstyle.config import Config, LossWeights
from jaxstyle.descent import _skip_negative_curvature, forget_pairs
from jaxstyle.halting import Stall, init_halting, stalled
from jaxstyle.objective import make_targets
from jaxstyle.optimize import init, run, run_in_place
from jaxstyle.sweep import memory_of

HEALTHY = Config(content_layers=("relu2_2",), style_layers=("relu1_1", "relu2_1"), patience=3)
STUCK = dataclasses.replace(HEALTHY, learning_rate=2.5)  # too long a step: it climbs, as far as it may
STEPS = 16
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)


def same(a, b) -> bool:
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def counted(values, patience: int) -> tuple[int, int]:
    """The steps at which a run of such values restarts and stops, from the sentence that says so."""
    found, begin = [], 0
    for _ in range(2):
        run = values[begin:]
        late = [
            i for i in range(patience, len(run)) if min(run[i - patience + 1 : i + 1]) >= min(run[: i - patience + 1])
        ]
        begin += late[0] if late else len(values)
        found.append(begin + 1 if late else 0)
    return found[0], found[1]


@pytest.fixture(scope="module")
def small():
    return picture(16, 20, seed=0), picture(18, 16, seed=1)


@pytest.fixture(scope="module")
def advance(params, small):
    """Take `steps` steps from a state, or from the content."""

    def advance(config, steps, state=None, weights=WEIGHTS):
        targets = make_targets(params, *small, config=config)
        return run(state or init(small[0], config=config), params, targets, weights, config=config, steps=steps)

    return advance


@pytest.fixture(scope="module")
def stuck(advance):
    """The states after each step of a run that gets nowhere, and what it minimised."""
    state, states, values = None, [], []
    for _ in range(STEPS):
        state, trace = advance(STUCK, 1, state)
        states.append(state)
        values.append(float(trace["total"][0] + WEIGHTS.bounds * trace["bounds"][0]))
    return states, values


def test_a_run_that_gets_nowhere_restarts_once_and_then_holds_its_image(stuck):
    states, values = stuck
    restarted, stopped = counted(values, 3)
    assert 3 < restarted < stopped < STEPS - 2
    for i, state in enumerate(states, 1):
        assert state.stall.restarted == (restarted if i >= restarted else 0), i
        assert state.stall.stopped == (stopped if i >= stopped else 0), i
        assert state.done == (i >= stopped), i
        held = i > 1 and same(state.parameters, states[i - 2].parameters)
        assert held == (i >= stopped), i
    assert len(set(values[stopped - 1 :])) == 1


def test_a_restart_is_a_fresh_start_from_the_same_point(stuck, small, advance):
    states, values = stuck
    restarted, stopped = counted(values, 3)
    fresh = init(small[0], config=STUCK)._replace(parameters=states[restarted - 2].parameters)
    for i in range(restarted, stopped):
        fresh, _ = advance(STUCK, 1, fresh)
        assert same(fresh.parameters, states[i - 1].parameters), i


@pytest.mark.slow
@pytest.mark.parametrize("segments", [(STEPS,), (3, 6, 7)])
def test_segments_equal_the_whole_bit_for_bit_across_restart_and_stop(stuck, advance, segments):
    state = None
    for steps in segments:
        state, _ = advance(STUCK, steps, state)
    assert same(state, stuck[0][-1])


def test_nothing_compiles_in_a_second_call_and_nothing_is_weakly_typed(stuck, advance, compilations):
    advance(STUCK, 1)
    compilations.clear()
    advance(STUCK, 1, stuck[0][5])
    assert compilations == []
    assert not any(
        leaf.weak_type for leaf in jax.tree.leaves((init(jnp.zeros((16, 20, 3)), config=STUCK), stuck[0][5]))
    )


@pytest.mark.slow
def test_without_patience_it_goes_on_as_it_was(stuck, advance):
    states, values = stuck
    restarted, _ = counted(values, 3)
    free, _ = advance(dataclasses.replace(STUCK, patience=0), 1)
    for i in range(1, STEPS):
        assert i >= restarted or same(free.parameters, states[i - 1].parameters), i
        before, (free, _) = free, advance(dataclasses.replace(STUCK, patience=0), 1, free)
        assert free.stall is None and not free.done and not same(before.parameters, free.parameters)


@pytest.mark.slow
def test_a_run_that_gets_on_is_left_alone(advance):
    watched, _ = advance(HEALTHY, STEPS)
    free, _ = advance(dataclasses.replace(HEALTHY, patience=0), STEPS)
    assert watched.stall.restarted == watched.stall.stopped == 0
    np.testing.assert_allclose(watched.image, free.image, atol=1e-5)


@pytest.mark.parametrize("chosen", [{"optimizer": "adam"}, {"normalize_gradients": True}])
def test_adam_and_normalised_gradients_are_not_watched(small, chosen):
    assert init(small[0], config=Config(**chosen)).stall is None


@pytest.mark.slow
def test_lanes_restart_and_stop_each_by_itself(params, small, advance):
    idle = jax.tree.map(lambda weight: jnp.asarray([0.0, weight]), WEIGHTS)  # the first lane has nothing to lower
    targets = make_targets(params, *small, config=HEALTHY)
    state, _ = run(init(jnp.stack([small[0]] * 2), config=HEALTHY), params, targets, idle, config=HEALTHY, steps=9)
    assert state.stall is not None
    alone, _ = advance(HEALTHY, 9)
    assert state.stall.restarted.tolist() == [4, 0] and state.stall.stopped.tolist() == [7, 0]
    assert state.done.tolist() == [True, False]
    np.testing.assert_allclose(state.image[1], alone.image, atol=1e-3)


@pytest.mark.slow
def test_the_gradient_goes_through_restart_and_stop(params, small):
    config, weights = dataclasses.replace(STUCK, patience=2), WEIGHTS
    with jax.enable_x64(True):
        network, *pictures = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, *small))
        targets = make_targets(network, *pictures, config=config)

        @jax.jit
        def brightness(weight):
            style = dict.fromkeys(config.style_layers, weight)
            state = init(pictures[0], config=config)
            state, _ = run(state, network, targets, weights._replace(style=style), config=config, steps=12)
            return state.image[4:, ::3].mean(), state.stall

        at, step = jnp.asarray(6.0), 1e-7
        gradient, stall = jax.grad(brightness, has_aux=True)(at)
        assert 0 < stall.restarted < stall.stopped < 12
        difference = (brightness(at + step)[0] - brightness(at - step)[0]) / (2 * step)
        assert gradient == pytest.approx(float(difference), rel=1e-3) and difference != 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [{"patience": 30}, {"tolerance": 0.01}],
    ids=["patience", "tolerance"],
)
def test_being_watched_takes_no_second_memory(params, small, extra):
    def taken(**chosen):
        config = dataclasses.replace(HEALTHY, memory=50, **{"patience": 0, **chosen})
        targets, state = make_targets(params, *small, config=config), init(small[0], config=config)
        lowered = run_in_place.lower(state, params, targets, WEIGHTS, config=config, steps=4)
        return memory_of(lowered.compile())

    assert taken(**extra) <= 1.02 * taken()


# The parts


def test_restart_and_stop_are_counted_from_the_lowest_value():
    rng = np.random.default_rng(0)
    for patience in (1, 2, 5):
        for _ in range(20):
            values = rng.integers(0, 30, 40).astype(float) + rng.uniform(-1, 0.5) * np.arange(40)
            stall: Any = init_halting(Config(), dtype=jnp.float32)[1]
            step = partial(stalled, patience=patience)
            stall, _ = jax.lax.scan(
                lambda stall, value, step=step: (step(stall, value), None), stall, jnp.asarray(values, jnp.float32)
            )
            assert (int(stall.restarted), int(stall.stopped)) == counted(values.astype(np.float32), patience)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_no_progress(bad):
    stall = init_halting(Config(), dtype=jnp.float32)[1]
    assert isinstance(stall, Stall)
    for value in (3.0, *[bad] * 8):
        stall = stalled(stall, jnp.asarray(value), patience=3)
    assert (int(stall.restarted), int(stall.stopped)) == (4, 7)


@pytest.mark.slow
def test_pairs_that_are_forgotten_are_not_there():
    """Over twice as many updates as there are pairs: those that were are overwritten one by one."""
    method, rng = _skip_negative_curvature(4), np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(20, 6)), jnp.float32)
    gradients = xs * jnp.arange(1.0, 7.0)[None] * jnp.asarray(rng.choice([1.0, 1.0, -1.0], (20, 1)), jnp.float32)
    state = method.init(xs[0])
    for x, gradient in zip(xs[:9], gradients[:9], strict=True):
        _, state = method.update(gradient, state, x)
    (kept, none), (forgot, _) = (forget_pairs((state, ()), when=jnp.asarray(when)) for when in (False, True))
    assert same(kept, state) and none == ()
    fresh = method.init(xs[0])
    for x, gradient in zip(xs[9:], gradients[9:], strict=True):
        expected, fresh = method.update(gradient, fresh, x)
        found, forgot = method.update(gradient, forgot, x)
        assert same(found, expected)

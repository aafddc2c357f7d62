"""The loop: on a linear network in float64, compared with NumPy, and on VGG, bit for bit where runs must be equal."""

import dataclasses
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_problem as toy
from jax import export
from vgg_layers import features

from jaxstyle import load_params
from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.losses.loss_terms import gradient_factors, objective_value, terms, total
from jaxstyle.losses.masks import Regions
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import Targets, make_targets
from jaxstyle.networks.conv import conv3x3
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.early_stopping import WINDOW, Stall, Watch
from jaxstyle.optim.loop import _clip, init_state, run_steps
from jaxstyle.optim.optimizers import LBFGS, Adam, Optax, Optimizer
from jaxstyle.optim.parametrizations import PARAMETRIZATIONS, Parameters, decode

ADAM = Adam(learning_rate=0.22, b1=0.7, b2=0.9, eps=1e-3, ema_decay=0.75, tolerance=0.65)
NORMALIZED = dataclasses.replace(toy.OBJECTIVE, normalize_gradients=True, pixel_range=3.0)
START, STEPS = 1 - toy.CONTENT, 16
LEVELS = ((4, 6, 3), (2, 3, 3), (1, 2, 3), (1, 1, 3), (1, 1, 3))
OTHER_WEIGHTS = dataclasses.replace(toy.OBJECTIVE, tv=4.0)

VGG = Objective(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)


def start(
    params, content, style, *, objective=VGG, optimizer: Optimizer = LBFGS(), network=VGG19()
) -> tuple[Any, Any, Any, Any]:
    """Return the arguments of a run on VGG: state, params, targets and objective."""
    state = init_state(content, objective=objective, optimizer=optimizer)
    return state, params, make_targets(params, content, style, objective=objective, network=network), objective


def same(a, b) -> bool:
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


run_toy = partial(run_steps, network=toy.network)


def step_by_step(image, *, optimizer, steps):
    """Return the state before and after each of `steps` steps, and the history of all."""
    with jax.enable_x64(True):
        states, rows = [init_state(jnp.asarray(image), objective=toy.OBJECTIVE, optimizer=optimizer)], []
        for _ in range(steps):
            state, row = run_toy(states[-1], toy.PARAMS, toy.TARGETS, toy.OBJECTIVE, steps=1)
            states.append(state)
            rows.append(row)
        return states, jax.tree.map(lambda *each: np.concatenate(each), *rows)


@pytest.fixture(scope="module")
def adam():
    return step_by_step(START, optimizer=ADAM, steps=STEPS)


def adam_in_numpy(image, *, objective=toy.OBJECTIVE):
    return toy.adam(image, objective=objective, optimizer=ADAM, steps=STEPS, window=WINDOW)


def test_adam_takes_the_steps_of_numpy_within_the_range_of_the_image(double, adam):
    states, _ = adam
    expected, _, stop = adam_in_numpy(START)
    assert 0 < stop < STEPS
    for state, iterate in zip(states, expected, strict=False):
        np.testing.assert_allclose(decode(state.parameters), iterate, atol=1e-9)
    assert min(map(np.min, expected)) == 0 and max(map(np.max, expected)) == 1  # so some values are clipped


def test_the_history_holds_the_terms_of_the_image_before_each_step(double, adam):
    states, history = adam
    for k, state in enumerate(states[:-1]):
        values, _, _ = toy.evaluate(decode(state.parameters))
        values["total"] = toy.weighted(toy.OBJECTIVE, values, range_penalty=False)
        assert {name: float(each[k]) for name, each in history.items()} == pytest.approx(values, rel=1e-8, abs=1e-14)


def test_objective_value_is_the_total_of_the_history_with_the_weighted_penalty(double, adam):
    states, history = adam
    image = 1.3 * np.asarray(decode(states[3].parameters)) - 0.2
    inputs = (toy.PARAMS, jnp.asarray(image), toy.TARGETS, toy.OBJECTIVE)
    value, metrics = objective_value(*inputs, network=toy.network)
    expected, _, _ = toy.evaluate(image)
    weighted = partial(toy.weighted, toy.OBJECTIVE, expected)
    assert float(metrics["total"]) == pytest.approx(weighted(range_penalty=False), rel=1e-8)
    assert float(value) == pytest.approx(weighted(), rel=1e-8)
    assert float(value) > float(metrics["total"]) and metrics.keys() == history.keys()


def test_the_average_is_the_bias_corrected_mean_of_iterates(double, adam):
    states, _ = adam
    iterates = [np.asarray(decode(state.parameters)) for state in states]
    assert (states[0].image == iterates[0]).all()
    for k in range(1, 9):
        shares = ADAM.ema_decay ** np.arange(k - 1, -1, -1)
        expected = np.tensordot(shares / shares.sum(), iterates[1 : k + 1], 1)
        np.testing.assert_allclose(states[k].image, expected, atol=1e-6)


def test_a_run_is_frozen_from_the_step_at_which_its_total_has_levelled_off(double, adam):
    states, history = adam
    _, totals, stop = adam_in_numpy(START)
    assert WINDOW < stop < STEPS - 2 and len(totals) == stop
    for k, state in enumerate(states):
        assert state.stopped == (stop if k >= stop else 0) and state.done == (k >= stop)
        assert same(state.parameters, states[k - 1].parameters) == (k >= stop)
        assert same(state.average.parameters, states[k - 1].average.parameters) == (k >= stop)
    assert len(set(history["total"][stop - 1 :].tolist())) == 1


def test_weights_and_segments_of_a_batch_are_those_of_single_runs(double, adam):
    """Two starts with one content, which level off at two steps; 16 steps in 5 segments of 4 and 3 steps."""
    starts = np.stack([START, toy.CONTENT])
    objective = dataclasses.replace(toy.OBJECTIVE, tv=np.asarray([toy.OBJECTIVE.tv, OTHER_WEIGHTS.tv]))
    with jax.enable_x64(True):
        state = init_state(jnp.asarray(starts), objective=toy.OBJECTIVE, optimizer=ADAM)
        inputs = (state, toy.PARAMS, toy.TARGETS, objective)
        state, history = run_toy(*inputs, steps=STEPS, checkpoint_segments=5)
        _, alone = adam
        single = adam[0][-1]
        np.testing.assert_allclose(state.image[0], single.image, atol=1e-9)
        for name, values in history.items():
            np.testing.assert_allclose(values[0], alone[name], rtol=1e-7, atol=1e-12)
        iterates, totals, stop = adam_in_numpy(toy.CONTENT, objective=OTHER_WEIGHTS)
        assert state.stopped.tolist() == [int(single.stopped), stop]
        np.testing.assert_allclose(history["total"][1][: len(totals)], totals, rtol=1e-7)
        np.testing.assert_allclose(decode(state.parameters)[1], iterates[-1], atol=1e-8)


def test_a_step_goes_down_the_normalized_gradients_and_the_penalty_out_of_range(double):
    """Gradient descent from an image partly out of range: the history has terms that are not normalized."""
    image = 1.5 * toy.START - 0.1
    with jax.enable_x64(True):
        state = init_state(jnp.asarray(toy.START), objective=NORMALIZED, optimizer=Optax(optax.sgd(0.5)))
        state = state._replace(parameters=Parameters(jnp.asarray(image), lambda x: x, (3,)))
        state, history = run_toy(state, toy.PARAMS, toy.TARGETS, NORMALIZED, steps=1)
    values, gradients, factors = toy.evaluate(image, pixel_range=3.0)
    assert values["range_penalty"] > 0
    slopes = {name: factors[name] * gradient for name, gradient in gradients.items()}
    np.testing.assert_allclose(decode(state.parameters), image - 0.5 * toy.weighted(NORMALIZED, slopes), rtol=1e-8)
    values["total"] = toy.weighted(NORMALIZED, values, range_penalty=False)
    assert {name: float(each[0]) for name, each in history.items()} == pytest.approx(values, rel=1e-8)
    image = np.asarray(decode(state.parameters))
    assert image.min() < 0
    np.testing.assert_array_equal(state.image, np.clip(image, 0, 1))


def test_only_new_shapes_and_static_options_are_compiled(adam, compilations):
    states, _ = adam
    compilations.clear()
    with jax.enable_x64(True):
        run_toy(states[0], toy.PARAMS, toy.TARGETS, OTHER_WEIGHTS, steps=1)
        faster = dataclasses.replace(ADAM, learning_rate=1)
        state = init_state(jnp.asarray(START), objective=toy.OBJECTIVE, optimizer=faster)
        run_toy(state, toy.PARAMS, toy.TARGETS, toy.OBJECTIVE, steps=1)
    assert compilations == []
    jax.jit(lambda x: x + 3)(np.zeros(1237))
    assert compilations  # so a compilation is noticed


def test_the_arrays_of_a_state_are_not_weakly_typed(adam):
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(adam[0][:2]))


def test_no_array_occurs_twice_in_a_state_whose_memory_is_donated():
    state = init_state(jnp.zeros((8, 8, 3)), optimizer=LBFGS(ema_decay=0.9, tolerance=0.1))
    arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    assert len({array.unsafe_buffer_pointer() for array in arrays}) == len(arrays) > 3


def test_clipping_changes_the_finest_level_only():
    levels = [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(LEVELS)]
    before = Parameters(tuple(levels), PARAMETRIZATIONS["pyramid"].decode, (3,) * len(levels))
    image, after = np.asarray(decode(before)), _clip(before)
    np.testing.assert_allclose(after.values[0], levels[0] + np.clip(image, 0, 1) - image, atol=1e-6)
    for actual, expected in zip(after.values[1:], levels[1:], strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("watch", "stall", "stopped"),
    [(None, None, 0), (0, 0, 0), (7, None, 7), (None, 9, 9), (7, 9, 7), (9, 7, 7), (0, 7, 7), (7, 0, 7), (7, 7, 7)],
)
def test_a_run_has_stopped_when_the_first_of_its_criteria_is_met(watch, stall, stopped):
    none: Any = np.zeros((), np.int32)
    state = init_state(np.zeros((1, 1, 3), np.float32), optimizer=LBFGS())._replace(  # pyright: ignore
        watch=None if watch is None else Watch(none, none, jnp.asarray(watch)),
        stall=None if stall is None else Stall(none, none, none, none, jnp.asarray(stall)),
    )
    assert state.stopped == stopped and state.done == (stopped > 0)


def test_all_that_comes_from_the_content_may_have_a_batch_axis():
    """Regions, half size and extra terms, of a batch of contents and of one for all; traced, not compiled."""
    objective = dataclasses.replace(
        toy.OBJECTIVE,
        extra={"dot": 1.0},
        extra_terms={"dot": lambda image, _, targets: (image * targets.picture).mean((-3, -2, -1))},
    )
    image, guide = np.zeros((2, 4, 6, 3)), {"full": np.ones((1, 4, 6)), "half": np.ones((1, 2, 3))}
    small = {"full": np.ones((1, 2, 3)), "half": np.ones((1, 1, 2))}

    def of_size(image, guides, half=None):
        cover = np.ones(image.shape[-3:-1])
        regions = Regions(guides, np.ones(1), cover, image)  # pyright: ignore[reportArgumentType]
        content = {"full": np.zeros((*image.shape[:-1], 4))}
        stacked = jax.tree.map(lambda leaf: leaf[None], toy.TARGETS.style)
        return Targets(content, stacked, regions, half, image)  # pyright: ignore[reportArgumentType]

    with jax.enable_x64(True):
        state = jax.eval_shape(partial(init_state, objective=objective, optimizer=ADAM), image)
        for several in (image, image[0]):
            inputs = of_size(several, guide, of_size(several[..., ::2, ::2, :], small))
            _, history = jax.eval_shape(partial(run_toy, steps=3), state, toy.PARAMS, inputs, objective)
            assert all(each.shape == (2, 3) for each in history.values())


def traced(*, optimizer: Optimizer = ADAM, **options):
    """Trace a run on the linear network without compiling it; return the shapes of state and history."""

    def call(image):
        state = init_state(image, objective=toy.OBJECTIVE, optimizer=optimizer)
        return run_toy(state, toy.PARAMS, toy.TARGETS, toy.OBJECTIVE, **options)

    with jax.enable_x64(True):
        return jax.eval_shape(call, toy.START)


@pytest.mark.parametrize(
    ("steps", "segments", "message"),
    [
        (0, None, "steps is 0: use a whole number from 1"),
        (2.5, None, "steps is 2.5: use a whole number"),
        (7, 0, "checkpoint_segments is 0: use a whole number from 1 to 7"),
        (7, 8, "checkpoint_segments is 8: use a whole number from 1 to 7"),
    ],
)
def test_a_number_of_steps_or_segments_out_of_range_is_refused(steps, segments, message):
    with pytest.raises(InputError, match=message):
        traced(optimizer=LBFGS(parametrization="pixels"), steps=steps, checkpoint_segments=segments)


@pytest.mark.parametrize("segments", [1, 7])
def test_as_many_segments_as_steps_are_accepted(segments):
    assert traced(steps=7, checkpoint_segments=segments)[1]["total"].shape == (7,)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((16, 16, 3), np.uint8), "initial image is an array uint8"),
        (np.full((16, 16, 3), 2.0), "initial image has values .*2: use .*0, 1"),
    ],
)
def test_a_start_that_is_no_picture_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        init_state(image)


def test_a_half_precision_start_is_optimized_in_single_precision():
    optimizer = LBFGS(tolerance=0.1)
    state = jax.eval_shape(partial(init_state, optimizer=optimizer), np.zeros((32, 32, 3), np.float16))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(np.float32), np.dtype(np.int32)}


# VGG


@pytest.mark.slow
def test_the_step_lowers_for_cpu_cuda_and_tpu(params, content, style):
    platforms = ("cpu", "cuda", "tpu")
    inputs = jax.eval_shape(start, params, content, style)
    exported = export.export(jax.jit(run_steps, static_argnames="steps"), platforms=platforms)(*inputs, steps=2)
    assert exported.platforms == platforms
    assert "stablehlo.convolution" in exported.mlir_module()


def test_params_are_arguments_of_the_program_and_not_constants_in_it(params, content, style):
    inputs = jax.eval_shape(partial(start, optimizer=Adam()), params, content, style)

    def constants(program) -> set[str]:
        return set(re.findall(r"stablehlo.constant dense<[^>]*> : tensor<([0-9x]*)xf32>", program.as_text()))

    kernel = params["conv2_1"]["kernel"]
    shape = "x".join(map(str, kernel.shape))
    assert shape not in constants(jax.jit(run_steps, static_argnames="steps").lower(*inputs, steps=2))
    assert shape in constants(jax.jit(lambda x: x + kernel).lower(kernel))  # so a constant is noticed


BITS: dict[str, Any] = {
    "lbfgs": {"optimizer": LBFGS()},
    "stuck": {"optimizer": LBFGS(learning_rate=1e4, patience=3)},  # steps too long, so that it restarts and stops
    "adam": {
        "objective": dataclasses.replace(VGG, normalize_gradients=True),
        "optimizer": Adam(ema_decay=0.9, tolerance=0.2),
    },
}


@pytest.mark.slow(optimized=True)
@pytest.mark.parametrize("name", ["lbfgs", "stuck", pytest.param("adam", marks=pytest.mark.soak(long=True))])
def test_a_run_in_parts_equals_the_whole_bit_for_bit(params, content, style, name):
    """In single steps, which XLA compiles in another way than longer loops, and for adam in segments."""
    steps = 16
    state, *inputs = start(params, content, style, **BITS[name])
    whole: Any
    whole, history = run_steps(state, *inputs, steps=steps)
    if name == "stuck":
        assert 3 < whole.stall.restarted < whole.stall.stopped < steps
    part, rows = state, []
    for _ in range(steps):
        part, row = run_steps(part, *inputs, steps=1)
        rows.append(row)
    assert same(whole, part)
    assert same(history, jax.tree.map(lambda *values: np.concatenate(values), *rows))
    if name == "adam":
        actual = run_steps(state, *inputs, steps=steps, checkpoint_segments=5)
        for mine, expected in zip(jax.tree.leaves(actual), jax.tree.leaves((whole, history)), strict=True):
            assert np.shape(mine) == np.shape(expected) and (mine == expected).all()


@pytest.mark.slow
def test_lbfgs_lowers_the_loss_nearly_in_range_with_the_penalty_and_takes_no_step_without_weights(
    params, content, style
):
    state, _, targets, _ = start(params, content, style)
    objectives = (VGG, dataclasses.replace(VGG, range_penalty=0.0), jax.tree.map(lambda _: 0.0, VGG))
    (actual, history), (free, _), (idle, none) = (
        run_steps(state, params, targets, each, steps=20) for each in objectives
    )
    assert history["total"][-1] < 0.5 * history["total"][0]

    def excess(state):
        image = np.asarray(decode(state.parameters))
        return float(np.abs(image - np.clip(image, 0, 1)).max())

    assert excess(actual) < 0.02 < excess(free)
    assert (idle.image == content).all() and all(np.isfinite(values).all() for values in none.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grey", "flat", "noise", "ramp"])
def test_the_value_that_lbfgs_minimizes_never_rises_and_the_result_has_the_last_one(params, style, kind):
    """Also where a full quasi-Newton step would raise it many times over."""
    rng, ramp = np.random.default_rng(0), np.linspace(0, 1, 32, dtype=np.float32)
    pictures = {"flat": np.full((32, 32, 3), 0.5), "noise": rng.uniform(size=(32, 32, 3))}
    pictures |= {"ramp": np.broadcast_to(ramp[:, None, None], (32, 32, 3))}
    pictures["grey"] = np.broadcast_to(rng.uniform(size=(32, 32, 1)), (32, 32, 3))
    state, _, targets, _ = start(params, pictures[kind].astype(np.float32), style)
    state, history = run_steps(state, params, targets, VGG, steps=10)
    values = np.asarray(history["total"] + VGG.range_penalty * history["range_penalty"])
    assert (np.diff(values) <= 0).all() and values[-1] < 0.99 * values[0]
    image = decode(state.parameters)
    actual = float(total(VGG, terms(params, image, targets, objective=VGG)))
    assert actual == pytest.approx(float(history["total"][-1]), rel=1e-4)


@pytest.mark.slow
def test_a_batch_of_contents_and_weights_is_that_of_single_runs(params, content, style):
    batch, tvs = np.stack([content, content[::-1]]), np.asarray([0.1, 3.0], np.float32)
    state, _, targets, _ = start(params, batch, style, optimizer=Adam())
    together, history = run_steps(state, params, targets, dataclasses.replace(VGG, tv=tvs), steps=5)
    assert history["total"].shape == (2, 5)
    for i in range(2):
        state, _, targets, _ = start(params, batch[i], style, optimizer=Adam())
        alone, row = run_steps(state, params, targets, dataclasses.replace(VGG, tv=tvs[i]), steps=5)
        np.testing.assert_allclose(together.image[i], alone.image, atol=1e-3)
        np.testing.assert_allclose(history["total"][i], row["total"], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [LBFGS(), Adam()], ids=["lbfgs", "adam"])
def test_the_gradient_stays_finite_for_constant_pictures(params, optimizer):
    @jax.jit
    def slope(colour):
        flat = jnp.full((16, 16, 3), colour)

        def brightness(weight):
            objective = dataclasses.replace(VGG, style={"relu1_1": weight, "relu2_1": weight})
            inputs = start(params, flat, flat, objective=objective, optimizer=optimizer)
            return run_steps(*inputs, steps=2)[0].image.sum()

        return jax.grad(brightness)(1.0)

    assert np.isfinite([slope(0.0), slope(0.5)]).all()


@pytest.mark.slow
def test_normalized_gradients_of_vgg_sum_to_one_where_they_enter_the_network(params, content, style):
    @jax.jit
    def program(image):
        targets = make_targets(params, content, style, objective=VGG)
        actual, slopes = features(params, image), {}
        for layer in VGG.style_layers:

            def term(x, target: Any = targets.style[layer]):
                gram = jnp.einsum("hwi,hwj->ij", x, x) / (x.shape[0] * x.shape[1])
                return jnp.sum(jnp.square(gram - target.second)) / jnp.sum(jnp.square(target.second))

            slopes[f"style/{layer}"] = jnp.abs(jax.grad(term)(actual[layer])).sum()
        return gradient_factors(params, image, targets, objective=VGG), slopes

    factors, slopes = program(content[::-1])
    for name, slope in slopes.items():
        assert factors[name] * slope == pytest.approx(1, rel=1e-3)
    assert factors["tv"] == 1


# Precision


def rounded(image, kernel, *_, **__):
    """The convolution as tensor cores have it in TF32: factors of eleven bits, sums of float32."""
    image, kernel = (jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10) for x in (image, kernel))
    return conv3x3(image, kernel)


@pytest.mark.slow(optimized=True)
@pytest.mark.parametrize(
    ("optimizer", "chosen"),
    [
        pytest.param(LBFGS(), {"conv": rounded}, marks=pytest.mark.soak(long=True), id="lbfgs-tf32"),
        pytest.param(Adam(), {"precision": "bfloat16"}, id="adam-bfloat16"),
    ],
)
def test_rounded_products_lead_as_far_on_a_trained_network(is_long, request, real_pictures, optimizer, chosen):
    """On the mini network; with `--long` on VGG-19."""
    params = load_params(request.getfixturevalue("weights_path")) if is_long else load_params("mini")
    content, style = (
        jnp.asarray(load_image(real_pictures / f"{name}.jpg", size=64).rgb)
        for name in ("golden_gate", "starry_night_google")
    )
    shallow = Objective({"relu3_1": 1.0}, dict.fromkeys(("relu1_1", "relu2_1", "relu3_1"), 6.0))  # compiles sooner
    objective = Objective() if is_long else shallow
    targets = make_targets(params, content, style, objective=objective)
    reached = []
    for network in (VGG19(), VGG19(**chosen)):
        inputs = start(params, content, style, objective=objective, optimizer=optimizer, network=network)
        state, history = run_steps(*inputs, network=network, steps=50)
        assert np.isfinite(history["total"]).all()
        reached.append(float(total(objective, terms(params, state.image, targets, objective=objective))))
    assert reached[1] < 1.06 * reached[0]  # two paths of one landscape; 0.99 to 1.03 of it by processor

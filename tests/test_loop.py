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
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.losses.masks import Regions
from jaxstyle.losses.objective import gradient_factors, make_targets, objective_value, terms, total
from jaxstyle.losses.targets import Targets
from jaxstyle.networks.conv import conv3x3
from jaxstyle.optim.early_stopping import WINDOW, Stall, Watch
from jaxstyle.optim.loop import State, _clip, init, run
from jaxstyle.optim.parametrizations import PARAMETRIZATIONS, Parameters, decode

TOY = Config(network=toy.network, scales=1, parametrization="pixels", **toy.LAYERS)
ADAM = dataclasses.replace(
    TOY, optimizer="adam", learning_rate=0.22, betas=(0.7, 0.9), epsilon=1e-3, averaging=0.75, tolerance=0.65
)
SGD = dataclasses.replace(TOY, optimizer=optax.sgd(0.5), normalize_gradients=True, pixel_range=3.0)
START, STEPS = 1 - toy.CONTENT, 16
LEVELS = ((4, 6, 3), (2, 3, 3), (1, 2, 3), (1, 1, 3), (1, 1, 3))
OTHER_WEIGHTS = dataclasses.replace(toy.WEIGHTS, tv=4.0)

LAYERS: dict[str, Any] = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)


def start(params, content, style, config):
    return init(content, config=config), make_targets(params, content, style, config=config)


def same(a, b) -> bool:
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def step_by_step(image, *, weights=toy.WEIGHTS, config, steps):
    """Return the state before and after each of `steps` steps, and the traces of all."""
    with jax.enable_x64(True):
        states, traces = [init(jnp.asarray(image), config=config)], []
        for _ in range(steps):
            state, trace = run(states[-1], toy.PARAMS, toy.TARGETS, weights, config=config, steps=1)
            states.append(state)
            traces.append(trace)
        return states, jax.tree.map(lambda *each: np.concatenate(each), *traces)


@pytest.fixture(scope="module")
def adam():
    return step_by_step(START, config=ADAM, steps=STEPS)


def adam_in_numpy(image, *, weights=toy.WEIGHTS):
    return toy.adam(image, weights=weights, config=ADAM, steps=STEPS, window=WINDOW)


def test_adam_takes_the_steps_of_numpy_within_the_range_of_the_image(double, adam):
    states, _ = adam
    expected, _, stop = adam_in_numpy(START)
    assert 0 < stop < STEPS
    for state, iterate in zip(states, expected, strict=False):
        np.testing.assert_allclose(decode(state.parameters), iterate, atol=1e-9)
    assert min(map(np.min, expected)) == 0 and max(map(np.max, expected)) == 1  # so some values are clipped


def test_the_trace_holds_the_terms_of_the_image_before_each_step(double, adam):
    states, trace = adam
    for k, state in enumerate(states[:-1]):
        values, _, _ = toy.evaluate(decode(state.parameters))
        values["total"] = toy.weighted(toy.WEIGHTS, values, bounds=False)
        assert {name: float(each[k]) for name, each in trace.items()} == pytest.approx(values, rel=1e-8, abs=1e-14)


def test_objective_value_is_the_total_of_the_trace_with_the_weighted_penalty(double, adam):
    states, trace = adam
    image = 1.3 * np.asarray(decode(states[3].parameters)) - 0.2
    value, metrics = objective_value(toy.PARAMS, jnp.asarray(image), toy.TARGETS, toy.WEIGHTS, config=ADAM)
    expected, _, _ = toy.evaluate(image)
    assert float(metrics["total"]) == pytest.approx(toy.weighted(toy.WEIGHTS, expected, bounds=False), rel=1e-8)
    assert float(value) == pytest.approx(toy.weighted(toy.WEIGHTS, expected), rel=1e-8)
    assert float(value) > float(metrics["total"]) and metrics.keys() == trace.keys()


def test_the_average_is_the_bias_corrected_mean_of_iterates(double, adam):
    states, _ = adam
    iterates = [np.asarray(decode(state.parameters)) for state in states]
    assert (states[0].image == iterates[0]).all()
    for k in range(1, 9):
        shares = ADAM.averaging ** np.arange(k - 1, -1, -1)
        expected = np.tensordot(shares / shares.sum(), iterates[1 : k + 1], 1)
        np.testing.assert_allclose(states[k].image, expected, atol=1e-6)


def test_a_run_is_frozen_from_the_step_at_which_its_total_has_levelled_off(double, adam):
    states, trace = adam
    _, totals, stop = adam_in_numpy(START)
    assert WINDOW < stop < STEPS - 2 and len(totals) == stop
    for k, state in enumerate(states):
        assert state.stopped == (stop if k >= stop else 0) and state.done == (k >= stop)
        assert same(state.parameters, states[k - 1].parameters) == (k >= stop)
        assert same(state.average.parameters, states[k - 1].average.parameters) == (k >= stop)
    assert len(set(trace["total"][stop - 1 :].tolist())) == 1


def test_lanes_and_segments_and_weights_of_a_batch_are_those_of_single_runs(double, adam):
    """Two starts with one content, which level off at two steps; 16 steps in 5 segments of 4 and 3 steps."""
    starts = np.stack([START, toy.CONTENT])
    weights = dataclasses.replace(toy.WEIGHTS, tv=np.asarray([toy.WEIGHTS.tv, OTHER_WEIGHTS.tv]))
    with jax.enable_x64(True):
        given = (init(jnp.asarray(starts), config=ADAM), toy.PARAMS, toy.TARGETS, weights)
        state, trace = run(*given, config=ADAM, steps=STEPS, segments=5)
        _, alone = adam
        single = adam[0][-1]
        np.testing.assert_allclose(state.image[0], single.image, atol=1e-9)
        for name, values in trace.items():
            np.testing.assert_allclose(values[0], alone[name], rtol=1e-7, atol=1e-12)
        iterates, totals, stop = adam_in_numpy(toy.CONTENT, weights=OTHER_WEIGHTS)
        assert state.stopped.tolist() == [int(single.stopped), stop]
        np.testing.assert_allclose(trace["total"][1][: len(totals)], totals, rtol=1e-7)
        np.testing.assert_allclose(decode(state.parameters)[1], iterates[-1], atol=1e-8)


def test_a_step_goes_down_the_normalized_gradients_and_the_penalty_out_of_range(double):
    """Gradient descent from an image partly out of range: the trace has terms that are not normalized."""
    image = 1.5 * toy.START - 0.1
    with jax.enable_x64(True):
        state = State(Parameters(jnp.asarray(image), lambda x: x), init(jnp.asarray(image), config=SGD).optimizer)
        state, trace = run(state, toy.PARAMS, toy.TARGETS, toy.WEIGHTS, config=SGD, steps=1)
    values, gradients, factors = toy.evaluate(image, pixel_range=3.0)
    assert values["bounds"] > 0
    slopes = {name: factors[name] * gradient for name, gradient in gradients.items()}
    np.testing.assert_allclose(decode(state.parameters), image - 0.5 * toy.weighted(toy.WEIGHTS, slopes), rtol=1e-8)
    values["total"] = toy.weighted(toy.WEIGHTS, values, bounds=False)
    assert {name: float(each[0]) for name, each in trace.items()} == pytest.approx(values, rel=1e-8)
    image = np.asarray(decode(state.parameters))
    assert image.min() < 0
    np.testing.assert_array_equal(state.image, np.clip(image, 0, 1))


def test_only_new_shapes_and_configs_are_compiled(adam, compilations):
    states, _ = adam
    compilations.clear()
    with jax.enable_x64(True):
        state, _ = run(states[0], toy.PARAMS, toy.TARGETS, OTHER_WEIGHTS, config=ADAM, steps=1)
        run(state, toy.PARAMS, toy.TARGETS, toy.WEIGHTS, config=dataclasses.replace(ADAM), steps=1)
    assert compilations == []
    jax.jit(lambda x: x + 3)(np.zeros(1237))
    assert compilations  # so a compilation is noticed


def test_the_arrays_of_a_state_are_not_weakly_typed(adam):
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(adam[0][:2]))


def test_no_array_occurs_twice_in_a_state_whose_memory_is_donated():
    state = init(jnp.zeros((8, 8, 3)), config=Config(averaging=0.9, tolerance=0.1))
    arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    assert len({array.unsafe_buffer_pointer() for array in arrays}) == len(arrays) > 3


def test_clipping_changes_the_finest_level_only():
    levels = [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(LEVELS)]
    before = Parameters(tuple(levels), PARAMETRIZATIONS["pyramid"].decode)
    image, after = np.asarray(decode(before)), _clip(before)
    np.testing.assert_allclose(after.values[0], levels[0] + np.clip(image, 0, 1) - image, atol=1e-6)
    for found, expected in zip(after.values[1:], levels[1:], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("watch", "stall", "stopped"),
    [(None, None, 0), (0, 0, 0), (7, None, 7), (None, 9, 9), (7, 9, 7), (9, 7, 7), (0, 7, 7), (7, 0, 7), (7, 7, 7)],
)
def test_a_run_has_stopped_when_the_first_of_its_criteria_is_met(watch, stall, stopped):
    none: Any = np.zeros((), np.int32)
    state = State(
        none,
        none,
        watch=None if watch is None else Watch(none, none, jnp.asarray(watch)),
        stall=None if stall is None else Stall(none, none, none, none, jnp.asarray(stall)),
    )
    assert state.stopped == stopped and state.done == (stopped > 0)


def test_all_that_comes_from_the_content_may_have_a_batch_axis():
    """Regions, half size and own terms, of a batch of contents and of one for all; traced, not compiled."""
    config = dataclasses.replace(
        ADAM, own_terms={"own": lambda image, _, targets: (image * targets.picture).mean((-3, -2, -1))}
    )
    image, guide = np.zeros((2, 4, 6, 3)), {"full": np.ones((1, 4, 6)), "half": np.ones((1, 2, 3))}
    small = {"full": np.ones((1, 2, 3)), "half": np.ones((1, 1, 2))}

    def of_size(image, guides, half=None):
        cover = np.ones(image.shape[-3:-1])
        regions = Regions(guides, np.ones(1), cover, image)  # pyright: ignore[reportArgumentType]
        content = {"full": np.zeros((*image.shape[:-1], 4))}
        stacked = jax.tree.map(lambda leaf: leaf[None], toy.TARGETS.style)
        return Targets(content, stacked, regions, half, image)  # pyright: ignore[reportArgumentType]

    weights = dataclasses.replace(toy.WEIGHTS, own={"own": 1.0})
    with jax.enable_x64(True):
        state = jax.eval_shape(partial(init, config=config), image)
        for several in (image, image[0]):
            given = of_size(several, guide, of_size(several[..., ::2, ::2, :], small))
            _, trace = jax.eval_shape(partial(run, config=config, steps=3), state, toy.PARAMS, given, weights)
            assert all(each.shape == (2, 3) for each in trace.values())


@pytest.mark.parametrize(
    ("steps", "segments", "message"),
    [
        (0, None, "steps is 0: use at least 1"),
        (7, 0, "segments is 0 for 7 steps: use 1 to 7, or None"),
        (7, 8, "segments is 8 for 7 steps"),
    ],
)
def test_a_number_of_steps_or_segments_out_of_range_is_refused(steps, segments, message):
    def call(image, segments=segments):
        return run(
            init(image, config=TOY), toy.PARAMS, toy.TARGETS, toy.WEIGHTS, config=TOY, steps=steps, segments=segments
        )

    with jax.enable_x64(True), pytest.raises(InputError, match=message):
        jax.eval_shape(call, toy.START)


@pytest.mark.parametrize("segments", [1, 7])
def test_as_many_segments_as_steps_are_accepted(segments):
    def call(image):
        return run(
            init(image, config=ADAM), toy.PARAMS, toy.TARGETS, toy.WEIGHTS, config=ADAM, steps=7, segments=segments
        )

    with jax.enable_x64(True):
        assert jax.eval_shape(call, toy.START)[1]["total"].shape == (7,)


def test_a_start_that_is_no_picture_is_refused():
    with pytest.raises(InputError, match="initial image is an array uint8"):
        init(np.zeros((16, 16, 3), np.uint8), config=Config())  # pyright: ignore[reportArgumentType]


def test_a_half_precision_start_is_optimized_in_single_precision():
    state = jax.eval_shape(partial(init, config=Config(tolerance=0.1)), np.zeros((32, 32, 3), np.float16))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(np.float32), np.dtype(np.int32)}


# VGG


@pytest.mark.slow
def test_the_step_lowers_for_cpu_cuda_and_tpu(params, content, style):
    config, platforms = Config(**LAYERS), ("cpu", "cuda", "tpu")
    state, targets = jax.eval_shape(partial(start, config=config), params, content, style)
    exported = export.export(jax.jit(run, static_argnames=("config", "steps")), platforms=platforms)(
        state, params, targets, WEIGHTS, config=config, steps=2
    )
    assert exported.platforms == platforms
    assert "stablehlo.convolution" in exported.mlir_module()


def test_params_are_arguments_of_the_program_and_not_constants_in_it(params, content, style):
    config = Config(optimizer="adam", **LAYERS)
    state, targets = jax.eval_shape(partial(start, config=config), params, content, style)

    def constants(program) -> set[str]:
        return set(re.findall(r"stablehlo.constant dense<[^>]*> : tensor<([0-9x]*)xf32>", program.as_text()))

    kernel = params["conv2_1"]["kernel"]
    shape = "x".join(map(str, kernel.shape))
    assert shape not in constants(run.lower(state, params, targets, WEIGHTS, config=config, steps=2))
    assert shape in constants(jax.jit(lambda x: x + kernel).lower(kernel))  # so a constant is noticed


BITS = {
    "lbfgs": Config(**LAYERS),
    "stuck": Config(patience=3, learning_rate=1e4, **LAYERS),  # steps too long, so that it restarts and stops
    "adam": Config(optimizer="adam", averaging=0.9, tolerance=0.2, normalize_gradients=True, **LAYERS),
}


@pytest.mark.slow(optimized=True)
@pytest.mark.parametrize("name", BITS)
def test_a_run_in_parts_equals_the_whole_bit_for_bit(params, content, style, name):
    """In single steps, which XLA compiles in another way than longer loops, and for adam in segments."""
    config, steps = BITS[name], 16
    state, targets = start(params, content, style, config)
    whole: Any
    whole, trace = run(state, params, targets, WEIGHTS, config=config, steps=steps)
    if name == "stuck":
        assert 3 < whole.stall.restarted < whole.stall.stopped < steps
    part, rows = state, []
    for _ in range(steps):
        part, row = run(part, params, targets, WEIGHTS, config=config, steps=1)
        rows.append(row)
    assert same(whole, part)
    assert same(trace, jax.tree.map(lambda *values: np.concatenate(values), *rows))
    if name == "adam":
        found = run(state, params, targets, WEIGHTS, config=config, steps=steps, segments=5)
        for mine, expected in zip(jax.tree.leaves(found), jax.tree.leaves((whole, trace)), strict=True):
            assert mine.shape == expected.shape and (mine == expected).all()


@pytest.mark.slow
def test_lbfgs_lowers_the_loss_nearly_in_range_with_the_penalty_and_takes_no_step_without_weights(
    params, content, style
):
    config = Config(**LAYERS)
    state, targets = start(params, content, style, config)
    weights = (WEIGHTS, dataclasses.replace(WEIGHTS, bounds=0.0), jax.tree.map(lambda _: 0.0, WEIGHTS))
    (found, trace), (free, _), (idle, none) = (
        run(state, params, targets, own, config=config, steps=30) for own in weights
    )
    assert trace["total"][-1] < 0.5 * trace["total"][0]

    def excess(state):
        image = np.asarray(decode(state.parameters))
        return float(np.abs(image - np.clip(image, 0, 1)).max())

    assert excess(found) < 0.02 < excess(free)
    assert (idle.image == content).all() and all(np.isfinite(values).all() for values in none.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grey", "flat", "noise", "ramp"])
def test_the_value_that_lbfgs_minimizes_never_rises_and_the_result_has_the_last_one(params, style, kind):
    """Also where a full quasi-Newton step would raise it many times over."""
    rng, ramp = np.random.default_rng(0), np.linspace(0, 1, 32, dtype=np.float32)
    pictures = {"flat": np.full((32, 32, 3), 0.5), "noise": rng.uniform(size=(32, 32, 3))}
    pictures |= {"ramp": np.broadcast_to(ramp[:, None, None], (32, 32, 3))}
    pictures["grey"] = np.broadcast_to(rng.uniform(size=(32, 32, 1)), (32, 32, 3))
    config = Config(**LAYERS)
    state, targets = start(params, pictures[kind].astype(np.float32), style, config)
    state, trace = run(state, params, targets, WEIGHTS, config=config, steps=10)
    values = np.asarray(trace["total"] + WEIGHTS.bounds * trace["bounds"])
    assert (np.diff(values) <= 0).all() and values[-1] < 0.99 * values[0]
    image = decode(state.parameters)
    found = float(total(WEIGHTS, terms(params, image, targets, config=config)))
    assert found == pytest.approx(float(trace["total"][-1]), rel=1e-4)


@pytest.mark.slow
def test_lanes_of_a_batch_of_contents_are_single_runs(params, content, style):
    config = Config(optimizer="adam", **LAYERS)
    batch, tvs = np.stack([content, content[::-1]]), np.asarray([0.1, 3.0], np.float32)
    state, targets = start(params, batch, style, config)
    together, trace = run(state, params, targets, dataclasses.replace(WEIGHTS, tv=tvs), config=config, steps=5)
    assert trace["total"].shape == (2, 5)
    for lane in range(2):
        alone, targets = start(params, batch[lane], style, config)
        alone, row = run(alone, params, targets, dataclasses.replace(WEIGHTS, tv=tvs[lane]), config=config, steps=5)
        np.testing.assert_allclose(together.image[lane], alone.image, atol=1e-3)
        np.testing.assert_allclose(trace["total"][lane], row["total"], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("config", [Config(**LAYERS), Config(optimizer="adam", **LAYERS)], ids=["lbfgs", "adam"])
def test_the_gradient_stays_finite_for_constant_pictures(params, config):
    @jax.jit
    def slope(colour):
        flat = jnp.full((16, 16, 3), colour)

        def brightness(weight):
            state, targets = start(params, flat, flat, config)
            weights = dataclasses.replace(WEIGHTS, style={"relu1_1": weight, "relu2_1": weight})
            return run(state, params, targets, weights, config=config, steps=2)[0].image.sum()

        return jax.grad(brightness)(1.0)

    assert np.isfinite([slope(0.0), slope(0.5)]).all()


@pytest.mark.slow
def test_normalized_gradients_of_vgg_sum_to_one_where_they_enter_the_network(params, content, style):
    config = Config(**LAYERS)

    @jax.jit
    def program(image):
        targets = make_targets(params, content, style, config=config)
        found, slopes = features(params, image), {}
        for layer in config.style_layers:

            def term(x, target: Any = targets.style[layer]):
                gram = jnp.einsum("hwi,hwj->ij", x, x) / (x.shape[0] * x.shape[1])
                return jnp.sum(jnp.square(gram - target.second)) / jnp.sum(jnp.square(target.second))

            slopes[f"style/{layer}"] = jnp.abs(jax.grad(term)(found[layer])).sum()
        return gradient_factors(params, image, targets, config=config), slopes

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
    [("lbfgs", {"conv": rounded}), ("adam", {"precision": "bfloat16"})],
    ids=["lbfgs-tf32", "adam-bfloat16"],
)
def test_rounded_products_lead_as_far_on_a_trained_network(is_long, request, real_pictures, optimizer, chosen):
    """On the mini network; with `--long` on VGG-19."""
    params = load_params(request.getfixturevalue("weights_path")) if is_long else load_params("mini")
    content, style = (
        jnp.asarray(load_image(real_pictures / f"{name}.jpg", size=64).rgb)
        for name in ("golden_gate", "starry_night_google")
    )
    layers = {"content_layers": ("relu3_1",), "style_layers": ("relu1_1", "relu2_1", "relu3_1")}  # compile sooner
    exact = Config(optimizer=optimizer, scales=1, **({} if is_long else layers))
    weights = LossWeights(dict.fromkeys(exact.content_layers, 1.0), dict.fromkeys(exact.style_layers, 6.0))
    targets = make_targets(params, content, style, config=exact)
    reached = []
    for config in (exact, dataclasses.replace(exact, **chosen)):
        own = make_targets(params, content, style, config=config)
        state, trace = run(init(content, config=config), params, own, weights, config=config, steps=50)
        assert np.isfinite(trace["total"]).all()
        reached.append(float(total(weights, terms(params, state.image, targets, config=exact))))
    assert reached[1] < 1.06 * reached[0]  # two paths of one landscape; 0.99 to 1.03 of it by processor

import dataclasses
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

from jaxstyle import image, load_params
from jaxstyle.config import Config, LossWeights
from jaxstyle.conv import conv3x3
from jaxstyle.descent import _skip_negative_curvature
from jaxstyle.errors import InputError
from jaxstyle.halting import WINDOW
from jaxstyle.objective import gradient_factors, make_targets, terms, total
from jaxstyle.optimize import init, run
from jaxstyle.parametrize import decode
from jaxstyle.vgg import features

LAYERS = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}  # few, to compile quickly
LBFGS = Config(**LAYERS)
ADAM = Config(optimizer="adam", **LAYERS)
EVERY = [
    pytest.param(dataclasses.replace(config, parametrization=kind), id=f"{config.optimizer}-{kind}", marks=marks)
    for config, kind, marks in (
        (LBFGS, "pixels", pytest.mark.slow),
        (LBFGS, "pyramid", pytest.mark.slow),
        (ADAM, "pixels", ()),
        (ADAM, "pyramid", pytest.mark.slow),
    )
]
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)


def start(params, content, style, config):
    return init(content, config=config), make_targets(params, content, style, config=config)


def same(a, b) -> bool:
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("config", EVERY)
def test_the_loss_falls(params, content, style, config):
    state, targets = start(params, content, style, config)
    state, trace = run(state, params, targets, WEIGHTS, config=config, steps=30)
    assert trace["total"][-1] < 0.5 * trace["total"][0]
    assert 0 <= state.image.min() and state.image.max() <= 1


@pytest.mark.parametrize("config", EVERY)
def test_segments_equal_the_whole_bit_for_bit(params, content, style, config):
    state, targets = start(params, content, style, config)
    whole, trace = run(state, params, targets, WEIGHTS, config=config, steps=12)
    for _ in range(3):
        state, _ = run(state, params, targets, WEIGHTS, config=config, steps=4)
    single = start(params, content, style, config)[0]
    rows = []
    for _ in range(12):
        single, row = run(single, params, targets, WEIGHTS, config=config, steps=1)
        rows.append(row)
    assert same(whole, state) and same(whole, single)
    assert same(trace, jax.tree.map(lambda *values: jnp.concatenate(values), *rows))


@pytest.mark.parametrize("config", EVERY)
def test_the_trace_holds_the_terms_of_the_image_before_each_step(params, content, style, config):
    state, targets = start(params, content, style, config)
    state, _ = run(state, params, targets, WEIGHTS, config=config, steps=3)
    expected = terms(params, decode(state.parameters), targets, config=config)
    _, trace = run(state, params, targets, WEIGHTS, config=config, steps=2)
    assert set(trace) == {*expected, "total", "bounds"}
    for name, value in expected.items():
        assert trace[name].shape == (2,)
        assert trace[name][0] == pytest.approx(float(value), rel=1e-4)
    assert trace["total"][0] == pytest.approx(float(total(WEIGHTS, expected)), rel=1e-4)


@pytest.mark.slow
def test_a_second_run_of_the_same_shapes_compiles_nothing(params, content, style, compilations):
    state, targets = start(params, content, style, LBFGS)
    state, _ = run(state, params, targets, WEIGHTS, config=LBFGS, steps=2)
    compilations.clear()
    run(state, params, targets, WEIGHTS, config=LBFGS, steps=2)
    again, targets = start(params, content, style, LBFGS)
    run(again, params, targets, WEIGHTS._replace(tv=0.2), config=LBFGS, steps=2)
    assert compilations == []
    run(state, params, targets, WEIGHTS, config=LBFGS, steps=13)
    assert compilations  # another length is another program, and is heard


@pytest.mark.slow
@pytest.mark.parametrize("config", [LBFGS, ADAM], ids=["lbfgs", "adam"])
def test_lanes_of_a_batch_do_not_see_each_other(params, content, style, config):
    batch = jnp.stack([content, content[::-1]])
    state, targets = start(params, batch, style, config)
    together, trace = run(state, params, targets, WEIGHTS, config=config, steps=5)
    assert trace["total"].shape == (2, 5)
    for lane in range(2):
        alone, targets = start(params, batch[lane], style, config)
        alone, row = run(alone, params, targets, WEIGHTS, config=config, steps=5)
        np.testing.assert_allclose(together.image[lane], alone.image, atol=1e-3)
        np.testing.assert_allclose(trace["total"][lane], row["total"], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("config", [LBFGS, ADAM], ids=["lbfgs", "adam"])
def test_vmap_over_weights_equals_a_loop(params, content, style, config):
    state, targets = start(params, content, style, config)
    tvs = jnp.asarray([0.0, 1.0, 10.0])

    def final(tv):
        return run(state, params, targets, WEIGHTS._replace(tv=tv), config=config, steps=4)[0].image

    np.testing.assert_allclose(jax.vmap(final)(tvs), jnp.stack([final(tv) for tv in tvs]), atol=1e-3)


def test_adam_stays_in_range_at_each_step(params, content, style):
    config = dataclasses.replace(ADAM, learning_rate=0.5)
    state, targets = start(params, content, style, config)
    for _ in range(4):
        state, _ = run(state, params, targets, WEIGHTS, config=config, steps=1)
        assert -1e-6 <= decode(state.parameters).min() and decode(state.parameters).max() <= 1 + 1e-6


@pytest.mark.slow
def test_the_penalty_keeps_lbfgs_nearly_in_range(params, content, style):
    state, targets = start(params, content, style, LBFGS)
    free, _ = run(state, params, targets, WEIGHTS._replace(bounds=0.0), config=LBFGS, steps=30)
    kept, _ = run(state, params, targets, WEIGHTS, config=LBFGS, steps=30)

    def excess(state):
        image = decode(state.parameters)
        return float(jnp.abs(image - jnp.clip(image, 0, 1)).max())

    assert excess(kept) < 0.02 < excess(free)


def test_weights_of_zero_leave_the_content_as_it_is(params, content, style):
    state, targets = start(params, content, style, LBFGS)
    weights = jax.tree.map(lambda _: 0.0, WEIGHTS)
    state, trace = run(state, params, targets, weights, config=LBFGS, steps=3)
    assert (state.image == content).all()
    assert all(np.isfinite(values).all() for values in trace.values())


@pytest.mark.slow
def test_lbfgs_is_that_of_optax_while_every_pair_curves_upwards():
    scales = jnp.asarray([1.0, 5.0, 20.0])
    ours, theirs = _skip_negative_curvature(4), optax.scale_by_lbfgs(4)
    x = jnp.ones(3)
    own, plain = ours.init(x), theirs.init(x)
    for _ in range(8):
        step, own = ours.update(scales * x, own, x)
        expected, plain = theirs.update(scales * x, plain, x)
        np.testing.assert_allclose(jnp.asarray(step), jnp.asarray(expected), rtol=1e-6)
        x = x - jnp.asarray(step)


@pytest.mark.parametrize("bad_at", [1, 2, 5])
def test_a_pair_that_curves_downwards_is_skipped_and_the_memory_kept(bad_at):
    """Held to a plain two-loop recursion over the pairs with s.y > 0, in float64."""
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(8, 6)).astype(np.float32)
    gradients = (xs * np.arange(1, 7) + 0.1).astype(np.float32)
    gradients[bad_at] = gradients[bad_at - 1] - (xs[bad_at] - xs[bad_at - 1])
    method, memory = _skip_negative_curvature(3), 3
    state, pairs = method.init(jnp.asarray(xs[0])), []
    for k, (x, gradient) in enumerate(zip(xs.astype(np.float64), gradients.astype(np.float64), strict=True)):
        if k:
            s, y = x - xs[k - 1], gradient - gradients[k - 1]
            if s @ y > 0:
                pairs = [*pairs, (s, y)][-memory:]
        expected, alphas = gradient.copy(), []
        for s, y in reversed(pairs):
            alphas.append(s @ expected / (s @ y))
            expected -= alphas[-1] * y
        if pairs:
            s, y = pairs[-1]
            expected *= s @ y / (y @ y)
        else:
            expected *= min(1, 1 / np.linalg.norm(gradient))
        for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
            expected += (alpha - y @ expected / (s @ y)) * s
        step, state = method.update(jnp.asarray(gradients[k]), state, jnp.asarray(xs[k]))
        np.testing.assert_allclose(jnp.asarray(step), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_step_lowers_for_cpu_cuda_and_tpu(params, content, style, optimizer):
    config = Config(optimizer=optimizer)
    state, targets = start(params, content, style, config)
    for platform in ("cpu", "cuda", "tpu"):
        exported = export.export(jax.jit(run, static_argnames=("config", "steps")), platforms=[platform])(
            state, params, targets, LossWeights(), config=config, steps=2
        )
        assert exported.platforms == (platform,)
        assert "stablehlo.convolution" in exported.mlir_module()


def test_params_are_arguments_of_the_program_and_not_constants_in_it(params, content, style):
    state, targets = start(params, content, style, LBFGS)

    def constants(program) -> set[str]:
        return set(re.findall(r"stablehlo.constant dense<[^>]*> : tensor<([0-9x]*)xf32>", program.as_text()))

    kernel = "x".join(map(str, params["conv2_1"]["kernel"].shape))
    assert kernel not in constants(run.lower(state, params, targets, WEIGHTS, config=LBFGS, steps=2))
    closed = jax.jit(lambda state: run(state, params, targets, WEIGHTS, config=LBFGS, steps=2))
    assert kernel in constants(closed.lower(state))  # what it would look like


@pytest.mark.slow
def test_the_gradient_stays_finite_where_a_pair_is_skipped():
    """Curvatures -1, 2 and -3: the first pair, which finds an empty memory, is among the skipped."""
    method = _skip_negative_curvature(3)

    def path(scale):
        x, state = jnp.ones(2), method.init(jnp.ones(2))
        for curvature in (-1.0, 2.0, -3.0):
            step, state = method.update(scale * curvature * x, state, x)
            x = x - 0.1 * jnp.asarray(step)
        return x.sum()

    assert np.isfinite(jax.grad(path)(1.0))


@pytest.mark.slow
@pytest.mark.parametrize("config", [LBFGS, ADAM], ids=["lbfgs", "adam"])
@pytest.mark.parametrize("colour", [0.0, 0.5])
def test_the_gradient_stays_finite_for_constant_pictures(params, config, colour):
    flat = jnp.full((16, 16, 3), colour)

    def brightness(weight):
        state, targets = start(params, flat, flat, config)
        weights = WEIGHTS._replace(style={"relu1_1": weight, "relu2_1": weight})
        return run(state, params, targets, weights, config=config, steps=2)[0].image.sum()

    assert np.isfinite(jax.grad(brightness)(1.0))


@pytest.mark.slow
def test_one_content_serves_a_batch_of_starts(params, content, style):
    _, targets = start(params, content, style, LBFGS)
    batch = jnp.stack([content, content[::-1]])
    together, _ = run(init(batch, config=LBFGS), params, targets, WEIGHTS, config=LBFGS, steps=3)
    alone, _ = run(init(batch[1], config=LBFGS), params, targets, WEIGHTS, config=LBFGS, steps=3)
    np.testing.assert_allclose(together.image[1], alone.image, atol=1e-3)


def test_a_half_precision_start_is_optimised_in_single_precision(content):
    state = init(content.astype(jnp.float16), config=LBFGS)
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(state))


def test_no_steps_and_no_picture_are_refused(params, content, style):
    state, targets = start(params, content, style, LBFGS)
    with pytest.raises(InputError, match="0 steps does nothing: take at least 1"):
        run(state, params, targets, WEIGHTS, config=LBFGS, steps=0)
    with pytest.raises(InputError, match="initial image is an array uint8"):
        init(jnp.zeros((16, 16, 3), jnp.uint8), config=LBFGS)


# Averaging, early stop, gradient normalisation

EXTRAS = [
    pytest.param({"averaging": 0.9}, id="averaging"),
    pytest.param({"tolerance": 0.2}, id="tolerance"),
    pytest.param({"normalize_gradients": True}, id="normalized"),
]


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_segments_equal_the_whole_bit_for_bit_with(params, content, style, extra):
    config = dataclasses.replace(ADAM, **extra)
    state, targets = start(params, content, style, config)
    whole, _ = run(state, params, targets, WEIGHTS, config=config, steps=12)
    for steps in (1, 4, 7):
        state, _ = run(state, params, targets, WEIGHTS, config=config, steps=steps)
    assert same(whole, state)


def test_the_average_is_the_bias_corrected_mean_over_iterates(params, content, style):
    config = dataclasses.replace(ADAM, averaging=0.75)
    plain, targets = start(params, content, style, ADAM)
    averaged, _ = run(init(content, config=config), params, targets, WEIGHTS, config=config, steps=5)
    iterates = []
    for _ in range(5):
        plain, _ = run(plain, params, targets, WEIGHTS, config=ADAM, steps=1)
        iterates.append(np.asarray(plain.image, np.float64))
    shares = 0.75 ** np.arange(4, -1, -1)
    expected = sum(share * image for share, image in zip(shares / shares.sum(), iterates, strict=True))
    np.testing.assert_allclose(averaged.image, expected, atol=1e-5)


@pytest.mark.slow
def test_a_run_that_has_levelled_off_is_frozen(params, content, style):
    config = dataclasses.replace(LBFGS, tolerance=0.5)
    state, targets = start(params, content, style, config)
    states, totals = [], []
    for _ in range(40):
        state, trace = run(state, params, targets, WEIGHTS, config=config, steps=1)
        states.append(state)
        totals.append(float(trace["total"][0]))
    done = [bool(state.done) for state in states]
    first = done.index(True)
    assert first >= WINDOW and all(done[first:])
    for i in range(WINDOW, first):
        assert totals[i - WINDOW] - totals[i] >= 0.5 * totals[i - WINDOW], i
    assert totals[first - WINDOW] - totals[first] < 0.5 * totals[first - WINDOW]
    assert same(states[first].parameters, states[-1].parameters)
    assert totals[first + 1 :] == pytest.approx([totals[first]] * (39 - first), rel=1e-5)


@pytest.mark.slow
def test_lanes_of_a_batch_level_off_each_by_itself(params, content):
    batch = jnp.stack([content, 1 - content])  # the first one has no style left to learn
    config = dataclasses.replace(LBFGS, content_layers=(), tolerance=0.3)
    weights = WEIGHTS._replace(content={})
    targets = make_targets(params, batch, content, config=config)
    state, _ = run(init(batch, config=config), params, targets, weights, config=config, steps=14)
    assert state.watch is not None and state.done.tolist() == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_a_run_stays_differentiable_with(params, content, style, extra):
    config = dataclasses.replace(ADAM, **extra)
    with jax.enable_x64(True):
        network, content, style = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, content, style))
        targets = make_targets(network, content, style, config=config)

        @jax.jit
        def brightness(weight):
            weights = WEIGHTS._replace(style=dict.fromkeys(config.style_layers, weight))
            state, _ = run(init(content, config=config), network, targets, weights, config=config, steps=3)
            return state.image[8:, ::3].mean()

        at, step = jnp.asarray(6.0), 1e-5
        difference = (brightness(at + step) - brightness(at - step)) / (2 * step)
        assert jax.grad(brightness)(at) == pytest.approx(float(difference), rel=1e-3)
        assert difference != 0


@pytest.mark.slow
def test_normalized_gradients_sum_to_one_where_they_enter_the_network(params, content, style):
    image, targets = content[::-1], make_targets(params, content, style, config=LBFGS)
    factors = gradient_factors(params, image, targets, config=LBFGS)
    found = features(params, image)

    def term(layer, x):
        gram = jnp.einsum("hwi,hwj->ij", x, x) / (x.shape[0] * x.shape[1])
        target: Any = targets.style[layer]
        target = target.second
        return jnp.sum(jnp.square(gram - target)) / jnp.sum(jnp.square(target))

    for layer in LBFGS.style_layers:
        slope = jnp.abs(jax.grad(partial(term, layer))(found[layer])).sum()
        assert factors[f"style/{layer}"] * slope == pytest.approx(1, rel=1e-3)
    assert factors["tv"] == 1


# Precision


def rounded(image, kernel, *_, **__):
    """The convolution as tensor cores have it in TF32: factors of eleven bits, sums of float32."""
    image, kernel = (jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10) for x in (image, kernel))
    return conv3x3(image, kernel)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("chosen", [{"conv": rounded}, {"precision": "bfloat16"}], ids=["tf32", "bfloat16"])
def test_rounded_products_lead_as_far_on_the_real_network(weights_path, real_pictures, optimizer, chosen):
    params = load_params(weights_path)
    content, style = (
        jnp.asarray(image.load(real_pictures / f"{name}.jpg", size=64).rgb)
        for name in ("golden_gate", "starry_night_google")
    )
    exact = Config(optimizer=optimizer, scales=1)
    targets = make_targets(params, content, style, config=exact)
    reached = []
    for config in (exact, dataclasses.replace(exact, **chosen)):
        own = make_targets(params, content, style, config=config)
        state, trace = run(init(content, config=config), params, own, LossWeights(), config=config, steps=50)
        assert np.isfinite(trace["total"]).all()
        reached.append(float(total(LossWeights(), terms(params, state.image, targets, config=exact))))
    assert reached[1] < 1.06 * reached[0]  # two paths of one landscape; 0.99 to 1.03 of it by processor

"""Sweeps: images of a batch are single runs."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy

from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.pretrained import load_params
from jaxstyle.optim.loop import init_state, run_steps
from jaxstyle.optim.optimizers import LBFGS, Adam
from jaxstyle.transfer.stylize import stylize
from jaxstyle.transfer.sweep import batch_size_within, memory_of, sweep

TOY: dict[str, Any] = {"network": toy.network, "optimizer": Adam(), "scales": 1}
CONTENT: Any
STYLE: Any
CONTENT, STYLE = (np.asarray(each, np.float32) for each in (toy.CONTENT, toy.STYLE))
STRENGTHS = (0.5, 6.0, 40.0)


def weighted(strength: Any, tv: Any = 0.1) -> Objective:
    return replace(toy.OBJECTIVE, style=dict.fromkeys(toy.OBJECTIVE.style, strength), tv=tv)


def swept(objective: Objective, **options):
    return sweep(toy.PARAMS, CONTENT, STYLE, **TOY | {"objective": objective, "steps": 3} | options)


def single(objective: Objective, **options):
    return stylize(toy.PARAMS, CONTENT, STYLE, **TOY | {"objective": objective, "steps": 3} | options)


def test_an_image_of_a_batch_is_the_run_with_its_numbers_and_another_sweep_compiles_nothing(compilations):
    """Adam in NumPy; a layer of weight zero is one left out. The learning rate is one of the numbers."""
    strengths, tvs, rates = np.asarray([0.0, 5.0]), np.asarray([0.1, 3.0]), np.asarray([0.02, 0.05])

    def objective(strength: Any, tv: Any) -> Objective:
        return replace(toy.OBJECTIVE, style={"full": strength, "half": 2.0}, tv=tv)

    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, (toy.PARAMS, toy.CONTENT, toy.STYLE))
        options: dict[str, Any] = TOY | {"optimizer": Adam(rates), "steps": 3}
        actual = sweep(*arrays, objective=objective(strengths, tvs), **options)
        assert actual.image.shape == (2, *CONTENT.shape)
        for i, (strength, tv, rate) in enumerate(zip(strengths, tvs, rates, strict=True)):
            inputs: dict[str, Any] = {"objective": objective(strength, tv), "optimizer": Adam(rate)}
            iterates, totals, _ = toy.adam(toy.CONTENT, steps=3, **inputs)
            np.testing.assert_allclose(actual.image[i], iterates[-1], atol=1e-9)
            np.testing.assert_allclose(actual.history["total"][i], totals, rtol=1e-8)
        compilations.clear()
        sweep(*arrays, objective=objective(strengths + 1, tvs), **options)
    assert compilations == []


def test_each_argument_with_a_further_axis_differs_between_images():
    """Traced, not compiled."""
    key, shares, two = jax.random.key(0), np.ones(2, np.float32), np.stack([CONTENT, STYLE])
    keys = jax.random.wrap_key_data(jnp.asarray(np.asarray([[0, 1], [0, 2]], np.uint32)))
    for styles, start, inputs in (
        (STYLE, "content", (weighted(np.ones(2)), Adam(), CONTENT, key, None)),
        (STYLE, "content", (weighted(1.0), Adam(np.ones(2)), CONTENT, key, None)),
        (STYLE, "noise", (weighted(1.0), Adam(), CONTENT, keys, None)),
        (STYLE, "noise", (weighted(1.0), Adam(), CONTENT, jax.random.key_data(keys), None)),
        (STYLE, "content", (weighted(1.0), Adam(), two, None, None)),
        ([two, STYLE], "content", (weighted(1.0), Adam(), CONTENT, None, None)),
        ([STYLE, STYLE], "content", (weighted(1.0), Adam(), CONTENT, None, np.stack([shares, shares]))),
        (STYLE, two, (weighted(1.0), Adam(), CONTENT, None, None)),
    ):

        def call(inputs, styles, image, start=start):
            objective, optimizer, content, key, shares = inputs
            options: dict[str, Any] = TOY | {"objective": objective, "optimizer": optimizer, "steps": 2}
            options["init"] = image if image is not None else start
            return sweep(toy.PARAMS, content, styles, key=key, style_weights=shares, **options)

        actual = jax.eval_shape(call, inputs, styles, None if isinstance(start, str) else start)
        assert actual.image.shape == (2, *CONTENT.shape) and actual.history["total"].shape == (2, 2)


@pytest.mark.parametrize(
    ("objective", "batch_size", "message"),
    [
        (weighted(6.0), None, "Batch axes have lengths none"),
        (weighted(np.ones(2), tv=np.ones(3)), None, "Batch axes have lengths 2 and 3: give .* a leading axis"),
        (weighted(np.ones(2)), 0, "batch_size is 0"),
        (weighted(np.ones(0)), None, "batch axis is empty"),
    ],
    ids=["none", "differ", "zero", "empty"],
)
def test_a_batch_that_does_not_fit_is_refused(objective, batch_size, message):
    with pytest.raises(InputError, match=message):
        swept(objective, batch_size=batch_size)


@pytest.mark.parametrize(
    ("memory", "batch_size"),
    [(10_000, 40), (2500, 40), (2499, 20), (1300, 20), (1299, 14), (160, 1), (10, 1)],
)
def test_a_batch_has_as_many_images_as_fit_in_rounds_of_about_equal_length(memory, batch_size):
    """Each image takes 60 on top of 100; 39 would fit 2,499, but two rounds of 20 take less time than 39 and 1."""
    assert batch_size_within(memory, count=40, needed=lambda count: 100 + 60 * count) == batch_size
    assert batch_size_within(memory, count=1, needed=lambda count: 10**9) == 1


@pytest.mark.slow
def test_images_of_a_batch_of_lbfgs_on_vgg_are_single_runs(params, content, style):
    def objective(strength: Any) -> Objective:
        return Objective(content={"relu2_2": 1.0}, style={"relu1_1": strength, "relu2_1": strength}, tv=0.1)

    together = sweep(params, content, style, objective=objective(jnp.asarray(STRENGTHS)), steps=8)
    assert together.image.shape == (3, *content.shape) and together.history["total"].shape == (3, 8)
    for i, strength in enumerate(STRENGTHS):
        alone = stylize(params, content, style, objective=objective(strength), steps=8)
        np.testing.assert_allclose(together.image[i], alone.image, atol=1e-3)
        np.testing.assert_allclose(together.history["total"][i], alone.history["total"], rtol=1e-3)


@pytest.mark.slow
def test_batches_of_two_images_give_those_of_one_batch():
    five = weighted(jnp.asarray([0.5, 1.0, 6.0, 20.0, 40.0]))
    np.testing.assert_allclose(swept(five).image, swept(five, batch_size=2).image, atol=1e-5)


@pytest.mark.slow
def test_keys_are_seeds_of_noise_in_both_forms():
    keys, raw = jax.random.split(jax.random.key(0), 2), jax.random.split(jax.random.PRNGKey(0), 2)
    images, same = (swept(weighted(6.0), key=each, init="noise").image for each in (keys, raw))
    np.testing.assert_array_equal(images, same)
    for image, key in zip(images, keys, strict=True):
        np.testing.assert_allclose(image, single(weighted(6.0), key=key, init="noise").image, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["content", "style", "init", "shares"])
def test_pictures_and_style_weights_may_differ_between_images(which):
    content, style, other = CONTENT, STYLE, 1 - STYLE
    first = {"content": content, "style": [style, other], "init": content, "shares": np.asarray([0.3, 0.7], np.float32)}
    second = {
        "content": content[::-1],
        "style": [other, other],
        "init": 1 - content,
        "shares": np.asarray([1.0, 0.0], np.float32),
    }
    batch = dict(first)
    batch[which] = jax.tree.map(lambda *each: jnp.stack(each), first[which], second[which])

    def painted(function, inputs):
        options: dict[str, Any] = TOY | {
            "init": inputs["init"],
            "style_weights": inputs["shares"],
            "objective": weighted(6.0),
            "steps": 2,
        }
        return function(toy.PARAMS, inputs["content"], inputs["style"], **options).image

    actual = painted(sweep, jax.tree.map(jnp.asarray, batch))
    for image, inputs in zip(actual, (first, first | {which: second[which]}), strict=True):
        np.testing.assert_allclose(image, painted(stylize, jax.tree.map(jnp.asarray, inputs)), atol=1e-4)


@pytest.mark.slow(optimized=True)
def test_the_memory_of_a_program_grows_by_the_same_for_each_image(content, style):
    options: dict[str, Any] = {"objective": toy.OBJECTIVE, "network": toy.network}
    targets = jax.eval_shape(partial(make_targets, toy.PARAMS, **options), content, style)
    actual = []
    for batch_size in (1, 4, 7):
        shape = jax.ShapeDtypeStruct((batch_size, *content.shape), np.float32)
        state = jax.eval_shape(partial(init_state, objective=toy.OBJECTIVE, optimizer=Adam()), shape)
        program = jax.jit(partial(run_steps, network=toy.network, steps=1))
        actual.append(memory_of(program.lower(state, toy.PARAMS, targets, weighted(6.0)).compile()))
    assert actual[2] - actual[1] == pytest.approx(actual[1] - actual[0], rel=0.2)
    assert actual[1] - actual[0] > 3 * content.nbytes


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "steps"), [(Adam(), 15), (LBFGS(), 5)], ids=["adam", "lbfgs"])
@pytest.mark.soak(long=True)
def test_images_of_a_batch_on_real_weights_are_single_runs(weights_path, real_pictures, optimizer, steps):
    """Later, where rounding changes the sign of an activation, lbfgs takes another path on some processors."""
    params = load_params("vgg19", weights=weights_path)
    content, style = (
        jnp.asarray(load_image(real_pictures / name, size=48).rgb)
        for name in ("golden_gate.jpg", "starry_night_google.jpg")
    )
    strengths = (1.0, 6.0)

    def painted(function, strength: Any):
        objective = Objective(style={layer: strength for layer in Objective().style_layers})
        return function(params, content, style, objective=objective, optimizer=optimizer, steps=steps)

    together = painted(sweep, jnp.asarray(strengths))
    for i, strength in enumerate(strengths):
        assert np.max(np.abs(np.asarray(together.image[i] - painted(stylize, strength).image))) < 1e-5

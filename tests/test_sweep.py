"""Sweeps: lanes of one program are single runs."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.pretrained import load_params
from jaxstyle.optim.loop import init, run
from jaxstyle.transfer.stylize import stylize
from jaxstyle.transfer.sweep import lanes_within, memory_of, sweep

TOY = Config(network=toy.network, optimizer="adam", scales=1, **toy.LAYERS)
CONTENT: Any
STYLE: Any
CONTENT, STYLE = (np.asarray(each, np.float32) for each in (toy.CONTENT, toy.STYLE))
LAYERS: dict[str, Any] = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}
LBFGS = Config(**LAYERS)
STRENGTHS = (0.5, 6.0, 40.0)


def weights(strength: Any, tv: Any = 0.1) -> LossWeights:
    return replace(toy.WEIGHTS, style=dict.fromkeys(TOY.style_layers, strength), tv=tv)


def swept(given, **options):
    return sweep(toy.PARAMS, CONTENT, STYLE, given, **{"config": TOY, "steps": 3, **options})  # pyright: ignore


def alone(given, **options):
    return stylize(toy.PARAMS, CONTENT, STYLE, weights=given, **{"config": TOY, "steps": 3, **options})  # pyright: ignore


def test_a_lane_is_the_run_with_its_weights_and_another_sweep_compiles_nothing(compilations):
    """Adam in NumPy; a layer of weight zero is one left out."""
    strengths, tvs = np.asarray([0.0, 5.0]), np.asarray([0.1, 3.0])

    def of(strength: Any, tv: Any) -> LossWeights:
        return replace(toy.WEIGHTS, style={"full": strength, "half": 2.0}, tv=tv)

    with jax.enable_x64(True):
        network, content, style = jax.tree.map(jnp.asarray, (toy.PARAMS, toy.CONTENT, toy.STYLE))
        found = sweep(network, content, style, of(strengths, tvs), config=TOY, steps=3)
        assert found.image.shape == (2, *CONTENT.shape)
        for lane, own in enumerate(map(of, strengths, tvs)):
            iterates, totals, _ = toy.adam(toy.CONTENT, weights=own, config=TOY, steps=3)
            np.testing.assert_allclose(found.image[lane], iterates[-1], atol=1e-9)
            np.testing.assert_allclose(found.trace["total"][lane], totals, rtol=1e-8)
        compilations.clear()
        sweep(network, content, style, of(strengths + 1, tvs), config=TOY, steps=3)
    assert compilations == []


def test_whatever_has_one_axis_more_is_a_lane():
    """Traced, not compiled."""
    key, blend, two = jax.random.key(0), np.ones(2, np.float32), np.stack([CONTENT, STYLE])
    keys = jax.random.wrap_key_data(jnp.asarray(np.asarray([[0, 1], [0, 2]], np.uint32)))
    for styles, start, given in (
        (STYLE, "content", (weights(np.ones(2)), CONTENT, key, None)),
        (STYLE, "noise", (weights(1.0), CONTENT, keys, None)),
        (STYLE, "noise", (weights(1.0), CONTENT, jax.random.key_data(keys), None)),
        (STYLE, "content", (weights(1.0), two, None, None)),
        ([two, STYLE], "content", (weights(1.0), CONTENT, None, None)),
        ([STYLE, STYLE], "content", (weights(1.0), CONTENT, None, np.stack([blend, blend]))),
        (STYLE, two, (weights(1.0), CONTENT, None, None)),
    ):

        def call(given, styles, image, start=start):
            own, content, key, blend = given
            init: Any = image if image is not None else start
            return sweep(toy.PARAMS, content, styles, own, key=key, blend=blend, init=init, config=TOY, steps=2)

        found = jax.eval_shape(call, given, styles, None if isinstance(start, str) else start)
        assert found.image.shape == (2, *CONTENT.shape) and found.trace["total"].shape == (2, 2)


@pytest.mark.parametrize(
    ("given", "lanes", "message"),
    [
        (weights(6.0), None, "Batch axes have lengths none"),
        (
            weights(np.ones(2), tv=np.ones(3)),
            None,
            "Batch axes have lengths 2 and 3: give weights, key, content or styles a leading axis",
        ),
        (weights(np.ones(2)), 0, "lanes is 0"),
        (weights(np.ones(0)), None, "batch axis is empty"),
    ],
    ids=["none", "differ", "zero", "empty"],
)
def test_lanes_that_do_not_fit_are_refused(given, lanes, message):
    with pytest.raises(InputError, match=message):
        swept(given, lanes=lanes)


@pytest.mark.parametrize(
    ("memory", "lanes"),
    [(10_000, 40), (2500, 40), (2499, 20), (1300, 20), (1299, 14), (160, 1), (10, 1)],
)
def test_lanes_are_as_many_as_fit_in_rounds_of_about_equal_length(memory, lanes):
    """Each lane takes 60 on top of 100; 39 would fit 2,499, but two rounds of 20 take less time than 39 and 1."""
    assert lanes_within(memory, count=40, needed=lambda count: 100 + 60 * count) == lanes
    assert lanes_within(memory, count=1, needed=lambda count: 10**9) == 1


@pytest.mark.slow
def test_lanes_of_lbfgs_on_vgg_are_single_runs(params, content, style):
    def own(strength: Any) -> LossWeights:
        return LossWeights(
            content={"relu2_2": 1.0}, style={layer: strength for layer in LAYERS["style_layers"]}, tv=0.1
        )

    together = sweep(params, content, style, own(jnp.asarray(STRENGTHS)), config=LBFGS, steps=8)
    assert together.image.shape == (3, *content.shape) and together.trace["total"].shape == (3, 8)
    for lane, strength in enumerate(STRENGTHS):
        single = stylize(params, content, style, weights=own(strength), config=LBFGS, steps=8)
        np.testing.assert_allclose(together.image[lane], single.image, atol=1e-3)
        np.testing.assert_allclose(together.trace["total"][lane], single.trace["total"], rtol=1e-3)


@pytest.mark.slow
def test_lanes_in_rounds_of_two_are_those_of_one_round():
    five = weights(jnp.asarray([0.5, 1.0, 6.0, 20.0, 40.0]))
    np.testing.assert_allclose(swept(five).image, swept(five, lanes=2).image, atol=1e-5)


@pytest.mark.slow
def test_keys_are_seeds_of_noise_in_both_forms():
    keys, raw = jax.random.split(jax.random.key(0), 2), jax.random.split(jax.random.PRNGKey(0), 2)
    lanes, same = (swept(weights(6.0), key=each, init="noise").image for each in (keys, raw))
    np.testing.assert_array_equal(lanes, same)
    for lane, key in zip(lanes, keys, strict=True):
        np.testing.assert_allclose(lane, alone(weights(6.0), key=key, init="noise").image, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["content", "style", "init", "blend"])
def test_pictures_and_blends_may_be_lanes(which):
    content, style, other = CONTENT, STYLE, 1 - STYLE
    given = {"content": content, "style": [style, other], "init": content, "blend": np.asarray([0.3, 0.7], np.float32)}
    second = {
        "content": content[::-1],
        "style": [other, other],
        "init": 1 - content,
        "blend": np.asarray([1.0, 0.0], np.float32),
    }
    lanes = dict(given)
    lanes[which] = jax.tree.map(lambda *each: jnp.stack(each), given[which], second[which])

    def painted(function, of):
        options = {"init": of["init"], "blend": of["blend"], "weights": weights(6.0), "config": TOY, "steps": 2}
        return function(toy.PARAMS, of["content"], of["style"], **options).image

    found = painted(sweep, jax.tree.map(jnp.asarray, lanes))
    for lane, changed in enumerate((given, given | {which: second[which]})):
        np.testing.assert_allclose(found[lane], painted(stylize, jax.tree.map(jnp.asarray, changed)), atol=1e-4)


@pytest.mark.slow(optimized=True)
def test_the_memory_of_a_program_grows_by_the_same_for_each_lane(content, style):
    targets = jax.eval_shape(partial(make_targets, toy.PARAMS, config=TOY), content, style)
    found = []
    for lanes in (1, 4, 7):
        shape = jax.ShapeDtypeStruct((lanes, *content.shape), np.float32)
        state = jax.eval_shape(partial(init, config=TOY), shape)
        given = (state, toy.PARAMS, targets, weights(6.0))
        found.append(memory_of(run.lower(*given, config=TOY, steps=1).compile()))
    assert found[2] - found[1] == pytest.approx(found[1] - found[0], rel=0.2)
    assert found[1] - found[0] > 3 * content.nbytes


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "steps"), [("adam", 15), ("lbfgs", 5)])
@pytest.mark.soak(long=True)
def test_lanes_on_real_weights_are_single_runs(weights_path, real_pictures, optimizer, steps):
    """Later, where rounding changes the sign of an activation, lbfgs takes another path on some processors."""
    params = load_params("vgg19", weights=weights_path)
    content, style = (
        jnp.asarray(load_image(real_pictures / name, size=48).rgb)
        for name in ("golden_gate.jpg", "starry_night_google.jpg")
    )
    config = Config(optimizer=optimizer)
    strengths = (1.0, 6.0)

    def own(strength: Any):
        return LossWeights(style={layer: strength for layer in config.style_layers})

    together = sweep(params, content, style, own(jnp.asarray(strengths)), config=config, steps=steps)
    for lane, strength in enumerate(strengths):
        single = stylize(params, content, style, weights=own(strength), config=config, steps=steps)
        assert np.max(np.abs(np.asarray(together.image[lane] - single.image))) < 1e-5

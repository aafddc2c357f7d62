"""Derivatives of the final picture through the whole loop, held to central differences in float64."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import image, load_params
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.optimize import init, run
from jaxstyle.targets import make_targets
from jaxstyle.transfer import stylize

LAYERS = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}  # few, to compile quickly
LBFGS = Config(memory=4, **LAYERS)
# Adam divides by the gradient's size: where that is small its step is a sign, unless epsilon is larger than by default.
ADAM = Config(optimizer="adam", epsilon=1e-4, **LAYERS)
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=20.0)
STEPS = 7
LATER = pytest.param(LBFGS, id="lbfgs", marks=pytest.mark.slow)
ADAM_SOON = pytest.mark.parametrize("config", [pytest.param(ADAM, id="adam"), LATER])


@pytest.fixture
def inputs(params, content, style):
    """All that goes into a picture, in float64."""
    given = {"params": params, "content": content, "style": style, "start": content[::-1], "weights": WEIGHTS}
    with jax.enable_x64(True):
        yield jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), given)


@partial(jax.jit, static_argnames=("config", "segments"))
def brightness(inputs, config, segments=None):
    """Return the mean of a part of the final picture, which goes smoothly with all that goes in."""
    targets = make_targets(inputs["params"], inputs["content"], inputs["style"], config=config)
    given = (init(inputs["start"], config=config), inputs["params"], targets, inputs["weights"])
    return run(*given, config=config, steps=STEPS, segments=segments)[0].image[8:, ::3].mean()


gradient = jax.jit(jax.grad(brightness), static_argnames=("config", "segments"))


def difference(inputs, config, ways, step):
    """Return the central difference of the brightness along `ways`, for some of `inputs`."""
    ends = []
    for way in (step, -step):
        moved = {name: jax.tree.map(lambda x, d, way=way: x + way * d, inputs[name], d) for name, d in ways.items()}
        ends.append(float(brightness({**inputs, **moved}, config)))
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.slow
@ADAM_SOON
def test_gradients_by_all_that_goes_in_equal_central_differences(inputs, config):
    """Along a random way, uphill in each number so that the slope stands out from rounding."""
    slopes, rng = gradient(inputs, config, 3), np.random.default_rng(0)
    for name in ("params", "content", "style", "start"):
        uphill = partial(jax.tree.map, lambda leaf, slope: np.abs(rng.normal(size=leaf.shape)) * np.sign(slope))
        ways = uphill(inputs[name], slopes[name])
        slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slopes[name], ways)))
        assert slope == pytest.approx(difference(inputs, config, {name: ways}, step=1e-8), rel=1e-5)
        assert slope > 0


@ADAM_SOON
def test_hypergradients_equal_central_differences_one_by_one(inputs, config):
    slopes = jax.tree.leaves(gradient(inputs, config, 3)["weights"])
    leaves, structure = jax.tree.flatten(inputs["weights"])
    for number, slope in enumerate(slopes):
        ways = [leaf if own == number else jnp.zeros_like(leaf) for own, leaf in enumerate(leaves)]
        expected = difference(inputs, config, {"weights": jax.tree.unflatten(structure, ways)}, step=1e-6)
        assert slope * leaves[number] == pytest.approx(expected, rel=1e-5)
        assert (slope == 0) == (config is ADAM and number == len(leaves) - 1)  # adam clips, so nothing is out of bounds


@ADAM_SOON
def test_gradients_in_segments_are_those_of_the_whole(inputs, config):
    for mine, yours in zip(*(jax.tree.leaves(gradient(inputs, config, cut)) for cut in (3, None)), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-9, atol=1e-12 * float(jnp.abs(yours).max()))


@pytest.mark.slow
@ADAM_SOON
def test_forward_mode_is_the_transpose_of_reverse_mode(inputs, config):
    ways = jax.tree.map(jnp.ones_like, inputs["weights"])

    @jax.jit
    def along(weights):
        return jax.jvp(lambda own: brightness({**inputs, "weights": own}, config, 3), (weights,), (ways,))[1]

    reverse = sum(jax.tree.leaves(gradient(inputs, config, 3)["weights"]))
    assert along(inputs["weights"]) == pytest.approx(float(reverse), rel=1e-9)


@ADAM_SOON
@pytest.mark.parametrize("segments", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_in_segments_is_the_same_run(params, content, style, config, segments):
    targets = make_targets(params, content, style, config=config)
    given = (init(content, config=config), params, targets, WEIGHTS)
    whole, cut = (run(*given, config=config, steps=STEPS, segments=own) for own in (None, segments))
    for mine, yours in zip(*map(jax.tree.leaves, (cut, whole)), strict=True):
        assert mine.shape == yours.shape and (mine == yours).all()


@pytest.mark.slow
@pytest.mark.parametrize("segments", [None, 3])
def test_adam_is_the_same_bit_for_bit_where_its_gradient_is_asked_for(params, content, style, segments):
    """Else derivatives of long runs, which hang on rounding, would be those of another run."""
    config = Config(optimizer="adam", **LAYERS)
    targets = make_targets(params, content, style, config=config)

    def picture(weights):
        state, _ = run(
            init(content, config=config), params, targets, weights, config=config, steps=30, segments=segments
        )
        return state.image

    weights = jax.tree.map(jnp.asarray, WEIGHTS)
    beside = jax.jit(lambda weights: jax.vjp(picture, weights))(weights)[0]
    np.testing.assert_array_equal(beside, jax.jit(picture)(weights))


@pytest.mark.parametrize("segments", [0, STEPS + 1])
def test_segments_that_there_cannot_be_are_refused(params, content, style, segments):
    targets = make_targets(params, content, style, config=ADAM)
    given = (init(content, config=ADAM), params, targets, WEIGHTS)
    with pytest.raises(InputError, match=f"7 steps cannot be cut into {segments} segments: take 1 to 7, or None"):
        run(*given, config=ADAM, steps=STEPS, segments=segments)


@pytest.mark.slow
def test_the_whole_method_goes_in_segments_too(inputs):
    """Over two scales, of which the second has fewer steps than there are segments."""
    config = dataclasses.replace(ADAM, scales=(24, 40))

    def mean(strength, segments):
        weights = WEIGHTS._replace(style=dict.fromkeys(ADAM.style_layers, strength))
        given = (inputs["params"], inputs["content"], inputs["style"])
        return stylize(*given, weights=weights, config=config, steps=7, segments=segments).image.mean()

    kept, again = (jax.grad(mean)(6.0, segments) for segments in (None, 4))
    assert again == pytest.approx(float(kept), rel=1e-9)
    assert kept != 0


@pytest.mark.slow
def test_twenty_steps_of_the_real_network_have_the_same_gradient_in_segments(weights_path, real_pictures):
    params = load_params(weights_path)
    content, style = (
        jnp.asarray(image.load(real_pictures / f"{name}.jpg", size=64).rgb)
        for name in ("golden_gate", "starry_night_google")
    )
    config = Config(optimizer="adam")
    targets, state = make_targets(params, content, style, config=config), init(content, config=config)

    def mean(weights, segments):
        return run(state, params, targets, weights, config=config, steps=20, segments=segments)[0].image.mean()

    weights = jax.tree.map(jnp.asarray, LossWeights())
    kept, again = (np.asarray(jax.tree.leaves(jax.grad(mean)(weights, segments))) for segments in (None, 20))
    assert np.linalg.norm(again - kept) <= 1e-4 * np.linalg.norm(kept)

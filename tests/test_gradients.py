"""Derivatives of the final picture through the loop, compared with central differences in float64."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy

from jaxstyle.config import Config, LossWeights
from jaxstyle.losses.targets import make_targets
from jaxstyle.optim.loop import init, run
from jaxstyle.transfer.stylize import stylize

pytestmark = pytest.mark.slow

LAYERS: dict[str, Any] = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=20.0)
# Adam divides by the gradient's size: where that is small its step is a sign, unless epsilon is larger than by default.
OPTIMIZERS: dict[str, dict[str, Any]] = {"lbfgs": {"memory": 4}, "adam": {"optimizer": "adam", "epsilon": 1e-4}}
STEPS = 7


@partial(jax.jit, static_argnames=("config", "segments"))
def brightness(inputs, config, segments=None):
    """Return the mean of a part of the final picture, a smooth function of all inputs."""
    targets = make_targets(inputs["params"], inputs["content"], inputs["style"], config=config)
    given = (init(inputs["start"], config=config), inputs["params"], targets, inputs["weights"])
    return run(*given, config=config, steps=STEPS, segments=segments)[0].image[1:, ::3].mean()


gradient = jax.jit(jax.grad(brightness), static_argnames=("config", "segments"))


def difference(inputs, config, directions, step):
    """Return the central difference of the brightness along `directions`, for some of `inputs`."""
    ends = []
    for by in (step, -step):
        moved = {name: jax.tree.map(lambda x, d, by=by: x + by * d, inputs[name], d) for name, d in directions.items()}
        ends.append(float(brightness({**inputs, **moved}, config)))
    return (ends[0] - ends[1]) / (2 * step)


def check(inputs, config, segments):
    """Compare the gradient by each input with a central difference, and by each weight with one of its own."""
    slopes, rng = jax.tree.map(np.asarray, gradient(inputs, config, segments)), np.random.default_rng(0)
    for name in ("params", "content", "style", "start"):
        # uphill in each number, so that the slope stands out from rounding
        uphill = partial(jax.tree.map, lambda leaf, slope: np.abs(rng.normal(size=leaf.shape)) * np.sign(slope))
        directions = uphill(inputs[name], slopes[name])
        slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, slopes[name], directions)))
        assert slope == pytest.approx(difference(inputs, config, {name: directions}, step=1e-8), rel=1e-5), name
        assert slope > 0
    leaves, structure = jax.tree.flatten(inputs["weights"])
    for number, slope in enumerate(jax.tree.leaves(slopes["weights"])):
        directions = [leaf if own == number else np.zeros_like(leaf) for own, leaf in enumerate(leaves)]
        expected = difference(inputs, config, {"weights": jax.tree.unflatten(structure, directions)}, step=1e-6)
        assert slope * leaves[number] == pytest.approx(expected, rel=1e-5)
        last = number == len(leaves) - 1
        if not last or config.optimizer == "adam":
            assert (slope == 0) == last  # adam clips, so nothing is out of range
    return slopes


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.soak(long=True)
def test_gradients_equal_central_differences_on_vgg(params, content, style, name):
    given = {"params": params, "content": content, "style": style, "start": content[::-1], "weights": WEIGHTS}
    with jax.enable_x64(True):
        inputs = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), given)
        check(inputs, Config(**OPTIMIZERS[name], **LAYERS), 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_with_all_extras_in_segments_and_in_both_modes(name):
    """With an average, a stop by tolerance or patience, and for adam normalized gradients.

    Backward in segments, and forward without them, by all inputs.
    """
    extras = {"averaging": 0.8, "normalize_gradients": name == "adam"}
    config = Config(network=toy.network, scales=1, **extras, **OPTIMIZERS[name], **toy.LAYERS)
    given = {"params": toy.PARAMS, "content": toy.CONTENT, "style": toy.STYLE, "start": toy.START}
    with jax.enable_x64(True):
        inputs = jax.tree.map(np.float64, given | {"weights": replace(toy.WEIGHTS, tv=20.0)})
        slopes = check(inputs, config, 3)

        @jax.jit
        def forwards(inputs, directions):
            return jax.jvp(lambda own: brightness(own, config), (inputs,), (directions,))[1]

        rng = np.random.default_rng(1)
        directions = jax.tree.map(lambda leaf: rng.normal(size=np.shape(leaf)), inputs)
        reverse = sum(jax.tree.leaves(jax.tree.map(np.vdot, slopes, directions)))
        assert forwards(inputs, directions) == pytest.approx(reverse, rel=1e-9)


@pytest.mark.slow(optimized=True)
def test_adam_is_the_same_bit_for_bit_where_its_gradient_is_asked_for(params, content, style):
    """Else derivatives of long runs, which depend on rounding, would be those of another run."""
    config = Config(optimizer="adam", **LAYERS)
    targets = make_targets(params, content, style, config=config)

    def picture(weights):
        state, _ = run(init(content, config=config), params, targets, weights, config=config, steps=30)
        return state.image

    weights = jax.tree.map(jnp.asarray, WEIGHTS)
    beside = jax.jit(lambda weights: jax.vjp(picture, weights))(weights)[0]
    np.testing.assert_array_equal(beside, jax.jit(picture)(weights))


def test_the_gradient_of_stylize_goes_through_scales_in_segments_too():
    """Over two scales, of which the second has fewer steps than there are segments; by content and weight."""
    config = Config(network=toy.network, scales=(8, 12), optimizer="adam", epsilon=1e-4, **toy.LAYERS)
    rng = np.random.default_rng(0)
    content, style = rng.uniform(0.2, 0.8, (2, 8, 12, 3))

    @partial(jax.jit, static_argnames="segments")
    def program(strength, content, segments):
        def mean(strength, content):
            weights = replace(toy.WEIGHTS, style=dict.fromkeys(config.style_layers, strength))
            options = {"weights": weights, "config": config, "steps": 7, "segments": segments}
            return stylize(toy.PARAMS, content, style, **options).image[2:, ::3].mean()

        return jax.value_and_grad(mean, (0, 1))(strength, content)

    with jax.enable_x64(True):
        whole, cut = (program(6.0, content, segments) for segments in (None, 4))
        for mine, expected in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-14)
        _, (by_weight, by_content) = whole
        direction, step = np.cos(np.arange(content.size)).reshape(content.shape), 1e-6
        ends = [program(6.0, content + sign * step * direction, None)[0] for sign in (1, -1)]
        expected = float(ends[0] - ends[1]) / (2 * step)
        assert np.vdot(by_content, direction) == pytest.approx(expected, rel=1e-4) and expected != 0
        ends = [program(6.0 + sign * 1e-5, content, None)[0] for sign in (1, -1)]
        assert by_weight == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-4) and by_weight != 0

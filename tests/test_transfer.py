import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.transfer import initial_image, stylize

LAYERS = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}  # few, to compile quickly
LBFGS = Config(**LAYERS)
ADAM = Config(optimizer="adam", **LAYERS)
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)
BOTH = pytest.mark.parametrize("config", [LBFGS, ADAM], ids=["lbfgs", "adam"])


@BOTH
def test_the_picture_comes_closer_to_the_style(params, content, style, config):
    image, trace = stylize(params, content, style, weights=WEIGHTS, config=config, steps=30)
    assert image.shape == content.shape and image.dtype == jnp.float32
    assert 0 <= image.min() and image.max() <= 1
    for name in ("total", "style/relu1_1", "style/relu2_1"):
        assert trace[name][-1] < 0.9 * trace[name][0]


@BOTH
def test_jit_of_the_whole_equals_its_parts(params, content, style, config):
    whole = jax.jit(lambda *pictures: stylize(params, *pictures, weights=WEIGHTS, config=config, steps=3).image)
    np.testing.assert_allclose(
        whole(content, style), stylize(params, content, style, weights=WEIGHTS, config=config, steps=3).image, atol=1e-4
    )


@pytest.mark.slow
@BOTH
def test_the_final_image_can_be_differentiated_by_a_weight(params, content, style, config):
    """Reverse and forward mode agree with each other and, in float64, with a central difference."""
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, content, style))

        @jax.jit
        def brightness(weight):
            weights = WEIGHTS._replace(style=dict.fromkeys(config.style_layers, weight))
            return stylize(*arguments, weights=weights, config=config, steps=2).image[8:, ::3].mean()

        at, step = jnp.asarray(6.0), 1e-5
        reverse, forward = jax.grad(brightness)(at), jax.jvp(brightness, (at,), (jnp.ones(()),))[1]
        assert reverse == pytest.approx(float(forward), rel=1e-6)
        difference = (brightness(at + step) - brightness(at - step)) / (2 * step)
        assert reverse == pytest.approx(float(difference), rel=1e-3)
        assert reverse != 0


@pytest.mark.slow
def test_the_final_image_can_be_differentiated_by_the_content(params, content, style):
    """Along one direction, held to a central difference in float64."""
    config = dataclasses.replace(ADAM, learning_rate=0.01)
    with jax.enable_x64(True):
        network, content, style = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, content, style))
        direction, step = jnp.cos(jnp.arange(content.size).reshape(content.shape) / 7.0), 1e-6

        @jax.jit
        def brightness(content):
            return stylize(network, content, style, weights=WEIGHTS, config=config, steps=2).image[8:, ::3].mean()

        slope = jnp.vdot(jax.grad(brightness)(content), direction)
        difference = (brightness(content + step * direction) - brightness(content - step * direction)) / (2 * step)
        assert slope == pytest.approx(float(difference), rel=1e-3)


def test_a_batch_of_contents_gives_the_picture_of_each(params, content, style):
    batch = jnp.stack([content, content[::-1]])
    together = stylize(params, batch, style, weights=WEIGHTS, config=LBFGS, steps=4)
    assert together.image.shape == batch.shape and together.trace["total"].shape == (2, 4)
    np.testing.assert_allclose(
        together.image[1], stylize(params, batch[1], style, weights=WEIGHTS, config=LBFGS, steps=4).image, atol=1e-3
    )


def test_the_same_key_gives_the_same_bits_and_another_key_another_picture(params, content, style):
    first, again, other = (
        np.asarray(
            stylize(
                params, content, style, init="noise", key=jax.random.key(seed), weights=WEIGHTS, config=LBFGS, steps=3
            ).image
        )
        for seed in (1, 1, 2)
    )
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_second_picture_of_the_same_shapes_compiles_nothing(params, content, style, compilations):
    others = (content[::-1], style[::-1])
    stylize(params, content, style, weights=WEIGHTS, config=LBFGS, steps=2)
    compilations.clear()
    stylize(params, *others, weights=WEIGHTS, config=LBFGS, steps=2)
    assert compilations == []


def test_each_start_has_the_shape_of_the_content(content, style):
    own = initial_image(content, style, content[::-1])
    assert (own == content[::-1]).all()
    assert (initial_image(content, style, "content") == content).all()
    resized = initial_image(content, [style, content], "style")
    assert resized.shape == content.shape and 0 <= resized.min() and resized.max() <= 1
    assert resized.mean() == pytest.approx(float(style.mean()), abs=0.02)
    noise = initial_image(content, style, "noise", key=jax.random.key(0))
    assert noise.shape == content.shape and noise.std() == pytest.approx(12**-0.5, rel=0.05)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("noise", r"has no seed: pass key="),
        ("random", r"'random' is unknown: use 'content', 'style', 'noise' or an image"),
        (jnp.zeros((16, 16, 3)), r"is \[16, 16, 3\], but the content is \[32, 40, 3\]"),
    ],
)
def test_a_start_that_cannot_be_is_refused(content, style, start, message):
    with pytest.raises(InputError, match=message):
        initial_image(content, style, start)


def test_weights_for_other_layers_than_the_configs_are_refused(params, content, style):
    with pytest.raises(InputError, match="differ in content/relu3_1, content/relu4_2"):
        stylize(params, content, style, config=Config(content_layers=("relu3_1",)), steps=1)

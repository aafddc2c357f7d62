import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.objective import make_targets, terms, total
from jaxstyle.vgg import features

CONFIG = Config(content_layers=("relu3_2", "conv4_2"), style_layers=("relu1_1", "relu4_1"))


def numpy_gram(layer) -> np.ndarray:
    rows = np.asarray(layer, np.float64).reshape(-1, layer.shape[-1])
    return rows.T @ rows / len(rows)


@pytest.mark.slow
def test_terms_of_the_default_are_distances_over_the_targets_energy(params, content, style):
    image = content[::-1]
    found = terms(params, image, make_targets(params, content, style, config=CONFIG), config=CONFIG)
    of_image, of_content, of_style = (features(params, picture) for picture in (image, content, style))
    for layer in CONFIG.content_layers:
        target = np.asarray(of_content[layer], np.float64)
        expected = np.sum((np.asarray(of_image[layer]) - target) ** 2) / np.sum(target**2)
        assert found[f"content/{layer}"] == pytest.approx(expected, rel=1e-4)
    for layer in CONFIG.style_layers:
        target = numpy_gram(of_style[layer])
        expected = np.sum((numpy_gram(of_image[layer]) - target) ** 2) / np.sum(target**2)
        assert found[f"style/{layer}"] == pytest.approx(expected, rel=1e-4)
    assert list(found) == ["content/relu3_2", "content/conv4_2", "style/relu1_1", "style/relu4_1", "tv"]


def test_the_content_itself_has_no_content_loss_and_the_style_no_style_loss(params, content, style):
    targets = make_targets(params, content, style, config=CONFIG)
    assert terms(params, content, targets, config=CONFIG)["content/relu3_2"] < 1e-10
    only_style = dataclasses.replace(CONFIG, content_layers=())
    assert terms(params, style, targets, config=only_style)["style/relu4_1"] < 1e-10


def of_styles(targets) -> Any:
    return targets.style


def test_style_terms_do_not_change_when_the_style_is_tiled(params, style):
    """Gram matrices are means over pixels, so a larger picture of the same texture is the same style."""
    shallow = Config(content_layers=(), style_layers=("relu1_1",))
    once, thrice = (
        of_styles(make_targets(params, style, picture, config=shallow))["relu1_1"].second
        for picture in (style, jnp.tile(style, (3, 3, 1)))
    )
    np.testing.assert_allclose(once, thrice, rtol=0.05, atol=0.05 * float(jnp.abs(once).max()))


def test_several_styles_are_averaged_by_their_gram_matrices(params, content, style):
    both = of_styles(make_targets(params, content, [style, content], config=CONFIG))
    each = [of_styles(make_targets(params, content, picture, config=CONFIG)) for picture in (style, content)]
    for layer in CONFIG.style_layers:
        np.testing.assert_allclose(both[layer].second, (each[0][layer].second + each[1][layer].second) / 2, rtol=1e-4)


@pytest.mark.slow
def test_the_terms_of_a_circular_image_do_not_change_when_it_is_rolled(params, style):
    config = Config(content_layers=(), border="circular")
    image = jax.random.uniform(jax.random.key(0), (32, 48, 3))
    targets = make_targets(params, image, style, config=config)
    found, of_rolled = (
        terms(params, each, targets, config=config) for each in (image, jnp.roll(image, (16, -16), axis=(0, 1)))
    )
    for name, value in found.items():
        assert of_rolled[name] == pytest.approx(float(value), rel=1e-4), name


@pytest.mark.slow
def test_terms_of_a_batch_are_those_of_each_image(params, content, style):
    batch = jnp.stack([content, content[::-1]])
    targets = make_targets(params, batch, style, config=CONFIG)
    together = terms(params, batch[::-1], targets, config=CONFIG)
    alone = terms(params, batch[0], make_targets(params, batch[1], style, config=CONFIG), config=CONFIG)
    for name, value in alone.items():
        assert together[name].shape == (2,)
        assert together[name][1] == pytest.approx(float(value), rel=1e-3)


def test_total_is_the_weighted_sum():
    weights = LossWeights(content={"relu4_2": 2.0}, style={"relu1_1": 3.0, "relu2_1": 5.0}, tv=7.0, bounds=1e9)
    parts = {"content/relu4_2": 1.0, "style/relu1_1": 10.0, "style/relu2_1": 100.0, "tv": 1000.0}
    assert total(weights, {name: jnp.asarray(value) for name, value in parts.items()}) == 2 + 30 + 500 + 7000


def test_total_refuses_weights_for_other_layers_than_the_terms():
    with pytest.raises(InputError, match="loss's weights and its terms differ in content/relu4_2, style/relu9"):
        total(LossWeights({}, {"relu9": 1.0}, tv=1.0), {"content/relu4_2": jnp.ones(()), "tv": jnp.ones(())})


@pytest.mark.slow
def test_a_constant_picture_as_content_and_style_gives_finite_terms_and_gradients(params):
    grey = jnp.full((32, 32, 3), 0.5)
    black_network = jax.tree.map(jnp.zeros_like, params)
    for network in (params, black_network):
        targets = make_targets(network, grey, grey, config=CONFIG)

        def loss(image, network=network, targets=targets):
            parts = terms(network, image, targets, config=CONFIG)
            return total(
                LossWeights(dict.fromkeys(CONFIG.content_layers, 1.0), {"relu1_1": 1.0, "relu4_1": 1.0}), parts
            )

        value, gradient = jax.value_and_grad(loss)(grey)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_weights_are_a_pytree_with_a_leaf_for_each_layer():
    assert len(jax.tree.leaves(LossWeights())) == 1 + 5 + 1 + 1
    assert set(LossWeights().content) == set(Config().content_layers)
    assert set(LossWeights().style) == set(Config().style_layers)


def test_config_is_hashable_and_equal_by_value():
    assert hash(Config(memory=3)) == hash(Config(memory=3)) != hash(Config(memory=4))
    assert Config(memory=3) == Config(memory=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content_layers": ("relu4_9",)}, "'relu4_9' is not a layer"),
        ({"content_layers": (), "style_layers": ()}, "no content layers and no style layers"),
        ({"pooling": "min"}, "pooling 'min' is unknown: use 'max' or 'avg' or 'l2'"),
        ({"optimizer": "sgd"}, "optimizer 'sgd' is unknown: use 'lbfgs' or 'adam'"),
        ({"tv_power": 0.5}, "tv_power is 0.5: use a number from 1"),
        ({"statistic": "median"}, "statistic 'median' is unknown: use 'gram' or"),
        ({"averaging": 1.0}, "averaging is 1.0: use a number from 0 and below 1"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"patience": -1}, "patience is -1: use 1 to 2147483647 steps, or 0 for never"),
        ({"patience": 2**31}, "patience is 2147483648: use 1 to 2147483647 steps, or 0 for never"),
        ({"betas": (0.9, 1.0)}, r"betas are \(0.9, 1.0\)"),
        ({"parametrization": "waves"}, "parametrization 'waves' is unknown"),
        ({"memory": 0}, "memory is 0: use 1 to 2147483647 pairs"),
        ({"memory": 10**20}, "memory is 100000000000000000000: use 1 to 2147483647 pairs"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: use a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: use a positive number"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Config(), **change)


def test_a_picture_too_small_for_a_layer_is_refused_with_the_size_it_needs(params, content):
    with pytest.raises(InputError, match=r"style is 40x12 pixels, but relu5_1 needs at least 16x16: .*--style-layers"):
        make_targets(params, content, content[:12], config=Config())
    with pytest.raises(InputError, match=r"content is 40x4 pixels, but relu4_2 needs at least 8x8"):
        make_targets(params, content[:4], content, config=Config())


@pytest.mark.parametrize("array", [jnp.zeros((32, 32)), jnp.zeros((32, 32, 4)), jnp.zeros((32, 32, 3), jnp.uint8)])
def test_an_array_that_is_no_picture_is_refused(params, content, array):
    with pytest.raises(InputError, match=r"not a picture: pass float32 \[H, W, 3\] in \[0, 1\]"):
        make_targets(params, array, content, config=Config())
    with pytest.raises(InputError, match="not a picture"):
        terms(params, array, make_targets(params, content, content, config=CONFIG), config=CONFIG)


def test_no_style_at_all_is_refused(params, content):
    with pytest.raises(InputError, match="There is no style: pass a picture, or a sequence of at least one"):
        make_targets(params, content, [], config=CONFIG)


def test_layers_may_come_as_a_list():
    assert Config(content_layers=["relu4_2"]) == Config()  # pyright: ignore[reportArgumentType]

"""Terms and their sum, compared with NumPy: on a linear network in float64, and on VGG's shallow layers."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy
from vgg_layers import features

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.losses.objective import gradient_factors, make_targets, painted, terms, total

TOY = Config(network=toy.network, optimizer="adam", scales=1, **toy.LAYERS)
VARIANTS: dict[str, dict[str, Any]] = {
    "elements": {"content_divisor": "elements", "style_divisor": "elements", "gram_divisor": "elements"},
    "none": {"content_divisor": "none", "style_divisor": "none", "shift": 0.5},
    "sum": {"pixel_range": 3.0, "pixel_reduction": "sum", "tv_power": 3},
    "joint": {"tv_form": "joint", "border": "circular"},
}
CONFIG = Config(content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"))
DEEP = Config(content_layers=("relu3_2", "conv4_2"), style_layers=("relu1_1", "relu4_1"))
MASKS = np.zeros((2, toy.HEIGHT, toy.WIDTH))
MASKS[0, :, :2], MASKS[1, :, 2:4] = 1, 1  # no region covers the last two columns


def half_size(image):
    return jax.image.resize(image, (toy.HEIGHT // 2, toy.WIDTH // 2, 3), "lanczos3")


@jax.jit
def evaluated(params, image, content, style):
    """Return terms of one image in many ways: one program."""
    of_config = partial(make_targets, params, content, style)
    found: dict[str, Any] = {"default": terms(params, image, of_config(config=TOY), config=TOY)}
    for name, chosen in VARIANTS.items():
        config = dataclasses.replace(TOY, **chosen)
        found[name] = terms(params, image, of_config(config=config), config=config)
    targets = of_config(config=TOY)
    found["factors"] = gradient_factors(params, image, targets, config=TOY)
    small = make_targets(params, half_size(content), style, config=TOY)
    found["half"] = terms(params, half_size(image), small, config=TOY)
    found["both"] = terms(params, image, targets._replace(half=small), config=TOY)
    batch = jnp.stack([content, image])
    found["batch"] = terms(params, batch[::-1], make_targets(params, batch, style, config=TOY), config=TOY)
    regions = make_targets(params, content, [style, 1 - style], config=TOY, content_masks=jnp.asarray(MASKS))
    found["regions"] = terms(params, image, regions, config=TOY)
    found["painted"] = painted(image, regions)
    found["guides"] = regions.regions.guides  # pyright: ignore[reportOptionalMemberAccess]
    found["region factors"] = gradient_factors(params, image, regions, config=TOY)
    found["painted factors"] = gradient_factors(params, found["painted"], regions, config=TOY)
    return found


@pytest.fixture(scope="module")
def found():
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, evaluated(toy.PARAMS, toy.START, toy.CONTENT, toy.STYLE))


def close(expected, rel=1e-9):
    return pytest.approx({name: np.asarray(value).tolist() for name, value in expected.items()}, rel=rel)


def plain(values):
    return {name: value.tolist() for name, value in values.items()}


def test_terms_of_the_default_are_distances_over_the_energy_of_the_targets(found):
    expected, _, _ = toy.evaluate(toy.START)
    del expected["bounds"]
    assert plain(found["default"]) == close(expected)
    assert set(found["default"]) == {"content/full", "style/full", "style/half", "tv"}


def test_divisors_count_elements_or_nothing(found):
    features_of = partial(toy.network, toy.PARAMS)
    image, content, style = map(features_of, (toy.START, toy.CONTENT, toy.STYLE))
    away = np.square(image["full"] - content["full"])
    assert found["elements"]["content/full"] == pytest.approx(away.mean(), rel=1e-9)
    assert found["none"]["content/full"] == pytest.approx(away.sum(), rel=1e-9)
    for layer in toy.LAYERS["style_layers"]:
        one, other = (toy.gram(each[layer]) / each[layer].shape[-1] for each in (image, style))
        assert found["elements"][f"style/{layer}"] == pytest.approx(np.square(one - other).mean(), rel=1e-9)
        one, other = (toy.gram(each[layer] + 0.5) for each in (image, style))
        assert found["none"][f"style/{layer}"] == pytest.approx(np.square(one - other).sum(), rel=1e-9)


def test_total_variation_is_in_units_of_the_pixel_range(found):
    down, right = (np.abs(3 * np.diff(toy.START, axis=axis)) for axis in (0, 1))
    assert found["sum"]["tv"] == pytest.approx((down**3).sum() + (right**3).sum(), rel=1e-9)
    down, right = (np.roll(toy.START, -1, axis=axis) - toy.START for axis in (0, 1))
    assert found["joint"]["tv"] == pytest.approx(np.mean(down**2 + right**2), rel=1e-9)


def test_terms_at_half_the_size_count_as_much_as_those_at_the_whole_but_for_total_variation(found):
    expected = {name: (value + found["half"][name]) / 2 for name, value in found["default"].items()}
    assert plain(found["both"]) == close(expected | {"tv": found["default"]["tv"]})


def test_terms_of_a_batch_are_those_of_each_image_with_its_content(found):
    """The second image of the batch is the content, compared with what was the start."""
    expected, _, _ = toy.evaluate(toy.CONTENT)
    del expected["bounds"]
    start, content = (toy.network(toy.PARAMS, each)["full"] for each in (toy.START, toy.CONTENT))
    expected["content/full"] = np.square(content - start).sum() / np.square(start).sum()
    assert {name: value[0].tolist() for name, value in found["batch"].items()} == close(found["default"])
    assert {name: value[1].tolist() for name, value in found["batch"].items()} == close(expected)


def test_factors_make_each_gradient_sum_to_one_where_it_enters_the_network(found):
    _, _, expected = toy.evaluate(toy.START)
    del expected["bounds"]
    assert plain(found["factors"]) == close(expected)


def test_a_region_has_its_own_style_and_weighs_as_much_as_it_covers(found):
    image = np.where(MASKS.sum(0)[..., None] > 0, toy.START, toy.CONTENT)
    np.testing.assert_allclose(found["painted"], image, rtol=1e-12)
    for layer in TOY.style_layers:
        seen, expected = toy.network(toy.PARAMS, image)[layer], 0.0
        for guide, mask, style in zip(found["guides"][layer], MASKS, (toy.STYLE, 1 - toy.STYLE), strict=True):
            own, target = (
                np.einsum("hw,hwi,hwj->ij", guide, seen, seen),
                toy.gram(toy.network(toy.PARAMS, style)[layer]),
            )
            expected += mask.mean() * np.square(own - target).sum() / np.square(target).sum()
        assert found["regions"][f"style/{layer}"] == pytest.approx(expected, rel=1e-9)
    whole, _, _ = toy.evaluate(image)
    assert found["regions"]["content/full"] == pytest.approx(whole["content/full"], rel=1e-9)
    assert found["regions"]["tv"] == pytest.approx(whole["tv"], rel=1e-9)
    assert plain(found["region factors"]) == close(found["painted factors"])


def test_an_image_without_regions_is_painted_everywhere():
    image: Any = np.ones((4, 6, 3))
    assert painted(image, toy.TARGETS) is image


@pytest.fixture(scope="module")
def of_vgg(params, content, style):
    """Features of three pictures, and terms of two configs: one program."""

    @jax.jit
    def program(image, content, style):
        seen = [features(params, each, layers=CONFIG.layers) for each in (image, content, style)]
        targets = make_targets(params, content, style, config=CONFIG)
        by_image = dataclasses.replace(CONFIG, gram_divisor="image", style_divisor="none")
        return seen, [terms(params, image, targets, config=each) for each in (CONFIG, by_image)]

    pictures = (np.asarray(each)[:17, :23] for each in (content[::-1], content, style))  # not of even size
    return jax.tree.map(np.asarray, program(*pictures))


def test_terms_of_vgg_are_those_of_its_features(of_vgg):
    (image, content, style), (found, _) = of_vgg
    target = np.float64(content["relu2_1"])
    expected = np.sum((image["relu2_1"] - target) ** 2) / np.sum(target**2)
    assert found["content/relu2_1"] == pytest.approx(expected, rel=1e-4)
    for layer in CONFIG.style_layers:
        one, target = toy.gram(np.float64(image[layer])), toy.gram(np.float64(style[layer]))
        expected = np.sum((one - target) ** 2) / np.sum(target**2)
        assert found[f"style/{layer}"] == pytest.approx(expected, rel=1e-4)
    assert list(found) == ["content/relu2_1", "style/relu1_1", "style/relu2_1", "tv"]


def test_gram_matrices_may_be_divided_by_the_pixels_of_the_image(of_vgg):
    (image, _, style), (_, found) = of_vgg
    for layer in CONFIG.style_layers:
        height, width = image[layer].shape[:2]
        share = height * width / (17 * 23)  # of pixels of the layer
        away = share * (toy.gram(np.float64(image[layer])) - toy.gram(np.float64(style[layer])))
        assert found[f"style/{layer}"] == pytest.approx(np.square(away).sum(), rel=1e-4)


@pytest.mark.slow
def test_deep_terms_are_those_of_the_features_and_vanish_for_the_targets_themselves(params, content, style):
    @jax.jit
    def program(image):
        targets = make_targets(params, content, style, config=DEEP)
        return terms(params, image, targets, config=DEEP), [features(params, x) for x in (image, content, style)]

    found, (of_image, of_content, of_style) = program(content[::-1])
    for layer in DEEP.content_layers:
        target = np.asarray(of_content[layer], np.float64)
        expected = np.sum((np.asarray(of_image[layer]) - target) ** 2) / np.sum(target**2)
        assert found[f"content/{layer}"] == pytest.approx(expected, rel=1e-4)
    for layer in DEEP.style_layers:
        one, target = (toy.gram(np.asarray(each[layer], np.float64)) for each in (of_image, of_style))
        expected = np.sum((one - target) ** 2) / np.sum(target**2)
        assert found[f"style/{layer}"] == pytest.approx(expected, rel=1e-4)
    assert program(content)[0]["content/relu3_2"] < 1e-10


@pytest.mark.slow
def test_the_terms_of_a_circular_image_do_not_change_when_it_is_rolled(params, style):
    config = Config(content_layers=(), border="circular")
    image: Any = np.random.default_rng(0).uniform(size=(32, 48, 3)).astype(np.float32)
    targets = make_targets(params, image, style, config=config)
    program = jax.jit(partial(terms, config=config))
    found, of_rolled = (program(params, each, targets) for each in (image, np.roll(image, (16, -16), axis=(0, 1))))
    for name, value in found.items():
        assert of_rolled[name] == pytest.approx(float(value), rel=1e-4), name


@pytest.mark.slow
def test_a_constant_picture_as_content_and_style_gives_finite_terms_and_gradients(params):
    grey: Any = np.full((32, 32, 3), 0.5, np.float32)
    weights = LossWeights(dict.fromkeys(DEEP.content_layers, 1.0), {"relu1_1": 1.0, "relu4_1": 1.0})

    @jax.jit
    def program(network):
        targets = make_targets(network, grey, grey, config=DEEP)
        return jax.value_and_grad(lambda image: total(weights, terms(network, image, targets, config=DEEP)))(grey)

    for network in (params, jax.tree.map(np.zeros_like, params)):  # the second one gives black features
        value, gradient = program(network)
        assert np.isfinite(value) and np.isfinite(gradient).all()


# Targets


def test_styles_are_mixed_by_their_statistics():
    other = toy.STYLE[::-1] ** 2

    @jax.jit
    def program(params, style, other):
        of = partial(make_targets, params, toy.CONTENT, config=TOY)
        tiled = jnp.tile(style, (3, 3, 1))
        return of([style, other]).style, of([style, other], blend=[3.0, 1.0]).style, of(tiled).style

    with jax.enable_x64(True):
        alike, blended, tiled = jax.tree.map(np.asarray, program(toy.PARAMS, toy.STYLE, other))
    for layer in TOY.style_layers:
        one, two = (toy.network(toy.PARAMS, each)[layer] for each in (toy.STYLE, other))
        np.testing.assert_allclose(alike[layer].second, (toy.gram(one) + toy.gram(two)) / 2, rtol=1e-9)
        np.testing.assert_allclose(blended[layer].second, 0.75 * toy.gram(one) + 0.25 * toy.gram(two), rtol=1e-6)
        np.testing.assert_allclose(alike[layer].mean, (one.mean((0, 1)) + two.mean((0, 1))) / 2, rtol=1e-9)
        np.testing.assert_allclose(tiled[layer].second, toy.gram(one), rtol=1e-9)  # the same texture, a larger picture


# Weights and configs


def test_total_is_the_weighted_sum():
    weights = LossWeights({"relu4_2": 2.0}, {"relu1_1": 3.0, "relu2_1": 5.0}, tv=7.0, bounds=1e9, own={"edges": 11.0})
    parts = {"content/relu4_2": 1.0, "style/relu1_1": 10.0, "style/relu2_1": 100.0, "tv": 1000.0, "edges": 1e4}
    with jax.enable_x64(True):
        assert total(weights, {name: jnp.asarray(value) for name, value in parts.items()}) == 2 + 30 + 500 + 7000 + 11e4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (LossWeights({}, {"relu9": 1.0}, tv=1.0), "content/relu4_2, style/relu9"),
        (LossWeights({"relu4_2": 1.0}, {}, own={"edges": 1.0}), "edges"),
        (LossWeights({"relu4_2": 1.0}, {}, own={"tv": 3.0}), "LossWeights.own has tv, which have a weight"),
    ],
)
def test_weights_that_do_not_belong_to_the_terms_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        total(weights, {"content/relu4_2": np.ones(()), "tv": np.ones(())})  # pyright: ignore[reportArgumentType]


def test_weights_are_a_pytree_with_a_leaf_for_each_layer():
    assert len(jax.tree.leaves(LossWeights())) == 1 + 5 + 1 + 1
    assert set(LossWeights().content) == set(Config().content_layers)
    assert set(LossWeights().style) == set(Config().style_layers)


def test_a_config_of_lists_is_that_of_tuples():
    lists = Config(betas=[0.9, 0.99], scales=[64, 128], style_layers=["relu1_1"])  # pyright: ignore[reportArgumentType]
    assert lists == Config(betas=(0.9, 0.99), scales=(64, 128), style_layers=("relu1_1",)) and hash(lists)


def test_weights_in_the_place_of_layers_are_refused():
    with pytest.raises(InputError, match="style_layers is .*relu1_1.*LossWeights"):
        Config(style_layers={"relu1_1": 3.0})  # pyright: ignore[reportArgumentType]


def test_config_is_hashable_and_equal_by_value():
    assert hash(Config(memory=3)) == hash(Config(memory=3)) != hash(Config(memory=4))
    assert Config(memory=3) == Config(memory=3)
    assert Config(content_layers=["relu4_2"]) == Config()  # pyright: ignore[reportArgumentType]
    assert Config(content_layers="relu4_2") == Config()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content_layers": ("relu4_9",)}, "'relu4_9' is not a layer"),
        ({"own_layers": ("relu9_1",)}, "'relu9_1' is not a layer"),
        ({"content_layers": (), "style_layers": ()}, "no content layers and no style layers"),
        ({"pooling": "min"}, "pooling 'min' is unknown: use 'max' or 'avg' or 'l2'"),
        ({"optimizer": "sgd"}, "optimizer 'sgd' is unknown: use 'lbfgs' or 'adam'"),
        ({"optimizer": 3}, "optimizer 3 is unknown"),
        ({"statistic": "median"}, "statistic 'median' is unknown: use 'gram' or"),
        ({"parametrization": "waves"}, "parametrization 'waves' is unknown: use None or 'pixels' or 'pyramid'"),
        ({"tv_power": 0.5}, "tv_power is 0.5: use a number from 1"),
        ({"averaging": 1.0}, "averaging is 1.0: use a number from 0 and below 1"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"patience": -1}, "patience is -1: use 1 to 2147483647 steps, or 0 for never"),
        ({"patience": 2**31}, "patience is 2147483648: use 1 to 2147483647 steps, or 0 for never"),
        ({"betas": (0.9, 1.0)}, r"betas are \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, r"betas are \(-0.1, 0.9\)"),
        ({"betas": (0.9,)}, r"betas are \(0.9,\)"),
        ({"scales": "2"}, "scales is '2': use their number"),
        ({"scales": ()}, r"scales is \(\): use their number"),
        ({"memory": 0}, "memory is 0: use 1 to 2147483647 pairs"),
        ({"memory": 10**20}, "memory is 100000000000000000000: use 1 to 2147483647 pairs"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: use a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: use a positive number"),
    ],
)
def test_a_value_out_of_range_in_a_config_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Config(), **change)


def test_values_at_the_ends_of_their_ranges_are_accepted():
    Config(tv_power=1, averaging=0.0, tolerance=0.0, patience=2**31 - 1, betas=(0.0, 0.0), memory=1, epsilon=0)


def targets_of(*pictures, config: Config):
    """Trace `make_targets` without compiling it."""
    return jax.eval_shape(partial(make_targets, {}, config=config), *pictures)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (((32, 40), (12, 40)), "style is 40x12 pixels, but relu5_1 needs at least 16x16: .*--style-layers"),
        (((4, 40), (32, 40)), "content is 40x4 pixels, but relu4_2 needs at least 8x8"),
    ],
)
def test_a_picture_too_small_for_a_layer_is_refused_with_the_size_it_needs(sides, message):
    with pytest.raises(InputError, match=message):
        targets_of(*(np.zeros((*side, 3), np.float32) for side in sides), config=Config())


@pytest.mark.parametrize(
    "array",
    [np.zeros((32, 32)), np.zeros((32, 32, 4)), np.zeros((32, 32, 3), np.uint8)],
    ids=["rank", "alpha", "uint8"],
)
def test_an_array_that_is_no_picture_is_refused(array):
    picture = np.zeros((32, 32, 3), np.float32)
    with pytest.raises(InputError, match=r"not a picture: pass float32 \[H, W, 3\] in \[0, 1\]"):
        targets_of(array, picture, config=CONFIG)
    with pytest.raises(InputError, match="not a picture"):
        jax.eval_shape(partial(terms, {}, config=CONFIG), array, {})


def test_a_run_without_a_style_is_refused():
    with pytest.raises(InputError, match="There is no style: pass a picture, or a sequence of at least one"):
        targets_of(np.zeros((32, 32, 3), np.float32), [], config=CONFIG)

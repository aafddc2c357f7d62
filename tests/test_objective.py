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

from jaxstyle.errors import InputError
from jaxstyle.losses.loss_terms import composed, gradient_factors, terms, total
from jaxstyle.losses.objective import CONTENT_LAYERS, STYLE_LAYERS, Objective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.vgg import VGG19

VARIANTS: dict[str, dict[str, Any]] = {
    "elements": {"content_normalization": "elements", "style_normalization": "elements"}
    | {"gram_normalization": "elements"},
    "none": {"content_normalization": "none", "style_normalization": "none", "shift": 0.5},
    "sum": {"pixel_range": 3.0, "pixel_reduction": "sum", "tv_power": 3},
    "joint": {"tv_form": "joint"},
}
OBJECTIVE = Objective(content={"relu2_1": 1.0}, style={"relu1_1": 1.0, "relu2_1": 1.0})
DEEP = Objective(content={"relu3_2": 1.0, "conv4_2": 1.0}, style={"relu1_1": 1.0, "relu4_1": 1.0})
MASKS = np.zeros((2, toy.HEIGHT, toy.WIDTH))
MASKS[0, :, :2], MASKS[1, :, 2:4] = 1, 1  # no region covers the last two columns


def half_size(image):
    return jax.image.resize(image, (toy.HEIGHT // 2, toy.WIDTH // 2, 3), "lanczos3")


@jax.jit
def evaluated(params, image, content, style):
    """Return terms of one image in many ways: one program."""
    options: dict[str, Any] = {"objective": toy.OBJECTIVE, "network": toy.network}
    targets = make_targets(params, content, style, **options)
    values: dict[str, Any] = {"default": terms(params, image, targets, **options)}
    for name, chosen in VARIANTS.items():
        varied: dict[str, Any] = options | {"objective": dataclasses.replace(toy.OBJECTIVE, **chosen)}
        values[name] = terms(params, image, make_targets(params, content, style, **varied), **varied)
    values["factors"] = gradient_factors(params, image, targets, **options)
    small = make_targets(params, half_size(content), style, **options)
    values["half"] = terms(params, half_size(image), small, **options)
    values["both"] = terms(params, image, targets._replace(half=small), **options)
    batch = jnp.stack([content, image])
    values["batch"] = terms(params, batch[::-1], make_targets(params, batch, style, **options), **options)
    regions = make_targets(params, content, [style, 1 - style], content_masks=jnp.asarray(MASKS), **options)
    values["regions"] = terms(params, image, regions, **options)
    values["composed"] = composed(image, regions)
    values["guides"] = regions.regions.guides  # pyright: ignore[reportOptionalMemberAccess]
    values["region factors"] = gradient_factors(params, image, regions, **options)
    values["composed factors"] = gradient_factors(params, values["composed"], regions, **options)
    return values


@pytest.fixture(scope="module")
def values():
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, evaluated(toy.PARAMS, toy.START, toy.CONTENT, toy.STYLE))


def close(expected, rel=1e-9):
    return pytest.approx({name: np.asarray(value).tolist() for name, value in expected.items()}, rel=rel)


def plain(values):
    return {name: value.tolist() for name, value in values.items()}


def test_terms_of_the_default_are_distances_over_the_energy_of_the_targets(values):
    expected, _, _ = toy.evaluate(toy.START)
    del expected["range_penalty"]
    assert plain(values["default"]) == close(expected)
    assert set(values["default"]) == {"content/full", "style/full", "style/half", "tv"}


def test_normalizations_count_elements_or_nothing(values):
    features_of = partial(toy.network, toy.PARAMS)
    image, content, style = map(features_of, (toy.START, toy.CONTENT, toy.STYLE))
    away = np.square(image["full"] - content["full"])
    assert values["elements"]["content/full"] == pytest.approx(away.mean(), rel=1e-9)
    assert values["none"]["content/full"] == pytest.approx(away.sum(), rel=1e-9)
    for layer in toy.OBJECTIVE.style_layers:
        one, other = (toy.gram(each[layer]) / each[layer].shape[-1] for each in (image, style))
        assert values["elements"][f"style/{layer}"] == pytest.approx(np.square(one - other).mean(), rel=1e-9)
        one, other = (toy.gram(each[layer] + 0.5) for each in (image, style))
        assert values["none"][f"style/{layer}"] == pytest.approx(np.square(one - other).sum(), rel=1e-9)


def test_total_variation_is_in_units_of_the_pixel_range(values):
    down, right = (np.abs(3 * np.diff(toy.START, axis=axis)) for axis in (0, 1))
    assert values["sum"]["tv"] == pytest.approx((down**3).sum() + (right**3).sum(), rel=1e-9)
    down, right = np.diff(toy.START, axis=0)[:, :-1], np.diff(toy.START, axis=1)[:-1]
    assert values["joint"]["tv"] == pytest.approx(np.mean(down**2 + right**2), rel=1e-9)


def test_terms_at_half_the_size_count_as_much_as_those_at_the_whole_but_for_total_variation(values):
    expected = {name: (value + values["half"][name]) / 2 for name, value in values["default"].items()}
    assert plain(values["both"]) == close(expected | {"tv": values["default"]["tv"]})


def test_terms_of_a_batch_are_those_of_each_image_with_its_content(values):
    """The second image of the batch is the content, compared with what was the start."""
    expected, _, _ = toy.evaluate(toy.CONTENT)
    del expected["range_penalty"]
    start, content = (toy.network(toy.PARAMS, each)["full"] for each in (toy.START, toy.CONTENT))
    expected["content/full"] = np.square(content - start).sum() / np.square(start).sum()
    assert {name: value[0].tolist() for name, value in values["batch"].items()} == close(values["default"])
    assert {name: value[1].tolist() for name, value in values["batch"].items()} == close(expected)


def test_factors_make_each_gradient_sum_to_one_where_it_enters_the_network(values):
    _, _, expected = toy.evaluate(toy.START)
    del expected["range_penalty"]
    assert plain(values["factors"]) == close(expected)


def test_a_region_has_its_own_style_and_weighs_as_much_as_it_covers(values):
    image = np.where(MASKS.sum(0)[..., None] > 0, toy.START, toy.CONTENT)
    np.testing.assert_allclose(values["composed"], image, rtol=1e-12)
    for layer in toy.OBJECTIVE.style_layers:
        seen, expected = toy.network(toy.PARAMS, image)[layer], 0.0
        for guide, mask, style in zip(values["guides"][layer], MASKS, (toy.STYLE, 1 - toy.STYLE), strict=True):
            own, target = (
                np.einsum("hw,hwi,hwj->ij", guide, seen, seen),
                toy.gram(toy.network(toy.PARAMS, style)[layer]),
            )
            expected += mask.mean() * np.square(own - target).sum() / np.square(target).sum()
        assert values["regions"][f"style/{layer}"] == pytest.approx(expected, rel=1e-9)
    whole, _, _ = toy.evaluate(image)
    assert values["regions"]["content/full"] == pytest.approx(whole["content/full"], rel=1e-9)
    assert values["regions"]["tv"] == pytest.approx(whole["tv"], rel=1e-9)
    assert plain(values["region factors"]) == close(values["composed factors"])


def test_without_regions_no_content_is_composed_into_the_image():
    image: Any = np.ones((4, 6, 3))
    assert composed(image, toy.TARGETS) is image


@pytest.fixture(scope="module")
def of_vgg(params, content, style):
    """Features of three pictures, and terms of two objectives: one program."""

    @jax.jit
    def program(image, content, style):
        seen = [features(params, each, layers=OBJECTIVE.layers) for each in (image, content, style)]
        targets = make_targets(params, content, style, objective=OBJECTIVE)
        by_image = dataclasses.replace(OBJECTIVE, gram_normalization="image", style_normalization="none")
        return seen, [terms(params, image, targets, objective=each) for each in (OBJECTIVE, by_image)]

    pictures = (np.asarray(each)[:17, :23] for each in (content[::-1], content, style))  # not of even size
    return jax.tree.map(np.asarray, program(*pictures))


def test_terms_of_vgg_are_those_of_its_features(of_vgg):
    (image, content, style), (values, _) = of_vgg
    target = np.float64(content["relu2_1"])
    expected = np.sum((image["relu2_1"] - target) ** 2) / np.sum(target**2)
    assert values["content/relu2_1"] == pytest.approx(expected, rel=1e-4)
    for layer in OBJECTIVE.style_layers:
        one, target = toy.gram(np.float64(image[layer])), toy.gram(np.float64(style[layer]))
        expected = np.sum((one - target) ** 2) / np.sum(target**2)
        assert values[f"style/{layer}"] == pytest.approx(expected, rel=1e-4)
    assert list(values) == ["content/relu2_1", "style/relu1_1", "style/relu2_1", "tv"]


def test_gram_matrices_may_be_divided_by_the_pixels_of_the_image(of_vgg):
    (image, _, style), (_, values) = of_vgg
    for layer in OBJECTIVE.style_layers:
        height, width = image[layer].shape[:2]
        share = height * width / (17 * 23)  # of pixels of the layer
        away = share * (toy.gram(np.float64(image[layer])) - toy.gram(np.float64(style[layer])))
        assert values[f"style/{layer}"] == pytest.approx(np.square(away).sum(), rel=1e-4)


@pytest.mark.slow
def test_deep_terms_are_those_of_the_features_and_vanish_for_the_targets_themselves(params, content, style):
    @jax.jit
    def program(image):
        targets = make_targets(params, content, style, objective=DEEP)
        return terms(params, image, targets, objective=DEEP), [features(params, x) for x in (image, content, style)]

    values, (of_image, of_content, of_style) = program(content[::-1])
    for layer in DEEP.content_layers:
        target = np.asarray(of_content[layer], np.float64)
        expected = np.sum((np.asarray(of_image[layer]) - target) ** 2) / np.sum(target**2)
        assert values[f"content/{layer}"] == pytest.approx(expected, rel=1e-4)
    for layer in DEEP.style_layers:
        one, target = (toy.gram(np.asarray(each[layer], np.float64)) for each in (of_image, of_style))
        expected = np.sum((one - target) ** 2) / np.sum(target**2)
        assert values[f"style/{layer}"] == pytest.approx(expected, rel=1e-4)
    assert program(content)[0]["content/relu3_2"] < 1e-10


@pytest.mark.slow
def test_the_terms_of_a_circular_image_do_not_change_when_it_is_rolled(params, style):
    options: dict[str, Any] = {"objective": Objective(content={}), "network": VGG19(padding="circular")}
    image: Any = np.random.default_rng(0).uniform(size=(32, 48, 3)).astype(np.float32)
    targets = make_targets(params, image, style, **options)
    program = jax.jit(partial(terms, **options))
    values, of_rolled = (program(params, each, targets) for each in (image, np.roll(image, (16, -16), axis=(0, 1))))
    for name, value in values.items():
        assert of_rolled[name] == pytest.approx(float(value), rel=1e-4), name


@pytest.mark.slow
def test_a_constant_picture_as_content_and_style_gives_finite_terms_and_gradients(params):
    grey: Any = np.full((32, 32, 3), 0.5, np.float32)

    @jax.jit
    def program(params):
        targets = make_targets(params, grey, grey, objective=DEEP)
        return jax.value_and_grad(lambda image: total(DEEP, terms(params, image, targets, objective=DEEP)))(grey)

    for each in (params, jax.tree.map(np.zeros_like, params)):  # the second one gives black features
        value, gradient = program(each)
        assert np.isfinite(value) and np.isfinite(gradient).all()


# Targets


def test_styles_are_mixed_by_their_statistics():
    other = toy.STYLE[::-1] ** 2

    @jax.jit
    def program(params, style, other):
        of = partial(make_targets, params, toy.CONTENT, objective=toy.OBJECTIVE, network=toy.network)
        tiled = jnp.tile(style, (3, 3, 1))
        return of([style, other]).style, of([style, other], style_weights=[3.0, 1.0]).style, of(tiled).style

    with jax.enable_x64(True):
        alike, mixed, tiled = jax.tree.map(np.asarray, program(toy.PARAMS, toy.STYLE, other))
    for layer in toy.OBJECTIVE.style_layers:
        one, two = (toy.network(toy.PARAMS, each)[layer] for each in (toy.STYLE, other))
        np.testing.assert_allclose(alike[layer].second, (toy.gram(one) + toy.gram(two)) / 2, rtol=1e-9)
        np.testing.assert_allclose(mixed[layer].second, 0.75 * toy.gram(one) + 0.25 * toy.gram(two), rtol=1e-6)
        np.testing.assert_allclose(alike[layer].mean, (one.mean((0, 1)) + two.mean((0, 1))) / 2, rtol=1e-9)
        np.testing.assert_allclose(tiled[layer].second, toy.gram(one), rtol=1e-9)  # the same texture, a larger picture


# Weights and options


def test_total_is_the_weighted_sum():
    objective = Objective({"relu4_2": 2.0}, {"relu1_1": 3.0, "relu2_1": 5.0}, 7.0, 1e9, extra={"edges": 11.0})
    parts = {"content/relu4_2": 1.0, "style/relu1_1": 10.0, "style/relu2_1": 100.0, "tv": 1000.0, "edges": 1e4}
    with jax.enable_x64(True):
        values = total(objective, {name: jnp.asarray(value) for name, value in parts.items()})
    assert float(values) == 2 + 30 + 500 + 7000 + 11e4


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Objective({}, {"relu1_1": 1.0}), "content/relu4_2, style/relu1_1"),
        (Objective({"relu4_2": 1.0}, {}, extra={"edges": 1.0}), "edges"),
    ],
)
def test_weights_that_do_not_belong_to_the_terms_are_refused(objective, message):
    with pytest.raises(InputError, match=message):
        total(objective, {"content/relu4_2": np.ones(()), "tv": np.ones(())})  # pyright: ignore[reportArgumentType]


def test_an_objective_is_a_pytree_with_a_leaf_for_each_weight():
    assert len(jax.tree.leaves(Objective())) == 1 + 5 + 1 + 1
    assert Objective().content_layers == CONTENT_LAYERS and Objective().style_layers == STYLE_LAYERS


def test_layers_and_terms_are_in_sorted_order_with_those_of_the_content_first():
    objective = Objective(content={"relu4_2": 1.0, "relu2_2": 1.0}, style={"relu2_2": 1.0, "conv1_1": 1.0})
    assert objective.layers == ("relu2_2", "relu4_2", "conv1_1")
    names = ("content/relu2_2", "content/relu4_2", "style/conv1_1", "style/relu2_2")
    assert objective.term_names == (*names, "tv", "total", "range_penalty")


def test_layers_and_static_options_are_compared_by_value_and_weights_are_not():
    def structure(**chosen):
        return jax.tree.structure(Objective(**chosen))

    assert structure(extra_layers=["relu1_2"]) == structure(extra_layers=("relu1_2",))
    assert structure(shift=0.5) == structure(shift=0.5, tv=3.0) != structure()
    assert hash(structure(shift=0.5)) == hash(structure(shift=0.5, tv=3.0))
    assert structure(style={"relu1_1": 1.0}) == structure(style={"relu1_1": 2.0}) != structure()


def test_layers_in_the_place_of_weights_are_refused():
    for layers in (("relu1_1",), ["relu1_1"], "relu1_1"):
        with pytest.raises(InputError, match="style is .*relu1_1.*: pass a weight for each"):
            Objective(style=layers)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statistic": "median"}, "statistic 'median' is unknown: use 'gram' or"),
        ({"content_normalization": "l1"}, "content_normalization 'l1' is unknown: use 'energy' or"),
        ({"style_normalization": "l1"}, "style_normalization 'l1' is unknown: use 'energy' or"),
        ({"gram_normalization": "l1"}, "gram_normalization 'l1' is unknown: use 'pixels' or"),
        ({"tv_form": "round"}, "tv_form 'round' is unknown: use 'separate' or"),
        ({"pixel_reduction": "max"}, "pixel_reduction 'max' is unknown: use 'mean' or 'sum'"),
        ({"tv_power": 0.5}, "tv_power is 0.5: use a number from 1"),
        ({"half_resolution_above": 0}, "half_resolution_above is 0: use at least 1 pixel, or None"),
    ],
)
def test_an_option_out_of_range_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Objective(), **change)


def test_values_at_the_ends_of_their_ranges_are_accepted():
    Objective(tv_power=1, half_resolution_above=1)


def targets_of(*pictures, objective: Objective):
    """Trace `make_targets` without compiling it."""
    return jax.eval_shape(partial(make_targets, {}, objective=objective), *pictures)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Objective(content={"relu4_9": 1.0}), "'relu4_9' is not a layer"),
        (Objective(extra_layers=("relu9_1",)), "'relu9_1' is not a layer"),
        (Objective(content={}, style={}), "no content layers and no style layers"),
    ],
    ids=["content", "extra", "none"],
)
def test_an_objective_without_layers_of_the_network_is_refused(objective, message):
    picture = np.zeros((32, 32, 3), np.float32)
    with pytest.raises(InputError, match=message):
        targets_of(picture, picture, objective=objective)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (((32, 40), (12, 40)), "style is 40x12 pixels, but relu5_1 needs at least 16x16: .*--style-layers"),
        (((4, 40), (32, 40)), "content is 40x4 pixels, but relu4_2 needs at least 8x8"),
    ],
)
def test_a_picture_too_small_for_a_layer_is_refused_with_the_size_it_needs(sides, message):
    with pytest.raises(InputError, match=message):
        targets_of(*(np.zeros((*side, 3), np.float32) for side in sides), objective=Objective())


@pytest.mark.parametrize(
    ("array", "cure"),
    [
        (np.zeros((32, 32)), ""),
        (np.zeros((32, 32, 4)), ""),
        (np.zeros((32, 32, 3), np.uint8), "divided by 255"),
    ],
    ids=["rank", "alpha", "uint8"],
)
def test_an_array_that_is_no_picture_is_refused(array, cure):
    picture = np.zeros((32, 32, 3), np.float32)
    with pytest.raises(InputError, match=rf"not a picture: pass float32 \[H, W, 3\] in \[0, 1\].*{cure}"):
        targets_of(array, picture, objective=OBJECTIVE)
    with pytest.raises(InputError, match="not a picture"):
        jax.eval_shape(partial(terms, {}, objective=OBJECTIVE), array, {})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (255.0, r"to 255: use \[0, 1\], or divide by 255"),
        (-0.1, r"from -0.1 to .*: use \[0, 1\]"),
        (1.002, "to 1.002"),
        (np.nan, "not finite"),
        (np.inf, "not finite"),
    ],
)
def test_values_that_are_not_in_0_to_1_are_refused_in_contents_and_styles(value, message):
    picture: Any
    other: Any
    picture, other = np.full((2, 32, 32, 3), 0.5, np.float32)
    other[3, 4, 1] = value
    for what, pictures in (("content", (other, picture)), ("style", (picture, other))):
        with pytest.raises(InputError, match=f"The {what} has .*{message}"):
            make_targets({}, *pictures, objective=OBJECTIVE)


def test_values_out_of_range_by_rounding_are_accepted():
    picture: Any = np.full((toy.HEIGHT, toy.WIDTH, 3), 1.0005, np.float32)
    picture[0, 0] = -0.0005
    options: dict[str, Any] = {"objective": toy.OBJECTIVE, "network": toy.network}
    jax.eval_shape(lambda: make_targets(toy.PARAMS, picture, picture, **options))


def test_a_run_without_a_style_is_refused():
    with pytest.raises(InputError, match="There is no style: pass a picture, or a sequence of at least one"):
        targets_of(np.zeros((32, 32, 3), np.float32), [], objective=OBJECTIVE)

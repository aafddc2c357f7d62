import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.objective import make_targets, terms, total
from jaxstyle.presets import PRESETS, parse_layers, preset
from jaxstyle.vgg import features


def weights_of(name: str) -> LossWeights:
    config = preset(name).config
    return preset(name).loss_weights(dict.fromkeys(config.content_layers, 1.0), dict.fromkeys(config.style_layers, 1.0))


def test_neural_style_pt_restates_that_tools_formula(params, content, style):
    """Its own terms, in NumPy: mean squares, Gram matrices over C H W, absolute variation over 0..255, summed."""
    image, chosen = content[::-1], preset("neural-style-pt").config
    found = total(
        weights_of("neural-style-pt"),
        terms(params, image, make_targets(params, content, style, config=chosen), config=chosen),
    )
    f, p, a = ({k: np.asarray(v, np.float64) for k, v in features(params, x).items()} for x in (image, content, style))

    def gram(layer: np.ndarray) -> np.ndarray:
        rows = layer.reshape(-1, layer.shape[-1])
        return rows.T @ rows / layer.size

    expected = 5 * np.mean((f["relu4_2"] - p["relu4_2"]) ** 2)
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        expected += 100 * np.mean((gram(f[layer]) - gram(a[layer])) ** 2)
    bgr = 255 * np.asarray(image, np.float64)
    expected += 1e-3 * (np.abs(np.diff(bgr, axis=0)).sum() + np.abs(np.diff(bgr, axis=1)).sum())
    assert found == pytest.approx(expected, rel=1e-5)


def test_neural_style_pt_keeps_its_optimiser_and_its_way_to_resize():
    chosen = preset("neural-style-pt")
    assert (chosen.config.optimizer, chosen.config.memory, chosen.config.pooling) == ("lbfgs", 100, "max")
    assert (chosen.resample, chosen.rounding) == ("bilinear", "truncate")


def test_the_default_preset_is_what_the_library_does_without_one():
    assert preset("jaxstyle").config == Config()
    assert weights_of("jaxstyle") == LossWeights()


def test_terms_of_the_default_preset_stay_of_order_one_for_any_size(params, content, style):
    for picture in (content, jnp.tile(content, (2, 2, 1))):
        targets = make_targets(params, picture, style, config=Config())
        for name, value in terms(params, 1 - picture, targets, config=Config()).items():
            assert 1e-4 < value < 1e3, name


def test_a_weight_is_shared_out_or_counts_for_each_layer():
    layers = {"relu1_1": 1.0, "relu2_1": 3.0}
    shared = preset("jaxstyle").loss_weights({"relu4_2": 1.0}, layers)
    each = preset("neural-style-pt").loss_weights({"relu4_2": 1.0}, layers)
    assert shared.style == {"relu1_1": 7.5, "relu2_1": 22.5}
    assert each.style == {"relu1_1": 100.0, "relu2_1": 300.0}


def test_layers_whose_shares_are_all_zero_weigh_nothing():
    assert preset("jaxstyle").loss_weights({"relu4_2": 0.0}, {"relu1_1": 0.0}).style == {"relu1_1": 0.0}


def test_every_preset_names_its_source_and_is_immutable():
    for chosen in PRESETS.values():
        assert chosen.source
        with pytest.raises(dataclasses.FrozenInstanceError):
            chosen.tv_weight = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_layers_are_read_with_their_shares():
    assert parse_layers("relu1_1:1, conv2_1:0.5,relu5_4") == {"relu1_1": 1.0, "conv2_1": 0.5, "relu5_4": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("relu1_1,relu1_1:2", "relu1_1 is named twice"),
        ("relu1_1:-1", "'-1': use a finite number that is 0 or more"),
        ("relu1_1:much", "'much': use a finite number"),
        ("relu1_1:nan", "'nan': use a finite number"),
        ("relu6_1", "'relu6_1' is not a layer of VGG-19"),
        ("", "'' is not a layer of VGG-19"),
    ],
)
def test_layers_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_layers(text)


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="'gatys' is unknown: use jaxstyle or neural-style-pt"):
        preset("gatys")

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.errors import InputError
from jaxstyle.losses.layer_summaries import image_features
from jaxstyle.losses.loss_terms import terms, total
from jaxstyle.losses.neighbor_objective import NeighborObjective
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.relaxed_emd_objective import RelaxedEmdObjective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks import vgg
from jaxstyle.networks.vgg import ACTIVATIONS, VGG19, smallest_side
from jaxstyle.optim.optimizers import LBFGS, Adam
from jaxstyle.transfer.presets import PRESETS, preset
from jaxstyle.transfer.schedule import plan


def raw_gram(layer: np.ndarray) -> np.ndarray:
    rows = layer.reshape(-1, layer.shape[-1])
    return rows.T @ rows


def mean_square(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a - b) ** 2))


def relu(*names: str) -> list[str]:
    return [f"relu{name}" for name in names]


FIVE = ["1_1", "2_1", "3_1", "4_1", "5_1"]


def mse_of_grams(x, a, layers, *, over="pixels") -> list[float]:
    """Mean squares between Gram matrices over their own layer's pixels or elements."""

    def scaled(layer: np.ndarray) -> np.ndarray:
        return raw_gram(layer) / (layer.size if over == "elements" else layer.shape[0] * layer.shape[1])

    return [mean_square(scaled(x[layer]), scaled(a[layer])) for layer in layers]


def gatys_paper(x, p, a, image):
    """alpha = 1, beta = 1000; F P A are undivided, N and M as in the paper."""
    style = 0.0
    for layer in (f"conv{name}" for name in FIVE):
        channels, pixels = x[layer].shape[-1], x[layer].shape[0] * x[layer].shape[1]
        squares = np.sum((raw_gram(x[layer]) - raw_gram(a[layer])) ** 2)
        style += squares / (4 * channels**2 * pixels**2) / 5
    return 0.5 * np.sum((x["conv4_2"] - p["conv4_2"]) ** 2) + 1e3 * style


def gatys_code(x, p, a, image):
    weights = [1e3 / n**2 for n in (64, 128, 256, 512, 512)]
    return mean_square(x["relu4_2"], p["relu4_2"]) + np.dot(weights, mse_of_grams(x, a, relu(*FIVE)))


def neural_style(x, p, a, image):
    bgr = 256 * image
    across, down = bgr[:-1, :-1] - bgr[:-1, 1:], bgr[:-1, :-1] - bgr[1:, :-1]
    smooth = 0.5 * 1e-3 * np.sum(across**2 + down**2)
    style = 100 * sum(mse_of_grams(x, a, relu(*FIVE), over="elements"))
    return 5 * mean_square(x["relu4_2"], p["relu4_2"]) + style + smooth


def neural_style_pt(x, p, a, image):
    bgr = 255 * image
    smooth = 1e-3 * (np.abs(np.diff(bgr, axis=0)).sum() + np.abs(np.diff(bgr, axis=1)).sum())
    style = 100 * sum(mse_of_grams(x, a, relu(*FIVE), over="elements"))
    return 5 * mean_square(x["relu4_2"], p["relu4_2"]) + style + smooth


def anishathalye(x, p, a, image):
    rgb = 255 * image
    smooth = 100 * (np.mean(np.diff(rgb, axis=0) ** 2) + np.mean(np.diff(rgb, axis=1) ** 2))
    style = 500 * sum(mse_of_grams(x, a, relu(*FIVE), over="elements")) / 5
    return 5 * mean_square(x["relu4_2"], p["relu4_2"]) + style + smooth


def root(matrix: np.ndarray) -> np.ndarray:
    """Newton and Schulz, twelve times."""
    norm = np.linalg.norm(matrix)
    y, z = matrix / norm, np.eye(len(matrix))
    for _ in range(12):
        middle = (3 * np.eye(len(matrix)) - z @ y) / 2
        y, z = y @ middle, middle @ z
    return y * np.sqrt(norm)


def crowsonkb(x, p, a, image):
    style = 0.0
    for name, weight in zip(relu(*FIVE), (256, 64, 16, 4, 1), strict=True):
        mean, target = (layer[name].reshape(-1, layer[name].shape[-1]).mean(0) for layer in (x, a))
        ridge = 1e-4 * np.eye(len(mean))
        of_x, of_a = (
            raw_gram(layer[name]) / layer[name][..., 0].size - np.outer(m, m) + ridge
            for layer, m in ((x, mean), (a, target))
        )
        half = root(of_a)
        spread = np.diag(of_a + of_x - 2 * root(half @ of_x @ half)).mean()
        style += weight / 341 * (np.mean((mean - target) ** 2) + spread)
    around = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    middle = around[1:-1, 1:-1]
    right, below = np.mean((around[1:-1, 2:] - middle) ** 2) / 3, np.mean((around[2:, 1:-1] - middle) ** 2) / 3
    one = np.mean((around[1:, 1:] - around[:-1, :-1]) ** 2) / 12
    other = np.mean((around[1:, :-1] - around[:-1, 1:]) ** 2) / 12
    return 0.015 * mean_square(x["relu4_2"], p["relu4_2"]) + style + 2 * 2 * (right + below + one + other)


def pystiche(x, p, a, image):
    return mean_square(x["relu4_2"], p["relu4_2"]) + 1e3 * sum(mse_of_grams(x, a, relu(*FIVE))) / 5


def tensorflow_tutorial(x, p, a, image):
    smooth = 30 * (np.abs(np.diff(image, axis=0)).sum() + np.abs(np.diff(image, axis=1)).sum())
    style = 1e-2 * sum(mse_of_grams(x, a, relu(*FIVE))) / 5
    return 1e4 * mean_square(x["relu5_2"], p["relu5_2"]) + style + smooth


def keras_example(x, p, a, image):
    size = image.shape[0] * image.shape[1]
    style = sum(np.sum((raw_gram(x[n]) - raw_gram(a[n])) ** 2) / (4 * 3**2 * size**2) for n in relu(*FIVE))
    bgr = 255 * image
    squares = (bgr[:-1, :-1] - bgr[1:, :-1]) ** 2 + (bgr[:-1, :-1] - bgr[:-1, 1:]) ** 2
    return 2.5e-8 * np.sum((x["relu5_2"] - p["relu5_2"]) ** 2) + 1e-6 / 5 * style + 1e-6 * np.sum(squares**1.25)


FORMULAS = [
    gatys_paper,
    gatys_code,
    neural_style,
    neural_style_pt,
    anishathalye,
    crowsonkb,
    pystiche,
    tensorflow_tutorial,
    keras_example,
]


# What the formulas, which start from features, do not fix: input scale, pooling, padding, optimizer.
FACTS = {
    "gatys-paper": (255, "avg", "zeros", LBFGS(history_size=100)),
    "gatys-code": (255, "max", "zeros", LBFGS(history_size=100)),
    "neural-style": (256, "max", "zeros", LBFGS(history_size=100)),
    "neural-style-pt": (255, "max", "zeros", LBFGS(history_size=100)),
    "anishathalye": (255, "max", "zeros", Adam(learning_rate=10 / 255, b1=0.9, b2=0.999, eps=1e-8)),
    "crowsonkb": (255, "max", "replicate", Adam(learning_rate=0.02, b1=0.9, b2=0.99, eps=1e-8, ema_decay=0.99)),
    "pystiche": (255, "max", "zeros", LBFGS(history_size=100)),
    "tensorflow-tutorial": (255, "max", "zeros", Adam(learning_rate=0.02, b1=0.99, b2=0.999, eps=0.1)),
    "keras-example": (255, "max", "zeros", LBFGS()),
}


def test_a_preset_has_the_published_network_input_and_optimizer():
    for name, (input_scale, pooling, padding, optimizer) in FACTS.items():
        chosen = preset(name)
        assert chosen.network == VGG19(input_scale=input_scale, pooling=pooling, padding=padding), name
        assert chosen.optimizer == optimizer, name
        assert chosen.scales == (None if name == "crowsonkb" else 1), name
        assert chosen.make_objective().half_resolution_above is None, name


def numpy_layer(layer: str, image: np.ndarray) -> np.ndarray:
    """Return a layer of five channels and of VGG's size: a random mixture of the colors of every other pixel."""
    side, rng = smallest_side(layer), np.random.default_rng(int(layer[4] + layer[6]))
    height, width = (length // side * side for length in image.shape[:2])
    result = 3 * (image[:height:side, :width:side] - 0.5) @ rng.normal(size=(3, 5)) + rng.normal(size=5)
    return np.maximum(result, 0) if layer.startswith("relu") else result


def layers_of(image: jax.Array, *layers: str) -> dict[str, np.ndarray]:
    return {layer: numpy_layer(layer, np.asarray(image, np.float64)) for layer in layers or ACTIVATIONS}


def numpy_features(_, params, image, *, layers, summarize):
    """Stand in for `vgg.evaluate_layers`: what the objective makes of features does not depend on the network."""
    result = {layer: jnp.asarray(each, jnp.float32) for layer, each in layers_of(image, *layers).items()}
    return result if summarize is None else {layer: summarize(layer, each, None) for layer, each in result.items()}


def pictures(content, style) -> list[jax.Array]:
    return [picture[:32, :32] for picture in (content[::-1], content, style)]  # of one size, as Gatys has them


@pytest.mark.parametrize(
    "formula",
    [formula for formula in FORMULAS if formula is not crowsonkb],  # which takes long; it is among the slow tests
    ids=lambda formula: formula.__name__,
)
def test_a_preset_is_the_published_objective(formula, params, content, style, monkeypatch):
    """The objective is computed in NumPy and double precision from the same features."""
    monkeypatch.setattr(vgg, "evaluate_layers", numpy_features)
    chosen = preset(formula.__name__.replace("_", "-"))
    image, content, style = pictures(np.asarray(content), np.asarray(style))
    with jax.disable_jit():
        options: dict[str, Any] = {"objective": chosen.make_objective(), "network": chosen.network}
        targets = make_targets(params, content, style, **options)
        actual = total(chosen.make_objective(), terms(params, image, targets, **options))
    features = map(layers_of, (image, content, style))
    assert float(actual) == pytest.approx(formula(*features, np.asarray(image, np.float64)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("formula", [gatys_paper, crowsonkb], ids=lambda formula: formula.__name__)
def test_a_preset_is_the_published_objective_on_the_features_of_its_network(formula, params, content, style):
    chosen = preset(formula.__name__.replace("_", "-"))
    image, content, style = pictures(content, style)

    @jax.jit
    def compared(*inputs):
        objective, network = chosen.make_objective(), chosen.network
        targets = make_targets(params, inputs[1], inputs[2], objective=objective, network=network)
        features = [image_features(params, each, network=network, layers=objective.layers) for each in inputs]
        return total(objective, terms(params, inputs[0], targets, objective=objective, network=network)), features

    actual, features = compared(image, content, style)
    double = [{layer: np.asarray(values, np.float64) for layer, values in each.items()} for each in features]
    assert actual == pytest.approx(formula(*double, np.asarray(image, np.float64)), rel=1e-5)


def test_presets_of_matched_features_have_the_published_layers_scales_and_optimizer():
    nnst, strotss = preset("nnst"), preset("strotss")
    assert isinstance(nnst.objective, NeighborObjective) and isinstance(strotss.objective, RelaxedEmdObjective)
    assert nnst.objective.layers == tuple(relu(*"1_1 1_2 2_1 2_2 3_1 3_2 3_3 4_1 4_2 4_3".split()))
    assert strotss.objective.layers == tuple(relu(*"1_1 1_2 2_1 2_2 3_1 3_2 3_3 4_3 5_3".split()))
    assert (nnst.objective.content_share, nnst.objective.rotations, nnst.color) == (0.75, 4, "chroma")
    assert (strotss.objective.positions, strotss.objective.samples, strotss.color) == (1024, 5000, "none")
    assert nnst.optimizer == Adam(learning_rate=2e-3, parametrization="laplacian", clip=False)
    assert strotss.optimizer == dataclasses.replace(nnst.optimizer, b1=0.0, b2=0.99)
    planned = plan(512, 512, steps=1000, scales=nnst.scales, passes=nnst.objective.passes)
    assert [tuple(each) for each in planned] == [(side, side, 200) for side in (64, 128, 256, 512, 512)]


def test_options_change_the_field_of_the_objective_that_they_mean_and_others_are_refused():
    assert preset("nnst").with_options(content_weight=0.5, tv_weight=2.0).objective == (
        NeighborObjective(0.5, tv=2.0, split_rotations=4)
    )
    assert preset("strotss").with_options(content_weight=0.5).objective == RelaxedEmdObjective(0.5)
    gram = preset("jaxstyle").with_options(tv_weight=0.0, style_layers={"relu2_1": 1.0}, shift=-1.0).objective
    assert isinstance(gram, Objective) and (gram.tv, gram.style, gram.shift) == (0.0, {"relu2_1": 30.0}, -1.0)
    with pytest.raises(InputError, match="--style-weight .*preset nnst"):
        preset("nnst").with_options(style_weight=3.0)
    with pytest.raises(InputError, match="--tv .*preset jaxstyle"):
        preset("jaxstyle").with_options(tv=3.0)


def test_every_published_preset_has_a_formula_and_facts():
    published = {name for name, chosen in PRESETS.items() if chosen.custom is None} - {"jaxstyle"}
    assert {formula.__name__.replace("_", "-") for formula in FORMULAS} == published == set(FACTS)


def test_presets_resize_pictures_as_published():
    resized = {name: (chosen.resample, chosen.rounding, chosen.style_fit) for name, chosen in PRESETS.items()}
    squeezed = {name for name, (*_, fit) in resized.items() if fit == "content"}
    truncated = {name for name, (_, rounding, _) in resized.items() if rounding == "truncate"}
    assert squeezed == {"gatys-paper", "keras-example"}
    assert truncated == {"neural-style", "neural-style-pt", "tensorflow-tutorial", "keras-example"}
    assert {name for name, (resample, *_) in resized.items() if resample == "bilinear"} == truncated | {
        "gatys-code",
        "pystiche",
    }


def test_the_default_preset_is_what_the_library_does_without_one():
    chosen = preset("jaxstyle")
    assert (chosen.objective, chosen.network, chosen.optimizer, chosen.scales) == (Objective(), VGG19(), LBFGS(), None)


@pytest.mark.slow
def test_terms_of_the_default_preset_stay_of_order_one_for_any_size(params, content, style):
    compiled = jax.jit(lambda x: terms(params, 1 - x, make_targets(params, x, style)))
    for picture in (content, jnp.tile(content, (2, 2, 1))):
        for name, value in compiled(picture).items():
            assert 1e-4 < value < 1e3, name


def test_a_weight_is_shared_among_the_layers_or_counts_for_each_of_them():
    layers = {"relu1_1": 1.0, "relu2_1": 3.0}
    shared = preset("jaxstyle").make_objective({"relu4_2": 1.0}, layers)
    each = preset("neural-style-pt").make_objective({"relu4_2": 1.0}, layers)
    assert shared.style == {"relu1_1": 7.5, "relu2_1": 22.5}
    assert each.style == {"relu1_1": 100.0, "relu2_1": 300.0}
    assert preset("jaxstyle").make_objective({"relu4_2": 0.0}, {"relu1_1": 0.0}).style == {"relu1_1": 0.0}


def test_every_preset_names_its_source_and_is_immutable():
    for chosen in PRESETS.values():
        assert chosen.source
        with pytest.raises(dataclasses.FrozenInstanceError):
            chosen.tv_weight = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'gatys' .*jaxstyle, gatys-paper"):
        preset("gatys")

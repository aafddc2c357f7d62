from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vgg_layers import features

from jaxstyle.errors import InputError
from jaxstyle.networks.conv import Precision
from jaxstyle.networks.vgg import ACTIVATIONS, VGG19, Padding, Pooling, halo, halve, smallest_side, widths_of

MODES: dict[Padding, Any] = {"zeros": "constant", "replicate": "edge", "circular": "wrap"}


def numpy_halve(x: np.ndarray, pooling: str) -> np.ndarray:
    height, width, channels = x.shape
    tiles = x[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, channels)
    if pooling == "l2":
        return np.sqrt(np.square(tiles).sum((1, 3)))
    return tiles.max((1, 3)) if pooling == "max" else tiles.mean((1, 3))


def numpy_features(
    params, image: np.ndarray, *, pooling="max", gain=1.0, padding: Padding = "zeros", input_scale=255.0, blocks=5
) -> dict[str, np.ndarray]:
    """VGG-19 in plain NumPy, float64, one shifted matrix product at a time."""
    x = input_scale * image.astype(np.float64)[..., ::-1] - np.array([103.939, 116.779, 123.68])
    result = {}
    for block, convolutions in enumerate((2, 2, 4, 4, 4)[:blocks], 1):
        if block > 1:
            x = gain * numpy_halve(x, pooling)
        for i in range(1, convolutions + 1):
            layer = params[f"conv{block}_{i}"]
            mode = MODES[padding] if padding == "circular" or block == i == 1 else "constant"
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode=mode)
            kernel = np.asarray(layer["kernel"], np.float64)
            taps = [(padded[a : a + x.shape[0], b : b + x.shape[1]] @ kernel[a, b]) for a in range(3) for b in range(3)]
            x = sum(taps) + np.asarray(layer["bias"], np.float64)
            result[f"conv{block}_{i}"] = x
            x = np.maximum(x, 0)
            result[f"relu{block}_{i}"] = x
    return result


@pytest.fixture(scope="module")
def biased(params):
    """The tiny network with biases, which its own do not have."""
    rng = np.random.default_rng(3)
    bias = {name: rng.normal(0, 20, layer["bias"].shape).astype(np.float32) for name, layer in params.items()}
    return {name: {"kernel": np.asarray(layer["kernel"]), "bias": bias[name]} for name, layer in params.items()}


def assert_equal(actual, expected) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(np.asarray(actual[name]) - value).max() <= 1e-5 * np.abs(value).max(), name


OPTIONS: dict[str, Any] = {"padding": "replicate", "input_scale": 256.0, "pooling": "avg", "pooling_gain": 2.0}
KINDS: tuple[Pooling, ...] = ("max", "avg", "l2")
POOLED = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
POOLED[:2, :2] = 0


def pooled(x, kind: Pooling):
    """Return the pooled array and the gradient of its sum."""
    return halve(x, kind), jax.grad(lambda x: jnp.sum(halve(x, kind)))(x)


def of_batch(params, images, *, blocks: int, **chosen):
    layers = [name for name in ACTIVATIONS if int(name[4]) <= blocks]
    return features(params, images, layers=layers, **chosen)


@pytest.fixture(scope="module")
def batch(content) -> np.ndarray:
    return np.stack([content, np.asarray(content)[::-1]])


@pytest.fixture(scope="module")
def computed(biased, batch) -> Any:
    """What several tests inspect, of one program: all layers, two blocks with other options, and pooled arrays."""

    @jax.jit
    def program(params, images, x):
        options = of_batch(params, images, blocks=2, **OPTIONS)
        return (
            VGG19.from_params(params).apply({"params": params}, images[0]),
            options,
            {kind: pooled(x, kind) for kind in KINDS},
        )

    return jax.device_get(program(biased, batch, POOLED))


def test_every_activation_equals_a_numpy_implementation(biased, content, computed):
    actual = computed[0]
    assert actual.keys() == set(ACTIVATIONS)
    assert_equal(actual, numpy_features(biased, np.asarray(content)))


def assert_batch_equal(actual, params, batch, *, blocks: int, **chosen) -> None:
    options = {name: value for name, value in chosen.items() if name not in ("pooling_gain", "conv")}
    for i, image in enumerate(batch):
        expected = numpy_features(params, image, gain=chosen.get("pooling_gain", 1.0), blocks=blocks, **options)
        assert_equal({name: value[i] for name, value in actual.items()}, expected)


def test_options_of_the_network_equal_a_numpy_implementation_for_each_of_a_batch(biased, batch, computed):
    assert_batch_equal(computed[1], biased, batch, blocks=2, **OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocks", "chosen"),
    [(3, {"padding": "circular", "pooling": "l2"}), (5, {"conv": jax.lax.conv_general_dilated})],
    ids=["circular", "lax"],
)
def test_other_options_equal_a_numpy_implementation_for_each_of_a_batch(biased, batch, blocks, chosen):
    actual = jax.jit(lambda params, images: of_batch(params, images, blocks=blocks, **chosen))(biased, batch)
    assert_batch_equal(jax.device_get(actual), biased, batch, blocks=blocks, **chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_pooling_halves_and_drops_an_odd_row_and_column(computed, kind):
    """The gradient of "max" goes to the first of equal pixels, and that of "l2" is zero where all are zero."""
    value, gradient = computed[2][kind]
    expected = numpy_halve(POOLED, kind)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    by, inside = np.repeat(np.repeat(expected, 2, 0), 2, 1), POOLED[:4, :6]
    slopes = {"max": inside == by, "avg": np.full_like(by, 0.25), "l2": inside / np.where(by > 0, by, 1)}
    slope = slopes[kind].astype(np.float32)
    if kind == "max":
        slope[:2, :2] = [[[1], [0]], [[0], [0]]]
    np.testing.assert_allclose(gradient[:4, :6], slope, rtol=1e-5)
    assert not gradient[4:].any() and not gradient[:, 6:].any()


def test_the_convolution_is_an_argument_and_is_called_for_each_layer(params, content):
    called = []

    def counting(*arguments, **options):
        called.append(None)
        return jax.lax.conv_general_dilated(*arguments, **options)

    shapes = jax.eval_shape(lambda params, image: features(params, image, conv=counting), params, content)
    assert len(called) == 16 and shapes["relu5_4"].shape == (2, 2, 8)


@pytest.mark.slow(optimized=True)
def test_activations_that_nobody_reads_are_not_computed(params, content):
    def flops(layer):
        compiled = jax.jit(lambda params, image: features(params, image)[layer]).lower(params, content).compile()
        return (compiled.cost_analysis() or {})["flops"]

    assert flops("relu1_1") < 0.3 * flops("relu5_4")


def test_layers_without_pixels_are_left_out(params):
    def shapes(height, width):
        image = jax.ShapeDtypeStruct((height, width, 3), jnp.float32)
        return jax.eval_shape(lambda params, image: features(params, image), params, image)

    actual = shapes(8, 20)
    assert actual["relu4_4"].shape == (1, 2, 8) and "conv5_1" not in actual
    assert shapes(16, 20)["relu5_1"].shape == (1, 1, 8) and "relu5_1" not in shapes(15, 20)


def test_halo_and_smallest_side_of_layers():
    assert [smallest_side(f"conv{block}_1") for block in range(1, 6)] == [1, 2, 4, 8, 16]
    assert [halo(layer) for layer in ("relu1_1", "conv1_2", "relu2_1", "relu3_4", "relu5_1")] == [1, 2, 4, 22, 70]


def test_widths_are_read_from_the_params(params):
    assert widths_of(params) == ((4, 4), (6, 6), (8,) * 4, (8,) * 4, (8,) * 4)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"pooling": "median"}, "pooling 'median' .*'max' or 'avg' or 'l2'"),
        ({"padding": "mirror"}, "'mirror' .*'zeros' or 'replicate' or 'circular'"),
        ({"precision": "float16"}, "'float16' .*'float32' or 'tf32' or 'bfloat16'"),
        ({"layers": ("relu6_1",)}, "'relu6_1' .*relu5_4"),
        ({"layers": ("relu1_1", "foo")}, "'foo' .*relu5_4"),
    ],
    ids=str,
)
def test_an_unknown_option_or_layer_is_refused_with_its_alternatives(params, content, chosen, words):
    with pytest.raises(InputError, match=words):
        features(params, content, **chosen)


@pytest.mark.parametrize(("precision", "asked"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "DEFAULT")])
def test_products_of_values_and_gradients_have_the_requested_precision(params, content, precision, asked):
    def loss(image, params):
        return jnp.sum(features(params, image, precision=precision, layers=("relu1_2",))["relu1_2"])

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(content, params).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) >= 2 * 3 - 1  # forwards, to the image, to the kernels
    assert all(f"precision {asked}>, #stablehlo<precision {asked}>" in line for line in lines)
    assert all(("xbf16>" in line) == (precision == "bfloat16") for line in lines)


@pytest.mark.slow(optimized=True)
def test_half_precision_stays_near_the_exact_activations(params, content):
    def layer(params, image, precision: Precision):
        return features(params, image, precision=precision, layers=("relu3_1",))["relu3_1"]

    compiled = jax.jit(lambda params, image: (layer(params, image, "float32"), layer(params, image, "bfloat16")))
    exact, half = compiled(params, content)
    assert half.dtype == jnp.bfloat16
    error = np.linalg.norm(np.asarray(half, np.float32) - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.03  # eight bits, over five layers


def test_only_the_requested_layers_are_returned_and_nothing_deeper_is_traced(params, content):
    asked = ("relu1_1", "relu2_1")
    assert set(jax.eval_shape(lambda image: features(params, image, layers=asked), content)) == set(asked)
    text = str(jax.make_jaxpr(lambda image: features(params, image, layers=asked))(content))
    assert text.count("conv_general_dilated[") == 4  # of the first two blocks
    assert jax.eval_shape(lambda image: features(params, image, layers=()), content) == {}


def test_the_module_initializes_params_of_the_documented_shapes(content):
    network = VGG19(widths=((4, 4), (6, 6), (8,) * 4, (8,) * 4, (8,) * 4))
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(network.init, jax.random.key(0), content)["params"])
    assert shapes["conv1_1"] == {"kernel": (3, 3, 3, 4), "bias": (4,)}
    assert shapes["conv3_1"] == {"kernel": (3, 3, 6, 8), "bias": (8,)}
    assert list(shapes) == list(dict.fromkeys("conv" + name[4:] for name in ACTIVATIONS))


def test_equal_networks_are_equal_static_arguments(params):
    one, other = VGG19.from_params(params, pooling="avg"), VGG19.from_params(params, pooling="avg")
    assert one == other and hash(one) == hash(other) and one != VGG19.from_params(params)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.conv import conv3x3
from jaxstyle.errors import InputError
from jaxstyle.vgg import ACTIVATIONS, features, smallest_side, widths_of


def numpy_features(params, image: np.ndarray, pooling: str) -> dict[str, np.ndarray]:
    """VGG-19 in plain NumPy, float64, one shifted matrix product at a time."""
    x = 255 * image.astype(np.float64)[..., ::-1] - np.array([103.939, 116.779, 123.68])
    found = {}
    for block, convolutions in enumerate((2, 2, 4, 4, 4), 1):
        if block > 1:
            height, width, channels = x.shape
            tiles = x[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, channels)
            roots = np.sqrt(np.square(tiles).sum((1, 3)))
            x = {"max": tiles.max((1, 3)), "avg": tiles.mean((1, 3)), "l2": roots}[pooling]
        for i in range(1, convolutions + 1):
            layer = params[f"conv{block}_{i}"]
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            kernel = np.asarray(layer["kernel"], np.float64)
            x = sum(
                padded[a : a + x.shape[0], b : b + x.shape[1]] @ kernel[a, b] for a in range(3) for b in range(3)
            ) + np.asarray(layer["bias"], np.float64)
            found[f"conv{block}_{i}"] = x
            x = np.maximum(x, 0)
            found[f"relu{block}_{i}"] = x
    return found


@pytest.mark.parametrize("pooling", ["max", "avg", "l2"])
def test_every_activation_equals_a_numpy_implementation(params, content, pooling):
    expected = numpy_features(params, np.asarray(content), pooling)
    found = features(params, content, pooling=pooling)
    assert list(found) == list(expected) == list(ACTIVATIONS)
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= 1e-5 * np.abs(value).max(), name


@pytest.mark.parametrize("border", ["zeros", "replicate"])
@pytest.mark.parametrize("white", [255.0, 256.0])
def test_the_first_layer_is_that_of_the_padded_image_in_the_networks_units(params, content, border, white):
    kernel, bias = (np.asarray(params["conv1_1"][part], np.float64) for part in ("kernel", "bias"))
    bgr = white * np.asarray(content, np.float64)[..., ::-1] - np.array([103.939, 116.779, 123.68])
    around = ((1, 1), (1, 1), (0, 0))
    padded = np.pad(bgr, around, mode="edge") if border == "replicate" else np.pad(bgr, around)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))  # [H, W, 3, 3, 3]
    expected = np.einsum("hwcij,ijcd->hwd", windows, kernel) + bias
    found = features(params, content, border=border, white=white)
    assert np.abs(found["conv1_1"] - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_a_circular_image_has_no_border(params):
    """What is rolled by 16 pixels is seen as before, rolled by as many pixels as a layer has for them."""
    image = jax.random.uniform(jax.random.key(0), (32, 48, 3))
    rolled = jnp.roll(image, (16, -16), axis=(0, 1))
    found, of_rolled = (features(params, each, border="circular") for each in (image, rolled))
    for name in ACTIVATIONS:
        step = 16 // 2 ** (int(name[4]) - 1)
        expected = jnp.roll(found[name], (step, -step), axis=(0, 1))
        assert np.abs(of_rolled[name] - expected).max() <= 1e-5 * np.abs(expected).max(), name


def test_a_pooling_gain_multiplies_what_a_pool_hands_on(params, content):
    """ReLU and convolutions without bias are homogeneous, so after two pools a gain of 2 has become a factor of 4."""
    plain, gained = (features(params, content, pooling_gain=gain) for gain in (1.0, 2.0))
    assert not any(np.any(params[layer]["bias"]) for layer in params)
    np.testing.assert_allclose(gained["relu2_1"], 2 * plain["relu2_1"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gained["relu3_1"], 4 * plain["relu3_1"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_batch_gives_the_activations_of_each_image(params, content):
    batch = jnp.stack([content, content[::-1]])
    np.testing.assert_allclose(
        features(params, batch)["relu4_2"][1], features(params, content[::-1])["relu4_2"], rtol=1e-4, atol=1e-4
    )


def test_average_pooling_never_exceeds_max_pooling_right_after_a_pool(params, content):
    """Up to conv2_1's linear map the claim is about the pools themselves, so an identity kernel stands in for it."""
    identity = jnp.zeros((3, 3, 4, 4)).at[1, 1].set(jnp.eye(4))
    passing = {**params, "conv2_1": {"kernel": identity, "bias": jnp.zeros(4)}}
    passing["conv2_2"] = {"kernel": params["conv2_2"]["kernel"][:, :, :4], "bias": params["conv2_2"]["bias"]}
    largest, mean = (features(passing, content, pooling=pooling)["relu2_1"] for pooling in ("max", "avg"))
    assert (mean <= largest + 1e-4).all() and (mean < largest).any()


def test_the_convolution_is_an_argument_that_lax_itself_fits(params, content):
    called = []

    def counting(*arguments, **options):
        called.append(None)
        return jax.lax.conv_general_dilated(*arguments, **options)

    found = features(params, content, conv=counting)
    assert len(called) == 16
    np.testing.assert_allclose(
        found["relu5_4"], features(params, content, conv=conv3x3)["relu5_4"], rtol=1e-4, atol=1e-3
    )


def test_activations_that_nobody_reads_are_not_computed(params, content):
    def flops(layer):
        compiled = jax.jit(lambda params, image: features(params, image)[layer]).lower(params, content).compile()
        return (compiled.cost_analysis() or {})["flops"]

    assert flops("relu1_1") < 0.3 * flops("relu5_4")


def test_layers_without_pixels_are_left_out(params):
    found = features(params, jnp.ones((8, 20, 3)))
    assert found["relu4_4"].shape == (1, 2, 8)
    assert "conv5_1" not in found


@pytest.mark.slow
def test_smallest_side_is_where_a_layer_has_its_first_pixel(params):
    for layer in ("relu1_1", "conv2_2", "relu3_4", "relu5_1"):
        side = smallest_side(layer)
        assert min(features(params, jnp.ones((side, side, 3)))[layer].shape[:2]) == 1
        assert side == 1 or layer not in features(params, jnp.ones((side - 1, side, 3)))


def test_widths_are_read_off_the_params(params):
    assert widths_of(params) == ((4, 4), (6, 6), (8,) * 4, (8,) * 4, (8,) * 4)


def test_an_unknown_layer_pooling_or_border_is_named_with_its_alternatives(params, content):
    with pytest.raises(InputError, match=r"'relu6_1' is not a layer of VGG-19: choose from conv1_1 .* relu5_4"):
        smallest_side("relu6_1")
    with pytest.raises(InputError, match=r"'median' is unknown: use 'max', 'avg' or 'l2'"):
        features(params, content, pooling="median")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"Border 'mirror' is unknown: use 'zeros', 'replicate' or 'circular'"):
        features(params, content, border="mirror")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("precision", "asked"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "DEFAULT")])
def test_a_convolution_multiplies_as_exactly_as_asked_forwards_and_back(params, content, precision, asked):
    def loss(image, params):
        return jnp.sum(features(params, image, precision=precision, layers=("relu2_2",))["relu2_2"])

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(content, params).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) >= 4 * 3 - 1  # forwards, to the image, to the kernels
    assert all(f"precision {asked}>, #stablehlo<precision {asked}>" in line for line in lines)
    assert all(("xbf16>" in line) == (precision == "bfloat16") for line in lines)


@pytest.mark.slow
def test_half_precision_stays_near_the_exact_activations(params, content):
    exact, half = (
        features(params, content, precision=precision, layers=("relu3_1",)) for precision in ("float32", "bfloat16")
    )
    for name, found in half.items():
        assert found.dtype == jnp.bfloat16
        error = np.linalg.norm(found.astype(jnp.float32) - exact[name]) / np.linalg.norm(exact[name])
        assert 0 < error < 0.03, name  # eight bits, over five layers


def test_only_what_is_asked_for_is_returned_and_nothing_deeper_is_traced(params, content):
    asked = ("relu1_1", "relu2_1")
    assert set(features(params, content, layers=asked)) == set(asked)
    text = str(jax.make_jaxpr(lambda image: features(params, image, layers=asked))(content))
    assert text.count("conv_general_dilated[") == 4  # of the two blocks
    assert features(params, content, layers=()) == {}


def test_an_unknown_precision_is_refused(params, content):
    with pytest.raises(InputError, match="'float16' is unknown: use 'float32', 'tf32' or 'bfloat16'"):
        features(params, content, precision="float16")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("layer", ["relu6_1", "relu1_9", "foo"])
def test_a_layer_that_is_none_is_refused(params, content, layer):
    with pytest.raises(InputError, match=f"'{layer}' is not a layer of VGG-19"):
        features(params, content, layers=(layer,))

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.config import Config
from jaxstyle.own import Parametrization
from jaxstyle.parametrizations import COARSE_GAIN, COLOR_ROOT, MARGIN, PARAMETRIZATIONS, PYRAMID_LEVELS
from jaxstyle.parametrize import Parameters, compose, decode, encode, parametrization

LATER = pytest.param("circular pyramid", marks=pytest.mark.slow)  # which takes long to compile
every_way = pytest.mark.parametrize("name", [*sorted(PARAMETRIZATIONS.keys() - {"circular pyramid"}), LATER])


def values(name, seed, shape=(32, 48, 3)):
    """Return random parameters."""
    like = PARAMETRIZATIONS[name].encode(jnp.zeros(shape))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), like)


@pytest.mark.parametrize("name", ["pixels", "pyramid", LATER])
def test_an_image_in_levels_decodes_to_itself_exactly(content, name):
    way = PARAMETRIZATIONS[name]
    assert (way.decode(way.encode(content)) == content).all()


@every_way
@pytest.mark.parametrize("shape", [(32, 40), (17, 23), (1, 5)])
def test_what_is_encoded_decodes_to_itself(name, shape):
    image = jnp.asarray(np.random.default_rng(0).uniform(MARGIN, 1 - MARGIN, (*shape, 3)), jnp.float32)
    way = PARAMETRIZATIONS[name]
    np.testing.assert_allclose(way.decode(way.encode(image)), image, atol=2e-5)


@every_way
def test_a_gradient_is_the_transpose_of_the_decoding(name):
    at, way, cotangent = values(name, 0), values(name, 1), values("pixels", 2)
    function = PARAMETRIZATIONS[name].decode
    _, forward = jax.jvp(function, (at,), (way,))
    (backward,) = jax.vjp(function, at)[1](cotangent)
    products = jax.tree.leaves(jax.tree.map(jnp.vdot, way, backward))
    assert jnp.vdot(forward, cotangent) == pytest.approx(float(sum(products)), rel=1e-4)


def test_levels_halve_and_round_up():
    levels = encode(jnp.zeros((33, 20, 3)), config=Config()).values
    assert [level.shape[:2] for level in levels] == [(33, 20), (17, 10), (9, 5), (5, 3), (3, 2)]
    assert len(levels) == PYRAMID_LEVELS


def test_a_coarse_level_is_enlarged_bilinearly():
    """Against the textbook rule: the value at a pixel's centre, linear between the centres of the coarse pixels."""
    coarse = np.random.default_rng(0).uniform(size=(4, 4, 3)).astype(np.float32)
    positions = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    low = np.minimum(positions.astype(int), 2)
    part = positions - low
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    expected = rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    found = PARAMETRIZATIONS["pyramid"].decode((jnp.zeros((8, 8, 3)), jnp.asarray(coarse)))
    np.testing.assert_allclose(found, COARSE_GAIN * expected, atol=1e-6)


def test_a_constant_in_every_level_is_a_constant_image():
    levels = jax.tree.map(jnp.ones_like, values("pyramid", 0, (17, 9, 3)))
    expected = 1 + (PYRAMID_LEVELS - 1) * COARSE_GAIN
    np.testing.assert_allclose(PARAMETRIZATIONS["pyramid"].decode(levels), expected, rtol=1e-6)


@pytest.mark.slow
def test_a_circular_pyramid_rolls_with_its_levels():
    levels = values("circular pyramid", 0)
    rolled = tuple(jnp.roll(level, (-16 // 2**i, 16 // 2**i), (0, 1)) for i, level in enumerate(levels))
    circular, bounded = (PARAMETRIZATIONS[name].decode for name in ("circular pyramid", "pyramid"))
    np.testing.assert_allclose(circular(rolled), jnp.roll(circular(levels), (-16, 16), (0, 1)), atol=1e-5)
    assert np.abs(circular(levels) - bounded(levels)).max() > 0.05


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 0), (0, 5), (2, 7), (16, 24)])
def test_a_parameter_of_fourier_is_a_wave_as_strong_as_it_is_long(row, column):
    """One number alone gives, by NumPy's transform, one frequency f and its mirror, times sqrt(1/2) / f."""
    height, width = 32, 48
    waves = np.zeros((height, width, 3), np.float32)
    waves[row, column, 1] = 1
    found = np.fft.fft2(np.asarray(PARAMETRIZATIONS["fourier"].decode(jnp.asarray(waves)))[..., 1])
    frequency = max(np.hypot(row / height, column / width), 1 / width)
    assert np.linalg.norm(found) == pytest.approx(np.sqrt(0.5) / frequency * np.sqrt(height * width), rel=1e-4)
    elsewhere = found.copy()
    elsewhere[row, column] = elsewhere[-row, -column] = 0
    assert np.abs(elsewhere).max() < 1e-3 * np.abs(found).max()


def test_decorrelated_channels_give_the_directions_of_colour():
    way, root = PARAMETRIZATIONS["decorrelated"], np.asarray(COLOR_ROOT)
    found = way.decode(jnp.eye(3)[None])[0]  # one channel at a time
    np.testing.assert_allclose(found, root.T / np.linalg.norm(root, axis=0).max(), rtol=1e-6)
    grey = np.abs(way.encode(jnp.full((1, 1, 3), 0.5))[0, 0])
    assert grey[0] > 5 * grey[1:].max()  # the first is brightness


def test_a_sigmoid_stays_within_bounds():
    image = PARAMETRIZATIONS["sigmoid"].decode(100 * values("sigmoid", 0))
    assert 0 <= image.min() and image.max() <= 1
    way = PARAMETRIZATIONS["sigmoid"]
    ends = way.decode(way.encode(jnp.asarray([[[0.0, 0.5, 1.0]]])))
    np.testing.assert_allclose(ends[0, 0], [MARGIN, 0.5, 1 - MARGIN], rtol=1e-5)


def test_one_parametrisation_after_the_other(content):
    both = compose(PARAMETRIZATIONS["decorrelated"], PARAMETRIZATIONS["fourier"])
    expected = PARAMETRIZATIONS["fourier"].encode(PARAMETRIZATIONS["decorrelated"].encode(content))
    np.testing.assert_array_equal(both.encode(content), expected)
    np.testing.assert_allclose(both.decode(both.encode(content)), content, atol=2e-5)


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        ({}, "pyramid"),
        ({"border": "circular"}, "circular pyramid"),
        ({"optimizer": "adam"}, "pixels"),
        ({"optimizer": "adam", "parametrization": "pyramid"}, "pyramid"),
        ({"border": "circular", "parametrization": "fourier"}, "fourier"),
    ],
)
def test_the_optimiser_and_the_border_decide_where_nobody_does(chosen, name):
    assert parametrization(Config(**chosen)) is PARAMETRIZATIONS[name]


@every_way
def test_parameters_of_a_batch_decode_to_its_images(name, content):
    batch = jnp.stack([content, content[::-1]])
    function = PARAMETRIZATIONS[name]
    own = Config(parametrization=function)
    parameters = jax.vmap(lambda image: encode(image, config=own))(batch)
    assert parameters.batched and not encode(content, config=own).batched
    for found, image in zip(decode(parameters), batch, strict=True):
        np.testing.assert_allclose(found, decode(encode(image, config=own)), atol=1e-5)


def test_parameters_go_through_jit_as_what_they_are(content):
    own = Config(parametrization=Parametrization(lambda image: {"root": jnp.sqrt(image)}, lambda x: x["root"] ** 2))
    parameters = jax.jit(lambda image: encode(image, config=own))(content)
    assert isinstance(parameters, Parameters) and parameters.ranks == (3,)
    np.testing.assert_allclose(jax.jit(decode)(parameters), content, atol=1e-6)

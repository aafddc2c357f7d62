"""Parametrizations: inverses, and the definition of each in NumPy."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxstyle.optim.optimizers import LBFGS, Adam, Optax
from jaxstyle.optim.parametrizations import (
    COARSE_GAIN,
    COLOR_ROOT,
    MARGIN,
    PARAMETRIZATIONS,
    PYRAMID_LEVELS,
    Parameters,
    Parametrization,
    compose,
    decode,
    decode_on_host,
    encode,
    named_parametrization,
)

LATER = pytest.param("circular pyramid", marks=pytest.mark.slow)  # whose compilation takes long
PYRAMID = PARAMETRIZATIONS["pyramid"]
NAMES = sorted(PARAMETRIZATIONS.keys() - {"circular pyramid"})
every_way = pytest.mark.parametrize("name", [*NAMES, LATER])
SHAPES = ((16, 24, 3), (17, 9, 3), (1, 5, 3))


def uniform(shape, seed=0, margin=MARGIN):
    return np.random.default_rng(seed).uniform(margin, 1 - margin, shape).astype(np.float32)


def values(name, seed, shape=SHAPES[0]):
    """Return random parameters."""
    like = jax.eval_shape(PARAMETRIZATIONS[name].encode, np.zeros(shape, np.float32))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), like)


@pytest.fixture(scope="module")
def calculated():
    """Return a function from a name to results of its parametrization: one program for all that compile fast."""

    def program(names, pictures):
        result = {}
        for name in names:
            way = PARAMETRIZATIONS[name]
            of = partial(encode, parametrization=way, flat=False)
            batch = jax.vmap(of)(jnp.stack([pictures[0], pictures[0][::-1]]))
            single = of(pictures[1])
            assert batch.batched and not single.batched
            result[name] = {
                "batch": decode(batch),
                "again": [decode(single), way.decode(way.encode(pictures[2]))],
                "constant": way.decode(jax.tree.map(jnp.ones_like, single.values)),
            }
        return result

    def run(names):
        return jax.jit(partial(program, names))([uniform(shape) for shape in SHAPES])

    results = {}

    def of(name):
        if name not in results:
            results.update(run(NAMES if name in NAMES else [name]))
        return results[name]

    return of


@every_way
def test_what_is_encoded_decodes_to_itself_in_batches_too(calculated, name):
    actual, atol = calculated(name), 0 if name.endswith(("pixels", "pyramid")) else 2e-5
    for shape, again in zip(SHAPES[1:], actual["again"], strict=True):
        np.testing.assert_allclose(again, uniform(shape), atol=atol)
    image = uniform(SHAPES[0])
    np.testing.assert_allclose(actual["batch"], np.stack([image, image[::-1]]), atol=atol)


def test_a_constant_in_every_level_is_a_constant_image(calculated):
    expected = 1 + (PYRAMID_LEVELS - 1) * COARSE_GAIN
    np.testing.assert_allclose(calculated("pyramid")["constant"], expected, rtol=1e-6)


def test_levels_halve_and_round_up():
    levels = jax.eval_shape(PYRAMID.encode, np.zeros((33, 20, 3), np.float32))
    assert [level.shape[:2] for level in levels] == [(33, 20), (17, 10), (9, 5), (5, 3), (3, 2)]
    assert len(levels) == PYRAMID_LEVELS


def test_a_coarse_level_is_enlarged_bilinearly():
    """The value at a pixel's centre is linear between the centres of the coarse pixels, and constant beyond them."""
    coarse = uniform((4, 4, 3))
    positions = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    low = np.minimum(positions.astype(int), 2)
    part = positions - low
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    expected = rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    actual = jax.jit(PYRAMID.decode)((np.zeros((8, 8, 3), np.float32), coarse))
    np.testing.assert_allclose(actual, COARSE_GAIN * expected, atol=1e-6)


@pytest.mark.slow
def test_a_circular_pyramid_rolls_with_its_levels():
    levels = values("circular pyramid", 0, (32, 48, 3))
    rolled = tuple(np.roll(level, (-16 // 2**i, 16 // 2**i), (0, 1)) for i, level in enumerate(levels))
    circular, bounded = (jax.jit(PARAMETRIZATIONS[name].decode) for name in ("circular pyramid", "pyramid"))
    np.testing.assert_allclose(circular(rolled), np.roll(circular(levels), (-16, 16), (0, 1)), atol=1e-5)
    assert np.abs(circular(levels) - bounded(levels)).max() > 0.05


def test_a_parameter_of_fourier_is_a_wave_as_strong_as_it_is_long():
    """One number alone gives, by NumPy's transform, one frequency f and its mirror, times sqrt(1/2) / f."""
    (height, width), places = SHAPES[0][:2], ((0, 0), (3, 0), (0, 5), (2, 7), (8, 12))
    waves = np.zeros((len(places), height, width, 3), np.float32)
    for wave, (row, column) in zip(waves, places, strict=True):
        wave[row, column, 1] = 1
    decoded = np.asarray(jax.jit(jax.vmap(PARAMETRIZATIONS["fourier"].decode))(waves))
    assert np.abs(decoded[..., [0, 2]]).max() < 1e-6
    for image, (row, column) in zip(decoded[..., 1], places, strict=True):
        actual = np.fft.fft2(image)
        frequency = max(np.hypot(row / height, column / width), 1 / width)
        assert np.linalg.norm(actual) == pytest.approx(np.sqrt(0.5) / frequency * np.sqrt(height * width), rel=1e-4)
        elsewhere = actual.copy()
        elsewhere[row, column] = elsewhere[-row, -column] = 0
        assert np.abs(elsewhere).max() < 1e-3 * np.abs(actual).max()


def test_decorrelated_channels_give_the_directions_of_colour():
    way, root = PARAMETRIZATIONS["decorrelated"], np.asarray(COLOR_ROOT)
    decoded, encoded = jax.jit(lambda x, grey: (way.decode(x), way.encode(grey)))(
        np.eye(3, dtype=np.float32)[None], np.full((1, 1, 3), 0.5, np.float32)
    )
    np.testing.assert_allclose(decoded[0], root.T / np.linalg.norm(root, axis=0).max(), rtol=1e-6)
    grey = np.abs(np.asarray(encoded)[0, 0])
    assert grey[0] > 5 * grey[1:].max()  # the first is brightness


def test_a_sigmoid_stays_in_range():
    way = PARAMETRIZATIONS["sigmoid"]
    image, ends = jax.jit(lambda x, ends: (way.decode(x), way.decode(way.encode(ends))))(
        100 * values("sigmoid", 0), np.asarray([[[0.0, 0.5, 1.0]]], np.float32)
    )
    assert 0 <= image.min() and image.max() <= 1
    np.testing.assert_allclose(ends[0, 0], [MARGIN, 0.5, 1 - MARGIN], rtol=1e-5)


def test_a_composition_encodes_in_order_and_decodes_in_reverse():
    double = Parametrization(lambda x: 2 * x, lambda x: x / 2)
    shift = Parametrization(lambda x: {"shifted": x + 1}, lambda x: x["shifted"] - 1)
    both = compose(double, shift)
    assert both.encode(3.0) == {"shifted": 7.0} and both.decode({"shifted": 7.0}) == 3.0  # pyright: ignore


@pytest.mark.parametrize(
    ("optimizer", "circular", "name"),
    [
        (LBFGS(), False, "pyramid"),
        (LBFGS(), True, "circular pyramid"),
        (Adam(), False, "pixels"),
        (Adam(), True, "pixels"),
        (Optax(optax.sgd(0.1)), False, "pixels"),
        (Adam(parametrization="pyramid"), False, "pyramid"),
        (LBFGS(parametrization="fourier"), True, "fourier"),
    ],
)
def test_the_optimizer_and_the_padding_select_the_parametrization(optimizer, circular, name):
    actual = named_parametrization(optimizer.parametrization, circular=circular)
    assert actual is PARAMETRIZATIONS[name]


def test_parameters_are_a_pytree_with_static_decoder_and_ranks():
    way = Parametrization(lambda image: {"root": jnp.sqrt(image)}, lambda x: x["root"] ** 2)
    assert named_parametrization(way, circular=True) is way

    @jax.jit
    def program(image):
        parameters = encode(image, way, flat=False)
        return parameters, decode(parameters)

    parameters, decoded = program(uniform((4, 5, 3)))
    assert isinstance(parameters, Parameters) and parameters.ranks == (3,) and not parameters.batched
    np.testing.assert_allclose(decoded, uniform((4, 5, 3)), atol=1e-6)


def test_flat_parameters_are_the_arrays_of_a_parametrization_in_one_vector():
    image = uniform((6, 5, 3)) / 2
    levels, flat = (encode(image, PYRAMID, flat=flat) for flat in (False, True))
    assert flat.values.shape == (3 * (30 + 9 + 4 + 1 + 1),)
    moved = replace(flat, values=np.stack([flat.values, flat.values + np.float32(0.1)]))
    assert moved.batched and not flat.batched
    expected = decode(replace(levels, values=jax.tree.map(lambda level: level + np.float32(0.1), levels.values)))
    for actual in (decode(moved), decode_on_host(moved)):
        np.testing.assert_allclose(actual, np.stack([image, expected]), atol=1e-6)

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle import transport
from jaxstyle.moments import RIDGE, moments
from jaxstyle.transport import DIRECTIONS, LEVELS, ROOT_STEPS

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
MIX = RNG.normal(size=(2, 4, 4))
X, TARGET = (  # channels that are correlated, each picture in its own way
    (RNG.normal(size=(12, 10, 4)) @ mix + RNG.normal(size=4)).astype(np.float32) for mix in MIX
)
DEGENERATE = {
    "zeros": np.zeros((4, 4, 3)),
    "constant": np.full((4, 4, 3), 7.0),
    "one channel flat": RNG.normal(size=(4, 4, 3)) * [1, 0, 1],
    "channels alike": np.repeat(RNG.normal(size=(4, 4, 1)), 3, axis=-1),
    "more channels than pixels": RNG.normal(size=(2, 3, 12)),
}
LEFT = np.zeros((12, 10), np.float32)
LEFT[:, :5] = 1 / 60
SPOILT = X + np.float32(100) * RNG.choice([-1, 1], (12, 10, 1)) * (LEFT == 0)[..., None]  # far away where LEFT is zero

quantiles = jax.jit(transport.quantiles)
sliced_slope = jax.jit(jax.value_and_grad(transport.sliced))


@jax.jit
def sliced(x, target, guide=None) -> Any:
    """Return the distance by divisor."""
    return {name: transport.sliced(x, target, guide=guide, divisor=name) for name in ("energy", "elements", "none")}


@jax.jit
def wasserstein(x, target) -> Any:
    """Return the distance by divisor."""
    of_x, of_target = moments(x), moments(target)
    return {name: transport.wasserstein(of_x, of_target, divisor=name) for name in ("energy", "elements", "none")}


def gaussian(features):
    """Return the mean and the covariance, ridge and all, of the pixels in double precision."""
    pixels = features.reshape(-1, features.shape[-1]).astype(np.float64)
    return pixels.mean(axis=0), np.cov(pixels, rowvar=False, bias=True) + RIDGE * np.eye(pixels.shape[-1])


def root_by_eigenvalues(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def root_by_newton_schulz(matrix):
    norm, one = np.linalg.norm(matrix), np.eye(len(matrix))
    y, z = matrix / norm, one
    for _ in range(ROOT_STEPS):
        t = (3 * one - z @ y) / 2
        y, z = y @ t, t @ z
    return y * np.sqrt(norm)


def numpy_wasserstein(x, target, root):
    (mean, sigma), (target_mean, target_sigma) = gaussian(x), gaussian(target)
    outer = root(target_sigma)
    cross = root(outer @ sigma @ outer)
    return np.sum((mean - target_mean) ** 2) + np.trace(sigma + target_sigma - 2 * cross)


def test_wasserstein_is_the_closed_form_by_eigenvalues():
    expected = numpy_wasserstein(X, TARGET, root_by_eigenvalues)
    assert wasserstein(X, TARGET)["none"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("case", ["well-conditioned", *DEGENERATE])
def test_wasserstein_takes_twelve_steps_of_newton_and_schulz(case):
    x = X if case == "well-conditioned" else DEGENERATE[case].astype(np.float32)
    target = TARGET if case == "well-conditioned" else x[::-1] ** 2 + 1
    expected = numpy_wasserstein(x, target, root_by_newton_schulz)
    assert wasserstein(x, target)["none"] == pytest.approx(expected, rel=2e-5)


def test_wasserstein_of_a_shift_is_its_square():
    assert wasserstein(X + 2, X)["none"] == pytest.approx(4 * 2**2, rel=1e-2)


@pytest.mark.parametrize("case", ["well-conditioned", *DEGENERATE])
def test_wasserstein_is_near_zero_at_the_target(case):
    target = TARGET if case == "well-conditioned" else DEGENERATE[case].astype(np.float32)
    assert wasserstein(target, target)["energy"] == pytest.approx(0, abs=2e-3)


def test_wasserstein_divided_by_energy_is_one_from_zeros():
    far = 100 * TARGET  # beside which the ridge is nothing
    assert wasserstein(np.zeros_like(far), far)["energy"] == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("factor", [10, 1e3, 1e5])  # squares of a product of covariances: 1e40 for the last
def test_wasserstein_divided_by_energy_does_not_depend_on_the_scale_of_the_features(factor):
    scaled = wasserstein(np.float32(factor) * X, np.float32(factor) * TARGET)["energy"]
    assert scaled == pytest.approx(float(wasserstein(X, TARGET)["energy"]), rel=1e-2)


def test_wasserstein_divided_by_elements_is_that_by_channel():
    found = wasserstein(X, TARGET)
    assert found["elements"] == pytest.approx(float(found["none"]) / 4, rel=1e-6)


def test_wasserstein_is_symmetric():
    assert wasserstein(X, TARGET)["none"] == pytest.approx(float(wasserstein(TARGET, X)["none"]), rel=1e-4)


def test_wasserstein_and_its_gradient_are_finite_where_variance_is_missing():
    slope = jax.jit(jax.value_and_grad(lambda x, target: transport.wasserstein(moments(x), moments(target))))
    for case, features in DEGENERATE.items():
        flat, other = features.astype(np.float32), (10 * RNG.normal(size=features.shape)).astype(np.float32)
        for x, target in ((flat, other), (other, flat), (flat, flat)):
            value, gradient = slope(x, target)
            assert np.isfinite(value) and np.isfinite(gradient).all(), case


def numpy_quantiles(features, directions):
    """Sort the projections and look the quantiles up between the middles of their shares."""
    projections = features.reshape(-1, features.shape[-1]).astype(np.float64) @ np.asarray(directions, np.float64)
    count = len(projections)
    middles, at = (np.arange(count) + 0.5) / count, (np.arange(LEVELS) + 0.5) / LEVELS
    return np.stack([np.interp(at, middles, np.sort(column)) for column in projections.T])


def numpy_sliced(features, target):
    directions, values = (np.asarray(each, np.float64) for each in target)
    projections = np.sort(features.reshape(-1, features.shape[-1]).astype(np.float64) @ directions, axis=0)
    count = len(projections)
    middles, at = (np.arange(count) + 0.5) / count, (np.arange(LEVELS) + 0.5) / LEVELS
    wanted = np.stack([np.interp(middles, at, row) for row in values], axis=1)
    return np.sum(np.mean((projections - wanted) ** 2, axis=0))


def test_quantiles_are_sorted_projections_between_the_middles_of_their_shares():
    found = quantiles(TARGET, key=KEY)
    np.testing.assert_allclose(found.values, numpy_quantiles(TARGET, found.directions), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "count"), [(4, 4), (DIRECTIONS + 6, DIRECTIONS)])
def test_directions_are_orthonormal_and_of_a_limited_number(channels, count):
    directions = quantiles(jnp.ones((12, 10, channels)), key=KEY).directions
    assert directions.shape == (channels, count)
    np.testing.assert_allclose(directions.T @ directions, np.eye(count), atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 10, 4), (32, 40, 4), (1, 1, 4)])  # fewer pixels than levels, more, and one
def test_sliced_is_the_distance_of_sorted_projections_from_the_quantiles(shape):
    x, target = RNG.normal(size=shape).astype(np.float32), quantiles(TARGET, key=KEY)
    expected, found = numpy_sliced(x, target), sliced(x, target)
    assert found["none"] == pytest.approx(expected, rel=1e-4)
    assert found["elements"] == pytest.approx(expected / 4, rel=1e-4)


def test_sliced_is_near_zero_at_the_target():
    assert sliced(TARGET, quantiles(TARGET, key=KEY))["energy"] == pytest.approx(0, abs=1e-4)


def test_sliced_divided_by_energy_is_one_from_zeros_where_pixels_are_as_many_as_levels():
    found = sliced(jnp.zeros((16, LEVELS // 16, 4)), quantiles(TARGET, key=KEY))
    assert found["energy"] == pytest.approx(1, rel=1e-5)


def test_sliced_does_not_change_when_pixels_change_places():
    target = quantiles(TARGET, key=KEY)
    shuffled = RNG.permutation(X.reshape(-1, 4)).reshape(X.shape)
    assert sliced(shuffled, target)["none"] == pytest.approx(float(sliced(X, target)["none"]), rel=1e-5)


def test_a_uniform_guide_is_no_guide():
    uniform, target = jnp.full((12, 10), 1 / 120), quantiles(TARGET, key=KEY)
    np.testing.assert_allclose(quantiles(TARGET, key=KEY, guide=uniform).values, target.values, atol=1e-4)
    assert sliced(X, target, uniform)["none"] == pytest.approx(float(sliced(X, target)["none"]), rel=1e-4)


def test_a_guide_that_keeps_half_of_a_style_has_the_quantiles_of_that_half():
    found = quantiles(SPOILT, key=KEY, guide=LEFT)
    np.testing.assert_allclose(found.values, numpy_quantiles(X[:, :5], found.directions), atol=1e-3)


def test_a_guide_that_keeps_half_of_the_picture_compares_that_half():
    target = quantiles(TARGET, key=KEY)
    assert sliced(SPOILT, target, LEFT)["none"] == pytest.approx(numpy_sliced(X[:, :5], target), rel=1e-3)
    _, gradient = sliced_slope(SPOILT, target, guide=LEFT)
    assert not gradient[:, 5:].any() and gradient[:, :5].any(axis=-1).all()


def test_a_pixel_that_counts_twice_is_like_two():
    found = quantiles(X, key=KEY, guide=jnp.ones((12, 10)).at[3, 4].set(2) / 121)
    twice = np.concatenate([X.reshape(-1, 4), X[3, 4:5]])
    np.testing.assert_allclose(found.values, numpy_quantiles(twice, found.directions), atol=1e-3)


def test_what_hardly_counts_hardly_moves_the_quantiles():
    far = X.copy()
    far[0, 0] = 1e3
    found = quantiles(far, key=KEY, guide=jnp.full((12, 10), 1 / 119).at[0, 0].set(1e-6))
    without = numpy_quantiles(X.reshape(-1, 4)[1:], found.directions)
    np.testing.assert_allclose(found.values, without, atol=1e-2)


def test_an_empty_guide_is_finite():
    empty = jnp.zeros((12, 10))
    target = quantiles(X, key=KEY, guide=empty)
    value, gradient = sliced_slope(X, target, guide=empty)
    assert np.isfinite(target.values).all() and value == 0 and not gradient.any()


def test_the_same_key_gives_the_same_directions_and_another_key_others():
    first, again, other = (quantiles(X, key=jax.random.key(i)) for i in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.abs(first.directions - other.directions).max() > 0.1


@pytest.mark.parametrize("guide", [None, LEFT], ids=["whole", "guided"])
def test_sliced_has_finite_gradients_on_constants(guide):
    zeros, sevens = np.zeros_like(X), np.full_like(X, 7)
    for x, style in ((zeros, X), (sevens, X), (X, zeros), (X, sevens), (zeros, zeros), (sevens, sevens)):
        value, gradient = sliced_slope(x, quantiles(style, key=KEY), guide=guide)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_a_batch_gives_the_distance_of_each():
    batch, target = np.stack([X, X[::-1] ** 2]), quantiles(TARGET, key=KEY)
    for together, each in (
        (wasserstein(batch, TARGET), [wasserstein(x, TARGET)["energy"] for x in batch]),
        (sliced(batch, target), [sliced(x, target)["energy"] for x in batch]),
    ):
        np.testing.assert_allclose(together["energy"], each, rtol=1e-5)


@pytest.mark.parametrize("distance", ["wasserstein", "sliced"])
def test_gradients_agree_with_finite_differences(distance):
    target = quantiles(TARGET, key=KEY)
    with jax.enable_x64(True):
        losses = {
            "wasserstein": lambda x: transport.wasserstein(moments(x), moments(jnp.asarray(TARGET, jnp.float64))),
            "sliced": lambda x: transport.sliced(x, target),
        }
        at = (jnp.asarray(X[:4, :5], jnp.float64),)
        check_grads(jax.jit(losses[distance]), at, order=1, modes=["rev"], eps=1e-6, atol=1e-3, rtol=1e-3)

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.losses import wasserstein
from jaxstyle.losses.moments import Moments, moments

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
X, OTHER, TARGET = (  # channels that are correlated, in each picture in another way
    (RNG.normal(size=(12, 10, 4)) @ RNG.normal(size=(4, 4)) + RNG.normal(size=4)).astype(np.float32) for _ in range(3)
)
BATCH = np.stack([X, OTHER])
NEAR = (RNG.normal(size=(12, 10, 4)) @ (np.eye(4) + 0.2 * RNG.normal(size=(4, 4)))).astype(np.float32)
LARGE = RNG.normal(size=(2, 32, 40, 4)).astype(np.float32)  # of more pixels than there are levels
DEGENERATE = {
    "zeros": np.zeros((4, 4, 4)),
    "constant": np.full((4, 4, 4), 7.0),
    "one channel constant": RNG.normal(size=(4, 4, 4)) * [1, 0, 1, 1],
    "equal channels": np.repeat(RNG.normal(size=(4, 4, 1)), 4, axis=-1),
}

NORMALIZATIONS = ("energy", "elements", "none")


def random_guide(shape) -> np.ndarray:
    """Return a guide that is zero for a fifth of the pixels."""
    weights = RNG.uniform(0.1, 1, shape) * (RNG.uniform(size=shape) > 0.2)
    return (weights / weights.sum()).astype(np.float32)


GUIDE, LARGE_GUIDE = random_guide((12, 10)), random_guide((32, 40))


@jax.jit
def program(gaussians, pictures, projected):
    """Return all that the tests inspect: of one program, as they compile few."""
    (x, target), (features, guide, key), (of_many, quantiles, of_some) = gaussians, pictures, projected

    def slope(distance, x):
        return jax.grad(lambda x: jnp.sum(distance(x)))(x)

    of_gaussians = {name: wasserstein.wasserstein(x, target, normalization=name) for name in NORMALIZATIONS}
    return (
        (of_gaussians, slope(lambda x: wasserstein.wasserstein(x, target, normalization="none"), x)),
        (wasserstein.quantiles(features, key=key), wasserstein.quantiles(features, key=key, guide=guide)),
        (
            {name: wasserstein.sliced(of_many, quantiles, normalization=name) for name in NORMALIZATIONS},
            {
                name: wasserstein.sliced(of_many, quantiles, guide=of_some, normalization=name)
                for name in NORMALIZATIONS
            },
            slope(lambda x: wasserstein.sliced(x, quantiles, guide=of_some), of_many),
        ),
    )


def computed(*, gaussians: Any = None, pictures: Any = None, projected: Any = None) -> Any:
    """Run the program on some inputs, and on the default ones otherwise."""
    gaussians = gaussians or tuple(stacked(*each) for each in zip(*pairs().values(), strict=True))
    pictures, projected = pictures or (BATCH, GUIDE, KEY), projected or (LARGE, some_quantiles(), LARGE_GUIDE)
    return jax.device_get(program(gaussians, pictures, projected))


def quantiles(guide: np.ndarray, key=KEY) -> tuple[wasserstein.Quantiles, wasserstein.Quantiles]:
    """Return the quantiles of `BATCH` without and with the guide."""
    return computed(pictures=(BATCH, guide, key))[1]


def sliced(x: np.ndarray, guide: np.ndarray) -> Any:
    """Return the distances by normalization without and with the guide, and the gradient with it."""
    return computed(projected=(x, some_quantiles(), guide))[2]


def numpy_moments(features) -> Moments:
    """Return the moments, summed in double precision."""
    pixels = features.reshape(-1, features.shape[-1]).astype(np.float64)
    return Moments(pixels.mean(axis=0), pixels.T @ pixels / len(pixels))


def root_by_newton_schulz(matrix, steps=12):
    norm, one = np.linalg.norm(matrix), np.eye(len(matrix))
    y, z = matrix / norm, one
    for _ in range(steps):
        t = (3 * one - z @ y) / 2
        y, z = y @ t, t @ z
    return y * np.sqrt(norm)


def root_by_eigenvalues(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def gaussian(of: Moments):
    """Return the mean, the covariance and the covariance with the ridge that the docstring names."""
    mean, second = (np.asarray(each, np.float64) for each in of)
    spread = second - np.outer(mean, mean)
    ridge = 1e-4 + max(0.0, 5e-6 * (np.trace(second) - 10 * np.trace(spread)))
    return mean, spread, spread + ridge * np.eye(len(mean))


def numpy_wasserstein(x: Moments, target: Moments, root=root_by_newton_schulz):
    (mean, _, sigma), (target_mean, _, target_sigma) = gaussian(x), gaussian(target)
    outer = root(target_sigma)
    cross = root(outer @ sigma @ outer)
    return np.sum((mean - target_mean) ** 2) + np.trace(sigma + target_sigma - 2 * cross)


def stacked(*each: Moments) -> Moments:
    parts: Any = [np.stack(part).astype(np.float32) for part in zip(*each, strict=True)]
    return Moments(*parts)


def exact(mean: float, *deviations: float) -> Moments:
    """Return moments of independent channels that float32 represents exactly."""
    means: Any = np.full(len(deviations), mean)
    second: Any = np.outer(means, means) + np.diag(np.square(deviations))
    return Moments(means, second)


def pairs() -> dict[str, tuple[Moments, Moments]]:
    """Return moments of pictures and of styles, of four channels."""
    result = {"plain": (numpy_moments(X), numpy_moments(TARGET))}
    result["large"] = numpy_moments(1e5 * X), numpy_moments(1e5 * TARGET)
    result["well-conditioned"] = numpy_moments(NEAR), numpy_moments(2 * NEAR[:, ::-1] + 1)
    result["small spread"] = exact(3, 1 / 16, 1 / 8, 1 / 16, 1 / 4), exact(3, 1 / 4, 1 / 16, 1 / 8, 1 / 16)
    result["larger spread"] = exact(1, 1 / 2, 1 / 4, 1 / 4, 1 / 4), exact(1, 1 / 4, 1 / 2, 1, 1 / 4)
    for name, features in DEGENERATE.items():
        of = numpy_moments(features)
        result[name] = of, numpy_moments(features[::-1] ** 2 + 1)
        result[f"{name}, itself"] = of, of
    return result


def test_wasserstein_distance_of_gaussians_equals_twelve_steps_of_newton_and_schulz():
    """The gradient is finite where variance is missing; a well-conditioned distance is the closed form as well."""
    cases = pairs()
    x, target = (stacked(*each) for each in zip(*cases.values(), strict=True))
    actual, gradient = computed(gaussians=(x, target))[0]
    assert all(np.isfinite(each).all() for each in gradient)
    for i, name in enumerate(cases):
        of_x, of_target = (Moments(each.mean[i], each.second[i]) for each in (x, target))
        expected = numpy_wasserstein(of_x, of_target)
        target_mean, target_spread, _ = gaussian(of_target)
        energy = float(target_mean @ target_mean + np.trace(target_spread))
        rounding = 1e-5 * max(energy, 1e-4) if "itself" in name else 0.0
        np.testing.assert_allclose(actual["none"][i], expected, rtol=2e-5, atol=rounding, err_msg=name)
        if name == "well-conditioned":
            assert actual["none"][i] == pytest.approx(numpy_wasserstein(of_x, of_target, root_by_eigenvalues), rel=1e-5)
        np.testing.assert_allclose(actual["elements"][i], actual["none"][i] / 4, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(actual["energy"][i] * (energy or 1), actual["none"][i], rtol=1e-5, err_msg=name)


def sorted_projections(features, directions, guide=None):
    """Yield for each direction the projections of the pixels that count, in ascending order, with their weights."""
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    weights = np.full(len(rows), 1 / len(rows)) if guide is None else guide.ravel().astype(np.float64)
    for direction in np.asarray(directions, np.float64).T:
        projections = (rows @ direction)[weights > 0]
        order = np.argsort(projections)
        yield projections[order], weights[weights > 0][order]


def numpy_quantiles(features, directions, guide=None):
    """Interpolate between the middles of the shares of all pixels or, with a guide, by ramps between their shares.

    A ramp between two values is as wide as the smaller of their shares.
    """
    rows, at = [], (np.arange(512) + 0.5) / 512
    for projections, weights in sorted_projections(features, directions, guide):
        ends = np.cumsum(weights)
        if guide is None:
            levels, values = ends - weights / 2, projections
        else:
            ramps = np.minimum(weights[1:], weights[:-1]) / 2
            left, right = (ends - weights + [0, *ramps]), (ends - [*ramps, 0])
            levels, values = np.stack([left, right], 1).ravel(), np.repeat(projections, 2)
        rows.append(np.interp(at, levels, values))
    return np.stack(rows)


def numpy_sliced(features, target, guide=None):
    result, at = 0.0, (np.arange(512) + 0.5) / 512
    each = sorted_projections(features, target.directions, guide)
    for (projections, weights), values in zip(each, np.asarray(target.values, np.float64), strict=True):
        wanted = np.interp(np.cumsum(weights) - weights / 2, at, values)
        result += np.sum(weights * (projections - wanted) ** 2)
    return result


def test_quantiles_of_a_batch_are_those_of_sorted_projections():
    for actual, guide in zip(quantiles(GUIDE), (None, GUIDE), strict=True):
        for features, values in zip(BATCH, actual.values, strict=True):
            expected = numpy_quantiles(features, actual.directions, guide)
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-3)


def test_a_guide_selects_and_repeats_pixels():
    twice = np.ones((12, 10))
    twice[3, 4], twice[:, 7:] = 2, 0
    _, actual = quantiles((twice / twice.sum()).astype(np.float32))
    pixels = np.concatenate([X[:, :7].reshape(-1, 4), X[3, 4:5]])
    np.testing.assert_allclose(actual.values[0], numpy_quantiles(pixels, actual.directions), atol=1e-3)


def test_directions_are_orthonormal_at_most_64_and_those_of_the_key():
    actual, again, other = (quantiles(GUIDE, jax.random.key(i))[0] for i in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, actual, again)
    assert np.abs(actual.directions - other.directions).max() > 0.1
    np.testing.assert_allclose(actual.directions.T @ actual.directions, np.eye(4), atol=1e-5)
    wide = jax.eval_shape(wasserstein.quantiles, jax.ShapeDtypeStruct((12, 10, 70), jnp.float32), key=KEY)
    assert wide.directions.shape == (70, 64) and wide.values.shape == (64, 512)
    with jax.enable_x64(True):  # float32 stays float32
        single = jax.eval_shape(wasserstein.quantiles, jax.ShapeDtypeStruct((4, 4, 3), jnp.float32), key=KEY)
        distance = jax.eval_shape(wasserstein.sliced, jax.ShapeDtypeStruct((4, 4, 3), jnp.float32), single)
    assert {leaf.dtype.name for leaf in (*single, distance)} == {"float32"}


def some_quantiles() -> wasserstein.Quantiles:
    directions: Any = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0].astype(np.float32)[:, :3]
    values: Any = numpy_quantiles(TARGET, directions).astype(np.float32)
    return wasserstein.Quantiles(directions, values)


def test_sliced_is_the_weighted_squared_distance_of_sorted_projections_from_the_quantiles():
    target = some_quantiles()
    energy = np.sum(np.mean(target.values.astype(np.float64) ** 2, axis=1))
    for actual, guide in zip(sliced(LARGE, LARGE_GUIDE)[:2], (None, LARGE_GUIDE), strict=True):
        expected = np.stack([numpy_sliced(each, target, guide) for each in LARGE])
        for name, divisor in {"none": 1, "elements": 3, "energy": energy}.items():
            np.testing.assert_allclose(actual[name], expected / divisor, rtol=1e-4)


def test_pixels_outside_the_guide_affect_neither_the_distance_nor_its_gradient():
    left = np.zeros((32, 40), np.float32)
    left[:, :20] = 1 / 640
    spoilt = LARGE + np.float32(100) * RNG.choice([-1, 1], (32, 40, 1)) * (left == 0)[..., None]
    _, actual, gradient = sliced(spoilt.astype(np.float32), left)
    expected = numpy_sliced(LARGE[0, :, :20], some_quantiles())
    np.testing.assert_allclose(actual["none"][0], expected, rtol=1e-3)
    assert not gradient[:, :, 20:].any() and gradient[:, :, :20].any(axis=-1).all()


def test_an_empty_guide_gives_finite_quantiles_and_a_distance_of_zero():
    _, target = quantiles(np.zeros_like(GUIDE))
    assert np.isfinite(target.values).all()
    _, actual, gradient = sliced(LARGE, np.zeros_like(LARGE_GUIDE))
    assert not actual["energy"].any() and not gradient.any()


@pytest.mark.slow
@pytest.mark.parametrize("distance", ["wasserstein", "sliced"])
def test_gradients_agree_with_finite_differences(distance):
    target = some_quantiles()
    with jax.enable_x64(True):
        losses: dict[str, Any] = {
            "wasserstein": lambda x: wasserstein.wasserstein(moments(x), moments(jnp.asarray(TARGET, jnp.float64))),
            "sliced": lambda x: wasserstein.sliced(x, target),
        }
        at = (jnp.asarray(X[:4, :5], jnp.float64),)
        check_grads(jax.jit(losses[distance]), at, order=1, modes=["rev"], eps=1e-6, atol=1e-3, rtol=1e-3)

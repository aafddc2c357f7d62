from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.losses.moments import covariance, moments
from jaxstyle.losses.style import gram, mean_std

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(0.5, 1, (2, 5, 7, 3)).astype(np.float32)
FEATURES[1] *= 0.01  # so that the ridge of 1e-4 counts
MASK = RNG.uniform(size=(5, 7))  # T of the paper, whose squares are the weights
GUIDE = (MASK**2 / np.sum(MASK**2)).astype(np.float32)
HALF: Any = np.full((16, 16, 2), 300, np.float16)  # one square is 90,000, over the 65,504 of float16
UNIFORM = np.full((5, 7), 1 / 35)
COTANGENT = RNG.normal(size=(2, 3, 3)).astype(np.float32)  # not symmetric, as a cotangent may be


def statistics(features, guide=None):
    """Return all that is computed from moments."""
    of = moments(features, guide=guide)
    return {
        "mean": of.mean,
        "gram": gram(of),
        "shifted": gram(of, shift=-1.0, scale=1 / 3),
        "mean_std": mean_std(of),
        "covariance": covariance(of),
    }


@jax.jit
def compiled(features, guide):
    """Return the statistics without and with the guide, and a gradient: of one program, as the tests compile few."""
    slope = jax.grad(lambda x: jnp.sum(mean_std(moments(x))))
    half = moments(HALF), moments(HALF, guide=jnp.full((16, 16), 1 / 256))
    return statistics(features), statistics(features, guide), slope(features), half


def numpy_statistics(image: np.ndarray, guide: np.ndarray) -> dict[str, np.ndarray]:
    """Loop over pixels in double precision."""
    mean, second, shifted = np.zeros(3), np.zeros((3, 3)), np.zeros((3, 3))
    for pixel, weight in zip(image.reshape(-1, 3).astype(np.float64), guide.ravel().astype(np.float64), strict=True):
        mean += weight * pixel
        second += weight * np.outer(pixel, pixel)
        shifted += weight * np.outer(pixel - 1, pixel - 1) / 3
    spread = second - np.outer(mean, mean)
    deviation = np.sqrt(np.diag(spread) + 1e-4)
    both = np.stack([mean, deviation])
    return {"mean": mean, "gram": second, "shifted": shifted, "mean_std": both, "covariance": spread}


@pytest.mark.parametrize("guided", [False, True], ids=["whole", "guided"])
def test_statistics_of_a_batch_equal_a_loop_over_weighted_pixels(guided):
    actual = jax.device_get(compiled(FEATURES, GUIDE))[guided]
    for i, image in enumerate(FEATURES):
        for name, expected in numpy_statistics(image, GUIDE if guided else UNIFORM).items():
            scale = np.abs(expected).max()
            np.testing.assert_allclose(actual[name][i], expected, rtol=1e-5, atol=1e-6 * scale, err_msg=name)


def test_an_empty_guide_gives_zeros():
    _, actual, *_ = jax.device_get(compiled(FEATURES, np.zeros_like(GUIDE)))
    assert not actual["mean"].any() and not actual["gram"].any()


def test_moments_accumulate_in_float32_where_float16_would_overflow():
    for of in jax.device_get(compiled(FEATURES, GUIDE)[3]):
        assert of.mean.dtype == of.second.dtype == np.float32
        np.testing.assert_allclose(of.mean, 300, rtol=1e-5)
        np.testing.assert_allclose(of.second, 9e4, rtol=1e-5)


@pytest.mark.parametrize("guided", [False, True], ids=["whole", "guided"])
def test_gradients_of_second_moments_equal_those_by_hand(guided):
    """The loss is the sum of V_ij S_ij, and S the second moments: V need not be symmetric."""

    def loss(features, guide):
        return jnp.sum(COTANGENT * moments(features, guide=guide if guided else None).second)

    by_features, by_guide = jax.jit(jax.grad(loss, argnums=(0, 1)))(FEATURES, GUIDE)
    x, weights = FEATURES.astype(np.float64), GUIDE if guided else UNIFORM
    both = COTANGENT + np.swapaxes(COTANGENT, 1, 2)
    expected = np.einsum("hw,nij,nhwj->nhwi", weights, both, x)
    np.testing.assert_allclose(by_features, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    expected = np.einsum("nij,nhwi,nhwj->hw", COTANGENT, x, x) if guided else np.zeros((5, 7))
    np.testing.assert_allclose(by_guide, expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_deviations_is_finite_on_constant_features():
    for values in ((0.0, 1e-3), (1.0, 40.0)):
        features = np.ones_like(FEATURES) * np.reshape(values, (2, 1, 1, 1)).astype(np.float32)
        assert np.isfinite(np.asarray(compiled(features, GUIDE)[2])).all()


def test_the_gradient_of_a_gram_matrix_is_one_product():
    text = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(gram(moments(x)) ** 2)))(FEATURES[0]))
    assert text.count("dot_general[") == 2  # the matrix itself, and the way back


@pytest.mark.slow
@pytest.mark.parametrize("argument", [0, 1], ids=["features", "guide"])
def test_second_moments_have_every_derivative_by_features_and_by_guide(argument):
    with jax.enable_x64(True):
        inputs = [jnp.asarray(FEATURES[0], jnp.float64), jnp.asarray(GUIDE, jnp.float64)]

        def loss(x):
            features, guide = (x if i == argument else each for i, each in enumerate(inputs))
            return jnp.sum(COTANGENT[0] * moments(features, guide=guide).second)

        check_grads(jax.jit(loss), (inputs[argument],), order=2, modes=["fwd", "rev"], eps=1e-4, atol=1e-5, rtol=1e-5)

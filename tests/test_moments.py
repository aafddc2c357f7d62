import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.losses import squared_distance
from jaxstyle.moments import RIDGE, Moments, covariance, gram, mean_std, moments

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(0.5, 1, (5, 7, 3)).astype(np.float32)
PIXELS = FEATURES.reshape(-1, 3).astype(np.float64)
MASK = RNG.uniform(size=(5, 7))  # T of the paper: its squares count
GUIDE = jnp.asarray(MASK**2 / np.sum(MASK**2), jnp.float32)


def numbers(of: Moments) -> dict[str, jax.Array]:
    """Return all that is made of moments."""
    return {
        "mean": of.mean,
        "gram": gram(of),
        "gram-shifted": gram(of, shift=-1.0),
        "mean-std": mean_std(of),
        "covariance": covariance(of),
    }


@jax.jit
def found(features, guide=None):
    return numbers(moments(features, guide=guide))


def assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), actual, expected)


@pytest.mark.parametrize("scale", [1.0, 1 / 3])
def test_gram_is_the_mean_of_outer_products_of_pixels_times_the_scale(scale):
    expected = scale * sum(np.outer(pixel, pixel) for pixel in PIXELS) / 35
    np.testing.assert_allclose(gram(moments(jnp.asarray(FEATURES)), scale=scale), expected, rtol=1e-5)


@pytest.mark.parametrize("shift", [-1.0, 0.5])
def test_gram_with_a_shift_is_that_of_the_shifted_features(shift):
    expected = gram(moments(jnp.asarray(FEATURES + np.float32(shift))))
    np.testing.assert_allclose(gram(moments(jnp.asarray(FEATURES)), shift=shift), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gram", "gram-shifted", "covariance"])
def test_a_matrix_is_symmetric_and_has_no_negative_eigenvalue(name):
    matrix = np.asarray(found(FEATURES)[name])
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-6)
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_guided_moments_are_a_loop_over_pixels_that_count_by_the_square_of_the_mask():
    mean, second, whole = np.zeros(3), np.zeros((3, 3)), 0.0
    for pixel, inside in zip(PIXELS, MASK.ravel(), strict=True):
        mean += inside**2 * pixel
        second += inside**2 * np.outer(pixel, pixel)
        whole += inside**2
    guided = found(FEATURES, GUIDE)
    np.testing.assert_allclose(guided["mean"], mean / whole, rtol=1e-5)
    np.testing.assert_allclose(guided["gram"], second / whole, rtol=1e-5)


def test_a_uniform_guide_is_no_guide():
    assert_close(found(FEATURES, jnp.full((5, 7), 1 / 35)), found(FEATURES))


def test_what_the_guide_leaves_out_has_no_say_however_large():
    spoilt = FEATURES.copy()
    spoilt[:, 3:] = 1e6
    guide = jnp.zeros((5, 7)).at[:, :3].set(1 / 15)
    assert_close(found(spoilt, guide), found(FEATURES[:, :3]))


def test_an_empty_guide_gives_zeros():
    empty = found(FEATURES, jnp.zeros((5, 7)))
    assert not empty["mean"].any() and not empty["gram"].any()


def test_mean_std_is_that_of_numpy_but_for_the_ridge():
    expected = np.stack([PIXELS.mean(axis=0), np.sqrt(PIXELS.var(axis=0) + RIDGE)])
    np.testing.assert_allclose(found(FEATURES)["mean-std"], expected, rtol=1e-5)


def test_covariance_is_that_of_numpy():
    expected = np.cov(PIXELS, rowvar=False, bias=True)
    np.testing.assert_allclose(found(FEATURES)["covariance"], expected, rtol=1e-4, atol=1e-6)


def test_covariance_does_not_change_when_features_are_shifted():
    shifted = found(FEATURES + 2)["covariance"]
    np.testing.assert_allclose(found(FEATURES)["covariance"], shifted, atol=1e-5)


def test_a_permutation_of_pixels_changes_nothing():
    order = RNG.permutation(35)
    shuffled, guide = FEATURES.reshape(35, 3)[order].reshape(5, 7, 3), GUIDE.ravel()[order].reshape(5, 7)
    assert_close(found(shuffled), found(FEATURES))
    assert_close(found(shuffled, guide), found(FEATURES, GUIDE))


@pytest.mark.parametrize("guide", [None, GUIDE], ids=["whole", "guided"])
def test_a_batch_gives_the_numbers_of_each_image(guide):
    batch = np.stack([FEATURES, 2 * FEATURES[::-1]])
    each = [found(image, guide) for image in batch]
    assert_close(found(batch, guide), jax.tree.map(lambda *images: np.stack(images), *each))


@pytest.mark.parametrize("guide", [None, jnp.full((16, 16), 1 / 256)], ids=["whole", "guided"])
def test_moments_accumulate_in_float32_where_float16_would_overflow(guide):
    large = jnp.full((16, 16, 2), 300.0, jnp.float16)  # one square is 90,000, over the 65,504 of float16
    of = moments(large, guide=guide)
    assert of.mean.dtype == of.second.dtype == jnp.float32
    np.testing.assert_allclose(of.mean, 300, rtol=1e-3)
    np.testing.assert_allclose(of.second, 9e4, rtol=1e-3)


def test_moments_mix_into_those_of_both_pictures_side_by_side():
    of_each = [moments(jnp.asarray(each)) for each in (FEATURES, 3 * FEATURES + 1)]
    mixed = jax.tree.map(lambda a, b: (a + b) / 2, *of_each)
    assert_close(numbers(mixed), found(np.concatenate([FEATURES, 3 * FEATURES + 1])))


def test_gradients_are_finite_on_constant_features():
    slope = jax.jit(jax.jacrev(lambda x: numbers(moments(x))))
    for value in (0.0, 1e-3, 40.0):
        for name, gradient in slope(jnp.full((4, 4, 3), value)).items():
            assert np.isfinite(gradient).all(), name


@pytest.mark.parametrize("name", ["gram", "gram-shifted", "mean-std", "covariance"])
def test_gradients_of_a_guided_loss_agree_with_finite_differences(name):
    with jax.enable_x64(True):
        guide = jnp.asarray(MASK**2 / np.sum(MASK**2))
        target = found(jnp.asarray(FEATURES[::-1] ** 2, jnp.float64))[name]
        loss = jax.jit(lambda x: squared_distance(numbers(moments(x, guide=guide))[name], target, axes=2))
        at = (jnp.asarray(FEATURES, jnp.float64),)
        check_grads(loss, at, order=1, modes=["fwd", "rev"], eps=1e-6, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("guide", [None, GUIDE], ids=["whole", "guided"])
def test_jit_equals_eager(guide):
    assert_close(found(FEATURES, guide), numbers(moments(jnp.asarray(FEATURES), guide=guide)))


@pytest.mark.parametrize("argument", [0, 1], ids=["features", "guide"])
def test_second_moments_have_every_derivative_by_features_and_by_guide(argument):
    with jax.enable_x64(True):
        given = [jnp.asarray(FEATURES, jnp.float64), jnp.asarray(GUIDE, jnp.float64)]
        weights = jnp.asarray(RNG.normal(size=(3, 3)))  # not symmetric, as a cotangent may be

        def loss(x):
            features, guide = (x if i == argument else each for i, each in enumerate(given))
            return jnp.sum(weights * moments(features, guide=guide).second)

        check_grads(jax.jit(loss), (given[argument],), order=2, modes=["fwd", "rev"], eps=1e-4, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_a_gram_matrix_is_one_product():
    text = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(gram(moments(x)) ** 2)))(jnp.asarray(FEATURES)))
    assert text.count("dot_general[") == 2  # the matrix itself, and back

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.losses import gram, out_of_range, squared_distance, total_variation

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(5, 7, 3)).astype(np.float32)
IMAGE = RNG.uniform(-0.2, 1.2, (6, 5, 3)).astype(np.float32)


def numpy_variation(image: np.ndarray, power: int, reduction: str) -> float:
    """Walk over neighbours in a plain loop."""
    height, width, _ = image.shape
    down = [
        np.abs(image[i + 1, j] - image[i, j]) ** power for i, j in itertools.product(range(height - 1), range(width))
    ]
    right = [
        np.abs(image[i, j + 1] - image[i, j]) ** power for i, j in itertools.product(range(height), range(width - 1))
    ]
    reduce = np.mean if reduction == "mean" else np.sum
    return float(reduce(down) + reduce(right))


@pytest.mark.parametrize("divisor", ["pixels", "elements"])
def test_gram_is_the_sum_of_outer_products_of_its_pixels(divisor):
    expected = sum(np.outer(pixel, pixel) for pixel in FEATURES.reshape(-1, 3).astype(np.float64))
    expected /= 35 if divisor == "pixels" else 105
    np.testing.assert_allclose(gram(jnp.asarray(FEATURES), divisor=divisor), expected, rtol=1e-5)


def test_gram_is_invariant_to_a_permutation_of_pixels():
    shuffled = RNG.permutation(FEATURES.reshape(-1, 3)).reshape(7, 5, 3)
    np.testing.assert_allclose(gram(jnp.asarray(FEATURES)), gram(jnp.asarray(shuffled)), rtol=1e-5)


def test_gram_of_a_batch_is_the_gram_of_each_image():
    batch = jnp.stack([FEATURES, 2 * FEATURES])
    np.testing.assert_allclose(gram(batch)[1], 4 * gram(batch)[0], rtol=1e-6)


def test_gram_accumulates_in_float32_where_float16_would_overflow():
    large = jnp.full((16, 16, 2), 300.0, jnp.float16)  # one square is 90,000, over the 65,504 of float16
    np.testing.assert_allclose(gram(large), 9e4, rtol=1e-3)


def test_distance_divided_by_energy_is_one_from_zero_and_zero_at_the_target():
    target = jnp.asarray(FEATURES)
    assert squared_distance(jnp.zeros_like(target), target, axes=3) == pytest.approx(1, rel=1e-6)
    assert squared_distance(target, target, axes=3) == 0


def test_distance_divided_by_elements_is_the_mean_square():
    target = FEATURES[::-1]
    expected = np.mean((FEATURES.astype(np.float64) - target) ** 2)
    assert squared_distance(jnp.asarray(FEATURES), jnp.asarray(target), axes=3, divisor="elements") == pytest.approx(
        expected, rel=1e-6
    )


def test_distance_divided_by_energy_does_not_depend_on_the_scale_of_the_features():
    x, target = jnp.asarray(FEATURES), jnp.asarray(FEATURES[::-1])
    assert squared_distance(x, target, axes=3) == pytest.approx(float(squared_distance(1e3 * x, 1e3 * target, axes=3)))


def test_distance_to_a_target_of_zeros_is_finite_and_so_is_its_gradient():
    value, gradient = jax.value_and_grad(lambda x: squared_distance(x, jnp.zeros((5, 7, 3)), axes=3))(FEATURES)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert value == pytest.approx(np.sum(FEATURES**2), rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("power", [1, 2])
def test_total_variation_equals_a_loop_over_neighbours(power, reduction):
    value = total_variation(jnp.asarray(IMAGE), power=power, reduction=reduction)
    assert value == pytest.approx(numpy_variation(IMAGE.astype(np.float64), power, reduction), rel=1e-5)


def test_total_variation_runs_over_height_and_width_and_not_over_channels():
    stripes = jnp.broadcast_to(jnp.asarray([0.0, 1.0, 0.0]), (6, 5, 3))  # channels differ, pixels do not
    assert total_variation(stripes) == 0


def test_mean_total_variation_does_not_grow_with_the_picture():
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 9)[:, None, None], (9, 4, 3))
    wide = jnp.broadcast_to(jnp.linspace(0, 1, 9)[:, None, None], (9, 40, 3))
    assert total_variation(ramp) == pytest.approx(float(total_variation(wide)))


def test_total_variation_of_a_single_row_is_that_along_the_row():
    row = jnp.linspace(0, 1, 5).reshape(1, 5, 1) * jnp.ones((1, 1, 3))
    assert total_variation(row) == pytest.approx(1 / 16)


def test_out_of_range_counts_only_what_leaves_the_range():
    excess = np.maximum(-IMAGE, 0) ** 2 + np.maximum(IMAGE - 1, 0) ** 2
    assert out_of_range(jnp.asarray(IMAGE)) == pytest.approx(excess.mean(), rel=1e-5)
    assert out_of_range(jnp.asarray(IMAGE), reduction="sum") == pytest.approx(excess.sum(), rel=1e-5)
    assert out_of_range(255 * jnp.asarray(IMAGE), reduction="sum", upper=255.0) == pytest.approx(
        65025 * excess.sum(), rel=1e-5
    )
    assert out_of_range(jnp.clip(IMAGE, 0, 1)) == 0


@pytest.mark.parametrize(
    ("loss", "at"),
    [
        (lambda x: squared_distance(gram(x), gram(jnp.asarray(FEATURES[::-1] + 1)), axes=2), FEATURES),
        (lambda x: squared_distance(x, jnp.asarray(FEATURES[::-1] + 1), axes=3), FEATURES),
        (lambda x: total_variation(x, power=1), IMAGE),
        (lambda x: total_variation(x, power=2), IMAGE),
        (out_of_range, IMAGE),
    ],
    ids=["style", "content", "tv-absolute", "tv-squared", "out-of-range"],
)
def test_gradients_agree_with_finite_differences(loss, at):
    with jax.enable_x64(True):
        check_grads(
            loss, (jnp.asarray(at, jnp.float64),), order=1, modes=["fwd", "rev"], eps=1e-6, atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("function", [gram, total_variation, out_of_range])
def test_jit_equals_eager(function):
    np.testing.assert_allclose(jax.jit(function)(IMAGE), function(jnp.asarray(IMAGE)), rtol=1e-6)

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.losses import Variation, out_of_range, squared_distance, total_variation

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(5, 7, 3)).astype(np.float32)
IMAGE = RNG.uniform(-0.2, 1.2, (6, 5, 3)).astype(np.float32)
variation = jax.jit(total_variation, static_argnames=("form", "power", "reduction"))
FORMS: list[tuple[Variation, float]] = [
    ("separate", 1),
    ("separate", 2),
    ("joint", 1),
    ("joint", 2),
    ("joint", 2.5),
    ("nine_point", 2),
]


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


def joint_variation(image: np.ndarray, power: float, reduction: str) -> float:
    """Walk over the pixels that have a neighbour below and one on the right."""
    height, width, _ = image.shape
    costs = [
        ((image[i + 1, j] - image[i, j]) ** 2 + (image[i, j + 1] - image[i, j]) ** 2) ** (power / 2)
        for i, j in itertools.product(range(height - 1), range(width - 1))
    ]
    return float(np.mean(costs) if reduction == "mean" else np.sum(costs))


def nine_point_variation(image: np.ndarray) -> float:
    """Add mean squares over all pixels, and along diagonals over all squares of four, border and all."""
    around = np.pad(image, [(1, 1), (1, 1), (0, 0)], mode="edge")
    here = around[1:-1, 1:-1]
    rows, columns = around[1:-1, 2:] - here, around[2:, 1:-1] - here
    diagonals = around[1:, 1:] - around[:-1, :-1], around[1:, :-1] - around[:-1, 1:]
    means = [np.mean(rows**2) / 3, np.mean(columns**2) / 3, *(np.mean(each**2) / 12 for each in diagonals)]
    return float(2 * sum(means))


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


def test_distance_not_divided_is_the_sum_of_squares():
    target = FEATURES[::-1]
    expected = np.sum((FEATURES.astype(np.float64) - target) ** 2)
    assert squared_distance(jnp.asarray(FEATURES), jnp.asarray(target), axes=3, divisor="none") == pytest.approx(
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
@pytest.mark.parametrize("power", [1, 1.5, 2])
def test_total_variation_equals_a_loop_over_neighbours(power, reduction):
    value = variation(jnp.asarray(IMAGE), power=power, reduction=reduction)
    assert value == pytest.approx(numpy_variation(IMAGE.astype(np.float64), power, reduction), rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("power", [1, 2, 2.5])
def test_joint_total_variation_equals_a_loop_over_pixels_with_both_neighbours(power, reduction):
    value = variation(jnp.asarray(IMAGE), form="joint", power=power, reduction=reduction)
    assert value == pytest.approx(joint_variation(IMAGE.astype(np.float64), power, reduction), rel=1e-5)


def test_nine_point_total_variation_equals_mean_squares_along_rows_columns_and_diagonals():
    value = variation(jnp.asarray(IMAGE), form="nine_point")
    assert value == pytest.approx(nine_point_variation(IMAGE.astype(np.float64)), rel=1e-5)


def test_nine_point_total_variation_does_not_change_when_the_picture_is_turned_or_mirrored():
    expected = float(total_variation(jnp.asarray(IMAGE), form="nine_point"))
    for turned in (np.rot90(IMAGE), np.rot90(IMAGE, 2), IMAGE[:, ::-1]):
        assert variation(jnp.asarray(turned), form="nine_point") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("form", ["separate", "joint"])
def test_circular_total_variation_does_not_change_when_the_picture_is_rolled(form, power):
    """And counts each pixel's difference to the one below and on the right, for which the first follows the last."""
    x = IMAGE.astype(np.float64)
    found = total_variation(jnp.asarray(IMAGE), form=form, power=power, circular=True)
    rolled = total_variation(jnp.roll(jnp.asarray(IMAGE), (3, 2), axis=(0, 1)), form=form, power=power, circular=True)
    assert rolled == pytest.approx(float(found), rel=1e-5)
    below, right = np.abs(np.roll(x, -1, 0) - x), np.abs(np.roll(x, -1, 1) - x)
    joint = np.mean((below**2 + right**2) ** (power / 2))
    assert found == pytest.approx(joint if form == "joint" else np.mean(below**power) + np.mean(right**power), rel=1e-5)


@pytest.mark.parametrize("form", ["separate", "joint", "nine_point"])
def test_total_variation_of_a_batch_is_that_of_each_image(form):
    batch = jnp.stack([IMAGE, IMAGE[::-1] ** 2])
    each = [total_variation(image, form=form) for image in batch]
    np.testing.assert_allclose(total_variation(batch, form=form), jnp.stack(each), rtol=1e-6)


@pytest.mark.parametrize(("form", "power"), FORMS)
def test_a_constant_picture_has_no_variation_and_finite_derivatives_of_first_and_second_order(form, power):
    loss = jax.jit(lambda x: total_variation(x, form=form, power=power))

    @jax.jit
    def along(x):  # the curvature along a direction, as lbfgs and its line search see it
        return jax.jvp(jax.grad(loss), (x,), (jnp.asarray(IMAGE),))[1]

    constant = jnp.full(IMAGE.shape, 0.3)
    assert loss(constant) == 0
    assert np.isfinite(jax.jit(jax.grad(loss))(constant)).all()
    assert np.isfinite(along(constant)).all()


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
        (lambda x: squared_distance(x, jnp.asarray(FEATURES[::-1] + 1), axes=3), FEATURES),
        (lambda x: total_variation(x, power=1), IMAGE),
        (lambda x: total_variation(x, power=2), IMAGE),
        (lambda x: total_variation(x, form="joint", power=2.5), IMAGE),
        (lambda x: total_variation(x, form="nine_point"), IMAGE),
        (out_of_range, IMAGE),
    ],
    ids=["content", "tv-absolute", "tv-squared", "tv-joint", "tv-nine-point", "out-of-range"],
)
def test_gradients_agree_with_finite_differences(loss, at):
    with jax.enable_x64(True):
        check_grads(
            jax.jit(loss),
            (jnp.asarray(at, jnp.float64),),
            order=1,
            modes=["fwd", "rev"],
            eps=1e-6,
            atol=1e-3,
            rtol=1e-3,
        )


@pytest.mark.parametrize(
    "function",
    [total_variation, partial(total_variation, form="joint", power=2.5), partial(total_variation, form="nine_point")]
    + [out_of_range],
)
def test_jit_equals_eager(function):
    np.testing.assert_allclose(jax.jit(function)(IMAGE), function(jnp.asarray(IMAGE)), rtol=1e-6)

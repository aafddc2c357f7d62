import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.losses.pixel import out_of_range, squared_distance, total_variation

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(2, 5, 7, 3)).astype(np.float32)
TARGET = RNG.normal(size=(5, 7, 3)).astype(np.float32)
IMAGES = RNG.uniform(-0.2, 1.2, (2, 6, 5, 3)).astype(np.float32)
HALF = np.full((4, 5, 3), 300, np.float16)  # one square is 90,000, over the 65,504 of float16
NORMALIZATIONS = ("energy", "elements", "none")
VARIATIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum"},
    {"power": 1, "circular": True},
    {"power": 1.5, "reduction": "sum", "circular": True},
    {"form": "joint", "power": 1, "reduction": "sum"},
    {"form": "joint", "power": 2},
    {"form": "joint", "power": 2.5, "circular": True},
    {"form": "nine_point"},
    {"form": "nine_point", "circular": True},
]


def numpy_variation(image, *, form="separate", power=2.0, reduction="mean", circular=False) -> float:
    """Loop over the pixels and their neighbors below and on the right."""
    if form == "nine_point":
        return nine_point_variation(image, circular=circular)
    height, width, _ = image.shape
    down, right, joint = [], [], []
    for i, j in itertools.product(range(height), range(width)):
        below, beside = image[(i + 1) % height, j] - image[i, j], image[i, (j + 1) % width] - image[i, j]
        if circular or i + 1 < height:
            down.append(np.abs(below) ** power)
        if circular or j + 1 < width:
            right.append(np.abs(beside) ** power)
        if circular or (i + 1 < height and j + 1 < width):
            joint.append((below**2 + beside**2) ** (power / 2))
    reduce = np.mean if reduction == "mean" else np.sum
    return float(reduce(joint) if form == "joint" else reduce(down) + reduce(right))


def nine_point_variation(image: np.ndarray, *, circular: bool) -> float:
    """Add mean squares over all pixels, and along the diagonals over all squares of four pixels, once each."""
    around = np.pad(image, [(1, 1), (1, 1), (0, 0)], mode="wrap" if circular else "edge")
    here = around[1:-1, 1:-1]
    rows, columns = around[1:-1, 2:] - here, around[2:, 1:-1] - here
    around = around[1:, 1:] if circular else around
    diagonals = around[1:, 1:] - around[:-1, :-1], around[1:, :-1] - around[:-1, 1:]
    means = [np.mean(rows**2) / 3, np.mean(columns**2) / 3, *(np.mean(each**2) / 12 for each in diagonals)]
    return float(2 * sum(means))


@jax.jit
def program(features, target, half, images, constant):
    """Return all that the tests inspect: of one program, as they compile few."""
    return {
        "distances": {name: squared_distance(features, target, axes=3, normalization=name) for name in NORMALIZATIONS},
        "half": jax.value_and_grad(partial(squared_distance, axes=3))(half, jnp.zeros_like(half)),
        "variations": [total_variation(images, **chosen) for chosen in VARIATIONS],
        "row": [total_variation(images[:, :1], form=form) for form in ("separate", "joint")],
        "constant": [
            jax.value_and_grad(partial(total_variation, form=form, power=1))(constant) for form in ("separate", "joint")
        ],
        "excess": (out_of_range(images), out_of_range(255 * images, reduction="sum", upper=255.0)),
    }


@pytest.fixture(scope="module")
def computed() -> dict[str, Any]:
    return jax.device_get(program(FEATURES, TARGET, HALF, IMAGES, np.full((6, 5, 3), 0.3, np.float32)))


def test_squared_distance_of_a_batch_equals_the_sum_of_squares_over_each_divisor(computed):
    x, target = FEATURES.astype(np.float64), TARGET.astype(np.float64)
    squares = np.sum((x - target) ** 2, axis=(1, 2, 3))
    for name, divisor in {"energy": np.sum(target**2), "elements": 105, "none": 1}.items():
        np.testing.assert_allclose(computed["distances"][name], squares / divisor, rtol=1e-6)


def test_distance_from_a_target_of_zeros_is_the_undivided_sum_in_float32(computed):
    value, gradient = computed["half"]
    assert value.dtype == np.float32 and value == pytest.approx(60 * 9e4, rel=1e-6)
    np.testing.assert_array_equal(gradient, 2 * HALF)


@pytest.mark.parametrize("chosen", VARIATIONS, ids=lambda chosen: " ".join(map(str, chosen.values())) or "default")
def test_total_variation_of_a_batch_equals_a_loop_over_pixels(computed, chosen):
    expected = [numpy_variation(x, **chosen) for x in IMAGES.astype(np.float64)]
    np.testing.assert_allclose(computed["variations"][VARIATIONS.index(chosen)], expected, rtol=3e-6)


def test_total_variation_of_a_single_row_counts_differences_along_the_row_only(computed):
    separate, joint = computed["row"]
    along = np.diff(IMAGES[:, :1].astype(np.float64), axis=2)
    np.testing.assert_allclose(separate, np.mean(along**2, axis=(1, 2, 3)), rtol=1e-6)
    assert not joint.any()


def test_variation_of_a_constant_image_is_zero_with_a_gradient_of_zero(computed):
    assert all(value == 0 and not gradient.any() for value, gradient in computed["constant"])


def test_out_of_range_is_the_squared_excess_over_the_range(computed):
    excess = np.maximum(-IMAGES, 0).astype(np.float64) ** 2 + np.maximum(IMAGES - 1, 0) ** 2
    mean, total = computed["excess"]
    np.testing.assert_allclose(mean, excess.mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(total, 65025 * excess.sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["content", "absolute", "squared", "joint", "nine_point", "range"])
def test_gradients_agree_with_finite_differences(loss):
    target: Any = TARGET.astype(np.float64)
    losses: dict[str, Any] = {
        "content": partial(squared_distance, target=target, axes=3),
        "absolute": partial(total_variation, power=1),
        "squared": total_variation,
        "joint": partial(total_variation, form="joint", power=2.5),
        "nine_point": partial(total_variation, form="nine_point"),
        "range": out_of_range,
    }
    at = FEATURES[0] if loss == "content" else IMAGES[0]
    with jax.enable_x64(True):
        inputs = (jnp.asarray(at, jnp.float64),)
        check_grads(jax.jit(losses[loss]), inputs, order=1, modes=["rev"], eps=1e-6, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_a_constant_image_has_finite_derivatives_of_first_and_second_order():
    """The second order along a direction is what lbfgs and its line search compute."""
    constant, along = np.full((6, 5, 3), 0.3, np.float32), IMAGES[0]
    for chosen in [{"power": 1}, {}, *({"form": "joint", "power": power} for power in (1, 2, 2.5))]:
        gradient = jax.grad(partial(total_variation, **chosen))
        for derivative in jax.jit(lambda x, gradient=gradient: jax.jvp(gradient, (x,), (along,)))(constant):
            assert np.isfinite(derivative).all(), chosen

"""Properties of any picture: a few examples by default, many with --long."""

from typing import Any

import jax
import numpy as np
import pytest
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxstyle.images.load import fit, load_image
from jaxstyle.images.save import save_image
from jaxstyle.losses.loss_terms import terms, total
from jaxstyle.losses.moments import covariance, moments
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.style import gram
from jaxstyle.losses.targets import make_targets

FILES = [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".webp", 8)]
CHEAP = settings(max_examples=5 * settings().max_examples)
WEIGHT = 1e6

sides, seeds = st.integers(16, 48), st.integers(0, 2**32 - 1)


@given(st.sampled_from(FILES), sides, sides, st.booleans(), seeds)
def test_a_saved_picture_loads_with_values_rounded_to_the_nearest_level(
    tmp_path, kind, height, width, with_alpha, seed
):
    suffix, bits = kind
    levels = np.float32(2**bits - 1)
    values = np.random.default_rng(seed).uniform(-0.1, 1.1, (height, width, 4)).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    save_image(path, values[..., :3], alpha=values[..., 3] if with_alpha else None, bits=bits)
    rgb, alpha = load_image(path)
    rounded = np.rint(np.clip(values, 0, 1) * levels)
    np.testing.assert_array_equal(rgb, rounded[..., :3] / levels)
    assert (alpha is not None) == with_alpha
    if alpha is not None:
        np.testing.assert_array_equal(alpha, rounded[..., 3] / levels)


@CHEAP
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**5))
def test_fit_never_exceeds_the_size_and_leaves_a_pixel(width, height, size):
    for rounding in ("round", "truncate"):
        fitted = fit(width, height, size, rounding=rounding)
        assert 1 <= min(fitted) <= max(fitted) <= size
    assert max(fit(width, height, size)) == size


@given(sides, sides, st.integers(16, 64), seeds)
def test_a_picture_loads_at_the_requested_size_with_values_in_0_to_1(tmp_path, height, width, size, seed):
    path = tmp_path / "a.png"
    save_image(path, np.random.default_rng(seed).uniform(size=(height, width, 3)), bits=16)
    rgb = load_image(path, size=(size, size)).rgb
    assert rgb.shape == (size, size, 3) and 0 <= rgb.min() <= rgb.max() <= 1


@jax.jit
def summaries(features: jax.Array, guide: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(
        statistic(m) for m in (moments(features), moments(features, guide=guide)) for statistic in (gram, covariance)
    )


@given(st.floats(1e-3, 1e3), seeds)
def test_gram_matrices_and_covariances_are_symmetric_and_positive_semidefinite(scale, seed):
    rng = np.random.default_rng(seed)
    features = (scale * rng.normal(size=(2, 3, 8))).astype(np.float32)  # fewer pixels than channels: singular
    guide = rng.dirichlet(np.ones(6)).reshape(2, 3).astype(np.float32)
    for matrix in map(np.asarray, summaries(features, guide)):
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-5, atol=1e-6 * scale**2)
        assert np.linalg.eigvalsh(matrix.astype(np.float64)).min() >= -1e-5 * scale**2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statistic", "content", "style"),
    [
        ("gram", ("conv4_2", "relu4_1"), "relu5_1"),
        ("mean_std", ("relu2_2",), "conv2_2"),
        ("covariance", ("relu2_2",), "conv1_2"),
        ("wasserstein", ("relu1_1",), "relu3_1"),
        ("sliced", ("relu1_1",), "relu2_1"),
    ],
)
def test_terms_are_finite_and_nonnegative_and_masks_of_ones_do_not_change_them(params, statistic, content, style):
    weights: Any = {"content": dict.fromkeys(content, WEIGHT), "style": {style: WEIGHT}, "tv": WEIGHT}
    objective, seed = Objective(**weights, statistic=statistic), 3
    pictures: Any = [np.asarray(picture(16, 24, seed=seed)), np.asarray(picture(24, 16, seed=seed + 1))]
    image = np.random.default_rng(seed).uniform(size=(16, 24, 3)).astype(np.float32)
    ones = {"content_masks": np.ones((1, 16, 24), np.float32), "style_masks": [np.ones((24, 16), np.float32)]}

    @jax.jit
    def both(image, masks):
        targets = (
            make_targets(params, *pictures, key=jax.random.key(0), objective=objective, **each) for each in ({}, masks)
        )
        return [terms(params, image, each, objective=objective) for each in targets]

    plain, masked = (jax.tree.map(float, each) for each in both(image, ones))
    assert set(plain) == {f"content/{a}" for a in content} | {f"style/{style}", "tv"}
    for name, value in plain.items():
        assert np.isfinite(value) and value >= 0, name
        assert masked[name] == pytest.approx(value, rel=2e-3, abs=1e-6), name
    assert float(total(objective, plain)) == pytest.approx(WEIGHT * sum(plain.values()), rel=1e-5)

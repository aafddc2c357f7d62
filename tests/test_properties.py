"""What holds for any picture, mask, layer set and weight, tried on a few by default and on many by --long."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxstyle import image
from jaxstyle.config import Config, LossWeights
from jaxstyle.moments import covariance, gram, moments
from jaxstyle.objective import make_targets, terms, total
from jaxstyle.vgg import ACTIVATIONS

FILES = [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".webp", 8)]
CHEAP = settings(max_examples=5 * settings().max_examples)
DEAR = settings(max_examples=max(2, settings().max_examples // 4))  # most of their time is compiling

sides, seeds = st.integers(16, 48), st.integers(0, 2**32 - 1)
layer_sets = st.lists(st.sampled_from(ACTIVATIONS), max_size=4, unique=True)
statistics = st.sampled_from(["gram", "mean_std", "covariance", "wasserstein", "sliced"])
weights = st.floats(0, 1e6, width=32)


@CHEAP
@given(st.sampled_from(FILES), sides, sides, st.booleans(), seeds)
def test_what_is_saved_is_loaded_again_as_it_was_rounded(tmp_path, kind, height, width, with_alpha, seed):
    suffix, bits = kind
    levels = np.float32(2**bits - 1)
    values = np.random.default_rng(seed).uniform(-0.1, 1.1, (height, width, 4)).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    image.save(path, values[..., :3], alpha=values[..., 3] if with_alpha else None, bits=bits)
    rgb, alpha = image.load(path)
    rounded = np.rint(np.clip(values, 0, 1) * levels)
    np.testing.assert_array_equal(rgb, rounded[..., :3] / levels)
    assert (alpha is not None) == with_alpha
    if alpha is not None:
        np.testing.assert_array_equal(alpha, rounded[..., 3] / levels)


@CHEAP
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**5))
def test_fit_never_exceeds_the_size_and_leaves_a_pixel(width, height, size):
    for rounding in ("round", "truncate"):
        fitted = image.fit(width, height, size, rounding=rounding)
        assert 1 <= min(fitted) <= max(fitted) <= size
    assert max(image.fit(width, height, size)) == size


@given(sides, sides, st.integers(16, 64), seeds)
def test_a_picture_is_loaded_at_the_size_asked_for_and_within_its_range(tmp_path, height, width, size, seed):
    path = tmp_path / "a.png"
    image.save(path, np.random.default_rng(seed).uniform(size=(height, width, 3)), bits=16)
    rgb = image.load(path, size=(size, size)).rgb
    assert rgb.shape == (size, size, 3) and 0 <= rgb.min() <= rgb.max() <= 1


@given(st.sampled_from([1, 5]), st.sampled_from([1, 8]), st.floats(1e-3, 1e3), seeds)
def test_gram_matrices_and_covariances_are_symmetric_and_positive(pixels, channels, scale, seed):
    rng = np.random.default_rng(seed)
    features = jnp.asarray(scale * rng.normal(size=(pixels, 3, channels)), jnp.float32)
    guide = jnp.asarray(rng.dirichlet(np.ones(3 * pixels)).reshape(pixels, 3), jnp.float32)
    for found in (moments(features), moments(features, guide=guide)):
        for matrix in (np.asarray(gram(found)), np.asarray(covariance(found))):
            np.testing.assert_allclose(matrix, matrix.T, rtol=1e-5, atol=1e-6 * scale**2)
            assert np.linalg.eigvalsh(matrix.astype(np.float64)).min() >= -1e-5 * scale**2


def compared(params, config: Config, seed: int, **masks):
    """Return the terms of a picture of noise, which is neither the content nor the style."""
    content, style = picture(16, 24, seed=seed), picture(24, 16, seed=seed + 1)
    painted = jax.random.uniform(jax.random.key(seed), (16, 24, 3))

    @jax.jit
    def both(content, style, painted):
        targets = make_targets(params, content, style, key=jax.random.key(0), config=config, **masks)
        return terms(params, painted, targets, config=config)

    return both(content, style, painted)


@DEAR
@given(layer_sets, layer_sets, statistics, st.data(), st.integers(0, 9))
def test_terms_are_finite_and_not_negative_and_so_is_their_total(params, content, style, statistic, data, seed):
    config = Config(content_layers=tuple(content), style_layers=tuple(style) or ("relu1_1",), statistic=statistic)
    found = compared(params, config, seed)
    assert set(found) == {f"content/{a}" for a in content} | {f"style/{a}" for a in config.style_layers} | {"tv"}
    for name, value in found.items():
        assert np.isfinite(value) and value >= 0, name
    chosen = LossWeights(
        {layer: data.draw(weights) for layer in content},
        {layer: data.draw(weights) for layer in config.style_layers},
        tv=data.draw(weights),
    )
    sum_of_all = total(chosen, found)
    assert np.isfinite(sum_of_all) and sum_of_all >= 0


@DEAR
@given(layer_sets.filter(bool), statistics, st.integers(0, 9))
def test_masks_that_cover_everything_are_no_masks(params, style, statistic, seed):
    config = Config(content_layers=(), style_layers=tuple(style), statistic=statistic)
    whole = {"content_masks": jnp.ones((1, 16, 24)), "style_masks": [jnp.ones((24, 16))]}
    expected, found = compared(params, config, seed), compared(params, config, seed, **whole)
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=2e-3, abs=1e-6), name

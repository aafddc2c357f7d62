from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.errors import InputError
from jaxstyle.losses.masks import compose, cover, feather, make_regions
from jaxstyle.losses.targets import Styling, check_masks

RNG = np.random.default_rng(0)
MASK = RNG.uniform(size=(8, 12)).astype(np.float32)
IMAGES, BACKDROPS = RNG.uniform(size=(2, 2, 8, 12, 3)).astype(np.float32)

SHAPES = {"relu1_1": (8, 12), "relu2_1": (3, 5)}
MASKS = np.stack([MASK, MASK / 4, np.zeros_like(MASK), np.ones_like(MASK)])
EDGE = np.zeros((8, 12), np.float32)
EDGE[:, 6:] = 1


@jax.jit
def computed(masks, image, mask):
    """Return the regions and a feathered mask by pixels: of one program, as the tests compile few."""
    return make_regions(masks, image, SHAPES), {pixels: feather(mask, pixels=pixels) for pixels in (1, 2, 5, 6)}


def feathered(mask: np.ndarray, *, pixels: int) -> np.ndarray:
    return np.asarray(computed(MASKS, IMAGES, mask)[1][pixels])


def numpy_weights(size: int, smaller: int) -> np.ndarray:
    """Return the shares `[smaller, size]` by which a tent as wide as one of the larger pixels averages the others."""
    scale = size / smaller
    middles = (np.arange(smaller)[:, None] + 0.5) * scale - 0.5
    tent = np.maximum(0, 1 - np.abs(np.arange(size) - middles) / scale)
    return tent / tent.sum(axis=1, keepdims=True)


def test_regions_have_guides_by_layer_the_covered_shares_and_the_content_as_backdrop():
    """A guide is the square of the resized mask over its sum, so it does not depend on the mask's brightness."""
    regions, _ = jax.device_get(computed(MASKS, IMAGES, MASK))
    for layer, (height, width) in SHAPES.items():
        squares = (numpy_weights(8, height) @ MASK.astype(np.float64) @ numpy_weights(12, width).T) ** 2
        of_mask, of_dim, of_nothing, of_all = regions.guides[layer]
        np.testing.assert_allclose(of_mask, squares / squares.sum(), rtol=1e-5)
        np.testing.assert_allclose(of_dim, of_mask, rtol=1e-5)
        np.testing.assert_array_equal(of_nothing, np.zeros((height, width)))
        np.testing.assert_allclose(of_all, np.full((height, width), 1 / (height * width)), rtol=1e-5)
    np.testing.assert_allclose(regions.shares, [MASK.mean(), MASK.mean() / 4, 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(regions.backdrop, IMAGES)
    np.testing.assert_array_equal(regions.cover, np.ones((8, 12)))


def test_cover_is_the_sum_of_the_masks_up_to_one():
    masks = np.asarray([[[0, 0.25, 0.75, 1]], [[0, 0.5, 0.75, 1]]], np.float32)
    np.testing.assert_array_equal(cover(masks), [[0, 0.75, 1, 1]])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("optimized", [False, pytest.param(True, marks=pytest.mark.slow(optimized=True))])
def test_compose_keeps_backdrop_and_image_bit_for_bit_and_mixes_between_them(optimized):
    """XLA's optimizations, which the quick tests do without, change neither."""
    share: Any = RNG.choice(np.array([0, 0.25, 0.75, 1], np.float32), (8, 12))
    cotangent = RNG.normal(size=IMAGES.shape).astype(np.float32)

    @jax.jit
    def both(image, backdrop):
        mixed, back = jax.vjp(lambda *pictures: compose(*pictures, cover=share), image, backdrop)
        return mixed, back(cotangent)

    mixed, (by_image, by_backdrop) = jax.device_get(both(IMAGES, BACKDROPS))
    np.testing.assert_array_equal(mixed[:, share == 0], BACKDROPS[:, share == 0])
    np.testing.assert_array_equal(mixed[:, share == 1], IMAGES[:, share == 1])
    whole = share[..., None].astype(np.float64)
    np.testing.assert_allclose(mixed, whole * IMAGES + (1 - whole) * BACKDROPS, rtol=1e-5)
    np.testing.assert_allclose(by_image, whole * cotangent, rtol=1e-6)
    np.testing.assert_allclose(by_backdrop, (1 - whole) * cotangent, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("pixels", "tent"), [(1, [1, 2, 1]), (2, [1, 2, 1]), (5, [1, 2, 3, 2, 1])])
def test_feather_is_a_convolution_with_a_tent_along_both_axes(pixels, tent):
    reach, weights = len(tent) // 2, np.asarray(tent) / np.sum(tent)
    mask = np.where(MASK > 0.6, MASK, 0) if pixels == 2 else MASK
    padded = np.pad(mask.astype(np.float64), reach, mode="edge")
    rows = np.stack([np.convolve(row, weights, mode="valid") for row in padded])
    expected = np.stack([np.convolve(column, weights, mode="valid") for column in rows.T], axis=1)
    actual = feathered(mask, pixels=pixels)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_array_equal(actual == 0, expected == 0)  # pixels farther from the mask stay exactly zero


def test_feather_of_a_full_mask_is_one_and_of_no_pixels_the_mask():
    full = feathered(np.ones_like(MASK), pixels=5)
    np.testing.assert_allclose(full, 1, rtol=1e-6)
    assert full.max() <= 1
    np.testing.assert_array_equal(feather(MASK, pixels=0), MASK)  # pyright: ignore[reportArgumentType]


def test_feather_makes_a_rising_ramp_that_lies_half_on_either_side():
    ramp = feathered(EDGE, pixels=6)[5]
    within = np.arange(3, 9)
    np.testing.assert_array_equal(np.flatnonzero((ramp > 0) & (ramp < 0.9999)), within)
    assert (np.diff(ramp[within]) > 0).all()
    np.testing.assert_allclose(ramp + ramp[::-1], 1, rtol=1e-6)


def test_masks_of_any_type_become_float32_and_an_empty_style_mask_is_refused():
    mask: Any = np.eye(4) > 0
    for each in (mask, mask.astype(np.float16), jnp.asarray(mask)):
        [actual, none] = check_masks("style", [each, None])
        assert actual.dtype == np.float32 and none is None
        np.testing.assert_array_equal(actual, mask)
    assert not check_masks("content", [~mask & mask])[0].any()
    for masks in ([mask, ~mask & mask], [jnp.zeros((4, 4))]):
        with pytest.raises(InputError, match="style mask is 0 everywhere"):
            check_masks("style", masks)
    stacked = Styling(None, None, None, np.stack([mask, ~mask & mask]))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="style mask is 0 everywhere"):
        stacked.checked(jnp.zeros((4, 4, 3)), 2)

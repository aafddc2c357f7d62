import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.regions import compose, cover, feather, guide, make_regions

RNG = np.random.default_rng(0)
MASK = RNG.uniform(size=(8, 12)).astype(np.float32)
IMAGE, BACKDROP = RNG.uniform(size=(2, 8, 12, 3)).astype(np.float32)

soft = jax.jit(feather, static_argnames="pixels")


def numpy_weights(size: int, smaller: int) -> np.ndarray:
    """Return the shares `[smaller, size]` by which a tent as wide as one of the larger pixels averages the others."""
    scale = size / smaller
    middles = (np.arange(smaller)[:, None] + 0.5) * scale - 0.5
    tent = np.maximum(0, 1 - np.abs(np.arange(size) - middles) / scale)
    return tent / tent.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 6), (2, 3), (1, 1)])
def test_a_guide_is_the_square_of_the_resized_mask_and_sums_to_one(height, width):
    squares = (numpy_weights(8, height) @ MASK @ numpy_weights(12, width).T) ** 2
    found = guide(jnp.asarray(MASK), height=height, width=width)
    np.testing.assert_allclose(found, squares / squares.sum(), rtol=1e-5)
    assert jnp.sum(found) == pytest.approx(1, rel=1e-6)


def test_a_guide_does_not_depend_on_how_bright_the_mask_is():
    bright, dim = (guide(jnp.asarray(value * MASK), height=4, width=6) for value in (1, 0.25))
    np.testing.assert_allclose(bright, dim, rtol=1e-5)


def test_the_guide_of_an_empty_mask_is_all_zero():
    np.testing.assert_array_equal(guide(jnp.zeros((8, 12)), height=4, width=6), np.zeros((4, 6)))


def test_regions_have_a_guide_for_each_mask_and_layer_and_the_share_that_each_covers():
    masks = jnp.stack([MASK, jnp.zeros((8, 12)), jnp.ones((8, 12))])
    regions = make_regions(masks, jnp.asarray(IMAGE), {"relu1_1": (8, 12), "relu2_1": (4, 6)})
    for layer, (height, width) in {"relu1_1": (8, 12), "relu2_1": (4, 6)}.items():
        each = jnp.stack([guide(mask, height=height, width=width) for mask in masks])
        np.testing.assert_allclose(regions.guides[layer], each, rtol=1e-6)
    np.testing.assert_allclose(regions.shares, [MASK.mean(), 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(regions.backdrop, IMAGE)
    assert (regions.cover == 1).all()


def test_cover_is_the_sum_of_the_masks_up_to_one():
    masks = jnp.asarray([[[0, 0.25, 0.75, 1]], [[0, 0.5, 0.75, 1]]])
    np.testing.assert_array_equal(cover(masks), [[0, 0.75, 1, 1]])


@pytest.mark.parametrize("function", [compose, jax.jit(compose)], ids=["eager", "jit"])
def test_compose_keeps_the_backdrop_and_the_image_bit_for_bit_and_mixes_between(function):
    share = RNG.choice(np.array([0, 0.25, 0.75, 1], np.float32), (8, 12))
    mixed = np.asarray(function(jnp.asarray(IMAGE), jnp.asarray(BACKDROP), cover=jnp.asarray(share)))
    np.testing.assert_array_equal(mixed[share == 0], BACKDROP[share == 0])
    np.testing.assert_array_equal(mixed[share == 1], IMAGE[share == 1])
    expected = share[..., None] * IMAGE.astype(np.float64) + (1 - share[..., None]) * BACKDROP
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)


def test_compose_of_a_batch_shares_backdrop_and_cover():
    batch = jnp.stack([IMAGE, IMAGE[::-1]])
    both = jnp.broadcast_to(jnp.asarray(BACKDROP), batch.shape)
    mixed = compose(batch, both, cover=jnp.asarray(MASK))
    each = [compose(image, jnp.asarray(BACKDROP), cover=jnp.asarray(MASK)) for image in batch]
    np.testing.assert_array_equal(mixed, jnp.stack(each))


def test_what_is_not_painted_takes_no_gradient():
    share = jnp.asarray(np.round(MASK))
    gradient = jax.grad(lambda image: jnp.sum(compose(image, jnp.asarray(BACKDROP), cover=share)))(jnp.asarray(IMAGE))
    np.testing.assert_array_equal(gradient, np.broadcast_to(share[..., None], IMAGE.shape))


@pytest.mark.parametrize("pixels", [2, 3, 6])
def test_feather_is_zero_farther_from_the_mask_than_the_ramp_reaches(pixels):
    mask = np.zeros((16, 18), np.float32)
    mask[5:9, 7:8] = mask[12, 2] = 1
    rows, columns = np.mgrid[:16, :18]
    away = np.min([np.hypot(rows - i, columns - j) for i, j in np.argwhere(mask)], axis=0)
    found = np.asarray(soft(jnp.asarray(mask), pixels=pixels))
    assert not found[away > pixels / 2 * np.sqrt(2)].any()
    assert found[away <= pixels // 2].all()


@pytest.mark.parametrize("pixels", [1, 2, 5, 9])
def test_feather_stays_between_nothing_and_all(pixels):
    found = soft(jnp.asarray(np.round(MASK)), pixels=pixels)
    assert found.min() >= 0 and found.max() <= 1


def test_feather_of_no_pixels_changes_nothing():
    np.testing.assert_array_equal(feather(jnp.asarray(MASK), pixels=0), MASK)


@pytest.mark.parametrize("pixels", [2, 4, 10])
@pytest.mark.parametrize("axis", [0, 1])
def test_feather_makes_a_rising_ramp_of_that_many_pixels_half_of_it_to_either_side(pixels, axis):
    mask = np.zeros((24, 24), np.float32)
    mask[12:] = 1
    found = np.asarray(soft(jnp.asarray(mask if axis == 0 else mask.T), pixels=pixels))
    ramp = (found if axis == 0 else found.T)[:, 5]
    within = np.arange(12 - pixels // 2, 12 + pixels // 2)
    np.testing.assert_array_equal(np.flatnonzero((ramp > 0) & (ramp < 0.9999)), within)
    assert (np.diff(ramp[within]) > 0).all()
    np.testing.assert_allclose(ramp + ramp[::-1], 1, rtol=1e-6)  # as much is added outside as is taken inside


def test_feather_is_a_convolution_with_a_tent_along_both_axes():
    tent = np.array([1, 2, 3, 2, 1]) / 9
    padded = np.pad(MASK.astype(np.float64), 2, mode="edge")
    rows = np.stack([np.convolve(row, tent, mode="valid") for row in padded])
    expected = np.stack([np.convolve(column, tent, mode="valid") for column in rows.T], axis=1)
    np.testing.assert_allclose(soft(jnp.asarray(MASK), pixels=4), expected, rtol=1e-5)
    np.testing.assert_allclose(feather(jnp.asarray(MASK), pixels=4), expected, rtol=1e-5)


def test_feather_keeps_a_mask_of_the_whole_picture():
    np.testing.assert_allclose(soft(jnp.ones((8, 12)), pixels=6), 1, rtol=1e-6)

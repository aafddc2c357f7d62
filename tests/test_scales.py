import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.config import Config
from jaxstyle.errors import InputError
from jaxstyle.scales import COARSEST, plan, resample, resize, resize_style

RNG = np.random.default_rng(0)
PICTURE = jnp.asarray(RNG.uniform(size=(12, 16, 3)), jnp.float32)
SHALLOW = {"content_layers": (), "style_layers": ("relu1_1",)}
SIZES = [(1, 1), (16, 16), (90, 200), (512, 512), (600, 800), (2000, 300), (16, 4000)]

every_size = pytest.mark.parametrize(("height", "width"), SIZES)


def refusal(height, width, *, steps=100, **options):
    with pytest.raises(InputError) as caught:
        plan(height, width, steps=steps, config=Config(**options))
    message = str(caught.value)
    assert message.endswith(".") and ". " not in message and ": " in message
    return message


@every_size
def test_steps_are_shared_out_among_the_scales_to_the_last(height, width):
    for steps in range(1, 301):
        counts = [scale.steps for scale in plan(height, width, steps=steps, config=Config())]
        assert sum(counts) == steps and min(counts) >= 1


@pytest.mark.parametrize("scales", [1, 3, 5, (20, 64, 128)])
def test_steps_are_shared_out_among_the_scales_that_were_asked_for(scales):
    count = scales if isinstance(scales, int) else len(scales)
    for steps in range(count, 100):
        found = plan(128, 128, steps=steps, config=Config(scales=scales))
        assert len(found) == count and sum(scale.steps for scale in found) == steps
        assert min(scale.steps for scale in found) >= 1


@every_size
@pytest.mark.parametrize("steps", [1, 2, 7, 300])
def test_the_last_scale_is_the_picture_and_the_others_are_smaller(height, width, steps):
    scales = plan(height, width, steps=steps, config=Config())
    assert scales[-1][:2] == (height, width)
    longest = [max(scale[:2]) for scale in scales]
    assert longest == sorted(set(longest))


@pytest.mark.parametrize("longest", [100, 128, 200, 256, 500, 512, 1000, 1024, 2048, 4001])
def test_the_coarsest_scale_is_near_128_pixels_and_each_is_larger_by_about_the_root_of_two(longest):
    sides = [max(scale[:2]) for scale in plan(longest // 2, longest, steps=300, config=Config())]
    assert COARSEST / 2**0.25 - 1 <= sides[0] <= COARSEST * 2**0.25 + 1 or len(sides) == 1
    for smaller, larger in itertools.pairwise(sides):
        assert larger / smaller == pytest.approx(math.sqrt(2), rel=0.01)


def test_scales_keep_the_shape_of_the_picture_to_a_pixel():
    for scale in plan(600, 801, steps=300, config=Config()):
        assert scale.height == pytest.approx(600 / 801 * scale.width, abs=1)


@every_size
@pytest.mark.parametrize("steps", [100, 300, 1000])
def test_no_scale_takes_more_steps_than_the_one_before_it(height, width, steps):
    counts = [scale.steps for scale in plan(height, width, steps=steps, config=Config())]
    assert counts == sorted(counts, reverse=True)


@every_size
@pytest.mark.parametrize("layer", ["relu1_1", "relu3_1", "relu5_1"])
def test_scales_of_no_number_are_large_enough_for_every_layer(height, width, layer):
    config = Config(content_layers=(), style_layers=("relu1_1", layer))
    for scale in plan(height, width, steps=300, config=config)[:-1]:
        assert min(scale.height, scale.width) >= 2 ** (int(layer[4]) - 1)


def test_a_single_step_is_taken_at_full_size():
    assert plan(600, 800, steps=1, config=Config()) == ((600, 800, 1),)


def test_a_number_of_scales_halves_the_area_that_often():
    found = plan(200, 200, steps=90, config=Config(scales=3))
    assert [scale[:2] for scale in found] == [(100, 100), (141, 141), (200, 200)]
    assert plan(100, 200, steps=90, config=Config(scales=1)) == ((100, 200, 90),)


@pytest.mark.parametrize("kind", [tuple, list])
def test_scales_by_their_longest_sides_are_those(kind):
    found = plan(100, 200, steps=90, config=Config(scales=kind([40, 150, 200])))
    assert [scale[:2] for scale in found] == [(20, 40), (75, 150), (100, 200)]
    assert plan(200, 100, steps=9, config=Config(scales=kind([200])))[0][:2] == (200, 100)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((30, 200), "A scale is 30x15 pixels, but the deepest layer needs 16x16: take fewer or larger --scales."),
        (9, "A scale is 12x6 pixels, but the deepest layer needs 16x16: take fewer or larger --scales."),
        ((150, 100, 200), "The scales 150, 100, 200 do not rise to the picture's 200 pixels: end them with that."),
        ((100, 100, 200), "The scales 100, 100, 200 do not rise to the picture's 200 pixels: end them with that."),
        ((100, 150), "The scales 100, 150 do not rise to the picture's 200 pixels: end them with that."),
        ((100, 200, 300), "The scales 100, 200, 300 do not rise to the picture's 200 pixels: end them with that."),
        ((0, 200), "The scales 0, 200 do not rise to the picture's 200 pixels: end them with that."),
        ((), "do not rise to the picture's 200 pixels: end them with that."),
        (0, "0 scales are none or too many: take 1 to 30"),
        (-2, "-2 scales are none or too many: take 1 to 30"),
    ],
)
def test_scales_that_cannot_be_are_refused_in_one_sentence(scales, message):
    assert message in refusal(100, 200, scales=scales)


def test_a_scale_need_not_be_larger_than_its_layers_ask():
    assert plan(100, 200, steps=9, config=Config(scales=(1, 200), **SHALLOW))[0][:2] == (1, 1)


@pytest.mark.parametrize("steps", [1, 2])
def test_fewer_steps_than_scales_are_refused(steps):
    message = f"{steps} steps are too few for 3 scales: take more --steps or fewer --scales."
    assert refusal(200, 200, steps=steps, scales=3) == message


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps):
    assert refusal(200, 200, steps=steps) == f"A run of {steps} steps does nothing: take at least 1."


def test_resize_to_the_same_size_returns_the_same_array():
    mask = PICTURE[..., 0]
    assert resize(PICTURE, 12, 16) is PICTURE and resize(mask, 12, 16) is mask


@pytest.mark.parametrize("shape", [(6, 8), (20, 30)])
def test_resize_gives_pictures_batches_and_masks_their_size_and_stays_in_range(shape):
    sharp = jnp.round(PICTURE)  # lanczos3 overshoots at edges
    picture = resize(sharp, *shape)
    assert picture.shape == (*shape, 3)
    assert picture.min() >= 0 and picture.max() <= 1
    batch = resize(jnp.stack([PICTURE, sharp]), *shape)
    np.testing.assert_allclose(batch[1], picture, atol=1e-6)
    np.testing.assert_allclose(resize(sharp[..., 1], *shape), picture[..., 1], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(24, 20), (9, 31)])
def test_a_circular_picture_is_resized_as_the_middle_of_its_copies(size):
    height, width = size
    copies = resample(jnp.tile(PICTURE, (3, 3, 1)), 3 * height, 3 * width)
    found = resample(PICTURE, height, width, circular=True)
    np.testing.assert_allclose(found, copies[height:-height, width:-width], atol=1e-5)
    assert np.abs(found - resample(PICTURE, height, width)).max() > 0.05


def test_scales_of_what_is_tiled_are_multiples_of_16():
    config = Config(border="circular")
    assert [scale[:2] for scale in plan(192, 256, steps=90, config=config)] == [(96, 128), (128, 176), (192, 256)]
    assert [scale[:2] for scale in plan(32, 48, steps=9, config=Config(border="circular", scales=3))][-1] == (32, 48)


def test_resize_averages_what_becomes_too_fine_to_see():
    checks = jnp.asarray(np.indices((32, 32)).sum(axis=0) % 2, jnp.float32)
    np.testing.assert_allclose(resize(checks, 8, 8), 0.5, atol=0.05)


def test_resize_style_reduces_it_like_the_picture():
    assert resize_style(jnp.ones((64, 40, 3)), 0.5, layers=("relu1_1",)).shape == (32, 20, 3)
    assert resize_style(jnp.ones((64, 40)), 0.5, layers=("relu1_1",)).shape == (32, 20)


@pytest.mark.parametrize(("layer", "side"), [("relu1_1", 1), ("relu3_1", 4), ("relu4_2", 8), ("relu5_1", 16)])
def test_resize_style_leaves_the_deepest_layer_a_pixel(layer, side):
    small = resize_style(jnp.ones((57, 41)), 0.02, layers=("relu1_1", layer))
    assert small.shape == (round(57 / 41 * side), side)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_resize_style_never_enlarges_and_leaves_what_is_small_as_it_is(factor):
    style = jnp.ones((12, 16, 3))
    assert resize_style(style, factor, layers=("relu5_1",)) is style  # which needs 16 pixels

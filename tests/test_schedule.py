import re
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxstyle.errors import InputError
from jaxstyle.images import resample as resample_module
from jaxstyle.images.resample import MOST_CONSTANT, half_shape, resample
from jaxstyle.transfer.resize import resize, resize_style
from jaxstyle.transfer.schedule import MOST_STEPS, STEPS_BY_PIXELS, Series, plan, shared_shape

RNG = np.random.default_rng(0)
PICTURES: Any = RNG.uniform(size=(2, 12, 16, 3)).astype(np.float32)
SHALLOW: dict[str, Any] = {"layers": ("relu1_1",)}
DEEP = ("relu4_2", "relu5_1")


def sizes(height: int, width: int, *, steps: int = 300, layers=DEEP, **options) -> list[tuple[int, int]]:
    return [(scale.height, scale.width) for scale in plan(height, width, steps=steps, layers=layers, **options)]


def refusal(height: int, width: int, *, steps: int = 100, **options) -> str:
    with pytest.raises(InputError) as caught:
        plan(height, width, steps=steps, layers=DEEP, **options)
    return str(caught.value)


@given(
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.integers(1, 400),
    st.sampled_from(["relu1_1", "relu3_1", "relu5_1"]),
    st.booleans(),
)
def test_scales_grow_to_the_size_of_the_picture_and_split_all_steps(height, width, steps, layer, circular):
    scales = plan(height, width, steps=steps, layers=("relu1_1", layer), circular=circular)
    assert scales[-1][:2] == (height, width) and sum(scale.steps for scale in scales) == steps
    longest = [max(scale[:2]) for scale in scales]
    assert longest == sorted(set(longest))
    first, *others = [scale.steps for scale in scales]
    assert others == sorted(others, reverse=True) and min([first, *others]) >= min(3, steps)
    assert first <= MOST_STEPS if others else first == steps
    assert first == MOST_STEPS or not others or first >= others[0]
    for scale in scales[:-1]:
        assert min(scale[:2]) >= 2 ** (int(layer[4]) - 1)
        if circular:
            assert scale.height % 16 == scale.width % 16 == 0
        else:
            exact = min(height, width) / max(height, width) * max(scale[:2])
            assert min(scale[:2]) == pytest.approx(exact, rel=0.03, abs=0.6)
            assert (scale.height > scale.width) <= (height >= width)


@pytest.mark.parametrize("steps", [2, 3, 7, 8, 100, 303])
def test_steps_are_split_by_a_power_of_the_pixels(steps):
    scales = plan(300, 200, steps=steps, scales=(150, 300), layers=DEEP)
    coarse, fine = (scale.height * scale.width for scale in scales)
    fewest = min(3, steps // 2)
    share = fine**STEPS_BY_PIXELS / (coarse**STEPS_BY_PIXELS + fine**STEPS_BY_PIXELS)
    fine_steps = fewest + int((steps - 2 * fewest) * share)
    first = min(MOST_STEPS, steps - fine_steps)
    assert [scale.steps for scale in scales] == [first, steps - first]


def test_steps_over_the_maximum_of_the_first_scale_go_to_the_others():
    plans = [plan(512, 512, steps=300, scales=Series(most_steps=most)) for most in (None, MOST_STEPS, 200)]
    whole, capped, large = ([scale.steps for scale in scales] for scales in plans)
    assert capped[0] == MOST_STEPS < whole[0] and sum(capped) == sum(whole) == 300 and large == whole
    assert capped[1] / capped[2] == pytest.approx(whole[1] / whole[2], rel=0.05)
    [first, last] = plan(128, 128, steps=300, passes=2)
    assert first == last  # two passes at one size


def test_by_default_longest_sides_are_a_geometric_series_from_128_pixels_in_multiples_of_16():
    expected = {
        1: [1],
        128: [128],
        198: [198],
        199: [128, 199],  # from 128 times the root of 2.4
        256: [128, 256],
        384: [128, 384],
        512: [128, 256, 512],
        1000: [128, 352, 1000],
        2048: [128, 320, 816, 2048],
    }
    for longest, sides in expected.items():
        assert [max(size) for size in sizes(-(-longest // 2), longest, **SHALLOW)] == sides
        assert [max(size) for size in sizes(longest, 1 + longest // 2, **SHALLOW)] == sides


def test_pictures_of_similar_aspect_ratio_share_the_shapes_of_coarse_scales():
    ratios = [(3, 4), (2, 3), (9, 16), (4, 5), (1, 1)]
    assert [shared_shape(*ratio, 128) for ratio in ratios] == [(96, 128), (84, 128), (72, 128), (104, 128), (128, 128)]
    assert [shared_shape(width, height, 128) for height, width in ratios[:2]] == [(128, 96), (128, 84)]
    shapes = {shared_shape(height, 4000, 128) for height in range(2000, 4000)}
    assert len(shapes) < 20
    assert shared_shape(1, 4000, 128) == (1, 128)


def test_scales_too_small_for_a_layer_or_too_many_for_the_steps_are_left_out():
    assert sizes(32, 512) == [(16, 256), (32, 512)]  # not 8x128, since relu5_1 needs 16 pixels
    assert sizes(600, 800, steps=5) == [(600, 800)]
    assert sizes(600, 800, steps=6) == [(240, 320), (600, 800)]
    assert sizes(100, 200, steps=9, scales=(1, 200), **SHALLOW) == [(1, 1), (100, 200)]


def test_scales_are_those_of_the_option():
    assert sizes(200, 200, scales=3) == [(128, 128), (160, 160), (200, 200)]
    assert sizes(100, 200, scales=1) == [(100, 200)]
    for kind in (tuple, list):
        assert sizes(100, 200, scales=kind([40, 150, 200])) == [(20, 40), (76, 150), (100, 200)]
    assert sizes(200, 100, scales=(200,)) == [(200, 100)]
    assert sizes(75, 101, scales=(50, 100)) == sizes(75, 101, scales=(50, 102)) == [(38, 50), (75, 101)]  # rounding
    many = sizes(30000, 40000, steps=30, scales=30, **SHALLOW)
    assert len(many) == 30 and many[0] == (96, 128) and many[-1] == (30000, 40000)
    assert sizes(61, 61, scales=2, **SHALLOW) == [(48, 48), (61, 61)]  # from 61 / 1.5 pixels
    few = sizes(40, 48, scales=8, steps=30, **SHALLOW)
    assert len(few) == 8 and few[0] == (26, 32)


def test_scales_of_a_tileable_picture_are_multiples_of_16():
    assert sizes(192, 256, circular=True) == [(96, 128), (192, 256)]
    assert sizes(40, 48, circular=True, scales=2) == [(32, 32), (40, 48)]
    assert sizes(32, 48, circular=True, scales=4) == [
        (16, 32),
        (32, 32),
        (32, 48),
    ]  # scales of the same size become one


def test_impossible_scales_are_refused_with_their_values():
    for chosen, values in [
        ((30, 200), "30x15 .*16x16"),
        ((150, 100, 200), "150, 100, 200 .*200"),
        ((100, 100, 200), "100, 100, 200 .*200"),
        ((100, 150), "100, 150 .*200"),
        ((100, 198), "100, 198 .*200"),
        ((100, 200, 300), "100, 200, 300 .*200"),
        ((0, 200), "0, 200 .*200"),
        (0, "^0 scales .*1 to 30"),
        (-2, "^-2 scales"),
        (31, "^31 scales"),
    ]:
        message = refusal(100, 200, scales=chosen)
        assert re.search(values, message), message


def test_too_few_steps_are_refused_with_their_number():
    for steps in (0, -1):
        assert f"steps is {steps}:" in refusal(200, 200, steps=steps)
    for steps in (1, 2):
        message = refusal(200, 200, steps=steps, scales=3)
        assert message.startswith(f"{steps} steps") and "3 scales" in message


def test_half_a_shape_is_rounded_and_at_least_one_pixel():
    assert half_shape(768, 1023) == (384, 512) and half_shape(1, 7) == (1, 4)


def numpy_weights(size: int, other: int, *, circular: bool, method: str) -> np.ndarray:
    """Return the weights `[other, size]` of the pixels of a side in each pixel of the resized side."""
    wide = max(1.0, size / other)  # a kernel is as wide as the larger pixels
    result = np.zeros((other, size))
    for i in range(other):
        for j in range(-4 * size, 5 * size) if circular else range(size):
            x = abs((i + 0.5) * size / other - 0.5 - j) / wide
            lanczos = np.sinc(x) * np.sinc(x / 3) * (x < 3)
            result[i, j % size] += lanczos if method == "lanczos3" else max(0.0, 1 - x)
    return result / result.sum(axis=1, keepdims=True)


def resampled(batch):
    """Return a batch, a picture and a mask by kernel, and a picture clipped to its range."""
    return {
        "lanczos3": resample(batch, 20, 9),
        "circular": resample(batch[0], 20, 9, circular=True),
        "linear": resample(batch[0, ..., 0], 20, 9, method="linear"),
        "clipped": resize(batch[0], 20, 9),
    }


@pytest.mark.parametrize(
    ("name", "picture"), [("lanczos3", PICTURES), ("circular", PICTURES[0]), ("linear", PICTURES[0, ..., 0])]
)
def test_resample_weights_the_pixels_around_by_its_kernel(name, picture):
    """Rows are enlarged and columns reduced; a batch, a picture and a mask are treated alike."""
    circular, method = name == "circular", "linear" if name == "linear" else "lanczos3"
    actual = np.asarray(resampled(PICTURES)[name])
    rows, columns = (numpy_weights(*sides, circular=circular, method=method) for sides in ((12, 20), (16, 9)))
    subscripts = "ih,hw,jw->ij" if method == "linear" else "ih,...hwc,jw->...ijc"
    expected = np.einsum(subscripts, rows, picture.astype(np.float64), columns)
    np.testing.assert_allclose(actual, expected, atol=3e-6)


def test_resize_clips_to_the_range_and_returns_a_picture_of_the_same_size_itself():
    actual = jax.device_get(resampled(np.round(PICTURES)))  # lanczos3 overshoots at edges
    unclipped = actual["lanczos3"][0]
    assert unclipped.min() < 0 and unclipped.max() > 1
    np.testing.assert_allclose(actual["clipped"], np.clip(unclipped, 0, 1), atol=1e-6)
    assert actual["clipped"].min() == 0 and actual["clipped"].max() == 1
    for picture in (PICTURES, PICTURES[0, ..., 0]):
        assert resize(picture, 12, 16) is picture and resample(picture, 12, 16, circular=True) is picture


def test_resize_style_reduces_it_like_the_picture_but_leaves_the_deepest_layer_a_pixel():
    def shape(shape, factor, layer):
        style = jax.ShapeDtypeStruct(shape, np.float32)
        return jax.eval_shape(lambda style: resize_style(style, factor, layers=("relu1_1", layer)), style).shape

    assert shape((64, 40, 3), 0.5, "relu1_1") == (32, 20, 3)
    assert shape((64, 40), 0.5, "relu1_1") == (32, 20)
    for layer, side in {"relu1_1": 1, "relu3_1": 4, "relu4_2": 8, "relu5_1": 16}.items():
        assert shape((57, 41), 0.02, layer) == (round(57 / 41 * side), side)
    style = PICTURES[0]
    for factor in (0.5, 1.0, 1.5):
        assert resize_style(style, factor, layers=("relu5_1",)) is style  # relu5_1 needs 16 pixels
    assert resize_style(style, 1.5, layers=("relu1_1",)) is style


@pytest.mark.slow
@pytest.mark.parametrize("most", [MOST_CONSTANT, 0], ids=["constant", "computed"])
def test_a_program_resamples_as_numpy_does(most, monkeypatch):
    monkeypatch.setattr(resample_module, "MOST_CONSTANT", most)
    actual, expected = jax.jit(lambda batch: resampled(batch))(PICTURES), resampled(PICTURES)
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=3e-6)


@pytest.mark.slow
def test_a_circular_picture_is_resized_as_the_middle_of_its_copies():
    resized = jax.jit(partial(resample, height=9, width=31, circular=True))(PICTURES[0])
    copies = jax.jit(partial(resample, height=27, width=93))(np.tile(PICTURES[0], (3, 3, 1)))
    np.testing.assert_allclose(resized, copies[9:-9, 31:-31], atol=1e-5)

import re
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxstyle.config import Config
from jaxstyle.errors import InputError
from jaxstyle.scales import half_shape, plan, resample, resize, resize_style

RNG = np.random.default_rng(0)
PICTURES: Any = RNG.uniform(size=(2, 12, 16, 3)).astype(np.float32)
SHALLOW = {"content_layers": (), "style_layers": ("relu1_1",)}


def sizes(height: int, width: int, *, steps: int = 300, **options) -> list[tuple[int, int]]:
    return [(scale.height, scale.width) for scale in plan(height, width, steps=steps, config=Config(**options))]


def refusal(height: int, width: int, *, steps: int = 100, **options) -> str:
    with pytest.raises(InputError) as caught:
        plan(height, width, steps=steps, config=Config(**options))
    return str(caught.value)


@given(
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.integers(1, 400),
    st.sampled_from(["relu1_1", "relu3_1", "relu5_1"]),
    st.sampled_from(["zeros", "circular"]),
)
def test_scales_grow_to_the_size_of_the_picture_and_share_out_all_steps(height, width, steps, layer, border):
    config = Config(content_layers=(), style_layers=("relu1_1", layer), border=border)
    scales = plan(height, width, steps=steps, config=config)
    assert scales[-1][:2] == (height, width) and sum(scale.steps for scale in scales) == steps
    longest = [max(scale[:2]) for scale in scales]
    assert longest == sorted(set(longest))
    counts = [scale.steps for scale in scales]
    assert counts == sorted(counts, reverse=True) and counts[-1] >= 1
    for scale in scales[:-1]:
        assert min(scale[:2]) >= 2 ** (int(layer[4]) - 1)
        if border == "circular":
            assert scale.height % 16 == scale.width % 16 == 0
        else:
            assert scale.height == pytest.approx(height / width * scale.width, abs=1 + height / width)


@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        (3, [1, 1, 1]),
        (7, [4, 2, 1]),  # 1 each, and 4 more by 1, 0.75 and 0.5625 over 2.3125: 1.7, 1.3 and 1.0, rounded down
        (59, [26, 19, 14]),
        (60, [30, 15, 15]),  # from 4 units of 5 steps per scale in units: 3 units, and 9 more by 3.9, 2.9 and 2.2
        (100, [45, 30, 25]),
        (303, [138, 95, 70]),
    ],
)
def test_each_scale_takes_three_quarters_of_the_steps_of_the_one_before_in_units_of_five(steps, counts):
    assert [scale.steps for scale in plan(200, 200, steps=steps, config=Config(scales=3))] == counts


def test_by_default_scales_start_near_128_pixels_and_grow_by_the_root_of_two():
    expected = {
        1: [1],
        128: [128],
        152: [152],  # below 128 times the fourth root of two
        153: [108, 153],
        256: [128, 181, 256],
        2048: [128, 181, 256, 362, 512, 724, 1024, 1448, 2048],
    }
    for longest, sides in expected.items():
        assert [max(size) for size in sizes(-(-longest // 2), longest, **SHALLOW)] == sides
        assert [max(size) for size in sizes(longest, 1 + longest // 2, **SHALLOW)] == sides


def test_scales_too_small_for_a_layer_or_too_many_for_the_steps_are_left_out():
    assert sizes(32, 512) == [(16, 256), (23, 362), (32, 512)]  # not 11x181, since relu5_1 needs 16 pixels
    assert sizes(600, 800, steps=1) == [(600, 800)]
    assert sizes(600, 800, steps=2) == [(424, 566), (600, 800)]
    assert sizes(100, 200, steps=9, scales=(1, 200), **SHALLOW) == [(1, 1), (100, 200)]


def test_scales_are_those_of_the_option():
    assert sizes(200, 200, scales=3) == [(100, 100), (141, 141), (200, 200)]
    assert sizes(100, 200, scales=1) == [(100, 200)]
    for kind in (tuple, list):
        assert sizes(100, 200, scales=kind([40, 150, 200])) == [(20, 40), (75, 150), (100, 200)]
    assert sizes(200, 100, scales=(200,)) == [(200, 100)]
    assert sizes(75, 101, scales=(50, 100)) == sizes(75, 101, scales=(50, 102)) == [(37, 50), (75, 101)]  # rounding
    many = sizes(30000, 40000, steps=30, scales=30, **SHALLOW)
    assert len(many) == 30 and many[-2:] == [(21213, 28284), (30000, 40000)]


def test_scales_of_a_tileable_picture_are_multiples_of_16():
    assert sizes(192, 256, border="circular") == [(96, 128), (128, 176), (192, 256)]
    assert sizes(40, 48, border="circular", scales=3) == [(16, 32), (32, 32), (40, 48)]
    assert sizes(32, 48, border="circular", scales=3) == [(16, 32), (32, 48)]  # two of the same size become one


def test_impossible_scales_are_refused_with_their_values():
    for scales, values in [
        ((30, 200), "30x15 .*16x16"),
        (9, "12x6 .*16x16"),
        ((150, 100, 200), "150, 100, 200 .*200"),
        ((100, 100, 200), "100, 100, 200 .*200"),
        ((100, 150), "100, 150 .*200"),
        ((100, 198), "100, 198 .*200"),
        ((100, 200, 300), "100, 200, 300 .*200"),
        ((0, 200), "0, 200 .*200"),
        ((), "200"),
        (0, "^0 scales .*1 to 30"),
        (-2, "^-2 scales"),
        (31, "^31 scales"),
    ]:
        message = refusal(100, 200, scales=scales)
        assert re.search(values, message), message


def test_too_few_steps_are_refused_with_their_number():
    for steps in (0, -1):
        assert f" {steps} steps" in refusal(200, 200, steps=steps)
    for steps in (1, 2):
        message = refusal(200, 200, steps=steps, scales=3)
        assert message.startswith(f"{steps} steps") and "3 scales" in message


def test_half_a_shape_is_rounded_and_at_least_one_pixel():
    assert half_shape(768, 1023) == (384, 512) and half_shape(1, 7) == (1, 4)


def numpy_weights(size: int, other: int, *, circular: bool, method: str) -> np.ndarray:
    """Return the weights `[other, size]` of the pixels of a side in each pixel of the resized side."""
    wide = max(1.0, size / other)  # a kernel is as wide as the larger pixels
    found = np.zeros((other, size))
    for i in range(other):
        for j in range(-4 * size, 5 * size) if circular else range(size):
            x = abs((i + 0.5) * size / other - 0.5 - j) / wide
            lanczos = np.sinc(x) * np.sinc(x / 3) * (x < 3)
            found[i, j % size] += lanczos if method == "lanczos3" else max(0.0, 1 - x)
    return found / found.sum(axis=1, keepdims=True)


@jax.jit
def resampled(batch):
    """Return a batch, a picture and a mask by kernel, and a picture clipped to its range: of one program."""
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
    found = np.asarray(resampled(PICTURES)[name])
    rows, columns = (numpy_weights(*sides, circular=circular, method=method) for sides in ((12, 20), (16, 9)))
    subscripts = "ih,hw,jw->ij" if method == "linear" else "ih,...hwc,jw->...ijc"
    expected = np.einsum(subscripts, rows, picture.astype(np.float64), columns)
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_resize_clips_to_the_range_and_returns_a_picture_of_the_same_size_itself():
    found = jax.device_get(resampled(np.round(PICTURES)))  # lanczos3 overshoots at edges
    unclipped = found["lanczos3"][0]
    assert unclipped.min() < 0 and unclipped.max() > 1
    np.testing.assert_allclose(found["clipped"], np.clip(unclipped, 0, 1), atol=1e-6)
    assert found["clipped"].min() == 0 and found["clipped"].max() == 1
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
def test_a_circular_picture_is_resized_as_the_middle_of_its_copies():
    resized = jax.jit(partial(resample, height=9, width=31, circular=True))(PICTURES[0])
    copies = jax.jit(partial(resample, height=27, width=93))(np.tile(PICTURES[0], (3, 3, 1)))
    np.testing.assert_allclose(resized, copies[9:-9, 31:-31], atol=1e-5)

"""`scripts/predict_scale.py` against arithmetic by hand."""

import math
import runpy
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxstyle import LBFGS, VGG19, Adam, Objective
from jaxstyle.networks.vgg import BLOCK_WIDTHS, CONV_LAYERS
from jaxstyle.transfer.schedule import Scale

ROOT = Path(__file__).parents[1]
KERNELS = {0: 3 * 64 + 64 * 64, 1: 64 * 128 + 128 * 128, 2: 128 * 256 + 3 * 256 * 256, 3: 256 * 512 + 3 * 512 * 512}
PRODUCTS = (
    sum(9 * kernels / 4**block for block, kernels in KERNELS.items()) + 9 * 512 * 512 / 256
)  # a pixel, to conv5_1
GRAMS = 64**2 + 128**2 / 4 + 256**2 / 16 + 512**2 / 64 + 512**2 / 256


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "predict_scale.py"))


@pytest.fixture(scope="module")
def vgg19():
    """The shapes of VGG-19."""
    channels = [3, *(width for widths in BLOCK_WIDTHS for width in widths)]
    shapes = zip(CONV_LAYERS, pairwise(channels), strict=True)
    return {name: {"kernel": jax.ShapeDtypeStruct((3, 3, *pair), jnp.float32)} for name, pair in shapes}


def test_operations_of_vgg19_equal_the_count_by_hand(script, vgg19):
    """A multiplication and an addition per product, forwards and backwards: 397 GFLOP at 512 pixels."""
    whole = script["operations"](vgg19, 512, 512, Objective(), VGG19())
    assert whole == pytest.approx(4 * (PRODUCTS + GRAMS) * 512**2) and round(whole / 1e9) == 397


def test_operations_in_tiles_add_a_first_pass_recomputation_and_margins(script, vgg19):
    """2 x 2 windows of 592 pixels for 1024 pixels: multiples of 16, with a margin of 80 around each tile."""
    tiled = script["operations"](vgg19, 1024, 1024, Objective(), VGG19(tile_pixels=592**2))
    again = sum(9 * KERNELS[block] / 4**block for block in (0, 1)) / PRODUCTS
    whole = 4 * (PRODUCTS + GRAMS) * 1024**2
    assert tiled / whole == pytest.approx((1.5 + again / 2) * (2 * 592 / 1024) ** 2)


def test_each_device_exchanges_a_row_per_convolution_and_a_gram_matrix(script, vgg19):
    """For relu1_1: 16 pixels of 3 input and 64 output channels, to two neighbours, and a Gram matrix twice."""
    objective = Objective(content={}, style={"relu1_1": 6.0})
    assert script["exchanged"](vgg19, 16, objective) == 2 * 4 * 16 * (3 + 64) + 2 * 4 * 64 * 64


def test_eight_devices_take_an_eighth_of_the_time_and_add_communication(script, vgg19):
    for side in (256, 128):
        inputs = Objective(), LBFGS(), VGG19()
        one, eight = (script["seconds"](vgg19, Scale(side, side, 1), devices, *inputs) for devices in (1, 8))
        assert eight[:3] == pytest.approx([each / 8 for each in one[:3]]) and eight[3] > one[3] == 0


def test_state_bytes_equal_the_bytes_of_the_optimizers_arrays(script):
    """Three arrays of 12 bytes per pixel for adam; for lbfgs three and two per pair, of a pyramid."""
    pyramid = 12 * sum(4.0**-i for i in range(5))
    for optimizer, arrays in ((Adam(), 36), (LBFGS(history_size=3), 9 * pyramid), (LBFGS(), 23 * pyramid)):
        assert script["state_bytes"](optimizer) == pytest.approx(arrays, rel=1e-4)


def test_the_largest_square_fills_the_memory(script):
    optimizer, memory, window = LBFGS(history_size=3), 100e9, 2**20
    side = script["largest"](optimizer, memory, 1.0, window)
    assert script["held"](side, optimizer, 1, window) == pytest.approx(memory, rel=1e-3)
    assert script["held"](2 * side, optimizer, 4, window) == pytest.approx(memory, rel=1e-3)


def test_the_largest_squares_satisfy_the_formula_of_the_documentation(script):
    """(state + 110) n + 1150 window = 0.7 (memory - 1 GiB - 67 n), for 24 GiB and windows of half a megapixel."""
    for optimizer, state in zip(script["CASES"].values(), (36, 144, 368), strict=True):
        pixels = (0.7 * 23 * 2**30 - 1150 * 2**19) / (state + 110 + 0.7 * 67)
        side = script["largest"](optimizer, *script["MEMORIES"]["`--max-memory 24GiB`"])
        assert side == pytest.approx(math.sqrt(pixels), rel=2e-3)


@pytest.mark.docs
def test_the_documentation_shows_the_tables_that_the_script_prints(script, vgg19, capsys, monkeypatch):
    monkeypatch.setitem(script["main"].__globals__, "load_params", lambda _: vgg19)
    script["main"]()
    shown = (ROOT / "docs" / "scale.md").read_text("utf-8")
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(printed) == 11 and not [line for line in printed if line not in shown]

"""What `scripts/predict_scale.py` predicts, held against arithmetic by hand."""

import math
import re
import runpy
from pathlib import Path

import pytest

from jaxstyle import Config, load_params
from jaxstyle.scales import Scale

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
    return load_params("random")  # of its shape


def test_the_arithmetic_of_vgg19_is_that_counted_by_hand(script, vgg19):
    """A multiplication and an addition a product, forwards and back: 397 GFLOP at 512 pixels."""
    whole = script["operations"](vgg19, 512, 512, Config())
    assert whole == pytest.approx(4 * (PRODUCTS + GRAMS) * 512**2) and round(whole / 1e9) == 397


def test_blocks_add_a_first_pass_what_is_done_again_and_what_windows_see_around(script, vgg19):
    """In 2 x 2 windows of 592 pixels of 1024: multiples of 16, with 80 around what is a block's own."""
    cut = script["operations"](vgg19, 1024, 1024, Config(block_pixels=592**2))
    again = sum(9 * KERNELS[block] / 4**block for block in (0, 1)) / PRODUCTS
    whole = 4 * (PRODUCTS + GRAMS) * 1024**2
    assert cut / whole == pytest.approx((1.5 + again / 2) * (2 * 592 / 1024) ** 2)


def test_devices_send_a_row_for_each_convolution_forwards_and_back(script, vgg19):
    """Of relu1_1 alone: 16 pixels of 3 channels seen and 64 made, to two neighbours, and a Gram matrix twice."""
    config = Config(content_layers=(), style_layers=("relu1_1",))
    assert script["exchanged"](vgg19, 16, config) == 2 * 4 * 16 * (3 + 64) + 2 * 4 * 64 * 64


def test_a_step_on_several_devices_is_shared_out(script, vgg19):
    for side in (256, 128):
        one, eight = (script["seconds"](vgg19, Scale(side, side, 1), Config(), devices) for devices in (1, 8))
        assert eight[:3] == pytest.approx([each / 8 for each in one[:3]]) and eight[3] > one[3] == 0


def test_states_take_what_their_arrays_take(script):
    """Three arrays of 12 bytes for adam; for lbfgs three and two for each pair, of a pyramid."""
    pyramid = 12 * sum(4.0**-i for i in range(5))
    for config, arrays in ((Config(optimizer="adam"), 36), (Config(memory=3), 9 * pyramid), (Config(), 23 * pyramid)):
        assert script["state_bytes"](config) == pytest.approx(arrays, rel=1e-4)


def test_the_largest_square_takes_what_there_is(script):
    config, memory, window = Config(memory=3), 100e9, 2**20
    side = script["largest"](config, memory, 1.0, window)
    assert script["held"](side, config, 1, window) == pytest.approx(memory, rel=1e-3)
    assert script["held"](2 * side, config, 4, window) == pytest.approx(memory, rel=1e-3)


def test_the_document_shows_what_the_script_prints(script, capsys):
    script["main"]()
    shown = (ROOT / "docs" / "scale.md").read_text("utf-8")
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(printed) == 11 and not [line for line in printed if line not in shown]


def test_the_documents_sizes_fit_its_formula():
    """(state + 110) n + 1150 window = 0.7 (memory - 1 GiB - 67 n), in the first table's first row."""
    shown = (ROOT / "docs" / "scale.md").read_text("utf-8")
    row = re.search(r"\| `--max-memory 24GiB` \| (.+) \|", shown)
    assert row is not None
    for side, state in zip(row[1].split(" | "), (36, 144, 368), strict=True):
        pixels = (0.7 * 23 * 2**30 - 1150 * 2**19) / (state + 110 + 0.7 * 67)
        assert int(side.replace(",", "")) == pytest.approx(math.sqrt(pixels), rel=2e-3)

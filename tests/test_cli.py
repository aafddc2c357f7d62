import csv
import hashlib
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import jax
import numpy as np
import pytest
from conftest import TINY, picture
from PIL import Image
from rich.console import Console

import jaxstyle
from jaxstyle import image, optimize, pretrained, weights_file
from jaxstyle.cli import kept_styles, main, preview, walk, work
from jaxstyle.cli.options import Comparison, parse_layers
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.tuning import Balance, Optimization
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.scales import Scale
from jaxstyle.untrained import random_params
from jaxstyle.vgg import BLOCK_WIDTHS

SHALLOW = ("--content-layers", "relu1_2", "--style-layers", "relu1_1")  # compiles in half the time
ADAM = ("--optimizer", "adam")  # in half of that
PROGRAM = "import sys; from jaxstyle.cli import main; sys.exit(main())"
MINE = b"an older picture"
MINI_WIDTHS = weights_file.widths(pretrained.MINI)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """A folder with the two pictures and the tiny network, to be copied."""
    folder = tmp_path_factory.mktemp("files")
    image.save(folder / "content.png", picture(32, 40, seed=0))
    image.save(folder / "style.png", picture(36, 32, seed=1))
    params = pretrained.random_params(widths=TINY, seed=1)
    weights_file.write(folder / "tiny.h5", params, source="a seed", checksum="none", licence="none")
    return folder


@pytest.fixture(autouse=True)
def folder(files, isolated, monkeypatch) -> Path:
    """Work in a folder of the test's own, away from the user's files and from the network."""
    monkeypatch.chdir(isolated)
    for path in files.iterdir():
        shutil.copy(path, isolated)
    monkeypatch.setattr(work, "WORK_A_SEGMENT", 0)  # a look after each step, as where steps are long
    return isolated


def stylize(
    *options: Any,
    content="content.png",
    style: str | tuple[str, ...] = "style.png",
    layers=SHALLOW,
    weights: str | None = "tiny.h5",
) -> int:
    """Run three steps at 32 pixels; `options` come last and so override."""
    network = ("--weights", weights) if weights else ()
    styles = (style,) if isinstance(style, str) else style
    fixed = (content, *styles, "-o", "out.png", "--size", 32, "--steps", 3, "--offline", *network, *layers)
    return main([str(argument) for argument in ("stylize", *fixed, *options)])


def logged(path="log.csv") -> list[dict[str, float]]:
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def listing() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.parts[0] != "cache"}


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size


# What a run writes


@pytest.mark.parametrize("size, expected", [(32, (32, 26)), (48, (48, 38))])
def test_a_run_replaces_the_output_with_a_picture_whose_longest_side_is_size(size, expected):
    Path("out.png").write_bytes(MINE)
    before = listing()
    assert stylize("--size", size, *ADAM) == 0
    assert size_of("out.png") == expected
    assert listing() == before


def test_a_run_changes_the_picture_and_lowers_the_total():
    assert stylize("--log", "log.csv") == 0
    source = image.load("content.png", size=32).rgb
    assert np.abs(image.load("out.png").rgb - source).mean() > 0.01
    totals = [row["total"] for row in logged()]
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("options", [(), ("--init", "noise", "--seed", 3)])
def test_the_same_command_gives_the_same_bytes(options):
    for name in ("one.png", "two.png"):
        assert stylize(*options, "-o", name) == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_the_largest_seed_gives_other_bytes_than_the_smallest():
    for name, seed in {"one.png": 0, "two.png": 2**32 - 1}.items():
        assert stylize("--init", "noise", "--seed", seed, "-o", name) == 0
    assert Path("one.png").read_bytes() != Path("two.png").read_bytes()


@pytest.mark.parametrize("init", ["style", "noise", "wide.png"])
def test_a_run_starts_from(init):
    image.save("wide.png", picture(20, 60, seed=2))
    assert stylize("--log", "content.csv") == 0
    assert stylize("--init", init, "--log", "log.csv") == 0
    assert size_of("out.png") == (32, 26)
    assert logged("content.csv")[0]["content/relu1_2"] == 0 < logged()[0]["content/relu1_2"]


def test_a_start_from_a_file_is_that_picture(monkeypatch):
    image.save("wide.png", picture(20, 60, seed=2))
    starts = []
    monkeypatch.setattr(
        optimize,
        "init",
        lambda start, *, config, real=optimize.init: starts.append(start) or real(start, config=config),
    )
    assert stylize("--init", "wide.png") == 0
    np.testing.assert_array_equal(starts[-1], image.load("wide.png", size=(32, 26)).rgb)


@pytest.mark.parametrize("name, kind", [("a.jpg", "JPEG"), ("a.webp", "WEBP"), ("a.tiff", "TIFF"), ("a.PNG", "PNG")])
def test_the_suffix_chooses_the_format(name, kind):
    assert stylize("-o", name) == 0
    with Image.open(name) as opened:
        assert opened.format == kind


def test_16_bits_give_the_same_picture_in_finer_steps():
    assert stylize("-o", "fine.png", "--bits", 16) == stylize() == 0
    fine, coarse = image.load("fine.png").rgb, image.load("out.png").rgb
    assert Path("fine.png").read_bytes()[24] == 16  # the bit depth in the header
    assert len(np.unique(fine)) > 256
    np.testing.assert_allclose(fine, coarse, atol=0.51 / 255)


def test_the_contents_alpha_is_put_back():
    alpha = np.linspace(0, 1, 32 * 40).reshape(32, 40)
    image.save("clear.png", picture(32, 40, seed=0), alpha=alpha)
    assert stylize(content="clear.png") == 0
    actual, expected = image.load("out.png").alpha, image.load("clear.png", size=32).alpha
    assert actual is not None and expected is not None
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_save_every_writes_the_picture_at_each_multiple_below_the_last_step():
    before = listing()
    assert stylize("--steps", 5, "--save-every", 2) == 0
    assert listing() - before == {"out.png", "out_0002.png", "out_0004.png"}
    assert stylize("--steps", 2, "-o", "two.png") == 0
    np.testing.assert_array_equal(image.load("out_0002.png").rgb, image.load("two.png").rgb)


@pytest.mark.parametrize(
    "halting",
    [("--tolerance", 0.1, *ADAM), pytest.param(("--learning-rate", 3, "--patience", 4), marks=pytest.mark.slow)],
    ids=["tolerance", "patience"],
)
def test_how_far_a_scale_goes_that_stops_early_does_not_depend_on_how_often_it_is_looked_at(halting, monkeypatch):
    monkeypatch.setattr(work, "WORK_A_SEGMENT", 1e12)
    found = []
    for segment in (1, 6, 10):
        monkeypatch.setattr(work, "MOST_STEPS_A_SEGMENT", segment)
        assert stylize("--scales", 2, "--steps", 120, "--log", "log.csv", *halting) == 0
        found.append((Path("out.png").read_bytes(), Path("log.csv").read_text()))
    assert found[0] == found[1] == found[2]
    assert 20 < len(logged()) < 110


def test_the_segments_of_an_accelerator_give_the_same_files(monkeypatch):
    names = ["out.png", "out_0004.png", "log.csv"]
    contents = []
    for backend in ("cpu", "gpu"):  # steps of one, and of two, the greatest common divisor
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert stylize(*ADAM, "--steps", 6, "--save-every", 4, "--log", "log.csv") == 0
        contents.append([Path(name).read_bytes() for name in names])
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("widths", "size", "steps"),
    [(BLOCK_WIDTHS, 512, 1), (BLOCK_WIDTHS, 128, 5), (MINI_WIDTHS, 512, 5), (MINI_WIDTHS, 2048, 1), (TINY, 512, 10)],
)
def test_a_segment_on_a_cpu_is_the_longer_the_less_work_a_step_is(monkeypatch, widths, size, steps):
    monkeypatch.setattr(work, "WORK_A_SEGMENT", 3e10)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    params = jax.eval_shape(lambda: random_params(widths=widths))
    nothing: Any = None
    some = work.Work(params, nothing, nothing, [], LossWeights(), Config(), "content", nothing, steps=100)
    assert some.segment(Scale(size * 3 // 4, size, steps=100)) == steps


def test_a_path_may_hold_brackets():
    Path("[").mkdir()
    assert stylize("-o", "[/b] [red].png", "--log", "[/b].csv") == 0
    assert Path("[/b] [red].png").exists()


@pytest.mark.parametrize(
    "colours",
    [(0.0, 1.0), pytest.param((0.5, 0.5), marks=pytest.mark.slow), pytest.param((0.0, 0.0), marks=pytest.mark.slow)],
)
def test_pictures_of_one_colour_give_finite_totals(colours):
    for name, colour in zip(("content.png", "style.png"), colours, strict=True):
        image.save(name, np.full((32, 40, 3), colour))
    assert stylize("--log", "log.csv", layers=()) == 0
    assert all(math.isfinite(value) for row in logged() for value in row.values())


# The log


@pytest.mark.parametrize(
    "preset, content, style, tv",
    [("jaxstyle", 1.0, 6.0, 5.0), pytest.param("neural-style-pt", 5.0, 100.0, 1e-3, marks=pytest.mark.slow)],
)
def test_the_log_has_every_term_and_the_total_is_their_sum_by_the_presets_weights(preset, content, style, tv):
    assert stylize("--preset", preset, "--log", "log.csv", layers=()) == 0
    rows = logged()
    layers = [f"style/relu{block}_1" for block in range(1, 6)]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {"step", "side", "total", "bounds", "tv", "content/relu4_2", *layers}
    for row in rows:
        expected = content * row["content/relu4_2"] + style * sum(row[layer] for layer in layers) + tv * row["tv"]
        assert row["total"] == pytest.approx(expected, rel=1e-5)


def test_weights_and_shares_of_the_command_line_make_the_total():
    layers = ("--content-layers", "relu1_2,relu2_1:3", "--style-layers", "relu1_1:1,relu2_1:0.5")
    weights = ("--content-weight", 2, "--style-weight", 9, "--tv-weight", 3)
    assert stylize(*weights, *ADAM, "--log", "log.csv", layers=layers) == 0
    for row in logged():
        parts = (
            2 * (row["content/relu1_2"] / 4 + row["content/relu2_1"] * 3 / 4),
            9 * (row["style/relu1_1"] * 2 / 3 + row["style/relu2_1"] / 3),
            3 * row["tv"],
        )
        assert row["total"] == pytest.approx(sum(parts), rel=1e-5)


# Options and presets


def preset_of(**options: Any):
    groups = {"comparison": Comparison, "balance": Balance, "optimization": Optimization}
    own = {name: {k: v for k, v in options.items() if k in vars(group())} for name, group in groups.items()}
    made: dict[str, Any] = {name: group(**own[name]) for name, group in groups.items()}
    return Stylize(Path("content.png"), (Path("style.png"),), Path("out.png"), **made)._preset()


@pytest.mark.parametrize("base", ["jaxstyle", "neural-style-pt"])
@pytest.mark.parametrize(
    "option, value",
    [
        ("pooling", "avg"),
        ("memory", 7),
        ("patience", 0),
        ("optimizer", "adam"),
        ("learning_rate", 0.5),
        ("parametrization", "pixels"),
        ("content_weight", 0.0),
        ("style_weight", 7.0),
        ("tv_weight", 0.25),
        ("content_layers", "relu3_2"),
        ("style_layers", "relu1_1,conv2_1"),
    ],
)
def test_an_option_overrides_its_preset_and_nothing_else(base, option, value):
    before, _ = preset_of(preset=base)
    after, _ = preset_of(preset=base, **{option: value})
    facts = vars(before) | vars(before.config)
    expected = tuple(value.split(",")) if "layers" in option else value
    changed = {name: now for name, now in (vars(after) | vars(after.config)).items() if now != facts[name]}
    changed.pop("config", None)
    assert changed == {option: expected}


def test_layers_are_read_with_their_shares():
    assert parse_layers("relu1_1:1, conv2_1:0.5,relu5_4") == {"relu1_1": 1.0, "conv2_1": 0.5, "relu5_4": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("relu1_1,relu1_1:2", "relu1_1 is named twice in .*: name each layer once"),
        ("relu1_1:-1", "'-1': use a finite number that is 0 or more"),
        ("relu1_1:much", "'much': use a finite number"),
        ("relu1_1:nan", "'nan': use a finite number"),
        ("relu6_1", "'relu6_1' is not a layer of VGG-19"),
        ("", "'' is not a layer of VGG-19"),
    ],
)
def test_layers_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_layers(text)


def test_layers_keep_their_shares_of_the_preset_unless_they_are_given_others():
    layers = "relu1_1,relu2_1:1"
    _, weights = preset_of(preset="gatys-code", style_layers=layers)
    assert weights.style == {"relu1_1": pytest.approx(1e3 / 64**2), "relu2_1": 1e3}


def test_what_a_preset_says_of_its_optimiser_holds_for_no_other():
    config = preset_of(preset="crowsonkb", optimizer="lbfgs")[0].config
    assert (config.averaging, config.betas, config.learning_rate) == (0.0, (0.9, 0.999), None)
    assert preset_of(preset="crowsonkb", optimizer="adam")[0].config.averaging == 0.99
    assert preset_of(preset="crowsonkb", optimizer="lbfgs", averaging=0.5)[0].config.averaging == 0.5


def test_weights_follow_the_presets_spread():
    _, shared = preset_of(style_weight=8.0, style_layers="relu1_1:1,relu2_1:3")
    _, each = preset_of(preset="neural-style-pt", style_weight=8.0, style_layers="relu1_1:1,relu2_1:3")
    assert shared.style == {"relu1_1": 2.0, "relu2_1": 6.0}
    assert each.style == {"relu1_1": 8.0, "relu2_1": 24.0}


@pytest.mark.slow
def test_neural_style_pt_truncates_the_shorter_side():
    assert stylize("--preset", "neural-style-pt", layers=()) == 0  # 25.6 pixels
    assert size_of("out.png") == (32, 25)


@pytest.mark.parametrize("options", [ADAM, ("--pooling", "avg", "--parametrization", "pixels")])
def test_a_run_lowers_the_total_with(options):
    assert stylize(*options, "--log", "log.csv") == 0
    rows = logged()
    assert rows[-1]["total"] < rows[0]["total"]


# Scales, styles, colours, regions


@pytest.mark.slow
def test_scales_are_logged_by_their_longest_side_and_the_last_has_the_size():
    assert stylize("--size", 40, "--scales", "20,40", "--steps", 4, *ADAM, "--log", "log.csv") == 0
    assert [row["side"] for row in logged()] == [20, 20, 20, 40]
    assert size_of("out.png") == (40, 32)


def test_pictures_saved_on_the_way_have_the_size_of_the_last():
    options = ("--size", 40, "--scales", 2, "--steps", 4, "--save-every", 1, *ADAM)
    assert stylize(*options) == 0
    assert {size_of(f"out_000{i}.png") for i in (1, 2, 3)} == {(40, 32)}


def test_ctrl_c_at_a_coarse_scale_saves_a_picture_of_the_full_size(monkeypatch):
    monkeypatch.setattr(walk, "_summary", interrupting(walk._summary, call=2))
    assert stylize("--size", 40, "--scales", 2, "--steps", 8, *ADAM) == 130
    assert size_of("out.png") == (40, 32)


def test_a_published_convention_has_one_scale_unless_others_are_asked_for():
    assert preset_of(preset="neural-style-pt")[0].config.scales == 1
    assert preset_of(preset="neural-style-pt", scales="auto")[0].config.scales is None
    assert preset_of(preset="neural-style-pt", scales="3")[0].config.scales == 3
    assert preset_of(scales="64,512")[0].config.scales == (64, 512)
    assert preset_of()[0].config.scales is None


def test_a_preset_brings_its_gain_for_the_pooling_that_is_asked_for():
    assert preset_of(preset="crowsonkb")[0].config.pooling_gain == 1.0
    assert preset_of(preset="crowsonkb", pooling="avg")[0].config.pooling_gain == 2.0
    assert preset_of(pooling="avg")[0].config.pooling_gain == 1.0


def test_several_styles_are_mixed_by_their_weights():
    image.save("other.png", picture(32, 32, seed=7))
    names = ("style.png", "other.png")
    for output, options in {"a.png": ("--blend", "1,0"), "b.png": ("--blend", "0,3"), "c.png": ()}.items():
        assert stylize(*options, *ADAM, "-o", output, style=names) == 0
    assert stylize(*ADAM) == 0
    first, second, both, alone = (image.load(name).rgb for name in ("a.png", "b.png", "c.png", "out.png"))
    np.testing.assert_allclose(first, alone, atol=1.01 / 255)
    assert np.abs(first - second).mean() > 0.01 and np.abs(first - both).mean() > 0.002


def test_a_style_is_shown_as_large_as_it_is_asked_for(monkeypatch):
    sizes = []
    real = kept_styles.statistics_of
    monkeypatch.setattr(kept_styles, "statistics_of", lambda *a, **k: sizes.append(a[0].shape) or real(*a, **k))
    for options in ((), ("--style-size", 20), ("--style-scale", 2)):
        assert stylize(*options, "--steps", 1, *ADAM) == 0
    assert sizes == [(32, 28, 3), (20, 18, 3), (64, 57, 3)]


def test_kept_colours_leave_a_grey_content_grey():
    image.save("grey.png", np.repeat(picture(32, 40, seed=0)[..., :1], 3, axis=-1))
    assert stylize("--color", "keep", *ADAM, content="grey.png") == 0
    rgb = image.load("out.png").rgb
    assert np.ptp(rgb, axis=-1).max() <= 1.01 / 255
    assert np.abs(rgb - image.load("grey.png", size=32).rgb).max() > 0.02


def masks(feather: int = 0) -> np.ndarray:
    """Write left.png and right.png, and return where the left one is, widened by the feather."""
    for name, columns in {"left.png": slice(0, 20), "right.png": slice(20, 40)}.items():
        mask = np.zeros((32, 40, 3))
        mask[:, columns] = 1
        image.save(name, mask)
    return np.arange(40) < 20 + feather


@pytest.mark.parametrize("feather", [0, 8])
def test_pixels_outside_of_the_mask_keep_the_contents_values_beyond_the_feather(feather):
    inside = masks(feather)
    assert stylize("--size", 40, "--content-mask", "left.png", "--feather", feather, *ADAM, "--steps", 6) == 0
    painted, source = image.load("out.png").rgb, image.load("content.png", size=40).rgb
    np.testing.assert_array_equal(painted[:, ~inside], source[:, ~inside])
    assert np.abs(painted - source)[:, :16].mean() > 0.005


def test_two_styles_in_two_regions_of_which_one_takes_part_of_its_style():
    masks()
    image.save("other.png", picture(32, 40, seed=7))
    options = ("--content-mask", "left.png", "--content-mask", "right.png", "--style-mask", "all")
    options += ("--style-mask", "right.png", "--size", "40", "--log", "log.csv")
    assert stylize(*options, *ADAM, style=("style.png", "other.png")) == 0
    rows = logged()
    assert rows[-1]["total"] < rows[0]["total"]


def test_a_run_that_levels_off_stops_and_says_so(capfd):
    assert stylize("--tolerance", 0.9, "--steps", 60, "--log", "log.csv") == 0
    assert 11 <= len(logged()) < 60
    assert "levelled off after" in capfd.readouterr().err


@pytest.mark.slow
def test_an_lbfgs_that_gets_nowhere_says_at_which_steps_it_restarted_and_stopped(capfd):
    options = ("--learning-rate", 5, "--patience", 3, "--scales", "24,32", "--steps", 60, "--log", "log.csv")
    assert stylize(*options) == 0
    said, first = " ".join(capfd.readouterr().err.split()), 1
    for side in (24, 32):
        values = [row["total"] + 1e4 * row["bounds"] for row in logged() if row["side"] == side]
        for sentence in ("its memory was restarted at step {}", "after its restart, so it stopped at step {}: if the"):
            lowest = [min(values[: i + 1]) for i in range(len(values))]
            late = next(i for i in range(3, len(values)) if lowest[i] == lowest[i - 3])
            step, values = first + late, values[late:]
            assert f"no progress in 3 steps at {side} pixels" in said and sentence.format(step) in said, (side, said)
            first = step
        assert len(values) == 1  # the stop ends the scale
        first += 1
    assert said.count("lbfgs made no progress") == 4 and f"levelled off after {first - 1} steps" in said


# Statistics

STATISTICS = ("--size", 32, "--weights", "tiny.h5", "--style-layers", "relu1_1", "--quiet")


def statistics(*arguments: Any) -> int:
    return main([str(argument) for argument in ("statistics", *STATISTICS, *arguments)])


def test_saved_statistics_paint_like_their_picture():
    assert statistics("style.png", "-o", "style.h5") == 0
    assert stylize() == stylize("-o", "again.png", style="style.h5") == 0
    np.testing.assert_allclose(image.load("out.png").rgb, image.load("again.png").rgb, atol=1.01 / 255)


def test_statistics_are_kept_for_the_halves_of_large_pictures_too():
    assert statistics("style.png", "-o", "style.h5", "--size", 600, "--scales", 1) == 0
    with h5py.File("style.h5") as file:
        assert set(file) == {"300", "600"}


def test_a_picture_and_statistics_are_mixed():
    assert statistics("style.png", "-o", "style.h5") == 0
    image.save("other.png", picture(32, 32, seed=7))
    assert stylize("--blend", "1,2", style=("other.png", "style.h5")) == 0
    assert stylize("--blend", "1,2", "-o", "again.png", style=("other.png", "style.png")) == 0
    np.testing.assert_allclose(image.load("out.png").rgb, image.load("again.png").rgb, atol=1.01 / 255)


def test_statistics_for_another_size_are_used_and_told_of(capsys):
    assert statistics("style.png", "-o", "style.h5") == 0
    assert stylize("--size", 64, *ADAM, style="style.h5") == 0
    assert "style.h5 is for pictures of 32 pixels, not 64" in capsys.readouterr().err


def test_statistics_of_a_folder_are_the_mean_over_its_pictures():
    Path("styles").mkdir()
    for i in range(2):
        image.save(f"styles/{i}.png", picture(32, 32, seed=i))
        assert statistics(f"styles/{i}.png", "-o", f"{i}.h5") == 0
    Path("styles/notes.txt").write_text("no picture")
    assert statistics("styles", "-o", "both.h5") == 0
    each: list[Any] = [h5py.File(name)["32/relu1_1/second"][()] for name in ("0.h5", "1.h5", "both.h5")]  # pyright: ignore
    np.testing.assert_allclose((each[0] + each[1]) / 2, each[2], rtol=1e-5)


@pytest.mark.slow
def test_statistics_of_another_network_are_refused(capsys):
    assert statistics("style.png", "-o", "style.h5") == 0
    assert stylize("--network", "random", style="style.h5", weights=None) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "style.h5 has the network" in said and "make it again by jaxstyle statistics" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("style.png", "-o", "style.png"), "has the suffix '.png': use .h5"),
        (("style.png", "-o", "none/style.h5"), "is a folder or lacks one"),
        ((".", "-o", "s.h5", "--size", 8), "--size is 8"),
        (("empty", "-o", "s.h5"), "The folder empty holds no picture: name one with .png, .jpg,"),
        (("missing.png", "-o", "s.h5"), "missing.png cannot be read"),
        (("-o", "s.h5"), "There is no style"),
    ],
)
def test_statistics_that_cannot_be_made_are_one_sentence(arguments, message, capsys):
    Path("empty").mkdir()
    assert statistics(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--blend", "1,2"), "--blend has 2 numbers for 1 styles"),
        (("--blend", "0"), "which sums to zero: give at least one style a weight."),
        (("--blend", "much"), "use numbers with commas"),
        (("--blend", "-1"), "finite numbers that are 0 or more"),
        (("--content-mask", "left.png", "--content-mask", "right.png"), "2 times for 1 styles"),
        (("--style-mask", "left.png", "--style-mask", "all"), "2 times for 1 styles"),
        (("--content-mask", "square.png"), "square.png is 16x16 pixels, but its picture has the shape 32x26"),
        (("--content-mask", "black.png"), "black.png is empty"),
        (("--content-mask", "missing.png"), "missing.png cannot be read"),
        (("--content-mask", "left.png", "--blend", "1"), "drop one"),
        (("--content-mask", "left.png", "--feather", "-1"), "--feather is -1"),
        (("--feather", "5"), "there is none: add one"),
        (("--style-size", 8), "--style-size is 8"),
        (("--style-scale", 0), "--style-scale is 0"),
        (("--style-mask", "notes.txt"), "notes.txt is not a picture"),
        (("--scales", "3000"), "3000 scales are none or too many"),
        (("--shift", "nan"), "--shift is nan"),
        (("--style-size", 32, "--style-scale", 2), "drop one"),
        (("--scales", "20"), "A scale is 1x1 pixels, but the deepest layer needs"),
        (("--scales", "0"), "0 scales are none"),
        (("--scales", "2.5"), "use auto, a number such as 3"),
        (("--scales", "16,24"), "do not rise to the picture's 32 pixels"),
        (("--scales", "4", "--steps", "2", *SHALLOW), "2 steps are too few for 4 scales"),
        (("--averaging", "1"), "averaging is 1.0"),
        (("--tolerance", "2"), "tolerance is 2.0"),
        (("--patience", "-1"), "patience is -1"),
    ],
)
def test_controls_that_do_not_fit_are_one_sentence(options, message, capsys):
    masks()
    image.save("square.png", np.ones((16, 16, 3)))
    image.save("black.png", np.zeros((32, 40, 3)))
    Path("notes.txt").write_text("no picture")
    assert stylize(*options, "--quiet", layers=()) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert not Path("out.png").exists()


# What it says


def test_quiet_prints_nothing(capfd):
    assert stylize("--quiet") == 0
    assert capfd.readouterr() == ("", "")


def test_a_run_reports_network_compile_time_and_totals_on_standard_error(capfd):
    assert stylize() == 0
    out, err = capfd.readouterr()
    assert out == ""
    network, summary = err.splitlines()
    assert network == "Network: vgg19, tiny.h5"
    assert summary.startswith("out.png: 3 steps in ")
    assert " steps/s; compiled in " in summary and ", total " in summary


def test_on_a_terminal_steps_slower_than_half_a_minute_have_a_speed_and_a_time_left():
    shown, now = io.StringIO(), [0.0]
    reporter = Reporter(quiet=False)
    reporter.console = Console(file=shown, force_terminal=True, width=80, color_system=None, get_time=lambda: now[0])
    with reporter.steps([(20, 4096)]) as steps:
        for _ in range(4):
            now[0] += 50.0
            steps.advance(1, {"total": 14.23, "content": 1.234, "style": 12.996})
    last = shown.getvalue().split("\r")[-2]
    assert "4/20" in last
    assert "0.02 steps/s" in last
    assert "13:20 left" in last  # 16 steps of 50 seconds
    assert "total 14.2  content 1.23  style 13" in last


@pytest.mark.parametrize("before", range(13))
def test_the_bar_is_at_the_pixels_of_the_steps_that_were_taken(before):
    plan = [(3, 10), (1, 25), (8, 70)]
    pixels = [own for count, own in plan for _ in range(count)]
    with Reporter(quiet=True).steps(plan) as steps:
        steps.go_on(before)
        [task] = steps.progress.tasks
        assert task.completed == sum(pixels[:before]) and task.total == sum(pixels)
        for taken in range(before + 1, len(pixels) + 1):
            steps.advance(1, {})
            assert task.completed == sum(pixels[:taken]) and task.fields["taken"] == f"{taken}/12"


def test_the_bar_of_a_billion_steps_takes_no_more_memory_than_that_of_one():
    tracemalloc.start()
    with Reporter(quiet=True).steps([(10**9, 4096)]) as steps:
        steps.advance(10, {})
        [task] = steps.progress.tasks
        assert task.completed == 40960 and task.fields["taken"] == "10/1000000000"
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxstyle {jaxstyle.__version__}\n"


def test_networks_lists_the_file_with_its_sha256_and_what_it_says_of_its_origin(monkeypatch, capsys):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "tiny.h5")
    assert main(["networks"]) == 0
    out = capsys.readouterr().out
    digest = hashlib.sha256(Path("tiny.h5").read_bytes()).hexdigest()
    assert [line.split() for line in out.splitlines()[:2]] == [["vgg19", "tiny.h5"], ["sha256", digest]]
    for key, text in weights_file.provenance("tiny.h5").items():
        assert f"{key} {text}" in out
    mini = out[out.index("\nmini ") :]
    assert str(pretrained.MINI) in mini and weights_file.sha256(pretrained.MINI) in mini
    for key, text in weights_file.provenance(pretrained.MINI).items():
        assert f"{key} {text}" in mini
    assert out.splitlines()[-1].split()[0] == "random"


def test_networks_says_that_the_file_named_by_the_environment_is_missing(monkeypatch, capsys):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "missing.h5")
    assert main(["networks"]) == 2
    assert "missing.h5 does not exist" in capsys.readouterr().err


def test_doctor_prints_versions_devices_and_folders(monkeypatch, capsys):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "tiny.h5")
    assert main(["doctor"]) == 0
    facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()}
    assert facts["jax"] == jax.__version__
    assert facts["jaxstyle"] == jaxstyle.__version__
    assert jax.devices()[-1].device_kind in facts["device"]
    assert facts["cache"] == os.environ["JAXSTYLE_CACHE"]
    assert "tiny.h5" in facts["weights"]


@pytest.mark.parametrize("arguments", [["--help"], ["stylize", "--help"], ["--version"]])
def test_help_imports_no_jax(arguments):
    asks = "import atexit, sys; atexit.register(lambda: print('jax imported:', 'jax' in sys.modules)); " + PROGRAM
    done = subprocess.run([sys.executable, "-c", asks, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.endswith("jax imported: False\n")


def test_help_names_every_option_of_the_issue(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["stylize", "--help"])
    options = "size steps content-weight style-weight tv-weight content-layers style-layers preset network weights"
    options += " pooling optimizer learning-rate memory parametrization init seed save-every log quiet offline preview"
    options += " scales blend style-scale style-size color content-mask style-mask feather statistic shift averaging"
    options += " tolerance patience normalize-gradients"
    shown = capsys.readouterr().out
    assert [option for option in options.split() if f"--{option} " not in shown] == []


# Ctrl-C


def interrupting(real: Any, *, call: int = 1):
    """Return `real`, except that Ctrl-C is pressed at one of its calls."""
    calls = []

    def function(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    return function


def test_ctrl_c_saves_the_picture_and_the_log_of_the_steps_taken(monkeypatch, capsys):
    assert stylize("--steps", 2, "-o", "two.png") == 0
    capsys.readouterr()
    Path("out.png").write_bytes(MINE)
    with monkeypatch.context() as patch:
        patch.setattr(image, "save", interrupting(image.save))
        assert stylize("--steps", 9, "--save-every", 2, "--log", "log.csv") == 130
    np.testing.assert_array_equal(image.load("out.png").rgb, image.load("two.png").rgb)
    assert [row["step"] for row in logged()] == [1, 2]
    assert "out.png: interrupted after 2 of 9 steps in " in capsys.readouterr().err


@pytest.mark.parametrize("module, name", [(pretrained, "load"), (optimize, "init")])
def test_ctrl_c_before_the_first_step_leaves_the_output_alone(monkeypatch, capsys, module, name):
    Path("out.png").write_bytes(MINE)
    before = listing()
    monkeypatch.setattr(module, name, interrupting(getattr(module, name)))
    assert stylize("--log", "log.csv") == 130
    assert Path("out.png").read_bytes() == MINE
    assert listing() == before
    assert capsys.readouterr().err.splitlines()[-1] == "jaxstyle: interrupted before a picture was saved."


def test_a_second_ctrl_c_while_saving_leaves_the_output_alone(monkeypatch):
    Path("out.png").write_bytes(MINE)
    monkeypatch.setattr(image, "save", interrupting(image.save))
    assert stylize() == 130
    assert Path("out.png").read_bytes() == MINE


@pytest.mark.slow
def test_sigint_ends_a_process_with_130_and_a_whole_picture(folder):
    # a shell that starts pytest in the background has SIGINT ignored, and children inherit that
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + PROGRAM
    options = "-o out.png --size 32 --steps 90000 --save-every 5 --weights tiny.h5 --log log.csv --quiet".split()
    command = [sys.executable, "-c", program, "stylize", "content.png", "style.png", *options, *SHALLOW, *ADAM]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not Path("out_00005.png").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)
    finally:
        process.kill()
    assert output == ("", "")
    assert process.returncode == 130
    assert size_of("out.png") == (32, 26)
    assert 5 <= len(logged()) < 90000
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


# What fails through nobody's fault


def assert_fails(status: int, run: int, capsys, *, saying: str) -> None:
    """Assert that a run failed with one line and no traceback, and that the output is the older picture."""
    out, err = capsys.readouterr()
    assert run == status
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("Network: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("jaxstyle: ") and lines[0].endswith(".")
    assert saying in lines[0]
    assert Path("out.png").read_bytes() == MINE


@pytest.fixture
def older():
    Path("out.png").write_bytes(MINE)


@pytest.mark.usefixtures("older")
def test_a_run_that_diverges_names_term_and_step_and_writes_nothing(capsys):
    before = listing()
    run = stylize("--learning-rate", 1e30, "--parametrization", "pixels", "--log", "log.csv")
    assert_fails(1, run, capsys, saying="bounds is inf at step 2, so there is no picture: lower the weights")
    assert listing() == before


@pytest.mark.parametrize(
    ("scales", "segment"), [*(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 1), (2, 1))), (2, 10)]
)
def test_a_run_that_diverges_keeps_the_last_picture_whose_terms_are_finite(scales, segment, monkeypatch, capsys):
    options = ("--learning-rate", 20, "--parametrization", "pixels", "--scales", scales, "--steps", 60)
    monkeypatch.setattr(work, "WORK_A_SEGMENT", 1e12)
    monkeypatch.setattr(work, "MOST_STEPS_A_SEGMENT", segment)
    assert stylize(*options) == 1
    found = re.search(r"is inf at step (\d+), so out.png is as it was after step (\d+): lower", capsys.readouterr().err)
    assert found
    bad, sound = map(int, found.groups())
    assert bad > sound + 1 == bad - 1  # the terms of a step are those of the picture before it
    assert stylize(*options, "--save-every", sound, "-o", "again.png") == 1
    np.testing.assert_array_equal(image.load("out.png").rgb, image.load(f"again_{sound:04}.png").rgb)


@pytest.mark.usefixtures("older")
def test_a_last_step_that_diverges_writes_nothing(monkeypatch, capsys):
    nothing = jax.numpy.full((26, 32, 3), np.nan)
    monkeypatch.setattr(optimize.State, "image", property(lambda _: nothing))
    assert_fails(1, stylize(), capsys, saying="the picture is not finite after step 1, so there is no picture")


@pytest.mark.usefixtures("older")
def test_a_device_without_memory_is_one_line(monkeypatch, capsys):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffer 1:\n...")

    monkeypatch.setattr(optimize, "init", exhausted)
    assert_fails(
        1, stylize(), capsys, saying="memory is too small (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes)"
    )


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(optimize, "init", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        stylize()


def removing(folder: str, real: Any):
    """Return `real`, which removes a folder whenever it is called."""

    def function(*arguments, **options):
        shutil.rmtree(folder, ignore_errors=True)
        return real(*arguments, **options)

    return function


def test_a_picture_that_cannot_go_where_it_should_is_kept_elsewhere(folder, monkeypatch, capsys):
    Path("gone").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(optimize, "init", removing("gone", optimize.init))
    assert stylize("-o", "gone/out.webp") == 1
    [kept] = folder.glob("jaxstyle-*/out.png")
    assert size_of(str(kept)) == (32, 26)
    assert str(kept) in capsys.readouterr().err.splitlines()[-1]


def test_a_record_beside_it_that_cannot_be_written_does_not_lose_the_picture(monkeypatch, capsys):
    real = optimize.init
    monkeypatch.setattr(
        optimize, "init", lambda *all_, **each: Path("out.json").mkdir(exist_ok=True) or real(*all_, **each)
    )
    assert stylize("--record") == 1
    assert size_of("out.png") == (32, 26)
    assert "jaxstyle: out.json cannot be written (Is a directory)" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_does_not_lose_the_picture(monkeypatch, capsys):
    Path("gone").mkdir()
    monkeypatch.setattr(optimize, "init", removing("gone", optimize.init))
    assert stylize("--log", "gone/log.csv") == 1
    assert size_of("out.png") == (32, 26)
    assert "The log gone/log.csv cannot be written (No such file or directory)" in capsys.readouterr().err


def online(*options: str) -> int:
    """Run without --offline and without --weights, so that a download is tried."""
    fixed = "stylize content.png style.png -o out.png --size 32 --steps 1".split()
    return main([*fixed, *SHALLOW, *ADAM, *options])


@pytest.mark.usefixtures("older")
def test_a_download_that_fails_ends_a_run_that_insists_on_vgg19(capsys):
    assert_fails(
        1, online("--network", "vgg19"), capsys, saying="cannot be downloaded from http://127.0.0.1:9/vgg19.h5"
    )
    assert [path for path in Path("cache").rglob("*")] == []


def test_a_download_that_fails_makes_auto_go_on_with_the_mini_network(capsys):
    assert online("--network", "auto") == 0
    note, network, summary = capsys.readouterr().err.splitlines()
    assert note.startswith("The mini network, a quarter of VGG-19, stands in for it: ") and "--weights" in note
    assert network == f"Network: mini, {pretrained.MINI}"
    assert summary.startswith("out.png: 1 step")


# The preview


def test_a_preview_runs_with_the_mini_network_and_says_how_long_vgg19_would_take(monkeypatch, capsys):
    monkeypatch.setattr(preview, "seconds_a_step", lambda *_, **__: 100.0)
    assert stylize("--preview", *ADAM) == 0
    network, summary, advice = capsys.readouterr().err.splitlines()
    assert network == f"Network: mini, {pretrained.MINI}" and summary.startswith("out.png: 3 steps")
    assert advice.startswith("VGG-19 would take about 5 min here for these 3 steps") and "--init out.png" in advice
    one = Path("out.png").read_bytes()
    for same in ("--network=mini", "--network=builtin", "--preview --network=mini"):
        assert stylize(*same.split(), *ADAM, weights=None) == 0
        assert Path("out.png").read_bytes() == one
    assert stylize("--init", "out.png", "-o", "next.png", *ADAM) == 0


def test_a_quiet_preview_times_nothing(monkeypatch, capsys):
    monkeypatch.setattr(preview, "seconds_a_step", lambda *_, **__: pytest.fail("timed"))
    assert stylize("--preview", "--quiet", *ADAM) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_the_time_of_a_step_is_taken_on_a_reduced_picture_and_goes_with_the_pixels(monkeypatch):
    drawn = pretrained.random_params(widths=TINY)
    monkeypatch.setattr(preview, "random_params", lambda: drawn)
    monkeypatch.setattr(preview, "SIDE", 24)
    clock = iter(range(1000))
    monkeypatch.setattr(preview, "time", SimpleNamespace(perf_counter=lambda: next(clock)))  # a step takes 1 s
    content, style = picture(32, 48, seed=0), picture(16, 60, seed=1)
    seconds = preview.seconds_a_step(content, style, LossWeights(), config=Config(optimizer="adam"))
    assert seconds == (32 * 48) / (16 * 24)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")]
)
def test_a_preview_is_kept_when_timing_ends_early(error, monkeypatch, capsys):
    def seconds_a_step(*_: object, **__: object) -> float:
        raise error

    monkeypatch.setattr(preview, "seconds_a_step", seconds_a_step)
    assert stylize("--preview", *ADAM) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "VGG-19 was not timed."
    assert size_of("out.png") == (32, 26)


def test_the_advice_is_a_command_that_the_shell_understands():
    text = preview.advice(90.4, steps=60, output=Path("my cat.png"))
    assert "about 90 s here for these 60 steps" in text
    assert "--network vgg19 --scales 1 --init 'my cat.png' and name another output." in text


@pytest.mark.usefixtures("older")
@pytest.mark.parametrize("network", ["random", "tiny.h5"])
def test_a_preview_with_another_network_is_refused(network, capsys):
    assert_fails(2, stylize("--preview", "--network", network, weights=None), capsys, saying="drop one")


# Bad input


@pytest.fixture
def bad_files(older):
    """Every kind of file that cannot be used, under a name that says which."""
    whole = Path("content.png").read_bytes()
    Path("empty.png").touch()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    Path("text.png").write_text("This is no picture.")
    Path("folder.png").mkdir()
    Path("folder.csv").mkdir()
    Image.new("RGB", (12, 9)).save("tiny.png")
    Image.new("RGB", (400, 20)).save("thin.png")
    for name in ("content.csv", "out_0002.png"):
        shutil.copy("content.png", name)
    network = Path("tiny.h5").read_bytes()
    Path("cut.h5").write_bytes(network[: len(network) // 2])
    Path("text.h5").write_text("This is no network.")
    shutil.copy("tiny.h5", "nan.h5")
    with h5py.File("nan.h5", "a") as file:
        file["conv3_1/bias"][0] = np.nan  # pyright: ignore[reportIndexIssue]


BAD_PICTURES = {
    "missing.png": "missing.png cannot be read (No such file or directory)",
    "empty.png": "empty.png is empty",
    "cut.png": "cut.png is damaged or cut short",
    "text.png": "text.png is not a picture",
    "folder.png": "folder.png cannot be read (Is a directory)",
    "tiny.png": "tiny.png is 12x9 pixels, but both sides must be at least 16",
    "thin.png": "thin.png is 32x2 pixels at size 32, but both sides must be at least 16",
}


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize("role", ["content", "style"])
@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_picture_that_cannot_be_used_is_one_sentence(name, role, capsys):
    before = listing()
    saying = BAD_PICTURES[name]
    if name == "folder.png" and role == "style":
        saying = "folder.png is a folder: make one style of its pictures by jaxstyle statistics"
    assert_fails(2, stylize(**{role: name}), capsys, saying=saying)
    assert listing() == before


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize("name", sorted(BAD_PICTURES.keys() - {"missing.png", "thin.png"}))  # any shape is resized
def test_an_initial_picture_that_cannot_be_used_is_one_sentence(name, capsys):
    before = listing()
    assert_fails(2, stylize("--init", name), capsys, saying=BAD_PICTURES[name])
    assert listing() == before


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize(
    "options, message",
    [
        ("--style-layers relu9_1", "'relu9_1' is not a layer of VGG-19"),
        ("--content-layers=", "'' is not a layer of VGG-19"),
        ("--style-layers relu1_1,relu1_1:2", "Layer relu1_1 is named twice"),
        ("--style-layers relu1_1:much", "Layer relu1_1 has the weight 'much'"),
        ("--content-layers relu1_1:-1", "Layer relu1_1 has the weight '-1'"),
        ("--preset gatys", "Preset 'gatys' is unknown"),
        ("--network random", "tiny.h5 is VGG-19's, but the network is random"),
        ("--weights missing.h5", "missing.h5 does not exist"),
        ("--weights text.h5", "text.h5 (19 bytes) is not HDF5"),
        ("--weights cut.h5", "is truncated"),
        ("--weights nan.h5", "nan.h5 holds 1 of 8 values in conv3_1/bias that are not finite"),
        ("--content-weight -1", "--content-weight is -1: use a number from 0"),
        ("--style-weight nan", "--style-weight is nan: use a number from 0"),
        ("--tv-weight inf", "--tv-weight is inf: use a number from 0 to 1e+30"),
        ("--size 8", "--size is 8: use a whole number from 16"),
        ("--size 999999", "over Pillow's limit"),
        ("--steps 0", "--steps is 0: use a whole number from 1"),
        ("--memory 0", "--memory is 0: use a whole number from 1"),
        ("--seed -1", "--seed is -1: use a whole number from 0 to 4294967295"),
        ("--seed 4294967296", "--seed is 4294967296: use a whole number from 0 to 4294967295"),
        ("--save-every -5", "--save-every is -5: use a whole number from 0"),
        ("--learning-rate 0", "learning_rate is 0.0: use a positive number"),
        ("--learning-rate nan", "learning_rate is nan: use a positive number"),
        ("--init stlye", "--init stlye is no file: use content, style, noise"),
        ("--init missing.png", "--init missing.png is no file: use content, style, noise"),
        ("-o content.png", "content.png is the same file as the input content.png"),
        ("-o ./style.png", "style.png is the same file as the input style.png"),
        ("--init out.png", "out.png is the same file as the input out.png"),
        ("--init out_0002.png --save-every 1", "out_0002.png is an input that --save-every would replace"),
        ("-o missing/out.png", "that exists and is writable"),
        ("-o folder.png", "folder.png is a folder"),
        ("-o out.gif", "out.gif has the suffix '.gif'"),
        ("-o out", "out has the suffix ''"),
        ("-o out.jpg --bits 16", "out.jpg cannot hold 16 bits a channel as JPEG"),
        ("--log log.txt", "The log log.txt has the suffix '.txt'"),
        ("--log folder.csv", "The log folder.csv is a folder"),
        ("--log missing/log.csv", "The log missing/log.csv is a folder or lacks a writable one"),
        ("--init content.csv --log content.csv", "The log content.csv is an input too"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_sentence(options, message, capsys):
    before = {path: Path(path).is_file() and Path(path).read_bytes() for path in listing()}
    assert_fails(2, stylize(*options.split()), capsys, saying=message)
    assert {path: Path(path).is_file() and Path(path).read_bytes() for path in listing()} == before


@pytest.mark.usefixtures("older")
@pytest.mark.parametrize(
    "network, message",
    [
        ("vgg16", "vgg16 is neither a file nor a network: choose from"),
        (
            "vgg19",
            "VGG-19's weights are not installed, and offline they cannot be downloaded: name a file with --weights",
        ),
    ],
)
def test_a_network_that_is_not_there_is_one_sentence(network, message, capsys):
    assert_fails(2, stylize("--network", network, weights=None), capsys, saying=message)


@pytest.mark.parametrize(
    "arguments, hint",
    [
        ("", "stylize, sweep, batch, reconstruct, texture"),
        ("stylise a b -o c.png", "stylize, sweep, batch, reconstruct, texture"),
        ("stylize content.png style.png", "--output"),
        ("stylize content.png style.png -o out.png --stepps 3", "--steps"),
        ("stylize content.png style.png -o out.png --steps three", "three"),
        ("stylize content.png style.png -o out.png --optimizer sgd", "lbfgs"),
        ("stylize content.png style.png -o out.png --bits 12", "16"),
    ],
)
def test_a_command_that_cannot_be_read_exits_with_2_and_a_hint(arguments, hint, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments.split())
    out, err = capsys.readouterr()
    assert raised.value.code == 2
    assert out == ""
    assert hint in err and "Traceback" not in err

"""`jaxstyle batch`, `texture` and `reconstruct` from their options to their files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, picture

from jaxstyle import image, optimize, pretrained, stage, weights_file
from jaxstyle.cli import main

FIXED = ("--size", 32, "--steps", 2, "--weights", "tiny.h5", "--offline", "--optimizer", "adam")
SHALLOW = ("--content-layers", "relu1_2", "--style-layers", "relu1_1")
NETWORK = ("--weights", "tiny.h5", "--offline", "--steps", 2)


@pytest.fixture(autouse=True)
def folder(isolated, monkeypatch) -> Path:
    """Work in a folder of the test's own, with two contents, two styles and a tiny network."""
    monkeypatch.chdir(isolated)
    for name, shape in {
        "contents/a": (32, 40),
        "contents/b": (40, 32),
        "styles/x": (36, 32),
        "styles/y": (32, 32),
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        image.save(f"{name}.png", picture(*shape, seed=len(name) + sum(shape)))
    params = pretrained.random_params(widths=TINY, seed=1)
    weights_file.write("tiny.h5", params, source="a seed", checksum="none", licence="none")
    return isolated


def jaxstyle(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def batch(*options: Any, contents=("contents",), styles=("styles",)) -> int:
    return jaxstyle("batch", *contents, "--styles", *styles, "-o", "out", *FIXED, *SHALLOW, *options)


def made() -> set[str]:
    return {path.name for path in Path("out").iterdir() if path.suffix != ".json"}


PAIRS = {"a_x.png", "a_y.png", "b_x.png", "b_y.png"}


@pytest.mark.parametrize("contents", [("contents",), ("contents/a.png", "contents/b.png"), ("contents/*.png",)])
def test_every_pair_of_files_folders_or_patterns_is_a_picture_as_of_stylize(contents):
    assert batch(contents=contents) == 0
    assert made() == PAIRS
    assert jaxstyle("stylize", "contents/b.png", "styles/x.png", "-o", "alone.png", *FIXED, *SHALLOW) == 0
    np.testing.assert_allclose(image.load("out/b_x.png").rgb, image.load("alone.png").rgb, atol=1.01 / 255)


def test_zipped_contents_have_a_style_each():
    assert batch("--zip", "--format", "jpg") == 0
    assert made() == {"a_x.jpg", "b_y.jpg"}


def test_a_bad_file_is_reported_and_left_out(capsys):
    Path("contents/bad.png").write_text("no picture")
    assert batch() == 1
    said = capsys.readouterr().err
    assert (
        said.count("is left out: contents/bad.png is not a picture") == 2
        and "4 made, 0 there already, 2 left out" in said
    )
    assert made() == PAIRS


def test_a_repeated_batch_skips_what_is_done_and_makes_what_changed(capsys):
    assert batch() == 0
    image.save("contents/a.png", picture(32, 40, seed=9))
    Path("out/b_y.png").unlink()
    capsys.readouterr()
    assert batch() == 0
    assert "3 made, 1 there already" in capsys.readouterr().err


def test_a_shape_compiles_once_and_a_style_is_summed_up_once(monkeypatch):
    image.save("contents/c.png", picture(32, 40, seed=9))
    lowered, summed = [], []
    real = optimize.run.lower
    monkeypatch.setattr(
        optimize.run, "lower", lambda *a, **k: lowered.append(a[0].parameters[0].shape) or real(*a, **k)
    )
    monkeypatch.setattr(stage, "style_sides", lambda *a, real=stage.style_sides, **k: summed.append(a) or real(*a, **k))
    assert batch() == 0
    assert sorted(lowered) == [(26, 32, 3), (32, 26, 3)] and len(summed) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--blend", "1"), "A batch has one style for each picture"),
        (("--zip", "--styles", "styles/x.png"), "--zip pairs 2 contents with 1 styles"),
        (("--styles", "nothing*.png"), "No file is like nothing*.png"),
        (("--styles", "styles/x.png", "styles/../styles/x.png"), "Two pictures would be called a_x.png"),
        (("-o", "tiny.h5"), "tiny.h5 cannot be made"),
    ],
)
def test_a_batch_that_cannot_be_is_one_sentence(options, message, capsys):
    assert batch(*options) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


# From noise


@pytest.mark.parametrize("options", [("--layer", "relu1_2"), ("--style-layers", "relu1_1,relu2_1")])
def test_a_reconstruction_has_the_pictures_shape(options):
    assert jaxstyle("reconstruct", "contents/a.png", "-o", "out.png", "--size", 32, *NETWORK, *options) == 0
    assert image.load("out.png").rgb.shape == (26, 32, 3)


def test_a_texture_has_the_shape_that_is_asked_for():
    options = ("--size", "48x64", "--tileable", "--style-layers", "relu1_1", "--blend", "1,2")
    assert jaxstyle("texture", "styles/x.png", "styles/y.png", "-o", "out.png", *NETWORK, *options) == 0
    assert image.load("out.png").rgb.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("texture", "styles/x.png", "--size", "big"), "--size is 'big': use height x width"),
        (("texture", "styles/x.png", "--size", "8x64"), "both sides must be at least 16"),
        (("texture", "styles/x.png", "--size", "50x64", "--tileable"), "use multiples of 16, such as 48x64"),
        (("texture", "styles/x.png", "--blend", "1,2"), "--blend has 2 numbers for 1 styles"),
        (("texture", "styles.h5"), "A texture is of pictures"),
        (("texture", "missing.png"), "missing.png cannot be read"),
        (("reconstruct", "contents/a.png", "--layer", "relu9_1"), "'relu9_1' is not a layer"),
        (("reconstruct", "contents/a.png", "--layer", "relu1_1", "--style-layers", "relu1_1"), "drop one"),
        (("reconstruct", "missing.png"), "missing.png cannot be read"),
    ],
)
def test_what_cannot_be_painted_from_noise_is_one_sentence(arguments, message, capsys):
    assert jaxstyle(*arguments, "-o", "out.png", *NETWORK) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]

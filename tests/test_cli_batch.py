"""`jaxstyle batch`, `texture` and `reconstruct` from their options to their files."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, picture

from jaxstyle import image, optimize, presets, pretrained, stage, stylize, texture, weights_file
from jaxstyle.cli import main, session
from jaxstyle.cli.batch_record import BatchRecord

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


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ('{"a.png": "00"}', {"a.png": "00"}),
        ("[" * 100_000, {}),
        ('{"a.png"', {}),
        ('{"a.png": 0}', {}),
        ("[[1, 2]]", {}),
    ],
)
def test_what_is_done_is_not_read_from_a_damaged_file(text, done):
    Path("out").mkdir()
    Path("out/batch.json").write_text(text)
    assert BatchRecord(Path("out")).read() == done


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
    real = optimize.run_in_place.lower
    monkeypatch.setattr(
        optimize.run_in_place, "lower", lambda *a, **k: lowered.append(jax.tree.leaves(a[0])[0].shape) or real(*a, **k)
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
        (("-o", "tiny.h5"), "tiny.h5 is a file"),
        (("--init", "typo"), "--init typo is no file"),
        (("--bits", 16, "--format", "jpg"), "cannot hold 16 bits a channel as JPEG"),
    ],
)
def test_a_batch_that_cannot_be_is_one_sentence(options, message, capsys):
    assert batch(*options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_inputs_of_other_pairs_survive_in_a_folder_of_their_own(capsys):
    image.save("contents/a_x.png", picture(32, 40, seed=9))
    before = Path("contents/a_x.png").read_bytes()
    assert batch("-o", "contents") == 2
    assert "contents/a_x.png is an input that would be replaced" in capsys.readouterr().err
    assert Path("contents/a_x.png").read_bytes() == before


def test_a_folder_that_holds_its_own_pictures_is_not_painted_again(capsys):
    for _ in range(2):
        assert batch("-o", "contents") == 0
    assert "0 made, 4 there already" in capsys.readouterr().err


def test_a_folder_named_otherwise_is_the_same_folder(isolated, capsys):
    assert batch() == 0
    assert batch("-o", isolated / "out") == 0
    assert "0 made, 4 there already" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["painting", "compiling"])
def test_a_batch_that_was_stopped_keeps_what_is_whole_and_goes_on(when, monkeypatch, capsys):
    real, walked = session.walk, []

    def walk(work, shown, **options):
        walked.append(when)
        for place in real(work, shown, **options):
            if len(walked) == 2 and when == "compiling":
                raise KeyboardInterrupt
            yield place
            if len(walked) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(session, "walk", walk)
    assert batch("--steps", 12) == 130
    said = capsys.readouterr().err
    assert "1 made, 0 there already" in said and "repeat the command to go on" in said
    assert batch("--steps", 12) == 0
    assert "3 made, 1 there already" in capsys.readouterr().err


def test_a_picture_that_was_painted_over_is_made_again(monkeypatch, capsys):
    assert batch() == 0
    before = Path("out/a_x.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(session, "walk", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert batch("--style-weight", 500) == 130
    Path("out/a_x.png").write_bytes(Path("out/a_y.png").read_bytes())
    capsys.readouterr()
    assert batch() == 0
    assert "1 made, 3 there already" in capsys.readouterr().err
    assert Path("out/a_x.png").read_bytes() == before


def test_memory_that_runs_out_is_the_fault_of_one_picture(monkeypatch, capsys):
    real, walked = session.walk, []

    def walk(work, shown, **options):
        walked.append(work)
        if len(walked) == 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return real(work, shown, **options)

    monkeypatch.setattr(session, "walk", walk)
    assert batch() == 1
    said = capsys.readouterr().err
    assert "is left out: memory is too small" in said and "3 made, 0 there already, 1 left out" in said


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--color", "match"), ("--init", "style"), ("--style-scale", 1.5)])
def test_a_style_that_serves_several_contents_serves_them_as_alone(options):
    assert batch(*options) == 0
    assert jaxstyle("stylize", "contents/b.png", "styles/y.png", "-o", "alone.png", *FIXED, *SHALLOW, *options) == 0
    np.testing.assert_allclose(image.load("out/b_y.png").rgb, image.load("alone.png").rgb, atol=1.01 / 255)


def test_other_weights_paint_again(capsys):
    assert batch() == 0
    params = pretrained.random_params(widths=TINY, seed=2)
    weights_file.write("tiny.h5", params, source="a seed", checksum="none", licence="none")
    assert batch() == 0
    assert capsys.readouterr().err.count("4 made") == 2


def test_programs_that_serve_no_more_are_dropped(monkeypatch):
    monkeypatch.setattr("jaxstyle.cli.batch.MOST_PROGRAMS", 1)
    dropped = []
    monkeypatch.setattr(jax, "clear_caches", lambda: dropped.append(1))
    assert batch() == 0
    assert dropped


# From noise


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--layer", "relu1_2"), ("--style-layers", "relu1_1,relu2_1")])
def test_a_reconstruction_is_the_librarys(options):
    assert jaxstyle("reconstruct", "contents/a.png", "-o", "out.png", "--size", 32, *NETWORK, *options) == 0
    layers, preset = options[1].split(","), presets.preset("jaxstyle")
    content, style = (layers, []) if options[0] == "--layer" else ([], layers)
    config = dataclasses.replace(preset.config, content_layers=tuple(content), style_layers=tuple(style))
    weights = preset.loss_weights(dict.fromkeys(content, 1.0), dict.fromkeys(style, 1.0))
    rgb = jnp.asarray(image.load("contents/a.png", size=32).rgb)
    noise = {"key": jax.random.key(0), "init": "noise"}
    params = pretrained.random_params(widths=TINY, seed=1)
    found = stylize(params, rgb, rgb, weights=weights, config=config, steps=2, **noise).image
    assert found.shape == (26, 32, 3)
    np.testing.assert_allclose(image.load("out.png").rgb, found, atol=1.01 / 255)


@pytest.mark.parametrize(
    ("options", "tileable", "blend"),
    [
        pytest.param((), False, None, marks=pytest.mark.slow),
        pytest.param(["--tileable"], True, None, marks=pytest.mark.slow),
        pytest.param(["--blend", "1,2"], False, [1, 2], marks=pytest.mark.slow),
    ],
)
def test_a_texture_is_the_librarys(options, tileable, blend):
    command = ("texture", "styles/x.png", "styles/y.png", "-o", "out.png", "--size", "48x64", *options)
    assert jaxstyle(*command, "--style-layers", "relu1_1", *NETWORK) == 0
    params = pretrained.random_params(widths=TINY, seed=1)
    styles = [jnp.asarray(image.load(f"styles/{name}.png").rgb) for name in "xy"]
    preset = presets.preset("jaxstyle")
    config = dataclasses.replace(preset.config, style_layers=("relu1_1",), content_layers=())
    weights = preset.loss_weights({}, {"relu1_1": 1.0})
    blend = None if blend is None else jnp.asarray(blend) / sum(blend)
    own = {"weights": weights, "config": config, "steps": 2, "blend": blend, "tileable": tileable}
    found = texture(params, styles, key=jax.random.key(0), height=48, width=64, **own)
    np.testing.assert_allclose(image.load("out.png").rgb, found.image, atol=1.01 / 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("texture", "styles/x.png", "--size", "big"), "--size is 'big': use height x width"),
        (("texture", "styles/x.png", "--size", "8x64"), "both sides must be at least 16"),
        (
            ("texture", "styles/x.png", "--size", "50x64", "--tileable"),
            "which does not tile: use multiples of 16, such as 48x64.",
        ),
        (("texture", "styles/x.png", "--blend", "1,2"), "--blend has 2 numbers for 1 styles"),
        (("texture", "styles.h5"), "A texture is of pictures"),
        (("texture", "styles/x.png", "--size", "20000x20000"), "over Pillow's limit of"),
        (("texture", "styles/x.png", "--seed", 2**32), "--seed is 4294967296"),
        (("reconstruct", "contents/a.png", "--layer", "relu4_2:0"), "All layers have the weight 0"),
        (("reconstruct", "contents/a.png", "--layer", ""), "is not a layer"),
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

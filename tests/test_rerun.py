"""`jaxstyle rerun`: pictures made again byte for byte, and what it says where it cannot."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, picture

from jaxstyle import image, pretrained, record, weights_file
from jaxstyle.cli import main

SHALLOW = ("--content-layers", "relu1_2", "--style-layers", "relu1_1")
SMALL = ("--size", 32, "--steps", 4, "--weights", "tiny.h5", "--quiet")
STYLIZE = ("stylize", "content.png", "style.png", *SHALLOW, *SMALL)
DIGITS = "9" * 401  # more than a float has
ADAM = ("--optimizer", "adam", "--scales", 1)


@pytest.fixture(autouse=True)
def folder(isolated, monkeypatch) -> Path:
    """Work in a folder of the test's own, with pictures, masks and a tiny network."""
    monkeypatch.chdir(isolated)
    image.save("content.png", picture(32, 40, seed=0))
    image.save("style.png", picture(36, 32, seed=1))
    image.save("other.png", picture(32, 32, seed=2))
    image.save("mask.png", np.pad(np.ones((32, 20, 3)), ((0, 0), (0, 20), (0, 0))))
    params = pretrained.random_params(widths=TINY, seed=1)
    weights_file.write("tiny.h5", params, source="a seed", checksum="none", licence="none")
    return isolated


def jaxstyle(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def made_again(name: str, *options: object) -> bool:
    status = jaxstyle("rerun", name, *options)
    again = Path(name).with_stem(f"{Path(name).stem}_rerun")
    assert again.exists()
    same = again.read_bytes() == Path(name).read_bytes()
    assert status == (0 if same else 1)
    return same


# Byte for byte: more than 20 pictures of varied settings

VARIED = [
    (),
    ("--seed", 3, "--init", "noise"),
    ("--init", "other.png", "--optimizer", "adam"),
    ("--init", "style", "--color", "keep"),
    ("--color", "match", "--style-weight", 30),
    ("--color", "histogram", "--bits", 16),
    ("--preset", "neural-style-pt"),
    ("--preset", "crowsonkb"),
    ("--preset", "gatys-paper", "--pooling", "avg"),
    ("--statistic", "mean_std", "--tv-weight", 2),
    ("--statistic", "sliced", "--seed", 7),
    ("--style-scale", 1.5, "--normalize-gradients"),
    ("--content-mask", "mask.png", "--feather", 2, "--style-mask", "all"),
    ("--scales", "2", "--save-every", 2),
    ("--optimizer", "adam", "--averaging", 0.9, "--remat"),
    ("--precision", "bfloat16", "--parametrization", "pixels"),
    ("--scales", 2, "--steps", 60, "--tolerance", 0.1, "--save-every", 3),
    ("--scales", 2, "--steps", 90, "--learning-rate", 3, "--patience", 4, "--save-every", 7),
]
KINDS = [
    ("stylize", "content.png", "style.png", "other.png", "--blend", "1,2", *SHALLOW, *SMALL, *ADAM, "-o", "out.webp"),
    ("stylize", "content.png", "style.png", "--preview", "--size", 32, "--steps", 2, *SHALLOW, *ADAM, "-o", "out.jpg"),
    ("texture", "style.png", "--size", "32x48", "--style-layers", "relu1_1", "--steps", 3, "--seed", 2, "--weights",
     "tiny.h5", "-o", "out.tiff"),
    ("reconstruct", "content.png", "--layer", "relu1_2", *SMALL, "-o", "out.png"),
]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=" ".join(map(str, options)) or "plain", marks=[] if i in (0, 2) else pytest.mark.slow)
        for i, options in enumerate(VARIED)
    ],
)
def test_a_picture_is_made_again_byte_for_byte(options):
    assert jaxstyle(*STYLIZE, *options, "-o", "out.png") == 0
    assert made_again("out.png")


@pytest.mark.slow
@pytest.mark.parametrize("command", KINDS, ids=lambda command: command[0] + Path(command[-1]).suffix)
def test_a_picture_of_any_kind_is_made_again_byte_for_byte(command):
    assert jaxstyle(*command) == 0
    assert made_again(command[-1])


def test_a_picture_of_the_way_is_made_again():
    assert jaxstyle(*STYLIZE, *ADAM, "--save-every", 2, "-o", "out.png") == 0
    assert made_again("out_0002.png")


def test_each_lane_of_a_sweep_is_made_again_as_it_was_among_the_others():
    command = ("sweep", "content.png", "style.png", *SHALLOW, *SMALL, *ADAM, "--style-weight", "1,10,100")
    assert jaxstyle(*command, "--lanes", 2, "--save-every", 3, "-o", "out") == 0
    for name in ("content.png", "style.png", "tiny.h5"):
        shutil.copy(name, "out")
    assert made_again("out/style-weight=10.png") and made_again("out/style-weight=100.png")
    assert made_again("out/style-weight=10_0003.png")


def test_a_picture_of_a_batch_is_made_again():
    assert jaxstyle("batch", "content.png", "--styles", "style.png", *SHALLOW, *SMALL, *ADAM, "-o", "out") == 0
    assert made_again("out/content_style.png", "--inputs", ".")


def test_the_files_are_found_by_what_they_hold_and_may_have_other_names(folder):
    assert jaxstyle(*STYLIZE, *ADAM, "-o", "out.png") == 0
    for directory in ("a", "b"):
        (folder / directory).mkdir()
    Path("content.png").rename("a/photograph.jpeg")
    Path("style.png").rename("a/content.png")  # the name of another
    Path("tiny.h5").rename("b/weights.h5")
    assert made_again("out.png", "--inputs", "a", "b")


def test_a_picture_that_lost_its_record_is_made_again_from_the_one_beside_it():
    assert jaxstyle(*STYLIZE, *ADAM, "--record", "-o", "out.png") == 0
    image.save("out.png", image.load("out.png").rgb)
    assert not made_again("out.png")
    assert (image.load("out.png").rgb == image.load("out_rerun.png").rgb).all()


def test_pictures_of_a_sweep_that_lost_their_records_are_made_again_from_those_beside_them():
    command = ("sweep", "content.png", "style.png", *SHALLOW, *SMALL, *ADAM, "--save-every", 2, "--record")
    assert jaxstyle(*command, "-o", "out") == 0
    for name in ("out/picture.png", "out/picture_0002.png"):
        image.save(name, image.load(name).rgb)
        assert not made_again(name, "--inputs", ".")
        assert (image.load(name).rgb == image.load(name.replace(".png", "_rerun.png")).rgb).all()


def test_another_programs_description_does_not_hide_the_record_beside_a_picture():
    assert jaxstyle(*STYLIZE, *ADAM, "--record", "-o", "out.png") == 0
    image.save("out.png", image.load("out.png").rgb, description="A CAMERA")
    assert not made_again("out.png")
    assert (image.load("out.png").rgb == image.load("out_rerun.png").rgb).all()


# What differs


def test_it_says_which_versions_differ_and_by_how_much(monkeypatch, capsys):
    assert jaxstyle(*STYLIZE, *ADAM, "-o", "out.png") == 0
    versions = record.versions()
    monkeypatch.setattr("jaxstyle.cli.recording.versions", lambda: versions | {"jax": "0.99"})
    assert not made_again("out.png")
    said = capsys.readouterr().err
    assert f"versions.jax: '{versions['jax']}' then, '0.99' now" in said
    assert "out_rerun.png differs from out.png in no pixel" in said


def test_a_picture_that_was_painted_over_is_said_to_differ(capsys):
    assert jaxstyle(*STYLIZE, *ADAM, "-o", "out.png") == 0
    rgb = image.load("out.png").rgb.copy()
    rgb[0, 0] = 1 - rgb[0, 0].round()
    image.save("out.png", rgb, description=image.description_of("out.png"))
    assert not made_again("out.png")
    assert "out_rerun.png differs from out.png in 3 of 2496 values, by " in capsys.readouterr().err


# What cannot be made again


def refused(capsys, *arguments: object, saying: str, status: int = 2) -> None:
    capsys.readouterr()
    assert jaxstyle("rerun", *arguments, "--quiet") == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("jaxstyle: ") and saying in lines[0]
    assert lines[0].endswith(".") and lines[0].isprintable()


def rewritten(**changes) -> None:
    """Save out.png with another record, as a stranger may."""
    told = json.loads(image.description_of("out.png"))
    told |= changes
    image.save("out.png", image.load("out.png").rgb, description=json.dumps(told))


def test_a_picture_without_a_record_is_refused(capsys):
    refused(capsys, "content.png", saying="content.png holds no record of a run: name a picture that")


def test_a_file_that_is_no_picture_is_refused(capsys):
    Path("notes.txt").write_text("notes")
    refused(capsys, "notes.txt", saying="notes.txt holds no record of a run")
    refused(capsys, "missing.png", saying="missing.png cannot be read (No such file or directory)")


def test_a_record_in_the_place_of_its_picture_is_refused(capsys):
    saying = "out.json is a record and no picture: name the picture that it lies beside."
    refused(capsys, "out.json", saying=saying)


def test_a_format_that_cannot_hold_the_pictures_bits_is_refused_before_anything_is_painted(capsys, monkeypatch):
    assert jaxstyle(*STYLIZE, *ADAM, "--bits", 16, "-o", "out.png") == 0
    monkeypatch.setattr("jaxstyle.cli.session.Session.run", lambda *_, **__: pytest.fail("painted"))
    refused(capsys, "out.png", "-o", "again.jpg", saying="again.jpg cannot hold 16 bits a channel as JPEG: use .png")


def test_a_missing_input_is_named_with_the_folders_that_were_searched(capsys):
    assert jaxstyle(*STYLIZE, *ADAM, "-o", "out.png") == 0
    image.save("style.png", picture(36, 32, seed=9))
    refused(capsys, "out.png", saying="was made from style.png, and no file in . has the same bytes: name the folder")
    refused(
        capsys,
        "out.png",
        "--inputs",
        "missing",
        saying="missing cannot be searched (No such file or directory): name a folder that you may",
    )


def test_another_network_is_refused(capsys):
    assert jaxstyle(*STYLIZE, *ADAM, "-o", "out.png") == 0
    params = pretrained.random_params(widths=TINY, seed=2)
    weights_file.write("tiny.h5", params, source="a seed", checksum="none", licence="none")
    refused(capsys, "out.png", "--weights", "tiny.h5", saying="out.png was painted by a vgg19 of SHA-256 ")
    refused(capsys, "out.png", "--offline", saying="VGG-19's weights are not installed")


def test_the_picture_and_its_inputs_are_not_replaced(capsys):
    assert jaxstyle(*STYLIZE, *ADAM, "-o", "out.png") == 0
    refused(capsys, "out.png", "-o", "out.png", saying="out.png is the same file as the input out.png")
    refused(capsys, "out.png", "-o", "content.png", saying="content.png is the same file as the input ")
    refused(capsys, "out.png", "-o", "folder/out.png", saying="needs a folder")


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"command": "rm"}, "holds the record of no picture that was painted"),
        ({"steps": 0}, "holds the record of no picture that was painted"),
        ({"network": {"name": "/etc/passwd", "file": "", "sha256": ""}}, "was painted by an unknown network"),
        ({"options": {"content": "/etc/passwd", "styles": [1]}}, "painted with options that stylize does not take"),
        ({"options": {"content": 0, "styles": [2]}}, "2 is no Path): use the version that made it"),
        ({"options": {"content": 0, "styles": [7]}}, "out.png was painted with options that stylize does not take"),
        ({"options": {"content": 0, "styles": [1], "init": "/etc/passwd"}}, "with options that stylize does not take"),
        ({"options": {"content": 0, "styles": [1], "saving": {"log": "/tmp/log.csv"}, "size": "x"}}, "does not take"),
        ({"options": {"content": 0, "styles": [1], "size": 10**9}}, "over Pillow's limit"),
        ({"options": {"content": 0, "styles": [1], "comparison": {"preset": "\x1b[2J"}}}, "is unknown"),
        ({"options": {"content": 0, "styles": [1], "bits": 7}}, "with options that stylize does not take"),
        ({"command": "sweep", "options": {"content": 0, "styles": [1]}, "lanes": [4]}, "This sweep has no lane 0"),
        ({"command": "sweep", "options": {"content": 0, "styles": [1]}, "lanes": [0] * 3000},
         "..., each of them once: name a picture that it has saved."),
        ({"weights": {"tv": int(DIGITS)}}, "out.png holds no record of a run (99"),
        ({"options": {"content": 0, "styles": [1], "size": int(DIGITS)}}, "9...: use a whole number from 16 to"),
        ({"options": {"content": 0, "styles": [1], "steps": 3 * 10**9}}, "--steps is 3000000000: use a whole"),
        ({"options": {"content": 0, "styles": [1], "balance": {"tv_weight": int(DIGITS)}}}, "does not take (99"),
        ({"options": {"content": 0, "styles": [1], "controls": {"feather": int(DIGITS)}}}, "9...: use a whole"),
        ({"options": {"content": 0, "styles": [9]}, "versions": {"jaxstyle": "x" * 5000}}, "that made it, xxx"),
    ],
)  # fmt: skip
def test_a_strangers_record_is_data_and_names_no_path(changes, saying, capsys):
    assert jaxstyle(*STYLIZE, *ADAM, "-o", "out.png") == 0
    rewritten(**changes)
    refused(capsys, "out.png", saying=saying)
    assert not Path("out_rerun.png").exists()


def test_options_that_say_where_to_write_are_not_taken_from_a_record(folder):
    assert jaxstyle(*STYLIZE, *ADAM, "-o", "out.png") == 0
    options = json.loads(image.description_of("out.png"))["options"]
    rewritten(options=options | {"saving": {"record": True, "log": 0}, "output": 0, "network": {"weights": 0}})
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    jaxstyle("rerun", "out.png")
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after.keys() - before.keys() == {"out_rerun.png"}
    assert {name: data for name, data in after.items() if name in before} == before

"""A run's record: what it holds, what it refuses, and the pictures that are made again from it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from jaxstyle import image, plain_data, record, weights_file
from jaxstyle.cli import main
from jaxstyle.errors import InputError

SHALLOW = ("--content-layers", "relu1_2", "--style-layers", "relu1_1", "--optimizer", "adam", "--scales", 1)
MADE = record.Record("stylize", {"size": 32}, (), record.Weights("random", "", "ab"), {}, {"tv": 1.0}, {}, "1 x cpu")


pytestmark = pytest.mark.usefixtures("folder")


def jaxstyle(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def stylize(*options: object) -> int:
    command = ("stylize", "content.png", "style.png", "-o", "out.png", "--size", 32, "--steps", 4)
    return jaxstyle(*command, *SHALLOW, "--weights", "tiny.h5", *options)


# What a record says


@pytest.mark.parametrize(
    ("name", "bits"),
    [("out.png", 8), ("out.png", 16), ("out.tiff", 8), ("out.tiff", 16), ("out.jpg", 8), ("out.webp", 8)],
)
def test_a_picture_says_what_it_was_told_to_and_looks_the_same(name, bits):
    rgb = picture(20, 30, seed=2)
    image.save("plain" + name, rgb, bits=bits)
    image.save(name, rgb, bits=bits, description=record.text(MADE))
    assert record.read(image.description_of(name)) == MADE
    assert image.description_of("plain" + name) == ""
    np.testing.assert_array_equal(image.load(name).rgb, image.load("plain" + name).rgb)
    with Image.open(name) as shown:
        shown.verify()


def test_a_record_names_settings_files_hashes_versions_and_what_came_of_it():
    assert stylize("--record", "--style-weight", 30, "--seed", 3, "--log", "log.csv") == 0
    told = record.read(image.description_of("out.png"))
    assert record.read(Path("out.json").read_text()) == told
    assert told.command == "stylize" and told.options["seed"] == 3 and told.options["balance"]["style_weight"] == 30
    assert told.options["content"] == 0 and told.options["styles"] == [1]
    assert told.inputs == tuple(record.source(Path(name)) for name in ("content.png", "style.png"))
    assert told.inputs[0].sha256 == weights_file.sha256("content.png")
    assert told.network.name == "vgg19" and told.network.file == "tiny.h5" and len(told.network.sha256) == 64
    assert told.versions["jax"] and told.versions["jaxstyle"] and told.device
    assert told.config["style_layers"] == ["relu1_1"] and told.weights["style/relu1_1"] == 30
    logged = Path("log.csv").read_text().splitlines()
    column = logged[0].split(",").index("total")
    assert told.steps == 4
    assert told.trace["total"] == tuple(float(logged[line].split(",")[column]) for line in (1, -1))


def test_equal_runs_make_equal_bytes_and_no_record_names_a_folder(folder):
    assert stylize() == 0
    before = Path("out.png").read_bytes()
    (folder / "elsewhere").mkdir()
    for name in ("content.png", "style.png", "tiny.h5"):
        shutil.copy(name, "elsewhere")
    command = ("stylize", "elsewhere/content.png", folder / "elsewhere/style.png", "-o", "elsewhere/out.png")
    options = ("--size", 32, "--steps", 4, *SHALLOW, "--network", "elsewhere/tiny.h5", "--log", "elsewhere/log.csv")
    assert jaxstyle(*command, *options) == 0
    assert Path("elsewhere/out.png").read_bytes() == before
    assert str(folder).encode() not in before and b"elsewhere" not in before


# What is no record


def told(**changes) -> str:
    return json.dumps(json.loads(record.text(MADE)) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"steps": ' + "9" * 10_000 + "}",
        " " * (record.MOST + 1),
        told(steps=True),
        told(steps="3"),
        told(steps=1.5),
        told(format="jaxstyle run 2"),
        told(inputs=["content.png"]),
        told(inputs=[{"name": "content.png"}]),
        told(weights={"tv": "much"}),
        told(trace={"total": [1.0]}),
        told(trace={"total": [1.0, True]}),
        told(more=1),
        told(network=None),
        told(config={"a": json.loads("[" * 300 + "]" * 300)}),
        told().replace("1.0", "1e999"),
        told().replace("1.0", "9" * 401),
        told().replace("1.0", "NaN"),
        told().replace("1.0", "Infinity"),
    ],
)
def test_what_is_no_record_is_refused_in_one_sentence(text):
    with pytest.raises(
        InputError, match=r"^the record holds no record of a run( \([ -~]{1,110}\))?: name a picture .*\.$"
    ):
        record.read(text)


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (int, 3, 3),
        (float, 3, 3.0),
        (str | None, None, None),
        (Literal["a", "b"] | Path, "b", "b"),
        (Literal["a", "b"] | Path, 0, Path("in.png")),
        (tuple[Path, ...], [0, 0], (Path("in.png"),) * 2),
        (tuple[float, float], [1, 2], (1.0, 2.0)),
        (dict[str, int], {"a": 1}, {"a": 1}),
    ],
)
def test_data_becomes_the_type_that_it_has_to_have(kind, value, found):
    assert plain_data.structured(kind, value, paths=[Path("in.png")]) == found


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, True),
        (int, 1.0),
        (bool, 1),
        (float, "1"),
        (float, 10**400),
        (str, 1),
        (Path, "/etc/passwd"),
        (Path, 1),
        (Path, -1),
        (Path, True),
        (Literal["a"] | Path, "/etc/passwd"),
        (Literal["a"] | Path, "c"),
        (tuple[float, float], [1.0]),
        (tuple[int, ...], {"0": 1}),
        (record.Source, {"name": "a", "sha256": "b", "path": "/etc/passwd"}),
        (record.Source, {"name": "a"}),
    ],
)
def test_data_of_another_type_names_no_path_and_is_refused(kind, value):
    with pytest.raises(ValueError):
        plain_data.structured(kind, value, paths=[Path("in.png")])


def test_differences_are_named_with_both_values():
    other = replace(MADE, options={"size": 64, "seed": 0}, device="2 x cpu")
    found = plain_data.differences(*(plain_data.plain(each, paths={}) for each in (MADE, other)))
    assert list(found) == [("options.size", 32, 64), ("options.seed", None, 0), ("device", "1 x cpu", "2 x cpu")]


def test_a_file_that_cannot_be_read_has_no_hash():
    with pytest.raises(InputError, match=r"cannot be read \(No such file.*\): name a file that you may read"):
        record.source(Path("missing.png"))

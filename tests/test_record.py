"""A run's record: its contents, invalid records, and equal records of equal runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from jaxstyle.cli import main
from jaxstyle.errors import InputError
from jaxstyle.files import sha256
from jaxstyle.images.load import load_image
from jaxstyle.images.metadata import description_of
from jaxstyle.images.save import save_image
from jaxstyle.runtime import record
from jaxstyle.runtime.options import StylizeOptions
from jaxstyle.runtime.rerun import recorded_command
from jaxstyle.runtime.sweep_report import read_entry

SHALLOW = ("--content-layers", "relu1_2", "--style-layers", "relu1_1", "--optimizer", "adam", "--scales", 1)
MADE = record.RunRecord("stylize", {"size": 32}, (), record.Weights("random", "", "ab"), {}, {"tv": 1.0}, {}, "1 x cpu")


pytestmark = pytest.mark.usefixtures("folder")


def jaxstyle(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def stylize(*options: object) -> int:
    command = ("stylize", "content.png", "style.png", "-o", "out.png", "--size", 32, "--steps", 4)
    return jaxstyle(*command, *SHALLOW, "--weights", "tiny.h5", *options)


# Contents


def test_a_picture_of_any_format_holds_its_record_and_the_same_pixels():
    rgb = picture(20, 30, seed=2)
    for name, bits in (("a.png", 8), ("a.png", 16), ("a.tiff", 8), ("a.tiff", 16), ("a.jpg", 8), ("a.webp", 8)):
        save_image("plain" + name, rgb, bits=bits)
        save_image(name, rgb, bits=bits, description=record.text(MADE))
        assert record.read(description_of(name)) == MADE
        assert description_of("plain" + name) == ""
        np.testing.assert_array_equal(load_image(name).rgb, load_image("plain" + name).rgb)
        with Image.open(name) as shown:
            shown.verify()


def test_a_record_has_settings_files_hashes_versions_and_first_and_last_terms(fake_runner):
    assert stylize("--record-file", "--style-weight", 30, "--seed", 3, "--log", "log.csv") == 0
    stated = record.read(description_of("out.png"))
    assert record.read(Path("out.json").read_text()) == stated
    assert stated.command == "stylize" and stated.options["seed"] == 3
    assert stated.options["style_weight"] == 30
    assert stated.options["content"] == 0 and stated.options["styles"] == [1]
    names = ("content.png", "style.png")
    assert stated.inputs == tuple(record.Source(name, sha256(name)) for name in names)
    assert stated.network.name == "vgg19" and stated.network.file == "tiny.h5" and len(stated.network.sha256) == 64
    assert stated.versions["jax"] and stated.versions["jaxstyle"] and stated.device
    terms = ["content/relu1_2", "style/relu1_1", "tv", "total", "range_penalty"]
    assert stated.settings["objective"]["terms"] == terms and stated.weights["style/relu1_1"] == 30
    assert stated.settings["optimizer"]["name"] == "Adam" and stated.settings["scales"] == [[26, 32, 4]]
    logged = Path("log.csv").read_text().splitlines()
    column = logged[0].split(",").index("total")
    assert stated.steps == 4
    assert stated.history["total"] == tuple(float(logged[line].split(",")[column]) for line in (1, -1))


def test_equal_runs_have_equal_bytes_and_no_record_names_a_folder(folder, fake_runner):
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


def test_a_picture_without_a_record_has_the_same_pixels_and_names_nothing(fake_runner):
    assert stylize() == 0
    described = load_image("out.png").rgb
    for output in ("none.png", "none.jpg", "none.tiff"):
        assert stylize("--no-record", "--save-every", 2, "-o", output) == 0
        for path in (Path(output), Path(output).with_stem("none_0002")):
            assert description_of(path) == ""
            assert not any(word in path.read_bytes() for word in (b"jaxstyle", b"content.png", b"sha256"))
    np.testing.assert_array_equal(load_image("none.png").rgb, described)
    assert stylize("--no-record", "--record-file") == 0
    assert description_of("out.png") == "" and record.read(Path("out.json").read_text()).command == "stylize"
    weights = ("--weights", "tiny.h5", "--size", 32, "--steps", 4, *SHALLOW, "--no-record")
    assert jaxstyle("sweep", "content.png", "style.png", "-o", "sweep", *weights) == 0
    assert description_of("sweep/picture.png") == "" and b"sha256" not in Path("sweep/picture.json").read_bytes()
    assert jaxstyle("batch", "content.png", "--styles", "style.png", "-o", "batch", *weights) == 0
    assert description_of("batch/content_style.png") == ""


# Records of version 1

OLD = {
    "command": "stylize",
    "options": {
        "content": 0,
        "styles": [1],
        "size": 32,
        "seed": 3,
        "controls": {"blend": "2", "color": "none", "content_mask": [], "feather": 0},
        "comparison": {"preset": "jaxstyle", "style_layers": "relu1_1", "scales": None},
        "balance": {"style_weight": 30, "content_layers": None},
        "optimization": {"optimizer": "lbfgs", "memory": 7, "averaging": 0.5, "patience": None},
        "computing": {"precision": "tf32", "remat": False, "devices": None, "max_memory": None},
        "bits": 16,
        "save_every": 2,
    },
    "inputs": [{"name": "content.png", "sha256": "ab"}, {"name": "style.png", "sha256": "cd"}],
    "network": {"name": "vgg19", "file": "vgg19.h5", "sha256": "ef"},
    "config": {"memory": 7, "scales": None},
    "weights": {"tv": 0.5},
    "versions": {"jaxstyle": "0.1.0"},
    "device": "2 x processor",
    "cuts": {"32": 500},
    "steps": 4,
    "trace": {"total": [2.5, 1.5]},
    "lanes": [4, 5],
    "lane": 1,
    "devices": 1,
    "format": "jaxstyle run 1",
}


def test_a_record_of_version_1_is_read_with_the_names_of_this_version():
    actual = record.read(json.dumps(OLD))
    assert actual.settings == {"memory": 7, "scales": None}
    assert (actual.format, actual.memory_plans, actual.history) == (record.FORMAT, {"32": 500}, {"total": (2.5, 1.5)})
    assert (actual.batch, actual.index, actual.steps) == ((4, 5), 1, 4)
    files = [Path("content.png"), Path("style.png")]
    paths, options, outputs = recorded_command(actual, picture=Path("old.png"), inputs=files)
    assert paths == {"content": files[0], "styles": (files[1],)}
    expected = {"size": 32, "seed": 3, "style_weights": "2", "style_layers": "relu1_1", "style_weight": 30.0}
    expected |= {"optimizer": "lbfgs", "lbfgs_history": 7, "ema_decay": 0.5, "color": "none"}
    assert options == StylizeOptions(**expected)
    assert (outputs.bits, outputs.save_every) == (16, 2)
    entry = {"picture": "a.png", "label": "a", "settings": {}, "terms": {}, "curve": [], "digest": "", "record": OLD}
    assert record.read(json.dumps(entry)) == actual
    Path("a.json").write_text(json.dumps(entry))
    read = read_entry(Path("a.json"))
    assert read is not None and read.record == actual


# Invalid records


def changed(**changes) -> str:
    return json.dumps(json.loads(record.text(MADE)) | changes)


INVALID = [
    "",
    "no JSON",
    "[]",
    "null",
    "{}",
    "[" * 100_000,
    '{"steps": ' + "9" * 10_000 + "}",
    " " * (record.MOST + 1),
    changed(steps=True),
    changed(steps="3"),
    changed(steps=1.5),
    changed(format="jaxstyle run 3"),
    changed(inputs=["content.png"]),
    changed(inputs=[{"name": "content.png"}]),
    changed(weights={"tv": "much"}),
    changed(history={"total": [1.0]}),
    changed(history={"total": [1.0, True]}),
    changed(more=1),
    changed(network=None),
    changed(settings={"a": json.loads("[" * 300 + "]" * 300)}),
    changed().replace("1.0", "1e999"),
    changed().replace("1.0", "9" * 401),
    changed().replace("1.0", "NaN"),
    changed().replace("1.0", "Infinity"),
]


def test_a_text_that_is_no_record_is_refused_in_one_sentence():
    for text in INVALID:
        sentence = r"^the record holds no record of a run( \([ -~]{1,110}\))?: name a picture .*\.$"
        with pytest.raises(InputError, match=sentence):
            record.read(text)


def test_json_data_becomes_values_of_the_annotated_type():
    cases: list[tuple[Any, Any, Any]] = [
        (int, 3, 3),
        (float, 3, 3.0),
        (str | None, None, None),
        (Literal["a", "b"] | Path, "b", "b"),
        (Literal["a", "b"] | Path, 0, Path("in.png")),
        (tuple[Path, ...], [0, 0], (Path("in.png"),) * 2),
        (tuple[float, float], [1, 2], (1.0, 2.0)),
        (dict[str, int], {"a": 1}, {"a": 1}),
    ]
    for kind, value, expected in cases:
        actual = record.structured(kind, value, paths=[Path("in.png")])
        assert actual == expected and type(actual) is type(expected)


def test_json_data_of_another_type_or_with_a_path_is_refused():
    cases: list[tuple[Any, Any]] = [
        (int, True),
        (int, 1.0),
        (bool, 1),
        (float, "1"),
        (float, True),
        (float, 10**400),
        (str, 1),
        (Path, "/etc/passwd"),
        (Path, 1),
        (Path, -1),
        (Path, True),
        (Literal["a"] | Path, "/etc/passwd"),
        (Literal["a"] | Path, "c"),
        (Literal[1], True),
        (tuple[float, float], [1.0]),
        (tuple[int, ...], {"0": 1}),
        (record.Source, {"name": "a", "sha256": "b", "path": "/etc/passwd"}),
        (record.Source, {"name": "a"}),
    ]
    for kind, value in cases:
        with pytest.raises(ValueError):
            record.structured(kind, value, paths=[Path("in.png")])


def test_differences_have_a_name_and_both_values():
    other = replace(MADE, options={"size": 64, "seed": 0}, device="2 x cpu")
    actual = record.differences(*(record.plain(each, paths={}) for each in (MADE, other)))
    assert list(actual) == [("options.size", 32, 64), ("options.seed", None, 0), ("device", "1 x cpu", "2 x cpu")]
    assert list(record.differences([{"a": [1, 2]}], [{"a": [1, 3]}])) == [(" 1.a 2", 2, 3)]
    assert list(record.differences([1], [1, 2], name="batch")) == [("batch", [1], [1, 2])]


def test_the_hash_of_an_unreadable_file_is_an_error():
    with pytest.raises(InputError, match=r"cannot be read \(No such file.*\): name a file that you may read"):
        sha256("missing.png")

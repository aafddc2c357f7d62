"""Files that cannot be used: weights, statistics and pictures that are damaged or do not fit; outputs that fail."""

import csv
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pooch
import pytest
from conftest import TINY
from PIL import Image

from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.images.save import save_image
from jaxstyle.losses import statistics_io
from jaxstyle.losses.moments import Moments
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.wasserstein import LEVELS, Quantiles
from jaxstyle.networks import pretrained, weights_io
from jaxstyle.networks.pretrained import MD5
from jaxstyle.networks.vgg import VGG19
from jaxstyle.runtime.inputs import load_mask

SMALL = "--size 32 --steps 2 --quiet --offline --weights tiny.h5"
STYLIZE = f"stylize content.png style.png -o out.png {SMALL}"
LAYER = Objective(content={}, style={"relu1_1": 1.0})


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def edited(path: str, name: str, **dataset: Any) -> None:
    """Delete the data set `name` and create another one in its place, if any is given."""
    with h5py.File(path, "a") as file:
        del file[name]
        if dataset:
            file.create_dataset(name, **dataset)


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        read()
    return str(caught.value)


# Networks


@pytest.mark.usefixtures("folder")
def test_weights_with_a_missing_or_wrong_data_set_are_refused():
    for name, dataset, mentioned in [
        ("conv2_2", {}, "lacks 1 of VGG-19's 16 convolutions (conv2_2)"),
        ("conv2_2/bias", {}, "lacks 'conv2_2/bias'"),
        ("conv1_1/bias", {"data": np.zeros(4, "i4")}, "conv1_1 as float32 and int32"),
        ("conv1_1/bias", {"data": np.zeros(9, "f4")}, "conv1_1 of shapes (3, 3, 3, 4) and (9,)"),
        ("conv1_1/bias", {"shape": (4,), "dtype": "f4", "external": [("/dev/zero", 0, 16)]}, "conv1_1 elsewhere"),
        ("conv5_4", {"data": np.zeros(4)}, "damaged"),
        ("conv1_1/bias", {"data": np.full(4, np.inf, "f4")}, "4 of 4 values in conv1_1/bias that are not finite"),
        ("conv1_1/bias", {"data": np.zeros(4, "f4"), "chunks": (4,), "compression": "gzip"}, "conv1_1 compressed"),
    ]:
        shutil.copy("tiny.h5", "a.h5")
        edited("a.h5", name, **dataset)
        message = refusal(lambda: weights_io.read("a.h5"))
        assert message.startswith("a.h5 ") and mentioned in message, message


def test_links_folders_devices_and_empty_files_are_refused_as_weights(refused):
    edited("tiny.h5", "conv1_1/bias")
    with h5py.File("tiny.h5", "a") as file:
        file["conv1_1/bias"] = h5py.SoftLink("/conv1_2/bias")
    Path("folder").mkdir()
    Path("empty.h5").touch()
    for path, mentioned in [
        ("tiny.h5", "'conv1_1/bias' by a link"),
        ("folder", "is a folder"),
        (os.devnull, "is no regular file"),
        ("empty.h5", "is empty"),
    ]:
        assert mentioned in refusal(lambda path=path: weights_io.read(path))
    status, sentence = refused(*STYLIZE.split())
    assert "tiny.h5 reaches 'conv1_1/bias' by a link" in sentence and status == 2


def test_networks_that_cannot_be_chosen_are_refused(refused, monkeypatch):
    monkeypatch.setattr(pretrained, "BLOCK_WIDTHS", TINY)
    shutil.copy("tiny.h5", "other.h5")
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", ".")
    assert ". holds 2 files of VGG-19" in refusal(lambda: pretrained.find("auto"))
    Path("folder").mkdir()
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "folder")
    assert "$JAXSTYLE_WEIGHTS is folder, " in refusal(lambda: pretrained.find("auto"))
    assert refused("networks")[0] == 2
    monkeypatch.setattr(pretrained, "MINI", Path("none.h5"))
    assert "none.h5 does not exist" in refusal(lambda: pretrained.find("mini"))


def test_a_download_with_another_checksum_ends_a_command_with_status_1(refused, monkeypatch):
    page = b"Please log in."
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda _, __, path, ___: Path(path).write_bytes(page))
    status, sentence = refused("stylize", "content.png", "style.png", "-o", "out.png", "--network", "vgg19")
    assert hashlib.md5(page).hexdigest() in sentence and MD5 in sentence and status == 1


# Statistics


@pytest.fixture
def style(folder) -> Callable[..., None]:
    """Write style.h5, statistics of the first layer of the tiny network: zeros of the given shapes."""
    params: Any = weights_io.read("tiny.h5")

    def write(kind: type = Moments, objective: Objective = LAYER, **shapes: tuple[int, ...]) -> None:
        parts = shapes or {"mean": (4,), "second": (4, 4)}
        summary = kind(**{name: np.zeros(shape, np.float32) for name, shape in parts.items()})
        statistics_io.write("style.h5", {32: {"relu1_1": summary}}, params=params, objective=objective, pictures=[])

    return write


def test_damaged_statistics_and_statistics_of_other_options_are_refused(style):
    params: Any = weights_io.read("tiny.h5")
    options: dict[str, Any]
    for options, mentioned in [
        ({"objective": LAYER, "network": VGG19(pooling="avg")}, "pooling 'max times 1' 'avg times 1'"),
        ({"objective": replace(LAYER, style={"relu2_1": 1.0})}, "lacks '32/relu2_1/mean'"),
    ]:
        style()
        message = refusal(lambda options=options: statistics_io.read("style.h5", params=params, **options))
        assert all(word in message for word in mentioned.split()), message
    for name, dataset, mentioned in [
        ("32", {}, "holds 0 groups, not 1 to 64"),
        ("32/relu1_1/mean", {"data": np.zeros(4)}, "32/relu1_1/mean in another form than (4,)"),
        ("32/relu1_1/mean", {"data": np.full(4, np.nan, "f4")}, "32/relu1_1/mean that are not finite"),
    ]:
        style()
        edited("style.h5", name, **dataset)
        message = refusal(lambda: statistics_io.read("style.h5", params=params, objective=LAYER))
        assert message.startswith("style.h5 ") and mentioned in message, message


def test_options_that_need_the_pixels_of_a_style_are_refused_with_statistics(refused, style, fake_runner):
    style()
    command = STYLIZE.replace("style.png", "style.h5") + " --style-layers relu1_1"
    for options, mentioned in [
        ("--style-size 32", "style.h5 --style-size"),
        ("--color keep", "style.h5 --color"),
    ]:
        status, sentence = refused(*command.split(), *options.split())
        assert all(word in sentence for word in mentioned.split()) and status == 2, sentence
    style(Quantiles, replace(LAYER, statistic="sliced"), directions=(4, 4), values=(4, LEVELS))
    command = command.replace("style.h5", "style.png style.h5") + " --statistic sliced"
    status, sentence = refused(*command.split())
    assert "'sliced'" in sentence and "mix the pictures" in sentence and status == 2


# Pictures


def test_a_picture_with_values_above_1_is_refused(tmp_path):
    Image.fromarray(np.full((32, 32), 255, np.float32)).save(tmp_path / "style.tiff")
    assert "holds values from 255 to 255, " in refusal(lambda: load_image(tmp_path / "style.tiff"))


def test_an_empty_mask_is_refused(folder):
    save_image("black.png", np.zeros((32, 40, 3)))
    options: Any = {"height": 32, "width": 40, "option": "--content-mask", "max_pixels": None}
    sentence = refusal(lambda: load_mask(Path("black.png"), **options))
    assert "--content-mask black.png is empty" in sentence


def test_a_batch_skips_a_missing_picture_and_ends_with_status_1(refused):
    status, sentence = refused("batch", "none.png", "--styles", "style.png", "-o", "out", *SMALL.split())
    assert sentence.startswith("none_style.png ") and "none.png cannot be read" in sentence and status == 1


# Outputs


@pytest.fixture
def temporary(refused, fake_runner, monkeypatch) -> None:
    """Run nothing, and put temporary files into the folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(Path.cwd()))


@pytest.mark.usefixtures("temporary")
def test_a_picture_that_its_format_cannot_hold_is_saved_as_a_temporary_png(refused, fake_runner, monkeypatch):
    monkeypatch.setattr(type(fake_runner), "picture_of", lambda *_: np.zeros((16, 16384, 3), np.float32))
    fake_runner.install(monkeypatch)
    status, sentence = refused(*STYLIZE.replace("out.png", "out.webp").split())
    [saved] = Path.cwd().glob("jaxstyle-*/out.png")
    assert "out.webp" in sentence and "16384x16" in sentence and str(saved) in sentence and status == 2
    assert load_image(saved).rgb.shape == (16, 16384, 3)


@pytest.mark.usefixtures("temporary")
def test_a_full_disk_ends_a_run_with_status_1(refused, monkeypatch):
    monkeypatch.setattr(os, "replace", full)
    status, sentence = refused(*STYLIZE.split())
    assert "out.png cannot be written (No space left on device)" in sentence and "temporary folder" in sentence
    assert status == 1


@pytest.mark.usefixtures("temporary")
def test_a_log_that_cannot_be_written_ends_a_run_with_status_1_after_the_picture(refused, monkeypatch):
    monkeypatch.setattr(csv, "DictWriter", full)
    status, sentence = refused(*STYLIZE.split(), "--log", "log.csv")
    assert "log.csv cannot be written (No space left on device)" in sentence and status == 1
    assert load_image("out.png").rgb.shape == (32, 32, 3)


@pytest.mark.usefixtures("temporary")
def test_a_record_of_a_batch_that_cannot_be_written_ends_it_with_status_1(refused):
    Path("out/batch.json").mkdir(parents=True)
    status, sentence = refused("batch", "content.png", "--styles", "style.png", "-o", "out", *SMALL.split())
    assert "out/batch.json cannot be written (Is a directory)" in sentence and status == 1
    assert not Path("out/content_style.png").exists()  # it is found before the steps


def test_statistics_that_cannot_be_written_end_a_command_with_status_1(style, monkeypatch):
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"style\.h5 cannot be written \(No space left on device\)"):
        style()


def test_an_output_that_is_a_file_or_a_folder_where_the_other_is_needed_is_refused(refused):
    for command, mentioned, expected in [
        ("sweep content.png style.png -o content.png/out", "content.png/out cannot be used (Not a directory)", 2),
        ("batch content.png --styles style.png -o content.png/out", "content.png/out (Not a directory)", 2),
        ("sweep content.png style.png -o style.png", "style.png is a file", 2),
        ("sweep content.png style.png -o out", "out/sweep.csv is a folder", 2),
    ]:
        Path("out/sweep.csv").mkdir(parents=True, exist_ok=True)
        status, sentence = refused(*command.split())
        assert all(word in sentence for word in mentioned.split()) and status == expected, sentence


def test_a_record_that_cannot_be_written_or_would_replace_an_input_is_refused(refused):
    commands = [
        "stylize content.png style.png -o content_style.png --record-file",
        "texture style.png -o content_style.png --record-file",
        "batch content.png --styles style.png -o . --record-file",
    ]
    Path("content_style.json").mkdir()
    for command in commands:
        status, sentence = refused(*command.split())
        assert "content_style.json" in sentence and "--record-file" in sentence and status == 2, sentence
    Path("content_style.json").rmdir()
    Path("content_style.json").symlink_to("none/elsewhere.json")
    status, sentence = refused(*commands[0].split())
    assert "content_style.json" in sentence and "--record-file" in sentence and status == 2
    Path("content.png").rename("out.json")
    status, sentence = refused("stylize", "out.json", "style.png", "-o", "out.png", "--record-file")
    assert "out.json is an input" in sentence and "--record-file" in sentence and status == 2

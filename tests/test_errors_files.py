"""What the command line says and returns where a file cannot be read or written, or a network cannot be had."""

import csv
import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
import pooch
import pytest
from conftest import TINY
from PIL import Image

from jaxstyle import download, image, image_limits, load_params, pretrained, statistics_file
from jaxstyle.cli import session
from jaxstyle.cli.walk import Place
from jaxstyle.cli.work import Work
from jaxstyle.config import Config
from jaxstyle.moments import Moments
from jaxstyle.optimize import State
from jaxstyle.parametrize import Parameters
from jaxstyle.transport import LEVELS, Quantiles

LAYERS = "--style-layers relu1_1 --content-layers relu1_1 --optimizer adam".split()
SMALL = ("--size", 32, "--steps", 1, "--quiet", "--offline", "--weights", "tiny.h5", *LAYERS)


def stylize(*options: object, style="style.png") -> list[object]:
    return ["stylize", "content.png", *style.split(), "-o", "out.png", *SMALL, *options]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def edited(path: str, name: str, **dataset: Any) -> None:
    """Put another data set, if any, in the place of `name`."""
    with h5py.File(path, "a") as file:
        del file[name]
        if dataset:
            file.create_dataset(name, **dataset)


# Networks


@pytest.mark.parametrize(
    ("name", "dataset", "saying"),
    [
        ("conv2_2", {}, "tiny.h5 lacks 1 of VGG-19's 16 convolutions (conv2_2): download or convert"),
        ("conv2_2/bias", {}, "tiny.h5 lacks 'conv2_2/bias': download or convert the file again"),
        (
            "conv1_1/bias",
            {"data": np.zeros(4, "i4")},
            "tiny.h5 holds conv1_1 as float32 and int32, but kernel and bias are to be floats: download",
        ),
        (
            "conv1_1/bias",
            {"data": np.zeros(9, "f4")},
            "tiny.h5 holds conv1_1 of shapes (3, 3, 3, 4) and (9,), not (3, 3, 3, n) and (n,), n from 1 to 512: dow",
        ),
        (
            "conv1_1/bias",
            {"shape": (4,), "dtype": "f4", "external": [("/dev/zero", 0, 16)]},
            "tiny.h5 keeps conv1_1 elsewhere or in oversized pieces, which is not read: download",
        ),
        ("conv5_4", {"data": np.zeros(4)}, " bytes) is damaged: download or convert the file again"),
        (
            "conv1_1/bias",
            {"data": np.full(4, np.inf, "f4")},
            "tiny.h5 holds 4 of 4 values in conv1_1/bias that are not finite: download",
        ),
    ],
)
def test_weights_that_are_not_whole_end_a_run_with_status_2(name, dataset, saying, refused):
    edited("tiny.h5", name, **dataset)
    status, sentence = refused(*stylize())
    assert saying in sentence and status == 2


def test_weights_that_are_reached_by_a_link_end_a_run_with_status_2(refused):
    edited("tiny.h5", "conv1_1/bias")
    with h5py.File("tiny.h5", "a") as file:
        file["conv1_1/bias"] = h5py.SoftLink("/conv1_2/bias")
    status, sentence = refused(*stylize())
    assert "reaches 'conv1_1/bias' by a link, which is not followed: download" in sentence and status == 2


@pytest.mark.parametrize(
    ("name", "saying"),
    [
        ("folder", "folder is a folder: give the HDF5 file itself."),
        (os.devnull, "is no regular file: give an HDF5 file on disk."),
        ("empty.h5", "empty.h5 is empty: download or convert the file again, as weights/README.md tells."),
    ],
)
def test_weights_that_are_no_file_end_a_run_with_status_2(name, saying, refused):
    Path("folder").mkdir()
    Path("empty.h5").touch()
    status, sentence = refused(*stylize("--weights", name))
    assert saying in sentence and status == 2


def test_weights_of_somebody_else_end_a_run_with_status_2(refused, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(h5py, "File", refuse)
    assert refused(*stylize()) == (2, "tiny.h5 may not be read by this user: change its permissions.")


def test_two_networks_in_one_folder_end_a_run_with_status_2(refused, monkeypatch):
    monkeypatch.setattr(pretrained, "BLOCK_WIDTHS", TINY)
    shutil.copy("tiny.h5", "other.h5")
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", ".")
    saying = ". holds 2 files of VGG-19: pass one as --weights or rename it to vgg19.h5."
    assert refused("networks") == (2, saying)


def test_a_variable_that_names_no_network_ends_a_run_with_status_2(refused, monkeypatch):
    Path("folder").mkdir()
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "folder")
    saying = "$JAXSTYLE_WEIGHTS is folder, where no .h5 file holds VGG-19: put one there or unset it."
    assert refused("networks") == (2, saying)


def test_a_damaged_mini_network_ends_a_run_with_status_2(refused, monkeypatch):
    monkeypatch.setattr(pretrained, "MINI", Path("none.h5"))
    saying = "The mini network of this installation is damaged (none.h5 does not exist): install jaxstyle anew."
    assert refused("stylize", "content.png", "style.png", "-o", "out.png", "--network", "mini") == (2, saying)


def test_a_download_of_something_else_ends_a_run_with_status_1(refused, monkeypatch):
    page = b"Please log in."
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda _, __, path, ___: Path(path).write_bytes(page))
    status, sentence = refused("stylize", "content.png", "style.png", "-o", "out.png", "--network", "vgg19")
    saying = f"has the MD5 {hashlib.md5(page).hexdigest()} instead of {download.MD5}: name a file with --weights"
    assert saying in sentence and status == 1


# Statistics


def statistics(path: str, **parts: tuple[int, ...]) -> None:
    """Write statistics of the tiny network's first layer: zeros, or quantiles if `parts` are theirs."""
    kind = Quantiles if "values" in parts else Moments
    shapes = {"mean": (4,), "second": (4, 4)} if kind is Moments else parts
    config = Config(content_layers=(), style_layers=("relu1_1",), statistic="sliced" if parts else "gram")
    summary = kind(**{name: jnp.zeros(shape) for name, shape in shapes.items()})
    params = load_params(weights="tiny.h5")
    statistics_file.write(path, {32: {"relu1_1": summary}}, params=params, config=config, pictures=[])


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ("--style-size 32", "style.h5 holds statistics, of fixed size and part: drop --style-size, --style-scale and"),
        ("--color keep", "style.h5 holds statistics, which have no colours to change: drop --color or pass a picture."),
        ("--pooling avg", "style.h5 has the pooling 'max times 1', but this run has 'avg times 1': make it again by"),
        ("--style-layers relu2_1", "style.h5 lacks '32/relu2_1/mean': make it again by jaxstyle statistics."),
        ("--init style --scales 1", "The initial image is the style's, which has no picture: start from content or"),
    ],
)
def test_statistics_that_do_not_serve_end_a_run_with_status_2(options, saying, refused):
    statistics("style.h5")
    status, sentence = refused(*stylize(*options.split(), style="style.h5"))
    assert saying in sentence and status == 2


@pytest.mark.parametrize(
    ("name", "dataset", "saying"),
    [
        ("32", {}, "style.h5 holds 0 groups, not 1 to 64 sizes: make it again by jaxstyle statistics."),
        ("32/relu1_1/mean", {"data": np.zeros(4)}, "holds 32/relu1_1/mean in another form than (4,): make it again"),
        (
            "32/relu1_1/mean",
            {"data": np.full(4, np.nan, "f4")},
            "style.h5 holds values in 32/relu1_1/mean that are not finite: make it again",
        ),
    ],
)
def test_statistics_that_are_damaged_end_a_run_with_status_2(name, dataset, saying, refused):
    statistics("style.h5")
    edited("style.h5", name, **dataset)
    status, sentence = refused(*stylize(style="style.h5"))
    assert saying in sentence and status == 2


def test_statistics_with_directions_of_their_own_are_not_mixed(refused):
    statistics("style.h5", directions=(4, 4), values=(4, LEVELS))
    saying = "Statistics of 'sliced' have directions of their own: mix the pictures instead."
    assert refused(*stylize("--statistic", "sliced", style="style.png style.h5")) == (2, saying)


# Pictures


def test_a_picture_with_values_out_of_range_ends_a_run_with_status_2(refused):
    Image.fromarray(np.full((32, 32), 255, np.float32)).save("style.tiff")
    saying = "style.tiff holds values from 255 to 255, but its kind runs from 0 (black) to 1 (white): rescale it."
    assert refused(*stylize(style="style.tiff")) == (2, saying)


def test_a_picture_too_large_to_say_how_large_ends_a_run_with_status_2(refused, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    monkeypatch.setattr(image_limits, "declared_size", lambda *_, **__: (16, 16))  # as of a WebP in newer Pillows
    status, sentence = refused(*stylize())
    assert sentence.startswith("content.png is too large (") and sentence.endswith("): shrink it first.")
    assert status == 2


def test_an_empty_mask_ends_a_run_with_status_2(refused):
    image.save("black.png", np.zeros((32, 32, 3)))
    saying = "--content-mask black.png is empty: paint the region white on black."
    assert refused(*stylize("--content-mask", "black.png")) == (2, saying)


def test_a_picture_that_is_not_there_is_left_out_of_a_batch_with_status_1(refused):
    status, sentence = refused("batch", "none.png", "--styles", "style.png", "-o", "out", *SMALL)
    saying = "none_style.png is left out: none.png cannot be read (No such file or directory): name a picture file."
    assert (status, sentence) == (1, saying)


# What cannot be written


@pytest.fixture
def painted(refused, monkeypatch) -> list[int]:
    """Have a run paint black of a shape that may be changed, and temporary files be in the test's own folder."""
    shape, trace = [32, 32, 3], {"total": np.zeros(1)}

    def walk(*_, **__):
        yield Place(
            0, 1, State(Parameters((), lambda _: jnp.zeros(())), None), jnp.zeros(shape), np.full(1, 32), trace, {}
        )

    monkeypatch.setattr(session, "walk", walk)
    monkeypatch.setattr(Work, "finish", lambda _, painted: painted)
    monkeypatch.setattr(tempfile, "tempdir", str(Path.cwd()))
    return shape


def test_a_picture_that_its_format_cannot_hold_is_kept_elsewhere_with_status_2(refused, painted):
    painted[:2] = 16, 16384
    status, sentence = refused(*stylize("-o", "out.webp"))
    [kept] = Path.cwd().glob("jaxstyle-*/out.png")
    assert sentence.startswith("out.webp cannot hold 16384x16 pixels as WEBP (")
    assert sentence.endswith(f"): save it as PNG; until then the picture is {kept}.") and status == 2


@pytest.mark.usefixtures("painted")
def test_a_full_disk_ends_a_run_with_status_1(refused, monkeypatch):
    monkeypatch.setattr(os, "replace", full)
    status, sentence = refused(*stylize())
    assert (
        "out.png cannot be written (No space left on device): free space or use another folder; nor is there room"
        in sentence
    )
    assert status == 1


@pytest.mark.usefixtures("painted")
def test_a_log_that_cannot_be_written_ends_a_run_with_status_1(refused, monkeypatch):
    monkeypatch.setattr(csv, "DictWriter", full)
    saying = "The log log.csv cannot be written (No space left on device), but the picture is: free space or name"
    status, sentence = refused(*stylize("--log", "log.csv"))
    assert sentence.startswith(saying) and status == 1


@pytest.mark.usefixtures("painted")
def test_a_record_of_a_batch_that_cannot_be_written_ends_it_with_status_1(refused):
    Path("out/batch.json").mkdir(parents=True)
    status, sentence = refused("batch", "content.png", "--styles", "style.png", "-o", "out", *SMALL)
    assert "out/batch.json cannot be written (Is a directory): free space or use another folder." in sentence
    assert status == 1


@pytest.mark.parametrize("command", ["sweep content.png style.png", "batch content.png --styles style.png"])
def test_a_folder_that_cannot_be_made_ends_a_command_with_status_1(command, refused):
    saying = "content.png/out cannot be made (Not a directory): name another folder."
    assert refused(*command.split(), "-o", "content.png/out") == (1, saying)


def test_a_folder_in_the_place_of_a_sweeps_table_ends_it_with_status_2(refused):
    Path("out/sweep.csv").mkdir(parents=True)
    saying = "out/sweep.csv is a folder, where the sweep writes a file: name another folder."
    assert refused("sweep", "content.png", "style.png", "-o", "out") == (2, saying)


def test_statistics_that_cannot_be_written_end_a_command_with_status_1(refused, monkeypatch):
    monkeypatch.setattr(os, "replace", full)
    small = ("--size", 32, "--weights", "tiny.h5", "--style-layers", "relu1_1", "--quiet")
    saying = "style.h5 cannot be written (No space left on device): free space or use another folder."
    assert refused("statistics", "style.png", "-o", "style.h5", *small) == (1, saying)


def test_a_file_in_the_place_of_a_folder_ends_a_sweep_with_status_2(refused):
    saying = "style.png is a file: name a folder for the pictures."
    assert refused("sweep", "content.png", "style.png", "-o", "style.png") == (2, saying)


@pytest.mark.parametrize(
    "command",
    [
        "stylize content.png style.png -o content_style.png",
        "texture style.png -o content_style.png",
        "batch content.png --styles style.png -o .",
    ],
)
def test_a_record_that_could_not_be_written_is_refused_with_status_2(command, refused):
    Path("content_style.json").mkdir()
    status, sentence = refused(*command.split(), "--record")
    saying = "content_style.json, where --record writes, is a folder or lacks one: name another output."
    assert sentence.endswith(saying) and status == 2
    Path("content_style.json").rmdir()
    Path("content_style.json").symlink_to("none/elsewhere.json")
    assert refused(*command.split(), "--record") == (status, sentence)


def test_a_record_that_would_replace_an_input_is_refused_with_status_2(refused):
    Path("content.png").rename("out.json")
    saying = "out.json is an input that --record would replace: name another output."
    assert refused("stylize", "out.json", "style.png", "-o", "out.png", "--record") == (2, saying)

"""Faults of files, networks and runs: an error gives the name, and a picture that exists is saved."""

import errno
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
import pytest
from commands import OLD, listing, log, size_of, stylize, write_inputs
from PIL import Image

from jaxstyle.cli import main
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.images.load import load_image
from jaxstyle.networks import pretrained

BAD_PICTURES = {
    "missing.png": ("missing.png", "No such file"),
    "empty.png": ("empty.png", "is empty"),
    "cut.png": ("cut.png", "damaged or cut short"),
    "text.png": ("text.png", "not a picture"),
    "folder.png": ("folder.png", "directory"),
    "tiny.png": ("tiny.png", "12x9", "16"),
    "thin.png": ("thin.png", "32x2", "16"),
}
BAD_NETWORKS = {
    "missing.h5": ("missing.h5", "does not exist"),
    "text.h5": ("text.h5", "not HDF5"),
    "cut.h5": ("cut.h5", "truncated"),
    "nan.h5": ("nan.h5", "1 of 8 values", "conv3_1/bias"),
}


@pytest.fixture(autouse=True)
def folder(isolated, monkeypatch) -> Path:
    monkeypatch.chdir(isolated)
    write_inputs(isolated)
    Path("out.png").write_bytes(OLD)
    return isolated


def fault(kind: type[Exception], **options: Any) -> str:
    """Return the message of a run that fails and leaves all files unchanged."""
    before = listing()
    with pytest.raises(kind) as raised:
        stylize(**options)
    assert listing() == before
    message = str(raised.value)
    assert message.endswith(".") and message.isprintable()
    return message


# Inputs


@pytest.fixture
def bad_files() -> None:
    """Write a file for every way in which a picture or a network cannot be used."""
    picture, network = Path("content.png").read_bytes(), Path("tiny.h5").read_bytes()
    Path("empty.png").touch()
    Path("cut.png").write_bytes(picture[: len(picture) // 2])
    Path("text.png").write_text("This is no picture.")
    Path("folder.png").mkdir()
    Image.new("RGB", (12, 9)).save("tiny.png")
    Image.new("RGB", (400, 20)).save("thin.png")
    Path("cut.h5").write_bytes(network[: len(network) // 2])
    Path("text.h5").write_text("This is no network.")
    shutil.copy("tiny.h5", "nan.h5")
    with h5py.File("nan.h5", "a") as file:
        file["conv3_1/bias"][0] = np.nan  # pyright: ignore[reportIndexIssue]


@pytest.mark.usefixtures("bad_files", "fake_runner")
def test_an_unusable_picture_is_named_with_its_fault():
    for role in ["content", "style", "init"]:
        for name, texts in BAD_PICTURES.items():
            if role == "style" and name == "folder.png":
                texts = ("folder.png", "jaxstyle statistics")
            if role == "init" and name in ("missing.png", "thin.png"):  # no name of a file, and resized
                continue
            inputs: dict[str, Any] = {"content": name} if role == "content" else {"styles": (name,)}
            message = fault(InputError, **({"init": Path(name)} if role == "init" else inputs))
            assert [text for text in texts if text not in message] == [], (name, message)


@pytest.mark.usefixtures("bad_files", "fake_runner")
def test_an_unusable_network_is_named_with_its_fault():
    for name, texts in BAD_NETWORKS.items():
        message = fault(InputError, weights=name)
        assert [text for text in texts if text not in message] == [], (name, message)


@pytest.mark.usefixtures("fake_runner")
def test_a_failed_download_ends_vgg19_and_makes_auto_use_the_mini_network(capsys):
    options: dict[str, Any] = {"weights": None, "offline": False}
    assert "http://127.0.0.1:9/vgg19.h5" in fault(UnavailableError, network="vgg19", **options)
    assert list(Path("cache").rglob("*")) == []
    assert stylize(network="auto", **options) == 0
    note, network, summary = capsys.readouterr().err.splitlines()
    assert "mini network" in note and "--weights" in note
    assert network == f"Network: mini, {pretrained.MINI}" and summary.startswith("out.png: 3 steps")


# Runs that diverge or run out of memory


def test_a_run_that_diverges_names_term_and_step_and_writes_nothing(fake_runner):
    for term, step, value in (("range_penalty", 2, np.inf), ("total", 1, np.nan)):
        fake_runner.history = lambda number, term=term, step=step, value=value: {term: value} if number >= step else {}
        message = fault(UnavailableError, scales="1", log=Path("log.csv"))
        assert f"{term} is {value} at step {step}" in message and "no picture" in message


def test_a_run_that_diverges_saves_the_last_picture_whose_terms_are_finite(fake_runner):
    assert stylize(steps=9, scales="1", save_every=1, output="whole.png") == 0
    fake_runner.history = lambda step: {"tv": np.inf} if step == 6 else {}  # of the picture after step 5
    with pytest.raises(UnavailableError, match="tv is inf at step 6, so out.png is as it was after step 4") as raised:
        stylize(steps=9, scales="1", log=Path("log.csv"))
    assert "--learning-rate" in str(raised.value)
    np.testing.assert_array_equal(load_image("out.png").rgb, load_image("whole_0004.png").rgb)
    assert [row["step"] for row in log()] == [1, 2, 3, 4]


def test_a_picture_that_is_not_finite_after_the_last_step_is_not_written(fake_runner, monkeypatch):
    monkeypatch.setattr(fake_runner, "_image", lambda *_: np.full((26, 32, 3), np.nan, np.float32))
    assert "not finite after step 1" in fault(UnavailableError)


def test_a_device_without_memory_is_one_line_and_status_1(fake_runner, capsys):
    def exhaust(step: int) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffer 1:\n...")

    fake_runner.on_step = exhaust
    assert main("stylize content.png style.png -o out.png --size 32 --weights tiny.h5 --quiet".split()) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Out of memory allocating 9 bytes" in err and "--size" in err
    assert Path("out.png").read_bytes() == OLD


# Outputs that cannot be written at the end


def test_a_picture_whose_folder_was_removed_is_saved_among_temporary_files(folder, fake_runner, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    fake_runner.on_step = lambda step: shutil.rmtree("gone", ignore_errors=True)
    Path("gone").mkdir()
    with pytest.raises(UnavailableError) as raised:
        stylize(output="gone/out.webp")
    [saved] = folder.glob("jaxstyle-*/out.png")
    assert size_of(saved) == (32, 26) and str(saved) in str(raised.value) and "gone" in str(raised.value)


def test_a_picture_that_can_be_saved_nowhere_is_an_error(fake_runner, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    fake_runner.on_step = lambda step: shutil.rmtree("gone", ignore_errors=True)
    Path("gone").mkdir()
    with pytest.raises(UnavailableError, match="gone.* nor can it be saved in the temporary folder"):
        stylize(output="gone/out.png")


def test_a_file_beside_the_picture_that_cannot_be_written_costs_status_1_only(fake_runner, capsys):
    def block(step: int) -> None:
        for name in ("out.json", "out_0002.png", "out_0002.json"):
            Path(name).mkdir(exist_ok=True)

    fake_runner.on_step = block
    assert stylize(save_every=2, record_file=True) == 1
    assert size_of("out.png") == (32, 26)
    faults = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxstyle: ")]
    assert ["out_0002.png", "out_0002.json", "out.json"] == [line.split()[1].rstrip(";") for line in faults]
    assert "Is a directory" in faults[2]


def test_a_log_that_cannot_be_written_does_not_lose_the_picture(fake_runner):
    Path("gone").mkdir()
    fake_runner.on_step = lambda step: shutil.rmtree("gone", ignore_errors=True)
    with pytest.raises(UnavailableError, match="gone/log.csv cannot be written .No such file or directory"):
        stylize(log=Path("gone/log.csv"))
    assert size_of("out.png") == (32, 26)

"""Signals, full disks, lost folders, damaged caches: the picture is saved, or one sentence gives the reason.

The quick tests raise the errors and signals within a run that computes nothing. The soak tests run processes of their
own, on a real file system of one megabyte where one is filled up.
"""

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from quick_commands import run

from jaxstyle import files
from jaxstyle.cli import main
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.errors import UnavailableError
from jaxstyle.images.metadata import description_of
from jaxstyle.losses import statistics_io
from jaxstyle.losses.moments import Moments
from jaxstyle.losses.objective import Objective
from jaxstyle.networks import pretrained
from jaxstyle.networks.random_init import random_params
from jaxstyle.runtime import checkpoint, record
from jaxstyle.runtime.checkpoint import CheckpointStore

SHALLOW = "--content-layers relu1_2 --style-layers relu1_1 --optimizer adam --scales 1".split()
STYLIZE = ["stylize", "content.png", "style.png", "--size", "32", "--weights", "tiny.h5", "--quiet", *SHALLOW]
LONG = [*STYLIZE, "--steps", "90000"]
# a shell that starts pytest in the background has SIGINT ignored, and children inherit that
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from jaxstyle.cli import main; sys.exit(main())"
)


@pytest.fixture(autouse=True)
def temporary(folder, monkeypatch) -> None:
    """Put temporary files into the test's folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))


def fill(place: Path, *, free: int = 0) -> None:
    """Leave so many bytes free, a multiple of 4096."""
    with (place / "fill").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            file.truncate(file.tell() - free)


def started(*arguments: object, first: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", first + PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(*arguments: object, first: str = "") -> tuple[int, str]:
    """Return the exit status of a command and what it printed on standard error."""
    process = started(*arguments, first=first)
    out, err = process.communicate(timeout=120)
    assert out == ""
    return process.returncode, err


def one_sentence(text: str) -> str:
    assert text.startswith("jaxstyle: ") and text.endswith(".\n") and len(text.splitlines()) == 1, text
    return text


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


QUICK = {"size": 32, "steps": 9, "weights": Path("tiny.h5"), "content_layers": "relu1_2", "style_layers": "relu1_1"}
QUICK |= {"optimizer": "adam", "quiet": True}


def stylize(**options: Any) -> int:
    return run(Stylize(Path("content.png"), (Path("style.png"),), Path("out.png")), **{**QUICK, **options})


# Signals


@pytest.fixture
def checkpoints(monkeypatch) -> list[int]:
    """The steps of the checkpoints that are saved, which the states of `fake_runner` cannot be."""
    saved: list[int] = []
    monkeypatch.setattr(checkpoint.RunCheckpoints, "save", lambda _, snapshot, __=(): saved.append(snapshot.step))
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # SIGINT may be ignored here
    return saved


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_saves_picture_log_and_checkpoint(name, status, fake_runner, checkpoints, capfd, folder):
    fake_runner.on_step = lambda step: signal.raise_signal(getattr(signal, name)) if step == 4 else None
    if not hasattr(signal, name):
        pytest.skip(f"this system has no {name}")
    options = {"save_every": 2, "log": Path("log.csv"), "checkpoint": Path("kept"), "every": 1000}
    assert stylize(**options) == status
    assert capfd.readouterr() == ("", "")
    assert record.read(description_of("out.png")).steps == 4 and checkpoints == [4]
    assert len(Path("log.csv").read_text().splitlines()) == 1 + 4 and Path("out_0002.png").exists()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_second_signal_does_not_wait_for_the_step(fake_runner, checkpoints):
    fake_runner.on_step = lambda step: [signal.raise_signal(signal.SIGINT) for _ in range(2 if step == 4 else 0)]
    assert stylize(checkpoint=Path("kept")) == 130
    assert record.read(description_of("out.png")).steps == 3 and checkpoints == [3]


def test_a_sweep_that_is_terminated_saves_a_checkpoint_and_has_status_143(fake_runner, checkpoints, capfd):
    fake_runner.on_step = lambda step: signal.raise_signal(signal.SIGTERM) if step == 4 else None
    command = Sweep(Path("content.png"), (Path("style.png"),), Path("out"))
    assert run(command, **QUICK, style_weight="1,10", checkpoint=Path("kept"), every=1000) == 143
    assert capfd.readouterr() == ("", "") and checkpoints == [4]


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_before_the_first_picture_leaves_nothing(name, status, checkpoints, monkeypatch, capfd, folder):
    before = {path.name for path in folder.iterdir()}
    number, load = getattr(signal, name), pretrained.load
    monkeypatch.setattr(pretrained, "load", lambda each: signal.raise_signal(number) or load(each))
    assert stylize() == status
    out, err = capfd.readouterr()
    assert out == "" and "interrupted before a picture was saved" in one_sentence(err)
    assert {path.name for path in folder.iterdir()} - {"cache"} == before


# Disks and folders


@pytest.fixture
def fails(monkeypatch) -> Callable[[str, int], None]:
    """Let every file whose path has a part of that name fail to be written, with an error number."""

    def fail(part: str, number: int = errno.ENOSPC) -> None:
        replace = os.replace

        def refuse(source: Any, target: Any) -> None:
            if part in Path(target).parts:
                raise OSError(number, os.strerror(number))
            replace(source, target)

        monkeypatch.setattr(files.os, "replace", refuse)

    return fail


def test_a_picture_without_space_is_saved_among_the_temporary_files(fake_runner, fails, capfd, folder):
    (folder / "full").mkdir()
    fails("full")
    assert stylize(output=Path("full/out.png")) == 1
    message = one_sentence(capfd.readouterr().err)
    assert "full/out.png cannot be written (No space left on device): free space or use another folder" in message
    assert record.read(description_of(message.split()[-1].rstrip("."))).steps == 9
    assert list((folder / "full").iterdir()) == []


def test_a_picture_without_space_anywhere_is_lost_with_a_reason(fake_runner, fails, capfd, folder):
    fails("out.png")
    assert stylize() == 1
    assert "nor can it be saved in the temporary folder" in one_sentence(capfd.readouterr().err)
    assert [path.name for path in folder.rglob("*") if path.suffix == ".part"] == []


def test_a_log_or_checkpoint_without_space_does_not_lose_the_picture(fake_runner, fails, monkeypatch, capfd):
    def save(*_: object) -> None:
        raise UnavailableError("The checkpoint in kept cannot be written (No space left on device): free space.")

    monkeypatch.setattr(CheckpointStore, "save", save)
    fails("log.csv")
    for options, saying in (
        ({"checkpoint": Path("kept"), "every": 1000}, "The checkpoint in kept cannot be written (No space"),
        ({"log": Path("log.csv")}, "The log log.csv cannot be written (No space left on device), but the picture is"),
    ):
        assert stylize(**options) == 1
        assert saying in one_sentence(capfd.readouterr().err)
        assert record.read(description_of("out.png")).steps == 9
        Path("out.png").unlink()


def test_an_intermediate_picture_without_space_does_not_end_the_run(fake_runner, fails, capfd):
    fails("out_0005.png")
    assert stylize(save_every=5) == 1
    assert "out_0005.png cannot be written (No space left on device)" in one_sentence(capfd.readouterr().err)
    assert record.read(description_of("out.png")).steps == 9


def test_a_picture_whose_folder_is_lost_is_saved_among_the_temporary_files(fake_runner, capfd, folder):
    (folder / "gone").mkdir()
    fake_runner.on_step = lambda step: (folder / "gone").rename(folder / "moved") if step == 3 else None
    assert stylize(output=Path("gone/out.png"), save_every=5) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and all(
        re.match(r"jaxstyle: gone/out\S*\.png needs a folder \S*gone", line) for line in lines
    )
    assert record.read(description_of(lines[-1].split()[-1].rstrip("."))).steps == 9


def test_a_read_only_folder_is_refused_before_any_work(fake_runner, monkeypatch, capfd):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "out" and access(path, mode))
    Path("out").mkdir()
    assert stylize(output=Path("out/out.png")) == 2
    assert "needs a folder" in one_sentence(capfd.readouterr().err) and fake_runner.problems == []


def test_a_lock_without_space_is_refused_before_any_work_and_removed(fake_runner, monkeypatch, capfd):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        assert stylize(checkpoint=Path("kept"), every=1000) == 2
    message = one_sentence(capfd.readouterr().err)
    assert "--checkpoint kept cannot be written (No space left on device)" in message and fake_runner.problems == []
    assert not Path("kept").exists()


def test_statistics_without_space_leave_no_file(fails, folder):
    fails("style.h5")
    moments = Moments(jnp.asarray(np.ones(4, np.float32)), jnp.asarray(np.ones((4, 4), np.float32)))
    params, objective = random_params(widths=TINY), Objective(style={"relu1_1": 1.0})
    with pytest.raises(UnavailableError, match=r"style.h5 cannot be written \(No space left on device\)"):
        statistics_io.write("style.h5", {32: {"relu1_1": moments}}, params=params, objective=objective, pictures=[])
    assert [path.name for path in folder.iterdir() if path.suffix in (".part", ".h5")] == ["tiny.h5"]


# Processes of their own


@pytest.fixture
def small(folder) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = folder / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a file system of one megabyte needs root: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "status"),
    [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)],
)
def test_a_signal_to_a_process_saves_picture_log_and_checkpoint(name, status, folder):
    options = ("--save-every", 5, "--log", "log.csv", "--checkpoint", "kept", "--every", 10**6)
    process = started(*LONG, "-o", "out.png", *options)
    wait_for(lambda: Path("out_00005.png").exists())
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == status
    stated = record.read(description_of("out.png"))
    lines = Path("log.csv").read_text().splitlines()
    assert stated.steps == len(lines) - 1 >= 5
    assert [path.name for path in Path("kept").iterdir()] == [f"checkpoint-{stated.steps}.npz"]
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.soak
def test_sigterm_to_a_sweep_saves_a_checkpoint():
    command = ["sweep", *LONG[1:], "--style-weight", "1,10", "-o", "out", "--save-every", "5"]
    process = started(*command, "--checkpoint", "kept", "--every", 10**6)
    wait_for(lambda: Path("out/style-weight=10_00005.png").exists())
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "", "")
    assert len(list(Path("kept").glob("*.npz"))) == 1


@pytest.mark.soak
def test_a_picture_on_a_full_disk_is_saved_among_the_temporary_files(small):
    fill(small)
    status, message = ended(*STYLIZE, "--steps", 3, "-o", small / "out.png")
    assert status == 1
    assert "out.png cannot be written (No space left on device): free space or use another folder; until" in message
    kept = one_sentence(message).split()[-1].rstrip(".")
    assert record.read(description_of(kept)).steps == 3
    assert [path.name for path in small.iterdir()] == ["fill"]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("options", "free", "saying"),
    [
        (("--checkpoint", "small/kept", "--every", 1000), 8192, "The checkpoint in small/kept cannot be written (No"),
        (("--log", "small/log.csv"), 0, "The log small/log.csv cannot be written (No space left on device), but the"),
    ],
)
def test_a_log_or_checkpoint_on_a_full_disk_does_not_lose_the_picture(options, free, saying, small):
    fill(small, free=free)  # the lock of a checkpoint folder needs a few bytes
    status, message = ended(*STYLIZE, "--steps", 3, "-o", "out.png", *options)
    assert status == 1 and saying in one_sentence(message)
    assert record.read(description_of("out.png")).steps == 3


@pytest.mark.soak
def test_a_disk_filled_by_checkpoints_holds_one_that_can_be_resumed(small):
    run = [*STYLIZE, "--size", "96", "--steps", "24"]
    kept = ["--checkpoint", small / "kept", "--every", 2]
    assert main([*run, "-o", "whole.png"]) == 0
    (small / "fill").write_bytes(b"\0" * 700_000)  # room for one checkpoint, not for a second beside it
    status, message = ended(*run, *kept, "-o", "full.png")
    assert status == 1 and "cannot be written (No space left on device)" in message
    assert len(list((small / "kept").glob("*.npz"))) == 1
    subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
    assert ended(*run, *kept, "-o", "resumed.png") == (0, "")
    for name in ("full.png", "resumed.png"):
        assert Path(name).read_bytes() == Path("whole.png").read_bytes()


@pytest.fixture
def own_cache(monkeypatch) -> None:
    """Let commands use their own cache of programs, not that of the tests."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")


@pytest.mark.soak
@pytest.mark.usefixtures("own_cache")
def test_a_full_or_read_only_cache_does_not_change_the_picture(small, monkeypatch):
    assert main([*STYLIZE, "--steps", "3", "-o", "whole.png"]) == 0
    monkeypatch.setenv("JAXSTYLE_CACHE", str(small / "cache"))
    fill(small)
    assert ended(*STYLIZE, "--steps", 3, "-o", "full.png") == (0, "")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    assert ended(*STYLIZE, "--steps", 3, "-o", "read_only.png") == (0, "")
    for name in ("full.png", "read_only.png"):
        assert Path(name).read_bytes() == Path("whole.png").read_bytes()


@pytest.mark.soak
@pytest.mark.usefixtures("own_cache")
def test_a_damaged_cache_or_a_file_in_its_place_does_not_change_the_picture(folder, monkeypatch):
    assert ended(*STYLIZE, "--steps", 3, "-o", "whole.png") == (0, "")
    assert list((folder / "cache" / "programs").iterdir())
    rng = np.random.default_rng(0)
    for path in (folder / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(rng.bytes(1000) if path.stat().st_size % 2 else path.read_bytes()[:100])
    assert ended(*STYLIZE, "--steps", 3, "-o", "damaged.png") == (0, "")
    Path("file").touch()
    monkeypatch.setenv("JAXSTYLE_CACHE", str(folder / "file"))
    assert ended(*STYLIZE, "--steps", 3, "-o", "file.png") == (0, "")
    for name in ("damaged.png", "file.png"):
        assert Path(name).read_bytes() == Path("whole.png").read_bytes()


@pytest.mark.soak
def test_a_picture_whose_folder_is_lost_by_a_process_is_saved_among_the_temporary_files(folder):
    (folder / "gone").mkdir()
    process = started(*LONG, "-o", "gone/out.png", "--save-every", 5)
    wait_for(lambda: Path("gone/out_00005.png").exists())
    (folder / "gone").rename(folder / "moved")
    time.sleep(0.5)
    process.terminate()
    out, message = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    last = message.splitlines()[-1]
    gone = r"jaxstyle: gone/out\S*\.png (needs a folder \S*gone that exists|cannot be written \(No such file)"
    assert all(re.match(gone, line) for line in message.splitlines())
    assert record.read(description_of(last.split()[-1].rstrip("."))).steps > 5


@pytest.mark.soak(long=True)
@pytest.mark.usefixtures("own_cache")
def test_two_processes_with_the_same_cache_have_the_same_picture(folder):
    processes = [started(*STYLIZE, "--steps", 3, "-o", f"{name}.png") for name in "ab"]
    assert [(*process.communicate(timeout=120), process.returncode) for process in processes] == [("", "", 0)] * 2
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert list((folder / "cache" / "styles").glob("*.h5")) and not list((folder / "cache").rglob(".*part"))

"""Signals, full disks, vanished folders, damaged caches: a picture survives, or one sentence says why not.

Commands run as processes of their own here, on a real file system of one megabyte where one is filled up.
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxstyle import image, record

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
    """Have temporary files in the test's own folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))


@pytest.fixture
def small(folder) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = folder / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system of one megabyte cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> None:
    """Leave no byte free."""
    with (place / "fill").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return


def started(*arguments: object, first: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", first + PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(*arguments: object, first: str = "") -> tuple[int, str]:
    """Return the exit status of a command and what it said."""
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


# Signals


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("SIGTERM", 143),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("SIGINT", 130), ("SIGHUP", 129))),
    ],
)
def test_a_signal_saves_picture_log_and_checkpoint_and_ends_at_once(name, status, folder):
    options = ("--save-every", 5, "--log", "log.csv", "--checkpoint", "kept", "--every", 10**6)
    process = started(*LONG, "-o", "out.png", *options)
    wait_for(lambda: Path("out_00005.png").exists())
    began = time.monotonic()
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == status
    assert time.monotonic() - began < 20  # a segment and what is saved take a fraction of a second, on an idle machine
    told = record.read(image.description_of("out.png"))
    lines = Path("log.csv").read_text().splitlines()
    assert told.steps == len(lines) - 1 >= 5
    assert [int(path.name) for path in Path("kept").iterdir()] == [told.steps]
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_a_sweep_that_is_terminated_keeps_where_it_was_and_ends_with_143():
    command = ["sweep", *LONG[1:], "--style-weight", "1,10", "-o", "out", "--save-every", "5"]
    process = started(*command, "--checkpoint", "kept", "--every", 10**6)
    wait_for(lambda: Path("out/style-weight=10_00005.png").exists())
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "", "")
    assert len([path for path in Path("kept").iterdir() if path.name.isdecimal()]) == 1


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_before_there_is_a_picture_is_one_sentence_and_leaves_nothing(name, status, folder):
    before = {path.name for path in folder.iterdir()}
    waits = "import time; from jaxstyle import pretrained; "
    waits += "pretrained.load = lambda _: print(1, flush=True) or time.sleep(60); "
    process = started(*LONG, "-o", "out.png", first=waits)
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (status, "")
    assert "interrupted before a picture was saved" in one_sentence(err)
    assert {path.name for path in folder.iterdir()} - {"cache"} == before


# Disks


def test_a_full_disk_keeps_the_picture_among_the_temporary_files(small):
    fill(small)
    status, said = ended(*STYLIZE, "--steps", 3, "-o", small / "out.png")
    assert status == 1
    assert "out.png cannot be written (No space left on device): free space or use another folder; until" in said
    kept = one_sentence(said).split()[-1].rstrip(".")
    assert record.read(image.description_of(kept)).steps == 3
    assert [path.name for path in small.iterdir()] == ["fill"]


def test_a_disk_that_is_full_everywhere_is_one_sentence(small):
    fill(small)
    there = f"import tempfile; tempfile.tempdir = {str(small)!r}; "
    status, said = ended(*STYLIZE, "--steps", 3, "-o", small / "out.png", first=there)
    assert status == 1
    assert "nor is there room for it among the temporary files" in one_sentence(said)


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        pytest.param(
            ("--checkpoint", "small/kept", "--every", 1000),
            "The checkpoint in small/kept cannot be written (No space",
            marks=pytest.mark.slow,
        ),
        (("--log", "small/log.csv"), "The log small/log.csv cannot be written (No space left on device), but the"),
    ],
)
def test_a_full_disk_for_what_is_saved_besides_costs_no_picture(options, saying, small):
    fill(small)
    status, said = ended(*STYLIZE, "--steps", 3, "-o", "out.png", *options)
    assert status == 1 and saying in one_sentence(said)
    assert record.read(image.description_of("out.png")).steps == 3


@pytest.mark.slow
def test_a_disk_that_fills_up_with_checkpoints_keeps_one_that_resumes(small):
    run = [*STYLIZE, "--size", "96", "--steps", "24"]
    kept = ["--checkpoint", small / "kept", "--every", 2]
    assert ended(*run, "-o", "whole.png") == (0, "")
    (small / "fill").write_bytes(b"\0" * 450_000)  # room for one checkpoint, not for a second beside it
    status, said = ended(*run, *kept, "-o", "full.png")
    assert status == 1 and "cannot be written (No space left on device)" in said
    assert len([path for path in (small / "kept").iterdir() if path.name.isdecimal()]) == 1
    subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
    assert ended(*run, *kept, "-o", "resumed.png") == (0, "")
    for name in ("full.png", "resumed.png"):
        assert Path(name).read_bytes() == Path("whole.png").read_bytes()


def test_statistics_on_a_full_disk_are_one_sentence(small):
    fill(small)
    command = ["statistics", "style.png", "-o", small / "style.h5", "--size", 32, "--weights", "tiny.h5", "--quiet"]
    status, said = ended(*command, "--style-layers", "relu1_1")
    assert status == 1 and "style.h5 cannot be written (No space left on device)" in one_sentence(said)
    assert [path.name for path in small.iterdir()] == ["fill"]


@pytest.mark.slow
def test_a_full_or_read_only_cache_costs_time_only(small, monkeypatch):
    assert ended(*STYLIZE, "--steps", 3, "-o", "whole.png") == (0, "")
    monkeypatch.setenv("JAXSTYLE_CACHE", str(small / "cache"))
    fill(small)
    assert ended(*STYLIZE, "--steps", 3, "-o", "full.png") == (0, "")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    assert ended(*STYLIZE, "--steps", 3, "-o", "read_only.png") == (0, "")
    for name in ("full.png", "read_only.png"):
        assert Path(name).read_bytes() == Path("whole.png").read_bytes()


def test_a_read_only_folder_is_refused_before_any_work(small):
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    status, said = ended(*STYLIZE, "--steps", 3, "-o", small / "out.png")
    assert status == 2 and "needs a folder" in one_sentence(said)


@pytest.mark.slow
def test_a_cache_that_is_damaged_or_no_folder_costs_time_only(folder, monkeypatch):
    assert ended(*STYLIZE, "--steps", 3, "-o", "whole.png") == (0, "")
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


@pytest.mark.slow
def test_a_folder_that_vanishes_meanwhile_keeps_the_picture_among_the_temporary_files(folder):
    (folder / "gone").mkdir()
    process = started(*LONG, "-o", "gone/out.png", "--save-every", 5)
    wait_for(lambda: Path("gone/out_00005.png").exists())
    (folder / "gone").rename(folder / "moved")
    time.sleep(0.5)
    process.terminate()
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    last = said.splitlines()[-1]
    gone = r"jaxstyle: gone/out\S*\.png (needs a folder \S*gone that exists|cannot be written \(No such file)"
    assert all(re.match(gone, line) for line in said.splitlines())
    assert record.read(image.description_of(last.split()[-1].rstrip("."))).steps > 5


@pytest.mark.slow
def test_two_processes_that_fill_the_same_cache_at_once_both_finish_alike(folder):
    processes = [started(*STYLIZE, "--steps", 3, "-o", f"{name}.png") for name in "ab"]
    assert [(*process.communicate(timeout=120), process.returncode) for process in processes] == [("", "", 0)] * 2
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert list((folder / "cache" / "styles").glob("*.h5")) and not list((folder / "cache").rglob(".*part"))

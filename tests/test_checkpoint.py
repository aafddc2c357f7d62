"""Checkpoints: a run that was stopped anywhere ends as if it had not been, and damage is not trusted."""

import json
import os
import runpy
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import TINY, picture

from jaxstyle import image, optimize, pretrained, record, weights_file
from jaxstyle.checkpoint import KEPT, Checkpoints
from jaxstyle.cli import main, walk
from jaxstyle.errors import InputError, UnavailableError

SCRIPTS = Path(__file__).parents[1] / "scripts"
SHALLOW = ("--content-layers", "relu1_2", "--style-layers", "relu1_1")
FIXED = ("--size", 32, "--steps", 8, "--weights", "tiny.h5")
STYLIZE = ("stylize", "content.png", "style.png", *SHALLOW, *FIXED)
KEEPING = ("--checkpoint", "kept", "--every", 1)
ARRAYS = {"image": jnp.arange(12.0).reshape(3, 4), "count": jnp.asarray(3)}


pytestmark = pytest.mark.usefixtures("folder")


def jaxstyle(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def steps_kept() -> list[int]:
    return sorted(int(path.name) for path in Path("kept").iterdir() if path.name.isdecimal())


# The checkpoints themselves


def same(_):
    return ARRAYS


def test_the_newest_checkpoint_is_read_as_it_was_saved_and_the_two_newest_are_kept():
    kept = Checkpoints(Path("kept"))
    assert kept.latest(same) is None and kept.facts() is None
    for step in (1, 2, 3):
        kept.save(step, ARRAYS | {"count": jnp.asarray(step)}, {"step": step})
    found = kept.latest(same)
    assert found is not None and found[0]["step"] == 3
    np.testing.assert_array_equal(found[1]["image"], ARRAYS["image"])
    assert found[1]["count"] == 3 and found[1]["count"].dtype == jnp.int32
    assert steps_kept() == [2, 3] and KEPT == 2
    kept.clear()
    assert steps_kept() == [] and kept.latest(same) is None


def damaged(data: bytes, how: str) -> bytes:
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :] if data else b"\0"
    return {"cut": data[:middle], "flipped": flipped, "empty": b"", "longer": data + b"\0" * 100_000}[how]


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_any_damage_falls_back_to_the_checkpoint_before_or_changes_nothing(how):
    kept = Checkpoints(Path("kept"))
    for step in (1, 2):
        kept.save(step, ARRAYS | {"count": jnp.asarray(step)}, {"step": step})
    shutil.copytree("kept", "whole")
    files = [path.relative_to("kept/2") for path in sorted(Path("kept/2").rglob("*")) if path.is_file()]
    fell = 0
    for file in files:
        shutil.rmtree("kept")
        shutil.copytree("whole", "kept")
        path = Path("kept/2", file)
        path.write_bytes(damaged(path.read_bytes(), how))
        found = kept.latest(same)
        assert found is not None, file
        np.testing.assert_array_equal(found[1]["image"], ARRAYS["image"])
        assert found[1]["count"] == found[0]["step"]
        fell += found[0]["step"] == 1
    assert fell >= 4  # the facts, the manifests and the arrays


@pytest.mark.parametrize(
    "arrays", [{"image": jnp.zeros((3, 5))}, {"image": jnp.zeros((300, 400))}, {"other": jnp.ones(3)}]
)
def test_a_checkpoint_of_other_shapes_is_not_read(arrays):
    kept = Checkpoints(Path("kept"))
    kept.save(1, arrays, {})
    assert kept.latest(same) is None


def test_links_out_of_a_checkpoint_are_not_followed():
    kept = Checkpoints(Path("kept"))
    kept.save(1, ARRAYS, {})
    file = next(path for path in Path("kept/1/arrays").rglob("d/*"))
    shutil.copy(file, "elsewhere")
    file.unlink()
    file.symlink_to(Path("elsewhere").absolute())
    assert kept.latest(same) is None


def test_facts_as_long_as_a_book_are_not_read():
    kept = Checkpoints(Path("kept"))
    kept.save(1, ARRAYS, {"long": "x" * 2**23})
    assert kept.facts() is None and kept.latest(same) is None


def test_a_checkpoint_that_cannot_be_written_is_one_sentence():
    Path("file").touch()
    with pytest.raises(
        UnavailableError,
        match=r"^The checkpoint in file/kept cannot be written \(.*\): free space or name another folder",
    ):
        Checkpoints(Path("file/kept")).save(1, ARRAYS, {})
    for attempt in (lambda kept: kept.save(1, ARRAYS, {}), lambda kept: kept.latest(same)):
        with pytest.raises(InputError, match="--checkpoint file is a file: name a folder for the checkpoints"):
            attempt(Checkpoints(Path("file")))


def test_folders_that_are_called_as_checkpoints_are_refused_and_stay_as_they_are(refused):
    for name in ("2021/a.txt", "3/b.txt", "my.orbax-checkpoint-tmp/c.txt"):
        Path("photos", name).parent.mkdir(parents=True)
        Path("photos", name).write_text(name)
    for first in ("2021", "3", "my.orbax-checkpoint-tmp"):
        saying = f"--checkpoint photos holds {first}, which is no checkpoint: name another folder."
        for command in ([*STYLIZE, "-o", "out.png"], ["sweep", *STYLIZE[1:], "--style-weight", "1,2", "-o", "out"]):
            status, sentence = refused(*map(str, command), "--checkpoint", "photos")
            assert saying in sentence and status == 2
        kept = Checkpoints(Path("photos"))
        for attempt in (lambda kept=kept: kept.save(4, ARRAYS, {}), lambda kept=kept: kept.latest(same), kept.clear):
            with pytest.raises(InputError, match="which is no checkpoint"):
                attempt()
        assert [path.read_text() for path in Path("photos", first).iterdir()] != []
        Path("photos", first).rename(f"photos/no{first.replace('.orbax', '')}")  # such names may be there
    kept.save(4, ARRAYS, {})
    kept.clear()
    assert len([path for path in Path("photos").rglob("*") if path.is_file()]) == 3


def test_a_link_in_place_of_a_checkpoint_is_not_followed():
    kept = Checkpoints(Path("kept"))
    kept.save(1, ARRAYS, {})
    Path("kept/1").rename("elsewhere")
    Path("kept/1").symlink_to("../elsewhere")
    with pytest.raises(UnavailableError, match="^The checkpoint kept/1 cannot be removed .*link.*: remove it.$"):
        kept.latest(same)
    assert Path("elsewhere/facts.json").exists()


def test_checkpoints_that_cannot_be_removed_are_one_sentence(monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    kept = Checkpoints(Path("kept"))
    kept.save(1, ARRAYS, {})
    monkeypatch.setattr(ocp.CheckpointManager, "delete", refused)
    saying = r"^The checkpoint kept/1 cannot be removed \(Operation not permitted\): remove it\.$"
    with pytest.raises(UnavailableError, match=saying):
        kept.clear()


# Runs that go on


class Stopped(Exception):
    """What stands for a power cut."""


def stopped_after(monkeypatch, calls: int) -> None:
    """Let the process end at the given look at a step's terms."""
    real, seen = walk._summary, []

    def summary(*arguments):
        seen.append(1)
        if len(seen) == calls:
            raise Stopped
        return real(*arguments)

    monkeypatch.setattr(walk, "_summary", summary)


RUNS = {
    "adam, averaged": (*STYLIZE, "--optimizer", "adam", "--averaging", 0.9, "--scales", 1),
    "lbfgs, two scales": (*STYLIZE, "--scales", 2, "--size", 40, "--tolerance", 0.0001),
    "levelled off": (*STYLIZE, "--scales", 2, "--steps", 45, "--tolerance", 0.1, "--save-every", 20),
    "texture": ("texture", "style.png", "--style-layers", "relu1_1", *FIXED, "--size", "32x48"),
}


@pytest.mark.parametrize(
    "name",
    [name if name.startswith("adam") else pytest.param(name, marks=pytest.mark.slow) for name in RUNS],
)
def test_a_run_that_was_stopped_anywhere_ends_with_the_bytes_of_the_whole_one(name, monkeypatch):
    monkeypatch.setattr("jaxstyle.cli.work.MOST_STEPS_A_SEGMENT", 1)
    assert jaxstyle(*RUNS[name], "-o", "whole.png", "--log", "whole.csv") == 0
    for calls in (2, 5, 7):
        shutil.rmtree("kept", ignore_errors=True)
        with monkeypatch.context() as patch:
            stopped_after(patch, calls)
            with pytest.raises(Stopped):
                jaxstyle(*RUNS[name], *KEEPING, "-o", "out.png")
        assert not Path("out.png").exists()
        assert jaxstyle(*RUNS[name], *KEEPING, "-o", "out.png", "--log", "log.csv") == 0
        assert Path("out.png").read_bytes() == Path("whole.png").read_bytes()
        assert Path("log.csv").read_text() == Path("whole.csv").read_text()
        Path("out.png").unlink()


def test_a_finished_checkpoint_writes_the_picture_again_without_a_step(monkeypatch, capsys):
    run = RUNS["adam, averaged"]
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 0
    before = Path("out.png").read_bytes()
    Path("out.png").unlink()
    monkeypatch.setattr(walk, "_summary", lambda *_: pytest.fail("took a step"))
    capsys.readouterr()
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 0
    assert Path("out.png").read_bytes() == before
    said = capsys.readouterr().err
    assert "kept: going on after step 8" in said and "out.png: 8 steps all of them before, total " in said


def test_a_checkpoint_comes_every_so_many_steps(monkeypatch):
    saved = []
    real = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *rest: (saved.append(step), real(self, step, *rest)))
    monkeypatch.setattr("jaxstyle.cli.work.MOST_STEPS_A_SEGMENT", 1)
    assert jaxstyle(*RUNS["adam, averaged"], "--checkpoint", "kept", "--every", 3, "-o", "out.png") == 0
    assert saved == [3, 6, 8]


def test_the_checkpoint_of_a_damaged_folder_falls_back_and_ends_the_same(monkeypatch):
    run = RUNS["adam, averaged"]
    monkeypatch.setattr("jaxstyle.cli.work.MOST_STEPS_A_SEGMENT", 1)
    assert jaxstyle(*run, *KEEPING, "-o", "whole.png") == 0
    assert steps_kept() == [7, 8]
    for path in Path("kept/8").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 0
    assert Path("out.png").read_bytes() == Path("whole.png").read_bytes()
    assert steps_kept() == [7, 8]


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        (("--steps", 9), "whose options.steps is 8 and not 9"),
        (("--style-weight", 3), "whose options.balance.style_weight is None and not 3.0"),
        (("--seed", 1), "whose options.seed is 0 and not 1"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_with_the_difference(options, saying, capsys):
    run = RUNS["adam, averaged"]
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 0
    before = Path("out.png").read_bytes()
    capsys.readouterr()
    assert jaxstyle(*run, *options, *KEEPING, "-o", "out.png", "--quiet") == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxstyle: kept has a checkpoint of another run, ") and saying in said
    assert said.endswith(": name another folder, or repeat that run's command.\n") and len(said.splitlines()) == 1
    assert Path("out.png").read_bytes() == before


def test_a_checkpoint_of_other_files_weights_or_versions_is_refused(monkeypatch, capsys):
    run = RUNS["adam, averaged"]
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 0
    with monkeypatch.context() as patch:
        versions = record.versions() | {"jax": "0.99"}
        patch.setattr("jaxstyle.cli.recording.versions", lambda: versions)
        assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 2
    params = pretrained.random_params(widths=TINY, seed=2)
    os.rename("tiny.h5", "first.h5")
    weights_file.write("tiny.h5", params, source="a seed", checksum="none", licence="none")
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 2
    os.rename("first.h5", "tiny.h5")
    image.save("style.png", picture(36, 32, seed=9))
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxstyle: ")]
    assert len(said) == 3 and "whose versions.jax is" in said[0]
    assert "whose network.sha256 is" in said[1] and "whose inputs 2 is" in said[2]


def test_a_strangers_facts_are_shown_without_what_a_terminal_obeys(capsys):
    run = RUNS["adam, averaged"]
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 0
    for facts in Path("kept").glob("*/facts.json"):
        told = json.loads(facts.read_text())
        told["facts"]["run"]["options"]["\x1b[2J" * 50] = "\x1b[2J" * 50
        facts.write_text(json.dumps(told))
    capsys.readouterr()
    assert jaxstyle(*run, *KEEPING, "-o", "out.png", "--quiet") == 2
    said = capsys.readouterr().err.removesuffix("\n")
    assert said.isprintable() and len(said) < 400


@pytest.mark.parametrize(
    "facts", [{"scale": 7}, {"scale": "x"}, {"taken": 0}, {"steps": 10**12}, {"cuts": {"32": "x"}}]
)
def test_facts_that_can_be_nobodys_are_taken_for_damage(facts):
    run = RUNS["adam, averaged"]
    assert jaxstyle(*run, *KEEPING, "-o", "whole.png") == 0
    for path in Path("kept").glob("*/facts.json"):
        told = json.loads(path.read_text())
        path.write_text(json.dumps(told | {"facts": told["facts"] | facts}))
    assert jaxstyle(*run, *KEEPING, "-o", "out.png") == 0
    assert Path("out.png").read_bytes() == Path("whole.png").read_bytes()


@pytest.mark.slow
def test_a_sweep_that_was_stopped_goes_on_within_its_round(monkeypatch):
    command = ("sweep", *STYLIZE[1:], "--optimizer", "adam", "--scales", 1, "--style-weight", "1,10,100", "--lanes", 2)
    assert jaxstyle(*command, "-o", "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr("jaxstyle.cli.work.MOST_STEPS_A_SEGMENT", 2)
        stopped_after(patch, 3)
        with pytest.raises(Stopped):
            jaxstyle(*command, *KEEPING, "-o", "out")
    assert steps_kept() == [2, 4]
    began = []
    real = optimize.init
    monkeypatch.setattr(optimize, "init", lambda *all_, **each: began.append(1) or real(*all_, **each))
    assert jaxstyle(*command, *KEEPING, "-o", "out") == 0
    for name in ("style-weight=1.png", "style-weight=10.png", "style-weight=100.png"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    assert steps_kept() == []


@pytest.mark.slow
def test_runs_that_are_killed_at_random_instants_end_the_same(capsys):
    script = runpy.run_path(str(SCRIPTS / "kill_and_resume.py"))
    assert script["main"](["--runs", "4", "--seed", "7"]) == 0
    assert "4 of 4 runs ended with the bytes of a run that nobody disturbed" in capsys.readouterr().out

"""CheckpointStore: a resumed run equals an uninterrupted one, and damaged or foreign checkpoints are not used."""

import io
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, picture
from fake_runner import FakeRunner
from quick_commands import run

from jaxstyle.cli import main
from jaxstyle.cli.reconstruct import Reconstruct
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.images.save import save_image
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.runtime import checkpoint_folder, record
from jaxstyle.runtime.checkpoint import KEPT, CheckpointStore

SCRIPTS = Path(__file__).parents[1] / "scripts"
QUICK = {"size": 32, "steps": 4, "weights": Path("tiny.h5"), "content_layers": "relu1_2", "style_layers": "relu1_1"}
QUICK |= {"optimizer": "adam", "parametrization": "pixels", "checkpoint": Path("kept"), "every": 1}
ARRAYS = {"image": np.arange(12, dtype=np.float32).reshape(3, 4), "count": np.asarray(3, np.int32)}

pytestmark = pytest.mark.usefixtures("folder")


def steps_kept() -> list[int]:
    return sorted(int(path.stem.partition("-")[2]) for path in Path("kept").glob("checkpoint-*.npz"))


# CheckpointStore


def same(_):
    return ARRAYS


def of_step(step: int) -> dict[str, np.ndarray]:
    return ARRAYS | {"count": np.asarray(step, np.int32)}


def test_the_two_newest_checkpoints_remain_and_the_newest_is_read():
    kept = CheckpointStore(Path("kept"))
    assert kept.latest(same, print) is None and kept.facts() is None
    for step in (1, 2, 3):
        kept.save(step, of_step(step), {"step": step})
    actual = kept.latest(same, print)
    assert actual is not None and actual[0]["step"] == 3 and kept.facts() == {"step": 3}
    np.testing.assert_array_equal(actual[1]["image"], ARRAYS["image"])
    assert actual[1]["count"] == 3 and actual[1]["count"].dtype == np.int32
    assert steps_kept() == [2, 3] and KEPT == 2
    kept.save(3, of_step(5), {"step": 5})  # once more
    actual = kept.latest(same, print)
    assert actual is not None and actual[1]["count"] == 5
    kept.clear()
    assert steps_kept() == [] and kept.latest(same, print) is None


def save_two() -> CheckpointStore:
    kept = CheckpointStore(Path("kept"))
    for step in (1, 2):
        kept.save(step, of_step(step), {"step": step})
    return kept


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "longer"])
def test_a_damaged_checkpoint_is_skipped(how):
    kept, newer = save_two(), Path("kept/checkpoint-2.npz")
    whole = newer.read_bytes()
    with zipfile.ZipFile(newer) as file:
        names = file.namelist()
    assert len(names) == 3
    starts = [whole.index(name.encode()) + len(name) for name in names]  # of an extra header of 20 bytes, then values
    for place in (starts[0], *(start + 24 for start in starts[1:]), *(start + 150 for start in starts[1:])):
        longer = whole + b"\0" * 600_000
        damage = {"cut": whole[:place], "flipped": flipped(whole, place), "empty": b"", "longer": longer}[how]
        newer.write_bytes(damage)
        actual = kept.latest(same, print)
        assert actual is not None and actual[0] == {"step": 1} and actual[1]["count"] == 1
    assert steps_kept() == [1, 2]


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def test_a_checkpoint_that_cannot_be_read_stays_until_a_new_one_takes_its_place(monkeypatch):
    kept, warnings = save_two(), []

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("jaxstyle.runtime.checkpoint._read", fail)
        assert kept.latest(same, warnings.append) is None
        path = Path("kept", "checkpoint-2.npz")
        assert len(warnings) == 2 and f"{path} cannot be read (Input/output error)" in warnings[0]
        patch.setattr(zipfile.ZipFile, "writestr", fail)
        with pytest.raises(UnavailableError, match="Input/output error"):
            kept.save(2, of_step(3), {"step": 3})
    actual = kept.latest(same, warnings.append)
    assert actual is not None and actual[0]["step"] == 2
    kept.save(2, of_step(3), {"step": 3})
    actual = kept.latest(same, warnings.append)
    assert actual is not None and actual[0]["step"] == 3
    assert steps_kept() == [1, 2] and len(list(Path("kept").iterdir())) == 2 and len(warnings) == 2


def test_checkpoints_that_cannot_be_read_do_not_count_among_the_two_that_remain():
    kept = CheckpointStore(Path("kept"))
    for step in (1, 8, 9):
        kept.save(step, of_step(step), {"step": step})
    cut("kept/checkpoint-9.npz")
    for step in (2, 3, 4):
        kept.save(step, of_step(step), {"step": step})
        assert 9 in steps_kept() and 8 in steps_kept()
    os.remove("kept/checkpoint-8.npz")
    for step in (5, 6):
        kept.save(step, of_step(step), {"step": step})
    assert steps_kept() == [5, 6, 9]
    kept.save(10, of_step(10), {"step": 10})
    assert steps_kept() == [6, 10]


def cut(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:-9])


@pytest.mark.soak
def test_damage_of_any_byte_skips_the_checkpoint_or_changes_nothing():
    kept, newer = save_two(), Path("kept/checkpoint-2.npz")
    whole, steps = newer.read_bytes(), set()
    for place in range(len(whole)):
        for damage in (whole[:place], flipped(whole, place)):
            newer.write_bytes(damage)
            actual = kept.latest(same, lambda _: None)
            assert actual is not None
            np.testing.assert_array_equal(actual[1]["image"], ARRAYS["image"])
            assert actual[1]["count"] == actual[0]["step"]
            steps.add(actual[0]["step"])
    assert steps == {1, 2}  # some bytes have no meaning, such as dates


def test_checkpoints_of_other_arrays_are_skipped():
    kept = CheckpointStore(Path("kept"))
    for arrays in (
        {"image": np.zeros((3, 5), np.float32)},
        {"image": np.zeros((300, 400), np.float32)},
        {"other": np.ones(3, np.float32)},
        {"image": np.zeros((3, 4), np.float64), "count": np.asarray(3, np.int32)},
    ):
        kept.save(1, arrays, {})
        assert kept.latest(same, print) is None


def test_arrays_of_python_objects_or_impossible_sizes_are_not_read():
    kept, whole = save_two(), io.BytesIO()
    np.save(whole, np.asarray([print, "x"], object), allow_pickle=True)
    header = b"\x93NUMPY\x01\x00"
    image, count = io.BytesIO(), io.BytesIO()
    np.save(image, ARRAYS["image"])
    np.save(count, ARRAYS["count"])
    large = image.getvalue().replace(b"(3, 4), }         ", b"(99999999, 4), }  ")
    assert len(large) == len(image.getvalue()) and b"99999999" in large
    for text in (whole.getvalue(), large, header, header + b"\xff\xff{", header + b"\x02\x00[]"):
        assert steps_read(kept, text, count.getvalue()) == 1
    assert steps_read(kept, image.getvalue(), count.getvalue()) == 2
    assert steps_read(kept, image.getvalue() + b"0", count.getvalue()) == 1
    assert steps_read(kept, image.getvalue(), count.getvalue(), zipfile.ZIP_DEFLATED) == 1


def steps_read(kept: CheckpointStore, image: bytes, count: bytes, compression: int = zipfile.ZIP_STORED) -> int:
    """Return which of two checkpoints is read when the newer has these arrays."""
    with zipfile.ZipFile("kept/checkpoint-2.npz", "w", compression) as file:
        file.writestr("facts.json", '{"step": 2}')
        file.writestr("image.npy", image)
        file.writestr("count.npy", count)
    result = kept.latest(same, print)
    assert result is not None
    return result[0]["step"]


def test_arrays_of_types_that_numpy_lacks_are_read_as_saved():
    kept, halves = CheckpointStore(Path("kept")), np.arange(6, dtype=jnp.bfloat16).reshape(2, 3)
    keys = jax.random.wrap_key_data(jnp.arange(8, dtype=jnp.uint32).reshape(2, 4), impl="rbg")
    kept.save(1, {"halves": halves, "keys": keys}, {})
    like = {"halves": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), "keys": jax.ShapeDtypeStruct((2,), keys.dtype)}
    actual = kept.latest(lambda _: like, print)
    assert actual is not None and actual[1]["halves"].dtype == jnp.bfloat16 and actual[1]["keys"].dtype == keys.dtype
    np.testing.assert_array_equal(actual[1]["halves"], halves)
    np.testing.assert_array_equal(jax.random.key_data(actual[1]["keys"]), jax.random.key_data(keys))
    with pytest.raises(UnavailableError, match="two arrays have the same name"):
        kept.save(2, {"a/b": halves, "a": {"b": halves}}, {})


def test_a_checkpoint_that_is_a_link_is_not_read():
    kept = CheckpointStore(Path("kept"))
    kept.save(1, ARRAYS, {})
    Path("kept/checkpoint-1.npz").rename("outside")
    Path("kept/checkpoint-1.npz").symlink_to("../outside")
    assert kept.facts() is None and kept.latest(same, print) is None
    before = Path("outside").read_bytes()
    kept.save(1, of_step(2), {})
    actual = kept.latest(same, print)
    assert actual is not None and actual[1]["count"] == 2 and Path("outside").read_bytes() == before


def test_facts_beyond_a_limit_or_of_another_type_are_not_read():
    kept = CheckpointStore(Path("kept"))
    kept.save(1, ARRAYS, {"long": "x" * 2**23})
    assert kept.facts() is None and kept.latest(same, print) is None
    kept.save(1, ARRAYS, [])  # pyright: ignore[reportArgumentType]
    assert kept.facts() is None and kept.latest(same, print) is None


def test_a_checkpoint_that_cannot_be_written_names_the_reason():
    Path("file").touch()
    sentence = r"^The checkpoint in file/kept cannot be written \(.*\): free space or name another folder"
    with pytest.raises(UnavailableError, match=sentence):
        CheckpointStore(Path("file/kept")).save(1, ARRAYS, {})
    for attempt in (lambda kept: kept.save(1, ARRAYS, {}), lambda kept: kept.latest(same, print)):
        with pytest.raises(InputError, match="--checkpoint file is a file: name a folder for the checkpoints"):
            attempt(CheckpointStore(Path("file")))


def test_a_checkpoint_that_cannot_be_removed_names_the_reason(monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    kept = CheckpointStore(Path("kept"))
    kept.save(1, ARRAYS, {})
    path = Path("kept", "checkpoint-1.npz")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(UnavailableError) as caught:
        kept.clear()
    assert str(caught.value) == f"The checkpoint {path} cannot be removed (Operation not permitted): remove it."


def test_other_files_in_a_folder_of_checkpoints_stay():
    others = ("photos/2021/a.txt", "photos/3.npz", "photos/checkpoint-1.txt", "photos/checkpoint-01.npz")
    kept, left = CheckpointStore(Path("photos")), Path("photos/.checkpoint-4.0123456789abcdef.part")  # of a killed run
    for name in others:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    left.touch()
    for step in (4, 5, 6):
        kept.save(step, ARRAYS, {})
    actual = kept.latest(same, pytest.fail)
    assert actual is not None
    kept.clear()
    assert sorted(str(path) for path in Path("photos").rglob("*.*")) == sorted(others)


# Runs that are resumed, without their computation


class Killed(Exception):
    """Ends a run as SIGKILL does: nothing more is saved."""


@pytest.fixture
def runner(fake_runner, monkeypatch) -> FakeRunner:
    """A `fake_runner` whose states have the arrays of real ones, of which the first is the image, to be saved."""

    def iterate(problem, **options: Any) -> Iterator[Any]:
        for place in fake_runner.iterate(problem, **options):
            shapes, structure = jax.tree.flatten(problem.shape(problem.schedule[place.scale]))
            others = [np.zeros(each.shape, each.dtype) for each in shapes[1:]]
            state = jax.tree.unflatten(structure, [np.asarray(place.image), *others])
            yield place._replace(state=state, history=place.history)

    fake_runner.replace_iterate(monkeypatch, iterate)
    return fake_runner


def stylize(**options: Any) -> int:
    return run(Stylize(Path("content.png"), (Path("style.png"),), Path("out.png")), **{**QUICK, **options})


@pytest.fixture(scope="module")
def finished_files(tmp_path_factory) -> Path:
    """The files of `finished`, which are written once."""
    return tmp_path_factory.mktemp("finished") / "files"


@pytest.fixture
def finished(folder, runner, finished_files) -> bytes:
    """A finished run with the checkpoints of its last two steps; return the bytes of its picture."""
    if not finished_files.exists():
        assert stylize() == 0 and steps_kept() == [3, 4]
        shutil.copytree("kept", finished_files / "kept")
        shutil.copy("out.png", finished_files)
        runner.problems.clear()
    else:
        shutil.copytree(finished_files, ".", dirs_exist_ok=True)
    return Path("out.png").read_bytes()


def test_a_run_that_was_killed_is_resumed_after_its_last_checkpoint(runner, capsys):
    options = {"scales": "2", "steps": 8, "every": 3, "init": "noise"}
    assert stylize(**options, checkpoint=Path("other"), output=Path("whole.png"), log=Path("whole.csv")) == 0
    taken = []

    def kill(step: int) -> None:
        taken.append(step)
        if len(taken) in (5, 10):
            raise Killed

    runner.on_step = kill
    for kept in ([3], [3, 6]):
        with pytest.raises(Killed):
            stylize(**options, log=Path("log.csv"))
        assert steps_kept() == kept and not Path("out.png").exists()
    capsys.readouterr()
    assert stylize(**options, log=Path("log.csv")) == 0
    assert "kept: resuming after step 6" in capsys.readouterr().err
    assert taken == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 7, 8] and steps_kept() == [6, 8]
    assert Path("out.png").read_bytes() == Path("whole.png").read_bytes()
    assert Path("log.csv").read_text() == Path("whole.csv").read_text()


def test_a_finished_run_writes_its_picture_again_without_a_step(finished, runner, capsys):
    Path("out.png").unlink()
    runner.on_step = lambda step: pytest.fail("took a step")
    assert stylize() == 0
    assert Path("out.png").read_bytes() == finished
    message = capsys.readouterr().err
    assert "kept: resuming after step 4" in message and "out.png: 4 steps, all from the checkpoint, total " in message


def test_a_run_whose_last_checkpoint_is_damaged_is_resumed_from_the_one_before(finished, runner):
    cut("kept/checkpoint-4.npz")
    taken = []
    runner.on_step = taken.append
    assert stylize() == 0
    assert taken == [4] and Path("out.png").read_bytes() == finished and steps_kept() == [3, 4]


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(finished, monkeypatch, capsys):
    def refused(saying: str, **options: Any) -> None:
        capsys.readouterr()
        assert stylize(quiet=True, **options) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("jaxstyle: kept has a checkpoint of another run, ") and saying in line
        assert line.endswith(": name another folder, or repeat that run's command.")

    refused("whose options.steps is 4 and not 9", steps=9)
    refused("whose options.style_weight is None and not 3.0", style_weight=3.0)
    refused("whose options.seed is 0 and not 1", seed=1)
    with monkeypatch.context() as patch:
        versions = record.versions() | {"jax": "0.99"}
        patch.setattr("jaxstyle.runtime.record.versions", lambda: versions)
        capsys.readouterr()
        assert stylize() == 0
        assert "versions.jax was" in capsys.readouterr().err
    os.rename("tiny.h5", "first.h5")
    weights_io.write("tiny.h5", random_params(widths=TINY, seed=2), source="", checksum="none", licence="none")
    refused("whose network.sha256 is")
    os.rename("first.h5", "tiny.h5")
    os.rename("style.png", "renamed.png")
    assert stylize(styles=(Path("renamed.png"),)) == 0  # names of files do not count
    save_image("style.png", picture(36, 32, seed=9))
    refused("whose inputs 2 is")
    assert Path("out.png").exists()


def with_facts(change: Any) -> None:
    for path in Path("kept").glob("*.npz"):
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        facts = json.loads(members["facts.json"])
        change(facts)
        with zipfile.ZipFile(path, "w") as file:
            for name, data in (members | {"facts.json": json.dumps(facts).encode()}).items():
                file.writestr(name, data)


def test_control_characters_of_untrusted_facts_are_escaped(finished, capsys):
    with_facts(lambda facts: facts["run"]["options"].update({"\x1b[2J" * 50: "\x1b[2J" * 50}))
    assert stylize(quiet=True) == 2
    message = capsys.readouterr().err.removesuffix("\n")
    assert message.isprintable() and len(message) < 400


def test_impossible_facts_are_damage(finished, monkeypatch):
    actual: list[Any] = []

    def keep(problem: Any, *, checkpoint: Any, **_: Any) -> Any:
        actual.append(checkpoint)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("jaxstyle.runtime.run.fit", keep)
        with pytest.raises(Killed):
            stylize()
    shutil.copytree("kept", "copy")
    texts: list[str] = []
    listen = [lambda event, _: texts.append(event.message)]
    possible = actual[0].load(listen)
    assert possible is not None and possible.step == 4 and texts == ["kept: resuming after step 4"]
    for facts in (
        {"scale": 7},
        {"scale": "x"},
        {"scale_step": 0},
        {"scale_step": 5},
        {"step": 10**12},
        {"memory_plans": {"32": "x"}},
    ):
        with_facts(lambda stored, facts=facts: stored.update(facts))
        texts.clear()
        assert actual[0].load(listen) is None
        assert len(texts) == 2 and all("cannot be read" in each for each in texts) and steps_kept() == [3, 4]
        shutil.copytree("copy", "kept", dirs_exist_ok=True)


# The lock


HOLD = """
import sys
from pathlib import Path
from jaxstyle.runtime.checkpoint_folder import locked
with locked(Path("kept")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_a_running_process_uses_is_refused_and_not_changed_until_it_is_killed(runner, capsys):
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout and holder.stdout.readline() == "held\n"
    before = sorted(path.name for path in Path("kept").iterdir())
    assert stylize(quiet=True) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"kept is in use by process {holder.pid} on {socket.gethostname()} since 20" in line
    assert sorted(path.name for path in Path("kept").iterdir()) == before
    assert runner.problems == [] and not Path("out.png").exists()
    holder.kill()
    holder.communicate()
    assert stylize() == 0
    assert steps_kept() == [3, 4] and len(list(Path("kept").iterdir())) == 2


def test_a_process_does_not_take_its_lock_twice():
    with checkpoint_folder.locked(Path("kept")):
        with pytest.raises(InputError, match="is in use by process"), checkpoint_folder.locked(Path("kept")):
            pass
        assert Path("kept", checkpoint_folder.LOCK).exists()
    assert not Path("kept").exists()


def test_a_lock_is_held_during_a_run_and_released_after_it(runner):
    locks: list[bool] = []
    runner.on_step = lambda step: locks.append(Path("kept", checkpoint_folder.LOCK).exists())
    assert stylize() == 0
    command = Sweep(Path("content.png"), (Path("style.png"),), Path("out"))
    assert run(command, **QUICK | {"checkpoint": Path("other")}, style_weight="1,10") == 0
    assert locks == [True] * 4 + [False] * 4 and not Path("kept", checkpoint_folder.LOCK).exists()
    assert not Path("other").exists()


def test_a_sweep_that_was_killed_is_resumed_within_its_round(runner):
    command = Sweep(Path("content.png"), (Path("style.png"),), Path("out"))
    options = QUICK | {"style_weight": "1,10,100", "batch_size": 2, "every": 2}
    assert run(command, **options, output=Path("whole")) == 0 and steps_kept() == []
    taken = []

    def kill(step: int) -> None:
        taken.append(step)
        if len(taken) == 4:
            raise Killed

    runner.on_step = kill
    with pytest.raises(Killed):
        run(command, **options)
    assert steps_kept() == [2]
    taken.clear()
    runner.on_step = taken.append
    assert run(command, **options) == 0
    assert taken == [3, 4, 1, 2, 3, 4] and steps_kept() == []
    for name in ("style-weight=1.png", "style-weight=10.png", "style-weight=100.png"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


# Runs that are resumed, with their computation


@pytest.mark.slow(optimized=True)
def test_a_resumed_reconstruction_and_a_rerun_have_the_same_bytes(monkeypatch):
    monkeypatch.setattr("jaxstyle.runtime.problem.MOST_STEPS_PER_SEGMENT", 3)
    command = Reconstruct(Path("content.png"), Path("out.png"))
    options = {"layer": "relu2_1", "scales": "2", "size": 40, "steps": 12, "weights": Path("tiny.h5")}
    options |= {"checkpoint": Path("kept"), "every": 1, "log": Path("log.csv")}
    save = CheckpointStore.save
    calls: list[int] = []

    def kill(self: CheckpointStore, step: int, *rest: Any) -> None:
        save(self, step, *rest)
        calls.append(step)
        if len(calls) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", kill)
        with pytest.raises(Killed):
            run(command, **options)
    assert not Path("out.png").exists()
    assert run(command, **options) == 0
    assert main(["rerun", "out.png"]) == 0  # computed at once, from the start
    assert Path("out_rerun.png").read_bytes() == Path("out.png").read_bytes()
    sides = [line.split(",")[1] for line in Path("log.csv").read_text().splitlines()[1:]]
    assert len(sides) == 12 and len(set(sides)) == 2


@pytest.mark.soak
def test_runs_that_are_killed_at_random_instants_have_the_bytes_of_undisturbed_ones(capsys, is_long):
    script = runpy.run_path(str(SCRIPTS / "kill_and_resume.py"))
    options = ["--runs", "40"] if is_long else ["--runs", "1", "--from-checkpoint"]
    assert script["main"](options) == 0
    actual = capsys.readouterr().out
    assert f"{options[1]} of {options[1]} runs ended with the bytes" in actual
    assert is_long or "1 of them with a checkpoint" in actual

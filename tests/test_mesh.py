import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import checkpoint, image
from jaxstyle.by_leader import by_leader
from jaxstyle.cli import devices, layout
from jaxstyle.config import Config
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.mesh import BATCH, HEIGHT, evened, map_lanes, mesh_of

HERE = Path(__file__).parent
CASES = ("does not divide", "fewer rows than devices at relu5_1", "circular", "replicate", "masks")


def on_four_devices(*arguments: object, **environment: object) -> Any:
    """Return what a case of `several_devices` finds."""
    told = {"PYTHONPATH": f"{HERE.parent}:{HERE}", **{name: str(value) for name, value in environment.items()}}
    command = [sys.executable, str(HERE / "several_devices.py"), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **told}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_equal(found: dict[str, Any]) -> None:
    """Rows are exact, and no device has all of an activation: only images, which have three channels."""
    assert found["loss"] < 1e-5 and found["gradient"] < 1e-5, found
    assert found["permutes"] > 0
    assert all(shape.split(",")[-1] == "3" for shape in found["gathered"]), found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_rows_on_four_devices_change_neither_loss_nor_gradient(case):
    assert_equal(on_four_devices(case))


@pytest.mark.slow
def test_rows_change_nothing_for_vgg_19(weights_path, real_pictures):
    assert_equal(on_four_devices("real", JAXSTYLE_WEIGHTS=weights_path, PICTURES=real_pictures))


@pytest.mark.slow
def test_lanes_on_four_devices_are_those_of_one():
    found = on_four_devices("lanes")
    assert found["shape"] == [5, 40, 36, 3] and max(found["apart"]) < 1e-5


def apart(one: str, other: str) -> float:
    return float(np.abs(image.load(Path(one)).rgb - image.load(Path(other)).rgb).max())


@pytest.mark.slow
def test_commands_use_several_devices_exactly_and_resume_on_others(folder):
    how = "--weights tiny.h5 --steps 10 --optimizer adam --scales 1 --bits 16"
    paint = f"stylize content.png style.png {how} --size 90 -o"
    sweep = f"sweep content.png style.png {how} --size 40 --style-weight 1,2,3,4,5 -o"
    commands = [
        f"{paint} one.png",  # small, so one device does it
        f"{paint} four.png --devices 4 --checkpoint kept --save-every 5 --every 5",
        "rerun four.png --weights tiny.h5",
        f"{paint} three.png --devices 3 --checkpoint kept --save-every 5 --every 5",
        f"{sweep} some",
        f"{sweep} single --devices 1",
        "rerun some/style-weight=5.png --weights tiny.h5 --inputs .",
        f"{paint} never.png --devices 5",
        f"{paint} never.png --devices 2 --statistic sliced",
        f"{paint} four.png --devices 4 --dry-run",
    ]
    Path("commands").write_text("\n".join(commands))
    found = on_four_devices("commands", "commands")
    status, said = zip(*found, strict=True)
    assert status == (0,) * 7 + (2, 2, 0), said
    assert "share" not in said[0]
    assert "4 devices share the picture's rows" in said[1] and "byte for byte" in said[2]
    assert "kept: going on after step 10" in said[3] and "3 devices share" in said[3]
    assert apart("one.png", "four.png") < 4e-5 and apart("four.png", "three.png") == 0
    assert "4 devices share the pictures" in said[4] and "share" not in said[5]
    for weight in range(1, 6):
        assert apart(f"some/style-weight={weight}.png", f"single/style-weight={weight}.png") < 4e-5
    assert "byte for byte" in said[6]
    assert "--devices is 5, but 4 are there (CPU): use at most as many." in said[7]
    assert "--statistic sliced looks at all rows at once, which 2 devices would share: use one device." in said[8]
    assert "memory " in said[9] and not Path("never.png").exists()


def test_what_is_shared_out_divides_and_comes_back_as_it_was():
    x = jnp.arange(15.0).reshape(5, 3)
    assert evened(x, 4, axis=0)[:5].tolist() == x.tolist()
    assert evened(x, 4, axis=0)[5:].tolist() == [[0.0] * 3] * 3
    assert evened(x, 4, axis=0, mode="edge")[5:].tolist() == [x[-1].tolist()] * 3
    assert evened(x, 5, axis=0).shape == (5, 3)


def test_states_are_kept_longer_by_rows_or_by_lanes():
    like = {"image": jnp.zeros((2, 10, 7, 3)), "count": jnp.zeros((2,), jnp.int32)}
    rows, lanes = (layout.longer(like, axis=axis, count=4) for axis in (HEIGHT, BATCH))
    assert (rows["image"].shape, rows["count"].shape) == ((2, 12, 7, 3), (2,))
    assert (lanes["image"].shape, lanes["count"].shape) == ((4, 10, 7, 3), (4,))


def test_arrays_are_placed_and_cropped_as_they_were():
    for axis in (HEIGHT, BATCH):
        one = layout.Layout(mesh_of(jax.devices()[:1], axis))
        x = jnp.arange(42.0).reshape(2, 7, 3)
        kept = layout.placed(x, one.kept(x))
        assert (layout.cropped(one.read(kept), x) == x).all() and not one.spans


def test_lanes_are_computed_apart():
    mesh = mesh_of(jax.devices()[:1], BATCH)
    found = map_lanes(lambda shared, own: own * shared, jnp.asarray(2.0), jnp.arange(3.0), mesh=mesh)
    assert found.tolist() == [0.0, 2.0, 4.0]


def test_a_mesh_needs_a_device():
    with pytest.raises(InputError, match="There are 0 devices to share work out among: name at least 1."):
        mesh_of([], HEIGHT)


@pytest.mark.parametrize("count", [0, -1, 10**9])
def test_devices_that_are_not_there_are_refused(count):
    with pytest.raises(InputError, match=f"--devices is {count}, but .* there .*: use at most as many."):
        devices.available(count)


def test_a_single_device_shares_nothing():
    assert devices.rows_among(1, config=Config(), pixels=2**30) is None
    assert devices.lanes_among(1, lanes=8) is None


def test_what_process_0_does_is_done_at_once_where_there_is_one():
    assert by_leader(lambda: 7) == 7 and by_leader(lambda: None) == 0


def test_devices_are_not_chosen_where_processes_share_all(refused):
    status, sentence = refused(
        "batch", "content.png", "--styles", "style.png", "-o", "out", "--distributed", "--devices", 1
    )
    assert sentence == "--devices is 1, but --distributed uses all that there are: drop one." and status == 2


def test_where_process_0_fails_the_others_do_too(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    for found, kind in ((-2, InputError), (-1, UnavailableError)):
        monkeypatch.setattr("jaxstyle.by_leader.process_allgather", lambda own, found=found: np.asarray([found, own]))
        with pytest.raises(kind, match="Process 0 of this run has failed, and said why: mend that, and repeat the"):
            by_leader(lambda: 1)


def test_a_checkpoint_that_only_process_0_sees_is_refused_everywhere(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "of_each", lambda own: [1, 0])
    with pytest.raises(InputError, match="is not seen by all processes: name one that they share."):
        checkpoint.Checkpoints(tmp_path / "kept").save(1, {"x": np.zeros(3)}, {})

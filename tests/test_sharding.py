"""Several devices: rows of an image or images of a sweep are divided among them, with the result of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TINY, picture

from jaxstyle.distributed.processes import on_process_zero
from jaxstyle.distributed.sharding import BATCH, HEIGHT, map_batch, mesh_of, pad_to_multiple
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.images.load import load_image
from jaxstyle.images.save import save_image
from jaxstyle.losses.objective import Objective
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.runtime import checkpoint, placement

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def on_four_devices(tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """The output of `several_devices.py` and the folder of its pictures."""
    folder = tmp_path_factory.mktemp("devices")
    save_image(folder / "content.png", picture(32, 40, seed=0))
    save_image(folder / "style.png", picture(36, 32, seed=1))
    params = random_params(widths=TINY, seed=1)
    weights_io.write(folder / "tiny.h5", params, source="", checksum="", licence="")
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}"}
    command = [sys.executable, str(HERE / "several_devices.py")]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


@pytest.mark.slow
def test_loss_and_gradient_of_rows_on_four_devices_are_those_of_one(on_four_devices):
    for name, case in on_four_devices[0]["rows"].items():
        assert case["loss"] < 1e-5 and case["gradient"] < 1e-5, (name, case)
        assert case["permutes"] > 0, name  # rows are exchanged at the borders of devices
        assert all(shape.split(",")[-1] == "3" for shape in case["gathered"]), (name, case)  # images only


@pytest.mark.slow
def test_a_batch_on_four_devices_is_that_of_one(on_four_devices):
    batch = on_four_devices[0]["batch"]
    assert batch["shape"] == [5, 40, 36, 3] and batch["differ"] > 1e-3 and batch["apart"] < 1e-5


@pytest.mark.slow
def test_commands_on_several_devices_return_the_pictures_of_one_and_resume_on_other_devices(on_four_devices):
    actual, folder = on_four_devices
    status = {name: status for name, (status, _) in actual["commands"].items()}
    output = {name: text for name, (_, text) in actual["commands"].items()}

    def apart(one: str, other: str) -> float:
        return float(np.abs(load_image(folder / one).rgb - load_image(folder / other).rgb).max())

    assert set(status.values()) == {0}, output
    assert "devices" not in output["one"] and "4 devices" in output["four"] and "3 devices" in output["three"]
    assert "after step 10" in output["three"]
    assert apart("one.png", "four.png") < 4e-5 and apart("four.png", "three.png") == 0
    assert "byte for byte" in output["rerun"] and "byte for byte" in output["rerun of an image of a batch"]
    assert "4 devices" in output["batch"] and "devices" not in output["batch on one"]
    for weight in range(1, 6):
        assert apart(f"some/style-weight={weight}.png", f"single/style-weight={weight}.png") < 4e-5
    assert "memory " in output["dry run"] and not (folder / "never.png").exists()


def test_an_array_is_padded_to_a_multiple_of_the_devices():
    x: Any = np.arange(15, dtype=np.float32).reshape(5, 3)
    zeros, edge = (np.asarray(pad_to_multiple(x, 4, axis=0, mode=mode)) for mode in ("constant", "edge"))
    np.testing.assert_array_equal(zeros, np.pad(x, ((0, 3), (0, 0))))
    np.testing.assert_array_equal(edge, np.pad(x, ((0, 3), (0, 0)), mode="edge"))
    assert pad_to_multiple(x, 5, axis=0).shape == (5, 3) and pad_to_multiple(x, 2, axis=1).shape == (5, 4)


def test_a_layout_pads_rows_of_images_and_the_batch_axis_of_every_array():
    like = {"image": jax.ShapeDtypeStruct((2, 10, 7, 3), np.float32), "count": jax.ShapeDtypeStruct((2,), np.int32)}
    rows, batch = (placement.padded_shapes(like, axis=axis, count=4) for axis in (HEIGHT, BATCH))
    assert (rows["image"].shape, rows["count"].shape) == ((2, 12, 7, 3), (2,))
    assert (batch["image"].shape, batch["count"].shape) == ((4, 10, 7, 3), (4,))


def test_arrays_are_unchanged_by_being_placed_on_a_device_and_cropped():
    x = np.arange(42, dtype=np.float32).reshape(2, 7, 3)
    for axis in (HEIGHT, BATCH):
        one = placement.Layout(mesh_of(jax.devices()[:1], axis))
        placed = placement.placed(x, one.sharded(x))
        np.testing.assert_array_equal(placement.cropped(one.read(placed), x), x)
        assert not one.spans_processes and one.axis == axis


def test_a_batch_is_mapped_with_shared_arguments():
    mesh = mesh_of(jax.devices()[:1], BATCH)
    actual = map_batch(lambda shared, own: own * shared, np.float32(2), np.arange(3, dtype=np.float32), mesh=mesh)
    np.testing.assert_array_equal(actual, [0, 2, 4])


def test_a_mesh_without_devices_is_refused():
    with pytest.raises(InputError, match="0 devices"):
        mesh_of([], HEIGHT)


def test_a_number_of_devices_out_of_range_is_refused():
    there = len(jax.devices())
    for count in (0, -1, there + 1, 10**9):
        with pytest.raises(InputError, match=f"--devices is {count}, but {there} "):
            placement.available(count)
    assert len(placement.available(there)) == len(placement.available(None)) == there


class Device:
    """Stands for one of several devices where only their number counts."""

    platform = "cpu"


def test_the_rows_of_a_picture_are_divided_among_devices_only_on_request(monkeypatch):
    monkeypatch.setattr(placement, "mesh_of", lambda each, axis: (len(each), axis))
    monkeypatch.setattr(placement, "Layout", lambda mesh: mesh)
    monkeypatch.setattr(jax, "devices", lambda: [Device()] * 4)
    assert placement.row_layout(None, objective=Objective()) is None
    assert placement.row_layout(3, objective=Objective()) == (3, HEIGHT)
    assert placement.row_layout(1, objective=Objective(statistic="sliced")) is None
    monkeypatch.setattr(placement, "is_distributed", lambda: True)
    assert placement.row_layout(None, objective=Objective()) == (4, HEIGHT)
    for objective, option in [
        (Objective(statistic="sliced"), "--statistic"),
        (Objective(normalize_gradients=True), "--normalize-gradients"),
    ]:
        with pytest.raises(InputError, match=f"{option}.* 3 devices"):
            placement.row_layout(3, objective=objective)


def test_a_batch_is_divided_among_at_most_one_device_per_image(monkeypatch):
    monkeypatch.setattr(placement, "mesh_of", lambda each, axis: (len(each), axis))
    monkeypatch.setattr(placement, "Layout", lambda mesh: mesh)
    monkeypatch.setattr(jax, "devices", lambda: [Device()] * 4)
    assert placement.batch_layout(None, batch_size=1) is None and placement.batch_layout(1, batch_size=8) is None
    assert placement.batch_layout(None, batch_size=3) == (3, BATCH)
    assert placement.batch_layout(2, batch_size=8) == (2, BATCH)


def test_a_function_of_the_leader_returns_at_once_with_one_process():
    assert on_process_zero(lambda: 7) == 7 and on_process_zero(lambda: None) == 0


def test_a_failure_of_the_leader_is_raised_in_all_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for leads in (False, True):
        monkeypatch.setattr(jax, "process_index", lambda leads=leads: 0 if leads else 1)
        for code, kind in ((-2, InputError), (-1, UnavailableError)):

            def fail(kind: type[Exception] = kind) -> int:
                raise kind("of the leader.")

            gathered = lambda own, code=code: [code, own]  # noqa: E731
            monkeypatch.setattr("jaxstyle.distributed.processes.allgather_json", gathered)
            with pytest.raises(kind, match="of the leader." if leads else "Process 0 .* failed"):
                on_process_zero(fail if leads else lambda: 1)


def test_a_checkpoint_that_only_one_process_can_read_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "allgather_json", lambda own: [True, False])
    with pytest.raises(InputError, match="does not exist in all processes"):
        checkpoint.CheckpointStore(tmp_path / "kept").save(1, {"x": np.zeros(3)}, {})

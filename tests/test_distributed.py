"""Distributed runs: several processes compute what one does, and all of them end if one fails."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxstyle.cli import main
from jaxstyle.cli.options import Processes
from jaxstyle.distributed import processes
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.images.load import load_image
from jaxstyle.runtime.batch import BatchRecord

ROOT = Path(__file__).parents[1]
STYLIZE = "stylize content.png style.png -o out.png --weights tiny.h5"
FAST = "--size 32 --scales 1 --style-layers relu1_1 --content-layers relu1_1 --optimizer adam"  # compiles in a second
LONG = "--steps 1000000"
INTERRUPT = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from jaxstyle.cli import main; "
)


def until(true: Callable[[], bool], *, seconds: float = 600) -> None:
    """Wait until a condition is true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)


class Run:
    """One process of a run, and its output."""

    def __init__(self, folder: Path, number: int, options: str, **environment: str) -> None:
        self.output = folder / f"output{number}.txt"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{INTERRUPT} sys.exit(main())", *options.split()],
                env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def lines(self) -> list[str]:
        """Return the output without that of Gloo, whose threads may split their lines."""
        return [line for line in self.text.splitlines() if "[Gloo]" not in line and "peer ranks" not in line]

    def ended(self) -> bool:
        return self.process.poll() is not None


@pytest.fixture
def together(folder) -> Iterator[Callable[..., list[Run]]]:
    """Start a distributed command of two devices per process; each process has options of its own."""
    runs: list[Run] = []

    def start(command: str, *own: str, of: int = 2, **environment: str) -> list[Run]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = f"{command} --distributed --coordinator 127.0.0.1:{port} --num-processes {of} --process-id"
        environment = {"JAX_NUM_CPU_DEVICES": "2", **environment}
        started = [Run(folder, number, f"{shared} {number} {each}", **environment) for number, each in enumerate(own)]
        runs.extend(started)
        return started

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()


@pytest.fixture
def only_long(is_long: bool) -> None:
    if not is_long:
        pytest.skip("runs with --long")


def statuses(runs: list[Run]) -> list[int]:
    until(lambda: all(run.ended() for run in runs))
    return [run.process.returncode for run in runs]


def checkpoints() -> list[Path]:
    return list(Path("kept").glob("checkpoint-*.npz"))


def apart(one: Path, other: Path) -> float:
    return float(np.abs(load_image(one).rgb - load_image(other).rgb).max())


TEN = "--weights tiny.h5 --steps 10 --optimizer adam --scales 1 --bits 16"
TEN += " --content-layers relu1_1 --style-layers relu1_1"


@pytest.mark.slow
def test_two_processes_with_two_devices_each_share_rows_and_return_the_picture_of_one_process(together):
    command = f"stylize content.png style.png -o rows.png {TEN} --size 50"  # 40 rows
    runs = together(command, "", "")
    assert statuses(runs) == [0, 0], [run.text for run in runs]
    assert "4 devices of 2 processes" in runs[0].text and runs[1].lines() == []
    assert main(command.replace("rows.png", "alone.png").split()) == 0
    assert apart(Path("rows.png"), Path("alone.png")) < 4e-5  # of which 16 bits are 1.5e-5


@pytest.mark.soak
@pytest.mark.usefixtures("only_long")
def test_two_processes_with_two_devices_each_share_a_batch_and_return_the_pictures_of_one_process(together):
    command = f"sweep content.png style.png -o shared {TEN} --size 40 --style-weight 1,2,3,4,5,6,7,8"
    runs = together(command, "", "")
    assert statuses(runs) == [0, 0], [run.text for run in runs]
    assert "4 devices of 2 processes" in runs[0].text and runs[1].lines() == []
    assert main(command.replace("shared", "alone").split()) == 0
    pictures = sorted(path.name for path in Path("alone").glob("style*.png"))
    assert len(pictures) == 8 and pictures == sorted(path.name for path in Path("shared").glob("style*.png"))
    assert max(apart(Path("alone") / name, Path("shared") / name) for name in pictures) < 4e-5


# Faults of processes: the sample is one kill


@pytest.mark.soak
def test_after_a_kill_the_other_process_ends_and_the_same_command_resumes(together):
    command = f"{STYLIZE} {FAST} --steps 2000 --checkpoint kept --every 10 --heartbeat-timeout 10"
    first, second = together(command, "", "")
    until(lambda: len(checkpoints()) > 0)
    second.process.kill()
    until(first.ended)
    assert first.process.returncode not in (0, 2)
    taken = max(int(path.stem.partition("-")[2]) for path in checkpoints())
    again = together(command, "", "")
    until(lambda: f"after step {taken}" in again[0].text)
    until(lambda: max(int(path.stem.partition("-")[2]) for path in checkpoints()) > taken)
    again[1].process.send_signal(signal.SIGTERM)  # to either of them
    assert statuses(again) == [143, 143], [run.text for run in again]
    assert "interrupted" in again[0].text and Path("out.png").is_file()


@pytest.mark.soak
@pytest.mark.usefixtures("only_long")
def test_processes_with_different_options_are_refused(together):
    runs = together(f"{STYLIZE} {FAST}", "--steps 10", "--steps 20")
    assert statuses(runs) == [2, 2]
    for run in runs:
        assert "options.steps 10, but process 1 has 20" in run.text.splitlines()[-1]


@pytest.mark.soak
@pytest.mark.usefixtures("only_long")
def test_a_batch_is_divided_among_processes_and_the_first_to_finish_waits_for_the_others(together):
    runs = together(f"batch content.png style.png --styles style.png -o out {FAST} --weights tiny.h5", "", "")
    assert statuses(runs) == [0, 0], [run.text for run in runs]
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["content_style.png", "style_style.png"]
    assert BatchRecord(Path("out")).read().keys() == {"content_style.png", "style_style.png"}
    assert "out: 1 made, " in runs[0].text
    first, second = together(f"batch content.png --styles style.png -o more {FAST} --weights tiny.h5 {LONG}", "", "")
    until(lambda: "1 of 1: " in first.text)
    time.sleep(1)
    first.process.send_signal(signal.SIGTERM)
    assert statuses([first, second]) == [143, 0]


@pytest.mark.soak
@pytest.mark.usefixtures("only_long")
def test_after_an_error_a_process_ends_at_once_and_makes_the_others_end(together):
    first, second = together(f"{STYLIZE} {FAST} {LONG} --heartbeat-timeout 10", "", "--init none.png")
    first_status, second_status = statuses([first, second])
    assert second_status == 2 and "--init none.png" in second.text and len(second.lines()) == 1
    assert first_status not in (0, 2)


@pytest.mark.soak
def test_a_process_that_waits_in_vain_for_the_others_ends_with_one_sentence(together):
    [only] = together(f"{STYLIZE} {FAST} --initialization-timeout 2", "")
    until(only.ended)
    assert only.process.returncode == 1
    assert "within 2 seconds" in only.text and len(only.text.splitlines()) == 1


@pytest.mark.soak
@pytest.mark.usefixtures("only_long")
def test_without_a_cluster_a_command_ends_with_the_names_of_the_options(folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI", "JAX_"))}
    done = subprocess.run(
        [sys.executable, "-m", "jaxstyle", *f"{STYLIZE} --distributed".split()],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "--coordinator, --num-processes and --process-id" in done.stderr and len(done.stderr.splitlines()) == 1
    assert (done.returncode, done.stdout) == (2, "")


# Without processes


ONE = {"distributed": True, "num_processes": 1, "process_id": 0}


@pytest.mark.parametrize(
    ("options", "devices", "mentioned"),
    [
        ({"coordinator": "a:1"}, None, "--coordinator --distributed"),
        ({"process_id": 0, "num_processes": 2}, None, "--num-processes --distributed"),
        ({"distributed": True, "process_id": 0}, None, "--process-id --coordinator --num-processes"),
        ({**ONE, "coordinator": "a:1", "num_processes": 0}, None, "--num-processes is 0: from 1"),
        ({**ONE, "coordinator": "a:1", "num_processes": 2, "process_id": 2}, None, "--process-id is 2: from 0 to 1"),
        ({"distributed": True}, 1, "--devices is 1, --distributed"),
        *(
            ({**ONE, "coordinator": where}, None, f"--coordinator is {where!r}: 10.0.0.1:1234")
            for where in ("localhost", "localhost:0", "localhost:65536", ":80", "::1:80", "http://a:80")
        ),
    ],
)
def test_invalid_options_of_distributed_runs_are_refused(options, devices, mentioned):
    with pytest.raises(InputError) as caught:
        Processes(**options).check(devices=devices)
    assert all(word in str(caught.value) for word in mentioned.split())


def test_valid_addresses_of_a_coordinator_are_accepted():
    for where in ("localhost:1234", "node-1.example.org:80", "10.0.0.1:65535", "[fe80::1%eth0]:1"):
        Processes(**ONE, coordinator=where).check(devices=None)


def test_every_command_with_an_optimization_checks_the_options_of_distributed_runs(refused):
    for command in (
        STYLIZE,
        "sweep a.png b.png -o out",
        "batch a.png --styles b.png -o out",
        "texture a.png -o b.png",
        "reconstruct a.png -o b.png",
    ):
        status, sentence = refused(*command.split(), "--process-id", "0")
        assert "--process-id" in sentence and "--distributed" in sentence and status == 2


def test_processes_with_different_numbers_of_devices_are_refused():
    processes.check_devices([0, 1, 0, 1])
    with pytest.raises(InputError, match="1 to 2 devices"):
        processes.check_devices([0, 1, 0])


TIMEOUTS = {"initialization_timeout": 60, "heartbeat_timeout": 100}


@pytest.fixture
def unconnected(monkeypatch) -> None:
    """Keep `initialize` from changing the settings of jax and the environment of other tests."""
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setenv("no_grpc_proxy", "")


@pytest.mark.usefixtures("unconnected")
def test_without_a_cluster_the_options_are_named(monkeypatch):
    def initialize(**options: object) -> None:
        assert options.keys() == {"initialization_timeout", "heartbeat_timeout_seconds", "shutdown_timeout_seconds"}
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(InputError, match="--coordinator, --num-processes and --process-id"):
        processes.initialize(None, None, None, **TIMEOUTS)


@pytest.mark.usefixtures("unconnected")
def test_an_occupied_port_is_named(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("not reached"))
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        where = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"{where} cannot be used .*: name a free port"):
            processes.initialize(where, 1, 0, **TIMEOUTS)


@pytest.mark.usefixtures("unconnected")
def test_processes_that_do_not_connect_in_time_are_reported(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: release.wait(60))
    with pytest.raises(UnavailableError, match="node:1 .* within 1 seconds.*--initialization-timeout"):
        processes.initialize("node:1", 2, 1, initialization_timeout=1, heartbeat_timeout=100)
    release.set()


@pytest.mark.usefixtures("unconnected")
def test_the_coordinator_and_the_numbers_of_processes_are_passed_to_jax(monkeypatch):
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    processes.initialize("node:1", 2, 1, **TIMEOUTS)
    [call] = calls
    assert (call["coordinator_address"], call["num_processes"], call["process_id"]) == ("node:1", 2, 1)
    assert call["initialization_timeout"] > 60 and call["heartbeat_timeout_seconds"] == 100

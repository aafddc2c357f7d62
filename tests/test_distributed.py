"""Distributed runs: several processes compute what one does, and all of them end if one fails."""

import contextlib
import io
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
import psutil
import pytest

from jaxstyle.cli import joining, main, watching
from jaxstyle.cli.processes import Processes
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
    """One process of a run: the parent that a user starts, and its output."""

    def __init__(self, folder: Path, number: int, options: str, **environment: str) -> None:
        self.output = folder / f"output{number}.txt"
        with self.output.open("w") as file:
            self.parent = subprocess.Popen(
                [sys.executable, "-c", f"{INTERRUPT} sys.exit(main())", *options.split()],
                env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def child(self) -> psutil.Process:
        until(lambda: len(psutil.Process(self.parent.pid).children()) == 1)
        return psutil.Process(self.parent.pid).children()[0]

    def ended(self) -> bool:
        return self.parent.poll() is not None


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
        with contextlib.suppress(psutil.Error):
            for process in [*psutil.Process(run.parent.pid).children(), run.parent]:
                process.kill()
        run.parent.wait()


@pytest.fixture
def only_long(is_long: bool) -> None:
    if not is_long:
        pytest.skip("runs with --long")


def statuses(runs: list[Run]) -> list[int]:
    until(lambda: all(run.ended() for run in runs))
    return [run.parent.returncode for run in runs]


def checkpoints() -> list[Path]:
    return list(Path("kept").glob("*/facts.json"))


def apart(one: Path, other: Path) -> float:
    return float(np.abs(load_image(one).rgb - load_image(other).rgb).max())


TEN = "--weights tiny.h5 --steps 10 --optimizer adam --scales 1 --bits 16"
TEN += " --content-layers relu1_1 --style-layers relu1_1"


@pytest.mark.slow
def test_two_processes_with_two_devices_each_share_rows_and_return_the_picture_of_one_process(together):
    command = f"stylize content.png style.png -o rows.png {TEN} --size 50"  # 40 rows
    runs = together(command, "", "")
    assert statuses(runs) == [0, 0], [run.text for run in runs]
    assert "4 devices of 2 processes" in runs[0].text and runs[1].text == ""
    assert main(command.replace("rows.png", "alone.png").split()) == 0
    assert apart(Path("rows.png"), Path("alone.png")) < 4e-5  # of which 16 bits are 1.5e-5


@pytest.mark.soak
@pytest.mark.usefixtures("only_long")
def test_two_processes_with_two_devices_each_share_lanes_and_return_the_pictures_of_one_process(together):
    command = f"sweep content.png style.png -o lanes {TEN} --size 40 --style-weight 1,2,3,4,5,6,7,8"
    runs = together(command, "", "")
    assert statuses(runs) == [0, 0], [run.text for run in runs]
    assert "4 devices of 2 processes" in runs[0].text and runs[1].text == ""
    assert main(command.replace("lanes", "lone").split()) == 0
    pictures = sorted(path.name for path in Path("lone").glob("style*.png"))
    assert len(pictures) == 8 and pictures == sorted(path.name for path in Path("lanes").glob("style*.png"))
    assert max(apart(Path("lone") / name, Path("lanes") / name) for name in pictures) < 4e-5


# Faults of processes: the sample is one kill


@pytest.mark.soak
@pytest.mark.parametrize(("number", "who"), [(1, "child"), (0, "parent")])
def test_after_a_kill_all_processes_end_and_the_same_command_resumes(number, who, together, is_long):
    if who == "parent" and not is_long:
        pytest.skip("runs with --long")
    command = f"{STYLIZE} {FAST} --steps 2000 --checkpoint kept --every 10"
    runs = together(command, "", "")
    children = [run.child() for run in runs]
    until(lambda: len(checkpoints()) > 0)
    victim = children[number] if who == "child" else runs[number].parent
    victim.kill()
    until(lambda: all(run.ended() for run in runs) and not any(child.is_running() for child in children))
    for i, run in enumerate(runs):
        errors = [line for line in run.text.splitlines() if line.startswith("jaxstyle: ")]
        if run.parent is victim:
            assert (run.parent.returncode, errors) == (-signal.SIGKILL, [])
            continue
        [sentence] = errors
        assert run.parent.returncode == 1 and "Traceback" not in run.text
        assert ("SIGKILL" if who == "child" and i == number else "Another process") in sentence
    taken = max(int(path.parent.name) for path in checkpoints())
    again = together(command, "", "")
    until(lambda: f"after step {taken}" in again[0].text)
    until(lambda: max(int(path.parent.name) for path in checkpoints()) > taken)
    again[1].parent.send_signal(signal.SIGTERM)  # to either of them
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
    first.parent.send_signal(signal.SIGTERM)
    assert statuses([first, second]) == [143, 0]


@pytest.mark.soak
@pytest.mark.usefixtures("only_long")
def test_after_an_error_a_process_ends_and_makes_the_others_end(together):
    runs = together(f"{STYLIZE} {FAST} {LONG}", "", "--init none.png")
    assert statuses(runs) == [1, 2]
    first, second = runs
    assert "--init none.png" in second.text and len(second.text.splitlines()) == 1
    assert "Another process" in first.text.splitlines()[-1]


@pytest.mark.soak
def test_a_process_that_waits_in_vain_for_the_others_ends_with_one_sentence(together):
    [only] = together(f"{STYLIZE} {FAST}", "", JAXSTYLE_JOINING="2")
    until(only.ended)
    assert only.parent.returncode == 1
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


COUNTING = """#!{python}
import os, signal, sys, time
came = []
signal.signal(signal.SIGINT, lambda number, _: came.append(number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
print("ready", flush=True)
while len(came) < 2:
    time.sleep(0.05)
time.sleep(0.5)
os.write(int(os.environ["JAXSTYLE_WATCHED"].split(",")[1]), f"ended {{40 + len(came)}}\\n".encode())
"""
WATCH = "from jaxstyle.cli.watching import watch; sys.executable = sys.argv[1]; sys.exit(watch(['stylize']))"


@pytest.mark.soak
def test_each_press_of_the_interrupt_key_reaches_the_child_once(tmp_path):
    script = tmp_path / "counting"
    script.write_text(COUNTING.format(python=sys.executable))
    script.chmod(0o700)
    command = [sys.executable, "-c", f"{INTERRUPT} {WATCH}", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout and parent.stdout.readline() == b"ready\n"
        for _ in range(2):
            time.sleep(0.3)
            os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        assert parent.wait(60) == 42


# Without processes


def test_the_end_of_a_child_without_an_exit_status_is_explained():
    for code, messages, output, mentioned in [
        (1, ["lost Gloo AllGather failed: Connection reset by peer"], "", "Another process (Gloo AllGather failed:"),
        (1, ["lost"], "", "Another process"),
        (-6, [], "F1 the JAX distributed service detected fatal errors. This\n@ 0x1", "Another process"),
        (-9, [], "one\n", "here (SIGKILL, memory"),
        (-11, [], "one\ntwo\n", "here (SIGSEGV, two)"),
        (3, [], "", "here (status 3,"),
    ]:
        with pytest.raises(UnavailableError) as caught:
            watching._status(code, messages, io.BytesIO(output.encode()))
        sentence = str(caught.value)
        assert all(word in sentence for word in mentioned.split()) and "repeat the command" in sentence, sentence


def test_the_exit_status_that_a_child_reported_takes_precedence_over_its_end():
    assert watching._status(-6, ["ended 2"], io.BytesIO(b"the JAX distributed service detected fatal errors")) == 2


def test_errors_of_connections_are_attributed_to_other_processes():
    for error, is_theirs in [
        (ValueError("UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error"), True),
        (RuntimeError("UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was"), True),
        (RuntimeError("INTERNAL: Barrier failed because: task is set to ERROR"), True),
        (ValueError("operands could not be broadcast together with shapes (2,) (3,)"), False),
        (RuntimeError("INVALID_ARGUMENT: Executable expected parameter 0 of size 4"), False),
    ]:
        assert joining.is_of_others(error) == is_theirs, error


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
    joining.check_devices([0, 1, 0, 1])
    with pytest.raises(InputError, match="1 to 2 devices"):
        joining.check_devices([0, 1, 0])


def test_distributed_runs_are_refused_where_signals_cannot_be_blocked(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask")
    with pytest.raises(InputError, match="--distributed .* Windows"):
        Processes(distributed=True).check(devices=None)


@pytest.fixture
def unjoined(monkeypatch) -> None:
    """Keep `join` from changing the settings of jax and the environment of other tests."""
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setenv("no_grpc_proxy", "")


@pytest.mark.usefixtures("unjoined")
def test_an_invalid_time_limit_for_joining_is_refused(monkeypatch):
    for text in ("soon", "0", "-1", "inf"):
        monkeypatch.setenv("JAXSTYLE_JOINING", text)
        with pytest.raises(InputError, match=f"JAXSTYLE_JOINING is '{text}': use seconds, such as 60"):
            joining.join(Processes(distributed=True))


@pytest.mark.usefixtures("unjoined")
def test_without_a_cluster_the_options_for_joining_are_named(monkeypatch):
    def initialize(**options: object) -> None:
        assert options.keys() == {"initialization_timeout", "heartbeat_timeout_seconds", "shutdown_timeout_seconds"}
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(InputError, match="--coordinator, --num-processes and --process-id"):
        joining.join(Processes(distributed=True))


@pytest.mark.usefixtures("unjoined")
def test_an_occupied_port_is_named(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("not reached"))
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        where = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"{where} cannot be used .*: name a free port"):
            joining.join(Processes(**ONE, coordinator=where))


@pytest.mark.usefixtures("unjoined")
def test_processes_that_do_not_join_in_time_are_reported(monkeypatch):
    monkeypatch.setenv("JAXSTYLE_JOINING", "0.01")
    release = threading.Event()
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: release.wait(60))
    with pytest.raises(UnavailableError, match=r"node:1 .* within 0\.01 seconds"):
        joining.join(Processes(distributed=True, coordinator="node:1", num_processes=2, process_id=1))
    release.set()


@pytest.mark.usefixtures("unjoined")
def test_the_coordinator_and_the_numbers_of_processes_are_passed_to_jax(monkeypatch):
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    monkeypatch.setattr(joining, "_joined", threading.Event())
    joining.join(Processes(distributed=True, coordinator="node:1", num_processes=2, process_id=1))
    [call] = calls
    assert (call["coordinator_address"], call["num_processes"], call["process_id"]) == ("node:1", 2, 1)
    assert call["initialization_timeout"] > joining.JOINING and joining._joined.is_set()

"""Several processes that paint together: all of them end if one does, each with one sentence and no success."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from jaxstyle import image
from jaxstyle.cli import joining, main, watching
from jaxstyle.cli.batch_record import BatchRecord
from jaxstyle.cli.processes import Processes
from jaxstyle.errors import InputError, UnavailableError

ROOT = Path(__file__).parents[1]
STYLIZE = "stylize content.png style.png -o out.png --weights tiny.h5"
QUICK = "--size 32 --scales 1 --style-layers relu1_1 --content-layers relu1_1 --optimizer adam"  # which compiles soon
LOST = "jaxstyle: Another process of this run has ended or is out of reach"
LONG = "--steps 1000000"
KILLED = "jaxstyle: The process that paints has died here (SIGKILL, for want of memory perhaps): repeat the command in"
INTERRUPT = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from jaxstyle.cli import main; "
)


def until(true: Callable[[], bool], *, seconds: float = 60) -> float:
    """Wait until something is true and return how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)
    return time.monotonic() - began


class Run:
    """One process of a run: the parent that a user would start, and what it says on standard error."""

    def __init__(self, folder: Path, number: int, options: str, **environment: str) -> None:
        self.said = folder / f"said{number}.txt"
        with self.said.open("w") as file:
            self.parent = subprocess.Popen(
                [sys.executable, "-c", f"{INTERRUPT} sys.exit(main())", *options.split()],
                env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.said.read_text()

    def child(self) -> psutil.Process:
        until(lambda: len(psutil.Process(self.parent.pid).children()) == 1)
        return psutil.Process(self.parent.pid).children()[0]

    def ended(self) -> bool:
        return self.parent.poll() is not None


@pytest.fixture
def together(folder) -> Iterator[Callable[..., list[Run]]]:
    """Start processes of two devices each that share a command, with options of their own, and end what is left."""
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


def all_ended(runs: list[Run], *, seconds: float = 100) -> list[int]:
    until(lambda: all(run.ended() for run in runs), seconds=seconds)
    return [run.parent.returncode for run in runs]


def checkpoints() -> list[Path]:
    return list(Path("kept").glob("*/facts.json"))


def apart(one: Path, other: Path) -> float:
    return float(np.abs(image.load(one).rgb - image.load(other).rgb).max())


TEN = "--weights tiny.h5 --steps 10 --optimizer adam --scales 1 --bits 16"


@pytest.mark.slow
def test_rows_and_lanes_of_two_processes_are_those_of_one(together):
    rows = f"stylize content.png style.png -o rows.png {TEN} --size 90"  # of 72 rows, 5 of them at relu5_1
    lanes = f"sweep content.png style.png -o lanes {TEN} --size 40 --style-weight 1,2,3,4,5,6,7,8"
    runs = together(rows, "", "")
    assert all_ended(runs) == [0, 0], [run.text for run in runs]
    assert "4 devices of 2 processes share the picture's rows" in runs[0].text and runs[1].text == ""
    runs = together(lanes, "", "")
    assert all_ended(runs) == [0, 0], [run.text for run in runs]
    assert "4 devices of 2 processes share the pictures" in runs[0].text and runs[1].text == ""
    assert main(rows.replace("rows.png", "alone.png").split()) == main(lanes.replace("lanes", "lone").split()) == 0
    assert apart(Path("rows.png"), Path("alone.png")) < 4e-5  # of which 16 bits are 1.5e-5
    pictures = sorted(path.name for path in Path("lone").glob("style*.png"))
    assert len(pictures) == 8 and pictures == sorted(path.name for path in Path("lanes").glob("style*.png"))
    assert max(apart(Path("lone") / name, Path("lanes") / name) for name in pictures) < 4e-5


@pytest.mark.slow
@pytest.mark.parametrize(("number", "who"), [(1, "child"), (0, "parent")])
def test_where_a_process_is_killed_all_end_and_the_last_checkpoint_goes_on(number, who, together):
    command = f"{STYLIZE} {QUICK} --steps 2000 --checkpoint kept --every 10"
    runs = together(command, "", "")
    children = [run.child() for run in runs]
    until(lambda: len(checkpoints()) > 0)
    victim = children[number] if who == "child" else runs[number].parent
    victim.kill()
    until(lambda: all(run.ended() for run in runs) and not any(child.is_running() for child in children))
    for i, run in enumerate(runs):
        said = [line for line in run.text.splitlines() if line.startswith("jaxstyle: ")]
        if run.parent is victim:
            assert (run.parent.returncode, said) == (-signal.SIGKILL, [])
            continue
        [sentence] = said
        assert run.parent.returncode == 1 and "Traceback" not in run.text
        assert sentence.startswith(KILLED if who == "child" and i == number else LOST)
    taken = max(int(path.parent.name) for path in checkpoints())
    again = together(command, "", "")
    until(lambda: f"kept: going on after step {taken}" in again[0].text)
    until(lambda: max(int(path.parent.name) for path in checkpoints()) > taken)
    again[1].parent.send_signal(signal.SIGTERM)  # any of them may be told to stop, and all do
    assert all_ended(again) == [143, 143], [run.text for run in again]
    assert "out.png: interrupted after" in again[0].text and Path("out.png").is_file()


@pytest.mark.slow
def test_processes_that_were_told_otherwise_are_refused(together):
    runs = together(f"{STYLIZE} {QUICK}", "--steps 10", "--steps 20")
    assert all_ended(runs) == [2, 2]
    sentence = "jaxstyle: Process 0 has options.steps 10, but process 1 has 20: give all processes the same command and"
    assert all(run.text.splitlines()[-1].startswith(sentence) for run in runs)


@pytest.mark.slow
def test_a_batch_is_shared_out_and_a_process_that_is_through_waits_for_the_others(together):
    runs = together(f"batch content.png style.png --styles style.png -o out {QUICK} --weights tiny.h5", "", "")
    assert all_ended(runs) == [0, 0], [run.text for run in runs]
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["content_style.png", "style_style.png"]
    assert BatchRecord(Path("out")).read().keys() == {"content_style.png", "style_style.png"}
    assert "out: 1 made, 0 there already, 0 left out" in runs[0].text
    first, second = together(f"batch content.png --styles style.png -o more {QUICK} --weights tiny.h5 {LONG}", "", "")
    until(lambda: "1 of 1: " in first.text)
    time.sleep(1)
    first.parent.send_signal(signal.SIGTERM)
    assert all_ended([first, second]) == [143, 0]


@pytest.mark.slow
def test_after_an_error_a_process_does_not_wait_for_others_but_lets_them_end(together):
    runs = together(f"{STYLIZE} {QUICK} {LONG}", "", "--init none.png")
    assert all_ended(runs) == [1, 2]
    first, second = runs
    assert second.text == "jaxstyle: --init none.png is no file: use content, style, noise or the path of a picture.\n"
    assert first.text.splitlines()[-1].startswith(LOST)


@pytest.mark.slow
def test_where_another_process_does_not_come_the_first_one_says_so(together):
    [only] = together(f"{STYLIZE} {QUICK}", "", JAXSTYLE_JOINING="2")
    until(only.ended)
    assert only.parent.returncode == 1
    assert "was not reached by all processes within 2 seconds: start the command in each of them" in only.text
    assert len(only.text.splitlines()) == 1


# What needs no jax

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


def test_the_interrupt_key_reaches_the_one_that_paints_once(tmp_path):
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


@pytest.mark.parametrize(
    ("code", "told", "said", "saying"),
    [
        (1, ["lost Gloo AllGather failed: Connection reset by peer"], "", f"{LOST} (Gloo AllGather failed: Connection"),
        (1, ["lost"], "", f"{LOST}: repeat the command in all of them, which goes on from the last checkpoint if"),
        (-6, [], "F1 Terminating process because the JAX distributed service detected fatal errors. This\n@ 0x1", LOST),
        (-9, [], "one\n", KILLED),
        (-11, [], "one\ntwo\n", "The process that paints has died here (SIGSEGV, two): repeat the command"),
        (3, [], "", "The process that paints has died here (status 3, it has not said why): repeat the command in all"),
    ],
)
def test_what_became_of_a_process_without_an_exit_status_is_said(code, told, said, saying):
    with pytest.raises(UnavailableError) as raised:
        watching._status(code, told, io.BytesIO(said.encode()))
    assert str(raised.value).startswith(saying.removeprefix("jaxstyle: "))


def test_an_exit_status_counts_even_if_the_process_was_ended_after_it():
    assert watching._status(-6, ["ended 2"], io.BytesIO(b"the JAX distributed service detected fatal errors")) == 2


@pytest.mark.parametrize(
    ("error", "is_theirs"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error"), True),
        (RuntimeError("UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was"), True),
        (RuntimeError("INTERNAL: Barrier failed because: task is set to ERROR"), True),
        (ValueError("operands could not be broadcast together with shapes (2,) (3,)"), False),
        (RuntimeError("INVALID_ARGUMENT: Executable expected parameter 0 of size 4"), False),
    ],
)
def test_errors_that_come_from_other_processes_are_told_from_faults(error, is_theirs):
    assert joining.is_of_others(error) == is_theirs


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ("--coordinator a:1", "--coordinator is of processes that paint together: add --distributed or drop it."),
        ("--process-id 0 --num-processes 2", "--num-processes is of processes that paint together: add --distributed"),
        (
            "--distributed --process-id 0",
            "--process-id is there without --coordinator and --num-processes: give all three, or none where the",
        ),
        ("--distributed --coordinator a:1 --num-processes 0 --process-id 0", "--num-processes is 0: use a whole"),
        (
            "--distributed --coordinator a:1 --num-processes 2 --process-id 2",
            "--process-id is 2: use a whole number from 0 to 1.",
        ),
        *(
            (
                f"--distributed --coordinator {where} --num-processes 1 --process-id 0",
                f"--coordinator is {where!r}: use host and port, such as 10.0.0.1:1234.",
            )
            for where in ("localhost", "localhost:0", "localhost:65536", ":80", "::1:80", "http://a:80")
        ),
    ],
)
def test_processes_that_cannot_be_are_refused(options, saying, refused):
    status, sentence = refused(*STYLIZE.split(), *options.split())
    assert sentence.startswith(saying) and status == 2


@pytest.mark.parametrize(
    "command",
    ["sweep a.png b.png -o out", "batch a.png --styles b.png -o out", "texture a.png -o b.png"]
    + ["reconstruct a.png -o b.png"],
)
def test_all_painting_commands_know_of_processes(command, refused):
    status, sentence = refused(*command.split(), "--process-id", "0")
    assert sentence.startswith("--process-id is of processes that paint together: ") and status == 2


def test_processes_need_as_many_devices_each():
    joining.check_devices([0, 1, 0, 1])
    with pytest.raises(InputError, match="The processes have 1 to 2 devices each: give all of them as many, such as"):
        joining.check_devices([0, 1, 0])


@pytest.mark.parametrize("where", ["localhost:1234", "node-1.example.org:80", "10.0.0.1:65535", "[fe80::1%eth0]:1"])
def test_addresses_of_all_kinds_will_do(where):
    Processes(distributed=True, coordinator=where, num_processes=1, process_id=0).check(devices=None)


def test_windows_is_named_where_it_will_not_do(monkeypatch, refused):
    monkeypatch.delattr(signal, "pthread_sigmask")
    status, sentence = refused("texture", "style.png", "-o", "out.png", "--distributed")
    assert sentence.startswith("--distributed needs signals that Windows does not have") and status == 2


@pytest.mark.parametrize("text", ["soon", "0", "inf"])
def test_a_time_for_joining_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_JOINING", text)
    with pytest.raises(ValueError, match="use seconds, such as 60."):
        joining.join(Processes(distributed=True))


def test_where_nothing_tells_who_takes_part_the_options_are_named(folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI", "JAX_"))}
    done = subprocess.run(
        [sys.executable, "-m", "jaxstyle", *f"{STYLIZE} --distributed".split()],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == (
        "jaxstyle: --distributed finds no cluster that tells who takes part: add --coordinator, --num-processes and "
        "--process-id.\n"
    )
    assert (done.returncode, done.stdout) == (2, "")


def test_a_port_that_is_taken_is_named(folder):
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        where = f"localhost:{taken.getsockname()[1]}"
        command = f"{STYLIZE} --distributed --coordinator {where} --num-processes 1 --process-id 0"
        done = subprocess.run(
            [sys.executable, "-m", "jaxstyle", *command.split()],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stderr.startswith(f"jaxstyle: {where} cannot be used (")
    assert done.stderr.endswith("): name a free port of process 0 with --coordinator.\n") and done.returncode == 1

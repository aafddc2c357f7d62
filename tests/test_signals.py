"""The first signal asks a command to stop, the second one interrupts it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from jaxstyle.cli import main
from jaxstyle.cli.console import _Download
from jaxstyle.cli.info import Networks
from jaxstyle.cli.signals import Interrupted, check, handled, stop_status
from jaxstyle.cli.statistics import Statistics
from jaxstyle.networks import pretrained

SENTENCE = "jaxstyle: interrupted before a picture was saved.\n"
SMALL = ["--size", "32", "--weights", "tiny.h5", "--quiet", "--style-layers", "relu1_1"]


def send(number: int = signal.SIGTERM) -> None:
    signal.raise_signal(number)


@pytest.fixture
def ended(capfd) -> Callable[..., tuple[int, str]]:
    """Run a command; return its exit status and standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        status = main(arguments)
        return status, capfd.readouterr().err

    return run


def test_a_signal_sets_the_exit_status_of_this_command_and_not_of_the_next(monkeypatch, ended):
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # the shell may have ignored SIGINT
    for name, status in [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]:
        if not hasattr(signal, name):  # Windows
            continue
        monkeypatch.setattr(Networks, "run", lambda _, name=name: send(getattr(signal, name)) or 0)
        assert ended("networks") == (status, "")
    monkeypatch.setattr(Networks, "run", lambda _: 0)
    assert ended("networks") == (0, "")


@pytest.mark.parametrize(
    ("command", "owner", "name", "error"),
    [
        (
            ["stylize", "content.png", "style.png", "-o", "out.png", "--steps", "1", *SMALL],
            pretrained,
            "load",
            SENTENCE,
        ),
        (["statistics", "style.png", "-o", "style.h5", *SMALL], Statistics, "_mean", SENTENCE),
        (["batch", "content.png", "--styles", "style.png", "-o", "out", *SMALL], pretrained, "load", SENTENCE),
        (["networks"], pretrained, "installed", SENTENCE),
    ],
)
def test_a_signal_ends_a_command_before_its_output(
    command, owner, name, error, folder, fake_runner, monkeypatch, ended
):
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **options: send() or real(*args, **options))
    assert ended(*command) == (143, error)
    assert not [*folder.glob("out.png"), *folder.glob("style.h5"), *folder.glob("out/*")]


def test_an_error_after_a_signal_is_reported(monkeypatch, ended):
    def run(_: Networks) -> int:
        send()
        assert stop_status() == 143
        raise FileNotFoundError(2, "No such file or directory", "out.png")

    monkeypatch.setattr(Networks, "run", run)
    status, error = ended("networks")
    assert status == 2 and "out.png" in error and "No such file or directory" in error


def test_the_first_signal_interrupts_at_the_next_check_and_the_second_at_once():
    with handled():
        check()
        send()
        with pytest.raises(Interrupted):
            check()
        with pytest.raises(Interrupted) as caught:
            send()
        assert caught.value.status == stop_status() == 143
    assert stop_status() == 0


def test_a_download_stops_at_the_next_block():
    bar = _Download(None)  # pyright: ignore[reportArgumentType]
    with handled():
        send()
        with pytest.raises(Interrupted):
            bar.update(1024)


def test_a_command_in_another_thread_leaves_the_handlers_alone():
    before, actual = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with handled():
            actual.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert actual == [before]


@pytest.mark.skipif(os.name == "nt", reason="on Windows, a process has no exit status of a signal")
def test_a_signal_while_the_process_ends_is_silent():
    code = "import atexit, signal, sys\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "atexit.register(lambda: signal.raise_signal(signal.SIGINT))\n"
    code += "from jaxstyle.cli import main\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")  # 130 in a shell
    assert done.stdout.startswith("jaxstyle ")

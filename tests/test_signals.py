"""Signals stop a command, even if Python loses the exception in a callback or the signal arrives during an import."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from jaxstyle.cli import main, signals
from jaxstyle.cli.networks import Networks
from jaxstyle.cli.options import Network
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.signals import Interrupted, check, held, noted, raising
from jaxstyle.cli.statistics import Statistics
from jaxstyle.networks import pretrained

SENTENCE = "jaxstyle: interrupted before a picture was saved.\n"
SMALL = ["--size", "32", "--weights", "tiny.h5", "--quiet", "--style-layers", "relu1_1"]


class Late:
    """Sends a signal from `__del__`, where Python reports an exception but does not propagate it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


def lost(number: int) -> None:
    """Send a signal whose exception is lost."""
    late = Late(number)
    del late
    gc.collect()


@pytest.fixture
def ended(capfd) -> Callable[..., tuple[int, str]]:
    """Run a command; return its exit status and standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        status = main(arguments)
        return status, capfd.readouterr().err

    return run


def test_a_lost_signal_sets_the_exit_status_of_this_command_and_not_of_the_next(monkeypatch, ended):
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # the shell may have ignored SIGINT
    for name, status in [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]:
        monkeypatch.setattr(Networks, "run", lambda _, name=name: lost(getattr(signal, name)) or 0)
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
        (["batch", "content.png", "--styles", "style.png", "-o", "out", *SMALL], pretrained, "load", ""),
        (["networks"], pretrained, "installed", SENTENCE),
    ],
)
def test_a_lost_signal_ends_a_command_before_its_output(
    command, owner, name, error, folder, fake_runner, monkeypatch, ended
):
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **options: lost(signal.SIGTERM) or real(*args, **options))
    assert ended(*command) == (143, error)
    assert not [*folder.glob("out.png"), *folder.glob("style.h5"), *folder.glob("out/*")]


def test_an_error_that_replaces_an_interruption_counts_as_an_interruption(monkeypatch, ended):
    def run(_: Networks) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            raise ImportError("raised by a library in C instead") from None
        return 0

    monkeypatch.setattr(Networks, "run", run)
    assert ended("networks") == (143, SENTENCE)


def test_an_error_after_a_held_signal_is_reported(monkeypatch, ended):
    def run(_: Networks) -> int:
        with held() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked() == 143
            raise FileNotFoundError(2, "No such file or directory", "out.png")

    monkeypatch.setattr(Networks, "run", run)
    status, error = ended("networks")
    assert status == 2 and "out.png" in error and "No such file or directory" in error


def test_a_held_signal_that_nobody_asked_for_raises_at_the_next_check():
    with raising():
        with held():
            os.kill(os.getpid(), signal.SIGTERM)
        assert noted() == 143
        with pytest.raises(Interrupted):
            check()


def test_only_lost_interruptions_are_not_reported_as_unraisable(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: reported.append(each.exc_type))

    class Faulty:
        def __del__(self) -> None:
            raise ValueError

    with raising():
        lost(signal.SIGTERM)
        Faulty()
    assert reported == [ValueError]
    assert signals.noted() == 143


def test_after_a_lost_signal_the_reporter_prints_nothing(isolated, capsys):
    with raising():
        lost(signal.SIGTERM)
        with pytest.raises(Interrupted):
            Reporter(quiet=False).load_network("mini", Network())
    assert capsys.readouterr().err == ""


STOPPED = """
import os, signal, sys
from importlib.abc import MetaPathFinder

signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == {name!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{signal})
            {then}

sys.meta_path.insert(0, Finder())
from jaxstyle.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("name", "number", "then", "status"),
    [
        ("tyro", "SIGTERM", "raise ImportError('interrupted')", 143),
        pytest.param("tyro", "SIGINT", "pass", 130, marks=pytest.mark.soak),
        pytest.param("numpy", "SIGTERM", "pass", 143, marks=pytest.mark.soak),
        pytest.param("jax", "SIGINT", "raise ImportError('interrupted')", 130, marks=pytest.mark.soak),
    ],
)
def test_a_signal_during_an_import_ends_the_command_with_one_sentence(name, number, then, status, folder):
    code = STOPPED.format(name=name, signal=number, then=then)
    command = [sys.executable, "-c", code, "stylize", "content.png", "style.png", "-o", "out.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", SENTENCE)
    assert not (folder / "out.png").exists()


def test_a_signal_while_the_process_ends_is_silent():
    code = "import atexit, os, signal, sys\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    code += "from jaxstyle.cli import main\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")  # 130 in a shell
    assert done.stdout.startswith("jaxstyle ")


def test_a_signal_during_an_import_raises_after_the_import(isolated, monkeypatch):
    """Libraries in C may crash otherwise. The import continues after the signal; the loop after the import does not."""
    (isolated / "slow_library.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nsum(range(10**6))\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(isolated)

    def run(_: Networks) -> int:
        import slow_library  # pyright: ignore[reportMissingImports]

        assert slow_library.whole
        for _each in range(10**9):
            pass
        return 0

    monkeypatch.setattr(Networks, "run", run)
    assert main(["networks"]) == 143
    assert sys.modules.pop("slow_library").whole


@pytest.mark.parametrize(("watched", "pause", "status"), [(True, 0.4, 0), (True, 0.6, 143), (False, 0.001, 143)])
def test_a_second_signal_interrupts_unless_a_watching_parent_forwards_it_at_once(watched, pause, status, monkeypatch):
    monkeypatch.setattr(signals, "_noted", [])  # none of another test's
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    if watched:
        monkeypatch.setenv(signals.VARIABLE, "0,0,0")

    def twice() -> int:
        with signals.held() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            now[0] += pause
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked() == 143
        return 0

    if status == 0:
        assert twice() == 0
    else:
        with pytest.raises(signals.Interrupted):
            twice()

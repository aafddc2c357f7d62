"""A signal stops a command wherever it comes, even where it gets lost in a callback, or in the middle of an import."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from jaxstyle import pretrained
from jaxstyle.cli import main, signals
from jaxstyle.cli.networks import Networks
from jaxstyle.cli.options import Network
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.signals import Interrupted, check, held, noted, raising
from jaxstyle.cli.statistics import Statistics

SENTENCE = "jaxstyle: interrupted before a picture was saved.\n"
SMALL = ["--size", "32", "--weights", "tiny.h5", "--quiet", "--style-layers", "relu1_1"]


class Late:
    """What sends a signal when it is collected, where Python can report what that raises but not pass it on."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


def lost(number: int) -> None:
    """Have a signal get lost."""
    late = Late(number)
    del late
    gc.collect()


@pytest.fixture
def ended(capfd) -> Callable[..., tuple[int, str]]:
    """Run a command and return its exit status and what it said on standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        status = main(arguments)
        return status, capfd.readouterr().err

    return run


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_that_was_lost_is_the_status_of_a_command_that_ran_to_its_end(name, status, monkeypatch, ended):
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # SIGINT may be ignored here
    monkeypatch.setattr(Networks, "run", lambda _: lost(getattr(signal, name)) or 0)
    assert ended("networks") == (status, "")


def test_the_next_command_knows_nothing_of_a_signal_before_it(monkeypatch, ended):
    with monkeypatch.context() as patch:
        patch.setattr(Networks, "run", lambda _: lost(signal.SIGTERM) or 0)
        assert ended("networks") == (143, "")
    monkeypatch.setattr(Networks, "run", lambda _: 0)
    assert ended("networks") == (0, "")


def test_a_lost_signal_ends_stylize_before_the_first_step(folder, monkeypatch, ended):
    load = pretrained.load
    monkeypatch.setattr(pretrained, "load", lambda found: lost(signal.SIGTERM) or load(found))
    command = ["stylize", "content.png", "style.png", "-o", "out.png", "--steps", "1", "--content-layers", "relu1_1"]
    assert ended(*command, *SMALL) == (143, SENTENCE)
    assert not (folder / "out.png").exists()


def test_a_lost_signal_ends_statistics_at_the_next_picture(folder, monkeypatch, ended):
    mean = Statistics._mean
    monkeypatch.setattr(Statistics, "_mean", lambda *a, **k: lost(signal.SIGTERM) or mean(*a, **k))
    assert ended("statistics", "style.png", "-o", "style.h5", *SMALL) == (143, SENTENCE)
    assert not (folder / "style.h5").exists()


def test_a_lost_signal_ends_a_batch_at_the_next_picture(folder, monkeypatch, ended):
    load = pretrained.load
    monkeypatch.setattr(pretrained, "load", lambda found: lost(signal.SIGTERM) or load(found))
    assert ended("batch", "content.png", "--styles", "style.png", "-o", "out", *SMALL) == (143, "")
    assert list((folder / "out").iterdir()) == []


def test_a_lost_signal_ends_a_list_of_networks(isolated, monkeypatch, ended):
    installed = pretrained.installed
    monkeypatch.setattr(pretrained, "installed", lambda: lost(signal.SIGTERM) or installed())
    assert ended("networks") == (143, SENTENCE)


def test_an_error_that_an_interruption_was_turned_into_is_an_interruption(monkeypatch, ended):
    def run(_: Networks) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            raise ImportError("a library in C says this instead") from None
        return 0

    monkeypatch.setattr(Networks, "run", run)
    assert ended("networks") == (143, SENTENCE)


def test_an_error_after_a_signal_that_is_held_is_the_error(monkeypatch, ended):
    def run(_: Networks) -> int:
        with held() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked() == 143
            raise FileNotFoundError(2, "No such file or directory", "out.png")

    monkeypatch.setattr(Networks, "run", run)
    status, said = ended("networks")
    assert status == 2 and said.startswith("jaxstyle: out.png cannot be used (No such file or directory): ")


def test_a_signal_that_came_too_late_while_it_was_held_is_found_at_the_next_border():
    with raising():
        with held():
            os.kill(os.getpid(), signal.SIGTERM)
        assert noted() == 143
        with pytest.raises(Interrupted):
            check()


def test_only_what_is_lost_of_an_interruption_is_not_reported(monkeypatch):
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


def test_a_signal_that_got_lost_is_obeyed_before_anything_is_said_of_the_network(isolated, capsys):
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
        ("tyro", "SIGINT", "pass", 130),
        ("tyro", "SIGTERM", "raise ImportError('interrupted')", 143),
        pytest.param("numpy", "SIGTERM", "pass", 143, marks=pytest.mark.slow),
        ("jax", "SIGINT", "raise ImportError('interrupted')", 130),
    ],
)
def test_a_signal_during_an_import_is_one_sentence(name, number, then, status, folder):
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


def test_a_signal_waits_for_an_import_to_end(isolated, monkeypatch):
    """Libraries in C may crash otherwise; here the import goes on after the signal, and what follows it does not."""
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


@pytest.mark.parametrize(("watched", "pause", "status"), [(True, 0.0, 0), (True, 0.7, 143), (False, 0.0, 143)])
def test_a_signal_that_a_parent_passes_on_too_is_one(watched, pause, status, monkeypatch):
    monkeypatch.setattr(signals, "_noted", [])  # none of another test's
    if watched:
        monkeypatch.setenv(signals.VARIABLE, "0,0,0")

    def twice() -> int:
        with signals.held() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked() == 143
        return 0

    if status == 0:
        assert twice() == 0
    else:
        with pytest.raises(signals.Interrupted):
            twice()

"""What a running command shows: the bar, its speed and time left, and the summary at the end."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console as RichConsole
from rich.progress import Progress

from jaxstyle.cli import console
from jaxstyle.cli.console import Console
from jaxstyle.runtime.callbacks import Event
from jaxstyle.runtime.fitting import Result


def test_slow_steps_on_a_terminal_show_speed_time_left_and_terms():
    shown, now = io.StringIO(), [0.0]
    reporter = Console(quiet=False)
    reporter.rich = RichConsole(file=shown, force_terminal=True, width=80, color_system=None, get_time=lambda: now[0])
    metrics = {"total": 14.23, "content": 1.234, "style": 12.996}
    with reporter.progress():
        reporter.on_event(Event("compiling", 0, 20, (64, 64)))
        for step in range(1, 5):
            now[0] += 50.0  # rich averages over 30 seconds unless told otherwise
            reporter.on_event(Event("steps", step, 20, (64, 64), metrics, progress=step / 20))
    last = shown.getvalue().split("\r")[-2]
    assert "4/20" in last and "0.02 steps/s" in last and "13:20 left" in last  # 16 steps of 50 seconds
    assert "total 14.2  content 1.23  style 13" in last


def test_the_bar_follows_the_progress_of_events():
    reporter = Console(quiet=True)
    with reporter.progress() as bar:
        for event, completed, text in (
            (Event("resumed", 5, 12, progress=0.25), 0.25, ""),
            (Event("compiling", 5, 12, (32, 40), progress=0.25), 0.25, "compiling for 40 pixels"),
            (Event("steps", 7, 12, (32, 40), {"total": 2.0}, progress=0.5), 0.5, "total 2"),
            (Event("level off", 12, 12, (32, 40), progress=1.0), 1.0, "leveled off at 40 pixels"),
            (Event("resumed", 0, 12), 0.0, "leveled off at 40 pixels"),
        ):
            reporter.on_event(event)
            [task] = bar.progress.tasks
            assert (task.completed, task.fields["steps"], task.fields["text"]) == (completed, f"{event.step}/12", text)


def test_messages_are_shown_and_failures_are_counted(capsys):
    loud, quiet = Console(quiet=False), Console(quiet=True)
    for kind, loudly, quietly in (
        ("message", "[red]text:smile:\n", ""),
        ("warning", "[red]text:smile:\n", ""),
        ("diverged", "[red]text:smile:\n", ""),
        ("failed", "jaxstyle: [red]text:smile:\n", "jaxstyle: [red]text:smile:\n"),
    ):
        for each, expected in ((loud, loudly), (quiet, quietly)):
            each.on_event(Event(kind, message="[red]text:smile:"))
            assert capsys.readouterr() == ("", expected)
    assert loud.failures == quiet.failures == 2


def test_the_summary_gives_steps_speed_and_totals(capsys):
    for since, reason, taken, text in [
        (0, "done", 4, "4 steps in 2.0 s (2.00 steps/s), total 8 to 2"),
        (1, "done", 4, "4 steps, the last 3 in 2.0 s (1.50 steps/s), total 8 to 2"),
        (4, "done", 4, "4 steps, all from the checkpoint, total 8 to 2"),
        (0, "converged", 3, "leveled off after 3 steps in 2.0 s (1.50 steps/s), total 8 to 3"),
        (0, "stopped", 3, "interrupted after 3 of 4 steps in 2.0 s (1.50 steps/s), total 8 to 3"),
    ]:
        totals = np.array([8.0, 5.0, 3.0, 2.0])[:taken]
        reason_: Any = reason
        result = Result(None, {"total": totals}, None, taken, 2.0, reason_, resumed_at=since)
        Console(quiet=False).summary(Path("[red]a:smile:.png"), result, of=4)
        assert capsys.readouterr().err == f"[red]a:smile:.png: {text}\n"
        Console(quiet=True).summary(Path("a.png"), result, of=4)
        assert capsys.readouterr() == ("", "")
    for scale_step, text in ((2, "total 3 to 2 in the 2 steps of the last pass"), (4, "total 8 to 2")):
        snapshot: Any = SimpleNamespace(start=np.zeros((2, 2, 3)), scale_step=scale_step)
        result = Result(None, {"total": np.array([8.0, 5.0, 3.0, 2.0])}, snapshot, 4, 2.0, "done", resumed_at=1)
        Console(quiet=False).summary(Path("a.png"), result, of=4)
        assert capsys.readouterr().err == f"a.png: 4 steps, the last 3 in 2.0 s (1.50 steps/s), {text}\n"


def test_the_bar_of_a_download_follows_its_bytes():
    with Progress(disable=True) as bars:
        download = console._Download(bars)
        download.reset()  # before anything has arrived
        download.total = 100
        for count in (30, 20):
            download.update(count)
        [task] = bars.tasks
        assert (task.completed, task.total) == (50, 100)
        download.reset()
        download.close()
        assert task.completed == 0

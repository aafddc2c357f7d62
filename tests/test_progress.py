"""What a running command shows: the bar, its speed and time left, and the summary at the end."""

import io
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jaxstyle.cli import progress
from jaxstyle.cli.progress import Reporter
from jaxstyle.runtime.runner import Place

NOTHING: Any = None


def test_slow_steps_on_a_terminal_show_speed_time_left_and_terms():
    shown, now = io.StringIO(), [0.0]
    reporter = Reporter(quiet=False)
    reporter.console = Console(file=shown, force_terminal=True, width=80, color_system=None, get_time=lambda: now[0])
    with reporter.steps([(20, 4096)]) as steps:
        for _ in range(4):
            now[0] += 50.0  # rich averages over 30 seconds unless told otherwise
            steps.advance(1, {"total": 14.23, "content": 1.234, "style": 12.996})
    last = shown.getvalue().split("\r")[-2]
    assert "4/20" in last and "0.02 steps/s" in last and "13:20 left" in last  # 16 steps of 50 seconds
    assert "total 14.2  content 1.23  style 13" in last


def test_the_bar_is_proportional_to_the_pixels_of_the_steps_taken():
    plan = [(3, 10), (1, 25), (8, 70)]
    pixels = np.cumsum([0] + [own for count, own in plan for _ in range(count)])
    with Reporter(quiet=True).steps(plan) as steps:
        [task] = steps.progress.tasks
        assert task.total == pixels[-1]
        for start in range(13):
            steps.go_on(start)
            assert task.completed == pixels[start] and task.fields["taken"] == f"{start}/12"
            for size in (1, 5, 12):
                steps.go_on(start)
                steps.advance(min(size, 12 - start), {})
                assert task.completed == pixels[min(start + size, 12)]
                assert task.fields["taken"] == f"{min(start + size, 12)}/12"


def test_the_bar_of_a_billion_steps_needs_no_memory_per_step():
    tracemalloc.start()
    with Reporter(quiet=True).steps([(10**9, 4096)]) as steps:
        steps.advance(10, {})
        [task] = steps.progress.tasks
        assert task.completed == 40960 and task.fields["taken"] == "10/1000000000"
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_the_time_of_compiling_is_added_up_and_shown(monkeypatch):
    times = iter([1.0, 3.5, 10.0, 10.5])
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    with Reporter(quiet=True).steps([(2, 10)]) as steps:
        for side in (32, 64):
            with steps.compiling(side):
                assert steps.progress.tasks[0].fields["terms"] == f"compiling for {side} pixels"
    assert steps.wait_seconds == 3.0


def test_the_summary_gives_steps_speed_and_totals(capsys):
    for since, stopped, taken, text in [
        (0, False, 4, "4 steps in 2.0 s (2.00 steps/s), total 8 to 2"),
        (1, False, 4, "4 steps, the last 3 in 2.0 s (1.50 steps/s), total 8 to 2"),
        (4, False, 4, "4 steps, all of them before, total 8 to 2"),
        (0, False, 3, "leveled off after 3 steps in 2.0 s (1.50 steps/s), total 8 to 3"),
        (0, True, 3, "interrupted after 3 of 4 steps in 2.0 s (1.50 steps/s), total 8 to 3"),
    ]:
        totals = np.array([8.0, 5.0, 3.0, 2.0])[:taken]
        place = Place(0, taken, NOTHING, NOTHING, np.full(taken, 32), {"total": totals}, {})
        options: dict[str, Any] = {"since": since, "of": 4, "seconds": 2.0, "stopped": stopped}
        Reporter(quiet=False).finished(Path("[red]a:smile:.png"), place, **options)
        assert capsys.readouterr().err == f"[red]a:smile:.png: {text}\n"
        Reporter(quiet=True).finished(Path("a.png"), place, **options)
        assert capsys.readouterr() == ("", "")


def test_the_bar_of_a_download_follows_its_bytes():
    with Progress(disable=True) as bars:
        download = progress._Download(bars)
        download.reset()  # before anything has arrived
        download.total = 100
        for count in (30, 20):
            download.update(count)
        [task] = bars.tasks
        assert (task.completed, task.total) == (50, 100)
        download.reset()
        download.close()
        assert task.completed == 0

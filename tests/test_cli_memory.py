"""Memory of a command: how much exists, tiles for images that do not fit, limits of containers, and `--dry-run`."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import psutil
import pytest
from commands import command, listing, stylize, write_inputs

from jaxstyle.cli import main
from jaxstyle.cli.console import Console
from jaxstyle.errors import InputError
from jaxstyle.losses.objective import Objective
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.optimizers import LBFGS
from jaxstyle.runtime import estimates, memory, problem
from jaxstyle.runtime.memory import NO_LIMIT, fitted, plan_scale
from jaxstyle.transfer.schedule import Scale
from jaxstyle.transfer.sweep import memory_of

NOTHING: Any = None
OBJECTIVE = Objective(content={"relu1_1": 1.0}, style={"relu1_1": 1.0})


@pytest.fixture(autouse=True)
def folder(isolated, monkeypatch) -> Path:
    monkeypatch.chdir(isolated)
    return isolated


class Program:
    """A compiled program that needs some bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def memory_analysis(self) -> SimpleNamespace:
        return SimpleNamespace(temp_size_in_bytes=self.size, output_size_in_bytes=0, alias_size_in_bytes=0)


# Tiles


def test_a_program_that_does_not_fit_uses_no_smaller_tiles_than_necessary():
    for available, asked, memory_plan in [
        (1000, [0], 0),
        (700, [0, 1000], 1000),
        (400, [0, 400], 400),
        (550, [0, 1000, 800, 550], 550),
        (150, [0, 150, 120], 120),
        (20, [0, 110], 110),
    ]:
        requests: list[int] = []

        def program(pixels: int, requests: list[int] = requests) -> Any:
            requests.append(pixels)
            return Program({0: 1000, 1000: 600, 150: 170}.get(pixels, pixels))

        options: Any = {"need": lambda program: program.size, "row_chunks": True, "least": 110}
        assert fitted(program, 1000, budget=available, **options)[1] == memory_plan
        assert requests == asked
        requests.clear()
        whole = options | {"row_chunks": False, "least": None}  # such as a batch
        assert fitted(program, 1000, budget=available, **whole)[1] == 0 and requests == [0]


def test_max_memory_that_is_too_small_for_the_smallest_tiles_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda step: step.size)
    monkeypatch.setattr(memory, "memory_budget", lambda memory: 1000)
    monkeypatch.setattr(memory, "taken_and_free", lambda: (2**20, 2**40))
    asked = []

    def program(pixels: int) -> Any:
        asked.append(pixels)
        return Program(7 * 2**20)

    def of(objective: Objective = OBJECTIVE, count: int = 1) -> Any:
        return SimpleNamespace(objective=objective, network=VGG19(), count=count)

    scale, least = Scale(192, 256, steps=1), 300 * 2**20
    with pytest.raises(InputError, match="--max-memory is 300 MiB, but steps at 256 pixels take 11 MiB .* --size"):
        plan_scale(program, scale, of(), memory=least, allocated=0)  # 1 + 7 / 0.7
    assert asked[0] == 0 and all(0 < window < 192 * 256 for window in asked[1:])
    assert plan_scale(program, scale, of(), memory=least, allocated=7 * 2**20 - 1000)[1] == 0
    for whole in (of(replace(OBJECTIVE, statistic="sliced")), of(count=2)):
        assert plan_scale(program, scale, whole, memory=None, allocated=0)[1] == 0


# Memory in use and free


def test_memory_is_that_of_the_accelerator_or_of_the_process(monkeypatch):
    if jax.default_backend() == "cpu":
        resident = psutil.Process().memory_info().rss
        assert abs(memory.in_use() - resident) < 0.1 * resident and memory.limit() > memory.in_use()
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_in_use": 300, "bytes_limit": 1000})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert (memory.in_use(), memory.limit(), memory.taken_and_free()) == (300, 1000, (300, 700))
    assert memory.limit_with_swap() == 1000
    assert memory.memory_budget(None) == 392  # 0.7 * 0.8 * 700
    assert [memory.memory_budget(most) for most in (800, 200)] == [350, 0]  # 0.7 of what is left
    program: Any = SimpleNamespace(
        memory_analysis=lambda: SimpleNamespace(temp_size_in_bytes=50, output_size_in_bytes=7, alias_size_in_bytes=4)
    )
    assert memory.peak_of(program, missing=20) == 300 + 20 + 50 + 7 - 4
    unknown: Any = SimpleNamespace(memory_analysis=lambda: None)
    assert memory.peak_of(unknown, missing=20) == 300 + 20 and memory_of(unknown) == 0


def test_the_memory_of_a_cpu_is_limited_by_machine_and_container(monkeypatch):
    cpu = SimpleNamespace(platform="cpu", memory_stats=lambda: None)
    monkeypatch.setattr(jax, "local_devices", lambda: [cpu])
    monkeypatch.setattr(memory, "in_use", lambda: 1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=500))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=80))
    for left, swap, limit, most in [(300, 10, 1300, 1310), (700, 90, 1500, 1580)]:
        monkeypatch.setattr(memory, "memory_left", lambda left=left: left)
        monkeypatch.setattr(memory, "swap_left", lambda swap=swap: swap)
        assert (memory.limit(), memory.limit_with_swap()) == (limit, most)
    assert memory.taken_and_free() == (1000 + 2**28, 500)


# Limits of containers


def system(groups: str, folders: dict[str, dict[str, Any]]) -> Path:
    """Return a root folder of a Linux whose process is in these control groups, with files of these texts."""
    for folder, files in {"proc/self": {"cgroup": groups}, **folders}.items():
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (Path(folder) / name).write_text(f"{text}\n")
    return Path.cwd()


def second(most: Any, used: int, swap: Any = "max", stat: str = "anon 7") -> dict[str, Any]:
    """Return the files of a group of version 2."""
    files = {"memory.max": most, "memory.current": used, "memory.stat": stat}
    return files | {"memory.swap.max": swap, "memory.swap.current": 10}


def first(most: int, used: int, both: int, stat: str = "total_rss 7") -> dict[str, Any]:
    """Return the files of a group of version 1, which limits memory and swap together."""
    files = {"memory.limit_in_bytes": most, "memory.usage_in_bytes": used, "memory.stat": stat}
    return files | {"memory.memsw.limit_in_bytes": both, "memory.memsw.usage_in_bytes": used + 10}


def left(root: Path) -> tuple[int, int]:
    return memory.memory_left(root), memory.swap_left(root)


def test_the_tightest_of_nested_groups_is_the_limit():
    unlimited = NO_LIMIT
    for outer, inner, memory_left, swap_left in [
        (second(1000, 700), second("max", 100, swap=50), 300, 40),
        (second(1000, 100), second(500, 300, swap=0), 200, 0),
        (second("max", 900, swap=30), second(500, 300), 200, 20),
        (second(1000, 950), second(500, 600), 0, unlimited),
        (second("max", 900), second("max", 300), unlimited, unlimited),
    ]:
        folders = {"sys/fs/cgroup/job": outer, "sys/fs/cgroup/job/step 1:a": inner}
        assert left(system("0::/job/step 1:a", folders)) == (memory_left, swap_left)


def test_groups_of_version_1_limit_memory_and_swap_together():
    no_limit = 2**63 - 4096
    folders = {
        "sys/fs/cgroup/memory": first(no_limit, 900, no_limit),
        "sys/fs/cgroup/memory/slurm": first(1000, 700, 1500),
        "sys/fs/cgroup/memory/slurm/job": first(no_limit, 300, no_limit),
    }
    root = system("5:cpu:/other\n4:memory:/slurm/job\n0::/", folders)
    assert left(root) == (300, 490)
    Path("proc/self/cgroup").write_text("4:memory:/\n")
    assert left(root) == (NO_LIMIT, NO_LIMIT)
    folders = {"sys/fs/cgroup/memory": first(1000, 700, 1000)}  # a container that sees its group as the outermost
    assert left(system("4:memory:/docker/1f", folders)) == (300, 0)


def test_cached_files_count_as_free_except_those_mapped_by_programs():
    for version, names in {
        1: ("total_active_file", "total_inactive_file", "total_mapped_file"),
        2: ("active_file", "inactive_file", "file_mapped"),
    }.items():
        stat = "\n".join(f"{name} {number}" for name, number in zip(names, (200, 100, 50), strict=True))
        if version == 2:
            root = system("0::/", {"sys/fs/cgroup": second(1000, 700, stat=stat)})
        else:
            root = system("4:memory:/", {"sys/fs/cgroup/memory": first(1000, 700, 1000, stat=stat)})
        assert memory.memory_left(root) == 300 + 250


def test_groups_that_cannot_be_read_limit_nothing(tmp_path, monkeypatch):
    for i, folders in enumerate(
        [
            {},
            {"sys/fs/cgroup/job": {"memory.max": 1000}},
            {"sys/fs/cgroup/job": {"memory.max": "", "memory.current": 5, "memory.swap.max": "?"}},
            {"sys/fs/cgroup/job/memory.max": {}, "sys/fs/cgroup/job": {"memory.current": 5}},
        ]
    ):
        (tmp_path / str(i)).mkdir()
        monkeypatch.chdir(tmp_path / str(i))
        for root in (system("0::/job", folders), system("nonsense", folders), Path("missing")):
            assert left(root) == (NO_LIMIT, NO_LIMIT)


# Dry runs


class FakeProblem(problem.Problem):
    """A `Problem` of three scales whose program of the last one needs 2 GiB."""

    schedule: Any = (Scale(16, 16, steps=5), Scale(24, 32, steps=3), Scale(32, 48, steps=2))

    def at(self, number: int, image: Any = None, *, memory_plans: Any = None) -> Any:
        program: Any = Program(2**31 if number == 2 else 7)
        return problem.CompiledScale(NOTHING, 1 + number // 3, program, 0, state_bytes=2**29)


@pytest.fixture
def rehearsed(monkeypatch, capsys):
    """Return the lines that a dry run prints; a step takes a microsecond per pixel, and a millisecond.

    A step of a last pass, number 3, takes a second more.
    """
    timed = []

    def seconds(_: Any, ready: Any, scale: Scale) -> float:
        timed.append(scale.width)
        return 1e-6 * scale.height * scale.width + 1e-3 + (ready.segment - 1)

    monkeypatch.setattr(memory, "in_use", lambda: 2**30)
    monkeypatch.setattr(estimates, "seconds_per_step", seconds)

    def run(limit: int, *, batch_size: int | None = None, rounds: int = 1, passes: int = 1) -> tuple[dict, list[int]]:
        monkeypatch.setattr(estimates, "limit", lambda: limit)
        kernels: Any = {"conv1_1": {"kernel": np.zeros((3, 3, 3, 100_000))}}
        parts = (kernels, NOTHING, NOTHING, [], OBJECTIVE, VGG19(), LBFGS(), "content", NOTHING)
        rehearsed = FakeProblem(*parts, steps=10, batch_size=batch_size)
        object.__setattr__(rehearsed, "schedule", rehearsed.schedule + rehearsed.schedule[-1:] * (passes - 1))
        timed.clear()
        Console(quiet=True).print_estimate(rehearsed, rounds=rounds)
        return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()), timed

    return run


def test_a_dry_run_prints_scales_arithmetic_memory_and_time(rehearsed):
    lines, timed = rehearsed(8 * 2**30, rounds=1000)
    assert lines["scales"] == "5 steps at 16x16, 3 steps at 32x24, 2 steps at 48x32"
    gram = 100_000**2 * 1536
    assert lines["arithmetic"].startswith(f"{4 * (27 * 100_000 * 1536 + gram) / 1e9:.0f} GFLOP")
    assert lines["memory"] == "3.50 GiB at most, of 8.0 GiB"  # in use, state and program
    seconds = 1000 * sum(n * (1e-6 * pixels + 1e-3) for n, pixels in ((5, 256), (3, 768), (2, 1536)))
    assert lines["time"].startswith(f"{seconds:.0f} s for all steps, {1e-6 * 1536 + 1e-3:.3g} s for one")
    assert timed == [16, 48] and "compiling" in lines
    lines, timed = rehearsed(8 * 2**30, rounds=1000, passes=2)
    assert lines["time"].startswith(f"{seconds + 1000 * 2 * (1e-6 * 1536 + 1e-3 + 1):.0f} s for all steps")
    assert timed == [16, 48, 48]


def test_a_dry_run_that_does_not_fit_is_not_timed(rehearsed):
    for batch_size, cure in ((None, "lower --size"), (2, "lower --size or --batch-size")):
        lines, timed = rehearsed(3 * 2**30, batch_size=batch_size)
        assert lines["time"].endswith(cure) and timed == [16] and "compiling" not in lines
    assert "compiling" in rehearsed(3.5 * 2**30)[0]


def test_arithmetic_counts_layers_up_to_the_deepest_and_half_sizes():
    params: Any = {
        name: {"kernel": np.zeros((3, 3, *channels))}
        for name, channels in {"conv1_1": (3, 4), "conv1_2": (4, 4), "conv2_1": (4, 6), "conv2_2": (6, 6)}.items()
    }
    layers: dict[str, Any] = {"content": {"relu1_2": 1.0}, "style": {"relu1_1": 1.0, "conv2_1": 1.0}}
    objective = Objective(**layers, half_resolution_above=None)
    multiply_adds = 32 * 48 * 9 * (12 + 16) + 16 * 24 * 9 * 24 + 32 * 48 * 4**2 + 16 * 24 * 6**2
    scale = Scale(32, 48, steps=1)
    assert estimates.gflop_per_step(params, scale, objective=objective) == pytest.approx(4 * multiply_adds / 1e9)
    halved = replace(objective, half_resolution_above=24)  # 48 and 24 pixels
    assert estimates.gflop_per_step(params, scale, objective=halved) == pytest.approx(4 * 1.25 * multiply_adds / 1e9)


def test_a_step_is_timed_in_the_second_call_unless_the_first_is_long(monkeypatch):
    for calls, clock in ((2, [0.0, 4.0, 10.0, 11.0]), (1, [0.0, 9.0])):
        ticks, done = iter(clock), []
        monkeypatch.setattr(estimates, "time", SimpleNamespace(perf_counter=lambda ticks=ticks: next(ticks)))
        step: Any = lambda state, *_, done=done: (done.append(state), None)  # noqa: E731
        ready = problem.CompiledScale(NOTHING, 2, step, 0, 0)
        runner: Any = SimpleNamespace(
            initial_image=lambda scale, painted: None,
            begin=lambda image: 0,
            ready=lambda scale: None,
            placed_objective=None,
            spans_processes=False,
        )
        assert estimates.seconds_per_step(runner, ready, NOTHING) == (0.5 if calls == 2 else 4.5)
        assert len(done) == calls


def test_a_dry_run_reads_and_checks_everything_and_writes_nothing(monkeypatch, fake_runner):
    write_inputs(Path())
    rehearsed = []
    monkeypatch.setattr(Console, "print_estimate", lambda _, problem, **__: rehearsed.append(problem))
    before = listing()
    assert stylize(dry_run=True, preview=True, log=Path("log.csv"), save_every=1, record_file=True) == 0
    assert len(rehearsed) == 1 and fake_runner.problems == [] and listing() == before
    with pytest.raises(InputError, match="out.gif"):
        stylize(dry_run=True, output="out.gif")
    assert command(dry_run=True).saving.dry_run


def test_a_dry_run_of_a_sweep_makes_no_folder_and_refuses_what_the_sweep_would(monkeypatch, fake_runner, capsys):
    write_inputs(Path())
    rehearsed = []
    monkeypatch.setattr(Console, "print_estimate", lambda _, problem, **__: rehearsed.append(problem.batch_size))
    run = "sweep content.png style.png --size 32 --steps 3 --weights tiny.h5 --quiet --style-weight 1,10 --dry-run -o"
    assert main([*run.split(), "new"]) == 0
    assert rehearsed == [2] and not Path("new").exists()
    assert main([*run.split(), "content.png"]) == 2
    assert main([*run.split(), ".", "--log", "log.txt"]) == 2
    first_, second_ = capsys.readouterr().err.splitlines()
    assert "content.png" in first_ and "log.txt" in second_ and rehearsed == [2]

"""How a command computes: precision, memory, a dry run, and what it keeps from one time to the next."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import psutil
import pytest
from conftest import TINY, picture

from jaxstyle import image, record, weights_file
from jaxstyle.cli import containers, cutting, kept_styles, main, memory, work
from jaxstyle.config import Config
from jaxstyle.scales import plan
from jaxstyle.stage import targets_at
from jaxstyle.untrained import random_params

SHALLOW = ("--style-layers", "relu1_1,relu2_1", "--content-layers", "relu2_2", "--optimizer", "adam", "--scales", 1)


@pytest.fixture(autouse=True)
def folder(isolated, monkeypatch) -> Path:
    monkeypatch.chdir(isolated)
    image.save("content.png", picture(48, 64, seed=0))
    image.save("style.png", picture(48, 40, seed=1))
    weights_file.write("tiny.h5", random_params(widths=TINY, seed=1), source="seed 1", checksum="none", licence="none")
    return isolated


def run(*options: Any, command="stylize", output="out.png") -> int:
    named = {"reconstruct": ["content.png"], "texture": ["style.png"]}.get(command, ["content.png", "style.png"])
    fixed = [command, *named, "-o", output, "--steps", 4, "--offline", "--weights", "tiny.h5", *options]
    return main([str(each) for each in fixed])


def differs(name: str) -> float:
    return float(np.abs(image.load(name).rgb - image.load("out.png").rgb).mean())


@pytest.fixture
def looks(monkeypatch) -> list[Any]:
    """A list that grows by one with each picture of a style that the network looks at."""
    seen: list[Any] = []
    real = kept_styles._look
    monkeypatch.setattr(kept_styles, "_look", lambda *a, **k: seen.append(a[1]) or real(*a, **k))
    return seen


@pytest.mark.slow
def test_strips_and_half_precision_paint_nearly_the_same_picture():
    assert run("--size", 64, *SHALLOW) == 0
    assert run("--size", 64, *SHALLOW, "--remat", output="strips.png") == 0
    assert run("--size", 64, *SHALLOW, "--precision", "bfloat16", output="half.png") == 0
    assert differs("strips.png") <= 0.5 / 255 and 0 < differs("half.png") < 3 / 255


class Program:
    """A compiled program that takes so many bytes."""

    def __init__(self, size):
        self.size = size

    def memory_analysis(self):
        return SimpleNamespace(temp_size_in_bytes=self.size)


@pytest.mark.parametrize(
    ("room", "asked", "cut"),
    [
        (1000, [0], 0),
        (700, [0, 1000], 1000),
        (400, [0, 400], 400),
        (550, [0, 1000, 800, 550], 550),
        (150, [0, 150, 120], 120),
        (20, [0, 110], 110),
    ],
)
def test_what_does_not_fit_is_cut_no_finer_than_it_has_to_be(room, asked, cut):
    seen = []

    def program(pixels: int) -> Any:
        seen.append(pixels)
        size = {0: 1000, 1000: 600, 150: 170}.get(pixels, pixels)
        return Program(size)

    how: Any = {"need": lambda program: program.size, "strips": True, "least": 110}
    assert cutting.fitted(program, 1000, room=room, **how)[1] == cut
    assert seen == asked


def test_a_picture_that_would_not_fit_goes_through_blocks_and_again_for_rerun(monkeypatch):
    assert run("--size", 96, *SHALLOW) == 0
    with monkeypatch.context() as short:
        short.setattr(cutting, "room_for", lambda memory: 2**10)
        assert run("--size", 96, *SHALLOW, output="blocks.png") == 0
    assert differs("blocks.png") <= 0.5 / 255
    cuts = record.read(image.description_of("blocks.png")).cuts
    assert list(cuts) == ["96"] and 0 < cuts["96"] < 96 * 72
    assert main(["rerun", "blocks.png", "--weights", "tiny.h5", "--quiet"]) == 0
    assert Path("blocks_rerun.png").read_bytes() == Path("blocks.png").read_bytes()


@pytest.mark.parametrize(
    "command", ["stylize", *(pytest.param(each, marks=pytest.mark.slow) for each in ("texture", "reconstruct"))]
)
def test_a_dry_run_says_what_it_would_take_and_writes_nothing(command, capsys):
    size = "64x64" if command == "texture" else 64
    layers = ("--layer", "relu2_2") if command == "reconstruct" else SHALLOW[:2]
    before = set(Path().glob("*"))
    assert run("--size", size, *layers, "--dry-run", "--quiet", command=command) == 0
    found = re.fullmatch(
        r"scales +4 steps at 64x(?:48|64)\narithmetic +\d+ GFLOP.*\nmemory +(\d+\.\d+) GiB at most, of .*\n"
        r"time +\d+ s for all steps, .* s for one at the last scale\ncompiling +\d+ s, .*\n",
        capsys.readouterr().out,
    )
    assert found and 0.1 < float(found[1]) < 5
    assert set(Path().glob("*")) - before <= {Path("cache")}


def test_a_dry_run_of_a_sweep_makes_no_folder(capsys):
    assert run("--size", 64, *SHALLOW, "--style-weight", "1,10", "--dry-run", command="sweep", output="new") == 0
    assert "GiB at most" in capsys.readouterr().out
    assert not Path("new").exists()


def test_a_dry_run_that_would_not_fit_times_nothing(monkeypatch, capsys):
    monkeypatch.setattr("jaxstyle.cli.rehearsal.limit", lambda: 2**20)
    assert run("--size", 64, *SHALLOW, "--dry-run") == 0
    assert "not measured, since the last scale does not fit: lower --size" in capsys.readouterr().out


@pytest.mark.slow
def test_the_memory_that_is_told_is_the_memory_that_is_taken(weights_path, real_pictures):
    command = [sys.executable, "-c", MEASURED, real_pictures / "golden_gate.jpg", real_pictures / "chicago.jpg"]
    command += ["-o", "o.png", "--size", 384, "--steps", 8, "--scales", 1, "--weights", weights_path, "--quiet"]
    tests = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    told, taken = (
        subprocess.run([*map(str, command), *more], env=tests, check=True, capture_output=True, text=True).stdout
        for more in (["--dry-run"], [])
    )
    predicted = float(re.search(r"memory +(\S+) GiB", told)[1])  # pyright: ignore[reportOptionalSubscript]
    assert abs(float(taken.split()[-1]) / predicted - 1) < 0.25


MEASURED = """
import sys
from jaxstyle.cli import main
from reading import peak_memory
assert main(["stylize", *sys.argv[1:]]) == 0
print(peak_memory() / 2**30)
"""


@pytest.mark.slow
def test_a_style_is_looked_at_once_for_each_size(looks):
    assert run("--size", 64, *SHALLOW, "--scales", 2) == 0
    assert len(looks) == 2
    assert run("--size", 64, *SHALLOW, "--scales", 2, output="again.png") == 0
    assert len(looks) == 2
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()
    assert run("--size", 64, *SHALLOW, "--scales", 3, output="more.png") == 0
    assert len(looks) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--pooling", "avg"),
        pytest.param(("--precision", "bfloat16"), marks=pytest.mark.slow),
        pytest.param(("--size", 40), marks=pytest.mark.slow),
    ],
)
def test_what_is_kept_of_a_style_serves_nothing_else(looks, options):
    assert run("--size", 32, *SHALLOW) == 0
    assert run("--size", 32, *SHALLOW, *options) == 0
    assert len(looks) == 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--color", "keep"), ("--init", "style"), ("--style-mask", "mask.png")])
def test_a_style_that_is_more_than_its_statistics_is_read_as_a_picture(looks, options):
    image.save("mask.png", np.ones((48, 40, 3)))
    assert run("--size", 32, *SHALLOW, *options) == 0
    assert not looks


@pytest.mark.parametrize("harm", ["damaged", "a folder", "not to be written"])
def test_a_cache_that_fails_is_done_without(looks, harm):
    assert run("--size", 32, *SHALLOW) == 0
    [kept] = Path("cache/styles").glob("*.h5")
    if harm == "damaged":
        kept.write_bytes(kept.read_bytes()[:500])
    elif harm == "a folder":
        kept.unlink()
        kept.mkdir()
    else:
        kept.unlink()
        kept.parent.rmdir()
        kept.parent.write_text("in the way")
    assert run("--size", 32, *SHALLOW, output="again.png") == 0
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()
    assert len(looks) == 2


def test_styles_that_were_not_used_for_longest_make_room(monkeypatch):
    for seed in range(3):
        image.save("style.png", picture(48, 40, seed=seed))
        assert run("--size", 32, *SHALLOW) == 0
    kept = sorted(Path("cache/styles").glob("*.h5"), key=lambda path: path.stat().st_mtime)
    monkeypatch.setattr(kept_styles, "MOST", 2 * kept[0].stat().st_size)
    image.save("style.png", picture(48, 40, seed=3))
    assert run("--size", 32, *SHALLOW) == 0
    left = set(Path("cache/styles").glob("*.h5"))
    assert len(left) == 2 and kept[2] in left


def test_what_is_in_use_is_this_process_or_the_accelerator(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_in_use": 300, "bytes_limit": 1000}

    if jax.default_backend() == "cpu":
        taken = psutil.Process().memory_info().rss
        assert abs(memory.in_use() - taken) < 0.1 * taken and memory.limit() > memory.in_use()
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert (memory.in_use(), memory.limit(), memory.taken_and_free()) == (300, 1000, (300, 700))


@pytest.mark.slow
@pytest.mark.parametrize("scales", [1, 2])
def test_what_is_kept_of_a_style_is_what_its_picture_gives_at_every_half(params, scales):
    config = Config(style_layers=("relu1_1",), content_layers=("relu1_2",), halve_above=16, scales=scales)
    content, style = picture(60, 80, seed=0), picture(70, 64, seed=1)
    found = kept_styles.look_at({Path("a"): style}, 60, 80, steps=10, params=params, config=config, seed=0)
    for scale in plan(60, 80, steps=10, config=config):
        kept: Any = targets_at(params, content, [found[Path("a")]], scale, config=config)
        given: Any = targets_at(params, content, [style], scale, config=config)
        for _ in range(2):
            np.testing.assert_allclose(kept.style["relu1_1"].second, given.style["relu1_1"].second, rtol=1e-4)
            kept, given = kept.half, given.half


def test_a_dry_run_compiles_what_the_run_will_take(compilations):
    options = ("--size", 64, *SHALLOW, "--steps", 6, "--save-every", 2)
    assert run(*options, "--dry-run") == 0
    done = len(compilations)
    assert run(*options) == 0
    assert len([seconds for seconds in compilations[done:] if seconds > 0.3]) == 0


@pytest.mark.parametrize("harm", ["a file", "another suffix"])
def test_a_dry_run_of_a_sweep_refuses_what_the_sweep_would(harm, capsys):
    output = "content.png" if harm == "a file" else "."
    more = ("--log", "log.txt") if harm == "another suffix" else ()
    assert run("--style-weight", "1,10", *more, "--dry-run", command="sweep", output=output) == 2
    assert capsys.readouterr().err.startswith("jaxstyle: ")


# Memory that does not do


def test_a_run_that_cannot_fit_is_refused_with_its_need_before_its_first_step(monkeypatch, capsys):
    monkeypatch.setattr("jaxstyle.cli.walk.most_of_all", lambda: 2**20)
    monkeypatch.setattr("jaxstyle.cli.memory.limit", lambda: 2**20)
    assert run("--size", 32, *SHALLOW) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"jaxstyle: 32 pixels take [\d.]+ GiB, but only 0.000977 GiB are there: use --size 16\.", said)
    assert not Path("out.png").exists()


def test_memory_that_runs_out_in_a_step_tells_the_need_and_what_would_fit(monkeypatch, capsys):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffer 1:\n...")

    real = work.Work.at
    monkeypatch.setattr(work.Work, "at", lambda *all_, **each: real(*all_, **each)._replace(step=Step(exhausted)))
    monkeypatch.setattr("jaxstyle.cli.memory.limit", lambda: 2**30)
    assert run("--size", 32, *SHALLOW) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"jaxstyle: 32 pixels take [\d.]+ GiB, but only 1 GiB are there: use --size \d+", said)


class Step:
    """What stands for a compiled program that takes four bytes a pixel of a picture of 1000 pixels, over one GiB."""

    def __init__(self, call: Any = None, size: int = 4 * 2**30):
        self.call, self.size = call, size

    def __call__(self, *arguments):
        return self.call(*arguments)

    def memory_analysis(self):
        return SimpleNamespace(temp_size_in_bytes=self.size, output_size_in_bytes=0, alias_size_in_bytes=0)


def test_the_options_that_are_named_fit_by_the_programs_own_account(monkeypatch):
    monkeypatch.setattr(memory, "in_use", lambda: 2**30)
    monkeypatch.setattr(memory, "limit", lambda: 3 * 2**30)
    step: Any = Step()
    options: Any = {"pair": 2**28, "pairs": 20, "lanes": 8, "strips": True}
    said = memory.shortage(step, 1000, **options)
    assert said.startswith("1000 pixels take 5 GiB, but only 3 GiB are there: use --lanes 4 or --size ")
    assert said.endswith(" or --memory 12 or --remat.")
    size = int(re.findall(r"--size (\d+)", said)[0])
    assert 0.9 * 2 < 4 * (size / 1000) ** 2 <= 2  # GiB beside what is in use
    assert "--memory" not in memory.shortage(step, 1000, **options | {"pairs": 10})


# The limits of containers


def system(groups: str, folders: dict[str, dict[str, Any]]) -> Path:
    """Return a root folder of a Linux whose process is in these groups, made of files with these texts."""
    for folder, files in {"proc/self": {"cgroup": groups}, **folders}.items():
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (Path(folder) / name).write_text(f"{text}\n")
    return Path.cwd()


def second(most: Any, taken: int, swap: Any = "max", stat: str = "anon 7") -> dict[str, Any]:
    files = {"memory.max": most, "memory.current": taken, "memory.stat": stat}
    return files | {"memory.swap.max": swap, "memory.swap.current": 10}


def first(most: int, taken: int, both: int, stat: str = "total_rss 7") -> dict[str, Any]:
    files = {"memory.limit_in_bytes": most, "memory.usage_in_bytes": taken, "memory.stat": stat}
    return files | {"memory.memsw.limit_in_bytes": both, "memory.memsw.usage_in_bytes": taken + 10}


def left(root: Path) -> tuple[int, int]:
    return containers.memory_left(root), containers.swap_left(root)


@pytest.mark.parametrize(
    ("outer", "inner", "memory_left", "swap_left"),
    [
        (second(1000, 700), second("max", 100, swap=50), 300, 40),
        (second(1000, 100), second(500, 300, swap=0), 200, 0),
        (second("max", 900, swap=30), second(500, 300), 200, 20),
        (second(1000, 950), second(500, 600), 0, containers.NO_LIMIT),
        (second("max", 900), second("max", 300), containers.NO_LIMIT, containers.NO_LIMIT),
    ],
)
def test_the_tightest_of_nested_groups_is_what_counts(outer, inner, memory_left, swap_left):
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
    assert left(root) == (containers.NO_LIMIT, containers.NO_LIMIT)


@pytest.mark.parametrize("version", [1, 2])
def test_files_in_memory_make_way_but_for_programs_that_run(version):
    names = ("total_active_file", "total_inactive_file", "total_mapped_file")
    if version == 2:
        names = ("active_file", "inactive_file", "file_mapped")
    stat = "\n".join(f"{name} {number}" for name, number in zip(names, (200, 100, 50), strict=True))
    if version == 2:
        root = system("0::/", {"sys/fs/cgroup": second(1000, 700, stat=stat)})
    else:
        root = system("4:memory:/", {"sys/fs/cgroup/memory": first(1000, 700, 1000, stat=stat)})
    assert containers.memory_left(root) == 300 + 250


def test_a_container_that_sees_its_group_as_the_outermost_is_limited_by_it():
    assert left(system("4:memory:/docker/1f", {"sys/fs/cgroup/memory": first(1000, 700, 1000)})) == (300, 0)


@pytest.mark.parametrize(
    "folders",
    [
        {},
        {"sys/fs/cgroup/job": {"memory.max": 1000}},
        {"sys/fs/cgroup/job": {"memory.max": "", "memory.current": 5, "memory.swap.max": "?"}},
        {"sys/fs/cgroup/job/memory.max": {}, "sys/fs/cgroup/job": {"memory.current": 5}},
    ],
)
def test_what_cannot_be_read_limits_nothing(folders):
    assert left(system("0::/job", folders)) == (containers.NO_LIMIT, containers.NO_LIMIT)
    assert left(system("nonsense", folders)) == (containers.NO_LIMIT, containers.NO_LIMIT)
    assert left(Path("missing")) == (containers.NO_LIMIT, containers.NO_LIMIT)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="an accelerator has its own memory")
def test_the_memory_that_is_there_is_the_machines_or_the_containers(monkeypatch):
    monkeypatch.setattr(memory, "in_use", lambda: 1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=500))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=80))
    for container, there in [((300, 10), (1300, 1310)), ((700, 90), (1500, 1580))]:
        monkeypatch.setattr(memory, "memory_left", lambda container=container: container[0])
        monkeypatch.setattr(memory, "swap_left", lambda container=container: container[1])
        assert (memory.limit(), memory.most_of_all()) == there

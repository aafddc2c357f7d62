import builtins
import importlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import picture
from PIL import Image

from jaxstyle import pretrained
from jaxstyle.errors import InputError
from jaxstyle.image import load, save

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.slow
def test_stylize_runs_the_whole_method_over_the_public_api(tmp_path, monkeypatch, capsys, params):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for name in ("content.png", "style.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        pixels = pixels[::-1] // 2
    monkeypatch.setattr(pretrained, "load_params", lambda network: params)
    script = runpy.run_path(str(SCRIPTS / "stylize.py"))
    script["main"].__globals__.update(SIZE=32, STEPS=4, SEGMENT=2)
    script["main"](*(str(tmp_path / name) for name in ("content.png", "style.png", "out.png")))
    assert load(tmp_path / "out.png").rgb.shape == (24, 32, 3)
    assert "step 4: total" in capsys.readouterr().out


def test_stylize_reads_in_some_forty_lines():
    lines = (SCRIPTS / "stylize.py").read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) <= 45


@pytest.mark.parametrize("script", sorted({path.name for path in SCRIPTS.glob("*.py")} - {"torch_baseline.py"}))
def test_importing_a_script_does_nothing_and_needs_no_optional_package(script, monkeypatch):
    for package in ("torch", "skimage"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.syspath_prepend(SCRIPTS)  # where Python looks when a script is run
    runpy.run_path(str(SCRIPTS / script), run_name="imported")


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Run a script as a process would, where matplotlib is absent, and return what it ends with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    def run(name: str, *arguments: str) -> str | int | None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        return caught.value.code

    return run


def importing(name: str, *arguments: Any, real: Callable[..., Any] = builtins.__import__, **options: Any) -> Any:
    """Import a module, unless it is PyTorch."""
    if name == "torch":
        raise ImportError(name)
    return real(name, *arguments, **options)


@pytest.mark.parametrize(
    ("command", "saying"),
    [
        ("benchmark.py step a.png b.png --lanes 2 --baseline torch", "2 lanes have no baseline: drop --baseline or"),
        ("compare_networks.py a.png", "1 pictures make no pairs: name contents and styles in turn."),
        ("paper_figures.py a.png b.png", "The figures are drawn by matplotlib, which is absent: pip install -e"),
        ("train_mini.py a.h5 --out none/b.h5", "none/b.h5 is a folder or lacks one: name a file in a folder that"),
        ("train_mini.py a.h5 --out b.h5 --images .", ". holds no .jpg and no .png: name a folder of photographs."),
    ],
)
def test_a_script_that_cannot_go_on_ends_with_its_name_and_a_sentence_and_so_status_1(command, saying, ended):
    name, *arguments = command.split()
    code = str(ended(name, *arguments))
    assert code.startswith(f"{name}: {saying}") and code.endswith(".") and code.isprintable()


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ("--pictures 10", "10 pictures make no whole batches of 3: use a multiple."),
        ("--repainted 3", "3 repainted pairs do not fit 192 pictures: use a multiple of 4 up to 38."),
        ("--side 90", "Pictures of 90 pixels cannot be halved four times: use a multiple of 16."),
        ("--rounds 1 --pictures 48", "48 steps are fewer than 50: use more rounds or pictures."),
    ],
)
def test_a_training_that_cannot_be_is_a_sentence_and_status_2(options, saying, ended, capsys):
    assert ended("train_mini.py", "a.h5", *options.split()) == 2
    said = capsys.readouterr().err.replace("\u2502", " ")  # within a frame
    assert saying in " ".join(said.split()) and "Traceback" not in said


def test_converting_without_pytorch_ends_with_a_sentence_and_status_1(ended, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(builtins, "__import__", importing)
    assert ended("convert_weights.py", "a.pth", "--kind", "caffe", "--out", "a.h5") == 1
    assert capsys.readouterr() == ("", "a.pth takes PyTorch to read: run pip install torch.\n")


def test_a_benchmark_of_sides_that_differ_is_refused(monkeypatch, content, style):
    monkeypatch.syspath_prepend(SCRIPTS)
    names = runpy.run_path(str(SCRIPTS / "benchmark_steps.py"))
    totals = {"jaxstyle": 1.0, "torch": 2.0}
    changed = {"side": lambda name, *_, **__: lambda steps: totals[name], "load_params": lambda _: None}
    names["Step"].run.__globals__.update(changed, matrix_peak=lambda **_: 1.0)
    monkeypatch.setattr(names["Pictures"], "load", lambda *_: (content, style))
    step = names["Step"](names["Pictures"](Path("a.png"), Path("b.png")), baseline="torch")
    with pytest.raises(
        InputError, match=r"After 3 steps the sides are at \[1.0, 2.0\], so they do not minimise the same"
    ):
        step.run()


@pytest.mark.slow
def test_the_papers_figures_have_their_rows_and_columns(tmp_path, params, content, style):
    """And what stands first in a row differs from what stands last."""
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install -e '.[plots]'")
    script = runpy.run_path(str(SCRIPTS / "paper_figures.py"))
    paint = script["Paint"](params, content[:32, :32], style[:32, :32], jax.random.key(0), 30, None)
    for name, shape in {"figure_1": (2, 5), "figure_3": (5, 4), "figure_6": (1, 6)}.items():
        drawn, rows, columns, title = script["FIGURES"][name]
        pictures = drawn(paint)
        assert pictures.shape[:2] == shape == (len(rows), len(columns))
        assert all(np.abs(row[0] - row[-1]).max() > 5e-5 for row in pictures)
        script["draw"](pictures, rows, columns, title, tmp_path / name)
        assert load(tmp_path / f"{name}.png").rgb.ndim == 3
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """Runs a benchmark on two small pictures and returns what it wrote."""
    for name, seed in {"content.png": 0, "style.png": 1}.items():
        save(tmp_path / name, picture(32, 32, seed=seed))
    monkeypatch.syspath_prepend(SCRIPTS)
    script = runpy.run_path(str(SCRIPTS / "benchmark.py"))

    def run(name: str, *options: object) -> dict[str, Any]:
        files = [tmp_path / each for each in ("content.png", "style.png", "results.json")]
        given = [name, *files[:2], "--network", "mini", "--turns", 1, "--json", files[2], *options]
        script["main"]([str(each) for each in given])
        return json.loads(files[2].read_text()) if files[2].exists() else {}

    return run


@pytest.mark.parametrize("options", [("--steps", 4, "--segments", 5), ("--steps", 4, 9, "--segments", 2)])
def test_segments_that_do_not_fit_their_steps_are_refused(benchmark, options):
    with pytest.raises(InputError, match=r"--segments is .*: give each of --steps .* one up to it, or 0"):
        benchmark("gradient", "--size", 32, *options)


@pytest.mark.parametrize("at", ["0", "201"])
def test_a_loss_that_no_run_sets_is_refused(at, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    found = runpy.run_path(str(SCRIPTS / "compare_parametrizations.py"))
    with pytest.raises(InputError, match=f"--at is {at}: use 1 to 200, the number of --evaluations"):
        found["main"](Path("a.png"), Path("b.png"), at=int(at))


@pytest.mark.slow
def test_the_benchmark_differentiates_whole_runs_and_cut_ones_alike(benchmark):
    found = benchmark("gradient", "--size", 32, "--steps", 4, 9, "--segments", 4, 0, "--turns", 1)
    assert [row["program"] for row in found["results"]] == [
        *("the run", "kept whole", "4 segments"),
        *("the run", "kept whole", "3 segments"),
    ]
    for row in found["results"]:
        assert row["apart"] < 1e-2 and row["time over the run's"] > 0
    assert found["results"][5]["MiB"] < found["results"][4]["MiB"]


@pytest.mark.slow
def test_the_benchmark_times_a_sweep_against_its_lanes(benchmark, monkeypatch):
    monkeypatch.setattr(importlib.import_module("benchmark_commands"), "STRENGTHS", (3.0, 30.0))
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found = benchmark("sweep", "--sizes", 32, "--steps", 1)
        [result] = found["results"]
        assert result["median"] == result["turns"][0]["one sweep"] / result["turns"][0]["six runs"] > 0
        assert found["machine"]["versions"]["jax"] == jax.__version__ and found["settings"]["steps"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step", "solve", "memory", "startup", "precision"])
def test_the_benchmark_measures_against_pytorch(benchmark, name):
    pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")
    options = {
        "step": ["--sizes", 32, "--steps", 1, "--baseline", "torch"],
        "solve": ["--sizes", 32, "--evaluations", 4, "--every", 2, "--steps", 10],
        "memory": ["--sizes", 32, "--steps", 1],
        "startup": ["--size", 32],
        "precision": ["--size", 32, "--steps", 2],
    }
    measured = {
        "step": "over torch, median",
        "solve": "median",
        "memory": "jaxstyle --remat over torch",
        "startup": "best, s",
        "precision": "over float32",
    }
    found = benchmark(name, *options[name])
    assert found["results"] and all(result[measured[name]] > 0 for result in found["results"])


def test_all_that_a_gpu_is_held_to_is_one_command(benchmark, tmp_path, monkeypatch):
    """Its parts, which have tests of their own, are only noted; one of them fails, which keeps none from being run."""
    rooms = importlib.import_module("benchmark_accelerator")
    noted = []

    def note(part) -> None:
        noted.append(part)
        if len(noted) == 2:
            raise InputError("no room")

    for name in ("Rounding", "Sweep", "Step"):
        monkeypatch.setattr(getattr(rooms, name), "run", note)
    benchmark("accelerator", "--size", 32, "--steps", 200, "--lanes", 2)
    assert [type(each).__name__ for each in noted] == ["Rounding", "Sweep", *["Step"] * 5]
    assert [each.precision for each in noted[2:]] == ["tf32", "bfloat16", "bfloat16", "tf32", "bfloat16"]
    assert [each.steps for each in noted] == [100, 20, 20, 20, 20, 200, 200]
    assert [each.pictures.json.name for each in noted] == [f"results-{number}.json" for number in range(1, 8)]

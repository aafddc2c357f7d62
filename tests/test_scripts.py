"""The scripts as a user runs them: their errors, and their results at small settings."""

import builtins
import importlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxstyle.cli import main
from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.networks import pretrained
from jaxstyle.networks.conv import PRODUCTS

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """Put the scripts on Python's path, as running one of them does."""
    monkeypatch.syspath_prepend(SCRIPTS)


def test_importing_a_script_runs_nothing_and_needs_no_optional_package(monkeypatch, capsys):
    for package in ("torch", "skimage", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None)
    for path in sorted(
        set(SCRIPTS.glob("*.py")) - {SCRIPTS / name for name in ("torch_baseline.py", "mutation_testing.py")}
    ):
        runpy.run_path(str(path), run_name="imported")
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Run a script as a process does, without matplotlib, and return its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    def run(name: str, *arguments: str) -> str | int | None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        return caught.value.code

    return run


@pytest.mark.parametrize(
    ("command", "value", "cure"),
    [
        ("benchmark.py step a.png b.png --batch-size 2 --baseline torch", "--batch-size is 2", "baseline"),
        ("compare_networks.py a.png", "1 pictures", "a style after each content"),
        ("paper_figures.py a.png b.png", "matplotlib", "pip install -e"),
        ("pareto.py a.png b.png out.png", "matplotlib", "pip install -e"),
        ("train_mini.py a.h5 --out none/b.h5", "none/b.h5", "folder"),
        ("train_mini.py a.h5 --out b.h5 --images .", ". holds no .jpg and no .png", "folder of photographs"),
        ("tune_weights.py a.png b.png out.png --share=0", "--share is 0", "between 0 and 1"),
        ("tune_weights.py a.png b.png out.png --share=1", "--share is 1", "between 0 and 1"),
        ("tune_weights.py a.png b.png out.png --share=nan", "--share is nan", "between 0 and 1"),
    ],
)
def test_a_script_with_wrong_input_ends_with_one_sentence_and_status_1(command, value, cure, ended):
    name, *arguments = command.split()
    code = str(ended(name, *arguments))  # sys.exit prints a string and ends with status 1
    assert code.startswith(f"{name}: ") and code.endswith(".") and code.isprintable()
    assert value in code and cure in code


def test_options_of_a_training_that_contradict_each_other_are_refused_with_status_2(ended, capsys):
    for options, values in {
        "--pictures 10": ("10", "multiple", "3"),
        "--repainted 3": ("3", "192", "4", "38"),
        "--side 90": ("90", "16"),
        "--rounds 1 --pictures 48": ("48", "50", "rounds"),
    }.items():
        assert ended("train_mini.py", "a.h5", *options.split()) == 2
        error = capsys.readouterr().err
        assert all(value in error for value in values) and "Traceback" not in error


def without_torch(name: str, *arguments: Any, real: Callable[..., Any] = builtins.__import__, **options: Any) -> Any:
    """Import a module, unless it is PyTorch."""
    if name == "torch":
        raise ImportError(name)
    return real(name, *arguments, **options)


def test_converting_without_pytorch_ends_with_one_sentence_and_status_1(ended, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert ended("convert_weights.py", "a.pth", "--kind", "caffe", "--out", "a.h5") == 1
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and "a.pth" in error and "pip install torch" in error


def test_a_benchmark_refuses_to_compare_sides_whose_objectives_differ(monkeypatch):
    names = runpy.run_path(str(SCRIPTS / "benchmark_steps.py"))
    totals = {"jaxstyle": 1.0, "torch": 2.0}
    changed = {"side": lambda name, *_, **__: lambda steps: totals[name], "load_params": lambda _: None}
    names["Step"].run.__globals__.update(changed, matrix_peak=lambda **_: 1.0)
    monkeypatch.setattr(names["Pictures"], "load", lambda *_: (None, None))
    step = names["Step"](names["Pictures"](Path("a.png"), Path("b.png")), baseline="torch")
    with pytest.raises(InputError, match=r"3 steps .*\[1.0, 2.0\]"):
        step.run()


@pytest.fixture
def benchmark(folder, monkeypatch):
    """Run a benchmark on two small pictures and a tiny network, and return its results."""
    script = runpy.run_path(str(SCRIPTS / "benchmark.py"))
    monkeypatch.setattr(importlib.import_module("benchmark_steps"), "matrix_peak", lambda **_: 1.0)

    def run(name: str, *options: object) -> dict[str, Any]:
        inputs = [name, "content.png", "style.png", "--network", "tiny.h5", "--turns", 1, "--json", "results.json"]
        script["main"]([str(each) for each in (*inputs, *options)])
        results = folder / "results.json"
        return json.loads(results.read_text()) if results.exists() else {}

    return run


def test_a_gradient_benchmark_refuses_segments_that_do_not_fit_the_steps(benchmark):
    for options in (("--steps", 4, "--checkpoint-segments", 5), ("--steps", 4, 9, "--checkpoint-segments", 2)):
        with pytest.raises(InputError, match=rf"--checkpoint-segments is \({options[-1]},\).*number of steps"):
            benchmark("gradient", "--size", 32, *options)


def test_comparing_parametrizations_refuses_an_evaluation_outside_of_the_run():
    compare = runpy.run_path(str(SCRIPTS / "compare_parametrizations.py"))["main"]
    for at in (0, 201):
        with pytest.raises(InputError, match=f"--at is {at}: use 1 to 200"):
            compare(Path("a.png"), Path("b.png"), at=at)


def test_the_accelerator_benchmark_runs_all_its_parts_though_one_fails(benchmark, monkeypatch):
    module = importlib.import_module("benchmark_accelerator")
    parts = []

    def note(part) -> None:
        parts.append(part)
        if len(parts) == 2:
            raise InputError("this part fails")

    for name in ("Rounding", "Sweep", "Step"):
        monkeypatch.setattr(getattr(module, name), "run", note)
    benchmark("accelerator", "--size", 32, "--steps", 200, "--batch-size", 2)
    assert [type(each).__name__ for each in parts] == ["Rounding", "Sweep", *["Step"] * 5]
    assert [each.precision for each in parts[2:]] == ["tf32", "bfloat16", "bfloat16", "tf32", "bfloat16"]
    assert [each.steps for each in parts] == [100, 20, 20, 20, 20, 200, 200]
    assert [each.pictures.json.name for each in parts] == [f"results-{number}.json" for number in range(1, 8)]


def test_the_sweep_benchmark_compares_one_sweep_to_a_run_of_each_weight(benchmark, fake_runner, monkeypatch):
    commands = importlib.import_module("benchmark_commands")
    monkeypatch.setattr(commands, "STRENGTHS", (3.0, 30.0))
    monkeypatch.setattr(commands, "jaxstyle", lambda *arguments: main([str(each) for each in arguments]))
    actual = benchmark("sweep", "--sizes", 32, "--steps", 1)
    [result] = actual["results"]
    assert result["median"] == result["turns"][0]["one sweep"] / result["turns"][0]["six runs"] > 0
    assert actual["machine"]["versions"]["jax"] == jax.__version__ and actual["settings"]["steps"] == 1
    batch, *alone = (sum(problem.objective.style.values()) for problem in fake_runner.problems)
    np.testing.assert_allclose(batch, alone, rtol=1e-6)
    assert len(alone) == 2


def test_the_sweep_benchmark_on_an_accelerator_gives_the_same_weights_to_both_sides(benchmark, monkeypatch):
    commands = importlib.import_module("benchmark_commands")
    called: dict[str, list[Any]] = {"sweep": [], "stylize": []}

    def sweep(params, content, style, *, objective, **_) -> Any:
        called["sweep"].append(objective.style["relu1_1"])
        return SimpleNamespace(image=None)

    def stylize(params, content, style, *, objective, **_) -> Any:
        called["stylize"].append(objective.style["relu1_1"])
        return SimpleNamespace(image=None)

    monkeypatch.setattr(commands, "sweep", sweep)
    monkeypatch.setattr(commands, "stylize", stylize)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    [result] = benchmark("sweep", "--sizes", 32, "--steps", 1)["results"]
    assert result["median"] > 0
    warm_up, timed = called["sweep"]
    expected = np.asarray(commands.STRENGTHS, np.float32) / 5
    np.testing.assert_allclose([warm_up, timed], [expected] * 2, rtol=1e-6)
    np.testing.assert_allclose(called["stylize"], [*expected] * 2, rtol=1e-6)


def test_the_startup_benchmark_runs_each_command_with_a_cache_per_version_and_turn(benchmark, monkeypatch, tmp_path):
    commands = importlib.import_module("benchmark_commands")
    called: list[tuple[str, str, Path | None]] = []

    def timed(command: list[object], *, cache: Path, checkout: Path | None = None) -> Any:
        called.append((str(command[0]), cache.name, checkout))
        return commands.Run(2.0 if checkout else 1.0, 0.5, 0.1, 7)

    monkeypatch.setattr(commands, "timed", timed)
    results = benchmark("startup", "--size", 32, "--turns", 2, "--baseline", tmp_path)["results"]
    assert len(results) == 2 * 6
    assert {row["of the baseline's seconds"] for row in results if row["version"] == "jaxstyle"} == {0.5}
    caches = list(dict.fromkeys((cache, checkout) for _, cache, checkout in called))
    assert caches == [("jaxstyle 0", None), ("baseline 0", tmp_path), ("jaxstyle 1", None), ("baseline 1", tmp_path)]
    assert [name for name, *_ in called[:6]] == ["--help", *["stylize"] * 4, "batch"]


def test_seconds_of_steps_and_programs_are_read_from_the_summaries_of_a_command(monkeypatch, tmp_path):
    commands = importlib.import_module("benchmark_commands")
    said = "a.png: 3 steps in 1.5 s (2 steps/s), total 1 to 2; traced in 0.1 s, 9 programs compiled in 2.0 s\n"
    monkeypatch.setattr(commands.subprocess, "run", lambda *_, **__: SimpleNamespace(stderr=2 * said))
    run = commands.timed(["batch"], cache=tmp_path)
    assert (run.step_seconds, run.programs) == (3.0, 18)


def test_the_figures_of_the_paper_vary_the_weights_along_rows_and_columns():
    script = runpy.run_path(str(SCRIPTS / "paper_figures.py"))
    called: list[tuple[Any, dict[str, Any]]] = []

    class Paint:
        """Replaces the class of the script; returns as many pictures as there are weights, initial images or keys."""

        content, style, key = np.zeros((2, 3, 3)), np.ones((2, 3, 3)), jax.random.key(0)

        def __call__(self, objective: Any, **options: Any) -> np.ndarray:
            called.append((objective, options))
            count = len(next(iter(options.values()))) if options else len(objective.tv)
            return np.broadcast_to(np.arange(count, dtype=float)[:, None, None, None], (count, 2, 3, 3))

    for name, shape in {"figure_1": (2, 5), "figure_3": (5, 4), "figure_6": (1, 6)}.items():
        figure, rows, columns, _ = script["FIGURES"][name]
        assert figure(Paint()).shape == (*shape, 2, 3, 3) and shape == (len(rows), len(columns))
    (first, _), (third, _), (sixth, starts), (_, noises) = called
    steps = np.tri(5) / np.arange(1, 6)[:, None]  # the weight of the first n layers is 1 / n
    np.testing.assert_allclose(np.transpose([*first.content.values()]), np.vstack([np.eye(5), 0 * steps]) / 2)
    np.testing.assert_allclose(np.transpose([*first.style.values()]), np.vstack([0 * steps, steps]) / 4, rtol=1e-6)
    np.testing.assert_allclose([*third.content.values()], [[5e-6, 5e-5, 5e-4, 5e-3] * 5], rtol=1e-6)
    np.testing.assert_allclose(np.transpose([*third.style.values()]), np.repeat(steps, 4, axis=0) / 4, rtol=1e-6)
    np.testing.assert_allclose([*sixth.content.values(), *sixth.style.values()], [5e-4] + [0.05] * 5, rtol=1e-6)
    np.testing.assert_array_equal(starts["init"], [Paint.content, Paint.style])
    assert len(np.unique(jax.random.key_data(noises["key"]), axis=0)) == 4


@pytest.mark.slow
def test_the_method_in_sixty_lines_saves_a_picture_of_the_size_of_the_content_and_reduces_the_loss(
    tmp_path, monkeypatch, capsys, params
):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for name in ("content.png", "style.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        pixels = pixels[::-1] // 2
    monkeypatch.setattr(pretrained, "load_params", lambda network: params)
    script = runpy.run_path(str(SCRIPTS / "stylize.py"))
    script["main"].__globals__.update(SIZE=32, STEPS=4, SEGMENT=2)
    script["main"](*(str(tmp_path / name) for name in ("content.png", "style.png", "out.png")))
    assert load_image(tmp_path / "out.png").rgb.shape == (24, 32, 3)
    first, second = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[-2:])
    assert second < first


@pytest.mark.soak(long=True)
def test_a_figure_of_the_paper_is_painted_and_drawn(tmp_path, params, content, style):
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install -e '.[plots]'")
    script = runpy.run_path(str(SCRIPTS / "paper_figures.py"))
    paint = script["Paint"](params, content[:32, :32], style[:32, :32], jax.random.key(0), 30, None)
    drawn, rows, columns, title = script["FIGURES"]["figure_1"]
    pictures = drawn(paint)
    assert pictures.shape == (2, 5, 32, 32, 3)
    assert all(np.abs(row[0] - row[-1]).max() > 5e-5 for row in pictures)
    script["draw"](pictures, rows, columns, title, tmp_path / "figure")
    assert load_image(tmp_path / "figure.png").rgb.ndim == 3
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.soak(long=True)
def test_the_gradient_benchmark_finds_equal_gradients_in_less_memory_with_segments(benchmark):
    actual = benchmark("gradient", "--size", 32, "--steps", 9, "--checkpoint-segments", 0)["results"]
    assert [row["program"] for row in actual] == ["the run", "no segments", "3 segments"]
    for row in actual:
        assert row["error"] < 1e-2 and row["time over the run's"] > 0
    assert actual[2]["MiB"] < actual[1]["MiB"]


@pytest.mark.soak(long=True)
def test_the_precision_benchmark_reports_objectives_relative_to_float32(benchmark):
    results = benchmark("precision", "--size", 32, "--steps", 2)["results"]
    assert [result["precision"] for result in results] == [*PRODUCTS] * 2
    assert all(result["over float32"] > 0 for result in results)
    for exact in results[:: len(PRODUCTS)]:
        assert exact["precision"] == "float32" and exact["over float32"] == 1 and exact["mean difference of 255"] == 0


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "options", "measured"),
    [
        ("step", ["--sizes", 32, "--steps", 1, "--baseline", "torch"], "over torch, median"),
        ("solve", ["--sizes", 32, "--evaluations", 4, "--every", 2, "--steps", 10], "median"),
    ],
)
def test_a_benchmark_reports_the_ratio_of_time_to_pytorch(benchmark, name, options, measured):
    pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")
    results = benchmark(name, *options)["results"]
    assert results and all(result[measured] > 0 for result in results)


@pytest.mark.parity
def test_the_memory_benchmark_reports_the_ratio_of_peaks_to_that_of_a_pytorch_process(benchmark, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")
    memory = importlib.import_module("benchmark_steps").Memory
    measure = memory._peak
    assumed = {"jaxstyle": 6.0, "jaxstyle --remat": 3.0}  # MiB, to save two processes that compile

    def peak(self, name: str, size: int) -> float:
        return assumed.get(name) or measure(self, name, size)

    monkeypatch.setattr(memory, "_peak", peak)
    [result] = benchmark("memory", "--sizes", 32, "--steps", 1)["results"]
    assert 0 < result["torch, MiB"] < 1000
    for name, number in assumed.items():
        assert result[f"{name} over torch"] == pytest.approx(number / result["torch, MiB"])

import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import picture
from PIL import Image

from jaxstyle import pretrained
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


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_importing_a_script_does_nothing_and_needs_no_optional_package(script, monkeypatch):
    for package in ("torch", "skimage"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.syspath_prepend(SCRIPTS)  # where Python looks when a script is run
    runpy.run_path(str(SCRIPTS / script), run_name="imported")


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


@pytest.mark.slow
def test_the_benchmark_times_a_sweep_against_its_lanes(tmp_path, capsys):
    for name, seed in {"content.png": 0, "style.png": 1}.items():
        save(tmp_path / name, picture(32, 32, seed=seed))
    script = runpy.run_path(str(SCRIPTS / "benchmark.py"))
    files = (tmp_path / "content.png", tmp_path / "style.png")
    script["main"]("sweep", *files, sizes=(32,), steps=1, turns=1, network="mini")
    assert "32 pixels: median share" in capsys.readouterr().out
    assert all(seconds > 0 for seconds in script["warm"](*files, size=32, steps=1, network="mini"))

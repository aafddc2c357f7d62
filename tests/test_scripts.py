import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxstyle import pretrained
from jaxstyle.image import load

SCRIPTS = Path(__file__).parents[1] / "scripts"


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

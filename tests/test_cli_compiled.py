"""Compiled runs of the command line: bit equality, tiles, memory, and messages that follow from the optimization."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import log, write_inputs
from conftest import TINY

from jaxstyle.cli import main
from jaxstyle.images.load import load_image
from jaxstyle.images.metadata import description_of
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.runtime import memory as memory_module
from jaxstyle.runtime import problem, record

pytestmark = pytest.mark.slow(optimized=True)

SHALLOW = "--style-layers relu1_1,relu2_1 --content-layers relu2_2 --optimizer adam".split()


@pytest.fixture(autouse=True)
def folder(isolated, monkeypatch) -> Path:
    monkeypatch.chdir(isolated)
    write_inputs(isolated)
    return isolated


def run(*options: object, output: str = "out.png") -> int:
    fixed = ("stylize", "content.png", "style.png", "-o", output, "--offline", "--weights", "tiny.h5")
    return main([str(each) for each in (*fixed, *options)])


def test_the_length_of_segments_changes_no_byte_of_a_run_that_levels_off(monkeypatch):
    monkeypatch.setattr(problem, "WORK_PER_SEGMENT", 1e12)
    options = ("--size", 32, "--scales", 1, "--steps", 120, "--tolerance", 0.3, "--init", "noise", "--seed", 3)
    actual = []
    for segment in (6, 10):
        monkeypatch.setattr(problem, "MOST_STEPS_PER_SEGMENT", segment)
        layers = ("--style-layers", "relu1_1", "--content-layers", "relu1_1")
        assert run(*options, *layers, "--optimizer", "adam", "--log", "log.csv") == 0
        actual.append((Path("out.png").read_bytes(), Path("log.csv").read_text()))
    assert actual[0] == actual[1]
    assert 20 < len(log()) < 110


def test_lbfgs_without_progress_reports_the_steps_of_its_restart_and_stop(capfd):
    """With steps so long that all are undone."""
    options = ("--learning-rate", 1e4, "--patience", 3, "--size", 32, "--scales", 1, "--steps", 60)
    layers = ("--content-layers", "relu1_2", "--style-layers", "relu1_1", "--parametrization", "pixels")
    assert run(*options, *layers, "--log", "log.csv") == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "no progress in 3 steps at 32 pixels" in said and "restarted at step 4" in said, said
    assert "stopped at step 7" in said, said
    assert len({row["total"] for row in log()}) == 1 and len(log()) == 7


def test_a_dry_run_compiles_the_run_and_tiles_change_no_pixel_and_are_used_again_by_rerun(
    monkeypatch, compilations, capsys
):
    options = ("--size", 96, "--scales", 1, "--steps", 4, *SHALLOW)
    assert run(*options, "--dry-run") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["scales"] == "4 steps at 96x77" and list(lines) == "scales arithmetic memory time compiling".split()
    longest, count = max(compilations), len(compilations)
    assert run(*options) == 0
    assert max(compilations[count:], default=0) < longest / 3  # the steps come from the cache
    with monkeypatch.context() as short:
        short.setattr(memory_module, "memory_budget", lambda memory: 2**10)
        assert run(*options, output="tiles.png") == 0
    np.testing.assert_allclose(load_image("tiles.png").rgb, load_image("out.png").rgb, atol=1.01 / 255)
    assert np.abs(load_image("tiles.png").rgb - load_image("out.png").rgb).mean() <= 0.5 / 255
    plans = record.read(description_of("tiles.png")).memory_plans
    assert list(plans) == ["96"] and 0 < plans["96"] < 96 * 77
    assert main(["rerun", "tiles.png", "--weights", "tiny.h5", "--quiet"]) == 0
    assert Path("tiles_rerun.png").read_bytes() == Path("tiles.png").read_bytes()


def test_a_dry_run_predicts_the_peak_memory_of_a_run():
    params = random_params(widths=((64, 64), *TINY[1:]))  # as many channels as VGG-19 in the layers that are compared
    weights_io.write("wide.h5", params, source="a seed", checksum="none", licence="none")
    code = "import sys\nfrom jaxstyle.cli import main\nfrom reading import peak_memory\n"
    code += "assert main(['stylize', *sys.argv[1:]]) == 0\nprint(peak_memory() / 2**30)"
    options = "content.png style.png -o out.png --size 512 --steps 2 --scales 1 --weights wide.h5 --quiet".split()
    options += "--content-layers relu1_2 --style-layers relu1_1 --optimizer adam".split()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    dry, real = (
        subprocess.run([sys.executable, "-c", code, *options, *more], env=environment, check=True, capture_output=True)
        for more in (["--dry-run"], [])
    )
    actual = re.search(r"memory +(\S+) GiB", dry.stdout.decode())
    assert actual and abs(float(real.stdout.split()[-1]) / float(actual[1]) - 1) < 0.25


def test_a_cold_command_compiles_two_programs_per_scale_and_five_besides():
    """Each in a process of its own; later ones, also of another number of steps, load these programs."""
    command = "stylize content.png style.png --offline --weights tiny.h5 --size 64 --scales 2 --steps 7".split()
    command += ["--content-layers", "relu2_2", "--style-layers", "relu1_1,relu2_1"]  # compiled in less time
    environment = os.environ | {"JAXSTYLE_CACHE": "cache", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    summaries, files = [], ["cold.png", "more.png", "warm.png"]
    for output, options in zip(files, ([], ["--steps", "9"], []), strict=True):
        program = [sys.executable, "-m", "jaxstyle", *command, "--init", "noise", *options, "-o", output]
        summaries.append(subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stderr)
    first = re.search(r"; traced in [0-9.]+ s, (\d+) programs compiled", summaries[0])
    assert first and 0 < int(first[1]) <= 2 * 2 + 5
    assert all("programs compiled" not in later and " loaded in " in later for later in summaries[1:])
    cold, _, warm = (Path(name).read_bytes() for name in files)
    assert cold == warm
    assert len(list(Path("cache", "programs", "executables").iterdir())) == 2  # one for each scale

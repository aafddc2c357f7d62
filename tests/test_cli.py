"""The command line from text to exit status: parsing, help, the small commands, and one compiled run."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import listing, log, size_of, write_inputs, write_masks

import jaxstyle
from jaxstyle import LBFGS, VGG19, Adam, Objective, cli
from jaxstyle.cli import main
from jaxstyle.errors import UnavailableError
from jaxstyle.files import sha256
from jaxstyle.images.load import load_image
from jaxstyle.networks import pretrained, weights_io
from jaxstyle.runtime import problem

RUN = "stylize content.png style.png -o out.png --size 32 --steps 3 --offline --weights tiny.h5".split()
OPTIONS = """size steps content-weight style-weight tv-weight content-layers style-layers preset network weights
pooling optimizer learning-rate lbfgs-history parametrization init seed save-every log quiet offline preview scales
style-weights style-scale style-size color content-mask style-mask feather statistic shift ema-decay tolerance patience
normalize-gradients bits record-file no-record checkpoint every dry-run precision remat devices
max-memory max-pixels""".split()


@pytest.fixture(autouse=True)
def folder(isolated, monkeypatch) -> Path:
    monkeypatch.chdir(isolated)
    write_inputs(isolated)
    return isolated


def test_a_compiled_run_lowers_the_total_which_is_the_weighted_sum_of_the_logged_terms(monkeypatch, capfd):
    monkeypatch.setattr(problem, "WORK_PER_SEGMENT", 0)  # one program of one step
    layers = ["--content-layers", "relu1_2,relu2_1:3", "--style-layers", "relu1_1:1,relu2_1:0.5"]
    weights = ["--content-weight", "2", "--style-weight", "9", "--tv-weight", "3"]
    assert main([*RUN, *layers, *weights, "--optimizer", "adam", "--log", "log.csv", "--save-every", "2"]) == 0
    rows = log()
    assert [(row["step"], row["side"]) for row in rows] == [(1, 32), (2, 32), (3, 32)]
    for row in rows:
        content = 2 * (row["content/relu1_2"] / 4 + row["content/relu2_1"] * 3 / 4)
        style = 9 * (row["style/relu1_1"] * 2 / 3 + row["style/relu2_1"] / 3)
        assert row["total"] == pytest.approx(content + style + 3 * row["tv"], rel=1e-5)
    assert rows[0]["content/relu1_2"] == 0 < rows[1]["content/relu1_2"]  # the start is the content
    assert rows[-1]["total"] < rows[0]["total"]
    assert size_of("out.png") == size_of("out_0002.png") == (32, 26)
    assert np.abs(load_image("out.png").rgb - load_image("content.png", size=32).rgb).mean() > 0.01
    out, err = capfd.readouterr()
    network, summary = err.splitlines()
    assert out == "" and network == "Network: vgg19, tiny.h5"
    assert (
        summary.startswith("out.png: 3 steps in ") and f"{rows[0]['total']:.4g} to {rows[-1]['total']:.4g}" in summary
    )


def changed_fields(value: Any, default: Any) -> dict[str, Any]:
    """Return the fields in which an object differs from the default one."""
    result = {each.name: getattr(value, each.name) for each in fields(value)}
    return {name: own for name, own in result.items() if own != getattr(default, name)}


def test_options_of_the_command_line_reach_the_run(fake_runner):
    write_masks()
    options = """--seed 7 --init noise --steps 5 --size 40 --scales 24,40 --pooling avg --color keep --optimizer adam
    --learning-rate 0.5 --parametrization fourier --ema-decay 0.9 --tolerance 0.01
    --normalize-gradients --statistic covariance --content-weight 2 --style-weight 6
    --tv-weight 0.5 --content-layers relu2_1 --style-layers relu1_1:1,relu2_1:2 --content-mask left.png
    --style-mask all --precision bfloat16 --remat --devices 1 --max-memory 4GiB --save-every 2 --bits 16
    --record-file --log log.csv --quiet --max-pixels 2MP"""
    assert main([*RUN, *options.split()]) == 0
    [run] = fake_runner.problems
    assert changed_fields(run.objective, Objective()) == {
        "content": {"relu2_1": 2.0},
        "style": {"relu1_1": 2.0, "relu2_1": 4.0},
        "tv": 0.5,
        "statistic": "covariance",
        "normalize_gradients": True,
    }
    assert changed_fields(run.network, VGG19()) == {"pooling": "avg", "precision": "bfloat16", "remat": (1, 2)}
    optimizer: dict[str, Any] = {"learning_rate": 0.5, "parametrization": "fourier", "ema_decay": 0.9}
    assert run.optimizer == Adam(**optimizer, tolerance=0.01)
    assert (run.scales, run.color) == ((24, 40), "keep")
    assert (run.steps, run.start, run.save_every, run.devices, run.memory) == (5, "noise", 2, 1, 4 * 2**30)
    assert run.content_masks is not None and run.content_masks.shape == (1, 32, 40) and run.style_masks == [None]
    assert jax.random.key_data(run.key).tolist() == jax.random.key_data(jax.random.key(7)).tolist()
    assert {"out_0002.png", "out_0004.png", "out_0002.json", "out.json", "log.csv"} < set(listing())
    options = "--optimizer lbfgs --learning-rate 0.5 --lbfgs-history 7 --patience 4 --shift -1"
    assert main([*RUN, *options.split()]) == 0
    assert fake_runner.problems[-1].optimizer == LBFGS(learning_rate=0.5, history_size=7, patience=4)
    assert changed_fields(fake_runner.problems[-1].objective, Objective()) == {"shift": -1.0}


def test_a_path_that_the_console_cannot_encode_is_escaped(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "argv", ["jaxstyle", "networks"])
    monkeypatch.setattr(cli, "end_at_once", lambda: None)
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(Path("日本", "a.h5")))
    Path("日本").mkdir()
    shutil.copy("tiny.h5", Path("日本", "a.h5"))
    assert main() == 0
    console.flush()
    assert b"\\u65e5\\u672c" in console.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxstyle {jaxstyle.__version__}\n"


def test_help_lists_all_options_and_imports_no_jax():
    code = "import atexit, sys; atexit.register(lambda: print('jax imported:', 'jax' in sys.modules)); "
    code += "from jaxstyle.cli import main; main(['--version']); sys.exit(main(['stylize', '--help']))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert [name for name in OPTIONS if f"--{name} " not in run.stdout] == []
    assert run.stderr == "" and run.stdout.endswith("jax imported: False\n")


def test_networks_lists_files_with_sha256_and_provenance(monkeypatch, capsys):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "tiny.h5")
    assert main(["networks"]) == 0
    out = capsys.readouterr().out
    digest = hashlib.sha256(Path("tiny.h5").read_bytes()).hexdigest()
    assert [line.split() for line in out.splitlines()[:2]] == [["vgg19", "tiny.h5"], ["sha256", digest]]
    mini = out[out.index("\nmini ") :]
    assert str(pretrained.MINI) in mini and sha256(pretrained.MINI) in mini
    for text, path in ((out, Path("tiny.h5")), (mini, pretrained.MINI)):
        for key, value in weights_io.provenance(path).items():
            assert f"{key} {value}" in text
    assert out.splitlines()[-1].split()[0] == "random"
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "missing.h5")
    assert main(["networks"]) == 2
    assert "missing.h5" in capsys.readouterr().err


def test_doctor_prints_versions_devices_and_folders(monkeypatch, capsys):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "tiny.h5")
    assert main(["doctor"]) == 0
    facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()}
    assert (facts["jax"], facts["jaxstyle"]) == (jax.__version__, jaxstyle.__version__)
    assert jax.devices()[-1].device_kind in facts["device"]
    assert facts["cache"] == os.environ["JAXSTYLE_CACHE"] and "tiny.h5" in facts["weights"]
    assert facts["processors"] == str(os.cpu_count()) and "GiB free" in facts["memory"]
    assert "CPUs only" in facts["measured"]


def test_an_unreadable_command_exits_with_status_2_and_a_hint(capsys):
    for arguments, hint in [
        ("", "reconstruct, texture"),
        ("stylize content.png style.png", "--output"),
        ("stylize content.png style.png -o out.png --stepps 3", "--steps"),
        ("stylize content.png style.png -o out.png --steps three", "three"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main(arguments.split())
        out, err = capsys.readouterr()
        assert out == "" and hint in err and "Traceback" not in err


def test_an_error_is_one_line_with_status_2_for_input_and_1_for_the_environment(fake_runner, capsys):
    def unavailable(step: int) -> None:
        raise UnavailableError("The network is down: connect.")

    fake_runner.on_step = unavailable
    for options, status, text in ((["--size", "8"], 2, "--size is 8"), (["--quiet"], 1, "The network is down")):
        assert main([*RUN, *options]) == status
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"jaxstyle: {text}") and err.endswith(".\n") and err.count("\n") == 1
    assert not Path("out.png").exists()


def test_an_error_of_the_program_keeps_its_traceback(fake_runner):
    def fail(step: int) -> None:
        raise RuntimeError("a bug")

    fake_runner.on_step = fail
    with pytest.raises(RuntimeError, match="a bug"):
        main(RUN)

"""The mini network in weights/, the script that trains it and the script that compares it with VGG-19."""

import itertools
import re
import runpy
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
import pytest
from conftest import TINY, picture
from vgg_layers import features

from jaxstyle import load_params
from jaxstyle.errors import InputError
from jaxstyle.files import sha256
from jaxstyle.images.load import load_image
from jaxstyle.images.save import save_image
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks import pretrained, weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.networks.vgg import BLOCK_WIDTHS, CONV_LAYERS

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
ORIGIN = {"source": "a seed", "checksum": "none", "licence": "none"}
NARROW = ((3, 3), (4, 4), (5,) * 4, (6,) * 4, (6,) * 4)


@pytest.fixture
def script(monkeypatch):
    """Return a function that runs a script in scripts/, which may import its neighbours, and returns its names."""
    monkeypatch.syspath_prepend(SCRIPTS)
    for neighbour in ("narrowing", "training_pictures"):
        monkeypatch.delitem(sys.modules, neighbour, raising=False)
    return lambda name: runpy.run_path(str(SCRIPTS / f"{name}.py"))


# The file


def test_the_file_has_all_layers_at_half_vgg19s_width_or_less_in_half_precision_within_four_million_bytes():
    assert pretrained.MINI.stat().st_size <= 4_000_000
    with h5py.File(pretrained.MINI) as file:
        assert set(file) == set(CONV_LAYERS)
        kinds = {np.asarray(file[f"{name}/{part}"]).dtype for name in CONV_LAYERS for part in ("kernel", "bias")}
        assert kinds == {np.dtype("f2")}
    weights_io.read(pretrained.MINI)  # checks it
    narrow, whole = (list(itertools.chain(*widths)) for widths in (weights_io.widths(pretrained.MINI), BLOCK_WIDTHS))
    assert all(ours <= theirs / 2 for ours, theirs in zip(narrow, whole, strict=True))


def test_the_file_and_its_readme_name_the_teacher_the_licence_and_the_training():
    origin = weights_io.provenance(pretrained.MINI)
    assert "VGG-19" in origin["source"] and "train_mini.py" in origin["source"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", origin["checksum"])
    assert origin["licence"].startswith("CC BY") and origin["preprocessing"] == weights_io.PREPROCESSING
    assert re.match(r"\d+ steps; .*photographs.*; unexplained energy: relu1_1 0\.\d+, ", origin["training"])
    page = (ROOT / "weights" / "README.md").read_text("utf-8")
    assert sha256(pretrained.MINI) in page and f"{pretrained.MINI.stat().st_size:,} bytes" in page
    assert origin["checksum"].removeprefix("sha256:") in page
    for layer, share in re.findall(r"(relu\d_\d) (\d\.\d+)", origin["training"]):
        assert re.search(rf"{layer} \|.* {re.escape(share)} ", page), layer


@pytest.mark.slow
def test_features_have_the_scale_of_the_teachers(weights_path, real_pictures):
    photograph = load_image(real_pictures / "chicago.jpg", size=128).rgb
    layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
    look = jax.jit(partial(features, layers=layers))
    ours, theirs = (look(load_params(network), photograph) for network in ("mini", weights_path))
    for layer in layers:
        energy = [float(np.mean(np.square(actual[layer]))) for actual in (ours, theirs)]
        assert 0.5 < energy[0] / energy[1] < 8, layer  # channels of high energy were selected


@pytest.mark.slow
def test_the_wheel_contains_the_file(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = tmp_path.glob("jaxstyle-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        assert opened.read(f"jaxstyle/{pretrained.MINI.name}") == pretrained.MINI.read_bytes()
        opened.extractall(tmp_path / "site")
    code = (
        "from jaxstyle.networks import pretrained, weights_io; print(weights_io.widths(pretrained.find('mini').path))"
    )
    isolated = {"cwd": tmp_path / "site", "capture_output": True, "text": True, "check": True}
    run = subprocess.run([sys.executable, "-c", code], **isolated)
    assert run.stdout == f"{weights_io.widths(pretrained.MINI)}\n"


# Training pictures


def test_drawn_pictures_depend_on_the_seed_only(script):
    names = script("training_pictures")
    photograph = names["Image"].fromarray(np.asarray(255 * picture(60, 80, seed=0), np.uint8))
    for sources, count in (([], 3), ([photograph], 5)):
        first, again, other = (
            [names["draw"](np.random.default_rng(seed), 16, sources) for _ in range(count)] for seed in (1, 1, 2)
        )
        assert all(drawn.shape == (16, 16, 3) and drawn.dtype == np.uint8 for drawn in first)
        np.testing.assert_array_equal(first, again)
        assert np.mean(np.stack(first) != np.stack(other)) > 0.5


def test_every_kind_of_drawing_has_contrast(script):
    names = script("training_pictures")
    for drawing in names["DRAWINGS"]:
        spreads = [np.std(drawing(np.random.default_rng(seed), 32)) for seed in range(5)]
        assert np.median(spreads) > 10, drawing.__name__


# Narrowing


def test_selected_columns_span_the_others(script):
    rng = np.random.default_rng(0)
    own = rng.standard_normal((100, 3))
    rows = np.concatenate([own, own @ rng.standard_normal((3, 5))], axis=1)
    kept = script("narrowing")["spanning"](rows, 3)
    assert len(set(kept)) == 3 and np.linalg.matrix_rank(rows[:, kept]) == 3


def test_whitened_rows_have_variance_one_and_no_correlation(script):
    rows = np.random.default_rng(0).standard_normal((1000, 4)) @ np.array(
        [[1, 0.8, 0, 0], [0, 1, 0, 0], [0, 0, 3, 1], [0] * 4]
    )
    white = rows @ script("narrowing")["inverse_root"](rows)
    spread = np.linalg.eigvalsh(white.T @ white / len(white))
    np.testing.assert_allclose(spread[-2:], 1, atol=0.01)  # of three directions; the fourth is empty, one is weak
    assert spread[0] < 0.01


@pytest.mark.slow
def test_narrowing_a_network_to_its_widths_reproduces_it(script, monkeypatch):
    names, teacher = script("narrowing"), random_params(widths=TINY, seed=1)
    monkeypatch.setitem(names["start"].__globals__, "SAMPLES", 8_000)
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    student, narrowed = names["start"](teacher, images, TINY)
    look = jax.jit(features)
    ours, theirs = (
        jax.device_get(look(params, images[:4] / np.float32(255)))
        for params in (jax.jit(names["plain"])(student, narrowed), teacher)
    )
    for name in CONV_LAYERS:
        layer, kept = "relu" + name[4:], np.asarray(narrowed.kept[name])
        assert sorted(kept.tolist()) == list(range(len(kept)))
        miss = ours[layer] - theirs[layer][..., kept]
        limit = 0.02 if name[4] < "4" else 0.1  # 16 pictures have 1,024 places at block 4, and a ridge counts there
        assert np.mean(miss**2) / np.mean(theirs[layer] ** 2) < limit, layer


@pytest.mark.soak(long=True)
def test_training_lowers_the_error_and_resumes_from_its_checkpoint_to_the_same_bytes(
    script, tmp_path, capsys, monkeypatch
):
    names = script("train_mini")
    main, training = names["main"], names["Training"]
    monkeypatch.setitem(main.__globals__, "WIDTHS", NARROW)
    monkeypatch.setattr(sys.modules["narrowing"], "SAMPLES", 8_000)
    weights_io.write(tmp_path / "teacher.h5", random_params(widths=TINY, seed=1), **ORIGIN)
    (tmp_path / "photographs").mkdir()
    save_image(tmp_path / "photographs/one.png", picture(60, 80, seed=3))
    cut = main.__globals__["go_round"].__globals__["cut"]
    monkeypatch.setitem(main.__globals__, "draw", lambda rng, side, sources: cut(rng, side, sources))  # in no time
    short = {"pictures": 32, "batch": 4, "epochs": 4, "side": 32, "repainted": 4, "learning_rate": 5e-3}

    def train(name: str, rounds: int = 2) -> dict[str, Any]:
        options = {"images": (tmp_path / "photographs",), "out": tmp_path / f"{name}.h5"}
        main(
            tmp_path / "teacher.h5",
            **options,
            checkpoint=tmp_path / f"{name}.msgpack",
            training=training(rounds=rounds, **short),
        )
        return weights_io.provenance(tmp_path / f"{name}.h5")

    origin = train("whole")
    rounds = [float(line.rsplit("relu5_1 ", 1)[1]) for line in capsys.readouterr().out.splitlines() if "round" in line]
    assert len(rounds) == 2 and rounds[-1] < rounds[0]
    assert sha256(tmp_path / "teacher.h5") in origin["checksum"] and "1 photographs" in origin["training"]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    keep = main.__globals__["keep"]
    monkeypatch.setitem(main.__globals__, "keep", lambda *arguments: (keep(*arguments), stop()))
    with pytest.raises(KeyboardInterrupt):
        train("parts")
    monkeypatch.setitem(main.__globals__, "keep", keep)
    train("parts")
    assert (tmp_path / "parts.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    with pytest.raises(InputError, match="is of another run"):
        train("parts", rounds=3)


def test_a_teacher_of_the_same_widths_is_refused(script, tmp_path):
    names = script("train_mini")
    with pytest.raises(InputError, match="is not wider"):
        names["main"](pretrained.MINI, out=tmp_path / "out.h5", checkpoint=tmp_path / "kept.msgpack")


# Comparing


@pytest.mark.slow
def test_the_score_is_content_plus_thirty_times_mean_style_in_numpy(script, params, content, style):
    def share(ours, target):
        return np.sum((ours - target) ** 2) / np.sum(target**2)

    def gram(x):
        rows = x.reshape(-1, x.shape[-1])
        return rows.T @ rows / len(rows)

    at = np.float32(0.9) * np.asarray(content)
    look = jax.jit(features)
    actual, contents, styles = (jax.device_get(look(params, x)) for x in (at, content, style))
    shares = [share(gram(actual[f"relu{i}_1"]), gram(styles[f"relu{i}_1"])) for i in range(1, 6)]
    expected = share(actual["relu4_2"], contents["relu4_2"]) + 30 * np.mean(shares)
    names = script("compare_networks")
    score, _ = names["evaluate"](params, at, make_targets(params, content, style, objective=names["OBJECTIVE"]))
    np.testing.assert_allclose(score, expected, rtol=1e-4)


def test_an_odd_number_of_pictures_is_refused(script):
    main = script("compare_networks")["main"]
    for count in (0, 1, 3):
        with pytest.raises(InputError, match=f"^{count} pictures are not pairs"):
            main(("a.png",) * count)


@pytest.mark.soak(long=True)
def test_the_mini_network_reaches_most_of_vgg19s_quality(script, weights_path, real_pictures, capsys, monkeypatch):
    names = ("golden_gate.jpg", "starry_night_google.jpg")
    main = script("compare_networks")["main"]
    monkeypatch.setitem(main.__globals__, "seconds", lambda *_: [[1.0, 3.0]])  # times no steps
    monkeypatch.setitem(main.__globals__, "TURNS", 1)
    main(tuple(real_pictures / name for name in names), weights=weights_path, size=64, steps=20, timed_size=64)
    printed = capsys.readouterr().out
    quality = re.search(r"^quality ([\d.]+)", printed, re.MULTILINE)
    assert quality and float(quality[1]) > 0.85
    assert "time 0.333, the median of 1 turns" in printed

"""Options of `jaxstyle stylize`: what they change of a preset, and which values are refused."""

import inspect
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from commands import OLD, command, listing, stylize, write_inputs, write_masks

import jaxstyle
from jaxstyle import LBFGS, Adam
from jaxstyle.errors import InputError
from jaxstyle.images.save import save_image
from jaxstyle.runtime import make_problem
from jaxstyle.runtime import options as options_module
from jaxstyle.runtime.options import (
    ReconstructOptions,
    StylizeOptions,
    TextureOptions,
    parse_layers,
    parse_memory,
    parse_scales,
    parse_shares,
)
from jaxstyle.runtime.sweep_grid import SweepOptions
from jaxstyle.transfer import color, presets

NUMBERS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"size": 8}, ("--size", "8", "16")),
    ({"steps": 0}, ("--steps", "0", "1")),
    ({"seed": -1}, ("--seed", "-1", "4294967295")),
    ({"seed": 2**32}, ("--seed", "4294967296")),
    ({"lbfgs_history": 0}, ("--lbfgs-history", "0")),
    ({"patience": -1}, ("--patience", "-1")),
    ({"shift": float("nan")}, ("--shift", "nan")),
    ({"save_every": -5}, ("--save-every", "-5")),
    ({"content_weight": -1.0}, ("--content-weight", "-1")),
    ({"style_weight": float("nan")}, ("--style-weight", "nan")),
    ({"tv_weight": float("inf")}, ("--tv-weight", "inf", "1e+30")),
    ({"learning_rate": 0.0}, ("learning_rate", "0.0")),
    ({"learning_rate": float("nan")}, ("learning_rate", "nan")),
    ({"ema_decay": 1.0}, ("--ema-decay", "1")),
    ({"tolerance": 2.0}, ("tolerance", "2.0")),
    ({"style_size": 8}, ("--style-size", "8")),
    ({"style_scale": 0.0}, ("--style-scale", "0")),
    ({"feather": -1, "content_mask": (Path("left.png"),)}, ("--feather", "-1")),
    ({"style_weights": "1,2"}, ("--style-weights", "2 numbers", "1 styles")),
    ({"style_weights": "0"}, ("--style-weights", "'0'", "zero")),
    ({"style_weights": "much"}, ("--style-weights", "'much'")),
    ({"style_weights": "-1"}, ("--style-weights", "'-1'")),
    ({"max_memory": "9MiB"}, ("--max-memory", "9MiB", "256MiB")),
    ({"max_memory": "many"}, ("--max-memory", "many")),
    ({"max_memory": 2**33}, ("--max-memory", "8589934592")),
    ({"style_layers": 3}, ("--style-layers", "3")),
    ({"max_pixels": "9"}, ("--max-pixels", "'9'")),
    ({"size": 999_999}, ("Pillow", "limit")),
]
NAMES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"style_layers": "relu9_1"}, ("'relu9_1'", "not a layer of VGG-19")),
    ({"content_layers": ""}, ("''", "not a layer of VGG-19")),
    ({"style_layers": "relu1_1,relu1_1:2"}, ("relu1_1", "twice")),
    ({"content_layers": "relu1_1:-1"}, ("relu1_1", "'-1'")),
    ({"preset": "gatys"}, ("'gatys'", "gatys-paper")),
    ({"preset": "nnst", "style_weight": 3.0}, ("--style-weight", "preset nnst")),
    ({"preset": "nnst", "content_weight": 3.0}, ("share of the content", "3.0")),
    ({"preset": "nnst", "remat": True}, ("--remat", "nnst")),
    ({"preset": "strotss", "statistic": "mean_std"}, ("--statistic", "preset strotss")),
    ({"init": Path("stlye")}, ("--init", "stlye", "noise")),
    ({"network": "random"}, ("tiny.h5", "random")),
    ({"network": "vgg16", "weights": None}, ("vgg16", "mini")),
    ({"network": "vgg19", "weights": None}, ("VGG-19's weights", "--weights")),
    ({"preview": True, "network": "random", "weights": None}, ("--preview", "random")),
    ({"preview": True, "network": "tiny.h5", "weights": None}, ("--preview", "tiny.h5")),
]
FILES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"output": "content.png"}, ("content.png", "same file")),
    ({"output": "./style.png"}, ("style.png", "same file")),
    ({"init": Path("out.png")}, ("out.png", "same file")),
    ({"init": Path("out_0002.png"), "save_every": 1}, ("out_0002.png", "--save-every")),
    ({"output": "missing/out.png"}, ("missing", "writable")),
    ({"output": "folder.png"}, ("folder.png", "folder")),
    ({"output": "out.gif"}, ("out.gif", "'.gif'")),
    ({"output": "out"}, ("out", "''")),
    ({"output": "out.jpg", "bits": 16}, ("out.jpg", "16 bits", "JPEG")),
    ({"log": Path("log.txt")}, ("log.txt", "'.txt'")),
    ({"log": Path("folder.csv")}, ("folder.csv", "folder")),
    ({"log": Path("missing/log.csv")}, ("missing/log.csv",)),
    ({"init": Path("content.csv"), "log": Path("content.csv")}, ("content.csv", "input")),
    ({"every": 5}, ("--every", "5", "--checkpoint")),
    ({"styles": ()}, ("no style",)),
    ({"styles": ("folder.png",)}, ("folder.png", "jaxstyle statistics")),
]
COMBINATIONS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"content_mask": (Path("left.png"), Path("right.png"))}, ("--content-mask", "2 times", "1 styles")),
    ({"style_mask": (Path("left.png"), "all")}, ("--style-mask", "2 times", "1 styles")),
    ({"content_mask": (Path("square.png"),)}, ("--content-mask", "square.png", "16x16", "32x26")),
    ({"content_mask": (Path("black.png"),)}, ("--content-mask", "black.png", "empty")),
    ({"content_mask": (Path("missing.png"),)}, ("missing.png", "No such file")),
    ({"content_mask": (Path("left.png"),), "style_weights": "1"}, ("--style-weights", "--content-mask")),
    ({"style_mask": (Path("notes.txt"),)}, ("notes.txt", "not a picture")),
    ({"feather": 5}, ("--feather", "--content-mask")),
    ({"optimizer": "adam", "patience": 30}, ("--patience", "optimizer adam")),
    ({"preset": "nnst", "lbfgs_history": 9}, ("--lbfgs-history", "optimizer adam")),
    ({"shift": -1.0, "statistic": "mean_std"}, ("--shift", "statistic mean_std")),
    ({"normalize_gradients": True, "patience": 9}, ("--patience", "normalized gradients")),
    ({"style_size": 32, "style_scale": 2.0}, ("--style-size", "--style-scale")),
    ({"scales": "3000"}, ("3000 scales",)),
    ({"scales": "0"}, ("0 scales",)),
    ({"scales": "2.5"}, ("--scales", "'2.5'", "auto")),
    ({"scales": "2", "size": 20}, ("16x13 pixels",)),
    ({"scales": "16,24"}, ("32 pixels", "rise")),
    ({"scales": "4", "steps": 2, "style_layers": "relu1_1", "content_layers": "relu1_1"}, ("2 steps", "4 scales")),
]


@pytest.fixture
def inputs(isolated, monkeypatch) -> None:
    """Write pictures and masks of all kinds into the current folder."""
    monkeypatch.chdir(isolated)
    write_inputs(isolated)
    write_masks()
    save_image("square.png", np.ones((16, 16, 3)))
    save_image("black.png", np.zeros((32, 40, 3)))
    Path("notes.txt").write_text("no picture")
    for name in ("content.csv", "out_0002.png"):
        Path(name).write_bytes(Path("content.png").read_bytes())
    Path("folder.png").mkdir()
    Path("folder.csv").mkdir()
    Path("out.png").write_bytes(OLD)


@pytest.mark.usefixtures("inputs", "fake_runner")
@pytest.mark.parametrize(
    "rows", [NUMBERS, NAMES, FILES, COMBINATIONS], ids=["numbers", "names", "files", "combinations"]
)
def test_an_invalid_option_is_refused_with_its_value_and_writes_nothing(rows, capsys):
    before = listing()
    for options, texts in rows:
        with pytest.raises(InputError) as raised:
            stylize(**options)
        message = str(raised.value)
        assert [text for text in texts if text not in message] == [], (options, message)
        assert message.endswith(".") and message.isprintable(), message
    assert listing() == before
    assert capsys.readouterr().out == ""


def test_every_option_changes_the_preset_or_is_refused():
    values: dict[str, tuple[Any, ...]] = {
        "lbfgs_history": (7,),
        "patience": (7,),
        "learning_rate": (0.125,),
        "parametrization": ("fourier",),
        "ema_decay": (0.125,),
        "tolerance": (0.125,),
        "normalize_gradients": (True,),
        "statistic": ("covariance", "mean_std"),
        "shift": (0.5,),
        "pooling": ("l2",),
        "scales": ("3",),
        "remat": (True,),
        "content_weight": (0.125,),
        "style_weight": (0.125,),
        "tv_weight": (0.125,),
        "content_layers": ("relu3_3",),
        "style_layers": ("relu3_3",),
    }
    for preset, optimizer in itertools.product(presets.PRESETS, [None, "adam", "lbfgs"]):
        base = StylizeOptions(preset=preset, optimizer=optimizer)
        refused = []
        for name, choices in values.items():
            changed = [replace(base, **{name: value}) for value in choices]
            try:
                changed[0].check([Path("style.png")])
            except InputError as error:
                assert f"--{name.replace('_', '-')}" in str(error), (preset, name)
                refused.append(name)
                continue
            assert any(options.resolve() != base.resolve() for options in changed), (preset, name)
        is_adam = isinstance(base.resolve()[0].optimizer, Adam)
        assert is_adam == ("patience" in refused) == ("lbfgs_history" in refused) and "learning_rate" not in refused


@pytest.mark.parametrize("base", ["jaxstyle", "neural-style-pt"])
def test_an_option_overrides_its_value_in_the_preset_and_no_other(base):
    before, _ = command(preset=base).checked().resolve()
    optimizer, network, objective = before.optimizer, before.network, before.objective_options
    assert isinstance(optimizer, LBFGS)
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        ("pooling", "avg", {"network": network.clone(pooling="avg")}),
        ("precision", "float32", {"network": network.clone(precision="float32")}),
        ("remat", True, {"network": network.clone(remat=(1, 2))}),
        ("optimizer", "adam", {"optimizer": Adam()}),
        ("lbfgs_history", 7, {"optimizer": replace(optimizer, history_size=7)}),
        ("patience", 0, {"optimizer": replace(optimizer, patience=0)}),
        ("learning_rate", 0.5, {"optimizer": replace(optimizer, learning_rate=0.5)}),
        ("parametrization", "pixels", {"optimizer": replace(optimizer, parametrization="pixels")}),
        ("ema_decay", 0.5, {"optimizer": replace(optimizer, ema_decay=0.5)}),
        ("tolerance", 0.1, {"optimizer": replace(optimizer, tolerance=0.1)}),
        ("normalize_gradients", True, {"objective_options": {**objective, "normalize_gradients": True}}),
        ("statistic", "mean_std", {"objective_options": {**objective, "statistic": "mean_std"}}),
        ("shift", -1.0, {"objective_options": {**objective, "shift": -1.0}}),
        ("content_weight", 0.0, {"content_weight": 0.0}),
        ("style_weight", 7.0, {"style_weight": 7.0}),
        ("tv_weight", 0.25, {"tv_weight": 0.25}),
        ("content_layers", "relu3_2", {"content_layers": {"relu3_2": 1.0}}),
        ("style_layers", "relu1_1,conv2_1", {"style_layers": {"relu1_1": 1.0, "conv2_1": 1.0}}),
    ]
    for option, value, changed in cases:
        after, actual = command(preset=base, **{option: value}).checked().resolve()
        assert after == replace(before, **changed) != before, option
        assert actual == after.objective, option


def test_layers_are_parsed_with_their_shares():
    assert parse_layers("relu1_1:1, conv2_1:0.5,relu5_4") == {"relu1_1": 1.0, "conv2_1": 0.5, "relu5_4": 1.0}
    assert parse_layers("relu1_1,relu2_1:2", shares={"relu1_1": 3.0, "relu2_1": 4.0}) == {
        "relu1_1": 3.0,
        "relu2_1": 2.0,
    }


def test_invalid_layers_are_refused():
    for text, value in {
        "relu1_1,relu1_1:2": "twice",
        "relu1_1:-1": "'-1'",
        "relu1_1:much": "'much'",
        "relu1_1:nan": "'nan'",
        "relu1_1:inf": "'inf'",
        "relu6_1": "'relu6_1'",
        "": "''",
    }.items():
        with pytest.raises(InputError, match=value):
            parse_layers(text)


def test_numbers_scales_and_sizes_of_memory_are_parsed():
    assert parse_shares("1, 3,0", count=3) == [0.25, 0.75, 0.0]
    assert [parse_scales(text) for text in (None, "auto", "3", "64,512")] == [None, None, 3, (64, 512)]
    sizes = {"4GiB": 4 * 2**30, "256MiB": 2**28, "1.5 GB": 1_500_000_000, "300000000": 300_000_000, "1024TiB": 2**50}
    assert {text: parse_memory(text) for text in sizes} == sizes and parse_memory(None) is None
    for text in ("255MiB", "1025TiB", "4 parsecs", "GiB"):
        with pytest.raises(InputError, match="--max-memory"):
            parse_memory(text)


def test_layers_without_a_share_use_the_share_of_the_preset():
    objective: Any = command(preset="gatys-code", style_layers="relu1_1,relu2_1:1").checked().resolve()[1]
    assert objective.style == {"relu1_1": pytest.approx(1e3 / 64**2), "relu2_1": 1e3}


def test_a_style_weight_is_divided_among_layers_only_where_the_preset_does_so():
    options: dict[str, Any] = {"style_weight": 8.0, "style_layers": "relu1_1:1,relu2_1:3"}
    for preset, style in {
        "jaxstyle": {"relu1_1": 2.0, "relu2_1": 6.0},
        "neural-style-pt": {"relu1_1": 8.0, "relu2_1": 24.0},
    }.items():
        objective: Any = command(preset=preset, **options).checked().resolve()[1]
        assert objective.style == style


def test_optimizer_settings_of_a_preset_hold_for_its_optimizer_only():
    cases: list[tuple[dict[str, Any], LBFGS | Adam]] = [
        ({"optimizer": "lbfgs"}, LBFGS()),
        ({"optimizer": "adam"}, Adam(b2=0.99, ema_decay=0.99)),
        ({"optimizer": "lbfgs", "ema_decay": 0.5}, LBFGS(ema_decay=0.5)),
    ]
    for options, optimizer in cases:
        assert command(preset="crowsonkb", **options).checked().resolve()[0].optimizer == optimizer


def test_scales_and_pooling_gain_follow_the_preset_unless_set():
    of_scales: list[tuple[dict[str, Any], Any]] = [
        ({"preset": "neural-style-pt"}, 1),
        ({"preset": "neural-style-pt", "scales": "auto"}, None),
        ({"preset": "neural-style-pt", "scales": "3"}, 3),
        ({"scales": "64,512"}, (64, 512)),
        ({}, None),
    ]
    for options, scales in of_scales:
        assert command(**options).checked().resolve()[0].scales == scales
    of_gain: list[tuple[dict[str, Any], float]] = [
        ({"preset": "crowsonkb"}, 1.0),
        ({"preset": "crowsonkb", "pooling": "avg"}, 2.0),
        ({"pooling": "avg"}, 1.0),
    ]
    for options, gain in of_gain:
        assert command(**options).checked().resolve()[0].network.pooling_gain == gain


def test_colors_of_the_options_are_those_of_the_library():
    assert get_args(options_module.Color) == get_args(color.Color)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (TextureOptions(size=512), ("--size", "512")),  # pyright: ignore[reportArgumentType]
        (TextureOptions(style_weights=3), ("--style-weights", "3")),  # pyright: ignore[reportArgumentType]
        (SweepOptions(style_weight=30), ("--style-weight", "30")),  # pyright: ignore[reportArgumentType]
    ],
)
def test_numbers_in_place_of_text_are_refused(options, words):
    with pytest.raises(InputError) as error:
        options.check([Path("style.png")])
    assert all(word in str(error.value) for word in words)


def test_the_default_number_of_steps_is_the_same_in_commands_and_functions():
    functions = jaxstyle.stylize, jaxstyle.texture, jaxstyle.reconstruct, jaxstyle.sweep, make_problem
    defaults = {inspect.signature(function).parameters["steps"].default for function in functions}
    assert defaults == {kind().steps for kind in (StylizeOptions, SweepOptions, TextureOptions, ReconstructOptions)}

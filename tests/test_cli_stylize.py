"""Inputs, outputs, logs and messages of `jaxstyle stylize` and `jaxstyle statistics`, without compiled runs."""

import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import OLD, listing, log, size_of, stylize, write_inputs, write_masks
from conftest import picture
from PIL import Image

from jaxstyle.cli import main
from jaxstyle.cli.console import vgg19_message
from jaxstyle.cli.options import Method, Network
from jaxstyle.cli.signals import handled
from jaxstyle.cli.statistics import Statistics
from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.images.save import save_image
from jaxstyle.losses import masks as masks_module
from jaxstyle.losses.moments import Moments
from jaxstyle.networks import pretrained
from jaxstyle.runtime import StylizeOptions, estimates, load_network, stylize_files
from jaxstyle.runtime.fitting import Result
from jaxstyle.runtime.outputs import numbered
from jaxstyle.transfer.presets import PRESETS


@pytest.fixture(autouse=True)
def folder(isolated, monkeypatch) -> Path:
    monkeypatch.chdir(isolated)
    write_inputs(isolated)
    return isolated


# Outputs


def test_the_output_is_replaced_by_a_picture_whose_longest_side_is_size(fake_runner):
    for size, expected in [(32, (32, 26)), (48, (48, 38))]:
        Path("out.png").write_bytes(OLD)
        before = listing()
        assert stylize(size=size) == 0
        assert size_of("out.png") == expected
        assert listing().keys() == before.keys()


def test_a_preset_that_truncates_sizes_truncates_the_shorter_side(fake_runner):
    assert stylize(preset="neural-style-pt") == 0  # 25.6 pixels
    assert size_of("out.png") == (32, 25)


def test_the_suffix_of_the_output_chooses_its_format(fake_runner):
    for name, kind in {
        "a.jpg": "JPEG",
        "a.webp": "WEBP",
        "a.tiff": "TIFF",
        "a.PNG": "PNG",
        "[/b] [red].png": "PNG",
    }.items():
        Path("[").mkdir(exist_ok=True)
        assert stylize(output=name) == 0
        with Image.open(name) as opened:
            assert opened.format == kind


def test_16_bits_are_the_same_picture_in_finer_steps(fake_runner):
    assert stylize(output="fine.png", bits=16) == stylize() == 0
    fine, coarse = load_image("fine.png").rgb, load_image("out.png").rgb
    assert Path("fine.png").read_bytes()[24] == 16  # the bit depth in the header
    assert len(np.unique(fine)) > 256
    np.testing.assert_allclose(fine, coarse, atol=0.51 / 255)


def test_the_output_has_the_alpha_channel_of_the_content(fake_runner):
    alpha = np.linspace(0, 1, 32 * 40).reshape(32, 40)
    save_image("clear.png", picture(32, 40, seed=0), alpha=alpha)
    assert stylize(content="clear.png") == 0
    actual, expected = load_image("out.png").alpha, load_image("clear.png", size=32).alpha
    assert actual is not None and expected is not None
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_save_every_writes_full_size_pictures_at_each_multiple_below_the_last_step(fake_runner):
    before = listing().keys()
    assert stylize(steps=6, save_every=2, size=40, scales="2") == 0
    assert listing().keys() - before == {"out.png", "out_0002.png", "out_0004.png"}
    assert size_of("out_0002.png") == (40, 32)
    assert not np.array_equal(load_image("out_0002.png").rgb, load_image("out_0004.png").rgb)
    assert str(numbered(Path("a/out.tiff"), 50, steps=99_999)) == "a/out_00050.tiff"  # digits for the last step


def test_the_log_has_a_row_per_step_with_the_longest_side_and_every_term(fake_runner):
    assert (
        stylize(size=40, scales="20,40", steps=4, style_layers="relu1_1", content_layers="relu1_2", log=Path("log.csv"))
        == 0
    )
    rows, scales = log(), fake_runner.problems[0].schedule
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["side"] for row in rows] == [20] * scales[0].steps + [40] * scales[1].steps
    assert set(rows[0]) == {"step", "side", "total", "range_penalty", "tv", "content/relu1_2", "style/relu1_1"}
    assert [row["tv"] for row in rows] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])


def test_equal_commands_write_equal_bytes_and_another_seed_others(fake_runner):
    for name, seed in {"one.png": 0, "two.png": 0, "three.png": 2**32 - 1}.items():
        assert stylize(init="noise", seed=seed, output=name) == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes() != Path("three.png").read_bytes()


# Inputs


def test_a_run_starts_from_a_named_image_or_a_resized_picture_and_by_default_from_that_of_the_preset(
    fake_runner, monkeypatch
):
    save_image("wide.png", picture(20, 60, seed=2))
    for init in ("recolored", "style", "noise"):
        assert stylize(init=init) == 0
        problem = fake_runner.problems[-1]
        assert problem.start == init and not isinstance(problem.styles[0], dict)  # a picture, not cached statistics
    for init in ("content", "recolored"):
        monkeypatch.setitem(PRESETS, "pystiche", replace(PRESETS["pystiche"], init=init))
        assert stylize(preset="pystiche") == 0
        assert fake_runner.problems[-1].start == init
    for init, source in {"content": "content.png", Path("wide.png"): "wide.png"}.items():
        assert stylize(init=init, scales="1") == 0
        problem = fake_runner.problems[-1]
        start = np.asarray(problem.initial_image(problem.schedule[0], None))
        np.testing.assert_array_equal(start, load_image(source, size=(32, 26)).rgb)


def test_styles_are_passed_in_order_with_weights_that_sum_to_one(fake_runner):
    save_image("other.png", picture(24, 32, seed=7))
    for options, shares in (
        ({"style_weights": "1,3"}, [0.25, 0.75]),
        ({"style_weights": "0,2"}, [0.0, 1.0]),
        ({}, None),
    ):
        assert stylize(styles=("style.png", "other.png"), **options) == 0
        assert fake_runner.problems[-1].style_weights == shares
    shapes = [np.shape(style) for style in fake_runner.problems[-1].styles]
    assert shapes == [(32, 28, 3), (24, 32, 3)]


def test_style_size_and_scale_set_the_size_of_the_style(fake_runner):
    cases: list[tuple[dict[str, Any], tuple[int, int]]] = [
        ({}, (32, 28)),
        ({"style_size": 20}, (20, 18)),
        ({"style_scale": 2.0}, (64, 57)),
        ({"style_scale": 0.6}, (19, 17)),
        ({"preset": "gatys-paper"}, (26, 32)),  # of the shape of the content
        ({"preset": "gatys-paper", "style_scale": 1.0}, (32, 28)),
    ]
    for options, shape in cases:
        assert stylize(**options) == 0
        assert np.shape(fake_runner.problems[-1].styles[0])[:2] == shape


def test_pixels_outside_a_content_mask_keep_the_content(fake_runner, monkeypatch):
    inside, feathers = write_masks(), []
    monkeypatch.setattr(masks_module, "feather", lambda mask, *, pixels: feathers.append(pixels) or mask)
    assert stylize(size=40, content_mask=(Path("left.png"),), feather=8) == 0
    problem = fake_runner.problems[-1]
    painted, source = np.asarray(problem.finish(picture(32, 40, seed=3))), np.asarray(problem.picture)
    np.testing.assert_array_equal(painted[:, ~inside], source[:, ~inside])
    assert np.abs(painted - source)[:, inside].mean() > 0.05
    np.testing.assert_array_equal(problem.content_masks, np.broadcast_to(inside, (1, 32, 40)))
    assert feathers == [8]


def test_style_masks_have_the_shape_of_their_style_and_all_means_no_mask(fake_runner):
    write_masks()
    save_image("other.png", picture(32, 40, seed=7))
    masks: dict[str, Any] = {
        "content_mask": (Path("left.png"), Path("right.png")),
        "style_mask": ("all", Path("right.png")),
    }
    assert stylize(styles=("style.png", "other.png"), **masks) == 0
    problem = fake_runner.problems[0]
    assert problem.style_masks is not None
    first, second = problem.style_masks
    assert first is None and np.shape(second) == np.shape(problem.styles[1])[:2] == (26, 32)
    assert np.asarray(second)[:, :14].max() == 0 and np.asarray(second)[:, 18:].min() > 1 - 1e-6
    assert np.asarray(problem.content_masks).argmax(0)[0].tolist() == [0] * 16 + [1] * 16
    clear = np.zeros((32, 40))
    clear[:, :20] = 1
    save_image("clear.png", np.ones((32, 40, 3)), alpha=clear)  # luminance times opacity
    assert stylize(content_mask=(Path("clear.png"),), size=40) == 0
    np.testing.assert_array_equal(np.asarray(fake_runner.problems[-1].content_masks)[0], clear)


# Statistics


@pytest.fixture
def colors(monkeypatch) -> None:
    """Let the statistics of a style be moments of its colors instead of a network's features."""

    def summarize(params: Any, style: jax.Array, *, key: jax.Array, objective: Any, network: Any) -> dict[str, Moments]:
        pixels = jnp.pad(style.reshape(-1, 3), ((0, 0), (0, 1)))  # the first layer of tiny.h5 has 4 channels
        return {"relu1_1": Moments(pixels.mean(0), pixels.T @ pixels / len(pixels))}

    monkeypatch.setattr("jaxstyle.losses.targets.summarize_style", summarize)


def statistics(
    *styles: str,
    output: str = "style.h5",
    size: int = 32,
    quiet: bool = True,
    no_record: bool = False,
    **method: Any,
) -> int:
    options: dict[str, Any] = {"no_record": no_record, "method": Method(style_layers="relu1_1", **method)}
    options["network"] = Network(weights=Path("tiny.h5"), offline=True)
    return Statistics(tuple(map(Path, styles)), Path(output), size=size, quiet=quiet, **options).run()


def moments_of(path: str, size: int) -> np.ndarray:
    pixels = np.asarray(load_image(path, size=size).rgb).reshape(-1, 3)
    return pixels.T @ pixels / len(pixels)


def second(path: str, side: int) -> np.ndarray:
    with h5py.File(path) as file:
        return file[f"{side}/relu1_1/second"][()][:3, :3]  # pyright: ignore


@pytest.mark.usefixtures("colors")
def test_statistics_are_saved_for_every_scale_and_for_halves_of_large_pictures(capsys):
    assert statistics("style.png", size=600, scales="1", quiet=False, no_record=True) == 0
    with h5py.File("style.h5") as file:
        assert set(file) == {"300", "600"}
    np.testing.assert_allclose(second("style.h5", 300), moments_of("style.png", 300), rtol=1e-5)
    assert "style.h5: 1 picture, for sides of 300, 600 pixels" in capsys.readouterr().err
    assert b"style.png" not in Path("style.h5").read_bytes()


@pytest.mark.usefixtures("colors")
def test_statistics_of_a_folder_are_the_mean_over_its_pictures():
    Path("styles").mkdir()
    for i in range(3):
        save_image(f"styles/{i}.png", picture(36, 32, seed=i))  # of the size of style.png: no further program
    Path("styles/notes.txt").write_text("no picture")
    assert statistics("styles", output="all.h5") == 0
    assert b"0.png" in Path("all.h5").read_bytes()
    expected = np.mean([moments_of(f"styles/{i}.png", 32) for i in range(3)], axis=0)
    np.testing.assert_allclose(second("all.h5", 32), expected, rtol=1e-5)


@pytest.mark.usefixtures("colors")
def test_statistics_replace_a_style_and_mix_with_pictures(fake_runner, capsys):
    assert statistics("style.png") == 0
    small: dict[str, Any] = {"style_layers": "relu1_1", "content_layers": "relu1_1"}
    assert stylize(styles=("content.png", "style.h5"), output="mixed.png", style_weights="1,2", **small) == 0
    picture_, sizes = fake_runner.problems[0].styles
    assert np.shape(picture_) == (26, 32, 3) and list(sizes) == [32]
    np.testing.assert_allclose(sizes[32]["relu1_1"].second[:3, :3], moments_of("style.png", 32), rtol=1e-5)
    assert "32 pixels" not in capsys.readouterr().err
    assert stylize(styles=("style.h5",), size=64, **small) == 0
    assert "style.h5 is for pictures of 32 pixels, not 64" in capsys.readouterr().err


@pytest.mark.usefixtures("colors")
def test_statistics_are_refused_with_options_that_need_a_picture_and_by_another_network(fake_runner):
    assert statistics("style.png") == 0
    style = Path("style.h5")
    for options, values in [
        ({"style_size": 32}, ("style.h5", "--style-size")),
        ({"style_scale": 1.0}, ("style.h5", "--style-scale")),
        ({"style_mask": ("all",)}, ("style.h5", "--style-mask")),
        ({"color": "keep"}, ("style.h5", "--color")),
        ({"weights": None, "network": "mini"}, ("style.h5", "network")),
        ({"style_layers": "relu2_1"}, ("style.h5", "relu2_1")),
    ]:
        with pytest.raises(InputError) as raised:
            stylize(styles=(str(style),), **{"style_layers": "relu1_1", "content_layers": "relu1_1", **options})
        assert [value for value in values if value not in str(raised.value)] == [], options
    assert fake_runner.problems == []


def test_statistics_that_cannot_be_made_are_refused():
    Path("empty").mkdir()
    for styles, output, size, values in [
        (["style.png"], "style.png", 32, ("style.png", "'.png'", ".h5")),
        (["style.png"], "none/style.h5", 32, ("none/style.h5",)),
        (["style.png"], "empty", 32, ("empty",)),
        (["style.png"], "s.h5", 8, ("--size", "8")),
        (["empty"], "s.h5", 32, ("empty", ".png, .jpg,")),
        (["missing.png"], "s.h5", 32, ("missing.png",)),
        (["*.bmp"], "s.h5", 32, ("*.bmp",)),
        ([], "s.h5", 32, ("no style",)),
    ]:
        with pytest.raises(InputError) as raised:
            statistics(*styles, output=output, size=size)
        assert [value for value in values if value not in str(raised.value)] == [], (styles, output)
    assert not Path("s.h5").exists()


# Messages


def test_a_quiet_run_prints_nothing_and_others_print_network_and_summary_to_standard_error(fake_runner, capfd):
    assert stylize(quiet=True) == 0
    assert capfd.readouterr() == ("", "")
    assert stylize() == 0
    out, err = capfd.readouterr()
    network, summary = err.splitlines()
    assert out == "" and network == "Network: vgg19, tiny.h5"
    assert summary.startswith("out.png: 3 steps in ") and " steps/s), total " in summary and "; traced in " in summary


# Interruptions


def test_sigint_finishes_the_step_and_saves_picture_and_log(fake_runner, capsys):
    assert stylize(steps=9, save_every=2, scales="1", output="two.png") == 0
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where a shell runs pytest in the background
    fake_runner.on_step = lambda step: step == 2 and signal.raise_signal(signal.SIGINT)
    capsys.readouterr()
    try:
        with handled():
            assert stylize(steps=9, scales="1", log=Path("log.csv")) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    np.testing.assert_array_equal(load_image("out.png").rgb, load_image("two_0002.png").rgb)
    assert [row["step"] for row in log()] == [1, 2]
    assert "out.png: interrupted after 2 of 9 steps in " in capsys.readouterr().err


def test_an_interruption_at_a_coarse_scale_saves_the_last_step_at_full_size(fake_runner, capsys):
    def interrupt(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt  # a second signal does not wait for the step

    fake_runner.on_step = interrupt
    assert stylize(size=40, scales="2", steps=8, log=Path("log.csv")) == 130
    assert size_of("out.png") == (40, 32) and [row["step"] for row in log()] == [1, 2]
    assert "interrupted after 2 of 8 steps" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["load", "step", "save"])
def test_an_interruption_before_a_picture_is_saved_leaves_the_output_unchanged(where, fake_runner, monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    Path("out.png").write_bytes(OLD)
    before = listing()
    fake_runner.on_step = interrupt if where == "step" else fake_runner.on_step
    if where == "load":
        monkeypatch.setattr(pretrained, "load", interrupt)
    if where == "save":
        monkeypatch.setattr("jaxstyle.runtime.run.save_image", interrupt)
    run = "stylize content.png style.png -o out.png --size 32 --steps 3 --weights tiny.h5 --log log.csv --offline"
    assert main(run.split()) == 130
    assert listing() == before
    assert capsys.readouterr().err.splitlines()[-1] == "jaxstyle: interrupted before a picture was saved."


# The preview


def test_a_preview_uses_the_mini_network_and_prints_the_time_of_vgg19(fake_runner, capsys):
    assert stylize(preview=True) == 0
    network, summary, advice = capsys.readouterr().err.splitlines()
    assert network == f"Network: mini, {pretrained.MINI}" and summary.startswith("out.png: 3 steps")
    assert "VGG-19" in advice and "3 steps" in advice and "--init out.png" in advice
    one = Path("out.png").read_bytes()
    for network in ("mini", "builtin"):
        assert stylize(network=network, weights=None) == 0
        assert Path("out.png").read_bytes() == one
    kernels = [problem.params["conv1_1"]["kernel"].shape for problem in fake_runner.problems[:2]]
    assert kernels[0] == kernels[1]
    capsys.readouterr()
    assert stylize(preview=True, quiet=True) == 0
    assert capsys.readouterr() == ("", "")


def test_the_time_of_vgg19_is_that_of_the_steps_times_the_ratio_of_operations(monkeypatch, compilations):
    scales = [SimpleNamespace(steps=2, height=16, width=16), SimpleNamespace(steps=3, height=32, width=32)]
    problem: Any = SimpleNamespace(params="mini", objective=None, schedule=scales, steps=5)
    operations = {"mini": 3.0}

    def result(seconds: float) -> Any:
        return Result(None, {}, None, 5, seconds, "done")

    monkeypatch.setattr(
        estimates,
        "gflop_per_step",
        lambda params, scale, *, objective: scale.height * (operations[params] if isinstance(params, str) else 12.0),
    )
    text = vgg19_message(problem, result(20.0), Path("my cat.png"))
    assert f"about {estimates.RELATIVE_TIME * 20 * 4:.0f} s" in text
    assert "these 5 steps" in text and "--init 'my cat.png'" in text
    assert "about 5 min" in vgg19_message(problem, result(75 / estimates.RELATIVE_TIME), Path("out.png"))
    assert compilations == []


# Without the command line


def test_stylize_files_writes_the_bytes_of_the_command_and_prints_nothing(fake_runner, capfd):
    assert stylize(output="command.png", quiet=True) == 0
    network = load_network(weights=Path("tiny.h5"), offline=True)
    events: list[str] = []
    how: dict[str, Any] = {"options": StylizeOptions(size=32, steps=3), "network": network}
    listen = [lambda event, _: events.append(event.kind)]
    result = stylize_files("content.png", "style.png", "function.png", **how, callbacks=listen)
    assert Path("function.png").read_bytes() == Path("command.png").read_bytes()
    assert (result.stop_reason, result.steps) == ("done", 3) and events[-1] == "saved"
    stopped = stylize_files("content.png", "style.png", "none.png", **how, should_stop=lambda: True)
    assert stopped.stop_reason == "stopped" and not Path("none.png").exists()
    assert capfd.readouterr() == ("", "")

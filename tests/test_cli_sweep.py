"""`jaxstyle sweep` from its options to its files."""

import csv
import re
import shutil
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, picture
from quick_commands import run

from jaxstyle import Adam
from jaxstyle import stylize as library_stylize
from jaxstyle.cli import main
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.errors import InputError
from jaxstyle.images.contact_sheet import contact_sheet
from jaxstyle.images.load import load_image
from jaxstyle.images.metadata import description_of
from jaxstyle.images.save import save_image
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.runtime import memory, record, runner, sweep_job
from jaxstyle.runtime.checkpoint import CheckpointStore
from jaxstyle.runtime.options import parse_memory
from jaxstyle.runtime.outputs import write_log
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.sweep_grid import SweepOptions, parse_values
from jaxstyle.runtime.sweep_report import CELLS, Entry, page, read_entry, thinned, write_entry
from jaxstyle.transfer import presets

FIXED = ("--size", 32, "--steps", 3, "--weights", "tiny.h5", "--optimizer", "adam", "--content-layers", "relu1_2")
QUICK = {"size": 32, "steps": 3, "weights": Path("tiny.h5"), "optimizer": "adam", "content_layers": "relu1_2"}
QUICK |= {"style_layers": "relu1_1"}
FITTING = sweep_job.fitting_batch_size  # which `fake_runner` replaces

pytestmark = pytest.mark.usefixtures("folder")


def jaxstyle(name: str, *options: object) -> int:
    return main([str(each) for each in (name, "content.png", "style.png", *FIXED, *options)])


def sweep(**options: Any) -> int:
    return run(Sweep(Path("content.png"), (Path("style.png"),), Path("out")), **{**QUICK, **options})


def stylize(**options: Any) -> int:
    return run(Stylize(Path("content.png"), (Path("style.png"),), Path("alone.png")), **{**QUICK, **options})


def table(path: str = "out/sweep.csv") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def two_pictures(tmp_path_factory) -> Path:
    """The output folder of a finished sweep over the style weights 1 and 10."""
    return tmp_path_factory.mktemp("two") / "out"


@pytest.fixture
def swept(folder, fake_runner, two_pictures) -> Path:
    """The folder `out` with a finished sweep over the style weights 1 and 10."""
    if not two_pictures.exists():
        assert sweep(style_weight="1,10") == 0
        shutil.copytree("out", two_pictures)
        fake_runner.problems.clear()
    else:
        shutil.copytree(two_pictures, "out")
    return Path("out")


# Values of options and their combinations


def test_values_are_numbers_and_logarithmic_or_linear_ranges():
    for text, values in {
        "3": [3],
        "1,10, 100": [1, 10, 100],
        "10:1e4:4": [10, 100, 1000, 10000],
        "0:1:3": [0, 0.5, 1],
        "1:0:3": [1, 0.5, 0],
        "8:2:3": [8, 4, 2],
        "1:3:3": [1, 1.73205, 3],
        "0,1:4:3": [0, 1, 2, 4],
    }.items():
        assert parse_values("style-weight", text, least=0) == values


def test_invalid_ranges_are_refused():
    for text, message in {
        "much": "use a number, numbers with commas, or a range",
        "1:2": "use a number, numbers with commas, or a range",
        "1:2:3:4": "a range is from:to:count",
        "1:2:1": "with 2 values at least",
        "1:10:20000": "a range is from:to:count",
        "1:nan:3": "a range is from:to:count",
        "-1:2:3": "both 0 or more",
        "2:2:3": "from one number to another",
        "1,1": "has a value twice",
        "-1": "--style-weight is -1",
    }.items():
        with pytest.raises(InputError, match=message):
            parse_values("style-weight", text, least=0)


def test_combinations_are_complete_and_the_last_option_varies_fastest():
    actual = SweepOptions(style_weight="1,2", seeds=2).combinations()
    assert [tuple(each.settings.values()) for each in actual] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert actual[3].label == "style-weight 2, seed 1" and actual[3].name == "style-weight=2_seed=1"
    assert SweepOptions().combinations()[0].name == "picture"


def test_names_of_pictures_are_distinct_valid_and_short():
    near = SweepOptions(style_weight="1.00000001,1.00000002").combinations()
    assert len({each.label for each in near}) == len({each.name for each in near}) == 2
    layers = (",".join(f"relu{i}_1:{w}" for i in range(1, 6)) * 3 for w in (0.25, 0.5))
    many = SweepOptions(style_layers=";".join(layers)).combinations()
    assert len({each.name for each in many}) == 2 and all(len(each.name) < 120 for each in many)
    assert not set(many[0].name) & set(":,/")


def test_sizes_of_memory_have_decimal_and_binary_units():
    sizes = {"4GiB": 2**32, "1.5 GB": 1_500_000_000, "300MiB": 300 * 2**20}
    assert [parse_memory(text) for text in sizes] == list(sizes.values())


# The computation


def test_each_picture_has_the_weights_of_its_settings(fake_runner):
    assert sweep(style_weight="3:300:2", tv_weight="0,5") == 0
    [problem] = fake_runner.problems
    assert problem.batch_size == 4 and problem.noise is None and problem.start == "content"
    np.testing.assert_array_equal(problem.objective.style["relu1_1"], [3, 3, 300, 300])
    np.testing.assert_array_equal(problem.objective.tv, [0, 5, 0, 5])
    rows = [(row["picture"], float(row["style-weight"]), float(row["tv-weight"])) for row in table()]
    assert rows == [(f"style-weight={w}_tv-weight={t}.png", w, t) for w in (3, 300) for t in (0, 5)]
    for index, (name, style, tv) in enumerate(rows):
        stated = record.read(description_of(Path("out", name)))
        assert (stated.index, stated.batch, stated.steps) == (index, (0, 1, 2, 3), 3)
        assert stated.weights["style/relu1_1"] == style and stated.weights["tv"] == tv


def test_layers_of_other_pictures_have_the_weight_zero(fake_runner):
    sets = {"content": ("relu1_2", "relu2_2"), "style": ("relu1_1", "relu1_1,relu2_1:3")}
    assert sweep(**{f"{kind}_layers": "; ".join(own) for kind, own in sets.items()}) == 0
    [problem] = fake_runner.problems
    pairs = [(content, style) for content in sets["content"] for style in sets["style"]]
    for index, layers in enumerate(pairs):
        assert stylize(content_layers=layers[0], style_layers=layers[1]) == 0
        alone = fake_runner.problems[-1].objective
        for own, expected in ((problem.objective.content, alone.content), (problem.objective.style, alone.style)):
            assert {name: float(value[index]) for name, value in own.items() if value[index]} == pytest.approx(
                jax.tree.map(float, expected)
            )
    layers = problem.objective.content_layers, problem.objective.style_layers
    assert layers == (sets["content"], ("relu1_1", "relu2_1"))


def test_seeds_are_the_keys_of_the_noise(fake_runner):
    assert sweep(seeds=2, seed=5) == 0
    [problem] = fake_runner.problems
    assert problem.start == "noise" and [row["seed"] for row in table()] == ["5", "6"]
    keys = [np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in (5, 6)]
    np.testing.assert_array_equal(jax.random.key_data(problem.noise), keys)
    assert sweep(init="noise", seed=5, output=Path("one")) == 0
    np.testing.assert_array_equal(jax.random.key_data(fake_runner.problems[-1].noise), keys[:1])
    assert Path("one/picture.png").is_file()


@pytest.mark.slow(optimized=True)
def test_a_resumed_sweep_has_the_pictures_of_stylize_and_rerun_has_their_bytes(monkeypatch):
    layers, kept = ("relu1_1", "relu1_1,relu2_1:3"), ("--checkpoint", "kept", "--every", 1)
    common = ("--save-every", 2, "--ema-decay", 0.9, "--tolerance", 1e-9)  # the state has a mean and its history
    command = ("--style-layers", ";".join(layers), "--tv-weight", "0,5", "--batch-size", 2, *common, "-o", "out")
    save, iterate, began = CheckpointStore.save, runner.iterate, []
    with monkeypatch.context() as patch:
        stops = iter([signal.SIGINT])
        patch.setattr(CheckpointStore, "save", lambda *all_: (save(*all_), *map(signal.raise_signal, stops)))
        assert jaxstyle("sweep", *command, *kept) == 130
    assert [path.name for path in Path("kept").glob("*.npz")] == ["checkpoint-2.npz"]
    monkeypatch.setattr(sweep_job, "iterate", lambda *all_, **each: began.append(each) or iterate(*all_, **each))
    assert jaxstyle("sweep", *command, *kept) == 0
    assert [each["resume"] and each["resume"].step for each in began] == [2, None]
    assert not Path("kept").exists()  # removed when it is empty
    rows = table()
    assert [row["style-layers"] for row in rows] == [*layers, *layers]
    last, first = (Path("out", rows[index]["picture"]) for index in (3, 0))
    single = ("--style-layers", layers[1], "--tv-weight", 5, *common, "-o", "alone.png")
    assert jaxstyle("stylize", *single) == 0
    np.testing.assert_allclose(load_image("alone.png").rgb, of_library(), atol=1.01 / 255)
    for path, expected in ((last, "alone.png"), (last.with_stem(f"{last.stem}_0002"), "alone_0002.png")):
        np.testing.assert_allclose(load_image(path).rgb, load_image(expected).rgb, atol=1.01 / 255)
    assert main(["rerun", str(first), "--inputs", ".", "-o", "again.png"]) == 0
    assert Path("again.png").read_bytes() == first.read_bytes()


def of_library() -> np.ndarray:
    """Return the last picture of the sweep, computed by `jaxstyle.stylize`."""
    preset = replace(presets.preset("jaxstyle"), tv_weight=5.0)
    options: dict[str, Any] = {
        "objective": preset.make_objective({"relu1_2": 1.0}, {"relu1_1": 1.0, "relu2_1": 3.0}),
        "optimizer": Adam(ema_decay=0.9, tolerance=1e-9),
        "steps": 3,
    }
    content, style = (jnp.asarray(load_image(f"{name}.png", size=32).rgb) for name in ("content", "style"))
    params, key = random_params(widths=TINY, seed=1), jax.random.key(0)
    return np.asarray(library_stylize(params, content, style, key=key, **options).image)


# Files


def test_table_sheet_and_page_show_all_pictures(fake_runner):
    assert sweep(style_weight="1,10", tv_weight="0,1,2") == 0
    height, width, _ = load_image("out/grid.png").rgb.shape
    assert width == 3 * (32 + 4) and height > 2 * 26  # a row for each value of the first option
    text = Path("out/index.html").read_text()
    sources = re.findall(r'<img src="([^"]*)"', text)
    assert len(sources) == 6 and all(Path("out", source).is_file() for source in sources)
    assert not re.search(r"https?://|//", text.replace("<!doctype html>", ""))  # nothing is fetched
    assert "style-weight 10" in text and text.count("<polyline") == 6
    assert [float(row["total"]) for row in table()] == pytest.approx(
        [float(record.read(description_of(Path("out", source))).history["total"][1]) for source in sources]
    )


def test_the_page_escapes_names_and_labels():
    entry = Entry("a#b%?.png", '<b>"', {"style-layers": "<b>"}, {"total": 1.0, "tv<": 2.0}, (100.0, 10.0, 1.0), "")
    shown = page([entry], columns=None)
    assert 'src="a%23b%25%3F.png"' in shown and "&lt;b&gt;&quot;" in shown and "tv&lt;" in shown
    assert 'points="0.0,2.0 50.0,15.0 100.0,28.0"' in shown  # logarithmic, from the top to the bottom
    assert "repeat(1," in shown and "repeat(7," in page([entry], columns=7)
    flat = Entry("a.png", "a", {}, {"total": 0.0}, (0.0, float("nan"), 1.0), "")
    assert "<polyline" not in page([flat] * 9, columns=None) and "repeat(4," in page([flat] * 9, columns=None)


def test_a_long_curve_is_thinned_between_its_ends():
    assert thinned([3.0, 2.0, 1.0]) == (3.0, 2.0, 1.0) and thinned([3.0]) == (3.0,)
    short = thinned([float(i) for i in range(1000)])
    assert len(short) == 120 and short[0] == 0 and short[-1] == 999 and [*short] == sorted(short)
    assert max(np.diff(short)) <= 9  # evenly spaced


def test_cells_of_the_contact_sheet_stand_row_by_row_over_their_labels():
    colors = np.linspace(0.2, 0.8, 3)
    sheet = contact_sheet([np.full((16, 32, 3), color) for color in colors], ["a", "b\nc", "d"], columns=2)
    height, width, _ = sheet.shape
    assert width == 2 * (32 + 4) and height % 2 == 0
    for number, color in enumerate(colors):
        row, column = divmod(number, 2)
        cell = sheet[row * height // 2 :, column * 36 :][:16, :32]
        np.testing.assert_allclose(cell, color, atol=0.5 / 255)
        assert sheet[row * height // 2 + 17 :, column * 36 :][: height // 2 - 17, :32].min() < 0.5  # a label
    small = contact_sheet([np.zeros((20, 40, 3))] * 9, [""] * 9, cell=20)
    assert small.shape[1] == 3 * (20 + 4)  # about as wide as high
    assert [side for most, side in CELLS if most >= 150][0] == 192


def test_save_every_and_log_have_every_step_of_every_picture(fake_runner):
    for weights in ("1,10", "2,20"):
        assert sweep(style_weight=weights, save_every=2, log=Path("log.csv")) == 0
    assert stylize(style_weight=20, log=Path("alone.csv")) == 0
    rows, alone = table("log.csv"), table("alone.csv")
    assert [(row["style-weight"], row["step"]) for row in rows] == [(w, s) for w in ("2.0", "20.0") for s in "123"]
    assert set(rows[0]) == {"picture", "style-weight", *alone[0]}
    assert [{name: row[name] for name in alone[0]} for row in rows[3:]] == alone
    for name in ("1", "10", "2", "20"):
        early = f"out/style-weight={name}_0002.png"
        assert record.read(description_of(early)).steps == 2
        assert np.abs(load_image(early).rgb - load_image(f"out/style-weight={name}.png").rgb).max() > 2 / 255


def test_rows_are_appended_to_a_log_completely_or_not_at_all(folder, monkeypatch):
    path, rows = folder / "log.csv", [{"step": 1, "total": 2.5}, {"step": 2, "total": 1.5}]
    write_log(path, rows[:1], mode="a")
    write_log(path, rows[1:], mode="a")
    before = files(folder)
    assert before["log.csv"] == b"step,total\r\n1,2.5\r\n2,1.5\r\n"

    def killed(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        write_log(path, rows, mode="a")
    assert files(folder) == before


def test_transparency_and_16_bits_hold_for_each_picture(fake_runner):
    alpha = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (32, 1))
    save_image("content.png", picture(32, 40, seed=0), alpha=alpha)
    assert sweep(style_weight="1,10", bits=16) == 0
    for row in table():
        actual = load_image(Path("out", row["picture"]))
        assert actual.alpha is not None and actual.alpha.std() > 0.2
        assert np.abs(255 * actual.rgb - np.rint(255 * actual.rgb)).max() > 0.1


# Repeating a command


def test_a_repeated_sweep_computes_nothing(swept, fake_runner, capsys):
    before = files(swept)
    assert sweep(style_weight="1,10") == 0
    assert "2 of 2 pictures exist already" in capsys.readouterr().err
    assert fake_runner.problems == [] and files(swept) == before


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:60])])
def test_a_missing_or_damaged_picture_is_computed_again(damage, swept, fake_runner, capsys):
    before = files(swept)
    damage(swept / "style-weight=10.png")
    assert sweep(style_weight="1,10") == 0
    assert "1 of 2 pictures exist already" in capsys.readouterr().err
    [problem] = fake_runner.problems
    np.testing.assert_array_equal(problem.objective.style["relu1_1"], [10])
    assert files(swept)["style-weight=1.png"] == before["style-weight=1.png"]
    assert load_image(swept / "style-weight=10.png").rgb.shape == (26, 32, 3)


def test_a_longer_range_computes_only_the_new_pictures(swept, fake_runner, capsys):
    assert sweep(style_weight="1,5,10") == 0
    assert "2 of 3 pictures exist already" in capsys.readouterr().err
    [problem] = fake_runner.problems
    np.testing.assert_array_equal(problem.objective.style["relu1_1"], [5])
    assert [row["picture"] for row in table()] == [f"style-weight={weight}.png" for weight in (1, 5, 10)]


def test_a_changed_setting_or_file_computes_all_pictures_again(swept, two_pictures, fake_runner):
    def changed(**options: Any) -> None:
        shutil.rmtree(swept)
        shutil.copytree(two_pictures, swept)
        fake_runner.problems.clear()
        before = files(swept)
        assert sweep(style_weight="1,10", **options) == 0
        assert [problem.batch_size for problem in fake_runner.problems] == [2]
        assert files(swept)["style-weight=10.png"] != before["style-weight=10.png"]

    options = {"steps": 2, "tv_weight": "1", "init": "style", "style_size": 40, "size": 33, "bits": 16}
    for name, value in options.items():
        changed(**{name: value})
    weights_io.write("tiny.h5", random_params(widths=TINY, seed=2), source="", checksum="none", licence="none")
    changed()
    save_image("content.png", picture(32, 40, seed=5))
    changed()


def test_a_damaged_entry_is_none(folder):
    entry = Entry("a.png", "a", {}, {"total": 2.5}, (2.5,), "")
    for text in ("[" * 100_000, '{"picture"', ("9" * 401).join(("2.5", "2.5"))):
        write_entry(folder / "a.json", entry)
        assert read_entry(folder / "a.json") == entry
        (folder / "a.json").write_text(text)
        assert read_entry(folder / "a.json") is None


# Interruptions and divergence


def test_a_sweep_that_is_interrupted_between_rounds_continues(fake_runner, capsys):
    def interrupt(step: int) -> None:
        if len(fake_runner.problems) == 2:
            raise KeyboardInterrupt

    fake_runner.on_step = interrupt
    options = {"style_weight": "1,10,100", "batch_size": 1, "log": Path("log.csv")}
    assert sweep(**options) == 130
    message = capsys.readouterr().err
    assert "Interrupted: rerun the same command to resume" in message and "1 of 3 pictures are finished" in message
    assert len(table()) == 1 and Path("out/grid.png").exists()
    assert sweep(**options) == 0
    assert [problem.batch_size for problem in fake_runner.problems] == [1, 1, 1, 1] and len(table()) == 3
    assert [float(row["style-weight"]) for row in table("log.csv")] == [*[1] * 3, *[10] * 3, *[100] * 3]


def test_a_sweep_that_is_interrupted_within_a_round_saves_its_pictures_and_restarts_them(fake_runner, capsys):
    fake_runner.on_step = lambda step: signal.raise_signal(signal.SIGTERM) if step == 2 else None
    assert sweep(style_weight="1,10") == 143
    assert "0 of 2 pictures are finished" in capsys.readouterr().err
    assert [record.read(description_of(f"out/style-weight={w}.png")).steps for w in (1, 10)] == [2, 2]
    fake_runner.on_step = lambda step: None
    assert sweep(style_weight="1,10") == 0
    assert "2 of 2 pictures are finished" in capsys.readouterr().err and len(table()) == 2


def not_finite(place, index: Any = ...):
    damaged = np.array(place.image)
    damaged[index, 0, 0, 0] = np.nan
    return place._replace(image=damaged)


def test_a_sweep_without_a_finished_picture_removes_the_report_of_another(swept, fake_runner, monkeypatch, capsys):
    monkeypatch.setattr(sweep_job, "iterate", lambda *all_, **each: map(not_finite, fake_runner.iterate(*all_, **each)))
    assert sweep(style_weight="2,20") == 1
    message = capsys.readouterr().err
    assert "0 of 2 pictures are finished" in message and "index.html" not in message
    assert not any(Path("out", name).exists() for name in ("index.html", "grid.png", "sweep.csv"))


@pytest.mark.parametrize("fault", ["image", "term", "term between two segments"])
def test_a_picture_that_diverges_is_saved_as_it_was_before_and_the_others_are_finished(
    fault, fake_runner, monkeypatch, capsys
):
    options = {"style_weight": "1,10,100", "scales": "2", "steps": 9}
    assert sweep(**options, save_every=3, output=Path("sound")) == 0
    real = fake_runner.iterate

    def iterate(*arguments, **options):
        for place in real(*arguments, **options):
            if fault == "image" and place.step > 3:
                place = not_finite(place, 1)
            yield place

    if fault != "image":
        fake_runner.history = lambda step: {"tv": [1, np.nan, 1]} if step == 5 else {}
    monkeypatch.setattr(sweep_job, "iterate", iterate)
    if fault == "term between two segments":  # so that the picture has to be computed again up to there
        monkeypatch.setattr(sweep_job, "iterate", lambda *all_, **each: islice(iterate(*all_, **each), 8, None, 9))
        monkeypatch.setattr(runner, "iterate", iterate)
    assert sweep(**options) == 1
    message = capsys.readouterr().err
    reason = "the picture is not finite after step 4" if fault == "image" else "tv is nan at step 5"
    assert f"style-weight 10: {reason}, so out/style-weight=10.png is as it was after step 3: lower" in message
    assert [float(row["style-weight"]) for row in table()] == [1, 100]
    for name, expected in {"10": "10_0003", "1": "1", "100": "100"}.items():
        actual, sound = (Path(path) for path in (f"out/style-weight={name}.png", f"sound/style-weight={expected}.png"))
        np.testing.assert_array_equal(load_image(actual).rgb, load_image(sound).rgb)


def test_a_picture_without_progress_is_named_by_its_label(fake_runner, monkeypatch, capsys):
    def iterate(*arguments, **options):
        for place in fake_runner.iterate(*arguments, **options):
            stall = SimpleNamespace(
                restarted=np.array([0, place.step > 0]), stopped=np.array([0, 2 * (place.step > 1)])
            )
            yield place._replace(state=SimpleNamespace(watch=None, stall=stall))

    monkeypatch.setattr(sweep_job, "iterate", iterate)
    assert sweep(style_weight="1,30", optimizer="lbfgs", patience=3) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "no progress" in line]
    assert len(lines) == 2 and all(
        line.startswith("style-weight 30: lbfgs made no progress in 3 steps") for line in lines
    )
    assert "restarted at step 1" in lines[0] and "stopped at step 2" in lines[1]


# Memory


def test_the_batch_size_follows_from_the_memory(fake_runner, monkeypatch, capsys):
    monkeypatch.setattr(sweep_job, "fitting_batch_size", FITTING)
    monkeypatch.setattr(sweep_job, "memory_budget", lambda memory: 40 * 2**20)
    monkeypatch.setattr(Problem, "targets", lambda *_, **__: None)
    monkeypatch.setattr(Problem, "program", lambda self, *_, **__: self.batch_size)
    monkeypatch.setattr(sweep_job, "memory_of", lambda batch_size: 15 * 2**20 * batch_size)
    assert sweep(style_weight="1,2,3,4,5") == 0
    assert "5 pictures, 2 at a time: 0.0 of 0.0 GiB" in capsys.readouterr().err
    assert [problem.batch_size for problem in fake_runner.problems] == [2, 2, 1] and len(table()) == 5


def test_available_memory_excludes_what_the_process_uses():
    assert memory.memory_budget(1) == 0
    assert 0 < memory.memory_budget(2**40) < 2**40
    assert memory.memory_budget(None) > 2**20


# Invalid options


def test_inputs_in_the_output_folder_are_not_replaced(capsys):
    Path("out").mkdir()
    for name in ("style-weight=10.png", "style-weight=10_0002.png"):
        Path("style.png").rename(Path("out", name))
        command = ["sweep", "content.png", f"out/{name}", "-o", "out", "--style-weight", "1,10", "--save-every", 2]
        assert main([str(argument) for argument in (*command, *FIXED)]) == 2
        assert name in capsys.readouterr().err
        Path("out", name).rename("style.png")


def test_an_invalid_option_has_status_2_and_one_line(capsys):
    assert jaxstyle("sweep", "-o", "out", "--seeds", 2, "--init", "style") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxstyle: --seeds starts from noise, but --init is style")


def test_options_that_contradict_each_other_or_exceed_limits_are_refused(capsys):
    Path("folders/sweep.csv").mkdir(parents=True)
    cases: dict[str, dict[str, Any]] = {
        "is where the sweep's table goes": {"log": Path("out/sweep.csv")},
        "--style-weight is '1:2'": {"style_weight": "1:2"},
        "40000 pictures: take shorter ranges, for at most 10000": {"style_weight": "1:9:200", "tv_weight": "1:9:200"},
        "'relu9_1' is not a layer": {"style_layers": "relu1_1;relu9_1"},
        "has a value twice": {"style_layers": "relu1_1;relu1_1 "},
        "--seeds is 0": {"seeds": 0},
        "--seed is 4294967295: use a whole number from 0 to 4294967294": {"seeds": 2, "seed": 2**32 - 1},
        "--batch-size is 0": {"batch_size": 0},
        "--batch-size and --max-memory both set": {"batch_size": 2, "max_memory": "4GiB"},
        "--max-memory is '4 gigs': use a size": {"max_memory": "4 gigs"},
        "use a size from 256MiB to 1024TiB": {"max_memory": "1MiB"},
        "style.png is a file: name a folder": {"output": Path("style.png")},
        "folders/sweep.csv is a folder": {"output": Path("folders")},
    }
    for message, options in cases.items():
        assert sweep(**options) == 2
        assert message in capsys.readouterr().err

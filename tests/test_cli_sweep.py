"""`jaxstyle sweep` from its options to its files."""

import csv
import re
import signal
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TINY, picture

from jaxstyle import image, pretrained, weights_file
from jaxstyle.cli import main, sweep_round, sweep_session
from jaxstyle.cli.grid import combinations, parse_values
from jaxstyle.cli.options import parse_memory
from jaxstyle.cli.report import Entry, page, read_entry, thinned, write_entry
from jaxstyle.cli.saving import write_log
from jaxstyle.errors import InputError

FIXED = ("--size", 32, "--steps", 3, "--weights", "tiny.h5", "--offline", "--optimizer", "adam")
SHALLOW = ("--content-layers", "relu1_2")


pytestmark = pytest.mark.usefixtures("folder")


def sweep(*options: Any, layers=(*SHALLOW, "--style-layers", "relu1_1"), output="out") -> int:
    fixed = ("sweep", "content.png", "style.png", "-o", output, *FIXED, *layers)
    return main([str(argument) for argument in (*fixed, *options)])


def stylize(*options: Any, layers=(*SHALLOW, "--style-layers", "relu1_1")) -> np.ndarray:
    fixed = ("stylize", "content.png", "style.png", "-o", "alone.png", *FIXED, *layers)
    assert main([str(argument) for argument in (*fixed, *options)]) == 0
    return image.load("alone.png").rgb


def table() -> list[dict[str, str]]:
    with open("out/sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


# Ranges


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("3", [3]),
        ("1,10, 100", [1, 10, 100]),
        ("10:1e4:4", [10, 100, 1000, 10000]),
        ("0:1:3", [0, 0.5, 1]),
        ("8:2:3", [8, 4, 2]),
        ("0,1:4:3", [0, 1, 2, 4]),
    ],
)
def test_ranges_and_lists_are_read(text, values):
    assert parse_values("style-weight", text, least=0) == pytest.approx(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("much", "use a number, numbers with commas, or a range"),
        ("1:2", "use a number, numbers with commas, or a range"),
        ("1:2:3:4", "a range is from:to:count"),
        ("1:2:1", "with 2 values at least"),
        ("1:nan:3", "a range is from:to:count"),
        ("-1:2:3", "both 0 or more"),
        ("2:2:3", "from one number to another"),
        ("1,1", "has a value twice"),
        ("-1", "--style-weight is -1"),
    ],
)
def test_ranges_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_values("style-weight", text, least=0)


def test_lanes_are_all_combinations_and_the_last_option_varies_fastest():
    lanes = combinations({"style-weight": [1, 2], "seed": range(2)})
    assert [tuple(lane.settings.values()) for lane in lanes] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert lanes[3].label == "style-weight 2, seed 1"
    near = combinations({"style-weight": [1.00000001, 1.00000002]})
    assert len({lane.label for lane in near}) == len({lane.name for lane in near}) == 2
    many = combinations({"style-layers": [",".join(f"relu{i}_1:{w}" for i in range(1, 6)) * 3 for w in (0.25, 0.5)]})
    assert len({lane.name for lane in many}) == 2 and all(len(lane.name) < 120 for lane in many)
    assert lanes[3].name == "style-weight=2_seed=1"


@pytest.mark.parametrize(("text", "size"), [("4GiB", 2**32), ("1.5 GB", 1_500_000_000), ("300MiB", 300 * 2**20)])
def test_a_size_of_memory_is_read(text, size):
    assert parse_memory(text) == size


# What a sweep writes


def test_each_picture_is_that_of_stylize_with_its_settings():
    assert sweep("--style-weight", "3:300:2", "--tv-weight", "0,5") == 0
    rows = table()
    assert [(row["style-weight"], row["tv-weight"]) for row in rows] == [
        ("3.0", "0.0"), ("3.0", "5.0"), ("300.0", "0.0"), ("300.0", "5.0")
    ]  # fmt: skip
    for row in (rows[0], rows[3]):
        alone = stylize("--style-weight", row["style-weight"], "--tv-weight", row["tv-weight"])
        np.testing.assert_allclose(image.load(Path("out", row["picture"])).rgb, alone, atol=1.01 / 255)


def test_layer_sets_are_lanes_with_weights_of_zero():
    assert sweep("--style-layers", "relu1_1; relu1_1,relu2_1:3", layers=SHALLOW) == 0
    for row, layers in zip(table(), ("relu1_1", "relu1_1,relu2_1:3"), strict=True):
        alone = stylize("--style-layers", layers, layers=SHALLOW)
        np.testing.assert_allclose(image.load(Path("out", row["picture"])).rgb, alone, atol=1.01 / 255)


def test_seeds_start_from_noise():
    assert sweep("--seeds", 2, "--seed", 5) == 0
    assert [row["seed"] for row in table()] == ["5", "6"]
    for row in table():
        alone = stylize("--init", "noise", "--seed", row["seed"])
        np.testing.assert_allclose(image.load(Path("out", row["picture"])).rgb, alone, atol=1.01 / 255)


def test_a_sweep_of_one_is_a_run():
    assert sweep() == 0
    np.testing.assert_allclose(image.load("out/picture.png").rgb, stylize(), atol=1.01 / 255)


def test_the_sheet_has_a_row_for_each_value_of_the_first_option():
    assert sweep("--style-weight", "1,10", "--tv-weight", "0,1,2") == 0
    height, width, _ = image.load("out/grid.png").rgb.shape
    assert width == 3 * (32 + 4) and height > 2 * 26


def test_the_page_names_pictures_that_are_there_and_fetches_nothing():
    assert sweep("--style-weight", "1,10") == 0
    text = Path("out/index.html").read_text()
    sources = re.findall(r'<img src="([^"]*)"', text)
    assert len(sources) == 2 and all(Path("out", source).is_file() for source in sources)
    assert not re.search(r"https?://|//", text.replace("<!doctype html>", ""))
    assert "style-weight 10" in text and text.count("<polyline") == 2


def test_the_page_escapes_what_it_shows():
    entry = Entry("a#b.png", '<b>"', {"style-layers": "<b>"}, {"total": 1.0, "tv<": 2.0}, (2.0, 1.0), "")
    shown = page([entry], columns=None)
    assert 'src="a%23b.png"' in shown and "&lt;b&gt;&quot;" in shown and "tv&lt;" in shown


def test_a_long_curve_is_thinned_between_its_ends():
    assert thinned([3.0, 2.0, 1.0]) == (3.0, 2.0, 1.0)
    short = thinned([float(i) for i in range(1000)])
    assert len(short) == 120 and short[0] == 0 and short[-1] == 999 and [*short] == sorted(short)


def test_save_every_saves_each_lane_on_the_way():
    assert sweep("--style-weight", "1,10", "--save-every", 2) == 0
    for row in table():
        early = Path("out", row["picture"]).with_suffix("").name + "_0002.png"
        alone = stylize("--style-weight", row["style-weight"], "--save-every", 2)
        saved, expected = image.load(Path("out", early)).rgb, image.load("alone_0002.png").rgb
        np.testing.assert_allclose(saved, expected, atol=1.01 / 255)
        assert np.abs(saved - alone).max() > 2 / 255


def test_the_log_has_every_step_of_every_lane():
    assert sweep("--style-weight", "1,10", "--log", "log.csv") == 0
    with open("log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["style-weight"], row["step"]) for row in rows] == [(w, s) for w in ("1.0", "10.0") for s in "123"]
    stylize("--style-weight", "10", "--log", "alone.csv")
    with open("alone.csv", newline="") as file:
        alone = list(csv.DictReader(file))
    assert set(rows[0]) == {"picture", "style-weight", *alone[0]}
    for mine, its in zip(rows[3:], alone, strict=True):
        assert [float(mine[name]) for name in its] == pytest.approx([float(value) for value in its.values()], rel=1e-4)


def test_a_log_of_other_lanes_begins_anew():
    for weights in ("1,10", "2,20"):
        assert sweep("--style-weight", weights, "--log", "log.csv") == 0
    with open("log.csv", newline="") as file:
        assert [row["style-weight"] for row in csv.DictReader(file)] == [*["2.0"] * 3, *["20.0"] * 3]


def test_what_is_added_to_a_log_is_there_whole_or_not_at_all(folder, monkeypatch):
    path, rows = folder / "log.csv", [{"step": 1, "total": 2.5}, {"step": 2, "total": 1.5}]
    write_log(path, rows[:1], mode="a")
    write_log(path, rows[1:], mode="a")
    before = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    assert before["log.csv"] == b"step,total\r\n1,2.5\r\n2,1.5\r\n"
    monkeypatch.setattr(Path, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        write_log(path, rows, mode="a")
    assert {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()} == before


def killed(path: Path, data: bytes) -> None:
    """Write half of the data."""
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise KeyboardInterrupt


# Going on


def test_a_repeated_sweep_paints_nothing_again(monkeypatch, capsys):
    assert sweep("--style-weight", "1,10") == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    monkeypatch.setattr(sweep_round, "walk", lambda *_, **__: pytest.fail("painted again"))
    capsys.readouterr()
    assert sweep("--style-weight", "1,10") == 0
    assert "2 of 2 pictures are there already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_a_sweep_that_was_stopped_goes_on_where_it_stopped(monkeypatch, capsys):
    real, rounds = sweep_round.walk, []

    def walk(work, shown, **options):
        rounds.append(work.lanes)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        yield from real(work, shown, **options)

    monkeypatch.setattr(sweep_round, "walk", walk)
    options = ("--style-weight", "1,10,100", "--lanes", 1, "--log", "log.csv")
    assert sweep(*options) == 130
    said = capsys.readouterr().err
    assert "Interrupted: repeat the command to go on" in said and "1 of 3 pictures are finished" in said
    assert len(table()) == 1 and Path("out/grid.png").exists()
    assert sweep(*options) == 0
    assert rounds == [1, 1, 1, 1] and len(table()) == 3
    with open("log.csv", newline="") as file:
        assert [row["style-weight"] for row in csv.DictReader(file)] == [*["1.0"] * 3, *["10.0"] * 3, *["100.0"] * 3]


@pytest.mark.parametrize(
    "changed",
    ["--steps 2", "--tv-weight 1", "--init style", "--color match", "--size 33", "--bits 16"],
)
def test_another_setting_paints_again(changed):
    assert sweep("--style-weight", "1,10") == 0
    before = Path("out/style-weight=10.png").read_bytes()
    assert sweep("--style-weight", "1,10", *changed.split()) == 0
    assert Path("out/style-weight=10.png").read_bytes() != before


def test_other_weights_paint_again():
    assert sweep() == 0
    before = Path("out/picture.png").read_bytes()
    params = pretrained.random_params(widths=TINY, seed=2)
    weights_file.write("tiny.h5", params, source="a seed", checksum="none", licence="none")
    assert sweep() == 0
    assert Path("out/picture.png").read_bytes() != before


def test_another_content_paints_again():
    assert sweep() == 0
    image.save("content.png", picture(32, 40, seed=5))
    before = Path("out/picture.png").read_bytes()
    assert sweep() == 0
    assert Path("out/picture.png").read_bytes() != before


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:60])])
def test_a_picture_that_was_lost_or_damaged_is_painted_again(damage, capsys):
    assert sweep("--style-weight", "1,10") == 0
    before = image.load("out/style-weight=10.png").rgb
    damage(Path("out/style-weight=10.png"))
    assert sweep("--style-weight", "1,10") == 0
    assert "1 of 2 pictures are there already" in capsys.readouterr().err
    np.testing.assert_array_equal(image.load("out/style-weight=10.png").rgb, before)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"picture"', ("9" * 401).join(("2.5", "2.5"))])
def test_an_entry_that_is_damaged_is_none(text, folder):
    entry = Entry("a.png", "a", {}, {"total": 2.5}, (2.5,), "")
    write_entry(folder / "a.json", entry)
    assert read_entry(folder / "a.json") == entry
    (folder / "a.json").write_text(text)
    assert read_entry(folder / "a.json") is None


def test_a_longer_range_paints_only_what_is_new(capsys):
    assert sweep("--style-weight", "1,100") == 0
    assert sweep("--style-weight", "1,10,100") == 0
    assert "2 of 3 pictures are there already" in capsys.readouterr().err
    assert [row["picture"] for row in table()] == [f"style-weight={weight}.png" for weight in (1, 10, 100)]


def diverged(place, lane: Any = ...):
    return place._replace(image=place.image.at[lane, 0, 0, 0].set(np.nan))


def test_a_sweep_of_which_nothing_is_finished_leaves_no_page_of_another(monkeypatch, capsys):
    assert sweep("--style-weight", "1,10") == 0
    real = sweep_round.walk
    monkeypatch.setattr(sweep_round, "walk", lambda *all_, **each: map(diverged, real(*all_, **each)))
    capsys.readouterr()
    assert sweep("--style-weight", "2,20") == 1
    said = capsys.readouterr().err
    assert "0 of 2 pictures are finished" in said and "index.html" not in said
    assert not any(Path("out", name).exists() for name in ("index.html", "grid.png", "sweep.csv"))


def test_transparency_and_16_bits_are_each_lanes():
    alpha = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (32, 1))
    image.save("content.png", picture(32, 40, seed=0), alpha=alpha)
    assert sweep("--style-weight", "1,10", "--bits", 16) == 0
    for row in table():
        found = image.load(Path("out", row["picture"]))
        assert found.alpha is not None and found.alpha.std() > 0.2
        assert np.abs(255 * found.rgb - np.rint(255 * found.rgb)).max() > 0.1


def test_a_lane_that_diverges_leaves_the_others(monkeypatch, capsys):
    real = sweep_round.walk
    monkeypatch.setattr(sweep_round, "walk", lambda *all_, **each: map(partial(diverged, lane=1), real(*all_, **each)))
    assert sweep("--style-weight", "1,10,100") == 1
    said, kept = capsys.readouterr().err, "out/style-weight=10.png is as it was after step 2"
    assert f"style-weight 10: the picture is not finite after step 3, so {kept}: lower" in said
    assert [float(row["style-weight"]) for row in table()] == [1, 100]
    monkeypatch.setattr(sweep_round, "walk", real)
    assert sweep("--style-weight", "1,10,100", "--save-every", 2, output="sound") == 0
    sound = image.load("sound/style-weight=10_0002.png").rgb
    np.testing.assert_allclose(image.load("out/style-weight=10.png").rgb, sound, atol=1e-6)


@pytest.mark.slow
def test_a_lane_that_diverges_at_one_scale_leaves_the_others_at_the_next(monkeypatch, capsys):
    real = sweep_round.walk
    monkeypatch.setattr(
        sweep_round,
        "walk",
        lambda *all_, **each: (diverged(at, lane=1) if at.steps > 3 else at for at in real(*all_, **each)),
    )
    monkeypatch.setattr("jaxstyle.cli.work.MOST_STEPS_A_SEGMENT", 1)
    options = ("--style-weight", "1,10", "--scales", 2, "--steps", 9)
    assert sweep(*options) == 1
    kept = "so out/style-weight=10.png is as it was after step 3: lower the weights"
    assert f"style-weight 10: the picture is not finite after step 4, {kept}" in capsys.readouterr().err
    monkeypatch.setattr(sweep_round, "walk", real)
    assert sweep(*options, "--save-every", 3, output="sound") == 0
    for name, sound in {"10": "10_0003", "1": "1"}.items():
        found = (image.load(f"{path}.png").rgb for path in (f"out/style-weight={name}", f"sound/style-weight={sound}"))
        np.testing.assert_allclose(next(found), next(found), atol=1e-6)


def test_a_sweep_that_is_interrupted_saves_its_lanes_as_they_are_and_begins_them_anew(monkeypatch, capsys):
    real = sweep_round.walk

    def walk(*arguments, **options):
        for place in real(*arguments, **options):
            if place.steps == 2:
                signal.raise_signal(signal.SIGINT)
            yield place

    monkeypatch.setattr(sweep_round, "walk", walk)
    monkeypatch.setattr("jaxstyle.cli.work.MOST_STEPS_A_SEGMENT", 1)
    assert sweep("--style-weight", "1,10") == 130
    monkeypatch.setattr(sweep_round, "walk", real)
    assert sweep("--style-weight", "1,10", "--save-every", 2, output="whole") == 0
    for name in ("1", "10"):
        found = image.load(f"out/style-weight={name}.png").rgb
        np.testing.assert_allclose(found, image.load(f"whole/style-weight={name}_0002.png").rgb, atol=1e-6)
    capsys.readouterr()
    assert sweep("--style-weight", "1,10") == 0
    assert "2 of 2 pictures are finished" in capsys.readouterr().err and len(table()) == 2


@pytest.mark.slow
def test_a_lane_that_gets_nowhere_is_told_by_its_label(capsys):
    stuck = ("--optimizer", "lbfgs", "--learning-rate", 5, "--patience", 3, "--steps", 20)
    assert sweep("--style-weight", "1,30", *stuck) == 0
    said = capsys.readouterr().err
    assert re.search("style-weight 30: lbfgs made no progress in 3 steps at 32 pixels after its restart", said)
    assert Path("out/style-weight=30.png").exists()


# Memory


def test_lanes_follow_from_memory_and_are_told(monkeypatch, capsys):
    monkeypatch.setattr(sweep_session, "room_for", lambda memory: 40 * 2**20)

    def needed(program) -> int:
        lanes = jax.tree.leaves(program.args_info)[0].shape[0]
        return 15 * 2**20 * lanes

    monkeypatch.setattr(sweep_session, "memory_of", needed)
    assert sweep("--style-weight", "1,2,3,4,5") == 0
    assert "5 pictures, 2 at a time: 0.0 of 0.0 GiB" in capsys.readouterr().err
    assert len(table()) == 5


def test_memory_for_less_than_one_picture_is_refused(capsys):
    assert sweep("--style-weight", "1,2", "--max-memory", "256MiB") == 2
    assert "--max-memory is 256 MiB, but steps at 32 pixels take" in capsys.readouterr().err


def test_what_a_process_has_taken_counts():
    assert sweep_session.room_for(1) == 0
    assert 0 < sweep_session.room_for(2**40) < 2**40
    assert sweep_session.room_for(None) > 2**20


# Bad input


def test_inputs_in_the_folder_of_a_sweep_survive(capsys):
    Path("out").mkdir()
    for name in ("style-weight=10.png", "style-weight=10_0002.png"):
        Path("style.png").rename(Path("out", name))
        command = ["sweep", "content.png", f"out/{name}", "-o", "out", "--style-weight", "1,10", "--save-every", 2]
        assert main([str(argument) for argument in (*command, *FIXED)]) == 2
        assert name in capsys.readouterr().err
        Path("out", name).rename("style.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--save-every", -1), "--save-every is -1"),
        (("--log", "log.txt"), "The log log.txt has the suffix '.txt'"),
        (("--log", "out/sweep.csv"), "is where the sweep's table goes"),
        (("--style-weight", "1:2"), "--style-weight is '1:2'"),
        (("--style-weight", "1:10:20000"), "a range is from:to:count"),
        (
            ("--style-weight", "1:10:200", "--tv-weight", "1:10:200"),
            "This sweep has 40000 lanes: take shorter ranges, for at most 10000.",
        ),
        (("--style-layers", "relu1_1;relu9_1"), "'relu9_1' is not a layer"),
        (("--seeds", 0), "--seeds is 0"),
        (("--seeds", 2, "--init", "style"), "--seeds starts from noise, but --init is style: drop one"),
        (("--seeds", 2, "--seed", 2**32 - 1), "--seed is 4294967295: use a whole number from 0 to 4294967294"),
        (("--style-layers", "relu1_1;relu1_1 "), "has a value twice"),
        (("--lanes", 0), "--lanes is 0"),
        (("--lanes", 2, "--max-memory", "4GiB"), "--lanes and --max-memory both say"),
        (("--max-memory", "4 gigs"), "--max-memory is '4 gigs': use a size"),
        (("--max-memory", "1MiB"), "use a size from 256MiB to 1024TiB, such as 4GiB."),
        (("-o", "style.png"), "style.png is a file: name a folder"),
        (("--scales", "3000"), "3000 scales are none or too many"),
        (("--blend", "1,2"), "--blend has 2 numbers for 1 styles"),
    ],
)
def test_what_cannot_be_swept_is_one_sentence(options, message, capsys):
    assert sweep(*options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Network: ")]
    assert len(lines) == 1 and message in lines[0]

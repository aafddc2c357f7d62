"""`jaxstyle rerun`: the same computation from a picture's record, differences, and invalid records."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TINY, picture
from quick_commands import run

from jaxstyle.cli import main
from jaxstyle.cli.rerun import Rerun
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.images.load import load_image
from jaxstyle.images.metadata import description_of
from jaxstyle.images.save import save_image
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.runtime import record

SHALLOW = ("--content-layers", "relu1_2", "--style-layers", "relu1_1")
SMALL = ("--size", 32, "--steps", 4, "--weights", "tiny.h5", "--quiet")
QUICK = {"size": 32, "steps": 4, "weights": Path("tiny.h5"), "content_layers": "relu1_2", "style_layers": "relu1_1"}
DIGITS = "9" * 401  # more than a float has


@pytest.fixture(autouse=True)
def inputs(folder) -> None:
    """Write a third picture and a mask."""
    save_image("other.png", picture(32, 32, seed=2))
    save_image("mask.png", np.pad(np.ones((32, 20, 3)), ((0, 0), (0, 20), (0, 0))))


def jaxstyle(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def stylize(**options: Any) -> int:
    return run(Stylize(Path("content.png"), (Path("style.png"),), Path("out.png")), **{**QUICK, **options})


def rerun(name: str, *inputs: str, **options: Any) -> int:
    return run(Rerun(Path(name), inputs=tuple(map(Path, inputs))), **options)


def again(name: str) -> Path:
    return Path(name).with_stem(f"{Path(name).stem}_rerun")


@pytest.fixture(scope="module")
def bytes_of_picture() -> list[bytes]:
    """The bytes of the picture that `painted` writes."""
    return []


@pytest.fixture
def painted(fake_runner, bytes_of_picture) -> str:
    """A picture of stylize and its record, beside its inputs."""
    if not bytes_of_picture:
        assert stylize() == 0
        bytes_of_picture.append(Path("out.png").read_bytes())
        fake_runner.problems.clear()
    Path("out.png").write_bytes(bytes_of_picture[0])
    return "out.png"


# The same computation

COMMANDS = [
    ("stylize", "content.png", "style.png", *SHALLOW, *SMALL, "--seed", 3, "--init", "noise", "--preset", "crowsonkb",
     "--bits", 16, "--save-every", 2, "-o", "out.png"),
    ("stylize", "content.png", "style.png", *SHALLOW, *SMALL, "--init", "other.png", "--optimizer", "adam",
     "--ema-decay", 0.9, "--remat", "--precision", "bfloat16", "--parametrization", "pixels", "-o", "out.webp"),
    ("stylize", "content.png", "style.png", "other.png", *SHALLOW, *SMALL, "--style-weights", "1,2",
     "--statistic", "mean_std", "--tv-weight", 2, "--style-scale", 1.5, "--normalize-gradients", "--scales", 2,
     "--tolerance", 0.1, "-o", "out.jpg"),
    ("stylize", "content.png", "style.png", "other.png", *SHALLOW, *SMALL, "--content-mask", "mask.png",
     "--content-mask", "mask.png", "--style-mask", "all", "--style-mask", "all",
     "--preset", "gatys-paper", "--pooling", "avg", "--patience", 4, "-o", "out.tiff"),
    ("texture", "style.png", "--size", "32x48", "--style-layers", "relu1_1", "--steps", 3, "--seed", 2, "--weights",
     "tiny.h5", "-o", "out.png"),
    ("reconstruct", "content.png", "--layer", "relu1_2", *SMALL, "-o", "out.png"),
    ("sweep", "content.png", "style.png", *SHALLOW, *SMALL, "--style-weight", "1,10,100", "--seeds", 1,
     "--batch-size", 2, "-o", "out"),
    ("batch", "content.png", "--styles", "style.png", *SHALLOW, *SMALL, "-o", "out"),
]  # fmt: skip
OUTPUTS = {"sweep": "out/style-weight=10.png", "batch": "out/content_style.png"}


def of_problem(problem: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return all that a picture depends on: facts, and arrays as NumPy has them."""
    names = ("network", "scales", "color", "steps", "batch_size", "save_every", "style_weights")
    facts = {name: getattr(problem, name) for name in names}
    parts = [problem.params, problem.picture, problem.content, problem.styles, problem.objective, problem.optimizer]
    parts += [problem.content_masks, problem.style_masks]
    keys = [jax.random.key_data(key) for key in (problem.key, problem.noise) if key is not None]
    arrays, structure = jax.tree.flatten([*parts, None if isinstance(problem.start, str) else problem.start, keys])
    start = problem.start if isinstance(problem.start, str) else "picture"
    return {**facts, "structure": structure, "start": start}, [np.asarray(each) for each in arrays]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command[0]} {command[-1]}")
def test_rerun_repeats_the_computation_of_a_picture(command, fake_runner):
    assert jaxstyle(*command) == 0
    [first, *_] = fake_runner.problems
    name = OUTPUTS.get(str(command[0]), str(command[-1]))
    assert rerun(name, ".") == 0
    facts, arrays = of_problem(first)
    facts_again, arrays_again = of_problem(fake_runner.problems[-1])
    assert facts_again == facts
    for one, other in zip(arrays, arrays_again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again(name).read_bytes() == Path(name).read_bytes()


def test_intermediate_pictures_are_computed_again_up_to_their_step(fake_runner):
    assert stylize(save_every=2, steps=5) == 0
    sweep = Sweep(Path("content.png"), (Path("style.png"),), Path("out"))
    assert run(sweep, **QUICK, style_weight="1,10", save_every=3) == 0
    for name in ("out_0002.png", "out/style-weight=10_0003.png"):
        assert rerun(name, ".") == 0
        assert again(name).read_bytes() == Path(name).read_bytes()


def test_a_preview_is_computed_again_by_the_mini_network(fake_runner):
    assert stylize(preview=True, weights=None) == 0
    assert rerun("out.png") == 0
    assert record.read(description_of("out_rerun.png")).network.name == "mini"


def test_inputs_are_found_by_their_contents_whatever_their_names(painted, folder):
    for directory in ("a", "b"):
        (folder / directory).mkdir()
    Path("content.png").rename("a/photograph.jpeg")
    Path("style.png").rename("a/content.png")  # the name of another
    Path("tiny.h5").rename("b/weights.h5")
    assert rerun(painted, "a", "b") == 0


def test_a_record_beside_a_picture_replaces_one_that_was_lost(fake_runner):
    sweep = Sweep(Path("content.png"), (Path("style.png"),), Path("out"))
    assert stylize(record_file=True) == 0
    assert run(sweep, **QUICK, save_every=2, record_file=True) == 0
    rgb = load_image("out.png").rgb
    for name in ("out.png", "out/picture.png", "out/picture_0002.png"):
        save_image(name, load_image(name).rgb)
        assert rerun(name, ".") == 0
    save_image("out.png", rgb, description="A CAMERA")  # the description of another program
    assert rerun("out.png") == 1
    Path("out.json").write_bytes(b"\xff")
    assert rerun("out.png") == 2


def test_the_command_and_its_files_are_shown_before_the_computation(fake_runner, folder, capsys):
    mask = folder / "masks" / "a mask.png"
    mask.parent.mkdir()
    mask.write_bytes(Path("mask.png").read_bytes())
    masks = {"content_mask": (mask,), "style_mask": ("all",)}
    assert stylize(seed=3, steps=4, save_every=2, normalize_gradients=True, **masks) == 0
    fake_runner.on_step = lambda step: shown.append(capsys.readouterr().err)
    shown: list[str] = []
    assert rerun("out.png", ".", str(mask.parent)) == 0
    assert (
        "Repeats: jaxstyle stylize content.png style.png --style-layers relu1_1 --steps 4 --seed 3 --size 32 "
        f"--init content --normalize-gradients --content-mask '{mask}' --style-mask all --content-layers relu1_2 "
        "--save-every 2 --network vgg19 -o out_rerun.png\n"
    ) in shown[0]


def test_a_record_with_an_option_that_has_no_effect_is_repeated(fake_runner):
    assert stylize(optimizer="adam") == 0
    stated, rgb = json.loads(description_of("out.png")), load_image("out.png").rgb
    stated["options"] |= {"patience": 4, "lbfgs_history": 7}  # which an earlier version accepted
    save_image("out.png", rgb, description=json.dumps(stated))
    assert rerun("out.png") == 0


# Differences


def test_differing_versions_are_named(painted, monkeypatch, capsys):
    versions = record.versions()
    monkeypatch.setattr("jaxstyle.runtime.record.versions", lambda: versions | {"jax": "0.99"})
    assert rerun(painted) == 1
    message = capsys.readouterr().err
    assert f"versions.jax: '{versions['jax']}' then, '0.99' now" in message
    assert "out_rerun.png differs from out.png in no pixel" in message


def test_differing_pixels_are_counted(painted, capsys):
    rgb = load_image("out.png").rgb.copy()
    rgb[0, 0] = np.where(rgb[0, 0] > 0.5, rgb[0, 0] - 10 / 255, rgb[0, 0] + 10 / 255)
    save_image("out.png", rgb, description=description_of("out.png"))
    assert rerun(painted) == 1
    assert "out_rerun.png differs from out.png in 3 of 2496 values, by 10 of 255 at most" in capsys.readouterr().err
    save_image("out.png", rgb[:20], description=description_of("out.png"))
    assert rerun(painted) == 1
    assert "out_rerun.png differs from out.png, which is 32x20 pixels" in capsys.readouterr().err


# What cannot be repeated


def refused(capsys, name: str, *inputs: str, saying: str, **options: Any) -> None:
    capsys.readouterr()
    assert rerun(name, *inputs, quiet=True, **options) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxstyle: ") and saying in line and line.endswith(".") and line.isprintable()


def test_files_without_a_record_are_refused(capsys):
    Path("notes.txt").write_text("notes")
    refused(capsys, "content.png", saying="content.png holds no record of a run: name a picture that")
    refused(capsys, "notes.txt", saying="notes.txt holds no record of a run")
    refused(capsys, "missing.png", saying="missing.png cannot be read (No such file or directory)")
    refused(capsys, "out.json", saying="out.json is a record and no picture")


def test_outputs_that_cannot_be_written_are_refused_before_the_computation(fake_runner, capsys):
    assert stylize(bits=16) == 0
    fake_runner.problems.clear()
    for output, saying in {
        "again.jpg": "again.jpg cannot hold 16 bits per channel as JPEG",
        "out.png": "out.png is the same file as the input out.png",
        "content.png": "content.png is the same file as the input ",
        "none/out.png": "needs a folder",
    }.items():
        refused(capsys, "out.png", output=Path(output), saying=saying)
    assert fake_runner.problems == []


def test_missing_inputs_and_networks_are_named(painted, capsys):
    weights_io.write("other.h5", random_params(widths=TINY, seed=2), source="", checksum="none", licence="none")
    Path("tiny.h5").rename("tiny.bin")
    refused(capsys, painted, weights=Path("other.h5"), saying="out.png was made by a vgg19 of SHA-256 ")
    refused(capsys, painted, offline=True, saying="VGG-19's weights are not installed")
    refused(capsys, painted, "missing", saying="missing cannot be used (No such file or directory)")
    save_image("style.png", picture(36, 32, seed=9))
    refused(capsys, painted, saying="was made from style.png, and no file in . has the same bytes: name the folder")


def test_an_untrusted_record_is_data_and_names_no_path(painted, capsys, fake_runner):
    files: dict[str, Any] = {"content": 0, "styles": [1]}
    original, rgb = json.loads(description_of(painted)), load_image(painted).rgb
    for saying, changes in [
        ("holds no record of a picture", {"command": "rm"}),
        ("holds no record of a picture", {"steps": 0}),
        ("was made by an unknown network", {"network": {"name": "/etc/passwd", "file": "", "sha256": ""}}),
        ("with options that stylize does not take", {"options": files | {"content": "/etc/passwd"}}),
        ("2 is no Path): use the version that made it", {"options": files | {"styles": [2]}}),
        ("with options that stylize does not take", {"options": files | {"init": "/etc/passwd"}}),
        ("does not take", {"options": files | {"log": "/tmp/log.csv"}}),
        ("over Pillow's limit", {"options": files | {"size": 10**9}}),
        ("is unknown", {"options": files | {"preset": "\x1b[2J"}}),
        ("with options that stylize does not take", {"options": files | {"bits": 7}}),
        ("This sweep has no picture 0", {"command": "sweep", "options": files, "batch": [4]}),
        ("..., each of them once", {"command": "sweep", "options": files, "batch": [0] * 3000}),
        ("out.png holds no record of a run (99", {"weights": {"tv": int(DIGITS)}}),
        ("9...: use a whole number from 16 to", {"options": files | {"size": int(DIGITS)}}),
        ("--steps is 3000000000: use a whole", {"options": files | {"steps": 3 * 10**9}}),
        ("does not take (99", {"options": files | {"tv_weight": int(DIGITS)}}),
        ("9...: use a whole", {"options": files | {"feather": int(DIGITS)}}),
        ("that made it, xxx", {"options": files | {"styles": [9]}, "versions": {"jaxstyle": "x" * 5000}}),
    ]:
        save_image(painted, rgb, description=json.dumps(original | changes))
        refused(capsys, painted, saying=saying)
    assert not Path("out_rerun.png").exists() and fake_runner.problems == []


def test_a_record_does_not_choose_where_to_write(painted, folder):
    stated = json.loads(description_of(painted))
    stated["options"] |= {"saving": {"record": True, "log": 0}, "output": 0, "network": {"weights": 0}}
    save_image(painted, load_image(painted).rgb, description=json.dumps(stated))
    shutil.rmtree("cache", ignore_errors=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert rerun(painted) == 2
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before

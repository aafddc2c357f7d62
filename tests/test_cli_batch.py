"""`jaxstyle batch`, `texture` and `reconstruct` from their options to their files."""

from pathlib import Path
from threading import Event as Flag
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TINY, picture
from quick_commands import run

from jaxstyle.cli import main
from jaxstyle.cli.batch import Batch
from jaxstyle.cli.reconstruct import Reconstruct
from jaxstyle.cli.texture import Texture
from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.images.save import save_image
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.runtime.batch import BatchRecord
from jaxstyle.runtime.callbacks import Event
from jaxstyle.runtime.inputs import expand_paths
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.run import Run
from jaxstyle.transfer import presets
from jaxstyle.transfer.schedule import Scale

QUICK = {"size": 32, "steps": 2, "weights": Path("tiny.h5"), "optimizer": "adam", "content_layers": "relu1_2"}
QUICK |= {"style_layers": "relu1_1"}
NETWORK = ("--weights", "tiny.h5", "--offline", "--steps", 2)
PAIRS = {"a_x.png", "a_y.png", "b_x.png", "b_y.png"}


@pytest.fixture(autouse=True)
def folders(folder) -> None:
    """Write two contents and two styles."""
    shapes = {"contents/a": (32, 40), "contents/b": (40, 32), "styles/x": (36, 32), "styles/y": (32, 32)}
    for name, shape in shapes.items():
        Path(name).parent.mkdir(exist_ok=True)
        save_image(f"{name}.png", picture(*shape, seed=len(name) + sum(shape)))


def jaxstyle(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def batch(**options: Any) -> int:
    return run(Batch((Path("contents"),), (Path("styles"),), Path("out")), **{**QUICK, **options})


def made() -> set[str]:
    return {path.name for path in Path("out").iterdir() if path.suffix != ".json"}


# Pairs


def test_files_folders_and_patterns_name_the_same_pictures():
    pictures = [Path("contents/a.png"), Path("contents/b.png")]
    for paths in ([Path("contents")], [Path("contents/*.png")], pictures):
        assert expand_paths(paths) == pictures
        assert len(expand_paths(paths, besides={pictures[0].resolve()})) == (2 if paths is pictures else 1)
    Path("empty").mkdir()
    for path, message in {
        "nothing*.png": r"No file matches nothing\*.png",
        "empty": "The folder empty has no",
    }.items():
        with pytest.raises(InputError, match=message):
            expand_paths([Path(path)])


def test_every_pair_is_a_picture_of_its_content_and_style(fake_runner):
    assert jaxstyle("batch", "contents", "--styles", "styles", "-o", "out", *NETWORK, "--size", 32) == 0
    assert made() == PAIRS
    shapes = [(problem.content.shape[:2], problem.styles[0].shape[:2]) for problem in fake_runner.problems]
    x, y, wide, high = (32, 28), (32, 32), (26, 32), (32, 26)
    assert shapes == [(wide, x), (high, x), (wide, y), (high, y)]  # those of one style after each other


def test_zipped_contents_have_one_style_each(fake_runner):
    assert batch(zip=True, format="jpg") == 0
    assert made() == {"a_x.jpg", "b_y.jpg"}


def test_pictures_share_programs(fake_runner):
    save_image("contents/c.png", picture(32, 40, seed=9))
    assert batch() == 0
    assert len(fake_runner.problems) == 6 and len({id(problem.compiled) for problem in fake_runner.problems}) == 1


def test_contents_of_one_size_follow_each_other_and_the_programs_are_counted(fake_runner, capsys):
    for name in "cde":
        save_image(f"contents/{name}.png", picture(*((32, 40) if name == "d" else (40, 32)), seed=0))
    assert batch() == 0
    shapes = [problem.content.shape[:2] for problem in fake_runner.problems[:5]]
    assert shapes == sorted(shapes, key=shapes.index) and len(set(shapes)) == 2
    assert "10 pictures with 2 different programs of steps" in capsys.readouterr().err


def test_the_next_picture_is_loaded_and_its_programs_are_compiled_beside_the_steps(fake_runner, monkeypatch):
    ahead: list[tuple[int, ...]] = []
    compiled = Flag()

    def compile_ahead(problem: Problem, number: int) -> None:
        ahead.append((number, *problem.content.shape[:2]))
        compiled.set()
        raise MemoryError  # is no error of the batch

    def on_step(step: int) -> None:
        if step == 2 and len(fake_runner.problems) < 4:
            assert compiled.wait(10)
            compiled.clear()

    monkeypatch.setattr(Problem, "compile_ahead", compile_ahead)
    fake_runner.on_step = on_step
    assert batch() == 0
    assert ahead == [(0, *problem.content.shape[:2]) for problem in fake_runner.problems[1:]]
    fake_runner.on_step = lambda step: None
    assert batch(max_memory="4GiB", style_weight=1) == 0 and len(ahead) == 3  # memory is for one picture


def test_programs_are_dropped_beyond_a_limit(fake_runner, monkeypatch):
    dropped = []
    monkeypatch.setattr("jaxstyle.runtime.batch.MOST_PROGRAMS", 1)
    monkeypatch.setattr(jax, "clear_caches", lambda: dropped.append(len(fake_runner.problems)))
    program: Any = None
    fake_runner.on_step = lambda step: fake_runner.problems[-1].compiled.update({(step, "program"): program})
    assert batch() == 0
    assert dropped == [2, 3]
    assert batch(max_memory="4GiB", style_weight=1) == 0
    assert dropped == [2, 3, 5, 6, 7]


@pytest.mark.slow
def test_pictures_of_a_batch_share_programs_by_shape_and_rerun_has_their_bytes(monkeypatch):
    save_image("contents/c.png", picture(32, 40, seed=9))
    programs: dict[int, Any] = {}
    program = Problem.program

    def counted(*arguments: Any, **options: Any) -> Any:
        result = program(*arguments, **options)
        programs[id(result)] = result
        return result

    monkeypatch.setattr(Problem, "program", counted)
    options = ("--size", 32, "--content-layers", "relu1_2", "--style-layers", "relu1_1", "--optimizer", "adam")
    assert jaxstyle("batch", "contents", "--styles", "styles", "-o", "out", *options, *NETWORK) == 0
    assert len(programs) == 2 and made() == PAIRS | {"c_x.png", "c_y.png"}
    assert jaxstyle("rerun", "out/b_x.png", "--inputs", "contents", "styles", ".") == 0
    assert Path("out/b_x_rerun.png").read_bytes() == Path("out/b_x.png").read_bytes()


# Repeating a command


def test_a_damaged_record_of_a_batch_is_skipped_with_a_warning():
    Path("out").mkdir()
    damaged = ("[" * 100_000, '{"a.png"', '{"a.png": 0}', "[[1, 2]]")
    for text, done in {'{"a.png": "00"}': {"a.png": "00"}, **dict.fromkeys(damaged, {})}.items():
        Path("out/batch.json").write_text(text)
        events: list[Event] = []
        assert BatchRecord(Path("out")).read([lambda event, _, events=events: events.append(event)]) == done
        assert [(event.kind, "out/batch.json" in event.message) for event in events] == [("warning", True)] * (not done)
    BatchRecord(Path("out")).write({"b.png": "01"}, process=2)
    Path("out/batch.json").write_text('{"a.png": "00"}')
    assert BatchRecord(Path("out")).read() == {"a.png": "00", "b.png": "01"}


def test_a_repeated_batch_computes_what_is_missing_or_changed(fake_runner, capsys, folder, monkeypatch):
    assert batch() == 0
    assert batch(output=folder / "out") == 0  # the same folder by another name
    assert "0 made, 4 skipped as finished" in capsys.readouterr().err
    save_image("contents/a.png", picture(32, 40, seed=9))
    Path("out/b_y.png").unlink()
    assert batch() == 0
    assert "3 made, 1 skipped as finished" in capsys.readouterr().err
    weights_io.write("tiny.h5", random_params(widths=TINY, seed=2), source="", checksum="none", licence="none")
    assert batch() == 0
    assert "4 made, 0 skipped as finished" in capsys.readouterr().err
    monkeypatch.setattr("jaxstyle.runtime.batch.plan", lambda *size, **options: (Scale(8, 8, 1),))  # another version
    assert batch() == 0
    assert "4 made, 0 skipped as finished" in capsys.readouterr().err


def test_an_interrupted_batch_continues(fake_runner, capsys):
    def interrupt(step: int) -> None:
        if len(fake_runner.problems) == 2:
            raise KeyboardInterrupt

    fake_runner.on_step = interrupt
    assert batch() == 130
    message = capsys.readouterr().err
    assert "1 made, 0 skipped as finished" in message and "rerun the same command to resume" in message
    assert batch() == 0
    assert "3 made, 1 skipped as finished" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["save_picture", "save_record"])
def test_an_interruption_around_the_saving_of_a_picture_repeats_only_this_picture(
    fake_runner, capsys, monkeypatch, method
):
    def interrupt(run: Run, *arguments: Any) -> None:
        if len(fake_runner.problems) == 2:
            raise KeyboardInterrupt
        original(run, *arguments)

    original = getattr(Run, method)
    with monkeypatch.context() as patch:
        patch.setattr(Run, method, interrupt)
        assert batch() == 130
    assert "1 made, 0 skipped as finished" in capsys.readouterr().err
    assert batch() == 0
    assert "3 made, 1 skipped as finished" in capsys.readouterr().err


def test_a_picture_whose_replacement_was_not_saved_is_computed_again(fake_runner, capsys, monkeypatch):
    def interrupt(run: Run, *arguments: Any) -> None:
        raise KeyboardInterrupt

    assert batch() == 0
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_picture", interrupt)
        assert batch(style_weight=500) == 130
    capsys.readouterr()
    assert batch(style_weight=500) == 0
    assert "4 made, 0 skipped as finished" in capsys.readouterr().err


def test_a_picture_whose_replacement_was_interrupted_is_computed_again(fake_runner, monkeypatch, capsys):
    assert batch() == 0
    before = Path("out/a_x.png").read_bytes()
    with monkeypatch.context() as patch:
        fake_runner.replace_iterate(patch, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert batch(style_weight=500) == 130
    Path("out/a_x.png").write_bytes(Path("out/a_y.png").read_bytes())
    capsys.readouterr()
    assert batch() == 0
    assert "1 made, 3 skipped as finished" in capsys.readouterr().err
    assert Path("out/a_x.png").read_bytes() == before


def test_the_output_folder_may_be_that_of_the_contents(fake_runner, capsys, monkeypatch):
    for _ in range(2):
        assert batch(output=Path("contents")) == 0
    assert "0 made, 4 skipped as finished" in capsys.readouterr().err

    def interrupt(run: Run, *arguments: Any) -> None:
        original(run, *arguments)
        raise KeyboardInterrupt

    original = Run.save_picture
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_picture", interrupt)
        assert batch(output=Path("contents"), format="jpg") == 130
    assert batch(output=Path("contents"), format="jpg") == 0  # the saved picture is not another content


# Faults


def test_an_invalid_picture_is_reported_and_left_out(fake_runner, capsys):
    Path("contents/bad.png").write_text("no picture")
    assert batch() == 1
    message = capsys.readouterr().err
    assert message.count("failed: contents/bad.png is not a picture") == 2
    assert "4 made, 0 skipped as finished, 2 failed" in message and made() == PAIRS


def test_a_picture_without_enough_memory_is_left_out(fake_runner, capsys):
    def exhaust(step: int) -> None:
        if len(fake_runner.problems) == 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    fake_runner.on_step = exhaust
    assert batch() == 1
    message = capsys.readouterr().err
    assert "failed: memory is too small" in message and "3 made, 0 skipped as finished, 1 failed" in message


def test_an_input_of_another_pair_is_not_replaced(capsys):
    save_image("contents/a_x.png", picture(32, 40, seed=9))
    before = Path("contents/a_x.png").read_bytes()
    assert batch(output=Path("contents")) == 2
    assert "contents/a_x.png is an input that would be replaced" in capsys.readouterr().err
    assert Path("contents/a_x.png").read_bytes() == before


def test_options_that_do_not_fit_a_batch_are_refused(capsys):
    x = Path("styles/x.png")
    cases: dict[str, dict[str, Any]] = {
        "--zip pairs 2 contents with 1 styles": {"zip": True, "styles": (x,)},
        "No file matches nothing*.png": {"styles": (Path("nothing*.png"),)},
        "There is no content or no style": {"styles": ()},
        "Two pictures would be called a_x.png": {"styles": (x, Path("styles/../styles/x.png"))},
        "tiny.h5 is a file": {"output": Path("tiny.h5")},
        "--init typo does not exist": {"init": Path("typo")},
        "cannot hold 16 bits per channel as JPEG": {"bits": 16, "format": "jpg"},
    }
    for message, options in cases.items():
        assert batch(**options) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


# Textures and reconstructions


def test_a_texture_starts_from_noise_and_has_no_content(fake_runner):
    options = ("--size", "48x64", "--tileable", "--style-weights", "1,2", "--style-layers", "relu1_1", "--seed", 3)
    assert jaxstyle("texture", "styles/x.png", "styles/y.png", "-o", "out.png", *options, *NETWORK) == 0
    [problem] = fake_runner.problems
    assert problem.start == "noise" and problem.content.shape == (48, 64, 3)
    assert problem.style_weights == [1 / 3, 2 / 3] and problem.steps == 2
    np.testing.assert_array_equal(jax.random.key_data(problem.key), jax.random.key_data(jax.random.key(3)))
    assert problem.network.padding == "circular"
    for style, name in zip(problem.styles, "xy", strict=True):
        np.testing.assert_array_equal(style, load_image(f"styles/{name}.png").rgb)
    assert problem.objective == presets.preset("jaxstyle").make_objective({}, {"relu1_1": 1.0})
    assert problem.objective.content == {}
    assert run(Texture((Path("styles/x.png"),), Path("out.png")), size="40", steps=2, weights=Path("tiny.h5")) == 0
    assert load_image("out.png").rgb.shape == (40, 40, 3) and fake_runner.problems[-1].network.padding == "zeros"


def test_a_reconstruction_weights_content_or_style_layers(fake_runner):
    preset = presets.preset("jaxstyle")
    for options, content, style in (
        ({"layer": "relu1_2:2,relu2_1"}, {"relu1_2": 2.0, "relu2_1": 1.0}, {}),
        ({}, {"relu4_2": 1.0}, {}),
        ({"style_layers": "relu1_1,relu2_1"}, {}, {"relu1_1": 1.0, "relu2_1": 1.0}),
    ):
        command = Reconstruct(Path("contents/a.png"), Path("out.png"))
        assert run(command, size=32, steps=2, weights=Path("tiny.h5"), **options) == 0
        problem = fake_runner.problems[-1]
        assert problem.objective == preset.make_objective(content, style)
        assert (problem.objective.content_layers, problem.objective.style_layers) == (tuple(content), tuple(style))
        assert problem.start == "noise" and problem.steps == 2
        for each in (problem.content, *problem.styles):
            np.testing.assert_array_equal(each, load_image("contents/a.png", size=32).rgb)


@pytest.mark.slow
@pytest.mark.soak(long=True)
def test_rerun_has_the_bytes_of_a_texture():
    options = ("--size", "32x48", "--tileable", "--style-weights", "1,2", "--style-layers", "relu1_1")
    assert jaxstyle("texture", "styles/x.png", "styles/y.png", "-o", "out.png", *options, *NETWORK) == 0
    assert jaxstyle("rerun", "out.png", "--inputs", "styles", ".") == 0
    assert Path("out_rerun.png").read_bytes() == Path("out.png").read_bytes()


def test_invalid_options_of_textures_and_reconstructions_are_refused(capsys):
    x, a, missing = Path("styles/x.png"), Path("contents/a.png"), Path("missing.png")
    cases: list[tuple[type[Texture] | type[Reconstruct], dict[str, Any], str]] = [
        (Texture, {"size": "big"}, "--size is 'big': use height x width"),
        (Texture, {"size": "8x64"}, "both sides must be at least 16"),
        (Texture, {"size": "50x64", "tileable": True}, "which does not tile: use multiples of 16, such as 48x64"),
        (Texture, {"style_weights": "1,2"}, "--style-weights has 2 numbers for 1 styles"),
        (Texture, {"styles": ()}, "There is no style"),
        (Texture, {"styles": (Path("styles.h5"),)}, "A texture needs style images"),
        (Texture, {"size": "20000x20000"}, "--size is 20000x20000, over"),
        (Texture, {"seed": 2**32}, "--seed is 4294967296"),
        (Texture, {"styles": (missing,)}, "missing.png cannot be read"),
        (Reconstruct, {"layer": "relu4_2:0"}, "All layers have the weight 0"),
        (Reconstruct, {"layer": ""}, "is not a layer"),
        (Reconstruct, {"layer": "relu9_1"}, "'relu9_1' is not a layer"),
        (Reconstruct, {"layer": "relu1_1", "style_layers": "relu1_1"}, "drop one"),
        (Reconstruct, {"image": missing}, "missing.png cannot be read"),
    ]
    commands = {Texture: Texture((x,), Path("out.png")), Reconstruct: Reconstruct(a, Path("out.png"))}
    for kind, options, message in cases:
        assert run(commands[kind], **options, weights=Path("tiny.h5")) == 2, message
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("jaxstyle: ") and message in line

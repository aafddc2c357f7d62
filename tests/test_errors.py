"""Errors of the command line: options that are out of range or contradict each other, and failures of the system."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jaxstyle import errors
from jaxstyle.cli.batch import Batch
from jaxstyle.cli.reconstruct import Reconstruct
from jaxstyle.cli.rerun import Rerun
from jaxstyle.cli.statistics import Statistics
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.cli.texture import Texture
from jaxstyle.errors import InputError

CONTENT, STYLE, OUTPUT = Path("content.png"), Path("style.png"), Path("out.png")
STYLIZE = Stylize(CONTENT, (STYLE,), OUTPUT)
SWEEP = Sweep(CONTENT, (STYLE,), Path("out"))
TEXTURE = Texture((STYLE,), OUTPUT)
RECONSTRUCT = Reconstruct(CONTENT, OUTPUT)
BATCH = Batch((CONTENT,), (STYLE,), Path("out"))
STATISTICS = Statistics((STYLE,), Path("out.h5"))
RERUN = Rerun(STYLE)
DIGITS = int("9" * 401)  # more than a float has
LONG = "x" * 5000


def with_options(command: Any, options: dict[str, Any]) -> Any:
    """Return a command with options changed, whichever group they are in; their names are those of `--help`."""
    changes = {}
    for field in fields(command):
        value = getattr(command, field.name)
        name = field.name.replace("_", "-")
        if name in options and not is_dataclass(value):
            changes[field.name] = options[name]
        elif is_dataclass(value):
            changes[field.name] = with_options(value, options)
    return replace(command, **changes)


def refusal(command: Any, **options: Any) -> str:
    """Return the error of a command that is run in-process, without its arguments being parsed."""
    options = {name.replace("_", "-"): value for name, value in options.items()}
    changed = with_options(command, options)
    assert changed != command or not options
    with pytest.raises(InputError) as caught:
        changed.run()
    sentence = str(caught.value)
    assert sentence.isprintable() and sentence.endswith(".") and len(sentence) < 300, sentence
    return sentence


@pytest.fixture(autouse=True)
def pictures(folder):
    """Run every test in a folder with two pictures and a tiny network."""


OUT_OF_RANGE: list[tuple[Any, str, Any, str]] = [
    (STYLIZE, "save_every", DIGITS, "from 0 to 1000000000"),
    (STYLIZE, "steps", 3_000_000_000, "from 1 to 1000000000"),
    (STYLIZE, "size", DIGITS, "from 16 to 1000000000"),
    (STYLIZE, "style_size", 15, "from 16 to 1000000000"),
    (STYLIZE, "seed", 2**32, "from 0 to 4294967295"),
    (STYLIZE, "feather", 1001, "from 0 to 1000"),
    (STYLIZE, "lbfgs_history", 10**20, "from 1 to 1000000000"),
    (STYLIZE, "patience", 99_999_999_999, "from 0 to 1000000000"),
    (STYLIZE, "style_weight", 1.1e30, "from 0 to 1e+30"),
    (SWEEP, "batch_size", DIGITS, "from 1 to 10000"),
    (SWEEP, "max_memory", "9" * 300, "from 256MiB to 1024TiB"),
    (TEXTURE, "style_size", DIGITS, "from 16 to 1000000000"),
    (TEXTURE, "steps", 0, "from 1 to 1000000000"),
    (RECONSTRUCT, "size", DIGITS, "from 16 to 1000000000"),
    (BATCH, "size", 15, "from 16 to 1000000000"),
    (STATISTICS, "size", 15, "from 16 to 100000"),
    *((each, "max_pixels", "500KP", "from 1MP to 4GP") for each in (STYLIZE, SWEEP, TEXTURE, RECONSTRUCT)),
    *((each, "max_pixels", "500KP", "from 1MP to 4GP") for each in (BATCH, STATISTICS, RERUN)),
]

UNUSABLE: list[tuple[Any, dict[str, Any], str]] = [
    (STYLIZE, {"styles": ()}, "no style"),
    (SWEEP, {"styles": ()}, "no style"),
    (TEXTURE, {"styles": ()}, "no style"),
    (STATISTICS, {"styles": ()}, "no style"),
    (BATCH, {"contents": ()}, "no content or no style"),
    (BATCH, {"styles": ()}, "no content or no style"),
    (BATCH, {"contents": (CONTENT, STYLE), "zip": True}, "--zip pairs 2 contents with 1 styles"),
    (BATCH, {"init": Path("none.png")}, "--init none.png"),
    (STYLIZE, {"every": 0, "checkpoint": Path("kept")}, "--every is 0: from 1 to 1000000000"),
    (STYLIZE, {"learning_rate": 1e39}, "learning_rate is 1e+39: 1e38"),
    (TEXTURE, {"style_weights": "1e31"}, "--style-weights is '1e31'"),
    (TEXTURE, {"size": "9" * 401}, "--size 999 512x768"),
    (TEXTURE, {"size": "20000x20000"}, "--size is 20000x20000, limit of 89478485 --max-pixels 400MP"),
    (TEXTURE, {"size": "20000x20000", "max_pixels": "300MP"}, "limit of 300000000 --max-pixels 400MP"),
    (TEXTURE, {"size": "100000x100000"}, "--size is 100000x100000, limit of 89478485"),
    (STYLIZE, {"style_weights": "1", "content_mask": (STYLE,)}, "--style-weights --content-mask"),
    (STYLIZE, {"style_mask": ("all", "all")}, "--style-mask 2 1"),
    (STYLIZE, {"style_size": 32, "style_scale": 2.0}, "--style-scale --style-size"),
    (STYLIZE, {"every": 5}, "--every 5 --checkpoint"),
    (STYLIZE, {"preview": True, "network": "random"}, "--preview --network random"),
    (RECONSTRUCT, {"layer": "relu1_1", "style_layers": "relu1_1"}, "--layer --style-layers"),
    (STYLIZE, {"preset": LONG}, "xxx gatys-paper"),
    (STYLIZE, {"init": Path(LONG)}, "--init xxx"),
    (STYLIZE, {"style_layers": LONG}, "xxx layer"),
    (STYLIZE, {"scales": "9" * 401, "weights": Path("tiny.h5"), "quiet": True}, "999 scales 1 to 30"),
    (STYLIZE, {"scales": "3," * 3000 + "3", "weights": Path("tiny.h5"), "quiet": True}, "3, do not rise 512"),
]


def test_a_number_out_of_range_is_refused_with_its_option_and_limits():
    for command, option, value, limits in OUT_OF_RANGE:
        sentence = refusal(command, **{option: value})
        name = f"--{option.replace('_', '-')}"
        assert name in sentence and limits in sentence and str(value)[:40] in sentence, (name, value, sentence)


def test_unusable_options_are_refused_with_their_names_and_values():
    for command, options, mentioned in UNUSABLE:
        sentence = refusal(command, **options)
        assert all(word in sentence for word in mentioned.split()), (mentioned, sentence)


def test_a_refused_option_ends_the_command_with_status_2(refused):
    status, sentence = refused("stylize", "content.png", "style.png", "-o", "out.png", "--steps", 0)
    assert status == 2 and "--steps is 0" in sentence


def test_control_characters_of_a_file_name_are_escaped_in_errors(refused):
    status, sentence = refused("stylize", "a\x1b[31m\n.png", "\udce9.png", "-o", "out.png")
    assert status == 2 and sentence.startswith(r"a\x1b[31m\n.png ")
    assert str(errors.UnavailableError("\udce9\u2028é")) == r"\udce9\u2028é"


def test_failures_of_the_system_end_a_command_with_status_1(refused, monkeypatch):
    for error, mentioned in [
        (MemoryError(), "MemoryError --remat --size --batch-size"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 bytes.\n..."), "RESOURCE_EXHAUSTED: 9 bytes --remat"),
        (errors.UnavailableError("There is no connection: plug it in."), "There is no connection: plug it in."),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
    ]:
        monkeypatch.setattr(Stylize, "run", lambda _, error=error: (_ for _ in ()).throw(error))
        status, sentence = refused("stylize", "content.png", "style.png", "-o", "out.png")
        assert status == 1 and all(word in sentence for word in mentioned.split()), sentence


def test_a_fault_of_the_program_is_raised(refused, monkeypatch):
    monkeypatch.setattr(Stylize, "run", lambda _: (_ for _ in ()).throw(ValueError("a fault")))
    with pytest.raises(ValueError, match="a fault"):
        refused("stylize", "content.png", "style.png", "-o", "out.png")

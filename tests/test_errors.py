"""What the command line says and returns where options cannot be; and that every sentence of an error has a test."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from jaxstyle import errors
from jaxstyle.cli.stylize import Stylize

ROOT = Path(__file__).parents[1]
STYLIZE = "stylize content.png style.png -o out.png --size 32 --steps 1 --quiet --weights tiny.h5"
SWEEP = "sweep content.png style.png -o out --size 32 --steps 1 --quiet --weights tiny.h5"
DIGITS = "9" * 401  # more than a float has
RAISED = ("InputError", "UnavailableError", "type(error)")


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        # pictures
        ("stylize content.png -o out.png", "There is no style: name at least one picture after the content."),
        ("sweep content.png -o out", "There is no style: name at least one picture after the content."),
        ("texture -o out.png", "There is no style: name at least one picture."),
        ("statistics -o style.h5", "There is no style: name at least one picture or folder."),
        ("batch --styles style.png -o out", "There is no content or no style: name at least one of each."),
        ("batch content.png --styles -o out", "There is no content or no style: name at least one of each."),
        (
            "batch content.png style.png --styles style.png --zip -o out",
            "--zip pairs 2 contents with 1 styles: name as many.",
        ),
        ("batch content.png --styles style.png --init none.png -o out", "--init none.png is no file: use content,"),
        # weights of styles, and where they go
        (f"{STYLIZE} --blend 1,2", "--blend has 2 numbers for 1 styles: give one for each."),
        ("texture style.png -o out.png --blend 1e31", "--blend is '1e31': use finite numbers that are 0 or more."),
        (f"{STYLIZE} --blend 1 --content-mask style.png", "--blend mixes styles and --content-mask keeps them apart"),
        (
            f"{STYLIZE} --style-mask all --style-mask all",
            "--style-mask is there 2 times for 1 styles: give one mask for each.",
        ),
        (f"{STYLIZE} --style-size 32 --style-scale 2", "--style-scale and --style-size both say how large the style"),
        # ranges
        (f"{SWEEP} --style-weight many", "--style-weight is 'many': use a number, numbers with commas, or a range"),
        (f"{SWEEP} --style-weight 1:2", "--style-weight is '1:2': use a number, numbers with commas, or a range"),
        (f"{SWEEP} --style-weight 5:5:3", "--style-weight is '5:5:3': a range goes from one number to another"),
        (f"{SWEEP} --style-weight 1:inf:3", "a range is from:to:count, such as 10:1000:5, with 2 values at least."),
        (f"{STYLIZE} --every 0 --checkpoint kept", "--every is 0: use a whole number from 1 to 1000000000."),
        (f"{STYLIZE} --every {DIGITS} --checkpoint kept", "9...: use a whole number from 1 to 1000000000."),
        (f"{STYLIZE} --save-every {DIGITS}", "9...: use a whole number from 0 to 1000000000."),
        (f"{STYLIZE} --steps 3000000000", "--steps is 3000000000: use a whole number from 1 to 1000000000."),
        (f"{STYLIZE} --size {DIGITS}", "9...: use a whole number from 16 to 1000000000."),
        (f"{STYLIZE} --style-size {DIGITS}", "9...: use a whole number from 16 to 1000000000."),
        (f"{STYLIZE} --feather {DIGITS}", "9...: use a whole number from 0 to 1000."),
        (f"{STYLIZE} --memory {10**20}", f"--memory is {10**20}: use a whole number from 1 to 1000000000."),
        (f"{STYLIZE} --patience 99999999999", "--patience is 99999999999: use a whole number from 0 to 1000000000."),
        (f"{STYLIZE} --learning-rate 1e39", "learning_rate is 1e+39: use a positive number below 1e38."),
        (f"{SWEEP} --lanes {DIGITS}", "9...: use a whole number from 1 to 10000."),
        (f"{SWEEP} --max-memory {DIGITS[:300]}", "9...: use a size from 256MiB to 1024TiB, such as 4GiB."),
        (f"texture style.png -o out.png --style-size {DIGITS}", "9...: use a whole number from 16 to 1000000000."),
        (f"texture style.png -o out.png --steps {DIGITS}", "9...: use a whole number from 1 to 1000000000."),
        (f"reconstruct content.png -o out.png --size {DIGITS}", "9...: use a whole number from 16 to 1000000000."),
        (f"batch content.png --styles style.png -o out --size {DIGITS}", "9...: use a whole number from 16 to"),
        (
            f"{STYLIZE} --max-pixels many",
            "--max-pixels is 'many': use a number of pixels from 1MP to 4GP, such as 500MP.",
        ),
        (
            f"{STYLIZE} --max-pixels 5GP",
            "--max-pixels is '5GP': use a number of pixels from 1MP to 4GP, such as 500MP.",
        ),
        (f"{SWEEP} --max-pixels 500KP", "--max-pixels is '500KP': use a number of pixels"),
        ("batch content.png --styles style.png -o out --max-pixels 1", "--max-pixels is '1': use a number of pixels"),
        ("texture style.png -o out.png --max-pixels MP", "--max-pixels is 'MP': use a number of pixels"),
        ("reconstruct content.png -o out.png --max-pixels nan", "--max-pixels is 'nan': use a number of pixels"),
        ("statistics style.png -o out.h5 --max-pixels inf", "--max-pixels is 'inf': use a number of pixels"),
        ("rerun style.png -o out.png --max-pixels -1MP", "--max-pixels is '-1MP': use a number of pixels"),
        (
            "texture style.png -o out.png --size 20000x20000 --max-pixels 300MP",
            "--size is 20000x20000, over the limit of 300000000 pixels in all: use smaller sides or allow it",
        ),
        (
            "texture style.png -o out.png --size 100000x100000",
            "--size is 100000x100000, over Pillow's limit of 89478485 pixels in all: use smaller sides.",
        ),
        # what does not go together
        (f"{STYLIZE} --every 5", "--every 5 is of checkpoints that go nowhere: name their folder with --checkpoint."),
        (
            "reconstruct content.png -o out.png --layer relu1_1 --style-layers relu1_1",
            "--layer keeps places and --style-layers does not: drop one.",
        ),
        (
            "stylize content.png style.png -o out.png --preview --network random",
            "--preview runs with the mini network, but --network is random: drop one.",
        ),
        (
            "texture style.png -o out.png --size 20000x20000",
            "--size is 20000x20000, over Pillow's limit of 89478485 pixels in all: use smaller sides or allow it with "
            "--max-pixels 400MP.",
        ),
    ],
)
def test_options_that_cannot_be_end_with_a_sentence_and_status_2(arguments, saying, refused):
    status, sentence = refused(*arguments.split())
    assert saying in sentence and status == 2


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (f"{STYLIZE} --scales {DIGITS}", "9... scales are none or too many: take 1 to 30"),
        (f"{STYLIZE} --scales {'9' * 5000}", "9...: use auto, a number such as 3, or sides such as 128,256,512."),
        (f"{STYLIZE} --scales {'3,' * 3000}3", "3,... do not rise to the picture's 32 pixels: end them with that."),
        (f"{STYLIZE} --preset {'x' * 5000}", "x... is unknown: use jaxstyle, gatys-paper"),
        (f"{STYLIZE} --style-layers {'x' * 5000}", "x... is not a layer of VGG-19: choose from conv1_1"),
        (f"{STYLIZE} --style-layers relu1_1:{'x' * 5000}", "x...: use a finite number that is 0 or more."),
        (f"{STYLIZE} --style-layers relu1_1{',relu1_1' * 900}", "...: name each layer once."),
        (f"{STYLIZE} --blend {'1,' * 3000}", ",...: use numbers with commas, such as 1,2."),
        (f"{STYLIZE} --blend {'0' * 5000}", "0..., which sums to zero: give at least one style a weight."),
        (f"{STYLIZE} --init {'x' * 5000}", "x... is no file: use content, style, noise or the path of a picture."),
        (f"{SWEEP} --style-weight {'x' * 5000}", "x...: use a number, numbers with commas, or a range from:to:count."),
        (f"{SWEEP} --max-pixels {DIGITS}", "9...: use a number of pixels from 1MP to 4GP, such as 500MP."),
        (f"{SWEEP} --style-weight 1:2:{DIGITS}", "9...: a range is from:to:count, such as 10:1000:5, with 2 values"),
        (f"{SWEEP} --style-layers relu1_1{';relu1_1' * 900}", "... has a value twice: give each value once."),
        (f"texture style.png -o out.png --size {DIGITS}", "9...: use height x width, such as 512x768."),
    ],
)
def test_what_is_long_is_not_repeated_whole(arguments, saying, refused):
    status, sentence = refused(*arguments.split())
    assert saying in sentence and len(sentence) < 300 and status == 2


def test_a_name_that_would_control_the_terminal_is_escaped(refused):
    status, sentence = refused("stylize", "a\x1b[31m\n.png", "\udce9.png", "-o", "out.png")
    assert status == 2 and sentence.startswith(r"a\x1b[31m\n.png cannot be read")
    assert str(errors.UnavailableError("\udce9\u2028é")) == r"\udce9\u2028é"


@pytest.mark.parametrize(
    ("error", "saying"),
    [
        (MemoryError(), "memory is too small (MemoryError): take --remat, a smaller --size, fewer --lanes or, for"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 bytes.\n..."), "memory is too small (RESOURCE_EXHAUSTED: 9 bytes): take"),
        (errors.UnavailableError("There is no connection: plug it in."), "There is no connection: plug it in."),
        (
            BrokenPipeError(32, "Broken pipe"),
            "The system refused something (Broken pipe): mend that and repeat the command.",
        ),
    ],
)
def test_what_the_user_cannot_mend_ends_with_a_sentence_and_status_1(error, saying, refused, monkeypatch):
    monkeypatch.setattr(Stylize, "run", lambda _: (_ for _ in ()).throw(error))
    status, sentence = refused("stylize", "content.png", "style.png", "-o", "out.png")
    assert sentence.startswith(saying) and status == 1


# The tests of all sentences


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:[-'./_][^\W_]+)*", text.replace("\\", ""))


def strings(node: ast.AST) -> Iterator[str]:
    """Yield the constant strings in a node, those of f-strings one by one, but no docstrings."""
    walked = list(ast.walk(node))
    prose = {id(each.value) for each in walked if isinstance(each, ast.Expr)}
    for each in walked:
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in prose:
            yield each.value


def sentences(code: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of every error that is made, with the runs of words that are between its values."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in RAISED:
            [sentence] = node.args
            if isinstance(sentence, ast.JoinedStr):
                parts: Iterable[ast.AST] = (part for part in sentence.values if isinstance(part, ast.Constant))
            else:
                parts = [sentence]
            yield node.lineno, [" ".join(words(text)) for part in parts for text in strings(part)]


def pieces(runs: list[str]) -> set[str]:
    """Return every four words in a row, or three, two or one where there are no more."""
    for length in (4, 3, 2, 1):
        rows = [run.split() for run in runs]
        if found := {" ".join(row[i : i + length]) for row in rows for i in range(len(row) - length + 1)}:
            return found
    return set()


def untested(code: dict[str, str], tests: Iterable[str]) -> list[str]:
    """Return where errors are made of whose sentence no string of a test has any four words that no other has."""
    said = "\n".join(f" {' '.join(words(text))} " for test in tests for text in strings(ast.parse(test)))
    made = {(path, line): runs for path, text in code.items() for line, runs in sentences(text)}
    shared = Counter(piece for runs in {tuple(runs) for runs in made.values()} for piece in pieces(list(runs)))
    return [
        f"{path}:{line}: {' ... '.join(filter(None, runs))}"
        for (path, line), runs in made.items()
        if any(runs)
        and not any(f" {piece} " in said for piece in ({p for p in pieces(runs) if shared[p] == 1} or pieces(runs)))
    ]


def test_every_error_sentence_is_tested():
    paths = sorted((ROOT / "jaxstyle").rglob("*.py")) + sorted((ROOT / "scripts").glob("*.py"))
    code = {str(path.relative_to(ROOT)): path.read_text() for path in paths}
    assert sum(len(list(sentences(text))) for text in code.values()) > 150
    tests = [path.read_text() for path in (ROOT / "tests").glob("*.py")]
    assert untested(code, tests) == []


def test_a_sentence_without_a_test_is_found():
    code = {
        "a.py": 'raise InputError(f"{n} apples are too many pears: take fewer.")',
        "b.py": 'wrong = UnavailableError("The shop is closed: come again.")\nraise type(error)(f"The shop is shut.")',
    }
    said = ["match = r'many pears: take fewer'", "said = 'The shop is closed: come'"]
    assert untested(code, said) == ["b.py:2: The shop is shut"]
    too_little = ["said = 'The shop is', 'pears: take fewer'", 'def test():\n    "The shop is shut."']
    assert len(untested(code, too_little)) == 3

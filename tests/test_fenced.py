"""Code in the documents: Python runs, commands are understood by the programs that they call, YAML is read.

What cannot run by nature, such as what a program prints, is in a block of `text`; where it stands right under a block
of Python it is what that prints.
"""

import argparse
import contextlib
import functools
import inspect
import io
import re
import runpy
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tyro
import yaml
from fenced import PAGES, ROOT, Block, arguments, blocks, commands, passed

from jaxstyle.cli import commands as cli

LANGUAGES = {"python", "sh", "yaml", "text"}
UNDERSTOOD = "understood"
SETUP = {"export", "mkdocs", "pip", "pytest", "python3", "set"}  # which .ci/run itself calls, or the shell has
TALL = {"size=256": "size=64", "steps=100": "steps=5"}  # what README asks for, and what is enough to see it run


def of(language: str) -> list[Path]:
    return [page for page in PAGES if any(block.language == language for block in blocks(page))]


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def ran(page: Path) -> Any:
    """Return a page whose code is run by the slow tests, but for the first page's."""
    return pytest.param(page, id=by_name(page), marks=() if page.name == "index.md" else pytest.mark.slow)


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_block_is_of_a_kind_that_is_tried(page: Path):
    assert not [block.name for block in blocks(page) if block.language not in LANGUAGES]


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_no_fence_is_missed(page: Path):
    """Such as one that is indented, or that nothing closes."""
    assert page.read_text("utf-8").count("```") == 2 * len(blocks(page))


@pytest.mark.filterwarnings("ignore:.*the mini network")  # README's load_params() finds no VGG-19 here
@pytest.mark.parametrize("page", [ran(page) for page in of("python")])
def test_blocks_of_python_run_in_order_and_print_what_is_shown(page: Path, isolated: Path, monkeypatch):
    monkeypatch.chdir(isolated)
    (isolated / "examples").symlink_to(ROOT / "examples")
    names, printed = {"__name__": "page"}, ""
    for block in blocks(page):
        if block.language == "text" and printed and not block.before.strip():
            assert block.text == printed, block.name
        printed = ""
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(lowered(block), block.name, "exec"), names)
            printed = out.getvalue()


def lowered(block: Block) -> str:
    """Return the code, with README's sizes and steps lowered."""
    text = block.text
    if block.page.name == "README.md":
        for high, low in TALL.items():
            assert high in text, f"{high} is no longer in {block.name}"
            text = text.replace(high, low)
    return text


@pytest.fixture
def understood(monkeypatch):
    """Give a command's arguments to jaxstyle itself, which then checks them and does nothing."""
    seen = []
    for kind in (cli.Stylize, cli.Sweep, cli.Batch, cli.Reconstruct, cli.Texture):
        monkeypatch.setattr(kind, "run", lambda command: seen.append(command) or 0)
    for kind in (cli.Rerun, cli.Statistics, cli.Networks, cli.Doctor):
        monkeypatch.setattr(kind, "run", lambda command: seen.append(command) or 0)
    # with --distributed a parent starts the command anew: here it is the command itself
    monkeypatch.setattr(cli, "watched", SimpleNamespace(is_watched=lambda: True))
    monkeypatch.setattr(cli, "joining", SimpleNamespace(run=lambda command: command.run()))

    def run(given: list[str]):
        assert cli.run(given) == 0
        [command] = seen
        if isinstance(command, cli.Sweep):
            command = command._whole()
        if hasattr(command, "checked"):
            command.checked()
        return command

    return run


@pytest.mark.parametrize("where, given", [pytest.param(*each, id=each[0]) for each in passed("jaxstyle")])
def test_jaxstyle_understands_every_command(where: str, given: list[str], understood, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in given:  # a picture to start from has to be there
        if word.endswith(".png"):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    assert understood(given)


@pytest.mark.parametrize("where, given", [pytest.param(*each, id=each[0]) for each in passed("python")])
def test_scripts_understand_every_command_and_code_compiles(where: str, given: list[str], monkeypatch):
    if given[0] == "-c":
        assert compile(given[1], where, "exec")
        return
    real, parse_args = tyro.cli, argparse.ArgumentParser.parse_args

    def understand(what, **options):
        """Parse, and call nothing."""
        real(functools.wraps(what)(lambda *_, **__: None) if inspect.isfunction(what) else what, **options)
        sys.exit(UNDERSTOOD)

    def understand_too(*args):
        parse_args(*args)
        sys.exit(UNDERSTOOD)

    script = ROOT / given[0]
    if given[1:]:
        monkeypatch.setattr(tyro, "cli", understand)
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", understand_too)
        monkeypatch.setattr(sys, "argv", given)
        monkeypatch.syspath_prepend(script.parent)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        assert ended.value.code == UNDERSTOOD
    assert script.is_file()


@pytest.mark.parametrize("page", of("sh"), ids=by_name)
def test_no_command_is_left_that_nobody_tries(page: Path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for block in blocks(page):
        for words in commands(block.text) if block.language == "sh" else []:
            if arguments(words, "jaxstyle") is not None or arguments(words, "python") is not None:
                continue
            program = Path(words[0]).name
            assert program in SETUP, f"{block.name} calls {program}, which no test tries"
            asked = re.findall(r"\.\[([\w,]+)\]", " ".join(words))
            assert program != "pip" or set(",".join(asked).split(",")) - {""} <= set(extras), block.name


@pytest.mark.parametrize("page", of("yaml"), ids=by_name)
def test_yaml_is_read_and_its_commands_are_understood(page: Path, understood):
    for block in blocks(page):
        for document in yaml.safe_load_all(block.text) if block.language == "yaml" else []:
            assert isinstance(document, dict), block.name
            for container in containers(document):
                program, *given = container["command"]
                given += [re.sub(r"\$\(\w+\)", "0", each) for each in container["args"]]  # which Kubernetes fills in
                assert program == "jaxstyle" and understood(given)


def containers(value: Any) -> list[dict[str, Any]]:
    """Return what a pod runs, wherever in a document it stands."""
    if isinstance(value, list):
        return [each for item in value for each in containers(item)]
    if not isinstance(value, dict):
        return []
    return [*value.get("containers", []), *containers(list(value.values()))]


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_picture_is_made_by_a_command_of_its_page(page: Path):
    """README's have theirs in examples/README.md."""
    text = page.read_text("utf-8")
    shown = re.findall(r"!\[[^]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text)
    made = [
        word for block in blocks(page) if block.language == "sh" for words in commands(block.text) for word in words
    ]
    if page.name == "README.md":
        made += re.findall(r"jaxstyle [^`]+", (ROOT / "examples" / "README.md").read_text("utf-8"))
    for picture in {one or other for one, other in shown}:
        path = (page.parent / picture).resolve().relative_to(ROOT).as_posix()
        assert any(re.search(rf"(^|[\s'\"]){re.escape(path)}($|[\s'\"])", word) for word in made), path

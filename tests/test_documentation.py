"""The code in the documentation runs, and its commands parse.

A block of `text` directly under a block of Python shows what that block prints.
"""

import argparse
import contextlib
import doctest
import functools
import importlib
import inspect
import io
import pkgutil
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
import yaml

import jaxstyle
from jaxstyle.cli import commands as cli
from jaxstyle.distributed import processes
from jaxstyle.networks import pretrained
from jaxstyle.networks.random_init import random_params
from jaxstyle.transfer.presets import PRESETS

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
LOOP = re.compile(r"^for (\w+) in (.+); do\n((?:.*\n)+?)done$", re.MULTILINE)
README_SETTINGS = {"size=256": "size=32", "steps=100": "steps=2"}  # replaced to keep the test short
PARSED = "parsed"
MODULES = [
    module.name
    for module in pkgutil.walk_packages(jaxstyle.__path__, "jaxstyle.")
    if not module.ispkg and not module.name.startswith(("jaxstyle.cli.", "jaxstyle.__main__"))
]


def blocks(page: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield the language and text of each fenced block, and whether it follows the block before directly."""
    whole, end = page.read_text("utf-8"), 0
    for fence in FENCE.finditer(whole):
        yield fence["language"], fence["text"], not whole[end : fence.start()].strip()
        end = fence.end()


def pages(language: str) -> list[Any]:
    """Return the pages with a block in that language, as parameters of a test."""
    chosen = [page for page in PAGES if any(block[0] == language for block in blocks(page))]
    assert chosen, f"no page has a block of {language}"
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in chosen]


def arguments(page: Path, program: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of `program` in a page's shell blocks, with its loops unrolled."""
    for language, text, _ in blocks(page):
        if language != "sh":
            continue
        text = re.sub(r"(^|\s)#.*", "", LOOP.sub(unroll, text.replace("\\\n", " ")))
        lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|\n")
        lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
        command: list[str] = []
        for word in [*lexer, "\n"]:
            if set(word) <= set(";&|\n"):
                words = command[1:] if command[:1] == ["srun"] else command
                if words and Path(words[0]).name == program:
                    yield words[1:]
                command = []
            elif command or not re.match(r"\w+=", word):  # an assignment is no command
                command.append(word)


def unroll(loop: re.Match[str]) -> str:
    """Return the body of a shell loop once for each value of its variable."""
    name, values, body = loop.groups()
    return "\n".join(re.sub(rf"\$\{{?{name}\b\}}?", value, body) for value in values.split())


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the random network of VGG-19's shape once."""
    monkeypatch.setattr(pretrained, "random_params", functools.cache(random_params))


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Return a function that parses and checks the arguments of jaxstyle without running the command."""
    parsed: list[Any] = []
    for name in ("Stylize", "Sweep", "Batch", "Reconstruct", "Texture", "Rerun", "Statistics", "Networks", "Doctor"):
        monkeypatch.setattr(getattr(cli, name), "run", lambda command: parsed.append(command) or 0)
    for name in ("initialize", "finish"):
        monkeypatch.setattr(processes, name, lambda **_: None)

    def run(words: list[str]) -> None:
        assert cli.run(words) == 0, words
        command = parsed.pop()
        if hasattr(command, "checked"):
            command.checked()

    return run


@pytest.mark.filterwarnings("ignore:.*the mini network")  # load_params() finds no VGG-19 here
@pytest.mark.parametrize("page", pages("python"))
def test_python_blocks_run_in_order_and_print_the_output_shown(page: Path, isolated: Path, monkeypatch):
    monkeypatch.chdir(isolated)
    (isolated / "examples").symlink_to(ROOT / "examples")
    names: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for language, text, follows in blocks(page):
        if language == "text" and printed and follows:
            assert text == printed
        printed = ""
        if language == "python":
            if page.name == "README.md":
                for setting, short in README_SETTINGS.items():
                    assert setting in text
                    text = text.replace(setting, short)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, page.name, "exec"), names)  # noqa: S102  # our own documentation
            printed = out.getvalue()


@pytest.mark.parametrize("page", pages("sh"))
def test_commands_parse(page: Path, parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in arguments(page, "jaxstyle"):
        for word in words:
            if word.endswith(".png"):  # an image to start from must exist
                (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / word).touch()
        parse(words)


@pytest.mark.parametrize("page", pages("yaml"))
def test_kubernetes_manifests_call_commands_that_parse(page: Path, parse):
    containers = [
        container
        for language, text, _ in blocks(page)
        for document in (yaml.safe_load_all(text) if language == "yaml" else ())
        for container in containers_of(document)
    ]
    assert containers
    for container in containers:
        program, *words = container["command"]
        assert program == "jaxstyle"
        parse(words + [re.sub(r"\$\(\w+\)", "0", each) for each in container["args"]])  # Kubernetes fills in $(NAME)


def containers_of(value: Any) -> list[dict[str, Any]]:
    """Return the containers of a manifest at any depth."""
    if isinstance(value, list):
        return [each for item in value for each in containers_of(item)]
    if not isinstance(value, dict):
        return []
    return [*value.get("containers", []), *containers_of(list(value.values()))]


@pytest.mark.parametrize("page", [page for page in pages("sh") if any(arguments(page.values[0], "python"))])
def test_calls_of_scripts_parse(page: Path, monkeypatch):
    real = tyro.cli

    def parse_only(what: Any, **options: Any) -> None:
        """Parse the command line without calling the function."""
        real(functools.wraps(what)(lambda *_, **__: None) if inspect.isfunction(what) else what, **options)
        sys.exit(PARSED)

    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(tyro, "cli", parse_only)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda *args: (parse_args(*args), sys.exit(PARSED)))
    monkeypatch.syspath_prepend(ROOT / "scripts")
    for words in arguments(page, "python"):
        if words[0] == "-c":
            assert compile(words[1], page.name, "exec")
            continue
        assert (ROOT / words[0]).is_file(), words
        if words[1:]:
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
            assert ended.value.code == PARSED, words


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_give_the_values_shown(name: str, isolated: Path, monkeypatch):
    monkeypatch.chdir(isolated)
    names = {"jax": jax, "jnp": jnp, "np": np, "PRESETS": PRESETS}
    names |= {public: getattr(jaxstyle, public) for public in jaxstyle.__all__}
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS).failed == 0

"""Fenced blocks of the documents, and the commands in those of the shell."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
LOOP = re.compile(r"^for (\w+) in (.+); do\n((?:.*\n)+?)done$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: where it is, in what language, and what stands between it and the block before."""

    page: Path
    line: int
    language: str
    text: str
    before: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    whole, end, found = page.read_text("utf-8"), 0, []
    for fence in FENCE.finditer(whole):
        line = whole.count("\n", 0, fence.start()) + 1
        found.append(Block(page, line, fence["language"], fence["text"], whole[end : fence.start()]))
        end = fence.end()
    return found


def commands(text: str) -> list[list[str]]:
    """Return the words of each command of a shell block: loops written out, comments and assignments left out."""
    text = LOOP.sub(_written_out, text.replace("\\\n", " "))
    lexer = shlex.shlex(re.sub(r"(^|\s)#.*", "", text), posix=True, punctuation_chars=";&|\n")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|\n"):
            found.append([])
        elif found[-1] or not re.match(r"\w+=", word):
            found[-1].append(word)
    return [words for words in found if words]


def _written_out(loop: re.Match[str]) -> str:
    name, values, body = loop.groups()
    return "\n".join(re.sub(rf"\$\{{?{name}\b\}}?", value, body) for value in values.split())


def arguments(words: list[str], program: str) -> list[str] | None:
    """Return what a command passes to `program`, however it is found, or None where it is none of it."""
    words = words[1:] if words[0] == "srun" else words
    if Path(words[0]).name == program:
        return words[1:]
    return None


def passed(program: str) -> list[tuple[str, list[str]]]:
    """Return what all pages pass to `program`, with where each of it stands."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            if block.language != "sh":
                continue
            given = [arguments(words, program) for words in commands(block.text)]
            found += [(block.name, each) for each in given if each is not None]
    return found

"""Files of the repository that pages link to, as pages and pictures of the site, so that its links lead nowhere else.

Links are relative to the page's file in the repository, as GitHub takes them. What lies outside of docs/ is shown under
repo/: Markdown as a page, code as a page with the code, pictures as they are.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
ALWAYS = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    "weights/README.md",
)
TUTORIALS = "docs/tutorials/"  # each is a notebook there, and a page on the site
PICTURES = (".jpg", ".png", ".h5")
LINK = re.compile(r'(?P<before>\]\(|src=")(?P<path>[^)#\s":]+)(?P<after>[)#\s"])')


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside of docs/ that a page links to, or a page that it leads to."""
    waiting = [
        *ALWAYS,
        *(_source(file.src_uri) for file in files if file.src_uri.endswith(".md")),
    ]
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            files.append(_shown(path, config))
        if path.endswith(".md") or path.startswith(TUTORIALS):
            text = (ROOT / path).read_text("utf-8")
            waiting += [_joined(path, found["path"]) for found in LINK.finditer(text)]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links of a repository's file into those of the page that it has here."""
    here, source = page.file.src_uri, _source(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        target = _joined(source, found["path"])
        if not (ROOT / target).is_file():
            return found[0]
        return found["before"] + posixpath.relpath(_place(target), posixpath.dirname(here)) + found["after"]

    return LINK.sub(link, markdown)


def _joined(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _place(path: str) -> str:
    """Return where the site has the repository's file `path`."""
    if path.startswith(TUTORIALS):
        return str(Path(path).relative_to("docs").with_suffix(".md"))
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repo/{path}" if path.endswith((".md", *PICTURES)) else f"repo/{path}.md"


def _source(place: str) -> str:
    """Return which file of the repository the page `place` shows."""
    if place.startswith("repo/"):
        return place.removeprefix("repo/")
    path = Path("docs") / place
    return str(path.with_suffix(".py") if str(path).startswith(TUTORIALS) else path)


def _shown(path: str, config: Any) -> File:
    """Return the file of the site that shows the repository's file `path`."""
    if path.endswith(PICTURES):
        return File.generated(config, _place(path), abs_src_path=str(ROOT / path))
    text = (ROOT / path).read_text("utf-8")
    if not path.endswith(".md"):
        language = "python" if path.endswith(".py") else "text"
        text = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n~~~~{language}\n{text}~~~~\n"
    return File.generated(config, _place(path), content=text)

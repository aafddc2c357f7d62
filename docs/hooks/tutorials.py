"""The tutorials: notebooks in jupytext's percent format, executed as the site is built."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jupytext
from jupyter_client.manager import KernelManager
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, ExecutePreprocessor

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300  # for a cell, at most
KEPT = ROOT / "build" / "tutorials"

serving = False


def on_startup(command: str, **_: Any) -> None:
    """Note whether the site is served while it is written: then a tutorial runs again only where it has changed."""
    global serving
    serving = command == "serve"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each tutorial, with what its cells print and draw."""
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        for name, content in _executed(path).items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def _executed(path: Path) -> dict[str, str | bytes]:
    """Return the page of a tutorial and its pictures, by name."""
    kept = KEPT / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.json"
    if serving and kept.exists():
        return {name: content if name.endswith(".md") else bytes.fromhex(content) for name, content in _read(kept)}
    notebook = jupytext.read(path)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # which a kernel complains of
    kernel = KernelManager(kernel_name="python3", transport="ipc")  # through files, which others cannot read
    ExecutePreprocessor(timeout=SECONDS).preprocess(notebook, {"metadata": {"path": str(ROOT)}}, km=kernel)
    kernel.shutdown_kernel(now=True)
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})  # else each print is a paragraph
    text, resources = MarkdownExporter().from_notebook_node(notebook, {"unique_key": path.stem})
    made: dict[str, str | bytes] = {f"{path.stem}.md": text, **resources["outputs"]}
    if serving:
        KEPT.mkdir(parents=True, exist_ok=True)
        texts = {name: content if isinstance(content, str) else content.hex() for name, content in made.items()}
        kept.write_text(json.dumps(texts))
    return made


def _read(kept: Path) -> Any:
    return json.loads(kept.read_text()).items()

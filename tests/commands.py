"""Commands for tests: inputs in the current folder, and `Stylize` objects from flat options."""

import csv
import tempfile
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from conftest import TINY, picture
from PIL import Image

from jaxstyle.cli.options import Network
from jaxstyle.cli.stylize import Stylize
from jaxstyle.images.save import save_image
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params

OLD = b"an older picture"


@cache
def _inputs() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_image(folder / "content.png", picture(32, 40, seed=0))
        save_image(folder / "style.png", picture(36, 32, seed=1))
        params = random_params(widths=TINY, seed=1)
        weights_io.write(folder / "tiny.h5", params, source="a seed", checksum="none", licence="none")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_inputs(folder: Path) -> None:
    """Write content.png (40x32), style.png (32x36) and the network tiny.h5."""
    for name, data in _inputs().items():
        (folder / name).write_bytes(data)


def command(
    *,
    content: str = "content.png",
    styles: tuple[str, ...] = ("style.png",),
    output: str = "out.png",
    network: str = "auto",
    weights: str | None = "tiny.h5",
    **options: Any,
) -> Stylize:
    """Return `jaxstyle stylize` with 3 steps at 32 pixels; `options` are the fields of `Stylize` and of its groups."""
    used = Network(network, Path(weights) if weights else None, offline=options.pop("offline", True))
    made = Stylize(Path(content), tuple(map(Path, styles)), Path(output), size=32, steps=3, network=used)
    for group in fields(made):
        value = getattr(made, group.name)
        if is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in fields(value) if each.name in options]
            made = replace(made, **{group.name: replace(value, **{name: options.pop(name) for name in names})})
    return replace(made, **options)


def stylize(**options: Any) -> int:
    """Run `command` and return its exit status."""
    return command(**options).run()


def log(path: str = "log.csv") -> list[dict[str, float]]:
    """Return the rows of a log."""
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def listing() -> dict[str, bytes]:
    """Return the names and bytes of all files in the current folder, except those of the cache."""
    return {
        str(path): path.read_bytes() if path.is_file() else b""
        for path in Path().rglob("*")
        if path.parts[0] != "cache"
    }


def size_of(path: str | Path) -> tuple[int, int]:
    """Return the width and height of a picture."""
    with Image.open(path) as opened:
        return opened.size


def write_masks(feather: int = 0) -> np.ndarray:
    """Write left.png and right.png, 40x32; return the columns of the left mask, widened by `feather`."""
    for name, columns in {"left.png": slice(0, 20), "right.png": slice(20, 40)}.items():
        mask = np.zeros((32, 40, 3))
        mask[:, columns] = 1
        save_image(name, mask)
    return np.arange(40) < 20 + feather

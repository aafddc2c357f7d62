"""Report of a sweep: a table, a contact sheet, and a page that needs neither server nor network."""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from jaxstyle.files import write_text
from jaxstyle.images.contact_sheet import contact_sheet
from jaxstyle.images.load import load_image, size_of
from jaxstyle.images.save import save_image
from jaxstyle.runtime.outputs import table
from jaxstyle.runtime.record import RunRecord, plain, structured, translated

CURVE_POINTS = 120
CELLS = ((100, 384), (400, 192), (math.inf, 96))  # (maximum number of pictures, pixels of a cell of the sheet)


@dataclass(frozen=True)
class Entry:
    """One finished picture: its settings, final terms, loss curve, a hash of its inputs and options, and its record."""

    picture: str
    label: str
    settings: dict[str, int | float | str]
    terms: dict[str, float]
    curve: tuple[float, ...]
    digest: str
    record: RunRecord | None = None


def entry_of(picture: Path) -> Path:
    """Return the path of the entry of a picture."""
    return picture.with_suffix(".json")


def read_entry(path: Path) -> Entry | None:
    """Return the entry at `path`, or None if it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            value["record"] = translated(value.get("record"))
        return structured(Entry, value)
    except (OSError, ValueError, RecursionError):
        return None


def write_entry(path: Path, entry: Entry) -> None:
    """Write the entry of a picture atomically."""
    write_text(path, json.dumps(plain(entry, paths={}), indent=1))


def thinned(totals: Sequence[float]) -> tuple[float, ...]:
    """Return at most `CURVE_POINTS` evenly spaced points of a loss curve, including its first and last."""
    last = len(totals) - 1
    count = min(CURVE_POINTS, len(totals))
    return tuple(float(totals[round(i * last / max(1, count - 1))]) for i in range(count))


def write_report(folder: Path, entries: Sequence[Entry], *, columns: int | None, max_pixels: int | None = None) -> None:
    """Write `sweep.csv`, `grid.png` and `index.html` of the finished pictures."""
    table_path, sheet_path, page_path = (folder / name for name in ("sweep.csv", "grid.png", "index.html"))
    if not entries:
        for path in (table_path, sheet_path, page_path):
            path.unlink(missing_ok=True)
        return
    names = [name for kind in ("settings", "terms") for each in entries for name in getattr(each, kind)]
    rows = ({"picture": each.picture, **each.settings, **each.terms} for each in entries)
    write_text(table_path, table(["picture", *dict.fromkeys(names)], rows))
    write_text(page_path, page(entries, columns=columns))
    side = next(side for most, side in CELLS if len(entries) <= most)
    pictures = [_reduced(folder / each.picture, side, max_pixels) for each in entries]
    labels = [each.label.replace(", ", "\n") for each in entries]
    save_image(sheet_path, contact_sheet(pictures, labels, columns=columns, cell=side))


def _reduced(path: Path, side: int, max_pixels: int | None) -> np.ndarray:
    longest = max(size_of(path, max_pixels=max_pixels))
    return load_image(path, size=None if longest <= side else side, max_pixels=max_pixels).rgb


def page(entries: Sequence[Entry], *, columns: int | None) -> str:
    """Return a page of all pictures: thumbnail, settings, final terms, loss curve; a click enlarges a picture."""
    cells = "\n".join(_cell(each) for each in entries)
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return template.replace("COLUMNS", str(columns or min(4, len(entries)))).replace("CELLS", cells)


def _cell(entry: Entry) -> str:
    terms = "".join(f"<tr><td>{html.escape(name)}<td>{value:.4g}" for name, value in entry.terms.items())
    label = html.escape(entry.label)
    return (
        f'<figure><img src="{quote(entry.picture, safe="=,+")}" alt="{label}" title="enlarge" loading="lazy">'
        f"<figcaption><b>{label}</b>{_curve(entry.curve)}<details><summary>total {entry.terms['total']:.4g}</summary>"
        f"<table>{terms}</table></details></figcaption></figure>"
    )


def _curve(totals: Sequence[float]) -> str:
    heights = [math.log10(total) for total in totals if total > 0 and math.isfinite(total)]
    if len(heights) < 2:
        return ""
    low, span = min(heights), max(heights) - min(heights) or 1.0
    points = " ".join(
        f"{100 * i / (len(heights) - 1):.1f},{28 - 26 * (height - low) / span:.1f}" for i, height in enumerate(heights)
    )
    return (
        f'<svg viewBox="0 0 100 30" preserveAspectRatio="none"><title>total, from {totals[0]:.4g} to {totals[-1]:.4g}, '
        f'logarithmic</title><polyline points="{points}"/></svg>'
    )

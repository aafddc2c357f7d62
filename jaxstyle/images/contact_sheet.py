"""Contact sheets: many images on one page, each above its label."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

MOST_SIDE = 16_000  # pixels of a sheet; larger ones are hard to open
FONT_SHARE = 24  # ratio of the longest side of a cell to the font size, which is at least `SMALLEST_FONT`
SMALLEST_FONT = 10


def contact_sheet(
    pictures: Sequence[ArrayLike], labels: Sequence[str], *, columns: int | None = None, cell: int = 384
) -> NDArray[np.float32]:
    """Return all images `[H, W, 3]` on one page in [0, 1], row by row, each above its label of one or more lines."""
    shapes = [np.shape(picture)[:2] for picture in pictures]
    longest = max(max(shape) for shape in shapes)
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = -(-len(pictures) // columns)
    side = min(cell, longest, MOST_SIDE // max(columns, 2 * rows))
    cells = [_reduced(np.asarray(picture), side / longest) for picture in pictures]
    font = ImageFont.load_default(max(SMALLEST_FONT, side // FONT_SHARE))
    lines = max(label.count("\n") for label in labels) + 1
    width, height = max(each.width for each in cells), max(each.height for each in cells)
    margin, below = 4, int(1.5 * lines * font.size) + 4  # pyright: ignore[reportAttributeAccessIssue]
    page = Image.new("RGB", (columns * (width + margin), rows * (height + below)), "white")
    draw = ImageDraw.Draw(page)
    for i, (each, label) in enumerate(zip(cells, labels, strict=True)):
        x, y = i % columns * (width + margin), i // columns * (height + below)
        page.paste(each, (x, y))
        draw.multiline_text((x + 2, y + height + 2), _fitted(label, width, font), "black", font=font)
    return np.asarray(page, np.float32) / np.float32(255)


def _reduced(picture: np.ndarray, factor: float) -> Image.Image:
    height, width, _ = picture.shape
    image = Image.fromarray(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8))
    size = (max(1, round(factor * width)), max(1, round(factor * height)))
    return image if size == (width, height) else image.resize(size, Image.Resampling.LANCZOS)


def _fitted(label: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Return `label` with each line truncated to the width of the cell."""

    def cut(line: str) -> str:
        while line and font.getlength(line) > width:
            line = line[:-1]
        return line

    return "\n".join(map(cut, label.split("\n")))

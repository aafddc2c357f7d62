"""Training pictures from a seed: crops of photographs, synthetic scenes and paintings, and stylized pictures.

The drawings contain typical elements of styles: flat leaves of all sizes, strokes along a flow, letters, ramps, noise
of all scales, and horizons with houses. As a script, this module draws a sheet of them.

Lee, Mumford and Huang, *Occlusion Models for Natural Images*, IJCV 2001, for dead leaves.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from tyro.conf import Positional

from jaxstyle import VGG19, init_state, make_targets, run_steps
from jaxstyle.errors import InputError
from jaxstyle.networks.vgg import Params

Pixels = NDArray[np.uint8]
Rng = np.random.Generator
LETTERS = "ABCDEFGHKLMNRSTXYZabdeghkmnqrstw0123456789&?!"


def photographs(folders: Sequence[Path]) -> list[Image.Image]:
    """Return every JPEG and PNG below `folders`, in order of their paths, at most 640 pixels wide or high."""
    paths = []
    for folder in folders:
        inside = [path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        if not inside:
            raise InputError(f"{folder} holds no .jpg and no .png: name a folder of photographs.")
        paths.extend(inside)
    pictures = [Image.open(path).convert("RGB") for path in sorted(paths)]
    for picture in pictures:
        picture.thumbnail((640, 640), Image.Resampling.LANCZOS)
    return pictures


def draw(rng: Rng, side: int, sources: Sequence[Image.Image]) -> Pixels:
    """Return one picture of `side` x `side` pixels: half are photographs, if there are `sources`, a quarter painted."""
    kind = rng.random()
    if sources and kind < 0.5:
        picture = cut(rng, side, sources)
    elif sources and kind < 0.75:
        picture = painted(rng, cut(rng, side, sources))
    else:
        picture = made_up(rng, side)
    return recoloured(rng, picture) if rng.random() < 0.5 else picture


def made_up(rng: Rng, side: int) -> Pixels:
    """Return a drawing, a third of them painted over."""
    drawing = DRAWINGS[rng.integers(len(DRAWINGS))](rng, side)
    return painted(rng, drawing) if rng.random() < 0.33 else drawing


def cut(rng: Rng, side: int, sources: Sequence[Image.Image]) -> Pixels:
    """Return a square of a photograph, at a random scale and turned over at random."""
    source = sources[int(rng.integers(len(sources)))]
    edge = int(min(min(source.size), side * 2.0 ** rng.uniform(0, 1.6)))
    left, top = (int(rng.integers(length - edge + 1)) for length in source.size)
    box = (left, top, left + edge, top + edge)
    pixels = np.asarray(source.resize((side, side), Image.Resampling.LANCZOS, box))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def recoloured(rng: Rng, picture: Pixels) -> Pixels:
    """Return `picture` with its colours turned about grey, stretched and shifted."""
    turn, _ = np.linalg.qr(np.eye(3) + 0.5 * rng.standard_normal((3, 3)))
    turn *= np.sign(np.diag(turn))
    mixed = (picture / 255.0 - 0.5) @ (turn * rng.uniform(0.6, 1.5)) + 0.5 + rng.uniform(-0.12, 0.12, 3)
    return _pixels(mixed)


def painted(rng: Rng, picture: Pixels) -> Pixels:
    """Return `picture` laid down again in strokes of one brush, which follow its contours or a flow of their own."""
    side = len(picture)
    width = side / 128 * 2.0 ** rng.uniform(1.0, 3.5)
    length = width * rng.uniform(1.5, 7.0)
    grey = picture.mean(-1) + 40 * rng.random() * noise(rng, side, side / 3)
    smooth = Image.fromarray(_pixels(grey / 255)).filter(ImageFilter.GaussianBlur(width))
    dy, dx = np.gradient(np.asarray(smooth, np.float32))
    count = int(3 * side * side / (width * length))
    rows, columns = rng.integers(side, size=(2, count))
    angles = np.arctan2(dx, -dy)[rows, columns] + rng.normal(0, 0.25, count)
    colours = picture[rows, columns] + rng.normal(0, 14, (count, 3)) + rng.normal(0, 8, (count, 1))
    canvas = Image.fromarray(picture).resize((2 * side, 2 * side))
    brush = ImageDraw.Draw(canvas)
    for x, y, angle, colour in zip(2 * columns, 2 * rows, angles, colours, strict=True):
        reach = length * np.array([np.cos(angle), np.sin(angle)])
        for edge in (-0.3, 0.0, 0.3):  # three bristles of one stroke
            shade = tuple(np.clip(colour + 40 * edge, 0, 255).astype(int))
            aside = edge * 2 * width * np.array([-np.sin(angle), np.cos(angle)])
            ends = (x - reach[0] + aside[0], y - reach[1] + aside[1], x + reach[0] + aside[0], y + reach[1] + aside[1])
            brush.line(ends, fill=shade, width=max(1, int(width)))
    return np.asarray(canvas.reduce(2))


def leaves(rng: Rng, side: int) -> Pixels:
    """Return dead leaves: opaque shapes whose sizes follow a power law."""
    colours = palette(rng, 6)
    canvas = Image.new("RGB", (2 * side, 2 * side), tuple(colours[0]))
    pen, shape, outline = ImageDraw.Draw(canvas), rng.integers(3), rng.random() < 0.3
    for _ in range(int(rng.integers(60, 500))):
        radius = 2 * side * 0.012 / (rng.random() + 0.012) ** 0.7 * rng.uniform(0.5, 1.0)
        x, y = rng.uniform(0, 2 * side, 2)
        fill = tuple(np.clip(colours[rng.integers(6)] + rng.normal(0, 12, 3), 0, 255).astype(int))
        box = (x - radius, y - radius * 0.7, x + radius, y + radius * 0.7)
        line = tuple(colours[1]) if outline else None
        if shape == 0:
            pen.ellipse(box, fill=fill, outline=line, width=3)
        elif shape == 1:
            pen.rectangle(box, fill=fill, outline=line, width=3)
        else:
            turns = np.sort(rng.uniform(0, 2 * np.pi, 5))
            points = [(x + radius * np.cos(turn), y + radius * np.sin(turn)) for turn in turns]
            pen.polygon(points, fill=fill, outline=line, width=3)
    return np.asarray(canvas.reduce(2))


def clouds(rng: Rng, side: int) -> Pixels:
    """Return fractal noise along a ramp of colours, at times folded or cut into bands."""
    roughness = rng.uniform(0.35, 0.95)
    height = np.sum([noise(rng, side, side / 2**k) * roughness**k for k in range(1, 7)], axis=0)
    if rng.random() < 0.3:
        height = np.sin(rng.uniform(2, 8) * height)
    if rng.random() < 0.3:
        height = np.round(2 * height) / 2
    return ramp(palette(rng, int(rng.integers(2, 6))), height)


def stripes(rng: Rng, side: int) -> Pixels:
    """Return a smooth ramp or waves, straight, round or bent."""
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    angle, bend = rng.uniform(0, np.pi), rng.uniform(0, 0.15) * noise(rng, side, side / 3)
    position = x * np.cos(angle) + y * np.sin(angle) + bend
    if rng.random() < 0.4:
        position = np.hypot(x - rng.random(), y - rng.random()) + bend
    if rng.random() < 0.7:
        position = np.sin(position * 2 * np.pi * 2.0 ** rng.uniform(0.5, 5))
    if rng.random() < 0.3:
        position = np.sign(position)
    return ramp(palette(rng, int(rng.integers(2, 5))), position)


def letters(rng: Rng, side: int) -> Pixels:
    """Return letters and curves of many sizes on plain ground."""
    colours = palette(rng, 4)
    canvas = Image.new("RGB", (2 * side, 2 * side), tuple(colours[0]))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(20, 160))):
        x, y = rng.uniform(-0.1, 2, 2) * side
        colour = tuple(colours[rng.integers(1, 4)])
        if rng.random() < 0.6:
            size = side * 2.0 ** rng.uniform(-4, -0.5)
            pen.text((x, y), "".join(rng.choice(list(LETTERS), rng.integers(1, 5))), fill=colour, font_size=size)
        else:
            path = np.cumsum(rng.normal(0, side / 12, (6, 2)), axis=0) + (x, y)
            pen.line([tuple(point) for point in path], fill=colour, width=int(rng.integers(1, 12)), joint="curve")
    return np.asarray(canvas.reduce(2))


def horizon(rng: Rng, side: int) -> Pixels:
    """Return a scene: a sky, hills one behind the other, houses with windows."""
    picture = Image.fromarray(np.rot90(ramp(palette(rng, 3), np.mgrid[0 : 1 : side * 1j, 0:side][0])).copy())
    pen, colours, across = ImageDraw.Draw(picture), palette(rng, 8), np.arange(side)
    for depth, base in enumerate(np.sort(rng.uniform(0.3, 1.0, int(rng.integers(2, 6))))):
        hill = base * side + side * 0.12 * noise(rng, side, side / rng.uniform(1.5, 8))[0]
        pen.polygon([(0, side), *zip(across.tolist(), hill.tolist(), strict=True), (side, side)], tuple(colours[depth]))
        for _ in range(int(rng.integers(0, 8))):
            x, width, height = rng.uniform(0, side), rng.uniform(0.04, 0.16) * side, rng.uniform(0.1, 0.45) * side
            top = base * side - height
            pen.rectangle((x, top, x + width, side * base + 4), tuple(colours[rng.integers(8)]))
            for row in np.arange(top + 3, base * side, 7):
                for column in np.arange(x + 2, x + width - 3, 6):
                    pen.rectangle((column, row, column + 2, row + 3), tuple(colours[depth]))
    return np.asarray(picture)


DRAWINGS: tuple[Callable[[Rng, int], Pixels], ...] = (leaves, clouds, stripes, letters, horizon)


@partial(jax.jit, static_argnames=("snapshots", "network"))
def repaint(
    params: Params, contents: jax.Array, styles: jax.Array, *, snapshots: tuple[int, ...], network: VGG19
) -> jax.Array:
    """Return stylized pictures, `[pairs, snapshots, H, W, 3]`, of each pair after given numbers of steps."""

    def one(content: jax.Array, style: jax.Array) -> jax.Array:
        targets, state = make_targets(params, content, style, network=network), init_state(content)
        pictures = []
        for before, after in pairwise((0, *snapshots)):
            state, _ = run_steps(state, params, targets, network=network, steps=after - before)
            pictures.append(state.image)
        return jnp.stack(pictures)

    return jax.vmap(one)(contents, styles)


def palette(rng: Rng, count: int) -> Pixels:
    """Return `count` colours, `[count, 3]`: some near one another, some not."""
    spread = rng.uniform(0.15, 0.6)
    return _pixels(rng.uniform(0.15, 0.85, 3) + spread * rng.standard_normal((count, 3)))


def ramp(colours: Pixels, position: NDArray) -> Pixels:
    """Return `colours` laid along `position`, `[H, W]` of any range."""
    low, high = position.min(), position.max()
    at = (position - low) / (high - low + 1e-9) * (len(colours) - 1)
    return _pixels(np.stack([np.interp(at, np.arange(len(colours)), channel) for channel in colours.T], -1) / 255)


def noise(rng: Rng, side: int, cell: float) -> NDArray[np.float32]:
    """Return smooth noise, `[side, side]`, about -2 to 2, whose bumps are `cell` pixels wide."""
    across = int(side / cell) + 3
    grid = Image.fromarray(rng.standard_normal((across, across)).astype(np.float32))
    return np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC))


def _pixels(values: NDArray) -> Pixels:
    return (255 * np.clip(values, 0, 1) + 0.5).astype(np.uint8)


def main(output: Positional[Path], *, images: tuple[Path, ...] = (), seed: int = 0, side: int = 160) -> None:
    """Write a sheet of 48 pictures as OUTPUT; with images, folders of photographs, also of those."""
    rng, sources = np.random.default_rng(seed), photographs(images)
    pictures = [draw(rng, side, sources) for _ in range(48)]
    rows = [np.concatenate(pictures[start : start + 8], axis=1) for start in range(0, 48, 8)]
    Image.fromarray(np.concatenate(rows)).save(output)


if __name__ == "__main__":
    tyro.cli(main)

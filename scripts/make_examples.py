"""Make the pictures in examples/: three styles drawn from numbers alone, and three photographs that scikit-image ships.

Every style is seeded, so it comes out the same every time. Scenes are laid out in fractions of the picture's height and
marks (bristles, tiles, cuts) in pixels; all is drawn at twice the size and then reduced, which smooths the edges.

Hausner, *Simulating Decorative Mosaics*, SIGGRAPH 2001, for the tiles.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]
Layer = tuple[Array, float, tuple[str, ...]]  # > 0 inside, growing inward; the depth of its last colour; colours
Cut = tuple[Array, Array, Array]  # > 0 inside, growing inward; the count of engraved lines; how much of each prints

OILS = ("0b1638", "16327f", "2f5fb3", "7fa3c4", "f3e7c3", "f2c14a", "c98a2b", "6b4a26")
WATER = ("f6f0dc", "a9d3cd", "3f9aa6", "1f6f94", "17457c", "122a58")
CREAM, BLACK, VERMILION = np.array([243, 233, 208]), np.array([30, 26, 25]), np.array([205, 62, 34])


def canvas(size: int) -> tuple[Array, Array]:
    """Return x and y of each pixel of a `size`-wide 5:4 picture at twice its size; y runs from 0 to 1, x to 1.25."""
    height, width = 2 * (size * 4 // 5), 2 * size
    y, x = np.mgrid[0:height, 0:width] / height
    return x, y


def finish(colours: Array) -> Image.Image:
    """Return the picture of `colours`, `[2H, 2W, 3]`, 0..255, reduced to half its size."""
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).reduce(2)


def noise(rng: np.random.Generator, like: Array, cell: float) -> Array:
    """Return smooth noise of the shape of `like`, about -2 to 2, whose bumps are `cell` pixels wide."""
    height, width = like.shape
    grid = rng.standard_normal((int(height / cell) + 3, int(width / cell) + 3)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC), np.float64)


def blur(mask: NDArray[np.bool_], radius: float) -> Array:
    """Return `mask`, `[H, W]`, as 0..1 and blurred by a Gaussian of `radius` pixels."""
    picture = Image.fromarray(255 * mask.astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(picture, np.float64) / 255


def ramp(codes: tuple[str, ...], t: Array) -> Array:
    """Return the colours `[..., 3]`, 0..255, at positions `t`, 0..1, along the hexadecimal colours `codes`."""
    channels = np.array([list(bytes.fromhex(code)) for code in codes]).T
    return np.stack([np.interp(t, np.linspace(0, 1, len(codes)), channel) for channel in channels], axis=-1)


def at(array: NDArray, points: Array) -> NDArray:
    """Return the values of `array`, `[H, W, ...]`, at `points`, `[N, 2]`, given as column and row; edges extend."""
    column, row = np.clip(points.astype(int), 0, (array.shape[1] - 1, array.shape[0] - 1)).T
    return array[row, column]


def night(rng: np.random.Generator, x: Array, y: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return the flow `[H, W, 2]`, the tone along OILS and the ripe field of a whirling night."""
    u, v = np.ones_like(x), 0.25 * np.cos(5 * x)
    tone = 0.16 + 0.06 * noise(rng, x, x.shape[1] / 8) + 0.1 * np.sin(30 * (y + 0.05 * np.sin(5 * x)))
    whirls = ((0.42, 0.36, 0.2, 1), (0.98, 0.2, 0.13, -1), (0.86, 0.56, 0.1, 1), (0.1, 0.1, 0.1, -1))
    for cx, cy, radius, turn in whirls:
        dx, dy = x - cx, y - cy
        r = np.hypot(dx, dy) / radius
        near = np.exp(-(r**2) / 1.6)
        u, v = u - 9 * turn * near * dy / radius, v + 9 * turn * near * dx / radius
        arms = np.cos(2 * np.arctan2(dy, dx) - turn * 5 * r) * np.clip(1.6 * r - 0.4, 0, 1)
        tone += near * (0.22 + 0.17 * arms) + 0.36 * np.exp(-((r / 0.42) ** 2))
    below = y - 0.74 - 0.05 * np.sin(4 * x + 1) - 0.02 * np.sin(11 * x)
    field = below > 0
    u, v = np.where(field, 1, u), np.where(field, 0.2 * np.cos(4 * x + 1) + 0.5 * np.sin(9 * y + 6 * x), v)
    tone = np.where(field, np.maximum(0.79 + 0.13 * np.sin(40 * below + 9 * x), 0.69), tone)
    return np.stack([u, v], -1) / np.hypot(u, v)[..., None], tone, field


def strokes(size: int = 720) -> Image.Image:
    """Paint a whirling night over ripe fields in oil: each stroke is a bundle of bristles that follows the flow."""
    rng = np.random.default_rng(1)
    x, y = canvas(size)
    height, width = x.shape
    flow, tone, field = night(rng, x, y)
    paint = Image.fromarray(ramp(OILS, np.clip(tone, 0, 1)).astype(np.uint8))
    relief = Image.new("L", (width, height), 90)
    brush, dent = ImageDraw.Draw(paint), ImageDraw.Draw(relief)
    steps = 16
    for breadth, cover in ((90, 8.0), (52, 2.5), (30, 1.2), (16, 0.45)):
        length, hairs = 60 + 3.2 * breadth, np.linspace(-1, 1, breadth // 2)
        count = int(cover * width * height / (breadth * length)) + 1
        p = seeds = rng.uniform(-0.04, 1.04, (count, 2)) * (width, height)
        tones = at(tone, seeds) + 0.05 * rng.standard_normal(count)
        points, ways = np.empty((count, steps, 2)), np.empty((count, steps, 2))
        for step in range(-steps // 2, steps):  # half a stroke upstream of the seed, then a whole one down again
            points[:, step], ways[:, step] = p, at(flow, p)
            stride = length / steps * (1 if step >= 0 else -1)
            q = p + stride * at(flow, p + stride / 2 * ways[:, step])
            p = np.where((at(field, q) == at(field, seeds))[:, None], q, p)  # no stroke crosses the horizon
        for path, normal, shade in zip(points, ways[..., ::-1] * (-1, 1), tones, strict=True):
            load = np.cumsum(0.03 * rng.standard_normal(len(hairs))) + 0.02 * rng.standard_normal(len(hairs))
            colours = ramp(OILS, np.clip(shade + load, 0, 1)) + 7 * rng.standard_normal((len(hairs), 1))
            heights = 110 + 45 * np.abs(hairs) ** 3 + 28 * rng.standard_normal(len(hairs))  # paint piles up at the rims
            spread = breadth / 2 * np.sin(np.linspace(0.6, 2.4, steps))[:, None] * normal
            ends = rng.integers(0, 4, (len(hairs), 2))
            for hair, colour, rise, (a, b) in zip(hairs, colours, heights, ends, strict=True):
                line = (path + hair * spread)[a : steps - b].ravel().tolist()
                brush.line(line, fill=tuple(np.clip(colour, 0, 255).astype(int).tolist()), width=3)
                dent.line(line, fill=int(np.clip(rise, 0, 255)), width=3)
    slope_y, slope_x = np.gradient(np.asarray(relief.filter(ImageFilter.GaussianBlur(1.2)), float))
    light = np.tanh(-(slope_x + 1.4 * slope_y) / 22)[..., None]
    return finish(np.asarray(paint, float) * (1 + 0.32 * light) + 26 * np.maximum(light, 0) ** 2)


def fish(x: Array, y: Array, turn: float, length: float) -> list[Layer]:
    """Return the layers of a fish at the origin, its nose towards +x before it is turned by `turn` radians."""
    u = (x * np.cos(turn) + y * np.sin(turn)) / length
    v = (y * np.cos(turn) - x * np.sin(turn)) / length + 0.4 * u**2 - 0.05
    body = 0.725 - np.hypot(u, np.abs(v) + 0.525)
    tail = np.minimum(-0.8 * (u + 0.4) + 0.02 - np.abs(v), 0.53 + 0.5 * np.abs(v) + u)
    fin = np.minimum(0.3 - np.hypot(u + 0.12, v + 0.08), 0.34 - np.hypot(u - 0.16, v + 0.24))
    head = np.minimum(body, 0.42 - np.hypot(u - 0.58, v))
    eye = -np.hypot(u - 0.29, v + 0.02)
    gold, fire = ("f6d98a", "e8a33a", "d9702b"), ("f7c04a", "e2662b", "b8321f", "7d1d1f")
    parts = [(tail, 0.1, gold), (fin, 0.2, gold), (body, 0.2, fire), (head, 0.2, ("f0a83a", "f7d27c"))]
    parts += [(0.068 + eye, 1.0, ("fbf5e2",)), (0.04 + eye, 1.0, ("10182c",))]
    return [(part * length, depth * length, codes) for part, depth, codes in parts]


def sea(x: Array, y: Array) -> list[Layer]:
    """Return the layers of two fish that leap before a low sun, back to front."""
    r, angle = np.hypot(x - 0.86, y - 0.3), np.arctan2(y - 0.3, x - 0.86)
    layers: list[Layer] = [
        (1.2 - r, 1.2, ("0d3b4f", "1f6f7d", "4a9c9c", "8fbfa8", "d9d6a6", "f6e6b4")),
        (0.24 + 0.03 * np.cos(16 * angle) - r, 0.24, ("f2b638", "e07a22", "d9601c")),
        (0.135 - r, 0.13, ("c63d1e", "e0642a", "f0a03c", "f9d476")),
    ]
    for k, crest in enumerate((0.5, 0.61, 0.73, 0.85)):
        swing = (5.0 - 0.4 * k) * x + 1.9 * k
        layers.append((y - crest - 0.09 * np.abs(np.sin(swing + 0.35 * np.sin(2 * swing))), 0.2, WATER))
        if k == 0:
            layers += fish(x - 0.34, y - 0.4, -0.55, 0.56)
        if k == 2:
            layers += fish(0.92 - x, y - 0.72, -0.35, 0.42)
    return layers


def mosaic(size: int = 720) -> Image.Image:
    """Set two fish before a low sun in stone: tiles stand square to the contours and lie in rows along them."""
    rng = np.random.default_rng(14)  # a seed that leaves each fish a pupil
    x, y = canvas(size)
    height, width = x.shape
    tile, reach = 25, 43
    region, depth, mottle = np.zeros(x.shape, int), np.zeros_like(x), 0.09 * noise(rng, x, tile)
    grain, colours = np.zeros((*x.shape, 2)), np.zeros((*x.shape, 3))
    for k, (inward, deep, codes) in enumerate(sea(x, y)):
        slope_y, slope_x = np.gradient(inward)
        way = np.stack([slope_x, slope_y], -1) / (np.hypot(slope_x, slope_y) + 1e-9)[..., None]
        inside = inward > 0
        region[inside], depth[inside], grain[inside] = k, (inward * height)[inside], way[inside]
        colours[inside] = ramp(codes, np.clip(inward / deep + mottle, 0, 1))[inside]
    rows, columns = np.mgrid[tile / 2 : height : tile, tile / 2 : width : tile]
    seeds = np.stack([columns.ravel(), rows.ravel()], -1) + tile * rng.uniform(-0.4, 0.4, (rows.size, 2))
    home, label = at(region, seeds), np.zeros(x.shape, int)
    for _ in range(10):  # Lloyd's iteration under a square distance that is turned along the grain
        nearest = np.full(x.shape, np.inf)
        for k, ((sx, sy), (gx, gy)) in enumerate(zip(seeds, at(grain, seeds), strict=True)):
            left, top = max(0, int(sx) - reach), max(0, int(sy) - reach)
            window = np.s_[top : int(sy) + reach, left : int(sx) + reach]
            dx = np.arange(left, left + nearest[window].shape[1]) - sx
            dy = np.arange(top, top + nearest[window].shape[0])[:, None] - sy
            distance = np.maximum(np.abs(gx * dx + gy * dy), 0.9 * np.abs(gx * dy - gy * dx))
            distance += reach * (region[window] != home[k])  # a tile stays in its own layer
            closer = distance < nearest[window]
            nearest[window][closer], label[window][closer] = distance[closer], k
        area = np.bincount(label.ravel(), minlength=len(seeds))[:, None]
        sums = [np.bincount(label.ravel(), p.ravel(), len(seeds)) for p in (x * height, y * height)]
        seeds = np.where(area > 0, np.stack(sums, -1) / np.maximum(area, 1), seeds)
        # Hausner stops here; sliding each tile to the middle of its row makes the rows continuous
        offset = tile / 2 - at(depth, seeds) % tile
        seeds = seeds + np.where(at(region, seeds) == home, offset, 0)[:, None] * at(grain, seeds)

    tint = at(colours, seeds) * (1 + rng.normal(0, 0.1, (len(seeds), 1)) + rng.normal(0, 0.03, (len(seeds), 3)))
    joint = np.any(np.gradient(label.astype(float)), axis=0)
    gap = np.clip((blur(joint, 1.5) - 0.32) / 0.12, 0, 1)[..., None]
    slope_y, slope_x = np.gradient(blur(joint, 2.6))
    light = 1 + 1.2 * (slope_y + 0.7 * slope_x) + 0.05 * noise(rng, x, 5) + 0.05 * noise(rng, x, 14)
    mortar = np.array([78, 68, 60]) * (1 + 0.12 * noise(rng, x, 3)[..., None])
    return finish((1 - gap) * tint[label] * light[..., None] + gap * mortar)


def bay(rng: np.random.Generator, x: Array, y: Array, wobble: Array) -> tuple[list[Cut], NDArray[np.bool_]]:
    """Return the cuts of a bay under a rising sun, back to front, and the plate of the second ink."""
    px, sx, sy = 1 / x.shape[0], 0.84, 0.34
    r, angle = np.hypot(x - sx, y - sy), np.arctan2(y - sy, x - sx)
    rays = 0.22 * np.clip(3 * np.cos(28 * angle + 0.3 * wobble), -1, 1)
    cuts = [(r, r / (15 * px), 0.1 + np.minimum(0.6 * r, 0.55) + rays)]
    sun = 0.125 - r
    cuts.append((sun, y / (13 * px), np.clip(6 * (y - sy - 0.02), 0, 0.6)))
    for cx, cy, s in ((0.42, 0.15, 1.0), (1.14, 0.12, 0.7)):
        puffs = ((-0.2, 0.04, 0.05), (-0.11, 0.015, 0.075), (0.0, -0.01, 0.1), (0.1, 0.015, 0.075), (0.2, 0.04, 0.05))
        cloud = np.max([s * wide - np.hypot(x - cx - s * a, y - cy - s * b) for a, b, wide in puffs], axis=0)
        cloud = np.minimum(cloud, cy + 0.07 * s + 0.008 * np.sin(40 * x) - y)
        cuts.append((cloud, (y - 0.6 * cloud) / (10 * px), np.clip(0.14 + 7 * (y - cy) / s, 0, 0.75)))
    for base, tall, shift in ((0.52, 0.26, 2.15), (0.55, 0.14, 1.33)):
        peaks = 1 - np.abs(np.sin(3.3 * x + shift)) + 0.1 * np.abs(np.sin(11 * x + shift))
        below = y - base + tall * peaks + 0.01 * np.sin(31 * x)
        shady = np.sin(6.6 * (x + 0.25 * below + 0.006 * wobble) + 2 * shift) < 0  # the face left of its peak
        lines = np.where(shady, x - 0.7 * y, x + 0.9 * y) / (12 * px)
        cuts.append((below, lines, np.where(shady, 0.85, 0.28) - 0.8 * np.clip(below, 0, 0.25)))
    water = y - 0.54
    glitter = np.exp(-(((x - sx) / (0.06 + 0.3 * np.abs(water))) ** 2))
    swell = 0.4 * np.sin(30 * x + 2 * wobble) * np.clip(8 * water, 0, 1)
    cuts.append((water, water / (11 * px) + swell, 0.75 - 0.6 * glitter + 0.1 * wobble))
    hill = y - 0.76 + 0.12 * np.sin(2.4 * x + 0.9) + 0.02 * np.sin(9 * x)
    cuts.append((hill, hill * (1 + 0.25 * np.sin(7 * x)) / (15 * px), np.clip(0.75 - 2.2 * hill, 0.3, 1)))
    away = np.maximum(y - 0.5, 0.01)
    furrows = 0.62 + 0.2 * np.sin(60 * np.log(away) + wobble)
    cuts.append((y - 0.86 + 0.1 * np.sin(2.1 * x - 1.2), 22 * (x - 0.5) / away, furrows))
    trees = ((0.13, 0.97, 0.78, 0.085), (0.02, 0.99, 0.5, 0.06), (0.62, 0.78, 0.2, 0.03), (0.69, 0.8, 0.15, 0.025))
    for cx, foot, tall, wide in (*trees, (1.2, 0.9, 0.3, 0.04)):
        t = np.clip((foot - y) / tall, 0, 1)
        off = x - cx - 0.12 * wide * np.sin(9 * t)
        flame = wide * (np.sin(np.pi * t**0.55) ** 0.8 + 0.09 * noise(rng, x, 150 * wide)) - np.abs(off)
        flame = np.where((t > 0) & (t < 1), flame, -1)
        cuts.append((flame, (np.abs(off) + 0.35 * y) / (11 * px) + 0.5 * wobble, 0.95 - 0.45 * off / wide))
    dashes = (water > 0) & (hill < 0) & (glitter > 0.5 + 0.35 * np.sin(water / (4 * px) + 2 * wobble))
    return cuts, (np.roll(sun, 5, 1) > 0) | dashes  # the second block never quite meets the first


def woodcut(size: int = 720) -> Image.Image:
    """Cut a bay under a rising sun in wood, and print it in black and vermilion on cream paper."""
    rng = np.random.default_rng(3)
    x, y = canvas(size)
    wobble, swell, ink = noise(rng, x, 60), 0.07 * noise(rng, x, 34) + 0.04 * noise(rng, x, 9), np.zeros_like(x)
    cuts, plate = bay(rng, x, y, wobble)
    for inside, lines, dark in cuts:
        ridge = np.abs(2 * ((lines + 0.16 * wobble) % 1) - 1)
        outline = 4 - np.abs(inside) * x.shape[0]
        printed = np.clip(np.maximum(6 * (dark + swell - ridge), outline), 0, 1)
        ink = np.where(inside * x.shape[0] > -4, printed, ink)
    ink *= np.clip(2.6 - noise(rng, x, 3), 0, 1)  # here and there the black does not take
    paper = CREAM * (1 + 0.012 * noise(rng, x, 2)[..., None])
    paper = np.where(plate[..., None], VERMILION * (1 + 0.05 * noise(rng, x, 3)[..., None]), paper)
    return finish(paper + ink[..., None] * (BLACK - paper))


def photograph(name: str) -> Image.Image:
    """Return a picture that scikit-image ships, at most 512 pixels wide."""
    from skimage import data  # pyright: ignore[reportMissingImports]  (the project does not depend on it)

    picture = Image.fromarray(getattr(data, name)())
    picture.thumbnail((512, 512), Image.Resampling.LANCZOS)
    return picture


STYLES: dict[str, Callable[[], Image.Image]] = {"mosaic": mosaic, "strokes": strokes, "woodcut": woodcut}
PHOTOGRAPHS = ("cat", "coffee", "rocket")


def main(output: Path = Path("examples"), only: tuple[str, ...] = ()) -> str | None:
    """Write the example pictures as JPEG files.

    Args:
        output: the folder to write to.
        only: names of the pictures to make (cat coffee rocket mosaic strokes woodcut); all of them if none is given.

    Returns:
        What went wrong, in one sentence, or None.
    """
    names = (*PHOTOGRAPHS, *STYLES)
    if not output.is_dir():
        return f"{output} is not a folder: make it first, or name another with --output."
    if unknown := sorted(set(only) - set(names)):
        return f"{unknown[0]!r} is no example picture: choose from {' '.join(names)}."
    for name in only or names:
        try:
            picture = STYLES[name]() if name in STYLES else photograph(name)
            picture.save(output / f"{name}.jpg", quality=90, subsampling=0, optimize=True)
        except ImportError:
            return f"{name} comes with scikit-image, which is missing: install it, or pass --only {' '.join(STYLES)}."
        except OSError as error:
            return f"{output / name}.jpg cannot be written: {error.strerror}; name another folder with --output."
        print(f"{output / name}.jpg: {picture.width} x {picture.height} pixels")
    return None


if __name__ == "__main__":
    if problem := tyro.cli(main):
        print(problem, file=sys.stderr)
        sys.exit(2)

"""An image in overlapping tiles: sums over its pixels and their exact gradient, in the memory of one tile.

Statistics are sums over pixels, so they add up over tiles. The network processes the window of each tile: the tile and
a margin of the radius of the deepest receptive field, so that the values of the tile are those of the full image.
Pixels of the margin are not part of the sums. The gradient recomputes each tile with the cotangents of the statistics.

All windows of a grid have the same size and end at the image border, so that the network pads them as it pads the full
image.

Galerne, Raad, Lezama and Morel, *Scaling Painting Style Transfer*, arXiv:2212.13459, use tiles for L-BFGS and Gram
matrices, in a Python loop. Deviations: any sum over pixels, one program, windows that end at the image border.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError

ALIGNMENT = 16  # pixels; VGG-19 pools four times, and windows that start at multiples of 16 are pooled as the image is


class Tile(NamedTuple):
    """Position of a tile: row and column of the image in pixels, `[2]` each."""

    window: jax.Array  # start of its window; negative only in a circular image
    start: jax.Array
    end: jax.Array
    circular: bool  # whether the image is periodic

    def mask(self, height: int, width: int, *, stride: int) -> jax.Array:
        """Return a mask of the pixels of the tile in a layer of its window, `[height, width]`."""
        sides = []
        for window, start, end, side in zip(self.window, self.start, self.end, (height, width), strict=True):
            at = window // stride + jnp.arange(side)
            sides.append((at >= start // stride) & (at < end // stride))
        return sides[0][:, None] & sides[1][None, :]

    def cut(self, x: jax.Array, height: int, width: int, *, stride: int, axis: int) -> jax.Array:
        """Return the window, `[height, width]`, of a layer of the image whose rows are along `axis`."""
        for window, side, along in zip(self.window, (height, width), (axis, axis + 1), strict=True):
            begin = window // stride
            if self.circular:
                x = jnp.take(x, begin + jnp.arange(side), axis=along, mode="wrap")
            else:
                x = jax.lax.dynamic_slice_in_dim(x, begin, side, axis=along)
        return x


@dataclass(frozen=True)
class Grid:
    """Tiles of an image."""

    height: int
    width: int
    window: tuple[int, int]  # height and width of all windows
    rows: tuple[tuple[int, int, int], ...]  # window, start and end of each row of tiles, as in `Tile`
    columns: tuple[tuple[int, int, int], ...]
    circular: bool

    def positions(self) -> jax.Array:
        """Return window, start and end of each tile, `[tiles, 3, 2]`."""
        return jnp.asarray([list(zip(row, column, strict=True)) for row in self.rows for column in self.columns])

    def tile(self, position: jax.Array) -> Tile:
        """Return the tile at one of `positions`."""
        window, start, end = position
        return Tile(window, start, end, self.circular)

    @property
    def padding(self) -> tuple[int, int]:
        """Number of rows and columns by which windows extend beyond a circular image; else 0."""
        return -self.rows[0][0], -self.columns[0][0]


def grid(height: int, width: int, *, max_pixels: int | None, halo: int, circular: bool = False) -> Grid | None:
    """Return the grid of windows of at most `max_pixels` with the fewest pixels in total; None if none is needed."""
    if max_pixels is None or height * width <= max_pixels:
        return None
    if circular and (height % ALIGNMENT or width % ALIGNMENT):
        raise InputError(
            f"A tileable image of {width}x{height} pixels cannot be processed in tiles: "
            f"make height and width multiples of {ALIGNMENT}."
        )
    margin = -(-halo // ALIGNMENT)
    high, wide = (_windows(side, margin, circular) for side in (height, width))
    fitting = [
        (rows * high[rows] * columns * wide[columns], rows, columns)
        for rows in high
        for columns in wide
        if high[rows] * wide[columns] <= max_pixels
    ]
    if not fitting:
        raise InputError(
            f"The smallest tile has {min(high.values()) * min(wide.values())} pixels with its margin, but tile_pixels "
            f"is {max_pixels}: raise it, or drop deep layers."
        )
    _, rows, columns = min(fitting)
    spans = partial(_spans, margin=ALIGNMENT * margin, circular=circular)
    window = high[rows], wide[columns]
    return Grid(height, width, window, spans(height, window[0], rows), spans(width, window[1], columns), circular)


def _windows(side: int, margin: int, circular: bool) -> dict[int, int]:
    """Return the smallest side of a window, in pixels, for each possible number of tiles along a side."""
    units = side // ALIGNMENT
    shared = units if circular else units - 2 * margin  # margins at the border are part of tiles
    windows = {1: ALIGNMENT * (units + 2 * margin) if circular else side}
    for tile in range(max(1, shared) - 1, 0, -1):  # for each number, the smallest tiles come last
        windows[-(-shared // tile)] = ALIGNMENT * (tile + 2 * margin) + side % ALIGNMENT
    return windows


def _spans(side: int, window: int, count: int, *, margin: int, circular: bool) -> tuple[tuple[int, int, int], ...]:
    """Return window, start and end of each tile along a side, in pixels."""
    tile, outside = window // ALIGNMENT * ALIGNMENT - 2 * margin, margin if circular else 0
    cuts = [0, *(tile * i + margin - outside for i in range(1, count)), side]
    last = side + outside - window
    return tuple(
        (min(max(start - margin, -outside), last), start, end) for start, end in zip(cuts[:-1], cuts[1:], strict=True)
    )


def sum_over_tiles(
    function: Callable[[jax.Array, Tile, Any], Any], image: jax.Array, context: Any, *, grid: Grid
) -> Any:
    """Return the sum of `function` over all tiles of `image`, `[..., H, W, 3]`, and its exact gradient tile by tile."""
    padded, positions = _padded(image, grid), grid.positions()

    @partial(jax.checkpoint, prevent_cse=False)  # recomputes a tile for the gradient; a loop is not merged with another
    def of_tile(padded: jax.Array, context: Any, position: jax.Array) -> Any:
        tile = grid.tile(position)
        return function(_window(padded, tile, grid), tile, context)

    def add(sums: Any, position: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, of_tile(padded, context, position)), None

    shapes = jax.eval_shape(of_tile, padded, context, positions[0])
    zeros = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), shapes)
    return jax.lax.scan(add, zeros, positions)[0]


def map_tiles(function: Callable[[jax.Array], jax.Array], image: jax.Array, *, grid: Grid, stride: int) -> jax.Array:
    """Return a layer of an image `[..., H, W, 3]`, `[..., H // stride, W // stride, C]`, from those of its windows."""
    padded, positions = _padded(image, grid), grid.positions()
    padding = [pixels // stride for pixels in grid.padding]
    shape = [side // stride + 2 * more for side, more in zip((grid.height, grid.width), padding, strict=True)]
    of_window = jax.eval_shape(lambda: function(_window(padded, grid.tile(positions[0]), grid)))
    height, width, channels = of_window.shape[-3:]

    def put(layer: jax.Array, position: jax.Array) -> tuple[jax.Array, None]:
        tile = grid.tile(position)
        begin = [window // stride + more for window, more in zip(tile.window, padding, strict=True)]
        mask = tile.mask(height, width, stride=stride)[..., None]
        result = function(_window(padded, tile, grid))
        result = jnp.where(jnp.broadcast_to(mask, result.shape), result, _slice(layer, begin, (height, width)))
        return _put(layer, result, begin), None

    layer = jnp.zeros((*image.shape[:-3], *shape, channels), of_window.dtype)
    layer, _ = jax.lax.scan(put, layer, positions)
    return layer[..., padding[0] : shape[0] - padding[0], padding[1] : shape[1] - padding[1], :]


def _padded(image: jax.Array, grid: Grid) -> jax.Array:
    """Return a circular image padded periodically by the extent of the windows; others unchanged."""
    if not grid.circular:
        return image
    rows_and_columns = [(pixels, pixels) for pixels in grid.padding]
    return jnp.pad(image, [(0, 0)] * (image.ndim - 3) + [*rows_and_columns, (0, 0)], mode="wrap")


def _begin(tile: Tile, grid: Grid) -> list[jax.Array]:
    return [window + padding for window, padding in zip(tile.window, grid.padding, strict=True)]


def _window(padded: jax.Array, tile: Tile, grid: Grid) -> jax.Array:
    return _slice(padded, _begin(tile, grid), grid.window)


def _slice(x: jax.Array, begin: Sequence[Any], sides: Sequence[int]) -> jax.Array:
    for axis, start, side in zip((-3, -2), begin, sides, strict=True):
        x = jax.lax.dynamic_slice_in_dim(x, start, side, axis=axis)
    return x


def _put(x: jax.Array, part: jax.Array, begin: Sequence[Any]) -> jax.Array:
    zero = jnp.zeros((), jnp.result_type(*begin))
    return jax.lax.dynamic_update_slice(x, part, [*[zero] * (x.ndim - 3), *begin, zero])

"""How an image is cut into blocks, each seen through a window that reaches as far beyond it as the deepest layer sees.

All windows of a grid have the same size and end where the image does, so that what a network sees outside of an image
is there as it is for the whole image, and nothing else has to be made up.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError

TILE = 16  # pixels: VGG-19 halves four times, so that windows which begin at multiples of it are halved as the image is


class Block(NamedTuple):
    """Where a block lies; pairs are of rows and columns of the image, in pixels.

    Attributes:
        start: where its window begins; before 0 only where the image is circular.
        first: where the block begins.
        last: where it ends.
        circular: whether the image continues across its border.
    """

    start: tuple[jax.Array, jax.Array]
    first: tuple[jax.Array, jax.Array]
    last: tuple[jax.Array, jax.Array]
    circular: bool

    def own(self, height: int, width: int, *, stride: int) -> jax.Array:
        """Return which pixels of a layer of the window are the block's own, `[height, width]`.

        Args:
            height: of the layer of the window.
            width: likewise.
            stride: pixels of the image that one of the layer stands for.
        """
        sides = []
        for start, first, last, side in zip(self.start, self.first, self.last, (height, width), strict=True):
            place = start // stride + jnp.arange(side)
            sides.append((place >= first // stride) & (place < last // stride))
        return sides[0][:, None] & sides[1][None, :]

    def cut(self, x: jax.Array, height: int, width: int, *, stride: int, axis: int) -> jax.Array:
        """Return what the window, `[height, width]`, sees of `x`, a layer of the image whose rows are `axis`.

        Args:
            x: `[..., h, w, ...]`.
            height: of the layer of the window.
            width: likewise.
            stride: as for `own`.
            axis: of the rows, before that of the columns.
        """
        for start, side, along in zip(self.start, (height, width), (axis, axis + 1), strict=True):
            begin = start // stride
            if self.circular:
                x = jnp.take(x, begin + jnp.arange(side), axis=along, mode="wrap")
            else:
                x = jax.lax.dynamic_slice_in_dim(x, begin, side, axis=along)
        return x


@dataclass(frozen=True)
class Grid:
    """How an image is cut.

    Attributes:
        height: of the image, in pixels.
        width: likewise.
        window: height and width of all windows.
        rows: start, first and last of each row of blocks, as in `Block`.
        columns: likewise.
        circular: whether the image continues across its border.
    """

    height: int
    width: int
    window: tuple[int, int]
    rows: tuple[tuple[int, int, int], ...]
    columns: tuple[tuple[int, int, int], ...]
    circular: bool

    def places(self) -> jax.Array:
        """Return start, first and last of each block, `[blocks, 3, 2]`."""
        return jnp.asarray([list(zip(row, column, strict=True)) for row in self.rows for column in self.columns])

    def block(self, place: jax.Array) -> Block:
        """Return the block at one of `places`."""
        start, first, last = ((pair[0], pair[1]) for pair in place)
        return Block(start, first, last, self.circular)

    @property
    def beyond(self) -> tuple[int, int]:
        """How many rows and columns before the image windows begin."""
        return -self.rows[0][0], -self.columns[0][0]


def grid(height: int, width: int, *, most: int | None, halo: int, circular: bool = False) -> Grid | None:
    """Return how to cut an image so that all windows together have as few pixels as can be.

    Args:
        height: of the image, in pixels.
        width: likewise.
        most: pixels of a window; None for as many as there are.
        halo: pixels that the deepest layer sees around its own.
        circular: whether the image continues across its border.

    Returns:
        The grid, or None for an image that need not be cut.

    Raises:
        InputError: if the smallest window is larger than `most`, or if a circular image does not divide into tiles.

    Example:
        >>> grid(1000, 700, most=2**19, halo=70).window
        (584, 700)
    """
    if most is None or height * width <= most:
        return None
    if circular and (height % TILE or width % TILE):
        raise InputError(
            f"A tileable picture of {width}x{height} pixels cannot be cut into blocks: "
            f"make height and width multiples of {TILE}."
        )
    margin = -(-halo // TILE)
    high, wide = (_windows(side, margin, circular) for side in (height, width))
    fitting = [
        (rows * high[rows] * columns * wide[columns], rows, columns)
        for rows in high
        for columns in wide
        if high[rows] * wide[columns] <= most
    ]
    if not fitting:
        raise InputError(
            f"The smallest block takes {min(high.values()) * min(wide.values())} pixels with what the network sees "
            f"around it, but {most} are allowed: allow as many, or drop deep layers."
        )
    _, rows, columns = min(fitting)
    cut = partial(_spans, margin=TILE * margin, circular=circular)
    window = high[rows], wide[columns]
    return Grid(height, width, window, cut(height, window[0], rows), cut(width, window[1], columns), circular)


def smallest_window(halo: int) -> int:
    """Return with how many pixels of a window an image of any size can be cut.

    Args:
        halo: as for `grid`.

    Returns:
        Pixels: of a tile with what is seen around it and what may be left of a side that does not divide into tiles.

    Example:
        >>> smallest_window(70) == (16 + 2 * 80 + 16) ** 2
        True
    """
    return (TILE * (2 * -(-halo // TILE) + 2)) ** 2


def _windows(side: int, margin: int, circular: bool) -> dict[int, int]:
    """Return into how many blocks a side can be cut, and for each number the least side of a window, in pixels."""
    units = side // TILE
    shared = units if circular else units - 2 * margin  # the margins at the border are blocks' own as well
    found = {1: TILE * (units + 2 * margin) if circular else side}
    for own in range(max(1, shared) - 1, 0, -1):  # the least tiles that make so many blocks come last
        found[-(-shared // own)] = TILE * (own + 2 * margin) + side % TILE
    return found


def _spans(side: int, window: int, count: int, *, margin: int, circular: bool) -> tuple[tuple[int, int, int], ...]:
    """Return start, first and last of each block along a side, in pixels."""
    own, outside = window // TILE * TILE - 2 * margin, margin if circular else 0
    cuts = [0, *(own * i + margin - outside for i in range(1, count)), side]
    most = side + outside - window
    return tuple(
        (min(max(first - margin, -outside), most), first, last) for first, last in zip(cuts[:-1], cuts[1:], strict=True)
    )

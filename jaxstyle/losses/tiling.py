"""An image in overlapping tiles: sums over its pixels and their exact gradient, in the memory of one tile.

Statistics are sums over pixels, so they add up over tiles. The network processes the window of each tile (`Block`): the
tile and a margin of the radius of the deepest receptive field, so that the values of the tile are those of the full
image. Pixels of the margin are not part of the sums. The gradient recomputes each tile with the cotangents of the
statistics.

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
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from jaxstyle.errors import InputError

TILE = 16  # pixels; VGG-19 pools four times, and windows that start at multiples of 16 are pooled as the image is


class Block(NamedTuple):
    """Position of a tile; pairs are rows and columns of the image, in pixels.

    Attributes:
        start: start of its window; negative only in a circular image.
        first: start of the tile.
        last: end of the tile.
        circular: whether the image is periodic.
    """

    start: tuple[jax.Array, jax.Array]
    first: tuple[jax.Array, jax.Array]
    last: tuple[jax.Array, jax.Array]
    circular: bool

    def own(self, height: int, width: int, *, stride: int) -> jax.Array:
        """Return a mask of the pixels of the tile in a layer of its window, `[height, width]`.

        Args:
            height: of the layer of the window.
            width: of the layer of the window.
            stride: stride of the layer, in pixels of the image.
        """
        sides = []
        for start, first, last, side in zip(self.start, self.first, self.last, (height, width), strict=True):
            place = start // stride + jnp.arange(side)
            sides.append((place >= first // stride) & (place < last // stride))
        return sides[0][:, None] & sides[1][None, :]

    def cut(self, x: jax.Array, height: int, width: int, *, stride: int, axis: int) -> jax.Array:
        """Return the window, `[height, width]`, of a layer of the image.

        Args:
            x: layer of the image, `[..., h, w, ...]`.
            height: of the layer of the window.
            width: of the layer of the window.
            stride: as for `own`.
            axis: axis of the rows; that of the columns follows.
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
    """Tiles of an image.

    Attributes:
        height: of the image, in pixels.
        width: of the image, in pixels.
        window: height and width of all windows.
        rows: start, first and last of each row of tiles, as in `Block`.
        columns: start, first and last of each column of tiles.
        circular: whether the image is periodic.
    """

    height: int
    width: int
    window: tuple[int, int]
    rows: tuple[tuple[int, int, int], ...]
    columns: tuple[tuple[int, int, int], ...]
    circular: bool

    def places(self) -> jax.Array:
        """Return start, first and last of each tile, `[tiles, 3, 2]`."""
        return jnp.asarray([list(zip(row, column, strict=True)) for row in self.rows for column in self.columns])

    def block(self, place: jax.Array) -> Block:
        """Return the tile of one of `places`."""
        start, first, last = ((pair[0], pair[1]) for pair in place)
        return Block(start, first, last, self.circular)

    @property
    def beyond(self) -> tuple[int, int]:
        """Number of rows and columns by which windows extend beyond the image."""
        return -self.rows[0][0], -self.columns[0][0]


def grid(height: int, width: int, *, most: int | None, halo: int, circular: bool = False) -> Grid | None:
    """Return the grid of tiles whose windows have the fewest pixels in total.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        most: maximum number of pixels of a window; None for no limit.
        halo: radius of the receptive field of the deepest layer, in pixels.
        circular: whether the image is periodic.

    Returns:
        The grid, or None for an image that needs no tiles.

    Raises:
        InputError: if the smallest window is larger than `most`, or if the sides of a circular image are not multiples
            of 16.

    Example:
        >>> grid(1000, 700, most=2**19, halo=70).window
        (584, 700)
    """
    if most is None or height * width <= most:
        return None
    if circular and (height % TILE or width % TILE):
        raise InputError(
            f"A tileable image of {width}x{height} pixels cannot be processed in tiles: "
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
            f"The smallest tile has {min(high.values()) * min(wide.values())} pixels with its margin, but tile_pixels "
            f"is {most}: raise it, or drop deep layers."
        )
    _, rows, columns = min(fitting)
    cut = partial(_spans, margin=TILE * margin, circular=circular)
    window = high[rows], wide[columns]
    return Grid(height, width, window, cut(height, window[0], rows), cut(width, window[1], columns), circular)


def smallest_window(halo: int) -> int:
    """Return the number of pixels of a window that suffices for images of any size.

    Args:
        halo: as for `grid`.

    Returns:
        Pixels of a tile with its margin and the remainder of a side that is not a multiple of 16.

    Example:
        >>> smallest_window(70) == (16 + 2 * 80 + 16) ** 2
        True
    """
    return (TILE * (2 * -(-halo // TILE) + 2)) ** 2


def _windows(side: int, margin: int, circular: bool) -> dict[int, int]:
    """Return the smallest side of a window, in pixels, for each possible number of tiles along a side."""
    units = side // TILE
    shared = units if circular else units - 2 * margin  # margins at the border are part of tiles
    found = {1: TILE * (units + 2 * margin) if circular else side}
    for own in range(max(1, shared) - 1, 0, -1):  # for each number, the smallest tiles come last
        found[-(-shared // own)] = TILE * (own + 2 * margin) + side % TILE
    return found


def _spans(side: int, window: int, count: int, *, margin: int, circular: bool) -> tuple[tuple[int, int, int], ...]:
    """Return start, first and last of each tile along a side, in pixels."""
    own, outside = window // TILE * TILE - 2 * margin, margin if circular else 0
    cuts = [0, *(own * i + margin - outside for i in range(1, count)), side]
    most = side + outside - window
    return tuple(
        (min(max(first - margin, -outside), most), first, last) for first, last in zip(cuts[:-1], cuts[1:], strict=True)
    )


def sum_over_blocks(
    function: Callable[[jax.Array, Block, Any], Any], image: jax.Array, context: Any, *, grid: Grid
) -> Any:
    """Return the sum of `function` over all tiles, with the exact gradient computed tile by tile.

    Forward-mode differentiation is not supported.

    Args:
        function: function of a window `[..., h, w, 3]`, its tile and the context that returns a pytree of sums over the
            pixels of the tile; it may be called any number of times.
        image: `[..., H, W, 3]`.
        context: pytree of all other arrays that `function` depends on.
        grid: of `grid`.

    Returns:
        The pytree of sums.

    Example:
        >>> cut = grid(512, 512, most=2**17, halo=70)
        >>> function = lambda window, block, _: jnp.sum(window[..., 0] * block.own(*window.shape[:2], stride=1))
        >>> float(sum_over_blocks(function, jnp.ones((512, 512, 3)), None, grid=cut)) == 512 * 512
        True
    """
    return _sum(function, grid, _around(image, grid), context)


def map_blocks(function: Callable[[jax.Array], jax.Array], image: jax.Array, *, grid: Grid, stride: int) -> jax.Array:
    """Return a layer of the image, assembled from the layers of its windows.

    Args:
        function: maps a window `[..., h, w, 3]` to its layer, `[..., h // stride, w // stride, C]`.
        image: `[..., H, W, 3]`.
        grid: of `grid`.
        stride: stride of the layer, in pixels of the image.

    Returns:
        `[..., H // stride, W // stride, C]`.

    Example:
        >>> cut = grid(512, 512, most=2**17, halo=70)
        >>> map_blocks(lambda window: window, jnp.ones((512, 512, 3)), grid=cut, stride=1).shape
        (512, 512, 3)
    """
    around, places = _around(image, grid), grid.places()
    beyond = [pixels // stride for pixels in grid.beyond]
    whole = [side // stride + 2 * own for side, own in zip((grid.height, grid.width), beyond, strict=True)]
    of_window = jax.eval_shape(lambda: function(_window(around, grid.block(places[0]), grid)))
    high, wide, channels = of_window.shape[-3:]

    def put(layer: jax.Array, place: jax.Array) -> tuple[jax.Array, None]:
        block = grid.block(place)
        begin = [start // stride + own for start, own in zip(block.start, beyond, strict=True)]
        own = block.own(high, wide, stride=stride)[..., None]
        found = function(_window(around, block, grid))
        there = jnp.where(jnp.broadcast_to(own, found.shape), found, _slice(layer, begin, (high, wide)))
        return _put(layer, there, begin), None

    layer = jnp.zeros((*image.shape[:-3], *whole, channels), of_window.dtype)
    layer, _ = jax.lax.scan(put, layer, places)
    return layer[..., beyond[0] : whole[0] - beyond[0], beyond[1] : whole[1] - beyond[1], :]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum(function: Callable[..., Any], grid: Grid, around: jax.Array, context: Any) -> Any:
    places = grid.places()

    def of_block(place: jax.Array) -> Any:
        block = grid.block(place)
        return function(_window(around, block, grid), block, context)

    def add(sums: Any, place: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, of_block(place)), None

    nothing = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), jax.eval_shape(of_block, places[0]))
    return jax.lax.scan(add, nothing, places)[0]


def _forwards(function: Callable[..., Any], grid: Grid, around: CustomVJPPrimal, context: Any) -> tuple[Any, Any]:
    """Return the sums and the residuals: the inputs, and those leaves that are differentiated (None for the others)."""
    leaves, structure = jax.tree.flatten(context, is_leaf=lambda each: isinstance(each, CustomVJPPrimal))
    context = jax.tree.unflatten(structure, [leaf.value for leaf in leaves])
    moving = [leaf.value if leaf.perturbed else None for leaf in leaves]
    return _sum(function, grid, around.value, context), (around.value, context, moving)


def _backwards(function: Callable[..., Any], grid: Grid, kept: Any, cotangents: Any) -> tuple[jax.Array, Any]:
    around, context, moving = kept
    fixed, structure = jax.tree.flatten(context)
    cotangents = jax.tree.map(_filled, cotangents, is_leaf=lambda each: isinstance(each, SymbolicZero))

    def add(gradients: Any, place: jax.Array) -> tuple[Any, None]:
        block = grid.block(place)

        def of_window(window: jax.Array, moving: list[Any]) -> Any:
            merged = [own if other is None else other for own, other in zip(fixed, moving, strict=True)]
            return function(window, block, jax.tree.unflatten(structure, merged))

        by_window, by_context = jax.vjp(of_window, _window(around, block, grid), moving)[1](cotangents)
        gradient, others = gradients
        begin = _begin(block, grid)
        there = by_window + _slice(gradient, begin, grid.window)
        return (_put(gradient, there, begin), jax.tree.map(jnp.add, others, by_context)), None

    nothing = jax.tree.map(jnp.zeros_like, (around, moving))
    (gradient, others), _ = jax.lax.scan(add, nothing, grid.places())
    return gradient, jax.tree.unflatten(structure, others)


def _filled(cotangent: Any) -> Any:
    """Return zeros for a symbolic zero."""
    if not isinstance(cotangent, SymbolicZero):
        return cotangent
    value: Any = cotangent.aval
    return jnp.zeros(value.shape, value.dtype)


_sum.defvjp(_forwards, _backwards, symbolic_zeros=True)


def _around(image: jax.Array, grid: Grid) -> jax.Array:
    """Return a circular image padded periodically by the extent of the windows; others unchanged."""
    if not grid.circular:
        return image
    beyond = [(pixels, pixels) for pixels in grid.beyond]
    return jnp.pad(image, [(0, 0)] * (image.ndim - 3) + [*beyond, (0, 0)], mode="wrap")


def _begin(block: Block, grid: Grid) -> list[jax.Array]:
    return [start + beyond for start, beyond in zip(block.start, grid.beyond, strict=True)]


def _window(around: jax.Array, block: Block, grid: Grid) -> jax.Array:
    return _slice(around, _begin(block, grid), grid.window)


def _slice(x: jax.Array, begin: Sequence[Any], sides: Sequence[int]) -> jax.Array:
    """Return rows and columns of `x`, `[..., H, W, C]`."""
    for axis, start, side in zip((-3, -2), begin, sides, strict=True):
        x = jax.lax.dynamic_slice_in_dim(x, start, side, axis=axis)
    return x


def _put(x: jax.Array, part: jax.Array, begin: Sequence[Any]) -> jax.Array:
    """Return `x`, `[..., H, W, C]`, with `part` written at `begin`."""
    zero = jnp.zeros((), jnp.result_type(*begin))
    return jax.lax.dynamic_update_slice(x, part, [*[zero] * (x.ndim - 3), *begin, zero])

"""An image in overlapping blocks: sums over its pixels and their exact gradient, in the memory of one block.

Statistics are sums over pixels, so they add up over blocks. Each block is seen through a window that reaches as far
beyond it as the deepest layer sees, so that no pixel of the block knows of the cut. What a window sees beyond its block
is not counted. For the gradient each block is computed again with the statistics' cotangents, which are fixed then.

Galerne, Raad, Lezama and Morel, *Scaling Painting Style Transfer*, arXiv:2212.13459, have this for L-BFGS and Gram
matrices, block by block in Python. Deviations: any sum over pixels, one program, windows that end where the image does.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from jaxstyle.grid import Block, Grid


def sum_over_blocks(
    function: Callable[[jax.Array, Block, Any], Any], image: jax.Array, context: Any, *, grid: Grid
) -> Any:
    """Return the sum of what `function` makes of each block, and have its exact gradient block by block.

    Forward mode is not there.

    Args:
        function: takes a window `[..., h, w, 3]`, its block and the context, and returns a tree of sums over the
            block's own pixels; it may be called any number of times.
        image: `[..., H, W, 3]`.
        context: a tree of whatever else it depends on.
        grid: of `grid`.

    Returns:
        The tree.

    Example:
        >>> from jaxstyle.grid import grid
        >>> cut = grid(512, 512, most=2**17, halo=70)
        >>> function = lambda window, block, _: jnp.sum(window[..., 0] * block.own(*window.shape[:2], stride=1))
        >>> float(sum_over_blocks(function, jnp.ones((512, 512, 3)), None, grid=cut)) == 512 * 512
        True
    """
    return _sum(function, grid, _around(image, grid), context)


def map_blocks(function: Callable[[jax.Array], jax.Array], image: jax.Array, *, grid: Grid, stride: int) -> jax.Array:
    """Return the layer that `function` makes of the windows, put together.

    Args:
        function: takes a window `[..., h, w, 3]` and returns a layer of it, `[..., h // stride, w // stride, C]`.
        image: `[..., H, W, 3]`.
        grid: of `grid`.
        stride: pixels of the image that one of the layer stands for.

    Returns:
        `[..., H // stride, W // stride, C]`.

    Example:
        >>> from jaxstyle.grid import grid
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
    """Return the sums, and what their gradient is made of: the inputs, and those that have one, None for the others."""
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
    """Return zeros where there is no cotangent."""
    if not isinstance(cotangent, SymbolicZero):
        return cotangent
    value: Any = cotangent.aval
    return jnp.zeros(value.shape, value.dtype)


_sum.defvjp(_forwards, _backwards, symbolic_zeros=True)


def _around(image: jax.Array, grid: Grid) -> jax.Array:
    """Return `image` with as much of its other side around it as windows see beyond it."""
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
    """Return `x`, `[..., H, W, C]`, with `part` in its place."""
    zero = jnp.zeros((), jnp.int32)
    return jax.lax.dynamic_update_slice(x, part, [*[zero] * (x.ndim - 3), *begin, zero])

"""Winograd convolution F(2x2, 3x3): sixteen matrix products of a quarter of the pixels instead of nine of all.

A kernel `[3, 3, C, D]` is transformed into the Winograd domain, `[4, 4, C, D]`, once; each convolution then takes 2.25
times fewer multiplications than the direct one, with about the same accuracy. It is used on the CPU, where the direct
convolution runs at peak performance already. On other platforms the same function is a direct convolution.

Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, arXiv:1509.09308.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

TAPS = 4  # rows and columns of a Winograd tile, and of a kernel in the Winograd domain
FLIPPED = (3, 1, 2, 0)  # order of the taps of a flipped kernel


def to_domain(kernel: jax.Array) -> jax.Array:
    r"""Return a kernel `[3, 3, C, D]` in the Winograd domain, :math:`U = G g G^T`, `[4, 4, C, D]`."""

    def each(first: jax.Array, second: jax.Array, third: jax.Array) -> jax.Array:
        outer = first + third
        return jnp.stack([first, (outer + second) / 2, (outer - second) / 2, third])

    return jnp.swapaxes(each(*jnp.swapaxes(each(*kernel), 0, 1)), 0, 1)


def from_domain(kernel: jax.Array) -> jax.Array:
    """Return the kernel `[3, 3, C, D]` of a kernel in the Winograd domain, the inverse of `to_domain`."""

    def each(first: jax.Array, second: jax.Array, third: jax.Array, fourth: jax.Array) -> jax.Array:
        return jnp.stack([first, second - third, fourth])

    return jnp.swapaxes(each(*jnp.swapaxes(each(*kernel), 0, 1)), 0, 1)


def conv(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the convolution of `image`, `[N, H, W, C]`, with a kernel of `to_domain`, zero-padded to keep its size."""
    return winograd_p.bind(image, kernel, transposed=False)


winograd_p = Primitive("winograd")


def _by_products(image: jax.Array, kernel: jax.Array, *, transposed: bool) -> jax.Array:
    """Return the convolution by sixteen products; if `transposed`, with the flipped kernel from D to C channels."""
    if len(image) > 1:  # image by image, so that rounding is the same as for a single image
        each = partial(_by_products, kernel=kernel, transposed=transposed)
        return jax.lax.map(lambda one: each(one[None])[0], image)
    count, height, width, _ = image.shape
    rows, columns = -(-height // 2), -(-width // 2)
    padded = jnp.pad(image, ((0, 0), (1, 2 * rows - height + 1), (1, 2 * columns - width + 1), (0, 0)))
    contract = (((1,), (1 if transposed else 0,)), ((), ()))
    products = []
    for i, row in enumerate(_tiles(padded, axis=1, count=rows)):
        for j, tile in enumerate(_tiles(row, axis=2, count=columns)):
            taps = kernel[FLIPPED[i], FLIPPED[j]] if transposed else kernel[i, j]
            flat = tile.reshape(count * rows * columns, tile.shape[-1])
            products.append(jax.lax.dot_general(flat, taps, contract).reshape(count, rows, columns, -1))
    by_row = [_pixels(*products[TAPS * i : TAPS * (i + 1)], axis=2) for i in range(TAPS)]
    return _pixels(*by_row, axis=1)[:, :height, :width]


def _tiles(x: jax.Array, *, axis: int, count: int) -> list[jax.Array]:
    """Return the four transformed taps of the tiles along `axis`, of width 4 and stride 2."""
    first, second, third, fourth = (
        jax.lax.slice_in_dim(x, i, i + 2 * count - 1, stride=2, axis=axis) for i in range(TAPS)
    )
    return [first - third, second + third, third - second, second - fourth]


def _pixels(first: jax.Array, second: jax.Array, third: jax.Array, fourth: jax.Array, *, axis: int) -> jax.Array:
    """Return the two pixels along `axis` of each four products, interleaved."""
    pair = jnp.stack([first + second + third, second - third - fourth], axis + 1)
    return pair.reshape(*first.shape[:axis], 2 * first.shape[axis], *first.shape[axis + 1 :])


def _directly(image: jax.Array, kernel: jax.Array, *, transposed: bool) -> jax.Array:
    kernel = from_domain(kernel)
    kernel = jnp.swapaxes(kernel[::-1, ::-1], 2, 3) if transposed else kernel
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _transpose_kernel(cotangent: jax.Array, image: jax.Array, kernel: Any, *, transposed: bool) -> jax.Array:
    by_kernel = jax.linear_transpose(partial(_directly, image, transposed=transposed), kernel.aval)
    return by_kernel(cotangent)[0]


def _batch(arguments: Any, axes: Any, *, transposed: bool) -> tuple[jax.Array, int]:
    (image, kernel), (of_image, of_kernel) = arguments, axes
    if of_image is not None:
        image = jnp.moveaxis(image, of_image, 0)
    if of_kernel is None:
        flat = image.reshape(-1, *image.shape[2:])
        result = winograd_p.bind(flat, kernel, transposed=transposed)
        return result.reshape(*image.shape[:2], *result.shape[1:]), 0
    kernel = jnp.moveaxis(kernel, of_kernel, 0)

    if of_image is None:
        return jax.lax.map(lambda each: winograd_p.bind(image, each, transposed=transposed), kernel), 0
    return jax.lax.map(lambda pair: winograd_p.bind(*pair, transposed=transposed), (image, kernel)), 0


winograd_p.def_abstract_eval(
    lambda image, kernel, *, transposed: image.update(shape=(*image.shape[:-1], kernel.shape[2 if transposed else 3]))
)
winograd_p.def_impl(lambda *arguments, **static: jax.jit(partial(winograd_p.bind, **static))(*arguments))
ad.defbilinear(
    winograd_p,
    lambda cotangent, _, kernel, *, transposed: winograd_p.bind(cotangent, kernel, transposed=not transposed),
    _transpose_kernel,
)
batching.primitive_batchers[winograd_p] = _batch
mlir.register_lowering(winograd_p, mlir.lower_fun(_directly, multiple_results=False))
mlir.register_lowering(winograd_p, mlir.lower_fun(_by_products, multiple_results=False), platform="cpu")

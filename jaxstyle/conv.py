"""The 3x3 convolution of VGG, with derivatives that stay fast inside a loop on the CPU."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxstyle import winograd


def conv3x3(image: jax.Array, kernel: jax.Array, *_: object, **__: object) -> jax.Array:
    """Return the convolution of `image` with `kernel` at stride 1, zero-padded to keep its size.

    Value and derivatives are those of `jax.lax.conv_general_dilated`, whose place it takes in Linen's Conv. Only the
    form of the gradient differs. XLA's fast convolution on the CPU wants kernels as [3, 3, in, out]; JAX's own
    transpose asks for [3, 3, out, in], which XLA rewrites at the top of a program but not inside `scan`, where a step
    on VGG-19 then takes several times as long (github.com/jax-ml/jax/issues/12868).

    Args:
        image: `[N, H, W, C]`.
        kernel: `[3, 3, C, D]`, or `[4, 4, C, D]` of `winograd.to_domain`.
        *_: further arguments, which Linen passes as it does to `jax.lax.conv_general_dilated`, are fixed here.
        **__: likewise.

    Returns:
        `[N, H, W, D]`.

    Example:
        >>> conv3x3(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 16))).shape
        (1, 8, 8, 16)
    """
    return _conv(image, kernel) if kernel.shape[0] == 3 else winograd.conv(image, kernel)


@jax.custom_jvp
def _conv(image: jax.Array, kernel: jax.Array) -> jax.Array:
    return _lax_conv(image, kernel, kernel_layout="HWIO")


def _conv_jvp(primals: Any, tangents: Any) -> Any:
    (image, kernel), (d_image, d_kernel) = primals, tangents
    tangent = None
    if not isinstance(d_image, SymbolicZero):
        # Reading a transposed kernel as HWOI gives the same tangent, and JAX turns HWOI into HWIO when it transposes.
        tangent = _lax_conv(d_image, jnp.swapaxes(kernel, 2, 3), kernel_layout="HWOI")
    if not isinstance(d_kernel, SymbolicZero):
        by_kernel = _conv(image, d_kernel)
        tangent = by_kernel if tangent is None else tangent + by_kernel
    return _conv(image, kernel), tangent


_conv.defjvp(_conv_jvp, symbolic_zeros=True)


def _lax_conv(image: jax.Array, kernel: jax.Array, *, kernel_layout: str) -> jax.Array:
    return jax.lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", kernel_layout, "NHWC")
    )

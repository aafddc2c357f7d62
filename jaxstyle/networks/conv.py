"""The 3x3 convolution of VGG, with derivatives that are fast inside a loop on the CPU, and preparation of kernels."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import ge
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero

from jaxstyle.networks import winograd

Params = Mapping[str, Mapping[str, jax.Array]]
Precision = Literal["float32", "tf32", "bfloat16"]

PRODUCTS = {"float32": jax.lax.Precision.HIGHEST, "tf32": jax.lax.Precision.HIGH, "bfloat16": None}
# Input and output channels. With (64, 128) a step of VGG-19 takes 2 to 7 % less time and its compilation 2 s more,
# which the 50 to 140 steps of a scale do not win back.
WINOGRAD_FROM = (128, 256)
# Measured on two cores of a shared host, VGG-19 at 192x256: 0.504 instead of 0.736 s per step, and 6.8 instead of 2.3 s
# to trace and compile. Both scale with the speed of the processor.
COMPILE_SECONDS = 4.5
SECONDS_SAVED = 1.8e-11  # per multiply-add of a forward pass and step


def conv3x3(
    image: jax.Array,
    kernel: jax.Array,
    *_: object,  # of `jax.lax.conv_general_dilated`, which this function replaces in Linen's Conv
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    **__: object,
) -> jax.Array:
    """Return the convolution of `[N, H, W, C]`, zero-padded, by `[3, 3, C, D]` or a kernel of `winograd.to_domain`."""
    return _conv(precision, image, kernel) if kernel.shape[0] == 3 else winograd.conv(image, kernel)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _conv(precision: jax.lax.PrecisionLike, image: jax.Array, kernel: jax.Array) -> jax.Array:
    return _lax_conv(image, kernel, precision, kernel_layout="HWIO")


def _conv_jvp(precision: jax.lax.PrecisionLike, primals: Any, tangents: Any) -> Any:
    (image, kernel), (d_image, d_kernel) = primals, tangents
    tangent = None
    if not isinstance(d_image, SymbolicZero):
        # A transposed kernel with layout HWOI gives the same tangent, and JAX transposes HWOI to HWIO, which the fast
        # convolution of XLA on the CPU requires. XLA rewrites other layouts, but not inside `scan`, where a step on
        # VGG-19 then takes several times as long (github.com/jax-ml/jax/issues/12868).
        tangent = _lax_conv(d_image, jnp.swapaxes(kernel, 2, 3), precision, kernel_layout="HWOI")
    if not isinstance(d_kernel, SymbolicZero):
        by_kernel = _conv(precision, image, d_kernel)
        tangent = by_kernel if tangent is None else tangent + by_kernel
    return _conv(precision, image, kernel), tangent


_conv.defjvp(_conv_jvp, symbolic_zeros=True)


def _lax_conv(
    image: jax.Array, kernel: jax.Array, precision: jax.lax.PrecisionLike, *, kernel_layout: str
) -> jax.Array:
    layouts = ("NHWC", kernel_layout, "NHWC")
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=layouts, precision=precision)


def winograd_pays(params: Params, *, pixels: int, steps: int, layers: Sequence[str]) -> bool:
    """Return whether Winograd convolution saves more time in the steps of a scale than its compilation costs."""
    if platform_of(params) != "cpu":
        return False
    last = max((layer[4:] for layer in layers), default="")
    sizes = [(int(name[4]) - 1, layer["kernel"]) for name, layer in params.items() if name[4:] <= last]
    work = sum(kernel.size / 4**block for block, kernel in sizes if _is_wide(kernel))
    return work * pixels * steps * SECONDS_SAVED > COMPILE_SECONDS


def platform_of(params: Params) -> str:
    """Return the platform of a network: that of its arrays, or the default of JAX for NumPy arrays and tracers."""
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
            return next(iter(leaf.devices())).platform
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return jax.default_backend() if device is None else getattr(device, "platform", device)


def _is_wide(kernel: jax.Array) -> bool:
    return kernel.shape[0] < winograd.TAPS and all(map(ge, kernel.shape[2:], WINOGRAD_FROM))


def prepared(
    params: Params,
    *,
    precision: Precision = "tf32",
    conv: Callable[..., jax.Array] = conv3x3,
    use_winograd: bool = True,
) -> Params:
    """Return `params` for repeated convolutions: wide kernels `[4, 4, in, out]` on the CPU, or all in bfloat16."""
    if precision == "bfloat16":
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    if conv is not conv3x3 or not use_winograd or platform_of(params) != "cpu":
        return params
    return {
        name: {**layer, "kernel": winograd.to_domain(layer["kernel"])} if _is_wide(layer["kernel"]) else layer
        for name, layer in params.items()
    }

"""Antialiased resampling of image arrays, in NumPy on the host and in JAX."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

LOBES = 3  # of the Lanczos kernel, in pixels
MOST_CONSTANT = 2**20  # maximum size of a matrix that is a constant of a program; larger ones are computed in it


def half_shape(height: int, width: int) -> tuple[int, int]:
    """Return height and width of an image at half resolution, at least 1."""
    return max(1, round(height / 2)), max(1, round(width / 2))


def resample(
    picture: jax.Array,
    height: int,
    width: int,
    *,
    circular: bool = False,
    method: Literal["lanczos3", "linear"] = "lanczos3",
) -> jax.Array:
    """Return `picture` `[..., H, W, 3]` or `[H, W]`, of any range, resized with antialiasing, without clipping."""
    axis = 0 if picture.ndim == 2 else picture.ndim - 3
    if picture.shape[axis : axis + 2] == (height, width):
        return picture
    xp = array_module(picture)
    options: Any = {"method": method, "circular": circular, "dtype": picture.dtype}
    rows, columns = (
        resample_matrix(before, after, xp=np if before * after <= MOST_CONSTANT else xp, **options)
        for before, after in zip(picture.shape[axis : axis + 2], (height, width), strict=True)
    )
    exact: Any = {} if xp is np else {"precision": jax.lax.Precision.HIGHEST}
    if picture.ndim == 2:
        return xp.matmul(xp.matmul(rows, picture, **exact), columns.T, **exact)
    if xp is np:  # whose einsum does not use BLAS
        lines = np.matmul(rows, picture.reshape(*picture.shape[:-2], -1))  # [..., h, w * c] to [..., height, w * c]
        lines = lines.reshape(*picture.shape[:-3], height, *picture.shape[-2:])
        resized: Any = np.moveaxis(np.tensordot(columns, lines, axes=(1, lines.ndim - 2)), 0, -2)
        return resized
    enlarged = xp.einsum("ah,...hwc->...awc", rows, picture, **exact)
    return xp.einsum("bw,...awc->...abc", columns, enlarged, **exact)


def array_module(*arrays: Any) -> Any:
    """Return `numpy` for NumPy arrays, which are processed on the host without compilation, else `jax.numpy`."""
    return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp


def resample_matrix(
    before: int,
    after: int,
    *,
    method: Literal["lanczos3", "linear"] = "lanczos3",
    circular: bool = False,
    dtype: Any = np.float32,
    xp: Any = np,
) -> Any:
    """Return the matrix `[after, before]` that resamples one axis, antialiased: that of `jax.image.resize`."""
    ratio = before / after
    width = max(1.0, ratio)
    wide = np.float64 if xp is np else dtype
    centers = (xp.arange(after, dtype=wide) + 0.5) * ratio - 0.5
    offsets = centers[:, None] - xp.arange(before, dtype=wide)[None, :]
    turns = math.ceil(LOBES * width / before) if circular else 0

    def kernel(x: Any) -> Any:
        if method == "linear":
            return xp.maximum(0.0, 1.0 - xp.abs(x))
        return xp.where(xp.abs(x) < LOBES, xp.sinc(x) * xp.sinc(x / LOBES), 0.0)

    weights: Any = sum(kernel((offsets + turn * before) / width) for turn in range(-turns, turns + 1))
    return (weights / weights.sum(1, keepdims=True)).astype(dtype)

"""Antialiased resampling of image arrays, in NumPy on the host and in JAX."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

LOBES = 3  # of the Lanczos kernel, in pixels
MOST_CONSTANT = 2**20  # maximum size of a matrix that is a constant of a program; larger ones are computed in it


def half_shape(height: int, width: int) -> tuple[int, int]:
    """Return height and width of an image at half resolution.

    Args:
        height: height in pixels.
        width: width in pixels.

    Returns:
        Height and width, at least 1.

    Example:
        >>> half_shape(768, 1023)
        (384, 512)
    """
    return _shape(height, width, 0.5)


def _shape(height: int, width: int, factor: float) -> tuple[int, int]:
    return max(1, round(factor * height)), max(1, round(factor * width))


def resample(
    picture: jax.Array,
    height: int,
    width: int,
    *,
    circular: bool = False,
    method: Literal["lanczos3", "linear"] = "lanczos3",
) -> jax.Array:
    """Return `picture` resized with antialiasing, without clipping.

    Args:
        picture: `[..., H, W, 3]` or `[H, W]`, of any range.
        height: new height in pixels.
        width: new width in pixels.
        circular: whether the image is periodic.
        method: Lanczos kernel of three lobes, or linear interpolation.

    Returns:
        `[..., height, width, 3]` or `[height, width]`.

    Example:
        >>> resample(-jnp.ones((8, 8, 3)), 4, 6, circular=True).shape
        (4, 6, 3)
    """
    axis = 0 if picture.ndim == 2 else picture.ndim - 3
    if picture.shape[axis : axis + 2] == (height, width):
        return picture
    xp = array_module(picture)
    rows, columns = (
        resample_matrix(
            before,
            after,
            method=method,
            circular=circular,
            dtype=picture.dtype,
            xp=np if before * after <= MOST_CONSTANT else xp,
        )
        for before, after in zip(picture.shape[axis : axis + 2], (height, width), strict=True)
    )
    exact: Any = {} if xp is np else {"precision": jax.lax.Precision.HIGHEST}
    if picture.ndim == 2:
        return xp.matmul(xp.matmul(rows, picture, **exact), columns.T, **exact)
    if xp is np:  # whose einsum does not use BLAS
        lines = np.matmul(rows, picture.reshape(*picture.shape[:-2], -1))  # [..., h, w * c] to [..., height, w * c]
        lines = lines.reshape(*picture.shape[:-3], height, *picture.shape[-2:])
        found: Any = np.moveaxis(np.tensordot(columns, lines, axes=(1, lines.ndim - 2)), 0, -2)
        return found
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
    r"""Return the matrix that resamples one axis, antialiased: that of `jax.image.resize`.

    Row i holds :math:`k((s (i + 1/2) - 1/2 - j) / \max(1, s))` over their sum, for the kernel k and the ratio
    :math:`s = before / after`.

    Args:
        before: number of input samples.
        after: number of output samples.
        method: Lanczos kernel of three lobes, or linear interpolation.
        circular: whether the samples are periodic.
        dtype: of the matrix.
        xp: `numpy` or `jax.numpy`.

    Returns:
        `[after, before]`; each row has the sum 1.

    Example:
        >>> resample_matrix(2, 4, method="linear").round(2).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
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

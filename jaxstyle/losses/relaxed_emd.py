r"""Relaxed earth mover's distance and the other terms of STROTSS.

Vectors are rows `[n, C]`: hypercolumns (of `neighbors`, with divisor "none") at sampled positions, or colors. With the
content weight a, STROTSS minimizes :math:`(a L_c + L_r + L_m + L_p / \max(a, 1)) / (a + 2)` with `self_similarity`,
`relaxed_emd`, `moment_distance` and `color_distance`. Matrices of distances are computed in chunks of rows, and only
the distances of matched pairs have gradients.

Kolkin, Salavon and Shakhnarovich, *Style Transfer by Relaxed Optimal Transport and Self-Similarity*, arXiv:1904.12785,
and their program nkolkin13/STROTSS.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.errors import InputError
from jaxstyle.losses.moments import moments
from jaxstyle.losses.neighbors import CHUNK, check_vectors, chunks, products, unit, widen
from jaxstyle.losses.pixel import absolute

Metric = Literal["cosine", "cosine_euclidean"]

POSITIONS = 1024  # of the image at each step, as in the program of STROTSS
SMALLEST_DISTANCE = 1e-5  # lower bound of squared Euclidean distances, as in the program of STROTSS
SMALLEST_MEAN = 1e-6  # mean cosine distance below which distances are rounding errors of float32
# Rows: brightness, and two differences of color orthogonal to it; "YUV" in the program of STROTSS.
_A, _B = (1 + 1 / np.sqrt(3)) / 2, (1 - 1 / np.sqrt(3)) / 2
DECORRELATED = np.array([[1 / np.sqrt(3)] * 3, [-1 / np.sqrt(3), _A, -_B], [-1 / np.sqrt(3), -_B, _A]])


class MeanCovariance(NamedTuple):
    """Mean and covariance of vectors.

    Attributes:
        mean: `[C]`.
        covariance: `[C, C]`.
    """

    mean: jax.Array
    covariance: jax.Array


def relaxed_emd(x: jax.Array, y: jax.Array, *, metric: Metric = "cosine", chunk: int = CHUNK) -> jax.Array:
    r"""Return the relaxed earth mover's distance of two sets of vectors.

    .. math:: \max(\mathrm{mean}_i \min_j d(x_i, y_j), \mathrm{mean}_j \min_i d(x_i, y_j))

    Args:
        x: `[n, C]`.
        y: `[m, C]`.
        metric: d; "cosine" is :math:`1 - \cos(x_i, y_j)`, and "cosine_euclidean" adds the root of the mean square of
            the differences, as STROTSS does for colors.
        chunk: number of rows of x compared at once; the matrix of distances needs `chunk` times m numbers of memory.

    Returns:
        A scalar, not negative; independent of `chunk` except for rounding.

    Raises:
        InputError: if the shapes do not fit, an array is empty or `chunk` is not positive.

    Example:
        >>> float(relaxed_emd(jnp.eye(2), jnp.asarray([[2.0, 0.0]])))
        0.5
    """
    check_vectors(x, y, chunk)
    x, y = widen(x), widen(y)
    of_x, of_y = _matches(*jax.lax.stop_gradient((x, y)), metric, chunk)
    return jnp.maximum(jnp.mean(_paired(x, y[of_x], metric)), jnp.mean(_paired(x[of_y], y, metric)))


def _matches(x: jax.Array, y: jax.Array, metric: Metric, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Return the index in y of the nearest vector of each row of x, and that in x of each row of y."""
    filled = chunks(x, chunk)
    size = filled.shape[1]

    def step(best: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array]) -> tuple:
        start, rows = inputs
        smallest, index = best
        distances = _distances(rows, y, metric)  # [chunk, m]
        is_filled = (start + jnp.arange(size) < x.shape[0])[:, None]
        of_rows = jnp.where(jnp.broadcast_to(is_filled, distances.shape), distances, jnp.inf)
        nearest = jnp.argmin(of_rows, axis=0)
        least = jnp.min(of_rows, axis=0)
        best = jnp.minimum(smallest, least), jnp.where(least < smallest, start + nearest, index)
        return best, jnp.argmin(distances, axis=1)

    count = y.shape[0]
    start = jnp.full(count, jnp.inf, x.dtype), jnp.zeros(count, int)
    (_, of_y), of_x = jax.lax.scan(step, start, (size * jnp.arange(filled.shape[0]), filled))
    return of_x.reshape(-1)[: x.shape[0]], of_y


def _distances(x: jax.Array, y: jax.Array, metric: Metric) -> jax.Array:
    distances = 1 - products(unit(x), unit(y))
    if metric == "cosine":
        return distances
    squares = jnp.sum(jnp.square(x), axis=1)[:, None] + jnp.sum(jnp.square(y), axis=1)[None, :] - 2 * products(x, y)
    return distances + _root(squares, x.shape[1])


def _paired(x: jax.Array, y: jax.Array, metric: Metric) -> jax.Array:
    """Return the distance `[n]` of each row of x from the same row of y."""
    distances = 1 - jnp.sum(unit(x) * unit(y), axis=1)
    return distances if metric == "cosine" else distances + _root(jnp.sum(jnp.square(x - y), axis=1), x.shape[1])


def _root(squares: jax.Array, channels: int) -> jax.Array:
    return jnp.sqrt(jnp.maximum(squares, SMALLEST_DISTANCE) / channels)


def mean_covariance(x: jax.Array) -> MeanCovariance:
    r"""Return the mean :math:`\mu` and the covariance :math:`\mathrm{mean}_i (x_i - \mu) (x_i - \mu)^T`.

    Args:
        x: `[n, C]`.

    Returns:
        Mean and covariance, in float32 or wider.

    Example:
        >>> mean_covariance(jnp.asarray([[0.0], [2.0]])).covariance.tolist()
        [[1.0]]
    """
    mean = jnp.mean(widen(x), axis=0)
    return MeanCovariance(mean, moments((widen(x) - mean[None])[:, None]).second)


def moment_distance(x: MeanCovariance, target: MeanCovariance) -> jax.Array:
    r"""Return the mean absolute differences of means and covariances, :math:`L_m`.

    .. math:: \mathrm{mean}_k |\mu_k - \mu^t_k| + \mathrm{mean}_{kl} |\Sigma_{kl} - \Sigma^t_{kl}|

    Args:
        x: of the image.
        target: of the style, computed once.

    Returns:
        A scalar, not negative.

    Example:
        >>> float(moment_distance(mean_covariance(jnp.zeros((2, 1))), mean_covariance(jnp.asarray([[0.0], [2.0]]))))
        2.0
    """
    return jnp.mean(absolute(x.mean - target.mean)) + jnp.mean(absolute(x.covariance - target.covariance))


def self_similarity(x: jax.Array, content: jax.Array) -> jax.Array:
    r"""Return the mean absolute difference of normalized matrices of self-distances, :math:`L_c`.

    .. math:: \frac{1}{n} \sum_{ij} \left|\frac{D_{ij}}{\sum_k D_{kj}} - \frac{D^c_{ij}}{\sum_k D^c_{kj}}\right|,
        \quad D_{ij} = 1 - \cos(x_i, x_j)

    Where a sum is below its rounding error, as for equal vectors, it is replaced by that error. The matrices need
    memory for :math:`n^2` numbers.

    Args:
        x: of the image, `[n, C]`.
        content: of the content at the same positions, `[n, K]`.

    Returns:
        A scalar from 0 to 2; the factor :math:`n / n^2` is that of the program of STROTSS.

    Raises:
        InputError: if the numbers of vectors differ.

    Example:
        >>> float(self_similarity(jnp.eye(3), 2 * jnp.eye(3)))
        0.0
    """
    if x.ndim != 2 or content.ndim != 2 or x.shape[0] != content.shape[0]:
        raise InputError(f"Vectors {x.shape} and {content.shape} differ in number: sample both at the same positions.")
    return jnp.sum(absolute(_self_distances(widen(x)) - _self_distances(widen(content)))) / x.shape[0]


def _self_distances(x: jax.Array) -> jax.Array:
    of_unit = unit(x)
    distances = 1 - products(of_unit, of_unit)
    sums = jnp.sum(distances, axis=0, keepdims=True)
    return distances / jnp.maximum(sums, SMALLEST_MEAN * x.shape[0])


def color_distance(x: jax.Array, y: jax.Array, *, chunk: int = CHUNK) -> jax.Array:
    r"""Return the relaxed earth mover's distance of colors, :math:`L_p`.

    The metric is "cosine_euclidean" of `relaxed_emd`, in coordinates of brightness and two differences of color. Since
    these coordinates are a rotation, the distance is that of RGB. Colors are centered at mid-gray before, as in the
    program of STROTSS.

    Args:
        x: colors of the image, `[n, 3]` in [0, 1].
        y: colors of the style, `[m, 3]` in [0, 1].
        chunk: see `relaxed_emd`.

    Returns:
        A scalar, not negative.

    Raises:
        InputError: if the shapes are not `[n, 3]`, or as `relaxed_emd`.

    Example:
        >>> round(float(color_distance(jnp.ones((4, 3)), jnp.zeros((2, 3)))), 3)
        3.0
    """
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise InputError(f"Colors have shapes {x.shape} and {y.shape}: pass [n, 3] and [m, 3].")
    return relaxed_emd(decorrelate(x - 0.5), decorrelate(y - 0.5), metric="cosine_euclidean", chunk=chunk)


def decorrelate(colors: jax.Array) -> jax.Array:
    """Return colors as brightness and two differences of color, by a rotation.

    Args:
        colors: `[..., 3]`, RGB.

    Returns:
        `[..., 3]`.

    Example:
        >>> [round(float(each), 3) for each in decorrelate(jnp.asarray([1.0, 0.0, 0.0]))]
        [0.577, -0.577, -0.577]
    """
    colors = widen(colors)
    return jnp.einsum("...c,dc->...d", colors, DECORRELATED.astype(colors.dtype), precision="highest")


def sample_positions(height: int, width: int, *, key: jax.Array, count: int = POSITIONS) -> tuple[jax.Array, jax.Array]:
    """Return the rows and columns of a square grid with random offsets, for `neighbors.hypercolumns`.

    Deviation: STROTSS draws random positions of a denser grid.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        key: random key of the offsets; a new one at each step reaches all positions.
        count: maximum number of positions.

    Returns:
        Rows `[a]` and columns `[b]` in pixels, int32; a and b depend on height, width and count only.

    Raises:
        InputError: if a number is not positive.

    Example:
        >>> [axis.shape for axis in sample_positions(60, 80, key=jax.random.key(0), count=50)]
        [(6,), (8,)]
    """
    if min(height, width, count) < 1:
        raise InputError(f"{count} positions of {height}x{width} pixels cannot be drawn: use at least 1 of each.")
    stride = 1
    while max(1, height // stride) * max(1, width // stride) > count:
        stride += 1
    axes = []
    for of_axis, size in zip(jax.random.split(key), (height, width), strict=True):
        step = min(stride, size)
        last = (size // step - 1) * step
        axes.append(jax.random.randint(of_axis, (), 0, size - last) + step * jnp.arange(size // step))
    return axes[0].astype(jnp.int32), axes[1].astype(jnp.int32)


def weighted_positions(weights: jax.Array, *, key: jax.Array, count: int = POSITIONS) -> jax.Array:
    """Return random positions whose density is given by weights, such as a mask.

    Args:
        weights: `[H, W]`, not negative; if all are zero, the positions are the first pixel.
        key: random key.
        count: number of positions.

    Returns:
        `[count, 2]`, int32, row and column in pixels.

    Example:
        >>> weighted_positions(jnp.eye(2), key=jax.random.key(0), count=50).ptp(axis=1).max()
        Array(0, dtype=int32)
    """
    total = jnp.cumsum(widen(weights).reshape(-1))
    drawn = total[-1] * (jnp.arange(count) + jax.random.uniform(key, (count,), total.dtype)) / count  # one per stratum
    last = jnp.searchsorted(total, total[-1])  # the last pixel with a weight
    index = jnp.clip(jnp.searchsorted(total, drawn, side="right"), 0, last)
    return jnp.stack(jnp.divmod(index, weights.shape[1]), axis=1).astype(jnp.int32)

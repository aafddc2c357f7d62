r"""OkLab colors and the chroma transfer of NNST.

OkLab has a lightness L in [0, 1] and two chroma coordinates a and b, zero for grays: Ottosson, *A perceptual color
space for image processing*, 2020, bottosson.github.io/posts/oklab, with the matrices of 2021.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.errors import InputError

TO_LMS = np.array(  # from linear sRGB
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(  # from cube roots of LMS
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
RIDGE = 1e-4  # added to variances, as in the program of NNST
GRAY = 6e-5  # largest covariance of the chroma of a gray style, as in the program of NNST
SMOOTHINGS = 5  # passes of the bilateral filter, as in the program of NNST
CONTRAST = 10.0  # the weight of a neighbor is exp(-CONTRAST |difference of lightness|), as in the program of NNST


def srgb_to_oklab(image: jax.Array) -> jax.Array:
    """Return the OkLab coordinates of an image.

    Args:
        image: `[..., 3]`, sRGB; values are clipped to [0, 1].

    Returns:
        `[..., 3]`: L, a and b.

    Example:
        >>> srgb_to_oklab(jnp.ones(3)).round(3).tolist()
        [1.0, 0.0, 0.0]
    """
    image = jnp.clip(image, 0.0, 1.0)
    linear = jnp.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    return _transformed(_cube_root(_transformed(linear, TO_LMS)), TO_LAB)


def oklab_to_srgb(lab: jax.Array) -> jax.Array:
    """Return the image of OkLab coordinates, the inverse of `srgb_to_oklab`.

    Args:
        lab: `[..., 3]`: L, a and b.

    Returns:
        `[..., 3]`, sRGB; colors out of range are clipped to [0, 1] in each channel.

    Example:
        >>> oklab_to_srgb(jnp.asarray([1.0, 0.0, 0.0])).round(3).tolist()
        [1.0, 1.0, 1.0]
    """
    roots = _transformed(lab, np.linalg.inv(TO_LAB))
    linear = jnp.clip(_transformed(roots**3, np.linalg.inv(TO_LMS)), 0.0, 1.0)
    curved = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.clip(jnp.where(linear <= 0.0031308, 12.92 * linear, curved), 0.0, 1.0)


def _transformed(colors: jax.Array, matrix: np.ndarray) -> jax.Array:
    return jnp.einsum("...c,dc->...d", colors, matrix.astype(colors.dtype), precision="highest")


def _cube_root(x: jax.Array) -> jax.Array:
    """Return the cube root of nonnegative values, with derivative 0 at zero, where it need not be finite."""
    return jnp.where(x > 0, jnp.cbrt(jnp.where(x > 0, x, 1.0)), 0.0)


def chroma_transfer(
    content: jax.Array, style: jax.Array, image: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
    r"""Return the lightness of `image` with the chroma of `content`, moved to the statistics of the style.

    With means :math:`\mu` and covariances :math:`\Sigma` of (a, b), the chroma is
    :math:`\Sigma_s^{1/2} \Sigma_c^{-1/2} (x - \mu_c) + \mu_s`, smoothed by five passes of a 3x3 filter with the weights
    :math:`\exp(-10 |\Delta L|)`, so that its edges are those of the lightness. Each coordinate is clipped to the range
    of the style. If the style is gray, the chroma is that of `image`, moved in the same way and not smoothed, and its
    lightness gets the mean and deviation of the style.

    Kolkin et al., arXiv:2203.13215, and the program nkolkin13/NeuralNeighborStyleTransfer. Deviations: the program
    takes sRGB values for linear ones; for a gray style it matches all three coordinates by one matrix.

    Args:
        content: `[H, W, 3]`, sRGB in [0, 1].
        style: `[Hs, Ws, 3]`, sRGB in [0, 1].
        image: `[H, W, 3]`, sRGB in [0, 1].
        weights: weight of each pixel of the style, `[Hs, Ws]`, not negative and not all zero; None for equal ones.

    Returns:
        `[H, W, 3]`, clipped to [0, 1].

    Raises:
        InputError: if content and image differ in shape.

    Example:
        >>> gray = jnp.full((4, 4, 3), 0.5)
        >>> chroma_transfer(gray, gray, gray)[0, 0].round(3).tolist()
        [0.5, 0.5, 0.5]
    """
    if content.shape != image.shape:
        raise InputError(f"Content {content.shape} and image {image.shape} differ in shape: resize the content.")
    of_content, of_style, of_image = (srgb_to_oklab(each) for each in (content, style, image))
    used = True if weights is None else (weights > 0)[..., None]
    lowest = jnp.min(of_style, axis=(0, 1), keepdims=True, where=used, initial=jnp.inf)
    highest = jnp.max(of_style, axis=(0, 1), keepdims=True, where=used, initial=-jnp.inf)
    tones, target = _covariance(of_style[..., :1], weights), _covariance(of_style[..., 1:], weights)
    lightness = jnp.clip(of_image[..., :1], lowest[..., :1], highest[..., :1])
    colored = jnp.concatenate([lightness, _smooth(_move(of_content[..., 1:], target), lightness)], axis=-1)
    uncolored = jnp.concatenate([_move(lightness, tones), _move(of_image[..., 1:], target)], axis=-1)
    is_gray = jnp.max(jnp.abs(target[1])) < GRAY
    return oklab_to_srgb(jnp.clip(jnp.where(is_gray, uncolored, colored), lowest, highest))


def _move(x: jax.Array, target: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Return `x`, `[H, W, 1]` or `[H, W, 2]`, with this mean and covariance."""
    mean, covariance = _covariance(x)
    target_mean, target_covariance = target
    ridge = RIDGE * jnp.eye(x.shape[-1], dtype=x.dtype)
    with jax.default_matmul_precision("highest"):  # TensorFloat-32 has three digits only
        transform = _square_root(target_covariance + ridge) @ jnp.linalg.inv(_square_root(covariance + ridge))
        return jnp.einsum("ij,hwj->hwi", transform, x - mean) + target_mean


def _covariance(x: jax.Array, weights: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    shares = 1.0 if weights is None else (weights / jnp.mean(weights))[..., None]
    mean = jnp.mean(shares * x, axis=(0, 1), keepdims=True)
    # Means by row first: one float32 sum over millions of pixels would lose digits.
    by_row = jnp.einsum("hwi,hwj->hij", shares * (x - mean), x - mean, precision="highest") / x.shape[1]
    return mean, jnp.mean(by_row, axis=0)


def _square_root(matrix: jax.Array) -> jax.Array:
    """Return the symmetric root of a positive matrix of one or two rows, in closed form."""
    if matrix.shape[0] == 1:
        return jnp.sqrt(matrix)
    root = jnp.sqrt(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])  # of the determinant
    return (matrix + root * jnp.eye(2, dtype=matrix.dtype)) / jnp.sqrt(matrix[0, 0] + matrix[1, 1] + 2 * root)


def _smooth(chroma: jax.Array, lightness: jax.Array) -> jax.Array:
    """Return the chroma averaged over pixels of similar lightness."""
    weights = [jnp.exp(-CONTRAST * jnp.abs(lightness - each)) for each in _neighbors(lightness)]
    total = sum(weights[1:], weights[0])

    def step(chroma: jax.Array, _: None) -> tuple[jax.Array, None]:
        near = [
            jnp.broadcast_to(weight, each.shape) * each
            for weight, each in zip(weights, _neighbors(chroma), strict=True)
        ]
        summed = sum(near[1:], near[0])
        return summed / jnp.broadcast_to(total, summed.shape), None

    return jax.lax.scan(step, chroma, length=SMOOTHINGS)[0]


def _neighbors(x: jax.Array) -> list[jax.Array]:
    """Return `x` shifted by each offset of a 3x3 window, with the border replicated."""
    height, width = x.shape[:2]
    around = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return [around[i : i + height, j : j + width] for i in range(3) for j in range(3)]

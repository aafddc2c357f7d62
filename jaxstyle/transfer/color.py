"""Color preservation: transfer of luminance only, or styles recolored to the statistics or histogram of the content.

Images are float32 sRGB in [0, 1]. `match` and `match_histogram` recolor a style before the transfer. With `luminance`
and `match_luminance` before the transfer and `with_colors_of` after it, the network processes gray images, and the
result has the luminance of the optimized image and the colors of the content.

Gatys, Bethge, Hertzmann and Shechtman, *Preserving Color in Neural Artistic Style Transfer*, arXiv:1606.05897; Gatys,
Ecker, Bethge, Hertzmann and Shechtman, *Controlling Perceptual Factors in Neural Style Transfer*, arXiv:1611.07865.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxstyle.errors import InputError, excerpt
from jaxstyle.losses.style import Summary
from jaxstyle.losses.targets import Style

Form = Literal["symmetric", "cholesky"]
Color = Literal["none", "keep", "match", "match-cholesky", "histogram", "chroma"]

RED, BLUE = 0.299, 0.114  # luma of Rec. 601, as in YIQ; green has the rest, 0.587
RIDGE = 1e-5  # added to every variance, as in Gatys' notebook; the variance of a deviation of 0.8 steps of 255
POLAR_STEPS = 8  # at the worst condition number with RIDGE, 6 steps reach the precision of float32


def luminance(image: jax.Array) -> jax.Array:
    """Return the luminance of `image`, `[..., H, W, 3]`, on all three channels.

    It is Y of YIQ, :math:`Y = 0.299 R + 0.587 G + 0.114 B`.

    Example:
        >>> [f"{channel:.3f}" for channel in luminance(jnp.asarray([[[0.0, 1.0, 0.0]]]))[0, 0]]
        ['0.587', '0.587', '0.587']
    """
    red, green, blue = image[..., :1], image[..., 1:2], image[..., 2:]
    # In differences, so that gray pixels are unchanged to the last bit.
    return jnp.broadcast_to(green + RED * (red - green) + BLUE * (blue - green), image.shape)


def match_luminance(style: jax.Array, content: jax.Array) -> jax.Array:
    r"""Return the luminance of `style` with the content's statistics, :math:`\sigma_c / \sigma_s (Y - \mu_s) + \mu_c`.

    Deviation from Gatys et al.: :math:`\sigma^2` is the variance plus 1e-5, so that constant images have finite
    gradients. (Their paper matches mean and deviation, as here; their notebook matches the mean only.)

    Args:
        style: `[..., Hs, Ws, 3]`.
        content: `[..., Hc, Wc, 3]`.

    Returns:
        `[..., Hs, Ws, 3]`, gray, clipped to [0, 1].
    """
    style, content = luminance(style), luminance(content)
    mean_style, mean_content = (jnp.mean(image, axis=(-3, -2), keepdims=True) for image in (style, content))
    variance_style, variance_content = (jnp.var(image, axis=(-3, -2), keepdims=True) for image in (style, content))
    scale = jnp.sqrt((variance_content + RIDGE) / (variance_style + RIDGE))
    return jnp.clip(scale * (style - mean_style) + mean_content, 0.0, 1.0)


def with_colors_of(content: jax.Array, image: jax.Array) -> jax.Array:
    """Return the luminance of `image` with the colors of `content`, :math:`c + Y(x) - Y(c)` on every channel.

    I and Q are those of the content. Where the luminances are equal, the result is the content bit for bit. (Under jit
    a luminance may round differently: for an unchanged `luminance(content)` use jit for both or neither.)

    Args:
        content: `[..., H, W, 3]`.
        image: `[..., H, W, 3]`.

    Returns:
        `[..., H, W, 3]`, each channel clipped to [0, 1], which changes colors out of range.

    Example:
        >>> whiter = with_colors_of(jnp.asarray([[[0.5, 0.25, 0.0]]]), jnp.ones((1, 1, 3)))
        >>> [f"{channel:.3f}" for channel in whiter[0, 0]]
        ['1.000', '0.954', '0.704']
    """
    return jnp.clip(content + (luminance(image) - luminance(content)), 0.0, 1.0)


def match(
    style: jax.Array, content: jax.Array, *, form: Form = "symmetric", weights: jax.Array | None = None
) -> jax.Array:
    r"""Return `style` recolored to the content's mean and covariance, :math:`A (x - \mu_s) + \mu_c`.

    The solutions of :math:`A \Sigma_s A^T = \Sigma_c` are :math:`L_c U L_s^{-1}` with :math:`\Sigma = L L^T` and
    orthogonal U. "cholesky" is U = 1, which depends on the order of the channels. "symmetric" is the symmetric positive
    A, :math:`\Sigma_s^{-1/2} (\Sigma_s^{1/2} \Sigma_c \Sigma_s^{1/2})^{1/2} \Sigma_s^{-1/2}`: "sym", the default of
    `match_color` in Gatys' ColourControl notebook. It changes the colors least: Pitie and Kokaram, *The Linear
    Monge-Kantorovitch Linear Colour Mapping for Example-Based Colour Transfer*, 2007.

    Deviation from Gatys et al.: the second form of their paper, :math:`\Sigma_c^{1/2} \Sigma_s^{-1/2}` of Image
    Analogies ("pca", which that notebook uses), is not implemented; it equals "symmetric" if the covariances commute.
    As in the notebook, 1e-5 is added to the diagonals of the covariances, for constant and gray images.

    Args:
        style: `[Hs, Ws, 3]`.
        content: `[Hc, Wc, 3]`.
        form: form of A, "symmetric" or "cholesky".
        weights: weight of each pixel of the content, `[Hc, Wc]`, not negative and not all zero; None for equal ones.

    Returns:
        `[Hs, Ws, 3]`, clipped to [0, 1]; clipping changes the statistics slightly.

    Raises:
        InputError: if `form` is unknown.
    """
    if form not in ("symmetric", "cholesky"):
        raise InputError(f"Form {form!r} is unknown: use 'symmetric' or 'cholesky'.")
    shares = None if weights is None else (weights / jnp.mean(weights))[..., None]
    weighted = content if shares is None else shares * content
    mean_style, mean_content = (jnp.mean(image, axis=(0, 1), keepdims=True) for image in (style, weighted))
    with jax.default_matmul_precision("highest"):  # TensorFloat-32 has three digits only
        root_style, root_content = _cholesky(style - mean_style), _cholesky(content - mean_content, shares)
        between = _rotation(root_content.T @ root_style) if form == "symmetric" else jnp.eye(3, dtype=style.dtype)
        transform = root_content @ between @ jnp.linalg.inv(root_style)
        recoloured = jnp.einsum("ij,hwj->hwi", transform, style - mean_style)
    return jnp.clip(recoloured + mean_content, 0.0, 1.0)


def _cholesky(centred: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    weighted = centred if weights is None else weights * centred
    # Sums by row, then their mean: one float32 sum over millions of pixels would lose digits.
    by_row = jnp.einsum("hwi,hwj->hij", weighted, centred) / centred.shape[1]  # [H, 3, 3]
    return jnp.linalg.cholesky(jnp.mean(by_row, axis=0) + RIDGE * jnp.eye(3, dtype=centred.dtype))


def _rotation(matrix: jax.Array) -> jax.Array:
    """Return the orthogonal factor of the polar decomposition, by Newton's iteration (Higham, 1986)."""
    # An eigendecomposition has no gradient for equal eigenvalues, as of every gray image.
    return jax.lax.fori_loop(0, POLAR_STEPS, _newton, matrix)


def _newton(_: int, x: jax.Array) -> jax.Array:
    inverse = jnp.linalg.inv(x).T
    # The scale speeds up convergence and does not change the limit, so it needs no gradient.
    scale = jax.lax.stop_gradient(jnp.sqrt(jnp.linalg.norm(inverse) / jnp.linalg.norm(x)))
    return (scale * x + inverse / scale) / 2


def match_histogram(style: jax.Array, content: jax.Array) -> jax.Array:
    """Return `style` with the histogram of the content in each channel.

    The pixel of rank r among N gets the sorted value of the content at :math:`(r + 1/2) M / N - 1/2` of M, with linear
    interpolation. Neither paper has it. Differentiable in `content`; in `style` the gradient is zero.

    Args:
        style: `[Hs, Ws, 3]`; equal values rank in the order of the pixels.
        content: `[Hc, Wc, 3]`.

    Returns:
        `[Hs, Ws, 3]`, within the range of `content`.

    Example:
        >>> style, content = jnp.asarray([[[0.1] * 3, [0.2] * 3]]), jnp.asarray([[[1.0] * 3, [0.5] * 3]])
        >>> match_histogram(style, content)[0, :, 0].tolist()
        [0.5, 1.0]
    """
    by_channel = jax.vmap(_with_values_of, in_axes=1, out_axes=1)
    return by_channel(content.reshape(-1, 3), style.reshape(-1, 3)).reshape(style.shape)


def _with_values_of(content: jax.Array, style: jax.Array) -> jax.Array:
    values, ratio = jnp.sort(content), content.size / style.size
    position = jnp.clip(ratio * jnp.arange(style.size) + (ratio - 1) / 2, 0, content.size - 1)
    below = jnp.floor(position).astype(int)
    above = jnp.minimum(below + 1, content.size - 1)
    quantiles = values[below] + (position - below) * (values[above] - values[below])
    return jnp.zeros_like(style).at[jnp.argsort(style)].set(quantiles, unique_indices=True)


Sizes = Mapping[int, Mapping[str, Summary]]  # style statistics by longest side in pixels
Styles = Style | Sizes | Sequence[Style | Sizes]


def recolor(content: jax.Array, styles: Styles, *, color: Color = "none") -> tuple[jax.Array, list[Style | Sizes]]:
    """Return the content and a list of the styles with the colors of the optimization.

    Args:
        content: `[H, W, 3]`, or `[N, H, W, 3]` with color "none".
        styles: as for `stylize`.
        color: as for `stylize`.

    Raises:
        InputError: if `color` is unknown, there is no style, or colors change and a style has no image or the content
            is a batch.
    """
    several = list(styles) if isinstance(styles, Sequence) else [styles]
    if not several:
        raise InputError("There is no style: pass a picture, or a sequence of at least one.")
    if color not in get_args(Color):
        raise InputError(f"color {excerpt(repr(color))} is unknown: use {' or '.join(map(repr, get_args(Color)))}.")
    if color == "none":
        return content, several
    if any(isinstance(style, Mapping) for style in several):
        raise InputError(f"Saved statistics cannot be recolored with color {color!r}: pass the style image.")
    if content.ndim != 3:
        raise InputError(f"Color {color!r} needs a single content [H, W, 3]: use jax.vmap for a batch.")
    if color == "chroma":  # changes the result only, see `scale.finish`
        return content, several
    pictures: Any = several
    recolored: Any = _recolor(content, pictures, change=color)
    return recolored


@partial(jax.jit, static_argnames="change")
def _recolor(content: jax.Array, styles: list[Style], *, change: str) -> tuple[jax.Array, list[Style]]:
    """Return recolored content and styles, computed by one program."""
    function = {
        "keep": match_luminance,
        "match": match,
        "match-cholesky": partial(match, form="cholesky"),
        "histogram": match_histogram,
    }[change]
    recolored: list[Style] = [function(style, content) for style in styles]
    return luminance(content) if change == "keep" else content, recolored

"""OkLab conversion against published values, and the chroma transfer against its statement in NumPy."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.errors import InputError
from jaxstyle.losses.objective import Objective
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.optimizers import LBFGS
from jaxstyle.transfer import oklab
from jaxstyle.transfer.scale import Transfer

pytestmark = pytest.mark.slow  # each file compiles a program

RNG = np.random.default_rng(0)
CONTENT: Any
IMAGE: Any
STYLE: Any
GRAY: Any
CONTENT, IMAGE = (RNG.random((7, 9, 3)).astype(np.float32) for _ in range(2))
STYLE = (0.3 + 0.5 * RNG.random((5, 6, 1)) * np.array([1, 0.7, 0.4]) + 0.1 * RNG.random((5, 6, 3))).astype(np.float32)
GRAY = np.repeat(RNG.random((5, 6, 1)), 3, axis=-1).astype(np.float32)
PUBLISHED = {  # CSS Color Module Level 4, named colors in OkLab
    (1, 1, 1): (1, 0, 0),
    (0, 0, 0): (0, 0, 0),
    (1, 0, 0): (0.62796, 0.22486, 0.12585),
    (0, 1, 0): (0.86644, -0.23389, 0.17950),
    (0, 0, 1): (0.45201, -0.03246, -0.31153),
}


@jax.jit
def program(colors, content, style, image):
    lab = oklab.srgb_to_oklab(colors)
    return lab, oklab.oklab_to_srgb(lab), oklab.chroma_transfer(content, style, image)


def computed(*, colors: Any = CONTENT, style: Any = STYLE) -> Any:
    return jax.device_get(program(np.resize(colors, CONTENT.shape).astype(np.float32), CONTENT, style, IMAGE))


def test_oklab_of_primary_colors_has_the_published_values():
    actual = computed(colors=list(PUBLISHED))[0].reshape(-1, 3)[: len(PUBLISHED)]
    np.testing.assert_allclose(actual, list(PUBLISHED.values()), atol=2e-5)


def test_the_inverse_returns_the_colors():
    for colors in (CONTENT, 0.05 * CONTENT):
        np.testing.assert_allclose(computed(colors=colors)[1], colors, atol=2e-5)


def numpy_transfer(content, style, image) -> np.ndarray:
    """Return the L, a and b of the transfer with loops over pixels, and roots by eigendecomposition."""
    content, style, image = (np.asarray(oklab.srgb_to_oklab(each), np.float64) for each in (content, style, image))
    lowest, highest = style.min((0, 1)), style.max((0, 1))
    lightness = np.clip(image[..., 0], lowest[0], highest[0])

    def power(pixels, exponent):
        values, vectors = np.linalg.eigh(np.cov(pixels.reshape(-1, 2).T, bias=True) + 1e-4 * np.eye(2))
        return vectors @ np.diag(values**exponent) @ vectors.T

    source, target = content[..., 1:], style[..., 1:]
    chroma = (source - source.mean((0, 1))) @ (power(target, 0.5) @ power(source, -0.5)).T + target.mean((0, 1))
    height, width = lightness.shape
    for _ in range(5):
        smooth = np.zeros_like(chroma)
        for i, j in np.ndindex(height, width):
            total = 0.0
            for di, dj in np.ndindex(3, 3):
                near = np.clip(i + di - 1, 0, height - 1), np.clip(j + dj - 1, 0, width - 1)
                weight = np.exp(-abs(lightness[i, j] - lightness[near]) * 5) ** 2
                smooth[i, j] += weight * chroma[near]
                total += weight
            smooth[i, j] /= total
        chroma = smooth
    return np.clip(np.concatenate([lightness[..., None], chroma], axis=-1), lowest, highest)


def test_chroma_of_the_content_moves_to_the_style_and_lightness_stays():
    expected = np.asarray(oklab.oklab_to_srgb(jnp.asarray(numpy_transfer(CONTENT, STYLE, IMAGE), jnp.float32)))
    np.testing.assert_allclose(computed()[2], expected, atol=1e-4)


def test_a_gray_style_gives_a_gray_picture_with_its_mean_lightness():
    actual = computed(style=GRAY)[2]
    assert np.ptp(actual, axis=-1).max() < 1e-3
    of_actual, of_style = (np.asarray(oklab.srgb_to_oklab(each))[..., 0].mean() for each in (jnp.asarray(actual), GRAY))
    assert of_actual == pytest.approx(of_style, abs=0.03)  # clipped to the range of the style


def test_a_content_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"\(7, 9, 3\)"):
        oklab.chroma_transfer(CONTENT, STYLE, IMAGE[:4])


def test_gradients_agree_with_finite_differences_and_are_finite_for_black():
    with jax.enable_x64(True):
        content, style, image = (jnp.asarray(each, jnp.float64) for each in (CONTENT, STYLE, IMAGE))
        check_grads(jax.jit(oklab.chroma_transfer), (content, style, image), order=1, modes=["rev"], eps=1e-7)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(oklab.chroma_transfer(x, STYLE, x))))
    assert np.isfinite(slope(np.zeros_like(CONTENT))).all()


def test_color_chroma_of_a_run_is_the_transfer_with_the_colors_of_all_styles():
    """Images of a batch and a result inside a region are treated alike."""
    palette = np.concatenate([STYLE.reshape(1, -1, 3), GRAY.reshape(1, -1, 3)], axis=1)
    batch: Any = np.stack([IMAGE, 1 - IMAGE])
    expected = np.stack([oklab.chroma_transfer(CONTENT, jnp.asarray(palette), jnp.asarray(each)) for each in batch])
    parts = ({}, CONTENT, CONTENT, [STYLE, GRAY], Objective(), VGG19(), LBFGS(), "content", None)
    transfer = Transfer(*parts, steps=1, color="chroma")
    actual = transfer.finish(batch)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    region: Any = np.zeros((1, *CONTENT.shape[:2]), np.float32)
    region[:, :3] = 1
    half = np.asarray(replace(transfer, styles=[STYLE], content_masks=region).finish(IMAGE))
    alone = np.asarray(oklab.chroma_transfer(CONTENT, STYLE, IMAGE))
    np.testing.assert_allclose(half[:3], alone[:3], atol=1e-5)
    np.testing.assert_array_equal(half[3:], CONTENT[3:])


def test_color_chroma_of_a_run_obeys_style_weights_style_masks_and_regions():
    parts = ({}, CONTENT, CONTENT, [STYLE, GRAY], Objective(), VGG19(), LBFGS(), "content", None)
    transfer, part = Transfer(*parts, steps=1, color="chroma"), np.zeros(STYLE.shape[:2], np.float32)
    part[:, :3] = 1
    of_style, of_gray, of_part = (
        np.asarray(oklab.chroma_transfer(CONTENT, jnp.asarray(each), IMAGE)) for each in (STYLE, GRAY, STYLE[:, :3])
    )
    regions = np.zeros((2, *CONTENT.shape[:2]), np.float32)
    regions[0, :4], regions[1, 4:] = 1, 1
    for options, expected in (
        ({"style_weights": np.asarray([1.0, 0.0])}, of_style),
        ({"style_weights": np.asarray([1.0, 0.0]), "style_masks": [part, None]}, of_part),
        ({"content_masks": regions}, np.concatenate([of_style[:4], of_gray[4:]])),
        ({"content_masks": np.ones_like(regions), "styles": [STYLE, STYLE]}, of_style),
    ):
        np.testing.assert_allclose(replace(transfer, **options).finish(IMAGE), expected, atol=1e-5)
    with jax.enable_x64(True):  # float32 stays float32
        assert replace(transfer, style_weights=np.asarray([1.0, 0.0])).finish(IMAGE).dtype == np.float32

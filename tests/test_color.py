from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.errors import InputError
from jaxstyle.transfer.color import luminance, match, match_histogram, match_luminance, with_colors_of

RNG = np.random.default_rng(0)
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
FORMS = ("symmetric", "cholesky")


def picture(height: int, width: int, *, spread: float = 0.12) -> np.ndarray:
    """Return pixels around 0.5 whose channels are correlated; at the default spread none is near a bound."""
    mixed = RNG.uniform(-1, 1, (height, width, 3)) @ (np.eye(3) + RNG.uniform(-0.5, 0.5, (3, 3)))
    return (0.5 + spread * mixed).astype(np.float32)


def grey(height: int, width: int) -> np.ndarray:
    return np.repeat(RNG.uniform(0.3, 0.7, (height, width, 1)), 3, axis=2).astype(np.float32)


STYLE, CONTENT = picture(6, 7), picture(5, 4, spread=0.15)
GREY_STYLE, GREY = grey(6, 7), grey(5, 4)
CONSTANT_STYLE, CONSTANT = np.full((6, 7, 3), 0.3, np.float32), np.full((5, 4, 3), 0.3, np.float32)
FUNCTIONS = {
    "match_luminance": match_luminance,
    "match-symmetric": match,
    "match-cholesky": partial(match, form="cholesky"),
    "match_histogram": match_histogram,
    "with_colors_of": lambda style, _: with_colors_of(style, style[::-1]),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


HISTOGRAMS = [(STYLE, CONTENT), (CONTENT, STYLE), (picture(1, 1), CONTENT), (picture(4, 5), CONTENT)]


@jax.jit
def _matched(style, content, histograms):
    """Return a style matched by form, pairs matched by histogram and a matched luminance: few programs are compiled."""
    by_form = {form: match(style, content, form=form) for form in FORMS}
    return by_form, [match_histogram(*pair) for pair in histograms], match_luminance(style[None], content[None])[0]


def matched(style, content, histograms=HISTOGRAMS):
    return _matched(style, content, histograms)


def covariance(image) -> np.ndarray:
    rows = np.asarray(image, np.float64).reshape(-1, 3)
    return np.cov(rows.T, bias=True) + 1e-5 * np.eye(3)


def root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.sqrt(values)) @ vectors.T


def numpy_match(style, content, form: str) -> np.ndarray:
    """Recolor in float64, with symmetric roots by eigendecomposition."""
    of_style, of_content = covariance(style), covariance(content)
    if form == "cholesky":
        transform = np.linalg.cholesky(of_content) @ np.linalg.inv(np.linalg.cholesky(of_style))
    else:
        inner, inverse = root(of_style), np.linalg.inv(root(of_style))
        transform = inverse @ root(inner @ of_content @ inner) @ inverse
    recolored = (style - style.mean((0, 1), np.float64)) @ transform.T + content.mean((0, 1), np.float64)
    return np.clip(recolored, 0, 1)


def numpy_match_luminance(style, content) -> np.ndarray:
    of_style, of_content = style.astype(np.float64) @ YIQ[0], content.astype(np.float64) @ YIQ[0]
    scale = np.sqrt((of_content.var() + 1e-5) / (of_style.var() + 1e-5))
    return np.clip(scale * (of_style - of_style.mean()) + of_content.mean(), 0, 1)


def test_luminance_is_y_of_yiq_on_all_channels_and_keeps_grey_bit_for_bit():
    actual = np.asarray(jax.jit(luminance)(np.stack([STYLE, GREY_STYLE])))
    expected = STYLE.astype(np.float64) @ YIQ[0]
    np.testing.assert_allclose(actual[0], np.repeat(expected[..., None], 3, axis=-1), rtol=1e-6)
    np.testing.assert_array_equal(actual[1], GREY_STYLE)


def test_matched_luminance_has_the_mean_and_deviation_of_the_contents():
    cases = [
        (STYLE, CONTENT),
        (0.01 * STYLE, CONTENT / 3),  # so flat that the ridge of 1e-5 counts
        (STYLE, picture(5, 4, spread=0.9)),  # clipped
        (CONSTANT_STYLE, CONTENT),
        (STYLE, 0 * CONTENT),
    ]
    for style, content in cases:
        image = np.asarray(matched(style, content)[2])
        expected = np.repeat(numpy_match_luminance(style, content)[..., None], 3, axis=-1)
        np.testing.assert_allclose(image, expected, atol=1e-5 if style is CONSTANT_STYLE else 1e-6)


def test_colors_of_the_content_are_its_i_and_q_with_the_luminance_of_the_image():
    """A channel that leaves the range is clipped; where the luminances are equal, the content does not change."""
    image = picture(5, 4)
    image[0], image[1] = 1, 0
    image[2] = CONTENT[2]
    expected = CONTENT @ YIQ.T
    expected[..., 0] = image @ YIQ[0]
    actual = np.asarray(jax.jit(with_colors_of)(np.stack([CONTENT, CONTENT]), np.stack([image, CONTENT])))
    np.testing.assert_allclose(actual[0], np.clip(expected @ np.linalg.inv(YIQ).T, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(actual[0, 2], CONTENT[2])
    np.testing.assert_array_equal(actual[1], CONTENT)


def test_an_image_in_the_greys_of_the_content_gets_its_colors_bit_for_bit():
    """Under one jit or none, so that both luminances round alike."""
    content = RNG.uniform(0, 1, (5, 4, 3)).astype(np.float32)
    actual = jax.jit(lambda content, image: with_colors_of(content, luminance(image)))(content, content)
    np.testing.assert_array_equal(actual, content)


@pytest.mark.parametrize("form", FORMS)
def test_match_equals_roots_by_eigendecomposition_in_float64(form):
    def compiled(style, content):
        return np.asarray(matched(style, content)[0][form])

    plain = CONTENT, picture(5, 4, spread=0.6), GREY, CONSTANT, 0 * CONSTANT
    cases = [(STYLE, content) for content in plain] + [(CONSTANT_STYLE, CONTENT), (GREY_STYLE, CONTENT)]
    for style, content in [*cases, (STYLE, picture(5, 4, spread=0.01))]:
        np.testing.assert_allclose(compiled(style, content), numpy_match(style, content, form), atol=2e-5)
    result = compiled(STYLE, CONTENT)
    assert 0 < result.min() and result.max() < 1
    np.testing.assert_allclose(covariance(result), covariance(CONTENT), atol=1e-4)
    np.testing.assert_allclose(result.mean((0, 1)), CONTENT.mean((0, 1)), atol=1e-6)
    assert np.ptp(compiled(GREY_STYLE, GREY), axis=-1).max() < 1e-5  # grey of grey


def test_an_unknown_form_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'pca' is unknown: use 'symmetric' or 'cholesky'"):
        match(STYLE, CONTENT, form="pca")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pair", range(3), ids=["larger style", "larger content", "one pixel"])
def test_a_matched_histogram_is_the_quantiles_of_the_content_in_the_order_of_the_style(pair):
    style, content = (image.reshape(-1, 3) for image in HISTOGRAMS[pair])
    result = np.asarray(matched(STYLE, CONTENT)[1][pair]).reshape(-1, 3)
    at, middles = ((np.arange(len(image)) + 0.5) / len(image) for image in (style, content))
    for channel in range(3):
        quantiles = np.interp(at, middles, np.sort(content[:, channel]))
        np.testing.assert_allclose(result[np.argsort(style[:, channel]), channel], quantiles, atol=1e-6)


def test_pictures_of_equal_size_exchange_their_values_exactly():
    style = HISTOGRAMS[3][0]
    result = np.asarray(matched(STYLE, CONTENT)[1][3]).reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(result, axis=0), np.sort(CONTENT.reshape(-1, 3), axis=0))
    np.testing.assert_array_equal(np.argsort(result, axis=0), np.argsort(style.reshape(-1, 3), axis=0))
    quantized = np.round(8 * CONTENT) / 8  # with ties
    pair = quantized.reshape(style.shape), quantized
    actual = matched(STYLE, CONTENT, [*HISTOGRAMS[:3], pair])[1][3]
    np.testing.assert_array_equal(actual, pair[0])


@pytest.mark.slow
def test_each_value_of_the_content_counts_once_in_a_histogram_of_equal_size():
    gradients = jax.jit(jax.grad(lambda s, c: match_histogram(s, c).sum(), argnums=(0, 1)))
    by_style, by_content = gradients(picture(5, 4), CONTENT)
    np.testing.assert_array_equal(by_style, np.zeros_like(by_style))
    np.testing.assert_array_equal(by_content, np.ones_like(CONTENT))


@pytest.mark.slow
@every_function
def test_gradients_are_finite_on_flat_pictures_and_agree_with_finite_differences(function):
    gradient = jax.jit(jax.grad(lambda *pictures: jnp.sum(jnp.sin(9 * function(*pictures))), argnums=(0, 1)))
    black = 0 * CONSTANT
    flat = [(CONSTANT, CONSTANT), (black, CONSTANT), (CONSTANT, CONTENT), (CONTENT, black), (GREY, GREY)]
    for style, content in flat:
        assert all(np.isfinite(by).all() for by in gradient(style, content))
    with jax.enable_x64(True):
        pictures = tuple(jnp.asarray(image, jnp.float64) for image in (STYLE, CONTENT))
        check_grads(jax.jit(function), pictures, order=1, modes=["rev"], eps=1e-6, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@every_function
def test_vmap_equals_a_loop_over_pictures(function):
    styles, contents = np.stack([STYLE, STYLE / 2]), np.stack([CONTENT, CONTENT / 3])
    batch, compiled = jax.jit(jax.vmap(function))(styles, contents), jax.jit(function)
    for i in range(2):
        np.testing.assert_allclose(batch[i], compiled(styles[i], contents[i]), atol=2e-6)

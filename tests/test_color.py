from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.color import luminance, match, match_histogram, match_luminance, with_colors_of
from jaxstyle.errors import InputError

RNG = np.random.default_rng(0)
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
FORMS = ("symmetric", "cholesky")


def picture(height: int, width: int, *, spread: float = 0.12) -> np.ndarray:
    """Return pixels around 0.5 whose channels are correlated; at the default spread none is near a bound."""
    mixed = RNG.uniform(-1, 1, (height, width, 3)) @ (np.eye(3) + RNG.uniform(-0.5, 0.5, (3, 3)))
    return (0.5 + spread * mixed).astype(np.float32)


STYLE, CONTENT = picture(6, 7), picture(5, 4, spread=0.15)
GREY = np.repeat(RNG.uniform(0.3, 0.7, (5, 4, 1)), 3, axis=2).astype(np.float32)
CONSTANT = np.full((5, 4, 3), 0.3, np.float32)
BLACK = np.zeros((5, 4, 3), np.float32)

FUNCTIONS = {
    "match_luminance": match_luminance,
    "match-symmetric": match,
    "match-cholesky": partial(match, form="cholesky"),
    "match_histogram": match_histogram,
    "with_colors_of": lambda style, _: with_colors_of(style, style[::-1]),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def covariance(image) -> np.ndarray:
    rows = np.asarray(image, np.float64).reshape(-1, 3)
    return np.cov(rows.T, bias=True) + 1e-5 * np.eye(3)


def root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.sqrt(values)) @ vectors.T


def numpy_match(style, content, form: str) -> np.ndarray:
    """Recolour in float64, with symmetric roots by eigendecomposition."""
    of_style, of_content = covariance(style), covariance(content)
    if form == "cholesky":
        transform = np.linalg.cholesky(of_content) @ np.linalg.inv(np.linalg.cholesky(of_style))
    else:
        inner, inverse = root(of_style), np.linalg.inv(root(of_style))
        transform = inverse @ root(inner @ of_content @ inner) @ inverse
    recoloured = (style - style.mean((0, 1), np.float64)) @ transform.T + content.mean((0, 1), np.float64)
    return np.clip(recoloured, 0, 1)


def test_luminance_is_y_of_yiq_on_all_three_channels():
    expected = np.repeat((STYLE.astype(np.float64) @ YIQ[0])[..., None], 3, axis=-1)
    np.testing.assert_allclose(luminance(jnp.asarray(STYLE)), expected, rtol=1e-6)


def test_luminance_of_a_grey_picture_is_that_picture_bit_for_bit():
    np.testing.assert_array_equal(luminance(jnp.asarray(GREY)), GREY)


def test_matched_luminance_has_the_mean_and_deviation_of_the_contents():
    matched = match_luminance(jnp.asarray(STYLE), jnp.asarray(CONTENT))
    y_style, y_content = STYLE.astype(np.float64) @ YIQ[0], CONTENT.astype(np.float64) @ YIQ[0]
    scale = np.sqrt((y_content.var() + 1e-5) / (y_style.var() + 1e-5))
    expected = scale * (y_style - y_style.mean()) + y_content.mean()
    np.testing.assert_allclose(matched, np.repeat(expected[..., None], 3, axis=-1), atol=1e-6)
    assert np.std(matched) == pytest.approx(y_content.std(), rel=1e-2)


def test_matched_luminance_of_each_of_a_batch_is_that_of_the_picture():
    batch = match_luminance(jnp.stack([STYLE, STYLE / 2]), jnp.stack([CONTENT, CONTENT / 3]))
    np.testing.assert_allclose(batch[1], match_luminance(jnp.asarray(STYLE / 2), jnp.asarray(CONTENT / 3)), atol=1e-6)


def test_the_result_has_the_luminance_of_the_image_and_i_and_q_of_the_content():
    image = picture(5, 4)
    expected = CONTENT @ YIQ.T
    expected[..., 0] = image @ YIQ[0]
    result = with_colors_of(jnp.asarray(CONTENT), jnp.asarray(image))
    np.testing.assert_allclose(result, expected @ np.linalg.inv(YIQ).T, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_pixels_that_were_not_touched_keep_the_contents_colour_bit_for_bit(wrap):
    content = jnp.asarray(RNG.uniform(0, 1, (40, 30, 3)).astype(np.float32))
    grey = wrap(luminance)(content)
    np.testing.assert_array_equal(wrap(with_colors_of)(content, content), content)
    np.testing.assert_array_equal(wrap(with_colors_of)(content, grey), content)
    half = jnp.concatenate([grey[:20], 1 - grey[20:]])
    np.testing.assert_array_equal(wrap(with_colors_of)(content, half)[:20], content[:20])


def test_a_channel_that_would_leave_the_range_is_clipped():
    red, white = jnp.asarray([[[1.0, 0.0, 0.0]]]), jnp.ones((1, 1, 3))
    np.testing.assert_allclose(with_colors_of(red, white), [[[1, 0.701, 0.701]]], atol=1e-6)
    np.testing.assert_allclose(with_colors_of(red, 0 * white), [[[0.701, 0, 0]]], atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("style", "content"),
    [(STYLE, CONTENT), (STYLE, picture(5, 4, spread=0.6)), (STYLE, GREY), (GREY, CONTENT), (CONSTANT, CONTENT)],
    ids=["plain", "clipped", "grey-content", "grey-style", "constant-style"],
)
def test_match_equals_roots_by_eigendecomposition_in_float64(style, content, form):
    result = match(jnp.asarray(style), jnp.asarray(content), form=form)
    np.testing.assert_allclose(result, numpy_match(style, content, form), atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_matched_style_has_the_contents_mean_and_covariance(form):
    result = np.asarray(match(jnp.asarray(STYLE), jnp.asarray(CONTENT), form=form))
    assert 0 < result.min() and result.max() < 1
    np.testing.assert_allclose(result.mean((0, 1)), CONTENT.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(covariance(result), covariance(CONTENT), atol=1e-4)


def test_the_symmetric_form_changes_colours_less_than_cholesky():
    symmetric, cholesky = (match(jnp.asarray(STYLE), jnp.asarray(CONTENT), form=form) for form in FORMS)
    assert np.sum((symmetric - STYLE) ** 2) < np.sum((cholesky - STYLE) ** 2)


def test_the_order_of_the_channels_matters_to_cholesky_but_not_to_the_symmetric_form():
    style, content = jnp.asarray(STYLE), jnp.asarray(CONTENT)
    turned = {form: match(style[..., ::-1], content[..., ::-1], form=form)[..., ::-1] for form in FORMS}
    np.testing.assert_allclose(turned["symmetric"], match(style, content), atol=1e-5)
    assert np.abs(turned["cholesky"] - match(style, content, form="cholesky")).max() > 1e-2


def test_a_style_matched_to_a_grey_content_is_grey():
    assert np.ptp(match(jnp.asarray(GREY[::2]), jnp.asarray(GREY)), axis=-1).max() < 1e-5


def test_an_unknown_form_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="Form 'pca' is unknown: use 'symmetric' or 'cholesky'"):
        match(jnp.asarray(STYLE), jnp.asarray(CONTENT), form="pca")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("count", [1, 7, 60])
def test_a_matched_histogram_is_the_contents_quantiles_in_the_styles_order(count):
    style = RNG.uniform(size=(1, count, 3)).astype(np.float32)
    result = np.asarray(match_histogram(jnp.asarray(style), jnp.asarray(CONTENT)))
    for channel in range(3):
        values, order = np.sort(CONTENT[..., channel].ravel()), np.argsort(style[0, :, channel])
        quantiles = np.interp((np.arange(count) + 0.5) / count, (np.arange(20) + 0.5) / 20, values)
        np.testing.assert_allclose(result[0, order, channel], quantiles, atol=1e-6)


def test_pictures_of_equal_size_exchange_their_values_exactly():
    style = picture(4, 5)
    result = np.asarray(match_histogram(jnp.asarray(style), jnp.asarray(CONTENT)))
    np.testing.assert_array_equal(np.sort(result.reshape(-1, 3), axis=0), np.sort(CONTENT.reshape(-1, 3), axis=0))
    np.testing.assert_array_equal(np.argsort(result.reshape(-1, 3), axis=0), np.argsort(style.reshape(-1, 3), axis=0))


def test_a_picture_matched_to_its_own_histogram_is_itself_bit_for_bit():
    quantised = np.round(8 * STYLE) / 8  # with ties
    np.testing.assert_array_equal(match_histogram(jnp.asarray(quantised), jnp.asarray(quantised)), quantised)


def test_each_value_of_the_content_counts_once_in_a_histogram_of_equal_size():
    style = jnp.asarray(picture(5, 4))
    by_style, by_content = jax.grad(lambda s, c: match_histogram(s, c).sum(), argnums=(0, 1))(style, CONTENT)
    np.testing.assert_array_equal(by_style, np.zeros_like(by_style))
    np.testing.assert_array_equal(by_content, np.ones_like(CONTENT))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("image", [STYLE, GREY, CONSTANT, BLACK], ids=["plain", "grey", "constant", "black"])
def test_a_picture_matched_to_itself_is_itself(image, form):
    np.testing.assert_allclose(match(jnp.asarray(image), jnp.asarray(image), form=form), image, atol=1e-6)
    np.testing.assert_allclose(match_luminance(image, image), luminance(jnp.asarray(image)), atol=1e-6)


@pytest.mark.parametrize("name", ["match_luminance", "match-symmetric", "match-cholesky"])
def test_a_constant_style_becomes_the_contents_mean(name):
    content = CONTENT if name != "match_luminance" else luminance(jnp.asarray(CONTENT))
    expected = np.broadcast_to(np.mean(content, axis=(0, 1)), CONSTANT.shape)
    np.testing.assert_allclose(FUNCTIONS[name](jnp.asarray(CONSTANT), content), expected, atol=1e-5)


@every_function
def test_gradients_are_finite_on_constant_grey_and_equal_pictures(function):
    def loss(style, content):
        return jnp.sum(jnp.sin(9 * function(style, content)))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    equal = jnp.asarray(CONSTANT)
    for style, content in [(equal, equal), (BLACK, equal), (equal, CONTENT), (CONTENT, BLACK), (GREY, GREY)]:
        assert all(np.isfinite(by).all() for by in gradient(style, content))


@every_function
def test_gradients_agree_with_finite_differences(function):
    with jax.enable_x64(True):
        pictures = tuple(jnp.asarray(image, jnp.float64) for image in (STYLE, CONTENT))
        check_grads(jax.jit(function), pictures, order=1, modes=["fwd", "rev"], eps=1e-6, atol=1e-4, rtol=1e-4)


@every_function
def test_jit_equals_eager(function):
    np.testing.assert_allclose(
        jax.jit(function)(STYLE, CONTENT), function(jnp.asarray(STYLE), jnp.asarray(CONTENT)), atol=1e-6
    )


@pytest.mark.slow
@every_function
def test_vmap_equals_a_loop_over_pictures(function):
    styles, contents = jnp.stack([STYLE, STYLE / 2]), jnp.stack([CONTENT, CONTENT / 3])
    batch = jax.vmap(function)(styles, contents)
    for i in range(2):
        np.testing.assert_allclose(batch[i], function(styles[i], contents[i]), atol=2e-6)

"""Terms of STROTSS, compared with loops over pairs in double precision."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle.errors import InputError
from jaxstyle.losses import relaxed_emd

pytestmark = pytest.mark.slow  # each file compiles a program

RNG = np.random.default_rng(0)
X: Any
Y: Any
CONTENT: Any
COLORS: Any
PALETTE: Any
X, Y = (RNG.normal(0.3, 1, (n, 5)).astype(np.float32) for n in (11, 7))
CONTENT = RNG.normal(0.3, 1, (11, 4)).astype(np.float32)
COLORS, PALETTE = (RNG.random((n, 3)).astype(np.float32) for n in (11, 7))
CHUNKS = (4, 100)


@jax.jit
def program(x, y, content, colors, palette):
    """Return all that the quick tests inspect: of one program, as they compile few."""
    emd = {chunk: relaxed_emd.relaxed_emd(x, y, chunk=chunk) for chunk in CHUNKS}
    of_colors = {chunk: relaxed_emd.color_distance(colors, palette, chunk=chunk) for chunk in CHUNKS}
    of_moments = relaxed_emd.moment_distance(relaxed_emd.mean_covariance(x), relaxed_emd.mean_covariance(y))

    def positions(key):
        rows, columns = relaxed_emd.sample_positions(11, 7, key=key, count=6)
        return jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)

    draw = jax.vmap(positions)
    similarity, rotated = relaxed_emd.self_similarity(x, content), relaxed_emd.decorrelate(colors)
    return emd, of_colors, of_moments, similarity, rotated, draw(jax.random.split(jax.random.key(0), 100))


def computed(x: Any = X, y: Any = Y, content: Any = CONTENT, colors: Any = COLORS, palette: Any = PALETTE) -> Any:
    return jax.device_get(program(x, y, content, colors, palette))


def cosine_distances(x: Any, y: Any) -> np.ndarray:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.array([[1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in y] for a in x])


def relaxed(distances: np.ndarray) -> float:
    return float(max(np.mean([min(row) for row in distances]), np.mean([min(column) for column in distances.T])))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_relaxed_emd_is_the_larger_mean_of_smallest_distances(chunk):
    spread, narrow = X, np.concatenate([X[:1], 2 * X[:1], X[:1] + 0.01, *[X[1:2]] * 4])
    for x, y in ((X, Y), (spread, narrow), (np.concatenate([narrow, narrow[:4]]), X[:7])):  # either mean is the larger
        assert computed(x=x, y=y)[0][chunk] == pytest.approx(relaxed(cosine_distances(x, y)), rel=1e-5, abs=1e-6)


def test_filled_rows_of_a_chunk_match_no_vector():
    """Of vectors that are far from all of x, a row of zeros would be the nearest, at a distance of 1."""
    x, y = np.abs(X), -np.abs(Y)
    assert computed(x=x, y=y)[0][4] == pytest.approx(relaxed(cosine_distances(x, y)), rel=1e-5)
    assert computed(x=x, y=y)[0][4] > 1


@pytest.mark.parametrize("chunk", CHUNKS)
def test_color_distance_adds_cosine_and_root_mean_square_in_rotated_colors(chunk):
    colors, palette = COLORS.copy(), PALETTE
    colors[0] = palette[0]  # a distance of zero, which has a lower bound
    actual = computed(colors=colors)
    # The rotation takes gray to brightness, so that the differences of color of gray are zero.
    rotation = [[0.577350, 0.577350, 0.577350], [-0.577350, 0.788675, -0.211325], [-0.577350, -0.211325, 0.788675]]
    np.testing.assert_allclose(actual[4], colors @ np.transpose(rotation), atol=1e-5)
    x, y = (np.asarray(each, np.float64) - 0.5 for each in (colors, palette))
    euclidean = [[np.sqrt(max(np.sum((a - b) ** 2), 1e-5) / 3) for b in y] for a in x]
    expected = relaxed(cosine_distances(x, y) + np.array(euclidean))
    assert actual[1][chunk] == pytest.approx(expected, rel=1e-5)


def test_moment_distance_is_the_mean_absolute_difference_of_means_and_covariances():
    expected = np.abs(X.mean(0, float) - Y.mean(0, float)).mean()
    differences = np.cov(X.astype(float).T, bias=True) - np.cov(Y.astype(float).T, bias=True)
    assert computed()[2] == pytest.approx(expected + np.abs(differences).mean(), rel=1e-5)


def test_self_similarity_compares_matrices_with_columns_of_sum_one():
    of_x, of_content = cosine_distances(X, X), cosine_distances(CONTENT, CONTENT)
    total = 0.0
    for j in range(len(X)):
        for i in range(len(X)):
            total += abs(of_x[i, j] / of_x[:, j].sum() - of_content[i, j] / of_content[:, j].sum())
    assert computed()[3] == pytest.approx(total / len(X), rel=1e-5)


def test_terms_of_constant_features_are_finite_and_zero_for_the_same():
    ones = np.ones_like(X)
    emd, of_colors, of_moments, similarity, *_ = computed(x=ones, y=ones[:7], content=np.ones_like(CONTENT))
    assert abs(emd[4]) < 1e-6 and of_moments == 0 and similarity < 0.2 and np.isfinite(of_colors[4])
    zeros = computed(x=0 * X, y=0 * Y, content=0 * CONTENT, colors=0 * COLORS + 0.5, palette=0 * PALETTE + 0.5)
    assert all(np.isfinite(each).all() for each in jax.tree.leaves(zeros))


def test_positions_lie_on_a_grid_inside_and_reach_every_pixel():
    seen = np.zeros((11, 7), bool)
    drawn = computed()[5]
    assert drawn.shape == (100, 6, 2)  # of a stride of 3, the smallest
    for actual in drawn:
        assert (np.unique(actual[:, 0]) - actual[0, 0]).tolist() == [0, 3, 6]
        assert (np.unique(actual[:, 1]) - actual[0, 1]).tolist() == [0, 3]
        seen[tuple(actual.T)] = True  # an index out of range would raise
    assert seen.all()


def test_impossible_inputs_are_refused():
    refused = {
        "cannot be compared": lambda: relaxed_emd.relaxed_emd(X, CONTENT),
        "chunk is -1": lambda: relaxed_emd.relaxed_emd(X, Y, chunk=-1),
        "differ in number": lambda: relaxed_emd.self_similarity(X, Y),
        "Colors have shapes": lambda: relaxed_emd.color_distance(X, Y),
        "0 positions": lambda: relaxed_emd.sample_positions(4, 4, key=jax.random.key(0), count=0),
    }
    for words, call in refused.items():
        with pytest.raises(InputError, match=words):
            call()


def loss(x: Any, colors: Any, chunk: int = 4) -> jax.Array:
    """Return the sum of all terms."""
    emd, color = relaxed_emd.relaxed_emd(x, Y, chunk=chunk), relaxed_emd.color_distance(colors, PALETTE, chunk=chunk)
    of_moments = relaxed_emd.moment_distance(relaxed_emd.mean_covariance(x), relaxed_emd.mean_covariance(Y))
    return emd + color + of_moments + relaxed_emd.self_similarity(x, CONTENT)


def test_gradients_agree_with_finite_differences():
    with jax.enable_x64(True):
        inputs = jnp.asarray(X, jnp.float64), jnp.asarray(COLORS, jnp.float64)
        check_grads(jax.jit(loss), inputs, order=1, modes=["rev"], eps=1e-6, atol=1e-6, rtol=1e-5)


def test_a_batch_equals_its_sets_and_the_chunk_changes_nothing_beyond_rounding():
    xs, colors = np.stack([X, X[::-1] + 0.5, 2 - X]), np.stack([COLORS, 1 - COLORS, COLORS**2])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(xs, colors)
    single = jax.jit(jax.value_and_grad(loss), static_argnames="chunk")
    for i in range(3):
        for chunk in (1, 1000):
            value, gradient = single(xs[i], colors[i], chunk=chunk)
            assert value == pytest.approx(float(values[i]), rel=1e-5)
            np.testing.assert_allclose(gradients[i], gradient, rtol=1e-4, atol=1e-6)

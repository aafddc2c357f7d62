"""Nearest-neighbor matching, compared with loops over positions in double precision."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.test_util import check_grads

from jaxstyle.errors import InputError
from jaxstyle.losses import neighbors

pytestmark = pytest.mark.slow  # each file compiles a program

RNG = np.random.default_rng(0)


def random_layers(*shapes: tuple[int, int, int]) -> dict[str, np.ndarray]:
    return {f"layer {i}": RNG.normal(0.5, 1, shape).astype(np.float32) for i, shape in enumerate(shapes)}


IMAGE: Any = random_layers((9, 13, 3), (4, 6, 5), (2, 3, 4))  # as of pools, which round odd sizes down
STYLES: Any = [random_layers((8, 10, 3), (4, 5, 5), (2, 2, 4)), random_layers((10, 8, 3), (5, 4, 5), (2, 2, 4))]
POSITIONS: Any = np.array([[0, 0], [8, 12], [3, 5], [7, 2], [1, 11]], np.int32)
GRID = (5, 4)
SPLIT, LIMIT = ("layer 0", "layer 1"), 6  # of the image the first is sampled with a stride of 2
QUERY: Any
REFERENCE: Any
QUERY, REFERENCE = (RNG.normal(0.5, 1, (n, 6)).astype(np.float32) for n in (11, 17))
COLUMNS: Any = RNG.normal(0.1, 0.2, (17, 12)).astype(np.float32)
WEIGHTS: Any = RNG.random(11).astype(np.float32)
USABLE: Any = np.arange(17) % 3 > 0
REGION: Any = np.ones((4, 6), np.float32)
REGION[:, :2], REGION[1] = 0, 0.5
PARTS: Any = [{"layer 1": np.arange(h * w).reshape(h, w) % 2 > 0} for h, w in ((4, 5), (5, 4))]


@jax.jit
def program(image, styles, positions, key, vectors):
    """Return all that the quick tests inspect: of one program, as they compile few."""
    query, reference = vectors
    columns = [neighbors.hypercolumns(image, GRID), neighbors.hypercolumns(image, positions, divisor="none")]
    matches = [neighbors.nearest(query, reference, chunk=chunk) for chunk in (4, 11)]
    targets = neighbors.matched_targets(query[:10].reshape(2, 5, 6), reference, chunk=4)
    distance = neighbors.cosine_distance(query, reference[:11])
    columns.append(neighbors.hypercolumns(image, (positions[:, 0], positions[:2, 1]), divisor="none"))
    image = {name: image[name] for name in SPLIT}
    split = neighbors.split_loss(image, styles, key=key, limit=LIMIT, chunk=7)
    matches.append(neighbors.nearest(query, reference, weights=WEIGHTS, usable=USABLE, chunk=4))
    own = {"layer 1": image["layer 1"]}
    regional = neighbors.split_loss(own, styles, key=key, weights=REGION, usable=PARTS)["layer 1"]
    return columns, matches, targets, distance, split, regional


def computed(*, image: Any = IMAGE, styles: Any = STYLES, key: int = 0, vectors: Any = (QUERY, REFERENCE)) -> Any:
    return jax.device_get(program(image, styles, POSITIONS, jax.random.key(key), vectors))


def interpolated(layer: np.ndarray, row: float, column: float) -> np.ndarray:
    """Return the bilinear mean of the four pixels around a point, which is clipped to the layer."""
    height, width, _ = layer.shape
    row, column = min(row, height - 1), min(column, width - 1)
    total = np.zeros(layer.shape[-1])
    for i, j in itertools.product(range(height), range(width)):
        total += max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j)) * layer[i, j].astype(np.float64)
    return total


def test_hypercolumns_on_a_grid_are_layers_divided_by_channels_with_common_corners():
    actual = computed()[0][0]
    assert actual.shape == (*GRID, 12)
    for i, j in itertools.product(*map(range, GRID)):
        expected = [
            interpolated(layer, i * (layer.shape[0] - 1) / (GRID[0] - 1), j * (layer.shape[1] - 1) / (GRID[1] - 1))
            / layer.shape[2]
            for layer in IMAGE.values()
        ]
        np.testing.assert_allclose(actual[i, j], np.concatenate(expected), rtol=1e-5, atol=1e-6)


def test_hypercolumns_at_positions_halve_the_coordinates_at_each_pool():
    for length, size, stride in ((16, 33, 2), (17, 33, 2), (3, 33, 16), (3, 17, 8), (3, 31, 8), (1, 15, 8)):
        assert neighbors._places(jnp.asarray([stride]), length, size).tolist() == [min(1, length - 1)]
    actual = computed()[0][1]
    for position, vector in zip(POSITIONS, actual, strict=True):
        expected = [
            interpolated(layer, position[0] / stride, position[1] / stride)
            for layer, stride in zip(IMAGE.values(), (1, 2, 4), strict=True)
        ]
        np.testing.assert_allclose(vector, np.concatenate(expected), rtol=1e-5, atol=1e-6)


def test_hypercolumns_of_rows_and_columns_are_those_of_all_pairs():
    _, at_positions, of_axes = computed()[0]
    assert of_axes.shape == (5, 2, 12)
    np.testing.assert_allclose(of_axes[[0, 1], [0, 1]], at_positions[:2], rtol=1e-5, atol=1e-6)


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / max(np.linalg.norm(x), 1e-4) / max(np.linalg.norm(y), 1e-4))


def nearest_by_loops(query: Any, reference: Any, weights: Any = None, usable: Any = None) -> list[tuple[int, float]]:
    """Return for each query the index of its match and their centered cosine distance."""
    query, reference = (
        np.asarray(each, np.float64) - np.average(np.asarray(each, np.float64), axis=0, weights=of_each)
        for each, of_each in ((query, weights), (reference, usable))
    )
    result = []
    for q in query:
        distances = 1 - reference @ q / np.linalg.norm(reference, axis=1) / np.linalg.norm(q)
        distances = distances if usable is None else np.where(usable, distances, np.inf)
        result.append((int(np.argmin(distances)), np.min(distances)))
    return result


def test_nearest_is_the_smallest_centered_cosine_distance_for_every_chunk():
    expected = [index for index, _ in nearest_by_loops(QUERY, REFERENCE)]
    _, matches, targets, *_ = computed()
    assert len(set(expected)) > 4
    for actual in matches[:2]:
        assert actual.tolist() == expected
    np.testing.assert_array_equal(targets, REFERENCE[expected[:10]].reshape(2, 5, 6))


def test_weights_change_the_mean_of_queries_and_unusable_vectors_are_no_match():
    expected = [index for index, _ in nearest_by_loops(QUERY, REFERENCE, WEIGHTS, USABLE)]
    assert expected != [index for index, _ in nearest_by_loops(QUERY, REFERENCE)] and USABLE[expected].all()
    assert computed()[1][2].tolist() == expected


def test_split_loss_of_a_region_uses_its_positions_and_the_usable_vectors():
    reference = np.concatenate([style["layer 1"].reshape(-1, 5) for style in STYLES])
    usable = np.concatenate([each["layer 1"].reshape(-1) for each in PARTS])
    weights = REGION.reshape(-1)
    pairs = nearest_by_loops(IMAGE["layer 1"].reshape(-1, 5), reference, weights, usable)
    expected = np.mean([weight * least for weight, (_, least) in zip(weights, pairs, strict=True)])
    assert computed()[5] == pytest.approx(expected, rel=1e-5)


def test_nearest_ignores_the_mean_and_the_scale_of_either_side():
    shifted = 7 * QUERY + 3, 0.1 * REFERENCE - 2
    np.testing.assert_array_equal(computed(vectors=shifted)[1][0], computed()[1][0])


def test_equal_vectors_match_the_first_and_zeros_have_distance_one():
    _, matches, _, distance, split, _ = computed(
        vectors=(np.zeros_like(QUERY), np.zeros_like(REFERENCE)), image=jax.tree.map(np.zeros_like, IMAGE)
    )
    assert not matches[0].any() and distance == 1.0
    assert {float(each) for each in split.values()} == {1.0}


def test_cosine_distance_is_a_mean_over_vectors_that_are_not_centered():
    expected = np.mean([1 - cosine(*pair) for pair in zip(QUERY, REFERENCE[:11], strict=True)])
    assert computed()[3] == pytest.approx(expected, rel=1e-5)


def test_split_loss_of_a_layer_is_the_mean_distance_of_the_nearest_vectors_of_all_styles():
    layer, reference = IMAGE["layer 1"], np.concatenate([style["layer 1"].reshape(-1, 5) for style in STYLES])
    expected = np.mean([least for _, least in nearest_by_loops(layer.reshape(-1, 5), reference)])
    assert computed()[4]["layer 1"] == pytest.approx(expected, rel=1e-5)


def strided(layer: np.ndarray, stride: int) -> list[np.ndarray]:
    """Return the vectors for each choice of offsets."""
    height, width, channels = layer.shape
    rows, columns = height // stride, width // stride
    offsets = itertools.product(range(height - (rows - 1) * stride), range(width - (columns - 1) * stride))
    return [layer[i::stride, j::stride][:rows, :columns].reshape(-1, channels) for i, j in offsets]


def test_split_loss_samples_a_large_layer_on_a_grid_with_offsets_of_the_key():
    possible = [
        np.mean([least for _, least in nearest_by_loops(rows, np.concatenate(references))])
        for rows in strided(IMAGE["layer 0"], 2)
        for references in itertools.product(*(strided(style["layer 0"], 1) for style in STYLES))
    ]
    assert len(possible) == 9
    actual = [computed(key=key)[4] for key in range(8)]
    values = {float(each["layer 0"]) for each in actual}
    for value in values:
        assert np.min(np.abs(value - np.array(possible))) < 1e-4 * value
    assert len(values) > 2
    assert len({float(each["layer 1"]) for each in actual}) == 1


def test_orientations_are_rotations_counterclockwise_and_their_mirror_images():
    image = RNG.random((4, 6, 3)).astype(np.float32)
    turned = [image, image.transpose(1, 0, 2)[::-1], image[::-1, ::-1], image.transpose(1, 0, 2)[:, ::-1]]
    for actual, expected in zip(
        neighbors.orientations(image, flips=True), [*turned, *(each[:, ::-1] for each in turned)], strict=True
    ):
        np.testing.assert_array_equal(actual, expected)
    for actual, expected in zip(neighbors.orientations(image, rotations=2), turned[::2], strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_the_gradient_of_the_split_loss_has_no_matrix_of_all_pairs():
    """The matrix of products, one chunk of it, is computed once in each layer: for the match, without a gradient."""

    def loss(image):
        return sum(neighbors.split_loss(image, STYLES, key=jax.random.key(0), chunk=7).values())

    text = str(jax.make_jaxpr(jax.grad(loss))(IMAGE))
    assert text.count("dot_general[") == len(IMAGE)


def test_impossible_inputs_are_refused():
    key = jax.random.key(0)
    ones: Any = np.ones((2, 3), np.float32)
    layer: Any = np.ones((4, 4, 3), np.float32)
    refused = {
        "no layer": lambda: neighbors.hypercolumns({}, (2, 2)),
        "'a' has shape": lambda: neighbors.hypercolumns({"a": layer[None]}, (2, 2)),
        "positions have shape": lambda: neighbors.hypercolumns({"a": layer}, ones),
        r"\(2, 3\) and \(2, 2\)": lambda: neighbors.nearest(ones, layer[0, :2, :2]),
        "empty": lambda: neighbors.nearest(ones, ones[:0]),
        "chunk is 0": lambda: neighbors.nearest(ones, ones, chunk=0),
        "differ in shape": lambda: neighbors.cosine_distance(ones, ones[:1]),
        "no style": lambda: neighbors.split_loss({"a": layer}, [], key=key),
        "limit is 0": lambda: neighbors.split_loss({"a": layer}, [{"a": layer}], key=key, limit=0),
        "lacks the layer 'a'": lambda: neighbors.split_loss({"a": layer}, [{"b": layer}], key=key),
        "rotations is 3": lambda: neighbors.orientations(layer, rotations=3),
    }
    for words, call in refused.items():
        with pytest.raises(InputError, match=words):
            call()


def loss(image: Any, key: Any, chunk: int = 4) -> jax.Array:
    """Return a sum of both losses."""
    columns = neighbors.hypercolumns(image, GRID)
    targets = neighbors.matched_targets(columns, COLUMNS, chunk=chunk)
    points = neighbors.hypercolumns(image, POSITIONS)
    layers = {name: image[name] for name in SPLIT}
    split = neighbors.split_loss(layers, STYLES, key=key, limit=LIMIT, chunk=chunk)
    return neighbors.cosine_distance(columns, targets) + jnp.mean(points**2) + sum(split.values())


def test_gradients_agree_with_finite_differences():
    with jax.enable_x64(True):
        image = jax.tree.map(lambda layer: jnp.asarray(layer, jnp.float64), IMAGE)
        function = jax.jit(lambda image: loss(image, jax.random.key(0)))
        check_grads(function, (image,), order=1, modes=["rev"], eps=1e-6, atol=1e-6, rtol=1e-5)


def test_a_batch_equals_its_images_and_the_chunk_changes_nothing_beyond_rounding():
    batch = jax.tree.map(lambda layer: np.stack([layer, layer[::-1], 2 - layer]), IMAGE)
    keys = jax.random.split(jax.random.key(0), 3)
    slope = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    single = jax.jit(jax.value_and_grad(loss), static_argnames="chunk")
    values, gradients = slope(batch, keys)
    for i, key in enumerate(keys):
        for chunk in (1, 1000):
            value, gradient = single(jax.tree.map(lambda layer, i=i: layer[i], batch), key, chunk=chunk)
            assert value == pytest.approx(float(values[i]), rel=1e-5)
            for name, expected in gradient.items():
                np.testing.assert_allclose(gradients[name][i], expected, rtol=1e-4, atol=1e-6)


def test_the_largest_array_of_matching_has_one_chunk_of_all_pairs():
    vectors = jax.ShapeDtypeStruct((4096, 8), jnp.float32)

    def most(chunk: int) -> int:
        text = jax.make_jaxpr(lambda q, r: neighbors.nearest(q, r, chunk=chunk))(vectors, vectors)
        return max(_sizes(text.jaxpr))

    assert most(64) == 64 * 4096 and most(4096) == 4096**2


def _sizes(jaxpr: Any) -> list[int]:
    """Return the number of elements of every intermediate array of a program."""
    result = []
    for equation in jaxpr.eqns:
        result += [variable.aval.size for variable in equation.outvars]
        for inner in jaxprs_in_params(equation.params):
            result += _sizes(inner)
    return result

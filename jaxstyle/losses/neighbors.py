r"""Nearest-neighbor matching of features: the terms of Neural Neighbor Style Transfer (NNST).

Activations are mappings from layer names to `[h, w, C]`. A hypercolumn is the vector of all layers at one position.
`hypercolumns` and `matched_targets` give the target of each position, and `cosine_distance` is the loss for fixed
targets. `split_loss`, the loss of the last pass, matches each layer separately at every step. Indices of matches have
no gradient. Functions use float32 or wider, whatever the dtype of the features.

Kolkin, Kucera, Paris, Sykora, Shechtman and Shakhnarovich, *Neural Neighbor Style Transfer*, arXiv:2203.13215, and
their program nkolkin13/NeuralNeighborStyleTransfer. Deviation: vectors are centered by the mean of all positions. Their
program centers chunks of positions by the mean of the chunk, so that its results depend on the size of the chunks.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.errors import InputError
from jaxstyle.images.resample import array_module

CHUNK = 1024  # queries compared at once with all reference vectors
LIMIT = 64  # positions along the longer side of a layer above which the program of NNST samples
SMALLEST_SQUARE = 1e-8  # lower bound of squared norms, as in the program of NNST


def hypercolumns(
    activations: Mapping[str, jax.Array],
    grid: tuple[int, int] | tuple[jax.Array, jax.Array] | jax.Array,
    *,
    divisor: Literal["channels", "none"] = "channels",
) -> jax.Array:
    """Return all layers, interpolated bilinearly at common positions and concatenated.

    On a grid the corners of all layers coincide and every output is a mean of at most four pixels, without
    antialiasing, as in NNST. At given positions the coordinates are divided by the stride of the layer, a power of two,
    as in STROTSS (Kolkin, Salavon and Shakhnarovich, arXiv:1904.12785). Deviation: STROTSS rounds the positions of the
    style down.

    Args:
        activations: layers `[h, w, C]`, in the order of concatenation; the image may be one of them.
        grid: height and width of the grid; or rows `[a]` and columns `[b]` in pixels of the largest layer, whose
            pairs are the positions; or positions `[n, 2]`, row and column of each.
        divisor: "channels" divides each layer by its number of channels, as in NNST, so that wide layers do not
            dominate; "none" leaves the layers unchanged, as in STROTSS.

    Returns:
        `[*grid, C]`, `[a, b, C]` or `[n, C]`, with the sum of all channels.

    Raises:
        InputError: if there is no layer, or if a layer or the positions have the wrong number of axes.

    Example:
        >>> hypercolumns({"a": jnp.ones((8, 8, 4)), "b": jnp.ones((4, 4, 6))}, (2, 3)).shape
        (2, 3, 10)
    """
    if not activations:
        raise InputError("There is no layer: pass the activations of at least one layer.")
    for name, layer in activations.items():
        if layer.ndim != 3:
            raise InputError(f"Layer {name!r} has shape {layer.shape}, not [h, w, C]: use jax.vmap for a batch.")
    layers = [widen(layer) / (layer.shape[-1] if divisor == "channels" else 1) for layer in activations.values()]
    sizes = [max(layer.shape[axis] for layer in layers) for axis in (0, 1)]
    if isinstance(grid, tuple):
        axes = [
            [_axis_matrix(layer, axis, size, where) for axis, (size, where) in enumerate(zip(sizes, grid, strict=True))]
            for layer in layers
        ]
        return jnp.concatenate([_separable(*each) for each in zip(layers, axes, strict=True)], axis=-1)
    if grid.ndim != 2 or grid.shape[-1] != 2:
        raise InputError(f"The positions have shape {grid.shape}, not [n, 2]: pass a row and a column for each.")
    return jnp.concatenate([_at_positions(layer, grid, sizes) for layer in layers], axis=-1)


def _separable(layer: jax.Array, matrices: Sequence[Any]) -> jax.Array:
    """Return a layer multiplied by a matrix along each axis, which needs no gather and no scatter for the gradient."""
    lines = jnp.einsum("ah,hwc->awc", matrices[0], layer, precision="highest")
    return jnp.einsum("bw,awc->abc", matrices[1], lines, precision="highest")


def _axis_matrix(layer: jax.Array, axis: int, size: int, where: int | jax.Array) -> Any:
    """Return the matrix `[a, h]` that interpolates an axis bilinearly at pixels of the largest layer or at `where`."""
    length = layer.shape[axis]
    if isinstance(where, int):
        places: Any = np.linspace(0, length - 1, where)  # the first and last samples coincide
        return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(length))).astype(layer.dtype)
    places = _places(where, length, size).astype(layer.dtype)
    return jnp.maximum(0.0, 1.0 - jnp.abs(places[:, None] - jnp.arange(length, dtype=layer.dtype)[None, :]))


def _places(where: jax.Array, length: int, size: int) -> jax.Array:
    """Return the coordinates in a layer of coordinates in the largest layer, of `size` pixels."""
    # The power of two of layers that round down, as pools of VGG-19 do, or up, which can be known from 3 pixels up.
    ratio = 3 * size // (2 * length) if length >= 3 else size // length
    stride = 2 ** (ratio.bit_length() - 1)
    return jnp.clip(where / stride, 0, length - 1)


def _at_positions(layer: jax.Array, positions: jax.Array, sizes: Sequence[int]) -> jax.Array:
    below, above, part = [], [], []
    for axis, size in enumerate(sizes):
        length = layer.shape[axis]
        place = _places(positions[:, axis].astype(layer.dtype), length, size)
        below.append(jnp.floor(place).astype(int))
        above.append(jnp.minimum(below[-1] + 1, length - 1))
        part.append((place - below[-1])[:, None])  # [n, 1]
    (top, left), (bottom, right), (down, across) = below, above, part
    upper = layer[top, left] + across * (layer[top, right] - layer[top, left])  # [n, C]
    lower = layer[bottom, left] + across * (layer[bottom, right] - layer[bottom, left])
    return upper + down * (lower - upper)


def nearest(
    query: jax.Array,
    reference: jax.Array,
    *,
    weights: jax.Array | None = None,
    usable: jax.Array | None = None,
    chunk: int = CHUNK,
) -> jax.Array:
    r"""Return the index of the nearest reference vector of each query by centered cosine distance.

    .. math:: \arg\min_j 1 - \cos(q_i - \bar q, r_j - \bar r)

    Each side is centered by its mean. The result depends on `chunk` by rounding only.

    Args:
        query: `[n, C]`.
        reference: `[m, C]`.
        weights: weights of the queries in their mean, `[n]`; None for equal weights.
        usable: whether each reference vector may be a match, `[m]`; None for all. Their mean is over usable ones.
        chunk: number of queries compared at once; the matrix of products needs `chunk` times m numbers of memory.

    Returns:
        `[n]`, int32 from 0 to m - 1, the lowest of equals; without gradient.

    Raises:
        InputError: if the shapes do not fit, an array is empty or `chunk` is not positive.

    Example:
        >>> nearest(jnp.asarray([[0.0, 1.0], [3.0, 0.0]]), jnp.asarray([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [1, 0]
    """
    check_vectors(query, reference, chunk)
    query, reference = jax.lax.stop_gradient((widen(query), widen(reference)))
    candidates, queries = unit(_centered(reference, usable)), _centered(query, weights)  # the norm of a query is free

    def indices(rows: jax.Array) -> jax.Array:
        similarity = products(rows, candidates)
        if usable is not None:
            similarity = jnp.where(jnp.broadcast_to(usable > 0, similarity.shape), similarity, -jnp.inf)
        return jnp.argmax(similarity, axis=-1).astype(jnp.int32)

    return jax.lax.map(indices, chunks(queries, chunk)).reshape(-1)[: query.shape[0]]


def matched_targets(
    query: jax.Array,
    reference: jax.Array,
    *,
    weights: jax.Array | None = None,
    usable: jax.Array | None = None,
    chunk: int = CHUNK,
) -> jax.Array:
    """Return the nearest reference vector of each query.

    Args:
        query: `[..., C]`, such as hypercolumns `[h, w, C]` of the content; all leading axes are positions.
        reference: `[..., C]`, such as hypercolumns of the style; all leading axes are positions.
        weights: see `nearest`, with the leading axes of `query`.
        usable: see `nearest`, with the leading axes of `reference`.
        chunk: see `nearest`.

    Returns:
        Rows of `reference`, of the shape of `query`; the gradient passes to `reference`.

    Raises:
        InputError: as `nearest`.

    Example:
        >>> matched_targets(jnp.asarray([[0.0, 5.0], [5.0, 0.0]]), jnp.eye(2)).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    rows, candidates = (jnp.asarray(each).reshape(-1, each.shape[-1]) for each in (query, reference))
    flat = [None if each is None else each.reshape(-1) for each in (weights, usable)]
    return candidates[nearest(rows, candidates, weights=flat[0], usable=flat[1], chunk=chunk)].reshape(query.shape)


def cosine_distance(x: jax.Array, target: jax.Array, *, weights: jax.Array | None = None) -> jax.Array:
    r"""Return the mean cosine distance of vectors from their targets, :math:`\mathrm{mean}_i w_i (1 - \cos(x_i, t_i))`.

    The vectors are not centered, as in NNST.

    Args:
        x: `[..., C]`, such as the hypercolumns of the image.
        target: of the shape of `x`, as of `matched_targets`.
        weights: w, `[...]`; None for 1.

    Returns:
        A scalar from 0 to 2, for weights up to 1.

    Raises:
        InputError: if the shapes differ.

    Example:
        >>> float(cosine_distance(jnp.asarray([[2.0, 0.0], [0.0, 2.0]]), jnp.asarray([[1.0, 0.0], [0.0, -1.0]])))
        1.0
    """
    if x.shape != target.shape:
        raise InputError(f"Features {x.shape} and targets {target.shape} differ in shape: use the same grid for both.")
    distances = 1 - jnp.sum(unit(widen(x)) * unit(widen(target)), axis=-1)
    return jnp.mean(distances if weights is None else weights * distances)


def split_loss(
    activations: Mapping[str, jax.Array],
    styles: Sequence[Mapping[str, jax.Array]],
    *,
    key: jax.Array,
    weights: jax.Array | None = None,
    usable: Sequence[Mapping[str, jax.Array]] | None = None,
    limit: int = LIMIT,
    chunk: int = CHUNK,
) -> dict[str, jax.Array]:
    r"""Return the mean centered cosine distance of each layer from its nearest style vectors, matched anew.

    .. math:: \mathrm{mean}_i \min_j 1 - \cos(x_i - \bar x, s_j - \bar s)

    Layers whose longer side is at least twice `limit` are sampled on a grid with the stride `side // limit` and random
    offsets, and so are those of the styles. NNST minimizes the sum over layers. Deviation: its program
    uses features of another layer where the longer side is exactly `limit`.

    Args:
        activations: layers of the image, `[h, w, C]`.
        styles: layers of each style picture, which may be a rotated copy; sizes may differ.
        key: random key of the offsets; a new one at each step reaches all positions.
        weights: weight of each pixel of the image, `[H, W]` in [0, 1]; None for 1.
        usable: of each style, whether each position of a layer may be a match, `[h, w]`; None for all.
        limit: number of positions along a side above which a layer is sampled.
        chunk: see `nearest`.

    Returns:
        The distance of each layer of `activations`, from 0 to 2.

    Raises:
        InputError: if there is no style, a style lacks a layer, or as `nearest`.

    Example:
        >>> layers = {"a": jax.random.normal(jax.random.key(0), (4, 4, 3))}
        >>> bool(abs(split_loss(layers, [layers], key=jax.random.key(1))["a"]) < 1e-5)
        True
    """
    if not styles:
        raise InputError("There is no style: pass the activations of at least one picture.")
    if limit < 1:
        raise InputError(f"The limit is {limit} positions: use at least 1.")
    distances = {}
    for number, (name, layer) in enumerate(activations.items()):
        if any(name not in style for style in styles):
            raise InputError(f"A style lacks the layer {name!r}: compute the same layers for image and styles.")
        keys = jax.random.split(jax.random.fold_in(key, number), len(styles) + 1)
        sample = partial(_sample, limit=limit)
        shares = None if weights is None else jax.image.resize(weights, layer.shape[:2], "linear")
        rows, of_rows = sample(layer, shares, key=keys[0])
        parts = [None] * len(styles) if usable is None else [each[name] for each in usable]
        arguments = zip(styles, parts, keys[1:], strict=True)
        pairs = [sample(style[name], part, key=of_style) for style, part, of_style in arguments]
        reference = jnp.concatenate([each for each, _ in pairs])
        allowed = None if usable is None else jnp.concatenate([jnp.asarray(each) for _, each in pairs])
        index = nearest(rows, reference, weights=of_rows, usable=allowed, chunk=chunk)
        matches = _centered(reference, allowed)[index]
        distances[name] = cosine_distance(_centered(rows, of_rows), matches, weights=of_rows)
    return distances


def _sample(
    layer: jax.Array, of_positions: jax.Array | None, key: jax.Array, *, limit: int
) -> tuple[jax.Array, jax.Array | None]:
    """Return vectors of a layer, `[n, C]`, and the numbers `[n]` of the same positions, by `sample_grid`."""
    channels, stride = layer.shape[-1], max(1, max(layer.shape[:2]) // limit)
    layer = widen(layer)
    if of_positions is not None:
        layer = jnp.concatenate([layer, of_positions[..., None].astype(layer.dtype)], axis=-1)
    rows = sample_grid(layer, key=key, stride=stride).reshape(-1, layer.shape[-1])
    return rows[:, :channels], None if of_positions is None else rows[:, channels]


def sample_grid(layer: jax.Array, *, key: jax.Array, stride: int) -> jax.Array:
    """Return every pixel of a grid with a stride and random offsets.

    Args:
        layer: `[h, w, C]`.
        key: random key of the offsets.
        stride: distance of rows and of columns in pixels; at most the side of the layer is used.

    Returns:
        `[h // stride, w // stride, C]`; offsets are uniform over all that fit, so that every pixel may be drawn.

    Example:
        >>> sample_grid(jnp.ones((9, 7, 2)), key=jax.random.key(0), stride=3).shape
        (3, 2, 2)
    """
    starts, steps, lengths = [], [], []
    for axis, of_axis in enumerate(jax.random.split(key)):
        size = layer.shape[axis]
        step = min(stride, size)
        lengths.append((size // step - 1) * step + 1)
        starts.append(jax.random.randint(of_axis, (), 0, size - lengths[-1] + 1))
        steps.append(step)
    if steps == [1, 1]:
        return layer
    window = jax.lax.dynamic_slice(layer, (*starts, 0), (*lengths, layer.shape[-1]))
    return window[:: steps[0], :: steps[1]]


def orientations(image: Any, *, rotations: int = 4, flips: bool = False) -> tuple[Any, ...]:
    """Return an image with its rotated and mirrored copies, from which a style offers more vectors.

    Args:
        image: `[H, W, 3]`, of NumPy (without compilation) or JAX.
        rotations: 1 for none, 2 for 0 and 180 degrees (of one size), 4 for 0, 90, 180 and 270 as in NNST.
        flips: whether to add the mirror image of each; NNST does not.

    Returns:
        `rotations` images, counterclockwise, or twice as many; 90 and 270 degrees are `[W, H, 3]`.

    Raises:
        InputError: if `rotations` is not 1, 2 or 4.

    Example:
        >>> [each.shape for each in orientations(jnp.ones((4, 6, 3)), rotations=4)]
        [(4, 6, 3), (6, 4, 3), (4, 6, 3), (6, 4, 3)]
    """
    if rotations not in (1, 2, 4):
        raise InputError(f"The number of rotations is {rotations}: use 1, 2 or 4.")
    xp = array_module(image)
    turned = [xp.rot90(image, turns) for turns in range(0, 4, 4 // rotations)]
    return (*turned, *(xp.flip(each, axis=1) for each in turned)) if flips else tuple(turned)


def check_vectors(x: jax.Array, y: jax.Array, chunk: int) -> None:
    """Raise `InputError` unless vectors `[n, C]` and `[m, C]` can be compared in chunks."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(f"Vectors of shapes {x.shape} and {y.shape} cannot be compared: pass [n, C] and [m, C].")
    if 0 in (x.size, y.size):
        raise InputError(f"Vectors of shapes {x.shape} and {y.shape} are empty: pass at least one of each.")
    if chunk < 1:
        raise InputError(f"The chunk is {chunk} vectors: use at least 1.")


def chunks(x: jax.Array, chunk: int) -> jax.Array:
    """Return vectors `[n, C]` in chunks `[k, c, C]`, c at most `chunk` and n; the last one is filled with zeros."""
    chunk = min(chunk, x.shape[0])
    count = -(-x.shape[0] // chunk)
    return jnp.pad(x, ((0, count * chunk - x.shape[0]), (0, 0))).reshape(count, chunk, -1)


def products(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the inner products `[n, m]` of all pairs of `[n, C]` and `[m, C]`, in full precision on all devices."""
    return jnp.einsum("nc,mc->nm", x, y, precision="highest")


def widen(x: jax.Array) -> jax.Array:
    """Return an array in float32, or in its dtype if that is wider."""
    return jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))


def unit(x: jax.Array) -> jax.Array:
    """Return vectors `[..., C]` of length 1; those shorter than 1e-4 stay shorter, so that gradients are finite."""
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(squares, SMALLEST_SQUARE))


def _centered(x: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    if weights is None:
        return x - jnp.mean(x, axis=0, keepdims=True)
    weights = weights.astype(x.dtype)
    total = jnp.maximum(jnp.sum(weights), jnp.finfo(x.dtype).tiny)
    mean = jnp.einsum("n,nc->c", weights, x, precision="highest") / total
    return x - mean[None]

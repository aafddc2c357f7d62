from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st

from jaxstyle.errors import InputError
from jaxstyle.images import load
from jaxstyle.losses import layer_summaries
from jaxstyle.losses.loss_terms import terms, total
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import make_targets
from jaxstyle.losses.tiling import ALIGNMENT, Grid, grid, map_tiles, sum_over_tiles
from jaxstyle.networks.pretrained import load_params
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.loop import init_state, run_steps
from jaxstyle.transfer.sweep import memory_of

OBJECTIVE = Objective(
    content={"relu2_2": 1.0, "relu3_1": 1.0}, style=dict.fromkeys(("relu1_1", "relu2_1", "relu3_1"), 6.0)
)
COMPLETE = VGG19()
TILE_PIXELS = 96 * 80  # of 125x109 pixels, which are divided into six tiles


def gradients(
    params,
    image,
    *,
    tile_pixels: int,
    objective: Objective = OBJECTIVE,
    network: VGG19 = COMPLETE,
    masks=None,
    arguments: Any = 1,
) -> list[Any]:
    """Return loss and gradients of the image at once and in tiles."""
    result, styles = [], [picture(150, 131, seed=5), picture(88, 90, seed=6)]
    for pixels in (None, tile_pixels):
        tiled = network.clone(tile_pixels=pixels)
        content = picture(*image.shape[-3:-1], seed=4)
        targets = make_targets(params, content, styles, objective=objective, network=tiled, content_masks=masks)

        def loss(params, image, targets, tiled=tiled):
            return total(objective, terms(params, image, targets, objective=objective, network=tiled)).sum()

        result.append(jax.jit(jax.value_and_grad(loss, argnums=arguments))(params, image, targets))
    return result


def assert_equal(tiled: Any, complete: Any, *, to: float = 1e-5) -> None:
    np.testing.assert_allclose(tiled[0], complete[0], rtol=to)
    for mine, yours in zip(*map(jax.tree.leaves, (tiled[1], complete[1])), strict=True):
        assert np.linalg.norm(mine - yours) <= to * np.linalg.norm(yours)


def several_tiles(*, circular: bool) -> Grid:
    """Return two rows or more of two tiles or more; of a plain image no side divides into tiles."""
    height, width = (64, 80) if circular else (93, 107)
    cut = grid(height, width, max_pixels=66 * 66, halo=6, circular=circular)
    assert cut is not None and len(cut.rows) > 1 and len(cut.columns) > 1
    return cut


def uneven(x, shift, taps):
    """Return `taps[0] x[i, j] + taps[1] x[i + 3, j + 5]` by a function `shift` of an array, rows and columns."""
    return taps[0] * x + taps[1] * shift(x, 3, 5)


def numpy_shift(x: np.ndarray, rows: int, columns: int, *, circular: bool) -> np.ndarray:
    if circular:
        return np.roll(x, (-rows, -columns), (0, 1))
    moved, (height, width, _) = np.zeros_like(x), x.shape
    moved[max(0, -rows) : height - max(0, rows), max(0, -columns) : width - max(0, columns)] = x[
        max(0, rows) : height + min(0, rows), max(0, columns) : width + min(0, columns)
    ]
    return moved


def jax_shift(x, rows, columns):
    return jnp.pad(x, ((0, rows), (0, columns), (0, 0)))[rows:, columns:]


@pytest.mark.parametrize("circular", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "circular"])
def test_sums_over_tiles_their_gradients_and_layers_equal_those_of_the_image(circular):
    """The function of a window sees 3 rows and 5 columns beyond each pixel, which is less than the halo of 6."""
    rng, cut = np.random.default_rng(0), several_tiles(circular=circular)
    image = rng.normal(size=(cut.height, cut.width, 3)).astype(np.float32)
    weights, taps = rng.normal(size=image.shape[:2]).astype(np.float32), np.asarray([0.5, -2], np.float32)

    def of_window(window, tile, taps):
        high, wide = window.shape[:2]
        counts = tile.cut(jnp.asarray(weights), high, wide, stride=1, axis=-2)
        counts = jnp.where(tile.mask(high, wide, stride=1), counts, 0.0)
        return jnp.sum(counts[..., None] * uneven(window, jax_shift, taps) ** 2)

    def layer(window):
        high, wide = (side // 2 * 2 for side in window.shape[:2])
        return uneven(window, jax_shift, taps)[:high:2, :wide:2]

    @jax.jit
    def computed(image, taps):
        slope = jax.value_and_grad(lambda *inputs: sum_over_tiles(of_window, *inputs, grid=cut), argnums=(0, 1))
        return slope(image, taps), map_tiles(layer, image, grid=cut, stride=2)

    (value, (by_image, by_taps)), actual = jax.device_get(computed(image, taps))
    shift = partial(numpy_shift, circular=circular)
    x, by = image.astype(np.float64), weights[..., None]
    y = uneven(x, shift, taps)
    assert value == pytest.approx(np.sum(by * y**2), rel=1e-5)
    np.testing.assert_allclose(by_image, 2 * (taps[0] * by * y + taps[1] * shift(by * y, -3, -5)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(by_taps, [np.sum(2 * by * y * each) for each in (x, shift(x, 3, 5))], rtol=1e-4)
    even = [side // 2 * 2 for side in y.shape[:2]]
    np.testing.assert_allclose(actual, y[: even[0] : 2, : even[1] : 2], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "network"),
    [
        pytest.param(
            replace(OBJECTIVE, half_resolution_above=100, content_normalization="elements"),
            VGG19(pooling="avg", pooling_gain=2.0),
            marks=pytest.mark.soak(long=True),
        ),
        pytest.param(
            replace(OBJECTIVE, statistic="wasserstein", gram_normalization="image"),
            VGG19(padding="replicate"),
            marks=pytest.mark.soak(long=True),
        ),
        (
            Objective(content={"relu3_1": 1.0}, style={"conv1_2": 6.0, "conv3_1": 6.0}, statistic="mean_std"),
            VGG19(remat=(1, 2)),
        ),
    ],
    ids=["half resolution", "replicate", "remat"],
)
def test_tiles_change_neither_loss_nor_gradient_where_sides_do_not_divide(params, objective, network):
    image = picture(125, 109, seed=2)
    complete, tiled = gradients(params, image, tile_pixels=TILE_PIXELS, objective=objective, network=network)
    assert_equal(tiled, complete)


@pytest.mark.slow
def test_tiles_change_nothing_where_the_picture_is_tileable(params):
    network = VGG19(padding="circular")
    complete, tiled = gradients(params, picture(128, 96, seed=2), tile_pixels=112 * 112, network=network)
    assert_equal(tiled, complete)


@pytest.mark.slow
def test_tiles_change_nothing_where_masks_divide_the_picture(params):
    image = picture(125, 109, seed=2)
    masks = jnp.stack([image[..., 0], jnp.zeros((125, 109)).at[30:].set(1.0)])
    complete, tiled = gradients(params, image, tile_pixels=TILE_PIXELS, masks=masks)
    assert_equal(tiled, complete)


@pytest.mark.slow
@pytest.mark.soak(long=True)
def test_tiles_have_the_gradients_of_a_batch_by_targets_and_network(params):
    batch = jnp.stack([picture(125, 109, seed=seed) for seed in (2, 3)])
    complete, tiled = gradients(params, batch, tile_pixels=TILE_PIXELS, arguments=(0, 1, 2))
    assert_equal(tiled, complete)


@pytest.mark.soak(long=True)
def test_a_run_in_tiles_is_that_of_the_complete_image(params):
    content, style = picture(125, 109, seed=4), picture(60, 64, seed=5)
    actual = []
    for pixels in (None, TILE_PIXELS):
        network = VGG19(tile_pixels=pixels)
        targets = make_targets(params, content, style, objective=OBJECTIVE, network=network)
        state = init_state(content, objective=OBJECTIVE)
        actual.append(run_steps(state, params, targets, OBJECTIVE, network=network, steps=6))
    (complete, history), (tiled, other) = actual
    np.testing.assert_allclose(other["total"][:2], history["total"][:2], rtol=1e-4)
    np.testing.assert_allclose(other["total"], history["total"], rtol=3e-3)
    assert np.abs(tiled.image - complete.image).mean() < 1e-3


@pytest.mark.slow(optimized=True)
def test_tiles_need_a_fraction_of_the_memory(params):
    objective = replace(OBJECTIVE, half_resolution_above=None)

    def need(pixels: int | None) -> int:
        image, network = picture(512, 384, seed=1), VGG19(tile_pixels=pixels)
        targets = make_targets(params, image, image, objective=objective, network=network)
        function = jax.grad(lambda x: total(objective, terms(params, x, targets, objective=objective, network=network)))
        return memory_of(jax.jit(function).lower(image).compile()) - 2 * image.nbytes

    assert need(128 * 128) < 0.4 * need(None)


@given(
    st.integers(16, 700),
    st.integers(16, 700),
    st.sampled_from([1, 6, 70, 118]),
    st.integers(2**12, 2**18),
    st.booleans(),
)
def test_tiles_partition_the_image_and_windows_contain_their_halo(height, width, halo, most, circular):
    if circular:
        height, width = -(-height // ALIGNMENT) * ALIGNMENT, -(-width // ALIGNMENT) * ALIGNMENT
    try:
        cut = grid(height, width, max_pixels=most, halo=halo, circular=circular)
    except InputError:
        smallest = 2 * -(-halo // ALIGNMENT) + 1 + 1  # a window of one tile, and what does not divide
        assert most < (smallest * ALIGNMENT) ** 2
        return
    if cut is None:
        assert height * width <= most
        return
    assert cut.window[0] * cut.window[1] <= most
    for spans, side, window in ((cut.rows, height, cut.window[0]), (cut.columns, width, cut.window[1])):
        assert [first for _, first, _ in spans] == [0, *(last for *_, last in spans[:-1])] and spans[-1][2] == side
        for start, first, last in spans:
            least, most_seen = (
                (first - halo, last + halo) if circular else (max(0, first - halo), min(side, last + halo))
            )
            assert first < last and start % ALIGNMENT == 0 and start <= least and start + window >= most_seen
            assert circular or (start >= 0 and start + window <= side)


@pytest.mark.slow
def test_targets_of_large_pictures_in_tiles_are_those_of_the_complete_pictures(params, monkeypatch):
    content, style = picture(125, 109, seed=1), picture(150, 131, seed=5)
    complete = make_targets(params, content, style, objective=OBJECTIVE)
    monkeypatch.setattr(layer_summaries, "TARGET_TILE_PIXELS", TILE_PIXELS)
    jax.clear_caches()
    tiled = make_targets(params, content, style, objective=OBJECTIVE)
    jax.clear_caches()
    for mine, yours in zip(*map(jax.tree.leaves, (tiled, complete)), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-4, atol=1e-5 * float(jnp.abs(yours).max()))


def test_images_and_options_that_cannot_be_cut_are_refused_with_their_values():
    with pytest.raises(InputError, match="30976 pixels .*20000"):
        grid(1024, 1024, max_pixels=20000, halo=70)
    with pytest.raises(InputError, match="100x96 pixels .*multiples of 16"):
        grid(96, 100, max_pixels=5000, halo=1, circular=True)
    image: Any = np.zeros((32, 32, 3), np.float32)
    for objective, cause in [
        (Objective(statistic="sliced"), "sliced"),
        (Objective(normalize_gradients=True), "normali"),
    ]:
        with pytest.raises(InputError, match=f"tile_pixels is 9, .*{cause}"):
            make_targets({}, image, image, objective=objective, network=VGG19(tile_pixels=9))


@pytest.mark.soak(long=True)
def test_tiles_are_exact_on_the_real_network_with_all_terms(weights_path, real_pictures):
    params = load_params(str(weights_path))
    content, style = (
        jnp.asarray(load.load_image(real_pictures / name, size=size).rgb)
        for name, size in (("golden_gate.jpg", 300), ("starry_night_google.jpg", 250))
    )
    image = jnp.clip(content + 0.1 * (picture(*content.shape[:2], seed=1) - 0.5), 0.0, 1.0)
    actual = []
    objective = Objective(half_resolution_above=250)
    for pixels in (None, 215 * 250):
        network = VGG19(tile_pixels=pixels)
        masks = jnp.stack([content[..., 2], 1 - content[..., 2]])
        styles = [style, content]
        targets = make_targets(params, content, styles, objective=objective, network=network, content_masks=masks)

        def loss(image, targets=targets, network=network):
            return total(objective, terms(params, image, targets, objective=objective, network=network))

        actual.append(jax.jit(jax.value_and_grad(loss))(image))
    assert_equal(actual[1], actual[0])

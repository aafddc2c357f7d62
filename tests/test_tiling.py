from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.images import load
from jaxstyle.losses import layer_summaries
from jaxstyle.losses.objective import make_targets, terms, total
from jaxstyle.losses.tiling import TILE, Grid, grid, map_blocks, sum_over_blocks
from jaxstyle.networks.pretrained import load_params
from jaxstyle.optim.loop import init, run
from jaxstyle.transfer.sweep import memory_of

LAYERS: Any = {"content_layers": ("relu2_2", "relu3_1"), "style_layers": ("relu1_1", "relu2_1", "relu3_1")}
WINDOW = 96 * 80  # of 125x109 pixels, which go into six blocks then


def weights_of(config: Config) -> LossWeights:
    return LossWeights(dict.fromkeys(config.content_layers, 1.0), dict.fromkeys(config.style_layers, 6.0))


def gradients(params, image, *, most: int, masks=None, arguments: Any = 1, **chosen: Any) -> list[Any]:
    """Return loss and gradients of the image at once and in blocks."""
    found, styles = [], [picture(150, 131, seed=5), picture(88, 90, seed=6)]
    for pixels in (None, most):
        config = Config(block_pixels=pixels, **{**LAYERS, **chosen})
        content = picture(*image.shape[-3:-1], seed=4)
        targets = make_targets(params, content, styles, config=config, content_masks=masks)

        def loss(params, image, targets, config=config):
            return total(weights_of(config), terms(params, image, targets, config=config)).sum()

        found.append(jax.jit(jax.value_and_grad(loss, argnums=arguments))(params, image, targets))
    return found


def assert_equal(blocked: Any, whole: Any, *, to: float = 1e-5) -> None:
    np.testing.assert_allclose(blocked[0], whole[0], rtol=to)
    for mine, yours in zip(*map(jax.tree.leaves, (blocked[1], whole[1])), strict=True):
        assert np.linalg.norm(mine - yours) <= to * np.linalg.norm(yours)


def several_blocks(*, circular: bool) -> Grid:
    """Return two rows or more of two blocks or more; of a plain image no side divides into tiles."""
    height, width = (64, 80) if circular else (93, 107)
    cut = grid(height, width, most=66 * 66, halo=6, circular=circular)
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
def test_sums_over_blocks_their_gradients_and_layers_equal_those_of_the_image(circular):
    """The function of a window sees 3 rows and 5 columns beyond each pixel, which is less than the halo of 6."""
    rng, cut = np.random.default_rng(0), several_blocks(circular=circular)
    image = rng.normal(size=(cut.height, cut.width, 3)).astype(np.float32)
    weights, taps = rng.normal(size=image.shape[:2]).astype(np.float32), np.asarray([0.5, -2], np.float32)

    def of_window(window, block, taps):
        high, wide = window.shape[:2]
        counts = block.cut(jnp.asarray(weights), high, wide, stride=1, axis=-2)
        counts = jnp.where(block.own(high, wide, stride=1), counts, 0.0)
        return jnp.sum(counts[..., None] * uneven(window, jax_shift, taps) ** 2)

    def layer(window):
        high, wide = (side // 2 * 2 for side in window.shape[:2])
        return uneven(window, jax_shift, taps)[:high:2, :wide:2]

    @jax.jit
    def computed(image, taps):
        slope = jax.value_and_grad(lambda *given: sum_over_blocks(of_window, *given, grid=cut), argnums=(0, 1))
        return slope(image, taps), map_blocks(layer, image, grid=cut, stride=2)

    (value, (by_image, by_taps)), found = jax.device_get(computed(image, taps))
    shift = partial(numpy_shift, circular=circular)
    x, by = image.astype(np.float64), weights[..., None]
    y = uneven(x, shift, taps)
    assert value == pytest.approx(np.sum(by * y**2), rel=1e-5)
    np.testing.assert_allclose(by_image, 2 * (taps[0] * by * y + taps[1] * shift(by * y, -3, -5)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(by_taps, [np.sum(2 * by * y * each) for each in (x, shift(x, 3, 5))], rtol=1e-4)
    even = [side // 2 * 2 for side in y.shape[:2]]
    np.testing.assert_allclose(found, y[: even[0] : 2, : even[1] : 2], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(
            {"halve_above": 100, "pooling": "avg", "pooling_gain": 2.0, "content_divisor": "elements"},
            marks=pytest.mark.soak(long=True),
        ),
        pytest.param(
            {"border": "replicate", "statistic": "wasserstein", "gram_divisor": "image"},
            marks=pytest.mark.soak(long=True),
        ),
        {
            "statistic": "mean_std",
            "style_layers": ("conv1_2", "conv3_1"),
            "content_layers": ("relu3_1",),
            "remat": True,
        },
    ],
    ids=str,
)
def test_blocks_change_neither_loss_nor_gradient_where_sides_do_not_divide(params, chosen):
    whole, blocked = gradients(params, picture(125, 109, seed=2), most=WINDOW, **chosen)
    assert_equal(blocked, whole)


@pytest.mark.slow
def test_blocks_change_nothing_where_the_picture_is_tileable(params):
    whole, blocked = gradients(params, picture(128, 96, seed=2), most=112 * 112, border="circular")
    assert_equal(blocked, whole)


@pytest.mark.slow
def test_blocks_change_nothing_where_masks_divide_the_picture(params):
    image = picture(125, 109, seed=2)
    masks = jnp.stack([image[..., 0], jnp.zeros((125, 109)).at[30:].set(1.0)])
    whole, blocked = gradients(params, image, most=WINDOW, masks=masks)
    assert_equal(blocked, whole)


@pytest.mark.slow
@pytest.mark.soak(long=True)
def test_blocks_have_the_gradients_of_a_batch_by_targets_and_network(params):
    batch = jnp.stack([picture(125, 109, seed=seed) for seed in (2, 3)])
    whole, blocked = gradients(params, batch, most=WINDOW, arguments=(0, 1, 2))
    assert_equal(blocked, whole)


@pytest.mark.soak(long=True)
def test_a_run_in_blocks_is_that_of_the_whole_image(params):
    content, style = picture(125, 109, seed=4), picture(60, 64, seed=5)
    found = []
    for pixels in (None, WINDOW):
        config = Config(block_pixels=pixels, optimizer="lbfgs", **LAYERS)
        targets = make_targets(params, content, style, config=config)
        found.append(run(init(content, config=config), params, targets, weights_of(config), config=config, steps=6))
    (whole, trace), (blocked, other) = found
    np.testing.assert_allclose(other["total"][:2], trace["total"][:2], rtol=1e-4)
    np.testing.assert_allclose(other["total"], trace["total"], rtol=3e-3)
    assert np.abs(blocked.image - whole.image).mean() < 1e-3


@pytest.mark.slow(optimized=True)
def test_blocks_need_a_fraction_of_the_memory(params):
    def need(pixels: int | None) -> int:
        image = picture(512, 384, seed=1)
        config = Config(block_pixels=pixels, halve_above=None, **LAYERS)
        targets = make_targets(params, image, image, config=config)
        function = jax.grad(lambda x: total(weights_of(config), terms(params, x, targets, config=config)))
        return memory_of(jax.jit(function).lower(image).compile()) - 2 * image.nbytes

    assert need(128 * 128) < 0.4 * need(None)


@given(
    st.integers(16, 700),
    st.integers(16, 700),
    st.sampled_from([1, 6, 70, 118]),
    st.integers(2**12, 2**18),
    st.booleans(),
)
def test_blocks_partition_the_image_and_windows_contain_their_halo(height, width, halo, most, circular):
    if circular:
        height, width = -(-height // TILE) * TILE, -(-width // TILE) * TILE
    try:
        cut = grid(height, width, most=most, halo=halo, circular=circular)
    except InputError:
        assert most < (2 * -(-halo // TILE) + 1 + 1) ** 2 * TILE**2  # a window of one tile, and what does not divide
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
            assert first < last and start % TILE == 0 and start <= least and start + window >= most_seen
            assert circular or (start >= 0 and start + window <= side)


@pytest.mark.slow
def test_targets_of_large_pictures_in_blocks_are_those_of_the_whole_pictures(params, monkeypatch):
    content, style, config = picture(125, 109, seed=1), picture(150, 131, seed=5), Config(halve_above=None, **LAYERS)
    compiled: Any = make_targets
    plain = compiled(params, content, style, config=config)
    monkeypatch.setattr(layer_summaries, "LOOKED_AT", WINDOW)
    blocked = jax.jit(lambda *given: compiled.__wrapped__(*given, config=config))(params, content, style)
    for mine, yours in zip(*map(jax.tree.leaves, (blocked, plain)), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-4, atol=1e-5 * float(jnp.abs(yours).max()))


def test_images_and_options_that_cannot_be_cut_are_refused_with_their_values():
    with pytest.raises(InputError, match="30976 pixels .*20000"):
        grid(1024, 1024, most=20000, halo=70)
    with pytest.raises(InputError, match="100x96 pixels .*multiples of 16"):
        grid(96, 100, most=5000, halo=1, circular=True)
    with pytest.raises(InputError, match="block_pixels is 9, .*sliced"):
        Config(statistic="sliced", block_pixels=9)
    with pytest.raises(InputError, match="block_pixels is 9, .*normali[sz]ed"):
        Config(normalize_gradients=True, block_pixels=9)


@pytest.mark.soak(long=True)
def test_blocks_are_exact_on_the_real_network_with_all_terms(weights_path, real_pictures):
    params = load_params(str(weights_path))
    content, style = (
        jnp.asarray(load.load_image(real_pictures / name, size=size).rgb)
        for name, size in (("golden_gate.jpg", 300), ("starry_night_google.jpg", 250))
    )
    image = jnp.clip(content + 0.1 * (picture(*content.shape[:2], seed=1) - 0.5), 0.0, 1.0)
    found = []
    for pixels in (None, 215 * 250):
        config = Config(halve_above=250, block_pixels=pixels)
        masks = jnp.stack([content[..., 2], 1 - content[..., 2]])
        targets = make_targets(params, content, [style, content], config=config, content_masks=masks)

        def loss(image, targets=targets, config=config):
            return total(LossWeights(), terms(params, image, targets, config=config))

        found.append(jax.jit(jax.value_and_grad(loss))(image))
    assert_equal(found[1], found[0])

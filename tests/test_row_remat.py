from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture

from jaxstyle.config import Config, LossWeights
from jaxstyle.losses import layer_summaries
from jaxstyle.losses.objective import make_targets, terms, total
from jaxstyle.networks import row_remat
from jaxstyle.networks.random_init import random_params
from jaxstyle.optim.loop import init, run
from jaxstyle.transfer.sweep import memory_of

KEY = jax.random.key(3)
SHALLOW: Any = {"content_layers": ("relu3_1",), "style_layers": ("relu1_1", "relu2_1", "relu3_1")}
WEIGHTS = LossWeights({"relu3_1": 1.0}, dict.fromkeys(SHALLOW["style_layers"], 6.0))
RNG = np.random.default_rng(0)
TAPS = np.asarray([0.5, -1, 2], np.float32)  # on the row above, the row and the row below


def loss_and_gradient(params, image, *, config, masks=None):
    content, style = picture(*image.shape[:2], seed=4), picture(48, 40, seed=5)
    targets = make_targets(params, content, style, key=KEY, config=config, content_masks=masks)
    compiled = jax.jit(jax.value_and_grad(lambda x: total(WEIGHTS, terms(params, x, targets, config=config))))
    return compiled(image)


def assert_equal(stripped, plain, *, loss: float = 1e-5, gradient: float = 1e-5) -> None:
    np.testing.assert_allclose(stripped[0], plain[0], rtol=loss)
    np.testing.assert_allclose(stripped[1], plain[1], rtol=0, atol=gradient * np.abs(plain[1]).max())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["constant", "edge", "wrap"])
def test_layers_in_strips_are_halved_and_summed_as_the_image(mode):
    """Neither does the height divide into strips, nor do the layers treat the rows above and below alike."""
    image, weights = RNG.normal(size=(37, 3, 2)).astype(np.float32), RNG.normal(size=(37, 3)).astype(np.float32)

    def layers(x, rows):
        y = TAPS[0] * x[:-2] + TAPS[1] * x[1:-1] + TAPS[2] * x[2:]
        counted = jnp.where(rows.inside(), y, 0)
        return (y[::2] + y[1::2])[:, ::2], {"sum": jnp.sum(jnp.square(counted) * rows.cut(weights)[..., None])}

    halved, sums = jax.device_get(jax.jit(lambda x: row_remat.in_strips(layers, x, margin=1, mode=mode))(image))
    padded = np.pad(image.astype(np.float64), ((1, 1), (0, 0), (0, 0)), mode=mode)
    y = TAPS[0] * padded[:-2] + TAPS[1] * padded[1:-1] + TAPS[2] * padded[2:]
    np.testing.assert_allclose(halved, (y[:36:2] + y[1:36:2])[:, ::2], rtol=1e-5, atol=1e-5)
    assert sums["sum"] == pytest.approx(np.sum(y**2 * weights[..., None]), rel=1e-5)


def test_rows_beyond_the_image_are_outside_and_cut_to_zeros():
    def rows(start):
        return row_remat.Rows(start, 4, height=6)

    x: Any = np.arange(6, dtype=np.float32).reshape(6, 1)
    inside = np.asarray(jax.jit(lambda start: rows(start).inside(margin=1))(4))
    cut = np.asarray(jax.jit(lambda start: rows(start).cut(x))(4))
    assert inside.ravel().tolist() == [True, True, True, False, False, False]
    assert cut.ravel().tolist() == [4, 5, 0, 0]


def test_large_images_and_those_with_remat_are_computed_in_strips():
    for config, pixels, blocks in [
        (Config(), 2**19 - 1, ()),
        (Config(), 2**19, (1,)),
        (Config(remat=True), 1, (1, 2)),
        (Config(remat=True, content_layers=("conv1_1",)), 2**19, (2,)),  # a content layer is read as one array
        (Config(remat=True, statistic="sliced"), 2**19, ()),  # pixels are sorted
    ]:
        assert layer_summaries.blocks_in_rows(config, pixels) == blocks


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"border": "circular", "statistic": "mean_std"},
        {"border": "replicate", "pooling": "avg", "pooling_gain": 2.0, "gram_divisor": "image"},
        pytest.param({"precision": "bfloat16"}, marks=pytest.mark.soak(long=True)),
    ],
    ids=str,
)
def test_strips_change_neither_loss_nor_gradient(params, chosen, monkeypatch):
    """With `remat`, or without an option, as for large images."""
    image = picture(61, 51, seed=2)  # neither side divides
    masks = None if chosen else image[None, ..., 0]
    config = Config(**SHALLOW, **chosen)
    plain = loss_and_gradient(params, image, config=config, masks=masks)
    if "pooling" in chosen:
        monkeypatch.setattr(layer_summaries, "LARGE", 1)
    else:
        config = replace(config, remat=True)
    stripped = loss_and_gradient(params, image, config=config, masks=masks)
    tolerance = 1e-2 if "precision" in chosen else 1e-5
    assert_equal(stripped, plain, loss=tolerance / 3 if chosen else tolerance, gradient=tolerance)


@pytest.mark.slow
def test_a_block_with_a_content_layer_is_not_computed_in_strips(params):
    config = Config(**{**SHALLOW, "content_layers": ("relu1_2", "relu3_1")})
    image = picture(40, 33, seed=2)
    content, style = picture(40, 33, seed=4), picture(48, 40, seed=5)
    targets = make_targets(params, content, style, config=config)
    compiled = jax.jit(terms, static_argnames="config")
    plain, stripped = (compiled(params, image, targets, config=replace(config, remat=on)) for on in (False, True))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), plain, stripped)


@pytest.mark.slow
@pytest.mark.parametrize(
    "derivative", [pytest.param("forward over reverse", marks=pytest.mark.soak(long=True)), "reverse of a batch"]
)
def test_strips_have_every_derivative(params, content, style, derivative):
    def loss(params, image, config):
        targets = make_targets(params, content, style, config=config)
        return total(WEIGHTS, terms(params, image, targets, config=config))

    @partial(jax.jit, static_argnames="config")
    def found(params, config):
        def at(image):
            return loss(params, image, config)

        image, along = picture(32, 40, seed=7), picture(32, 40, seed=8)
        if derivative == "forward over reverse":
            return jax.jvp(jax.grad(at), (image,), (along,))
        by_both = jax.grad(partial(loss, config=config), argnums=(0, 1))
        return jax.vmap(by_both, in_axes=(None, 0))(params, jnp.stack([image, along]))

    for plain, stripped in zip(
        *(jax.tree.leaves(found(params, Config(remat=on, **SHALLOW))) for on in (False, True)), strict=True
    ):
        np.testing.assert_allclose(stripped, plain, rtol=0, atol=2e-5 * np.abs(plain).max() + 1e-12)


@pytest.mark.slow(optimized=True)
@pytest.mark.soak(long=True)
def test_steps_in_strips_need_less_memory_and_give_the_same_losses():
    params = random_params(widths=((16, 16), (16, 16), (8,) * 4, (8,) * 4, (8,) * 4))
    image, style = picture(384, 256, seed=2), picture(48, 40, seed=5)
    sizes, totals = [], []
    for on in (False, True):
        config = Config(optimizer="adam", remat=on)
        targets, state = make_targets(params, image, style, config=config), init(0.8 * image, config=config)
        program = run.lower(state, params, targets, LossWeights(), config=config, steps=3).compile()
        sizes.append(memory_of(program))
        totals.append(program(state, params, targets, LossWeights())[1]["total"])
    assert sizes[1] < 0.7 * sizes[0]
    np.testing.assert_allclose(totals[1], totals[0], rtol=1e-4)

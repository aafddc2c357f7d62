from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture

from jaxstyle import reading, strips
from jaxstyle.config import Config, LossWeights
from jaxstyle.objective import make_targets, terms, total
from jaxstyle.optimize import init, run
from jaxstyle.sweep import memory_of
from jaxstyle.untrained import random_params

KEY = jax.random.key(3)
SHALLOW: Any = {"content_layers": ("relu3_1",), "style_layers": ("relu1_1", "relu2_1", "relu3_1")}
WEIGHTS = LossWeights({"relu3_1": 1.0}, dict.fromkeys(SHALLOW["style_layers"], 6.0))


def loss_and_gradient(params, image, *, config, masks=None):
    content, style = picture(*image.shape[:2], seed=4), picture(48, 40, seed=5)
    targets = make_targets(params, content, style, key=KEY, config=config, content_masks=masks)
    compiled = jax.jit(jax.value_and_grad(lambda x: total(WEIGHTS, terms(params, x, targets, config=config))))
    return compiled(image)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        pytest.param({"border": "circular"}, marks=pytest.mark.slow),
        pytest.param({"border": "replicate"}, marks=pytest.mark.slow),
        pytest.param({"pooling": "avg", "pooling_gain": 2.0}, marks=pytest.mark.slow),
        pytest.param({"gram_divisor": "image"}, marks=pytest.mark.slow),
        pytest.param({"statistic": "wasserstein"}, marks=pytest.mark.slow),
        pytest.param({"statistic": "mean_std"}, marks=pytest.mark.slow),
        pytest.param({"precision": "bfloat16"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_strips_change_neither_loss_nor_gradient(params, chosen):
    image = picture(61, 51, seed=2)  # neither side divides
    plain, stripped = (
        loss_and_gradient(params, image, config=Config(remat=on, **SHALLOW, **chosen)) for on in (False, True)
    )
    tolerance = 1e-2 if "precision" in chosen else 1e-5
    np.testing.assert_allclose(stripped[0], plain[0], rtol=tolerance / 3)
    np.testing.assert_allclose(stripped[1], plain[1], rtol=0, atol=tolerance * np.abs(plain[1]).max())


@pytest.mark.slow
def test_strips_change_nothing_where_a_mask_parts_the_picture(params):
    image = picture(61, 51, seed=2)
    mask = image[None, ..., 0]
    plain, stripped = (
        loss_and_gradient(params, image, config=Config(remat=on, **SHALLOW), masks=mask) for on in (False, True)
    )
    np.testing.assert_allclose(stripped[0], plain[0], rtol=1e-5)
    np.testing.assert_allclose(stripped[1], plain[1], rtol=0, atol=1e-5 * np.abs(plain[1]).max())


@pytest.mark.slow
def test_a_content_layer_is_never_cut(params):
    config = Config(**{**SHALLOW, "content_layers": ("relu1_2", "relu3_1")})
    image = picture(40, 33, seed=2)
    content, style = picture(40, 33, seed=4), picture(48, 40, seed=5)
    targets = make_targets(params, content, style, config=config)
    plain, stripped = (terms(params, image, targets, config=replace(config, remat=on)) for on in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), plain, stripped)


@pytest.mark.slow
@pytest.mark.parametrize("derivative", ["forward over reverse", "jvp", "lanes", "params"])
def test_every_derivative_goes_through_strips(params, content, style, derivative):
    def loss(params, image, config):
        targets = make_targets(params, content, style, config=config)
        return total(WEIGHTS, terms(params, image, targets, config=config))

    @partial(jax.jit, static_argnames="config")
    def found(params, config):
        def at(image):
            return loss(params, image, config)

        image, along = picture(32, 40, seed=7), picture(32, 40, seed=8)
        if derivative == "jvp":
            return jax.jvp(at, (image,), (along,))[1]
        if derivative == "forward over reverse":
            return jax.jvp(jax.grad(at), (image,), (along,))[1]
        if derivative == "lanes":
            return jax.vmap(jax.grad(at))(jnp.stack([image, along]))
        return jax.grad(loss)(params, image, config)

    for plain, stripped in zip(
        *(jax.tree.leaves(found(params, Config(remat=on, **SHALLOW))) for on in (False, True)), strict=True
    ):
        np.testing.assert_allclose(stripped, plain, rtol=0, atol=2e-5 * np.abs(plain).max() + 1e-12)


@pytest.mark.slow
def test_steps_in_strips_take_less_memory_and_lead_to_the_same():
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


def test_rows_know_what_lies_beyond_the_image():
    rows = strips.Rows(jnp.asarray(4), 4, height=6)
    assert rows.inside(margin=1).ravel().tolist() == [True, True, True, False, False, False]
    assert rows.cut(jnp.arange(6.0).reshape(6, 1)).ravel().tolist() == [4, 5, 0, 0]


@pytest.mark.parametrize(
    ("config", "pixels", "blocks"),
    [
        (Config(), 2**19 - 1, ()),
        (Config(), 2**19, (1,)),
        (Config(remat=True), 1, (1, 2)),
        (Config(remat=True, content_layers=("conv1_1",)), 2**19, (2,)),
        (Config(remat=True, statistic="sliced"), 2**19, ()),
    ],
    ids=["small", "large", "asked for", "content", "sorted"],
)
def test_what_is_large_or_asked_for_goes_through_strips(config, pixels, blocks):
    assert reading.blocks_in_rows(config, pixels) == blocks


@pytest.mark.slow
def test_a_large_picture_goes_through_strips_by_itself(params, monkeypatch):
    image = picture(61, 51, seed=2)
    plain = loss_and_gradient(params, image, config=Config(**SHALLOW))
    monkeypatch.setattr(reading, "LARGE", 1)
    large = loss_and_gradient(params, image, config=Config(**SHALLOW))
    np.testing.assert_allclose(large[0], plain[0], rtol=1e-5)
    np.testing.assert_allclose(large[1], plain[1], rtol=0, atol=1e-5 * np.abs(plain[1]).max())

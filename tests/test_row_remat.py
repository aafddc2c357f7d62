from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture

from jaxstyle.losses import layer_summaries
from jaxstyle.losses.layer_summaries import row_chunk_blocks
from jaxstyle.losses.loss_terms import terms, total
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks import row_remat
from jaxstyle.networks.random_init import random_params
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.loop import init_state, run_steps
from jaxstyle.optim.optimizers import Adam
from jaxstyle.transfer.sweep import memory_of

KEY = jax.random.key(3)
OBJECTIVE = Objective(content={"relu3_1": 1.0}, style=dict.fromkeys(("relu1_1", "relu2_1", "relu3_1"), 6.0))
PLAIN, ROWS = VGG19(), VGG19(remat=(1, 2))
RNG = np.random.default_rng(0)
TAPS = np.asarray([0.5, -1, 2], np.float32)  # on the row above, the row and the row below


def loss_and_gradient(params, image, *, objective, network, masks=None):
    content, style = picture(*image.shape[:2], seed=4), picture(48, 40, seed=5)
    options: dict[str, Any] = {"objective": objective, "network": network}
    targets = make_targets(params, content, style, key=KEY, content_masks=masks, **options)
    compiled = jax.jit(jax.value_and_grad(lambda x: total(objective, terms(params, x, targets, **options))))
    return compiled(image)


def assert_equal(chunked, plain, *, loss: float = 1e-5, gradient: float = 1e-5) -> None:
    np.testing.assert_allclose(chunked[0], plain[0], rtol=loss)
    np.testing.assert_allclose(chunked[1], plain[1], rtol=0, atol=gradient * np.abs(plain[1]).max())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["constant", "edge", "wrap"])
def test_layers_in_row_chunks_are_halved_and_summed_as_the_image(mode):
    """Neither does the height divide into row chunks, nor do the layers treat the rows above and below alike."""
    image, weights = RNG.normal(size=(37, 3, 2)).astype(np.float32), RNG.normal(size=(37, 3)).astype(np.float32)

    def layers(x, rows):
        y = TAPS[0] * x[:-2] + TAPS[1] * x[1:-1] + TAPS[2] * x[2:]
        counted = jnp.where(rows.inside(), y, 0)
        return (y[::2] + y[1::2])[:, ::2], {"sum": jnp.sum(jnp.square(counted) * rows.cut(weights)[..., None])}

    halved, sums = jax.device_get(jax.jit(lambda x: row_remat.map_row_chunks(layers, x, margin=1, mode=mode))(image))
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


def test_large_images_and_those_with_remat_are_computed_in_row_chunks():
    content, sliced = Objective(content={"conv1_1": 1.0}), Objective(statistic="sliced")
    extra = Objective(extra={"none": 1.0}, extra_terms={"none": lambda *_: 0.0})
    for objective, network, pixels, blocks in [
        (Objective(), PLAIN, 2**19 - 1, ()),
        (Objective(), PLAIN, 2**19, (1,)),
        (Objective(), ROWS, 1, (1, 2)),
        (Objective(), VGG19(remat=(2,)), 2**19, (2,)),
        (content, ROWS, 2**19, (2,)),  # a content layer is read as one array
        (sliced, ROWS, 2**19, ()),  # pixels are sorted
        (extra, ROWS, 2**19, ()),  # extra terms receive complete layers
        (Objective(), lambda params, image: {}, 2**19, ()),
    ]:
        assert row_chunk_blocks(network, pixels, complete=objective.complete_layers) == blocks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ({}, {}),
        ({"padding": "circular"}, {"statistic": "mean_std"}),
        ({"padding": "replicate", "pooling": "avg", "pooling_gain": 2.0}, {"gram_normalization": "image"}),
        pytest.param({"precision": "bfloat16"}, {}, marks=pytest.mark.soak(long=True)),
    ],
    ids=str,
)
def test_row_chunks_change_neither_loss_nor_gradient(params, network, options, monkeypatch):
    """With `remat`, or without an option, as for large images."""
    image = picture(61, 51, seed=2)  # neither side divides
    masks = None if network else image[None, ..., 0]
    inputs: dict[str, Any] = {"objective": replace(OBJECTIVE, **options), "masks": masks}
    plain = loss_and_gradient(params, image, network=VGG19(**network), **inputs)
    remat: tuple[int, ...] = (1, 2)
    if "pooling" in network:
        monkeypatch.setattr(layer_summaries, "LARGE", 1)
        remat = ()
    chunked = loss_and_gradient(params, image, network=VGG19(**network, remat=remat), **inputs)
    tolerance = 1e-2 if "precision" in network else 1e-5
    assert_equal(chunked, plain, loss=tolerance / 3 if network else tolerance, gradient=tolerance)


@pytest.mark.slow
def test_a_block_with_a_content_layer_is_not_computed_in_row_chunks(params):
    objective = replace(OBJECTIVE, content={"relu1_2": 1.0, "relu3_1": 1.0})
    image = picture(40, 33, seed=2)
    content, style = picture(40, 33, seed=4), picture(48, 40, seed=5)
    targets = make_targets(params, content, style, objective=objective)
    compiled = jax.jit(partial(terms, objective=objective), static_argnames="network")
    plain, chunked = (compiled(params, image, targets, network=network) for network in (PLAIN, ROWS))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), plain, chunked)


@pytest.mark.slow
@pytest.mark.parametrize(
    "derivative", [pytest.param("forward over reverse", marks=pytest.mark.soak(long=True)), "reverse of a batch"]
)
def test_row_chunks_have_every_derivative(params, content, style, derivative):
    def loss(params, image, network):
        options: dict[str, Any] = {"objective": OBJECTIVE, "network": network}
        return total(OBJECTIVE, terms(params, image, make_targets(params, content, style, **options), **options))

    @partial(jax.jit, static_argnames="network")
    def losses(params, network):
        def at(image):
            return loss(params, image, network)

        image, along = picture(32, 40, seed=7), picture(32, 40, seed=8)
        if derivative == "forward over reverse":
            return jax.jvp(jax.grad(at), (image,), (along,))
        by_both = jax.grad(partial(loss, network=network), argnums=(0, 1))
        return jax.vmap(by_both, in_axes=(None, 0))(params, jnp.stack([image, along]))

    for plain, chunked in zip(*(jax.tree.leaves(losses(params, network)) for network in (PLAIN, ROWS)), strict=True):
        np.testing.assert_allclose(chunked, plain, rtol=0, atol=2e-5 * np.abs(plain).max() + 1e-12)


@pytest.mark.slow(optimized=True)
@pytest.mark.soak(long=True)
def test_steps_in_row_chunks_need_less_memory_and_give_the_same_losses():
    params = random_params(widths=((16, 16), (16, 16), (8,) * 4, (8,) * 4, (8,) * 4))
    image, style = picture(384, 256, seed=2), picture(48, 40, seed=5)
    sizes, totals = [], []
    for network in (PLAIN, ROWS):
        inputs = (
            init_state(0.8 * image, optimizer=Adam()),
            params,
            make_targets(params, image, style, network=network),
        )
        program = jax.jit(partial(run_steps, network=network, steps=3)).lower(*inputs, Objective()).compile()
        sizes.append(memory_of(program))
        totals.append(program(*inputs, Objective())[1]["total"])
    assert sizes[1] < 0.7 * sizes[0]
    np.testing.assert_allclose(totals[1], totals[0], rtol=1e-4)

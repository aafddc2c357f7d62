"""Terms, networks, optimizers and parametrizations of the user."""

import re
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_problem as toy
from conftest import picture
from vgg_layers import features

from jaxstyle.config import Config, LossWeights, Parametrization
from jaxstyle.errors import InputError
from jaxstyle.losses import statistics_io
from jaxstyle.losses.objective import make_targets, terms
from jaxstyle.optim.loop import init, run
from jaxstyle.optim.parametrizations import PARAMETRIZATIONS
from jaxstyle.runtime.checkpoint import CheckpointStore
from jaxstyle.transfer.stylize import stylize
from jaxstyle.transfer.sweep import sweep


def edges(image, activations, targets):
    """How far differences between neighbours are from the content's."""
    return sum(
        jnp.mean(jnp.square(jnp.diff(image, axis=axis) - jnp.diff(targets.picture, axis=axis)), (-3, -2, -1))
        for axis in (-3, -2)
    )


def quiet(image, activations, targets):
    """How strong a layer is that no other term uses."""
    return jnp.mean(jnp.square(activations["half"]), (-3, -2, -1))


ROOT = Parametrization(lambda image: {"root": jnp.sqrt(image)}, lambda own: jnp.square(own["root"]))
TOY = Config(network=toy.network, content_layers=("full",), style_layers=("full",), optimizer=optax.sgd(0.05), scales=1)
OWN = replace(TOY, own_terms={"edges": edges, "quiet": quiet}, own_layers=("half",), parametrization=ROOT)
PLAIN_WEIGHTS = replace(toy.WEIGHTS, style={"full": 2.0})
OWN_WEIGHTS = replace(PLAIN_WEIGHTS, own={"edges": 30.0, "quiet": 0.4})
ADAM = replace(OWN, optimizer="adam", parametrization="pixels")
CONTENT: Any
STYLE: Any
CONTENT, STYLE = (np.asarray(each, np.float32) for each in (toy.CONTENT, toy.STYLE))
PARAMS: Any = jax.tree.map(
    np.float32, toy.PARAMS
)  # not those of the tests in double precision: jax keeps its copy of an array
VGG = Config(content_layers=("relu2_2",), style_layers=("relu1_1", "relu2_1"), optimizer="adam", scales=1)
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)


def begin(params, content, style, config) -> tuple[Any, Any, Any]:
    return init(jnp.asarray(content), config=config), params, make_targets(params, content, style, config=config)


def traced(function, *arrays):
    """Trace a function of arrays without compiling it."""
    return jax.eval_shape(function, *arrays)


# Terms


@pytest.fixture(scope="module")
def one_step():
    """A step down the gradient with terms, network, optimizer and parametrization of the user."""
    with jax.enable_x64(True):
        targets = toy.TARGETS._replace(style={"full": toy.STATISTICS["full"]}, picture=toy.CONTENT)
        state = init(jnp.asarray(toy.START), config=OWN)
        return run(state, toy.PARAMS, targets, OWN_WEIGHTS, config=OWN, steps=1)


def test_own_terms_are_traced_and_part_of_the_total(one_step):
    _, trace = one_step
    values, _, _ = toy.evaluate(toy.START)
    values["edges"] = toy.evaluate(toy.START - toy.CONTENT)[0]["tv"]
    values["quiet"] = np.mean(np.square(toy.START[::2, ::2] @ toy.PARAMS["half"]))
    del values["style/half"]
    values["total"] = toy.weighted(PLAIN_WEIGHTS, values) + 30 * values["edges"] + 0.4 * values["quiet"]
    assert {name: float(each[0]) for name, each in trace.items()} == pytest.approx(values, rel=1e-9)


def test_an_own_optimizer_minimizes_the_arrays_of_an_own_parametrization(one_step):
    """Gradient descent: minus the rate times the derivative of the total by the roots of the image."""
    state, _ = one_step
    assert set(state.parameters.values) == {"root"}
    _, gradients, _ = toy.evaluate(toy.START)
    _, differences, _ = toy.evaluate(toy.START - toy.CONTENT)
    half, quiet = toy.START[::2, ::2] @ toy.PARAMS["half"], np.zeros_like(toy.START)
    quiet[::2, ::2] = 2 / half.size * half @ toy.PARAMS["half"].T
    slope = toy.weighted(PLAIN_WEIGHTS, gradients) + 30 * differences["tv"] + 0.4 * quiet
    root = np.sqrt(toy.START)
    np.testing.assert_allclose(state.parameters.values["root"], root - 0.05 * 2 * root * slope, rtol=1e-9)


def test_a_name_or_a_value_that_cannot_be_a_term_is_refused():
    for name in ("tv", "total", "bounds", "style/edges", ""):
        with pytest.raises(InputError, match="An extra term cannot be named"):
            Config(own_terms={name: edges})
    with pytest.raises(InputError, match="The extra term 'edges' is 3: pass a function"):
        Config(own_terms={"edges": 3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="block_pixels is 100000, but extra terms cannot be computed in tiles"):
        replace(OWN, block_pixels=100000)


def test_a_term_that_returns_an_array_is_refused():
    config = replace(ADAM, own_terms={"all": lambda image, activations, targets: image})
    for image in (CONTENT, np.stack([CONTENT])):
        with pytest.raises(
            InputError, match=r"The extra term 'all' is an array .* for images .*: return one number per image"
        ):
            traced(partial(terms, config=config), PARAMS, image, toy.TARGETS)


def test_a_term_without_a_weight_is_refused():
    def call(image):
        return run(*begin(PARAMS, image, image, OWN), PLAIN_WEIGHTS, config=OWN, steps=1)

    with pytest.raises(InputError, match="differ in edges, quiet: give each layer and each extra term one weight"):
        traced(call, CONTENT)


@pytest.mark.slow
def test_own_terms_count_at_half_the_size_too():
    """The term gets the content at the size of the image."""

    def size(image, _, targets):
        assert targets.picture.shape == image.shape
        return image.mean((-3, -2, -1)) + image.shape[-3]

    config = replace(ADAM, own_terms={"size": size}, own_layers=(), halve_above=40)
    content, weights = picture(48, 64, seed=3), replace(PLAIN_WEIGHTS, own={"size": 0.0})
    seen = stylize(PARAMS, content, content, weights=weights, config=config, steps=1)
    assert seen.trace["size"][0] == pytest.approx(float(content.mean()) + (48 + 24) / 2, rel=1e-3)


@pytest.mark.slow
def test_own_terms_have_lanes_and_batches():
    options: dict[str, Any] = {"config": ADAM, "steps": 4}
    lanes = replace(OWN_WEIGHTS, own={"edges": jnp.asarray([0.0, 30.0]), "quiet": 0.4})
    swept = sweep(PARAMS, CONTENT, STYLE, lanes, init=1 - CONTENT, **options)
    alone = stylize(PARAMS, CONTENT, STYLE, weights=OWN_WEIGHTS, init=1 - CONTENT, **options)
    np.testing.assert_allclose(swept.image[1], alone.image, atol=1e-4)
    np.testing.assert_allclose(swept.trace["edges"][1], alone.trace["edges"], rtol=1e-3, atol=1e-7)
    assert alone.trace["edges"][-1] < swept.trace["edges"][0][-1]  # which has the weight 0
    both, starts = jnp.stack([CONTENT[::-1], CONTENT]), jnp.stack([CONTENT, 1 - CONTENT])
    batch = stylize(PARAMS, both, STYLE, weights=OWN_WEIGHTS, init=starts, **options)
    np.testing.assert_allclose(batch.image[1], alone.image, atol=1e-4)


@pytest.mark.slow
def test_own_terms_of_vgg_may_use_activations_that_no_other_term_uses(params, content, style):
    def deep(image, activations, targets):
        return jnp.mean(activations["conv1_2"], (-3, -2, -1))

    config = replace(VGG, own_terms={"deep": deep}, own_layers=("conv1_2",))

    @jax.jit
    def program(image):
        targets = make_targets(params, content, style, config=config)
        return terms(params, image, targets, config=config)["deep"], features(params, image)["conv1_2"].mean()

    found, expected = program(content)
    assert found == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_a_run_with_own_terms_resumes_from_a_checkpoint(tmp_path):
    state, params, targets = begin(PARAMS, CONTENT, STYLE, ADAM)
    given = (params, targets, OWN_WEIGHTS)
    half, trace = run(state, *given, config=ADAM, steps=3)
    whole, _ = run(half, *given, config=ADAM, steps=3)
    like = jax.eval_shape(lambda: {"state": half, "trace": trace})
    CheckpointStore(tmp_path / "saved").save(3, {"state": half, "trace": trace}, {})
    found = CheckpointStore(tmp_path / "saved").latest(lambda facts: like, print)
    assert found is not None and found[1]["trace"].keys() >= {"edges", "quiet"}
    again, _ = run(found[1]["state"], *given, config=ADAM, steps=3)
    assert (again.image == whole.image).all()


# Networks


def blurs(params, image):
    """Bands of a picture, brighter or darker than `params`, at three sizes."""
    found, x = {}, image
    for level in range(3):
        height, width, _ = x.shape
        away = x - jnp.broadcast_to(params["middle"], x.shape)
        found[f"bands{level}"] = jax.nn.relu(jnp.concatenate([away, -away], -1))
        x = jax.image.resize(x, (height // 2, width // 2, 3), "linear")
    return found


NETWORK = Config(
    network=blurs, content_layers=("bands2",), style_layers=("bands0", "bands1"), optimizer="adam", scales=1
)
OF_NETWORK = LossWeights(content={"bands2": 1.0}, style={"bands0": 6.0, "bands1": 6.0}, tv=0.1)
MIDDLE: Any = {"middle": np.asarray([0.4, 0.5, 0.6], np.float32)}


@pytest.mark.slow
def test_an_own_network_lowers_its_loss_and_its_params_can_be_differentiated(content, style):
    @jax.jit
    def program(middle):
        def mean(middle):
            found = stylize({"middle": middle}, content, style, weights=OF_NETWORK, config=NETWORK, steps=20)
            return found.image.mean(), found.trace["total"]

        return jax.grad(mean, has_aux=True)(middle)

    slope, total = program(MIDDLE["middle"])
    assert total[-1] < 0.7 * total[0]
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.slow
def test_an_own_network_has_regions_scales_and_lanes():
    rng = np.random.default_rng(0)
    content: Any
    style: Any
    content, style = rng.uniform(0.2, 0.8, (2, 8, 12, 3)).astype(np.float32)
    masks = np.zeros((1, 8, 12), np.float32)
    masks[:, :, :6] = 1
    options: dict[str, Any] = {"config": replace(TOY, optimizer="adam", scales=(8, 12), halve_above=10), "steps": 4}
    parts: dict[str, Any] = {"content_masks": jnp.asarray(masks), "style_masks": [np.ones((8, 12), np.float32)]}
    found = stylize(PARAMS, content, style, weights=PLAIN_WEIGHTS, **parts, **options)
    assert (found.image[:, 6:] == content[:, 6:]).all() and (found.image[:, :6] != content[:, :6]).any()
    lanes = replace(PLAIN_WEIGHTS, tv=jnp.asarray([PLAIN_WEIGHTS.tv, 1.0]))
    swept = sweep(PARAMS, content, style, weights=lanes, **options)
    alone = stylize(PARAMS, content, style, weights=PLAIN_WEIGHTS, **options)
    np.testing.assert_allclose(swept.image[0], alone.image, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content_layers": ("bands7",)}, r"no layers \['bands7'\]: choose from bands0, bands1, bands2"),
        (
            {"network": lambda params, image: {name: image.ravel() for name in NETWORK.layers}},
            r"network returns 'bands0' as an array .* for an image .*: return activations \[h, w, C\]",
        ),
        ({"network": lambda params, image: image}, "The network returns .*: return activations by name"),
    ],
    ids=["layer", "rank", "type"],
)
def test_activations_that_do_not_fit_are_refused(change, message):
    image = np.zeros((16, 16, 3), np.float32)
    with pytest.raises(InputError, match=message):
        traced(partial(make_targets, config=replace(NETWORK, **change)), MIDDLE, image, image)


def test_options_that_an_own_network_does_not_have_are_refused():
    with pytest.raises(InputError, match="network is 'mini': pass a function of params and an image"):
        replace(NETWORK, network="mini")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="Statistics of a user-defined network cannot be saved"):
        statistics_io.write("none.h5", {}, params=MIDDLE, config=NETWORK, pictures=[])
    with pytest.raises(InputError, match="block_pixels is 100000, but activations of a user-defined network cannot"):
        replace(NETWORK, block_pixels=100000)
    with pytest.raises(InputError, match="gram_divisor is 'image', but the network is user-defined"):
        replace(NETWORK, gram_divisor="image")


# Optimizers


@pytest.mark.slow
def test_an_own_optimizer_may_search_along_lines():
    """Optax's lbfgs with its line search, which needs the value, the gradient and the function."""
    config = replace(TOY, optimizer=optax.lbfgs(memory_size=3), parametrization="pixels")
    state, params, targets = begin(PARAMS, CONTENT, STYLE, config)
    _, trace = run(state, params, targets, PLAIN_WEIGHTS, config=config, steps=10)
    assert (np.diff(trace["total"] + PLAIN_WEIGHTS.bounds * trace["bounds"]) <= 0).all()  # full steps do not promise it
    assert trace["total"][-1] < 0.5 * trace["total"][0]


@pytest.mark.slow
def test_an_own_chain_with_a_schedule_resumes_at_its_step():
    schedule = optax.scale_by_schedule(lambda n: -0.02 / (1 + n))
    config = replace(ADAM, optimizer=optax.chain(optax.scale_by_adam(), schedule))
    state, params, targets = begin(PARAMS, CONTENT, STYLE, config)
    given = (params, targets, OWN_WEIGHTS)
    whole, _ = run(state, *given, config=config, steps=6)
    for _ in range(2):
        state, _ = run(state, *given, config=config, steps=3)
    assert (whole.image == state.image).all()


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", 0.1), ("memory", 5), ("betas", (0.5, 0.9)), ("epsilon", 1e-6)]
)
def test_an_option_of_a_built_in_optimizer_beside_an_own_one_is_refused(name, value):
    with pytest.raises(InputError, match=rf"{name} is {re.escape(repr(value))}, but the optimizer is user-defined"):
        Config(optimizer=optax.sgd(0.1), **{name: value})


# Parametrizations


@pytest.mark.slow
@pytest.mark.parametrize(("name", "optimizer"), [("decorrelated", "adam"), ("fourier", "adam"), ("sigmoid", "lbfgs")])
def test_the_loss_falls_with_each_parametrization(params, content, style, name, optimizer):
    config = replace(VGG, parametrization=name, optimizer=optimizer)
    state, trace = run(*begin(params, content, style, config), WEIGHTS, config=config, steps=20)
    assert trace["total"][-1] < 0.8 * trace["total"][0]
    assert 0 <= state.image.min() and state.image.max() <= 1
    if name == "sigmoid":
        assert (trace["bounds"] == 0).all()


@pytest.mark.slow
def test_an_own_parametrization_of_another_shape_has_batches():
    """A picture that stays grey: one channel stands for three, which adam does not clip."""
    grey = Parametrization(lambda image: {"tone": image.mean(-1)}, lambda x: jnp.repeat(x["tone"][..., None], 3, -1))
    config = replace(ADAM, parametrization=grey, learning_rate=0.5)
    both = np.stack([CONTENT, CONTENT[::-1]])
    state, _ = run(*begin(PARAMS, both, STYLE, config), OWN_WEIGHTS, config=config, steps=4)
    alone, trace = run(*begin(PARAMS, CONTENT, STYLE, config), OWN_WEIGHTS, config=config, steps=4)
    assert alone.parameters.values["tone"].shape == CONTENT.shape[:2] and trace["bounds"].max() > 0
    assert (state.image[..., 0] == state.image[..., 2]).all()
    np.testing.assert_allclose(state.image[0], alone.image, atol=1e-4)


@pytest.mark.slow
def test_a_built_in_parametrization_is_the_same_by_its_name_and_as_functions():
    found = []
    for way in ("pixels", PARAMETRIZATIONS["pixels"]):
        config = replace(ADAM, parametrization=way, learning_rate=0.5)
        found.append(run(*begin(PARAMS, CONTENT, STYLE, config), OWN_WEIGHTS, config=config, steps=4)[0].image)
    np.testing.assert_array_equal(*found)

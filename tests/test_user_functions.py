"""Terms, networks, optimizers and parametrizations of the user."""

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

from jaxstyle.errors import InputError
from jaxstyle.losses import statistics_io
from jaxstyle.losses.loss_terms import terms
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.loop import init_state, run_steps
from jaxstyle.optim.optimizers import LBFGS, Adam, Optax
from jaxstyle.optim.parametrizations import PARAMETRIZATIONS, Parametrization
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


ROOT = Parametrization(lambda image: {"root": jnp.sqrt(image)}, lambda x: jnp.square(x["root"]))
PLAIN = replace(toy.OBJECTIVE, style={"full": 2.0})
EXTRA = replace(
    PLAIN,
    extra={"edges": 30.0, "quiet": 0.4},
    extra_terms={"edges": edges, "quiet": quiet},
    extra_layers=("half",),
)
CONTENT: Any
STYLE: Any
CONTENT, STYLE = (np.asarray(each, np.float32) for each in (toy.CONTENT, toy.STYLE))
PARAMS: Any = jax.tree.map(
    np.float32, toy.PARAMS
)  # not those of the tests in double precision: jax keeps its copy of an array
VGG = Objective(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)

run_toy = partial(run_steps, network=toy.network)


def begin(params, content, style, *, objective, optimizer, network=toy.network) -> tuple[Any, Any, Any, Any]:
    """Return the arguments of a run: state, params, targets and objective."""
    state = init_state(jnp.asarray(content), objective=objective, optimizer=optimizer)
    return state, params, make_targets(params, content, style, objective=objective, network=network), objective


def traced(function, *arrays):
    """Trace a function of arrays without compiling it."""
    return jax.eval_shape(function, *arrays)


# Terms


@pytest.fixture(scope="module")
def one_step():
    """A step down the gradient with terms, network, optimizer and parametrization of the user."""
    with jax.enable_x64(True):
        targets = toy.TARGETS._replace(style={"full": toy.STATISTICS["full"]}, picture=toy.CONTENT)
        optimizer = Optax(optax.sgd(0.05), parametrization=ROOT)
        state = init_state(jnp.asarray(toy.START), objective=EXTRA, optimizer=optimizer)
        return run_toy(state, toy.PARAMS, targets, EXTRA, steps=1)


def test_extra_terms_are_in_the_history_and_part_of_the_total(one_step):
    _, history = one_step
    values, _, _ = toy.evaluate(toy.START)
    values["edges"] = toy.evaluate(toy.START - toy.CONTENT)[0]["tv"]
    values["quiet"] = np.mean(np.square(toy.START[::2, ::2] @ toy.PARAMS["half"]))
    del values["style/half"]
    weighted = toy.weighted(PLAIN, values, range_penalty=False)
    values["total"] = weighted + 30 * values["edges"] + 0.4 * values["quiet"]
    assert {name: float(each[0]) for name, each in history.items()} == pytest.approx(values, rel=1e-9)


def test_an_optimizer_of_optax_minimizes_the_arrays_of_a_user_defined_parametrization(one_step):
    """Gradient descent: minus the rate times the derivative of the total by the roots of the image."""
    state, _ = one_step
    assert set(state.parameters.values) == {"root"}
    _, gradients, _ = toy.evaluate(toy.START)
    _, differences, _ = toy.evaluate(toy.START - toy.CONTENT)
    half, quiet = toy.START[::2, ::2] @ toy.PARAMS["half"], np.zeros_like(toy.START)
    quiet[::2, ::2] = 2 / half.size * half @ toy.PARAMS["half"].T
    slope = toy.weighted(PLAIN, gradients) + 30 * differences["tv"] + 0.4 * quiet
    root = np.sqrt(toy.START)
    np.testing.assert_allclose(state.parameters.values["root"], root - 0.05 * 2 * root * slope, rtol=1e-9)


def test_a_name_or_a_value_that_cannot_be_a_term_is_refused():
    for name in ("tv", "total", "range_penalty", "style/edges", ""):
        with pytest.raises(InputError, match="An extra term cannot be named"):
            Objective(extra={name: 1.0}, extra_terms={name: edges})
    with pytest.raises(InputError, match="The extra term 'edges' is 3: pass a function"):
        Objective(extra={"edges": 1.0}, extra_terms={"edges": 3})  # pyright: ignore[reportArgumentType]


def test_extra_terms_and_tiles_exclude_each_other():
    image = np.zeros((32, 32, 3), np.float32)
    objective = replace(VGG, extra={"edges": 1.0}, extra_terms={"edges": edges})
    call = partial(make_targets, {}, objective=objective, network=VGG19(tile_pixels=100000))
    with pytest.raises(InputError, match="tile_pixels is 100000, but extra terms cannot be computed in tiles"):
        traced(call, image, image)


def test_a_term_that_returns_an_array_is_refused():
    objective = replace(PLAIN, extra={"all": 1.0}, extra_terms={"all": lambda image, activations, targets: image})
    for image in (CONTENT, np.stack([CONTENT])):
        with pytest.raises(
            InputError, match=r"The extra term 'all' is an array .* for images .*: return one number per image"
        ):
            traced(partial(terms, objective=objective, network=toy.network), PARAMS, image, toy.TARGETS)


@pytest.mark.parametrize(
    ("change", "names"), [({"extra": {}}, "edges, quiet"), ({"extra_terms": {"edges": edges}}, "quiet")]
)
def test_a_term_without_a_weight_and_a_weight_without_a_term_are_refused(change, names):
    call = partial(make_targets, objective=replace(EXTRA, **change), network=toy.network)
    with pytest.raises(InputError, match=f"differ in {names}: give each extra term one weight"):
        traced(call, PARAMS, CONTENT, STYLE)


@pytest.mark.slow
def test_extra_terms_count_at_half_the_size_too():
    """The term gets the content at the size of the image."""

    def size(image, _, targets):
        assert targets.picture.shape == image.shape
        return image.mean((-3, -2, -1)) + image.shape[-3]

    objective = replace(PLAIN, extra={"size": 0.0}, extra_terms={"size": size}, half_resolution_above=40)
    content = picture(48, 64, seed=3)
    options: dict[str, Any] = {"objective": objective, "network": toy.network, "optimizer": Adam()}
    actual = stylize(PARAMS, content, content, steps=1, scales=1, **options)
    assert actual.history["size"][0] == pytest.approx(float(content.mean()) + (48 + 24) / 2, rel=1e-3)


@pytest.mark.slow
def test_weights_of_extra_terms_may_differ_in_a_sweep_and_contents_in_a_batch():
    options: dict[str, Any] = {"network": toy.network, "optimizer": Adam(), "steps": 4, "scales": 1}
    varied = replace(EXTRA, extra={"edges": jnp.asarray([0.0, 30.0]), "quiet": 0.4})
    swept = sweep(PARAMS, CONTENT, STYLE, objective=varied, init=1 - CONTENT, **options)
    alone = stylize(PARAMS, CONTENT, STYLE, objective=EXTRA, init=1 - CONTENT, **options)
    np.testing.assert_allclose(swept.image[1], alone.image, atol=1e-4)
    np.testing.assert_allclose(swept.history["edges"][1], alone.history["edges"], rtol=1e-3, atol=1e-7)
    assert alone.history["edges"][-1] < swept.history["edges"][0][-1]  # which has the weight 0
    both, starts = jnp.stack([CONTENT[::-1], CONTENT]), jnp.stack([CONTENT, 1 - CONTENT])
    batch = stylize(PARAMS, both, STYLE, objective=EXTRA, init=starts, **options)
    np.testing.assert_allclose(batch.image[1], alone.image, atol=1e-4)


@pytest.mark.slow
def test_extra_terms_of_vgg_may_use_activations_that_no_other_term_uses(params, content, style):
    def deep(image, activations, targets):
        return jnp.mean(activations["conv1_2"], (-3, -2, -1))

    objective = replace(VGG, extra={"deep": 1.0}, extra_terms={"deep": deep}, extra_layers=("conv1_2",))

    @jax.jit
    def program(image):
        targets = make_targets(params, content, style, objective=objective)
        return terms(params, image, targets, objective=objective)["deep"], features(params, image)["conv1_2"].mean()

    actual, expected = program(content)
    assert actual == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_a_run_with_extra_terms_resumes_from_a_checkpoint(tmp_path):
    state, *inputs = begin(PARAMS, CONTENT, STYLE, objective=EXTRA, optimizer=Adam())
    half, history = run_toy(state, *inputs, steps=3)
    whole, _ = run_toy(half, *inputs, steps=3)
    like = jax.eval_shape(lambda: {"state": half, "history": history})
    CheckpointStore(tmp_path / "saved").save(3, {"state": half, "history": history}, {})
    actual = CheckpointStore(tmp_path / "saved").latest(lambda facts: like, print)
    assert actual is not None and actual[1]["history"].keys() >= {"edges", "quiet"}
    again, _ = run_toy(actual[1]["state"], *inputs, steps=3)
    assert (again.image == whole.image).all()


# Networks


def blurs(params, image):
    """Bands of a picture, brighter or darker than `params`, at three sizes."""
    result, x = {}, image
    for level in range(3):
        height, width, _ = x.shape
        away = x - jnp.broadcast_to(params["middle"], x.shape)
        result[f"bands{level}"] = jax.nn.relu(jnp.concatenate([away, -away], -1))
        x = jax.image.resize(x, (height // 2, width // 2, 3), "linear")
    return result


BLURS = Objective(content={"bands2": 1.0}, style={"bands0": 6.0, "bands1": 6.0}, tv=0.1)
MIDDLE: Any = {"middle": np.asarray([0.4, 0.5, 0.6], np.float32)}


@pytest.mark.slow
def test_the_loss_of_a_user_defined_network_falls_and_its_params_can_be_differentiated(content, style):
    options: dict[str, Any] = {"objective": BLURS, "network": blurs, "optimizer": Adam(), "scales": 1}

    @jax.jit
    def program(middle):
        def mean(middle):
            result = stylize({"middle": middle}, content, style, steps=20, **options)
            return result.image.mean(), result.history["total"]

        return jax.grad(mean, has_aux=True)(middle)

    slope, total = program(MIDDLE["middle"])
    assert total[-1] < 0.7 * total[0]
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.slow
def test_a_user_defined_network_has_regions_scales_and_sweeps():
    rng = np.random.default_rng(0)
    content: Any
    style: Any
    content, style = rng.uniform(0.2, 0.8, (2, 8, 12, 3)).astype(np.float32)
    masks = np.zeros((1, 8, 12), np.float32)
    masks[:, :, :6] = 1
    objective = replace(PLAIN, half_resolution_above=10)
    options: dict[str, Any] = {"network": toy.network, "optimizer": Adam(), "steps": 4, "scales": (8, 12)}
    parts: dict[str, Any] = {"content_masks": jnp.asarray(masks), "style_masks": [np.ones((8, 12), np.float32)]}
    actual = stylize(PARAMS, content, style, objective=objective, **parts, **options)
    assert (actual.image[:, 6:] == content[:, 6:]).all() and (actual.image[:, :6] != content[:, :6]).any()
    varied = replace(objective, tv=jnp.asarray([objective.tv, 1.0]))
    swept = sweep(PARAMS, content, style, objective=varied, **options)
    alone = stylize(PARAMS, content, style, objective=objective, **options)
    np.testing.assert_allclose(swept.image[0], alone.image, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": replace(BLURS, content={"bands7": 1.0})}, r"no layers \['bands7'\]: choose from bands0, bands1"),
        (
            {"network": lambda params, image: {name: image.ravel() for name in BLURS.layers}},
            r"network returns 'bands[0-2]' as an array .* for an image .*: return activations \[h, w, C\]",
        ),
        ({"network": lambda params, image: image}, "The network returns .*: return activations by name"),
        ({"network": "mini"}, "network is 'mini': pass a VGG19 or a function of params and an image"),
        (
            {"objective": replace(BLURS, gram_normalization="image")},
            "gram_normalization is 'image', but the network is user-defined",
        ),
    ],
    ids=["layer", "rank", "type", "name", "normalization"],
)
def test_a_network_that_does_not_fit_is_refused(change, message):
    image = np.zeros((16, 16, 3), np.float32)
    options: dict[str, Any] = {"objective": BLURS, "network": blurs} | change
    with pytest.raises(InputError, match=message):
        traced(partial(make_targets, **options), MIDDLE, image, image)


def test_statistics_of_a_user_defined_network_cannot_be_saved():
    options: dict[str, Any] = {"params": MIDDLE, "objective": BLURS, "network": blurs, "pictures": []}
    with pytest.raises(InputError, match="Statistics of a user-defined network cannot be saved"):
        statistics_io.write("none.h5", {}, **options)


# Optimizers


@pytest.mark.slow
def test_an_optimizer_of_optax_may_search_along_lines():
    """Optax's lbfgs with its line search, which needs the value, the gradient and the function."""
    inputs = begin(PARAMS, CONTENT, STYLE, objective=PLAIN, optimizer=optax.lbfgs(memory_size=3))
    _, history = run_toy(*inputs, steps=10)
    values = history["total"] + PLAIN.range_penalty * history["range_penalty"]
    assert (np.diff(values) <= 0).all()  # full steps do not promise it
    assert history["total"][-1] < 0.5 * history["total"][0]


@pytest.mark.slow
def test_a_chain_of_optax_with_a_schedule_resumes_at_its_step():
    schedule = optax.scale_by_schedule(lambda n: -0.02 / (1 + n))
    optimizer = Optax(optax.chain(optax.scale_by_adam(), schedule))
    state, *inputs = begin(PARAMS, CONTENT, STYLE, objective=EXTRA, optimizer=optimizer)
    whole, _ = run_toy(state, *inputs, steps=6)
    for _ in range(2):
        state, _ = run_toy(state, *inputs, steps=3)
    assert (whole.image == state.image).all()


@pytest.mark.slow
def test_an_optimizer_of_optax_is_clipped_if_its_options_say_so():
    actual = {}
    for clip in (False, True):
        optimizer = Optax(optax.sgd(3.0), clip=clip)
        inputs = begin(PARAMS, CONTENT, STYLE, objective=PLAIN, optimizer=optimizer)
        state, history = run_toy(*inputs, steps=3)
        actual[clip] = np.abs(state.parameters.values - 0.5).max(), history["range_penalty"].max()
    assert actual[False][0] > 0.5 and actual[False][1] > 0
    assert actual[True] == (0.5, 0)


# Parametrizations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer"), [("decorrelated", Adam), ("fourier", Adam), ("sigmoid", LBFGS)], ids=str
)
def test_the_loss_falls_with_each_parametrization(params, content, style, name, optimizer):
    options: dict[str, Any] = {"objective": VGG, "network": VGG19(), "optimizer": optimizer(parametrization=name)}
    state, history = run_steps(*begin(params, content, style, **options), steps=20)
    assert history["total"][-1] < 0.8 * history["total"][0]
    assert 0 <= state.image.min() and state.image.max() <= 1
    if name == "sigmoid":
        assert (history["range_penalty"] == 0).all()


@pytest.mark.slow
def test_a_user_defined_parametrization_of_another_shape_has_batches():
    """A picture that stays grey: one channel stands for three, which adam does not clip."""
    grey = Parametrization(lambda image: {"tone": image.mean(-1)}, lambda x: jnp.repeat(x["tone"][..., None], 3, -1))
    options: dict[str, Any] = {"objective": EXTRA, "optimizer": Adam(0.5, parametrization=grey)}
    both = np.stack([CONTENT, CONTENT[::-1]])
    state, _ = run_toy(*begin(PARAMS, both, STYLE, **options), steps=4)
    alone, history = run_toy(*begin(PARAMS, CONTENT, STYLE, **options), steps=4)
    assert alone.parameters.values["tone"].shape == CONTENT.shape[:2] and history["range_penalty"].max() > 0
    assert (state.image[..., 0] == state.image[..., 2]).all()
    np.testing.assert_allclose(state.image[0], alone.image, atol=1e-4)


@pytest.mark.slow
def test_a_built_in_parametrization_is_the_same_by_its_name_and_as_functions():
    actual = []
    for way in ("pixels", PARAMETRIZATIONS["pixels"]):
        inputs = begin(PARAMS, CONTENT, STYLE, objective=EXTRA, optimizer=Adam(0.5, parametrization=way))
        actual.append(run_toy(*inputs, steps=4)[0].image)
    np.testing.assert_array_equal(*actual)

"""What one brings along: terms, networks, optimisers and parametrisations of one's own."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import picture

from jaxstyle import statistics_file
from jaxstyle.checkpoint import Checkpoints
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.objective import make_targets, terms, total
from jaxstyle.optimize import init, run
from jaxstyle.own import Parametrization
from jaxstyle.parametrizations import PARAMETRIZATIONS
from jaxstyle.parametrize import decode
from jaxstyle.sweep import sweep
from jaxstyle.transfer import reconstruct, stylize
from jaxstyle.vgg import features

LAYERS = {"content_layers": ("relu2_2",), "style_layers": ("relu1_1", "relu2_1")}  # few, to compile quickly
WEIGHTS = LossWeights(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)
ADAM = Config(optimizer="adam", scales=1, **LAYERS)


def edges(image, activations, targets):
    """How far differences between neighbours are from the content's."""
    return sum(
        jnp.mean(jnp.square(jnp.diff(image, axis=axis) - jnp.diff(targets.picture, axis=axis)), (-3, -2, -1))
        for axis in (-3, -2)
    )


def quiet(image, activations, targets):
    """How strong a layer is that nothing else reads."""
    return jnp.mean(jnp.square(activations["conv1_2"]), (-3, -2, -1))


OWN = replace(ADAM, own_terms={"edges": edges, "quiet": quiet}, own_layers=("conv1_2",))
OWN_WEIGHTS = WEIGHTS._replace(own={"edges": 50.0, "quiet": 1e-4})


def begin(params, content, style, config) -> tuple[Any, Any, Any]:
    return init(content, config=config), params, make_targets(params, content, style, config=config)


# Terms


def test_own_terms_are_what_their_functions_say(params, content, style):
    targets = make_targets(params, content, style, config=OWN)
    image = content[::-1]
    found = terms(params, image, targets, config=OWN)
    away = np.asarray(image - content)
    across, down = (np.diff(away, axis=axis) for axis in (0, 1))
    assert found["edges"] == pytest.approx(np.square(across).mean() + np.square(down).mean(), rel=1e-5)
    assert found["quiet"] == pytest.approx(float(jnp.square(features(params, image)["conv1_2"]).mean()), rel=1e-5)
    plain = terms(params, image, make_targets(params, content, style, config=ADAM), config=ADAM)
    assert found.keys() == {*plain, "edges", "quiet"}
    for name, value in plain.items():
        assert found[name] == pytest.approx(float(value), rel=1e-5)
    expected = total(WEIGHTS, plain) + 50 * found["edges"] + 1e-4 * found["quiet"]
    assert total(OWN_WEIGHTS, found) == pytest.approx(float(expected), rel=1e-5)


def test_own_terms_are_traced_and_minimised(params, content, style):
    heavy, light = (
        run(*begin(params, content[::-1], style, OWN), weights, config=OWN, steps=8)[1]
        for weights in (OWN_WEIGHTS, OWN_WEIGHTS._replace(own={"edges": 0.0, "quiet": 0.0}))
    )
    assert heavy["edges"].shape == (8,)
    assert heavy["edges"][-1] < light["edges"][-1]


@pytest.mark.slow
def test_own_terms_count_at_half_the_size_too(params, style):
    config = replace(OWN, halve_above=40)
    content = picture(48, 64, seed=3)

    def mean(image, _, targets):
        assert targets.picture.shape == image.shape
        return image.mean() + (1.0 if image.shape[0] == 24 else 0.0)

    config = replace(config, own_terms={"mean": mean})
    seen = stylize(params, content, style, weights=WEIGHTS._replace(own={"mean": 0.0}), config=config, steps=1)
    assert seen.trace["mean"][0] == pytest.approx(float(content.mean()) + 0.5, rel=1e-3)


@pytest.mark.slow
def test_own_terms_have_lanes_and_batches(params, content, style):
    weights = OWN_WEIGHTS._replace(own={"edges": jnp.asarray([0.0, 50.0]), "quiet": 1e-4})
    swept = sweep(params, content, style, weights=weights, config=OWN, steps=4)
    alone = stylize(params, content, style, weights=OWN_WEIGHTS, config=OWN, steps=4)
    np.testing.assert_allclose(swept.image[1], alone.image, atol=1e-4)
    np.testing.assert_allclose(swept.trace["edges"][1], alone.trace["edges"], rtol=1e-3, atol=1e-7)
    batch = stylize(params, jnp.stack([content[::-1], content]), style, weights=OWN_WEIGHTS, config=OWN, steps=4)
    np.testing.assert_allclose(batch.image[1], alone.image, atol=1e-4)


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_own_terms(params, content, style, tmp_path):
    state, params, targets = begin(params, content, style, OWN)
    given = (params, targets, OWN_WEIGHTS)
    whole, _ = run(state, *given, config=OWN, steps=6)
    half, trace = run(state, *given, config=OWN, steps=3)
    like = jax.eval_shape(lambda: {"state": half, "trace": trace})
    Checkpoints(tmp_path / "kept").save(3, {"state": half, "trace": trace}, {})
    found = Checkpoints(tmp_path / "kept").latest(lambda facts: like)
    assert found is not None and found[1]["trace"].keys() >= {"edges", "quiet"}
    again, _ = run(found[1]["state"], *given, config=OWN, steps=3)
    assert (again.image == whole.image).all()


def test_what_is_no_term_is_refused():
    for name in ("tv", "total", "bounds", "style/edges", ""):
        with pytest.raises(InputError, match="A term cannot be called"):
            Config(own_terms={name: edges})
    with pytest.raises(InputError, match="The term 'edges' is 3: pass a function"):
        Config(own_terms={"edges": 3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="block_pixels is 100000, but your own terms are no sums over blocks"):
        replace(OWN, block_pixels=100000)
    with pytest.raises(InputError, match="'relu9_1' is not a layer of VGG-19"):
        replace(OWN, own_layers=("relu9_1",))


def test_a_term_that_is_no_number_is_refused(params, content, style):
    config = replace(ADAM, own_terms={"all": lambda image, activations, targets: image})
    targets = make_targets(params, content, style, config=config)
    with pytest.raises(InputError, match=r"The term 'all' is an array .* of an image .*: return a number for each."):
        terms(params, content, targets, config=config)


def test_a_term_without_a_weight_is_refused(params, content, style):
    with pytest.raises(InputError, match="differ in edges, quiet: give each layer and each own term one weight"):
        run(*begin(params, content, style, OWN), WEIGHTS, config=OWN, steps=1)


def test_own_weights_are_of_own_terms_only(params, content, style):
    found = terms(params, content, make_targets(params, content, style, config=ADAM), config=ADAM)
    with pytest.raises(InputError, match="Your own weights name tv, which have one: weigh own terms only"):
        total(WEIGHTS._replace(own={"tv": 3.0}), found)


@pytest.mark.slow
def test_a_reconstruction_has_no_own_terms(params, content):
    found = reconstruct(params, content, key=jax.random.key(0), content_layers=("relu2_2",), config=OWN, steps=2)
    assert "edges" not in found.trace


# Networks


def blurs(params, image):
    """A network of one's own: bands of a picture, brighter or darker than `params`, at three sizes."""
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


@pytest.fixture
def middle():
    return {"middle": jnp.asarray([0.4, 0.5, 0.6])}


def grams(network, params, image, layer):
    x = np.asarray(network(params, image)[layer])
    return np.einsum("hwi,hwj->ij", x, x) / (x.shape[0] * x.shape[1])


def test_terms_are_of_an_own_networks_activations(middle, content, style):
    targets = make_targets(middle, content, style, config=NETWORK)
    found = terms(middle, content[::-1], targets, config=NETWORK)
    one, other = (grams(blurs, middle, image, "bands1") for image in (content[::-1], style))
    assert found["style/bands1"] == pytest.approx(np.square(one - other).sum() / np.square(other).sum(), rel=1e-4)
    one, other = (np.asarray(blurs(middle, image)["bands2"]) for image in (content[::-1], content))
    assert found["content/bands2"] == pytest.approx(np.square(one - other).sum() / np.square(other).sum(), rel=1e-4)


def with_middle(image, tone):
    return stylize({"middle": tone}, image, 1 - image, weights=OF_NETWORK, config=NETWORK, steps=5)


@pytest.mark.slow
def test_an_own_network_paints_and_its_params_can_be_differentiated(middle, content, style):
    found = stylize(middle, content, style, weights=OF_NETWORK, config=NETWORK, steps=20)
    assert found.trace["total"][-1] < 0.7 * found.trace["total"][0]
    slope = jax.grad(lambda tone: with_middle(content, tone).image.mean())(middle["middle"])
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.slow
def test_an_own_network_has_regions_scales_batches_and_lanes(middle, content, style):
    masks = jnp.stack([jnp.zeros((32, 40)).at[:, :20].set(1.0)])
    config = replace(NETWORK, scales=(24, 40), halve_above=30)
    options = {"weights": OF_NETWORK, "config": config, "steps": 6}
    found = stylize(middle, content, style, content_masks=masks, style_masks=[jnp.ones(style.shape[:2])], **options)
    assert (found.image[:, 20:] == content[:, 20:]).all() and (found.image[:, :19] != content[:, :19]).any()
    batch = stylize(middle, jnp.stack([content, content[::-1]]), style, **options)
    np.testing.assert_allclose(batch.image[0], stylize(middle, content, style, **options).image, atol=1e-4)
    lanes = sweep(
        middle, content, style, weights=OF_NETWORK._replace(tv=jnp.asarray([0.1, 1.0])), config=config, steps=6
    )
    np.testing.assert_allclose(lanes.image[0], batch.image[0], atol=1e-4)


def test_what_an_own_network_cannot_do_is_refused(middle, content, style):
    with pytest.raises(
        InputError, match=r"Your network has no layers \['bands7'\]: choose from bands0, bands1, bands2"
    ):
        make_targets(middle, content, style, config=replace(NETWORK, content_layers=("bands7",)))
    flat = replace(NETWORK, network=lambda params, image: {name: image.ravel() for name in NETWORK.layers})
    saying = r"Your network gives 'bands0' as an array .* of an image .*: return activations \[h, w, C\]"
    with pytest.raises(InputError, match=saying):
        make_targets(middle, content, style, config=flat)
    alone = replace(NETWORK, network=lambda params, image: image)
    with pytest.raises(InputError, match="Your network returns .*: return activations by their names"):
        make_targets(middle, content, style, config=alone)
    with pytest.raises(InputError, match="network is 'mini': pass a function of params and an image"):
        replace(NETWORK, network="mini")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="your own, which a file cannot tell from others: keep statistics in memory"):
        statistics_file.write("none.h5", {}, params=middle, config=NETWORK, pictures=[])
    with pytest.raises(InputError, match="block_pixels is 100000, but activations of your own network are no sums"):
        replace(NETWORK, block_pixels=100000)
    with pytest.raises(InputError, match="gram_divisor is 'image', but the network is your own"):
        replace(NETWORK, gram_divisor="image")


# Optimisers


def test_an_own_optimiser_takes_its_steps(params, content, style):
    """Plain gradient descent, against the gradient of the objective and of the penalty on what is out of range."""
    config = replace(ADAM, optimizer=optax.sgd(1e-3))
    start, params, targets = begin(params, content, style, config)
    state, _ = run(start, params, targets, WEIGHTS, config=config, steps=1)

    def minimized(image):
        excess = jnp.mean(jnp.square(image - jnp.clip(image, 0, 1)))
        return total(WEIGHTS, terms(params, image, targets, config=config)) + WEIGHTS.bounds * excess

    expected = content - 1e-3 * jax.grad(minimized)(content)
    np.testing.assert_allclose(decode(state.parameters), expected, atol=1e-6)


@pytest.mark.slow
def test_an_own_optimiser_may_search_along_lines(params, content, style):
    """Optax's lbfgs with its line search is told the value, the gradient and the function."""
    config = replace(ADAM, optimizer=optax.lbfgs(), parametrization="pyramid")
    start, params, targets = begin(params, content, style, config)
    state, trace = run(start, params, targets, WEIGHTS, config=config, steps=10)
    assert (np.diff(trace["total"] + WEIGHTS.bounds * trace["bounds"]) <= 0).all()  # which full steps do not promise
    assert trace["total"][-1] < 0.3 * trace["total"][0]


@pytest.mark.slow
def test_an_own_chain_with_a_schedule_goes_on_where_it_was(params, content, style):
    config = replace(
        ADAM, optimizer=optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(lambda n: -0.02 / (1 + n)))
    )
    start, params, targets = begin(params, content, style, config)
    whole, _ = run(start, params, targets, WEIGHTS, config=config, steps=6)
    part = start
    for _ in range(2):
        part, _ = run(part, params, targets, WEIGHTS, config=config, steps=3)
    assert (whole.image == part.image).all()


def test_what_is_no_optimiser_is_refused():
    with pytest.raises(InputError, match="optimizer 3 is unknown: use 'lbfgs' or 'adam'"):
        Config(optimizer=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="learning_rate is 0.1, but the optimiser is your own: set it there"):
        Config(optimizer=optax.sgd(0.1), learning_rate=0.1)


# Parametrisations


@pytest.mark.parametrize("name", ["decorrelated", "fourier", "sigmoid"])
@pytest.mark.parametrize("optimizer", ["adam", pytest.param("lbfgs", marks=pytest.mark.slow)])
def test_the_loss_falls_however_the_image_is_written(params, content, style, name, optimizer):
    config = replace(ADAM, parametrization=name, optimizer=optimizer)
    state, trace = run(*begin(params, content, style, config), WEIGHTS, config=config, steps=20)
    assert trace["total"][-1] < 0.8 * trace["total"][0]
    assert 0 <= state.image.min() and state.image.max() <= 1
    if name == "sigmoid":
        assert (trace["bounds"] == 0).all()


def test_an_own_parametrisation_is_what_is_optimised(params, content, style):
    """A picture that is grey however it is painted."""
    grey = Parametrization(lambda image: image.mean(-1), lambda tone: jnp.repeat(tone[..., None], 3, axis=-1))
    config = replace(ADAM, parametrization=grey)
    state, trace = run(*begin(params, content, style, config), WEIGHTS, config=config, steps=10)
    assert state.parameters.values.shape == (32, 40)
    assert (state.image[..., 0] == state.image[..., 2]).all()
    assert trace["total"][-1] < trace["total"][0]


@pytest.mark.slow
def test_an_own_parametrisation_has_batches(params, content, style):
    root = Parametrization(lambda image: {"root": jnp.sqrt(image + 0.01)}, lambda own: jnp.square(own["root"]) - 0.01)
    config = replace(ADAM, parametrization=root)
    both = jnp.stack([content, content[::-1]])
    state, _ = run(*begin(params, both, style, config), WEIGHTS, config=config, steps=4)
    alone, _ = run(*begin(params, content, style, config), WEIGHTS, config=config, steps=4)
    assert state.image.shape == both.shape
    np.testing.assert_allclose(state.image[0], alone.image, atol=1e-4)


def test_what_is_no_parametrisation_is_refused():
    with pytest.raises(InputError, match="parametrization 'waves' is unknown: use None or 'pixels' or 'pyramid'"):
        Config(parametrization="waves")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_a_built_in_parametrisation_is_the_same_by_its_name_and_by_itself(params, content, style):
    found = []
    for way in ("pixels", PARAMETRIZATIONS["pixels"]):
        config = replace(ADAM, parametrization=way, learning_rate=0.5)
        found.append(run(*begin(params, content, style, config), WEIGHTS, config=config, steps=4)[0].image)
    np.testing.assert_array_equal(*found)

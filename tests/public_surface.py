"""The types of the public names: `pyright` checks this file strictly, and nothing runs it."""
# pyright: strict, reportMissingTypeStubs=false

from collections.abc import Mapping
from typing import assert_type

import jax
import jax.numpy as jnp
import optax

from jaxstyle import (
    VGG19,
    Config,
    LossWeights,
    Parametrization,
    color,
    init,
    load_image,
    load_params,
    make_targets,
    masks,
    objective_value,
    parametrizations,
    presets,
    reconstruct,
    run,
    save_image,
    statistics_io,
    stylize,
    summarize_style,
    sweep,
    terms,
    texture,
    total,
)
from jaxstyle.losses.objective import Terms
from jaxstyle.losses.style import Summary
from jaxstyle.losses.targets import Targets
from jaxstyle.optim.loop import State
from jaxstyle.optim.parametrizations import PARAMETRIZATIONS
from jaxstyle.transfer.stylize import Result


def edges(image: jax.Array, activations: Mapping[str, jax.Array], targets: Targets) -> jax.Array:
    """Return a user-defined term of the loss."""
    assert targets.picture is not None
    return jnp.square(image - targets.picture).mean() + activations["relu1_1"].mean()


def bands(params: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
    """Return the activations of a user-defined network."""
    return {"bright": image - params, "dark": params - image}


def paint(content: jax.Array, style: jax.Array, key: jax.Array, numbers: jax.Array) -> None:
    """Use the public names, and assert the types of the results."""
    params = load_params("mini")
    loaded = load_image("cat.jpg", size=256)
    save_image("out.png", loaded.rgb)

    config = Config(own_terms={"edges": edges}, optimizer=optax.sgd(0.1))
    of_bands = Config(network=bands, parametrization=Parametrization(jnp.sqrt, jnp.square))
    weights = LossWeights(content={"relu4_2": 1.0}, style={"relu1_1": 6.0}, own={"edges": 2.0})
    assert_type(weights.tv, jax.typing.ArrayLike)
    network = VGG19.from_params(params, pooling="avg")
    assert_type(network, VGG19)

    targets = make_targets(params, content, [style], config=config)
    assert_type(targets, Targets)
    assert_type(summarize_style(params, style, config=config), dict[str, Summary])
    assert_type(terms(params, content, targets, config=config), Terms)
    assert_type(total(weights, terms(params, content, targets, config=config)), jax.Array)
    assert_type(objective_value(params, content, targets, weights, config=config), tuple[jax.Array, Terms])

    state = init(content, config=config)
    assert_type(state, State)
    state, trace = run(state, params, targets, weights, config=config, steps=9, segments=3)
    assert_type(trace, Terms)
    assert_type(state.image, jax.Array)

    assert_type(stylize(params, content, style, key=key, weights=weights, config=of_bands, steps=9), Result)
    assert_type(texture(params, style, key=key, height=64, width=64), Result)
    assert_type(reconstruct(params, content, key=key, content_layers=("relu4_2",)), Result)
    lanes = sweep.sweep(params, content, style, LossWeights(tv=numbers), steps=9)
    assert_type(lanes.image, jax.Array)

    way = parametrizations.compose(PARAMETRIZATIONS["sigmoid"], PARAMETRIZATIONS["fourier"])
    assert_type(way, Parametrization)
    assert_type(color.with_colors_of(content, style), jax.Array)
    assert_type(masks.cover(numbers), jax.Array)
    assert_type(presets.preset("gatys-paper").config, Config)
    assert_type(statistics_io.network_hash(params), str)

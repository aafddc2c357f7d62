"""The types of the public names: `pyright` checks this file strictly, and nothing runs it."""
# pyright: strict, reportMissingTypeStubs=false

from collections.abc import Mapping
from typing import assert_type

import jax
import jax.numpy as jnp
import optax

from jaxstyle import (
    LBFGS,
    VGG19,
    Adam,
    Objective,
    Optax,
    Parametrization,
    color,
    init_state,
    load_image,
    load_params,
    make_targets,
    masks,
    objective_value,
    parametrizations,
    presets,
    reconstruct,
    run_steps,
    save_image,
    statistics_io,
    stylize,
    summarize_style,
    sweep,
    terms,
    texture,
    total,
)
from jaxstyle.losses.loss_terms import Terms
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

    objective = Objective(
        content={"relu4_2": 1.0}, style={"relu1_1": 6.0}, extra={"edges": 2.0}, extra_terms={"edges": edges}
    )
    assert_type(objective.tv, jax.typing.ArrayLike)
    network = VGG19(pooling="avg")

    targets = make_targets(params, content, [style], objective=objective, network=network)
    assert_type(targets, Targets)
    assert_type(summarize_style(params, style, objective=objective, network=network), dict[str, Summary])
    assert_type(terms(params, content, targets, objective=objective, network=network), Terms)
    assert_type(total(objective, terms(params, content, targets, objective=objective)), jax.Array)
    value = objective_value(params, content, targets, objective, network=network)
    assert_type(value, tuple[jax.Array, Terms])

    state = init_state(content, objective=objective, optimizer=Optax(optax.sgd(0.1)))
    assert_type(state, State)
    state, history = run_steps(state, params, targets, objective, network=network, steps=9, checkpoint_segments=3)
    assert_type(history, Terms)
    assert_type(state.image, jax.Array)

    of_bands = Objective(content={"bright": 1.0}, style={"dark": 6.0})
    optimizer = Adam(numbers, parametrization=Parametrization(jnp.sqrt, jnp.square))
    result = stylize(params, content, style, objective=of_bands, network=bands, optimizer=optimizer, scales=1)
    assert_type(result, Result)
    assert_type(result.history, Terms)
    assert_type(stylize(params, content, style, key=key, optimizer=optax.adam(0.1), steps=9), Result)
    assert_type(texture(params, style, key=key, height=64, width=64, scales=(32, 64)), Result)
    assert_type(reconstruct(params, content, key=key, content_layers=("relu4_2",)), Result)
    rates = LBFGS(learning_rate=numbers, history_size=5)
    batch = sweep(params, content, style, objective=Objective(tv=numbers), optimizer=rates, batch_size=2)
    assert_type(batch.image, jax.Array)

    way = parametrizations.compose(PARAMETRIZATIONS["sigmoid"], PARAMETRIZATIONS["fourier"])
    assert_type(way, Parametrization)
    assert_type(color.with_colors_of(content, style), jax.Array)
    assert_type(masks.cover(numbers), jax.Array)
    preset = presets.preset("gatys-paper")
    assert_type(preset.make_objective(), Objective)
    assert_type(preset.network, VGG19)
    assert_type(statistics_io.network_hash(params), str)

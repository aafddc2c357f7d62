"""The loop: Optax in `jax.lax.scan`, one gradient evaluation a step, lbfgs and adam in the same body.

`run` is pure and compiled once for each config and number of steps; on a CPU, two runs of k steps equal one of 2 k bit
for bit.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxstyle import losses
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.objective import Targets, Terms, check_picture, terms, total
from jaxstyle.parametrize import PYRAMID_LEVELS, Parameters, decode, encode
from jaxstyle.vgg import Params

LEARNING_RATES = {"lbfgs": 1.0, "adam": 0.02}

Trace = Terms  # terms, "total" and "bounds", stacked over the steps: each is [steps]


class State(NamedTuple):
    """Everything that a step changes: what the image is written as, and the optimiser's memory."""

    parameters: Parameters
    optimizer: Any

    @property
    def image(self) -> jax.Array:
        """The image `[H, W, 3]` (or `[N, H, W, 3]` for a batch), clipped to [0, 1]."""
        return jnp.clip(decode(self.parameters), 0.0, 1.0)


def init(image: jax.Array, *, config: Config) -> State:
    """Return the state in which `run` starts from `image`.

    Args:
        image: `[H, W, 3]`, or `[N, H, W, 3]` for lanes that do not see each other, in [0, 1].
        config: the static facts; its optimiser and parametrisation count here.

    Returns:
        The state; with a leading axis on every array for a batch.

    Raises:
        InputError: if `image` is not a picture.

    Example:
        >>> init(jnp.zeros((32, 32, 3)), config=Config()).image.shape
        (32, 32, 3)
    """
    image = check_picture("initial image", image)
    if image.ndim == 4:
        return jax.vmap(partial(init, config=config))(image)
    default = "pyramid" if config.optimizer == "lbfgs" else "pixels"
    levels = PYRAMID_LEVELS if (config.parametrization or default) == "pyramid" else 1
    parameters = encode(image, levels=levels)
    state = State(parameters, _transformation(config).init(parameters))
    # Optax leaves weak types here and there, which the first step would make strong: that would compile `run` twice.
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)


@partial(jax.jit, static_argnames=("config", "steps"))
def run(
    state: State, params: Params, targets: Targets, weights: LossWeights, *, config: Config, steps: int
) -> tuple[State, Trace]:
    """Take `steps` steps of gradient descent on the image; pure, and compiled once.

    No line search: the first step of lbfgs has at most length 1 over all parameters, and each later one is the full
    quasi-Newton step. So a step costs one gradient evaluation, in every lane of a batch alike.

    Args:
        state: of `init`, or of an earlier `run`.
        params: the network.
        targets: of `make_targets`; those of one content serve a whole batch of images.
        weights: the coefficients of the loss.
        config: the static facts that state and targets were made with.
        steps: how many gradient evaluations.

    Returns:
        The state after the last step, and every term of every step, `[steps]` each (`[N, steps]` for a batch), as it
        was before that step; "total" is the objective, "bounds" the penalty on what lies out of range.

    Raises:
        InputError: if `steps` is below 1, or if weights and config differ in layers.

    Example:
        >>> state, trace = run(state, params, targets, weights, config=config, steps=100)  # doctest: +SKIP
    """
    if steps < 1:
        raise InputError(f"A run of {steps} steps does nothing: take at least 1.")
    if state.parameters[0].ndim == 4:
        lane = partial(run, config=config, steps=steps)
        axes = jax.tree.map(lambda features: 0 if features.ndim == 4 else None, targets)
        return jax.vmap(lane, in_axes=(0, None, axes, None))(state, params, targets, weights)

    def loss(parameters: Parameters) -> tuple[jax.Array, Trace]:
        image = decode(parameters)
        parts = terms(params, image, targets, config=config)
        objective = total(weights, parts)
        bounds = losses.out_of_range(
            config.pixel_range * image, reduction=config.pixel_reduction, upper=config.pixel_range
        )
        return objective + weights.bounds * bounds, {**parts, "total": objective, "bounds": bounds}

    transformation = _transformation(config)

    def step(state: State, _: None) -> tuple[State, Trace]:
        gradient, trace = jax.grad(loss, has_aux=True)(state.parameters)
        updates, memory = transformation.update(gradient, state.optimizer, state.parameters)
        parameters: Any = optax.apply_updates(state.parameters, updates)
        if config.optimizer == "adam":
            parameters = _clip(parameters)
        return State(parameters, memory), trace

    # XLA inlines a loop that runs once, and then rounds it otherwise than a longer one.
    with set_xla_metadata(**{"skip-simplify-while-loops_trip-count-one": "true"}):
        return jax.lax.scan(step, state, length=steps)


def _clip(parameters: Parameters) -> Parameters:
    """Bring the image into [0, 1] by changing the finest level only."""
    excess = (image := decode(parameters)) - jnp.clip(image, 0.0, 1.0)
    return (parameters[0] - excess, *parameters[1:])


def _transformation(config: Config) -> optax.GradientTransformation:
    rate = LEARNING_RATES[config.optimizer] if config.learning_rate is None else config.learning_rate
    if config.optimizer == "adam":
        return optax.adam(rate, eps_root=1e-16)  # without it the derivative at a gradient of zero is not finite
    return optax.chain(_skip_negative_curvature(config.memory), optax.scale_by_learning_rate(rate))


def _skip_negative_curvature(memory: int) -> optax.GradientTransformation:
    """Return Optax's lbfgs, but for pairs with s.y <= 0, which it would store and which would point uphill.

    Such a pair is passed over by taking the last good step once more in its place: it lands in the slot where it is
    already, and the memory, the scale of the first guess and the order of the pairs stay what they were.
    """
    lbfgs = optax.scale_by_lbfgs(memory)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        s = optax.tree.sub(params, state.params)
        y = optax.tree.sub(updates, state.updates)
        skip = (state.count > 0) & (jnp.asarray(optax.tree.vdot(s, y)) <= 0)
        last = (state.count - 2) % memory  # where the step before this one left its pair
        first = state.count - skip <= 0  # no pair is stored: Optax masks the one it sees, but divides by its s.y

        def before(new: jax.Array, old: jax.Array, pairs: jax.Array) -> jax.Array:
            return jnp.where(first, new - 1, jnp.where(skip, new - pairs[last], old))

        state = state._replace(
            count=state.count - skip,
            params=jax.tree.map(before, params, state.params, state.diff_params_memory),
            updates=jax.tree.map(before, updates, state.updates, state.diff_updates_memory),
        )
        direction, state = lbfgs.update(updates, state, params)
        # Optax holds the length of the first step constant when it is differentiated; the same length, differentiable:
        squared = jnp.asarray(optax.tree.vdot(updates, updates))
        length = jnp.where(squared > 1, jax.lax.rsqrt(jnp.where(squared > 1, squared, 1.0)), 1.0)
        return jax.tree.map(lambda d, g: jnp.where(first, length * g, d), direction, updates), state

    return optax.GradientTransformation(lbfgs.init, update)

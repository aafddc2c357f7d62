"""The optimization loop: `jax.lax.scan` over steps of lbfgs, adam or Optax, with one gradient evaluation per step.

`run` is pure and compiled once for each config and number of steps; on a CPU, two runs of k steps equal one of 2 k bit
for bit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxstyle.compiled import compiled
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.images.resample import array_module
from jaxstyle.losses.objective import Targets, Terms, check_picture, gradient_factors, objective_value, term_names
from jaxstyle.networks.conv import prepared
from jaxstyle.networks.vgg import Params
from jaxstyle.optim import lbfgs
from jaxstyle.optim.early_stopping import Stall, Watch, init_halting, levelled_off, stalled
from jaxstyle.optim.optimizers import LEARNING_RATES, transformation
from jaxstyle.optim.parametrizations import (
    HOST_ENCODERS,
    OF_LEVELS,
    Parameters,
    decode,
    decode_on_host,
    encode,
    parametrization,
)

Trace = Terms  # history: terms, "total" and "bounds", each [steps]
Step = Callable[[Any, None], tuple[Any, jax.Array]]


class Average(NamedTuple):
    """Exponential moving average of iterates, and its number of steps."""

    parameters: Parameters
    steps: jax.Array


class State(NamedTuple):
    """State of the loop: parameters, optimizer state, average of iterates, and early stopping."""

    parameters: Parameters
    optimizer: Any
    average: Average | None = None
    watch: Watch | None = None
    stall: Stall | None = None
    terms: jax.Array | None = None  # lbfgs only: terms of the best iterate, [T] in the order of `term_names`

    @property
    def image(self) -> jax.Array:
        """The image `[H, W, 3]` (or `[N, H, W, 3]` for a batch), clipped to [0, 1]; with averaging, the average."""
        return jnp.clip(decode(self.average.parameters if self.average else self.parameters), 0.0, 1.0)

    @property
    def stopped(self) -> jax.Array:
        """Step, from 1, at which early stopping ended the run, 0 for none; `[N]` for a batch.

        Later steps do not change the image.
        """
        first: Any
        first, *others = [each.stopped for each in (self.watch, self.stall) if each] or [np.zeros((), np.int32)]
        for other in others:
            first = array_module(first, other).where((first > 0) & ((other == 0) | (first < other)), first, other)
        return first

    @property
    def done(self) -> jax.Array:
        """Whether the run has stopped early; `[N]` for a batch."""
        return self.stopped > 0


def init(image: jax.Array, *, config: Config) -> State:
    """Return the initial state of `run` for an initial image.

    Args:
        image: `[H, W, 3]`, or `[N, H, W, 3]` for a batch of independent images, in [0, 1].
        config: optimizer, parametrization, averaging and early stopping are used.

    Returns:
        The state; with a leading axis on every array for a batch.

    Raises:
        InputError: if `image` is not an image.

    Example:
        >>> init(jnp.zeros((32, 32, 3)), config=Config()).image.shape
        (32, 32, 3)
    """
    image = check_picture("initial image", image)
    if not _on_host(config):
        return _init(image, config=config)
    if image.ndim == 4:
        return jax.tree.map(lambda *each: array_module(*each).stack(each), *(init(one, config=config) for one in image))
    return _state(image, config=config)


def image_on_host(state: State) -> np.ndarray:
    """Return the image of a state as a NumPy array; for pixels and pyramids without compilation.

    Args:
        state: of `init` or `run`, not traced.

    Returns:
        `[H, W, 3]`, or `[N, H, W, 3]` for a batch, in [0, 1].

    Example:
        >>> image_on_host(init(np.zeros((32, 32, 3), np.float32), config=Config())).shape
        (32, 32, 3)
    """
    return decode_on_host(state.average.parameters if state.average else state.parameters)


def _on_host(config: Config) -> bool:
    """Return whether NumPy can create the state, without compilation."""
    return config.optimizer == "lbfgs" and parametrization(config).encode in HOST_ENCODERS


@compiled("config")
def _init(image: jax.Array, *, config: Config) -> State:
    """Return the state, computed by one program."""
    make = partial(_state, config=config)
    return jax.vmap(make)(image) if image.ndim == 4 else make(image)


def _state(image: jax.Array, *, config: Config) -> State:
    parameters: Any = encode(image, config=config)
    none: Any = np.zeros((), np.int32)
    # A copy, since a state can be donated, and each array only once.
    average = Average(jax.tree.map(lambda leaf: leaf.copy(), parameters), none) if config.averaging else None
    halting = init_halting(config, dtype=image.dtype)
    if config.optimizer == "lbfgs":
        memory: Any = lbfgs.init(parameters.values, history_size=config.pairs(image.shape[-3] * image.shape[-2]))
        unknown: Any = np.full(len(term_names(config)), np.nan, image.dtype)
        return State(parameters, memory, average, *halting, unknown)
    state = State(parameters, transformation(config).init(parameters), average, *halting)
    # Optax returns some weak types, which the first step would make strong: `run` would be compiled twice.
    arrays = jax.tree.map(jnp.asarray, state)
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), arrays)


@compiled("config", "steps", "segments")
def run(
    state: State,
    params: Params,
    targets: Targets,
    weights: LossWeights,
    *,
    config: Config,
    steps: int,
    segments: int | None = None,
) -> tuple[State, Trace]:
    """Run `steps` optimization steps; pure, and compiled once.

    There is no line search: the first step of lbfgs has at most length 1 over all parameters, and each later one is the
    full quasi-Newton step, or a quarter of the previous one if that raised the value and was undone. So each step costs
    one gradient evaluation, for every image of a batch.

    Args:
        state: of `init`, or of an earlier `run`.
        params: the network.
        targets: of `make_targets`; the targets of one content may serve a batch of images.
        weights: the weights of the loss; for a batch, a weight may be `[N]`.
        config: the config of state and targets.
        steps: number of gradient evaluations.
        segments: number of checkpoint segments for differentiation through the steps; None to store the activations of
            every step. Only the state at the start of each segment is stored, and the steps of a segment are
            recomputed: about the time of one more run, in the memory of `segments` states and of the activations of
            `steps / segments` steps. A state of adam is much smaller than the activations of a step, so
            `segments=steps` uses the least memory.

    Returns:
        The state after the last step, and the history of terms, `[steps]` each (`[N, steps]` for a batch): those of
        the image before each step, or for lbfgs of the best image evaluated so far. "total" is the objective, "bounds"
        the range penalty.

    Raises:
        InputError: if `steps` is below 1 or `segments` above it, or if weights and config differ in layers or terms.

    Example:
        >>> state, trace = run(state, params, targets, weights, config=config, steps=100)  # doctest: +SKIP

    Reference:
        Griewank, *Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
        differentiation*, 1992; here with a single level of checkpoints.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}: use at least 1.")
    if segments is not None and not 1 <= segments <= steps:
        raise InputError(f"segments is {segments} for {steps} steps: use 1 to {steps}, or None.")
    if state.parameters.batched:
        lane = partial(run, config=config, steps=steps, segments=segments)
        own = jax.tree.map(lambda weight: 0 if jnp.ndim(weight) else None, weights)
        return jax.vmap(lane, in_axes=(0, None, _batched(targets), own))(state, params, targets, weights)

    step = _step(params, targets, weights, config=config)
    # XLA inlines a loop that runs once, which changes its rounding.
    with set_xla_metadata(**{"skip-simplify-while-loops_trip-count-one": "true"}):
        if segments is None:
            state, history = jax.lax.scan(step, state, length=steps)
        else:
            state, history = _in_segments(step, state, steps=steps, segments=segments)
    return state, named(history, config=config)


def named(history: Any, *, config: Config) -> Trace:
    """Return the columns of a history by name.

    Args:
        history: `[..., T]`, one column for each of `term_names`.
        config: layers and extra terms are used.

    Returns:
        `[...]` by name.

    Example:
        >>> named(np.zeros((5, 4)), config=Config(style_layers=()))["tv"].shape
        (5,)
    """
    return {name: history[..., i] for i, name in enumerate(term_names(config))}


@compiled("config", "most_steps", donated=("state",))
def run_segment(
    state: State,
    params: Params,
    targets: Targets,
    weights: LossWeights,
    steps: jax.typing.ArrayLike,
    *,
    config: Config,
    most_steps: int,
) -> tuple[State, jax.Array]:
    """Run `steps` steps, a traced number, so that one program serves any number of steps; `state` is donated.

    Args:
        state: of `init`, or of an earlier call; its arrays are invalid afterwards.
        params: the network.
        targets: of `make_targets`.
        weights: the weights of the loss; for a batch, a weight may be `[N]`.
        steps: number of gradient evaluations, from 0 to `most_steps`.
        config: the static options.
        most_steps: length of the returned history.

    Returns:
        The state after the last step, and the history `[most_steps, T]` (`[N, most_steps, T]`) for `named`, zero
        beyond `steps`.

    Example:
        >>> run_segment(state, params, targets, weights, 3, config=config, most_steps=9)  # doctest: +SKIP
    """
    if state.parameters.batched:
        lane = partial(run_segment, config=config, most_steps=most_steps)
        own = jax.tree.map(lambda weight: 0 if jnp.ndim(weight) else None, weights)
        return jax.vmap(lane, in_axes=(0, None, _batched(targets), own, None))(state, params, targets, weights, steps)
    step = _step(params, targets, weights, config=config)
    history = jnp.zeros((most_steps, len(term_names(config))), _dtype(state))

    def body(i: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, history = carry
        state, row = step(state, None)
        return state, history.at[i].set(row)

    return jax.lax.fori_loop(0, jnp.asarray(steps, jnp.int32), body, (state, history))


def _dtype(state: State) -> Any:
    return jnp.result_type(*jax.tree.leaves(state.parameters))


def _step(params: Params, targets: Targets, weights: LossWeights, *, config: Config) -> Step:
    """Return the step function, from state to new state and terms."""
    if config.network is None and config.precision == "bfloat16":
        params = prepared(params, precision=config.precision, conv=config.conv)  # once, outside the loop

    def loss(parameters: Parameters, factors: Terms | None) -> tuple[jax.Array, Trace]:
        return objective_value(params, decode(parameters), targets, weights, config=config, factors=factors)

    def evaluated(parameters: Parameters) -> tuple[jax.Array, Trace, Parameters, Terms | None]:
        factors: Terms | None = None
        if config.normalize_gradients:
            factors = gradient_factors(params, decode(parameters), targets, config=config)
        (value, trace), gradient = jax.value_and_grad(loss, has_aux=True)(parameters, factors)
        return value, trace, gradient, factors

    def watched(state: State, trace: Trace) -> tuple[Watch | None, Stall | None]:
        watch, stall = state.watch, state.stall
        if watch is not None:
            watch = levelled_off(watch, trace["total"], tolerance=config.tolerance)
        if stall is not None:
            stall = stalled(stall, trace["total"] + weights.bounds * trace["bounds"], patience=config.patience)
        return watch, stall

    def row(state: State, trace: Trace) -> jax.Array:
        return jnp.stack([trace[name] for name in term_names(config)]).astype(_dtype(state))

    def lbfgs_step(state: State, _: None) -> tuple[State, jax.Array]:
        rate = LEARNING_RATES["lbfgs"] if config.learning_rate is None else config.learning_rate
        best, memory, guarded = state.parameters, state.optimizer, not config.normalize_gradients
        tried = best.replace(lbfgs.trial(best.values, memory, learning_rate=rate))
        value, trace, gradient = evaluated(tried)[:3]
        improved = lbfgs.improves(value, memory, guarded=guarded)
        before: Any = state.terms
        found = jnp.where(improved, row(state, trace), before)
        watch, stall = watched(state, named(found, config=config))
        after = state._replace(watch=watch, stall=stall)
        point, memory, accepted = lbfgs.update(
            best.values,
            tried.values,
            value,
            gradient.values,
            memory,
            restart=False if stall is None else stall.restarting,
            frozen=False if watch is stall is None else after.done,
            guarded=guarded,
        )
        found = jnp.where(accepted, found, before)
        parameters = best.replace(point)
        average = _averaged(state.average, parameters, config.averaging)
        return after._replace(parameters=parameters, optimizer=memory, average=average, terms=found), found

    descent: Any = None if config.optimizer == "lbfgs" else transformation(config)

    def first_order_step(state: State, _: None) -> tuple[State, jax.Array]:
        before: Any = state.parameters
        value, trace, gradient, factors = evaluated(before)
        watch, stall = watched(state, trace)
        updates, memory = descent.update(
            gradient,
            state.optimizer,
            before,
            value=value,
            grad=gradient,
            value_fn=lambda parameters: loss(parameters, factors)[0],
        )
        parameters: Any = optax.apply_updates(before, updates)
        if config.optimizer == "adam" and parameters.decode in OF_LEVELS:
            parameters = _clip(parameters)
        after = State(parameters, memory, _averaged(state.average, parameters, config.averaging), watch, stall)
        if watch is not None or stall is not None:  # not the optimizer state, which would need twice its memory
            hold = partial(jax.tree.map, partial(jnp.where, after.done))
            after = after._replace(
                parameters=hold(state.parameters, after.parameters), average=hold(state.average, after.average)
            )
        return after, row(state, trace)

    return lbfgs_step if config.optimizer == "lbfgs" else first_order_step


def _in_segments(step: Step, state: State, *, steps: int, segments: int) -> tuple[State, jax.Array]:
    """Run `steps` steps in checkpoint segments; longer segments come first."""
    length, longer = divmod(steps, segments)
    traces = []
    for own, count in ((length + 1, longer), (length, segments - longer)):
        if count:
            segment = jax.checkpoint(partial(jax.lax.scan, step, length=own), prevent_cse=False)
            state, trace = jax.lax.scan(segment, state, length=count)
            traces.append(trace.reshape(-1, trace.shape[-1]))  # [count, own, T] -> [count * own, T]
    return state, jnp.concatenate(traces)


def _batched(targets: Targets) -> Targets:
    """Return the batch axes of `targets` for `jax.vmap`; arrays of the content may have one."""
    axes = targets._replace(style=None, content={k: 0 if v.ndim == 4 else None for k, v in targets.content.items()})
    half = None if targets.half is None else _batched(targets.half)
    picture = 0 if targets.picture is not None and targets.picture.ndim == 4 else None
    axes = axes._replace(half=half, picture=picture)
    regions = targets.regions
    if regions is None:
        return axes
    backdrop = 0 if regions.backdrop.ndim == 4 else None
    return axes._replace(regions=regions._replace(guides=None, shares=None, cover=None, backdrop=backdrop))


def _averaged(average: Average | None, parameters: Any, keep: float) -> Average | None:
    """Return the average of all iterates so far; the iterate k steps ago has the relative weight `keep ** k`."""
    if average is None:
        return None
    steps = average.steps + 1
    share = (1 - keep) / (1 - keep ** steps.astype(jnp.float32))
    before: Any = average.parameters
    mean: Any = optax.incremental_update(parameters, before, share)
    return Average(mean, steps)


def _clip(parameters: Parameters) -> Parameters:
    """Clip the image to [0, 1] by a change of the finest level only."""
    excess = (image := decode(parameters)) - jnp.clip(image, 0.0, 1.0)
    levels, structure = jax.tree.flatten(parameters)
    return jax.tree.unflatten(structure, [levels[0] - excess, *levels[1:]])

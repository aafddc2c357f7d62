"""The optimization loop: `jax.lax.scan` over steps of L-BFGS, Adam or Optax, with one gradient evaluation per step.

`run_steps` is pure and compiled once for each objective, network, optimizer and number of steps, whatever the weights
and the learning rate; on a CPU, two runs of k steps equal one of 2 k bit for bit.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxstyle.errors import InputError, check_whole
from jaxstyle.images.resample import array_module
from jaxstyle.losses.layer_summaries import AnyNetwork
from jaxstyle.losses.loss_terms import Terms, gradient_factors, objective_value
from jaxstyle.losses.objective import BatchTargets, CustomObjective, Objective
from jaxstyle.losses.targets import Targets, check_picture
from jaxstyle.networks.conv import prepared
from jaxstyle.networks.vgg import VGG19, Params
from jaxstyle.optim import lbfgs
from jaxstyle.optim.early_stopping import Stall, Watch, init_early_stopping, levelled_off, stalled
from jaxstyle.optim.optimizers import LBFGS, Optimizer, Parametrization, Transformation, as_optimizer, transformation
from jaxstyle.optim.parametrizations import (
    HOST_ENCODERS,
    Parameters,
    decode,
    decode_on_host,
    encode,
    named_parametrization,
)

AnyObjective = Objective | CustomObjective
History = Terms  # terms, "total" and "range_penalty", each [steps]
Step = Callable[[Any, None], tuple[Any, jax.Array]]


class Average(NamedTuple):
    """Exponential moving average of iterates, and its number of steps."""

    parameters: Parameters
    steps: jax.Array


class State(NamedTuple):
    """State of the loop: parameters, optimizer and its state, steps so far, average of iterates, early stopping."""

    parameters: Parameters
    optimizer: Optimizer
    memory: Any = None
    step: Any = None
    average: Average | None = None
    watch: Watch | None = None
    stall: Stall | None = None
    terms: jax.Array | None = None  # L-BFGS only: terms of the best iterate, [T] in the order of `term_names`

    @property
    def image(self) -> jax.Array:
        """The image `[H, W, 3]` (or `[N, H, W, 3]` for a batch), clipped to [0, 1]; with averaging, the average."""
        return jnp.clip(decode(self.average.parameters if self.average else self.parameters), 0.0, 1.0)

    @property
    def stopped(self) -> jax.Array:
        """Step, from 1, at which early stopping froze the image, 0 for none; `[N]` for a batch."""
        first: Any
        first, *others = [each.stopped for each in (self.watch, self.stall) if each] or [np.zeros((), np.int32)]
        for other in others:
            first = array_module(first, other).where((first > 0) & ((other == 0) | (first < other)), first, other)
        return first

    @property
    def done(self) -> jax.Array:
        """Whether the run has stopped early; `[N]` for a batch."""
        return self.stopped > 0


def init_state(
    image: jax.Array,
    *,
    objective: AnyObjective = Objective(),
    optimizer: Optimizer | Transformation = LBFGS(),
    circular: bool = False,
) -> State:
    """Return the initial state of `run_steps` for an initial image.

    Args:
        image: `[H, W, 3]`, or `[N, H, W, 3]` for a batch of independent images, in [0, 1].
        objective: the names of its terms are used.
        optimizer: L-BFGS, Adam or a gradient transformation of Optax; for a batch, a learning rate may be `[N]`.
        circular: whether the image is periodic.

    Returns:
        The state; with a leading axis on every array for a batch.

    Raises:
        InputError: if `image` is not an image, or a learning rate has another shape.

    Example:
        >>> init_state(jnp.zeros((32, 32, 3))).image.shape
        (32, 32, 3)
    """
    image = check_picture("initial image", image, in_range=True)
    chosen: Optimizer = with_dtype(as_optimizer(optimizer), image.dtype)
    chosen = jax.tree.map(lambda rate: rate.copy(), chosen)  # a state can be donated
    for rate in jax.tree.leaves(chosen):
        if rate.shape not in ((), image.shape[:-3]):
            raise InputError(
                f"The learning rate is {list(rate.shape)} for images {list(image.shape)}: pass one, or one per image."
            )
    parametrization = named_parametrization(chosen.parametrization, circular=circular)
    names, normalized = objective.term_names, _is_normalized(objective)
    options: dict[str, Any] = {"parametrization": parametrization, "names": names, "normalized": normalized}
    if not isinstance(chosen, LBFGS) or parametrization.encode not in HOST_ENCODERS:  # the others need no compilation
        return _init(image, chosen, **options)
    if image.ndim == 3:
        return _state(image, chosen, **options)

    def of_image(number: int) -> State:
        optimizer = jax.tree.map(lambda rate: rate[number] if rate.ndim else rate, chosen)
        return _state(image[number], optimizer, **options)

    return jax.tree.map(lambda *each: array_module(*each).stack(each), *map(of_image, range(len(image))))


def _is_normalized(objective: AnyObjective) -> bool:
    """Return whether an objective normalizes its gradients, so that each step minimizes a different function."""
    return isinstance(objective, Objective) and objective.normalize_gradients


def image_on_host(state: State) -> np.ndarray:
    """Return the image of a state that is not traced as a NumPy array; for pixels and pyramids without compilation."""
    return decode_on_host(state.average.parameters if state.average else state.parameters)


@partial(jax.jit, static_argnames=("parametrization", "names", "normalized"))
def _init(image: jax.Array, optimizer: Optimizer, **options: Any) -> State:
    make = partial(_state, **options)
    axes = jax.tree.map(lambda rate: 0 if rate.ndim else None, optimizer)
    return jax.vmap(make, in_axes=(0, axes))(image, optimizer) if image.ndim == 4 else make(image, optimizer)


def _state(
    image: jax.Array,
    optimizer: Optimizer,
    *,
    parametrization: Parametrization,
    names: tuple[str, ...],
    normalized: bool,
) -> State:
    parameters: Any = encode(image, parametrization, flat=isinstance(optimizer, LBFGS))
    none: Any = np.zeros((), np.int32)
    # A copy, since a state can be donated, and each array only once.
    average = Average(jax.tree.map(lambda leaf: leaf.copy(), parameters), none) if optimizer.ema_decay else None
    early_stopping = init_early_stopping(optimizer, normalized_gradients=normalized, dtype=image.dtype)
    if isinstance(optimizer, LBFGS):
        memory: Any = lbfgs.init(parameters.values, history_size=optimizer.pairs(image.shape[-3] * image.shape[-2]))
        unknown: Any = np.full(len(names), np.nan, image.dtype)
        return State(parameters, optimizer, memory, none, average, *early_stopping, unknown)
    memory = transformation(optimizer).init(parameters)
    state = State(parameters, optimizer, memory, none, average, *early_stopping)
    # Optax returns some weak types, which the first step would make strong: the steps would be compiled twice.
    arrays = jax.tree.map(jnp.asarray, state)
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), arrays)


def run_steps(
    state: State,
    params: Params,
    targets: Any,
    objective: AnyObjective = Objective(),
    *,
    network: AnyNetwork = VGG19(),
    steps: int,
    checkpoint_segments: int | None = None,
) -> tuple[State, History]:
    """Run `steps` optimization steps; pure, and compiled once.

    There is no line search: the first step of L-BFGS has at most length 1 over all parameters, and each later one is
    the full quasi-Newton step, or a quarter of the previous one if that raised the value and was undone. So each step
    costs one gradient evaluation, for every image of a batch.

    Args:
        state: of `init_state`, or of an earlier call.
        params: of the network.
        targets: of `make_targets`; the targets of one content may serve a batch of images.
        objective: the objective of state and targets; for a batch, a weight may be `[N]`.
        network: the network of the targets.
        steps: number of gradient evaluations.
        checkpoint_segments: number of checkpoint segments for differentiation through the steps; None to store the
            activations of every step. Only the state at the start of each segment is stored, and the steps of a segment
            are recomputed: about the time of one more run, in the memory of `checkpoint_segments` states and of the
            activations of `steps / checkpoint_segments` steps. A state of Adam is much smaller than the activations of
            a step, so `checkpoint_segments=steps` uses the least memory.

    Returns:
        The state after the last step, and the history of terms, `[steps]` each (`[N, steps]` for a batch): those of the
        image before each step, or for L-BFGS of the best image evaluated so far. "total" is the weighted sum of terms,
        "range_penalty" the unweighted penalty.

    Raises:
        InputError: if `steps` is below 1 or `checkpoint_segments` above it, or if objective and targets differ in
            layers or terms.

    Example:
        >>> state, history = run_steps(state, params, targets, objective, steps=100)  # doctest: +SKIP

    Reference:
        Griewank, *Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
        differentiation*, 1992; here with a single level of checkpoints.
    """
    check_whole("steps", steps)
    segments = checkpoint_segments
    if segments is not None:
        check_whole("checkpoint_segments", segments, most=steps)
    if isinstance(objective, Objective):
        objective = with_dtype(objective, _dtype(state))
    return _run_steps(state, params, targets, objective, network=network, steps=steps, segments=segments)


def with_dtype(numbers: Any, dtype: jax.typing.DTypeLike) -> Any:
    """Return a pytree of numbers as arrays of one dtype, so that 1 and 1.0 use the same program."""
    return jax.tree.map(lambda x: x.astype(dtype) if isinstance(x, jax.Array) else np.asarray(x, dtype), numbers)


@partial(jax.jit, static_argnames=("network", "steps", "segments"))
def _run_steps(
    state: State,
    params: Params,
    targets: Any,
    objective: AnyObjective,
    *,
    network: AnyNetwork,
    steps: int,
    segments: int | None,
) -> tuple[State, History]:
    if state.parameters.batched:
        one = partial(_run_steps, network=network, steps=steps, segments=segments)
        return _over_batch(one, state, params, targets, objective)
    step = _step(params, targets, objective, state.optimizer, network=network)
    # XLA inlines a loop that runs once, which changes its rounding.
    with set_xla_metadata(**{"skip-simplify-while-loops_trip-count-one": "true"}):
        run = jax.lax.scan if segments is None else partial(_in_segments, segments=segments)
        state, rows = run(step, state, length=steps)
    return state, named(rows, objective)


def named(rows: Any, objective: AnyObjective) -> History:
    """Return the columns of a history `[..., T]` by the names of terms."""
    return {name: rows[..., i] for i, name in enumerate(objective.term_names)}


def _run_segment(
    state: State,
    params: Params,
    targets: Any,
    objective: AnyObjective,
    steps: jax.typing.ArrayLike,
    *,
    network: AnyNetwork,
    most_steps: int,
) -> tuple[State, jax.Array]:
    """Run `steps` steps, a traced number up to `most_steps`, so that one program serves any number of them."""
    if state.parameters.batched:
        one = partial(_run_segment, network=network, most_steps=most_steps)
        return _over_batch(one, state, params, targets, objective, steps)
    step = _step(params, targets, objective, state.optimizer, network=network)
    # The history for `named`, zero beyond `steps`.
    rows = jnp.zeros((most_steps, len(objective.term_names)), _dtype(state))

    def body(i: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, rows = carry
        state, row = step(state, None)
        return state, rows.at[i].set(row)

    return jax.lax.fori_loop(0, jnp.asarray(steps, jnp.int32), body, (state, rows))


run_segment = jax.jit(_run_segment, static_argnames=("network", "most_steps"), donate_argnames=("state",))


def _dtype(state: State) -> Any:
    return jnp.result_type(*jax.tree.leaves(state.parameters))


def _step(params: Params, targets: Any, objective: AnyObjective, optimizer: Optimizer, *, network: AnyNetwork) -> Step:
    if isinstance(network, VGG19) and network.precision == "bfloat16":
        params = prepared(params, precision=network.precision, conv=network.conv)  # once, outside the loop
    normalized = _is_normalized(objective)

    def loss(parameters: Parameters, factors: Terms | None, step: jax.Array) -> tuple[jax.Array, Terms]:
        image, options = decode(parameters), {"network": network, "factors": factors, "step": step}
        return objective_value(params, image, targets, objective, **options)

    def evaluated(parameters: Parameters, step: jax.Array) -> tuple[jax.Array, Terms, Parameters, Terms | None]:
        factors: Terms | None = None
        if normalized and isinstance(objective, Objective):
            factors = gradient_factors(params, decode(parameters), targets, objective=objective, network=network)
        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(parameters, factors, step)
        return value, metrics, gradient, factors

    def early_stopping(state: State, total: jax.Array, value: jax.Array) -> tuple[Watch | None, Stall | None]:
        watch, stall = state.watch, state.stall
        if watch is not None:
            watch = levelled_off(watch, total, tolerance=optimizer.tolerance)
        if stall is not None and isinstance(optimizer, LBFGS):
            stall = stalled(stall, value, patience=optimizer.patience)
        return watch, stall

    def row(state: State, metrics: Terms) -> jax.Array:
        return jnp.stack([metrics[name] for name in objective.term_names]).astype(_dtype(state))

    def lbfgs_step(state: State, _: None) -> tuple[State, jax.Array]:
        best, memory, guarded = state.parameters, state.memory, not normalized
        rate: Any = optimizer.learning_rate if isinstance(optimizer, LBFGS) else None
        tried = replace(best, values=lbfgs.trial(best.values, memory, learning_rate=rate))
        value, metrics, gradient = evaluated(tried, state.step)[:3]
        improved = lbfgs.improves(value, memory, guarded=guarded)
        before: Any = state.terms
        reported = jnp.where(improved, row(state, metrics), before)
        lowest = jnp.where(improved, value, memory.value)
        watch, stall = early_stopping(state, named(reported, objective)["total"], lowest)
        after = state._replace(step=state.step + 1, watch=watch, stall=stall)
        restart = False if stall is None else stall.restarted == stall.steps  # at this step
        frozen = False if watch is stall is None else after.done
        options: Any = {"restart": restart, "frozen": frozen, "guarded": guarded}
        evaluation = (tried.values, value, gradient.values)
        point, memory, accepted = lbfgs.update(best.values, *evaluation, memory, **options)
        reported = jnp.where(accepted, reported, before)
        parameters = replace(best, values=point)
        average = _averaged(state.average, parameters, optimizer.ema_decay)
        if watch is not None or stall is not None:
            average = jax.tree.map(partial(jnp.where, after.done), state.average, average)
        return after._replace(parameters=parameters, memory=memory, average=average, terms=reported), reported

    if isinstance(optimizer, LBFGS):
        return lbfgs_step
    descent: Any = transformation(optimizer)

    def first_order_step(state: State, _: None) -> tuple[State, jax.Array]:
        before: Any = state.parameters
        value, metrics, gradient, factors = evaluated(before, state.step)
        watch, stall = early_stopping(state, metrics["total"], value)
        line: Any = {"value": value, "grad": gradient, "value_fn": lambda x: loss(x, factors, state.step)[0]}
        updates, memory = descent.update(gradient, state.memory, before, **line)
        parameters: Any = optax.apply_updates(before, updates)
        if optimizer.clip and parameters.has_levels:
            parameters = _clip(parameters)
        average = _averaged(state.average, parameters, optimizer.ema_decay)
        after = State(parameters, state.optimizer, memory, state.step + 1, average, watch, stall)
        if watch is not None or stall is not None:  # not the optimizer state, which would need twice its memory
            hold = partial(jax.tree.map, partial(jnp.where, after.done))
            average = hold(state.average, after.average)
            after = after._replace(parameters=hold(state.parameters, after.parameters), average=average)
        return after, row(state, metrics)

    return first_order_step


def _in_segments(step: Step, state: State, *, length: int, segments: int) -> tuple[State, jax.Array]:
    """Return `jax.lax.scan` in checkpoint segments; longer segments come first."""
    shorter, remainder = divmod(length, segments)
    rows = []
    for steps, count in ((shorter + 1, remainder), (shorter, segments - remainder)):
        if count:
            segment = jax.checkpoint(partial(jax.lax.scan, step, length=steps), prevent_cse=False)
            state, of_segments = jax.lax.scan(segment, state, length=count)
            rows.append(of_segments.reshape(-1, of_segments.shape[-1]))  # [count, steps, T] -> [count * steps, T]
    return state, jnp.concatenate(rows)


def _over_batch(run: Callable[..., Any], state: State, params: Params, targets: Any, objective: Any, *others) -> Any:
    """Return the results of `run` for each image of a batch; a weight of the objective may be `[N]`."""
    weights = jax.tree.map(lambda weight: 0 if jnp.ndim(weight) else None, objective)
    axes = (0, None, _of_targets(targets), weights, *[None] * len(others))
    return jax.vmap(run, in_axes=axes)(state, params, targets, objective, *others)


def _of_targets(targets: Any) -> Any:
    """Return the batch axes of `targets`; only arrays of the content may have one."""
    if not isinstance(targets, Targets):  # of a custom objective
        return 0 if isinstance(targets, BatchTargets) else None

    def axis(array: Any) -> int | None:
        return 0 if array is not None and array.ndim == 4 else None

    regions = targets.regions
    if regions is not None:
        regions = regions._replace(guides=None, shares=None, cover=None, backdrop=axis(regions.backdrop))
    content = {layer: axis(features) for layer, features in targets.content.items()}
    half, picture = _of_targets(targets.half), axis(targets.picture)
    return targets._replace(style=None, content=content, half=half, picture=picture, regions=regions)


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

"""The loop: Optax in `jax.lax.scan`, one gradient evaluation a step, lbfgs and adam in the same body.

`run` is pure and compiled once for each config and number of steps; on a CPU, two runs of k steps equal one of 2 k bit
for bit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxstyle import losses
from jaxstyle.compiled import compiled
from jaxstyle.config import Config, LossWeights
from jaxstyle.conv import prepared
from jaxstyle.descent import forget_pairs, transformation
from jaxstyle.errors import InputError
from jaxstyle.halting import Stall, Watch, init_halting, levelled_off, stalled
from jaxstyle.objective import Targets, Terms, check_picture, gradient_factors, painted, terms, total
from jaxstyle.parametrizations import OF_LEVELS
from jaxstyle.parametrize import Parameters, decode, encode
from jaxstyle.vgg import Params

Trace = Terms  # terms, "total" and "bounds", stacked over the steps: each is [steps]
Step = Callable[[Any, None], tuple[Any, Trace]]


class Average(NamedTuple):
    """The mean over iterates, recent ones counting more: the parameters, and over how many steps."""

    parameters: Parameters
    steps: jax.Array


class State(NamedTuple):
    """Everything that a step changes: what the image is written as, the optimiser's memory, the mean, how it goes."""

    parameters: Parameters
    optimizer: Any
    average: Average | None = None
    watch: Watch | None = None
    stall: Stall | None = None

    @property
    def image(self) -> jax.Array:
        """The image `[H, W, 3]` (or `[N, H, W, 3]` for a batch), clipped to [0, 1]; with averaging, the mean."""
        return jnp.clip(decode(self.average.parameters if self.average else self.parameters), 0.0, 1.0)

    @property
    def stopped(self) -> jax.Array:
        """The step, counted from 1, from which on nothing changes any more, 0 for none; `[N]` for a batch.

        The total had levelled off then, or lbfgs got nowhere.
        """
        first, *others = [each.stopped for each in (self.watch, self.stall) if each] or [jnp.zeros((), jnp.int32)]
        for other in others:
            first = jnp.where((first > 0) & ((other == 0) | (first < other)), first, other)
        return first

    @property
    def done(self) -> jax.Array:
        """Whether nothing changes any more; `[N]` for a batch."""
        return self.stopped > 0


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
    parameters: Any = encode(image, config=config)
    average = Average(parameters, jnp.zeros((), jnp.int32)) if config.averaging else None
    halting = init_halting(config, dtype=image.dtype)
    state = State(parameters, transformation(config).init(parameters), average, *halting)
    # Optax leaves weak types here and there, which the first step would make strong: that would compile `run` twice.
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
    """Take `steps` steps of gradient descent on the image; pure, and compiled once.

    No line search: the first step of lbfgs has at most length 1 over all parameters, and each later one is the full
    quasi-Newton step. So a step costs one gradient evaluation, in every lane of a batch alike.

    Args:
        state: of `init`, or of an earlier `run`.
        params: the network.
        targets: of `make_targets`; those of one content serve a whole batch of images.
        weights: the coefficients of the loss; in a batch a coefficient may be `[N]`, one for each lane.
        config: the static facts that state and targets were made with.
        steps: how many gradient evaluations.
        segments: into how many the steps are cut for a gradient through them; None to keep every step's activations.
            Kept is then only where each segment begins, and what lies in it is computed again: about one more run's
            time, in the memory of `segments` states and of the activations of `steps / segments` steps. A state of
            adam is so much smaller than a step's activations that `segments=steps` takes the least.

    Returns:
        The state after the last step, and every term of every step, `[steps]` each (`[N, steps]` for a batch), as it
        was before that step; "total" is the objective, "bounds" the penalty on what lies out of range.

    Raises:
        InputError: if `steps` is below 1 or `segments` above it, or if weights and config differ in layers or terms.

    Example:
        >>> state, trace = run(state, params, targets, weights, config=config, steps=100)  # doctest: +SKIP

    Reference:
        Griewank, *Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
        differentiation*, 1992; of its schedules this is the one with a single level.
    """
    if steps < 1:
        raise InputError(f"A run of {steps} steps does nothing: take at least 1.")
    if segments is not None and not 1 <= segments <= steps:
        raise InputError(f"{steps} steps cannot be cut into {segments} segments: take 1 to {steps}, or None.")
    if state.parameters.batched:
        lane = partial(run, config=config, steps=steps, segments=segments)
        own = jax.tree.map(lambda weight: 0 if jnp.ndim(weight) else None, weights)
        return jax.vmap(lane, in_axes=(0, None, _batched(targets), own))(state, params, targets, weights)

    if config.network is None:
        params = prepared(params, precision=config.precision, conv=config.conv)  # once, outside of the loop

    def loss(parameters: Parameters, factors: Terms | None) -> tuple[jax.Array, Trace]:
        image = decode(parameters)
        parts = terms(params, image, targets, config=config)
        objective = total(weights, parts)
        minimized = objective if factors is None else total(weights, jax.tree.map(jnp.multiply, parts, factors))
        bounds = losses.out_of_range(
            config.pixel_range * painted(image, targets), reduction=config.pixel_reduction, upper=config.pixel_range
        )
        return minimized + weights.bounds * bounds, {**parts, "total": objective, "bounds": bounds}

    descent = transformation(config)

    def step(state: State, _: None) -> tuple[State, Trace]:
        factors = None
        if config.normalize_gradients:
            factors = gradient_factors(params, decode(state.parameters), targets, config=config)
        before: Any = state.parameters
        (value, trace), gradient = jax.value_and_grad(loss, has_aux=True)(before, factors)
        memory, watch, stall = state.optimizer, state.watch, state.stall
        if watch is not None:
            watch = levelled_off(watch, trace["total"], tolerance=config.tolerance)
        if stall is not None:
            stall = stalled(stall, trace["total"] + weights.bounds * trace["bounds"], patience=config.patience)
            memory = forget_pairs(memory, when=stall.restarting)
        updates, memory = descent.update(
            gradient,
            memory,
            before,
            value=value,
            grad=gradient,
            value_fn=lambda parameters: loss(parameters, factors)[0],
        )
        parameters: Any = optax.apply_updates(before, updates)
        if config.optimizer == "adam" and parameters.decode in OF_LEVELS:
            parameters = _clip(parameters)
        after = State(parameters, memory, _averaged(state.average, parameters, config.averaging), watch, stall)
        if watch is not None or stall is not None:  # not the optimiser's memory, which would be held twice
            hold = partial(jax.tree.map, partial(jnp.where, after.done))
            after = after._replace(
                parameters=hold(state.parameters, after.parameters), average=hold(state.average, after.average)
            )
        return after, trace

    # XLA inlines a loop that runs once, and then rounds it otherwise than a longer one.
    with set_xla_metadata(**{"skip-simplify-while-loops_trip-count-one": "true"}):
        if segments is None:
            return jax.lax.scan(step, state, length=steps)
        return _in_segments(step, state, steps=steps, segments=segments)


run_in_place = compiled("config", "steps", "segments", donated=("state",))(run)
"""As `run`, in the memory of `state`, which cannot be used any more: lbfgs holds twice its memory in images.

A state of `init` may lie in the memory of the image that it was made from: copy it first, where that is still needed.
"""


def _in_segments(step: Step, state: State, *, steps: int, segments: int) -> tuple[State, Trace]:
    """Take `steps` steps, of which a gradient finds kept where each segment begins; the longer ones come first."""
    length, longer = divmod(steps, segments)
    traces = []
    for own, count in ((length + 1, longer), (length, segments - longer)):
        if count:
            segment = jax.checkpoint(partial(jax.lax.scan, step, length=own), prevent_cse=False)
            state, trace = jax.lax.scan(segment, state, length=count)
            traces.append(jax.tree.map(jnp.ravel, trace))  # [count, own] -> [count * own]
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), *traces)


def _batched(targets: Targets) -> Targets:
    """Return which axis of `targets` a batch runs along: what comes from the content may have one."""
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
    """Return the mean of all iterates so far, in which one k steps ago counts `keep ** k` times as much as the last."""
    if average is None:
        return None
    steps = average.steps + 1
    share = (1 - keep) / (1 - keep ** steps.astype(jnp.float32))
    before: Any = average.parameters
    mean: Any = optax.incremental_update(parameters, before, share)
    return Average(mean, steps)


def _clip(parameters: Parameters) -> Parameters:
    """Bring the image into [0, 1] by changing the finest level only."""
    excess = (image := decode(parameters)) - jnp.clip(image, 0.0, 1.0)
    levels, structure = jax.tree.flatten(parameters)
    return jax.tree.unflatten(structure, [levels[0] - excess, *levels[1:]])

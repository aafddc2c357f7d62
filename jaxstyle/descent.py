"""Which way a step goes: Optax's adam and lbfgs, mended where the method needs more than they give.

Neither searches along a line. Both can be differentiated, and stay finite where a gradient or a curvature is zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxstyle.config import Config

LEARNING_RATES = {"lbfgs": 1.0, "adam": 0.02}


def transformation(config: Config) -> optax.GradientTransformationExtraArgs:
    """Return adam or lbfgs as `config` has it, or what it has in their place.

    Args:
        config: its optimiser, learning rate, memory, betas and epsilon count.

    Returns:
        Optax's transformation of gradients into updates; it may be told more than one's own takes.

    Example:
        >>> transformation(Config(optimizer="adam")).init(jnp.zeros(3)).mu.tolist()
        [0.0, 0.0, 0.0]
    """
    if not isinstance(config.optimizer, str):
        own: Any = config.optimizer
        return optax.with_extra_args_support(own)
    rate = LEARNING_RATES[config.optimizer] if config.learning_rate is None else config.learning_rate
    if config.optimizer == "adam":
        return optax.with_extra_args_support(_adam(rate, *config.betas, config.epsilon))
    lbfgs = optax.chain(_skip_negative_curvature(config.memory), optax.scale_by_learning_rate(rate))
    return optax.with_extra_args_support(lbfgs)


def forget_pairs(state: Any, *, when: jax.Array) -> Any:
    """Return the state of lbfgs as if it began anew at the next update: without pairs, if `when` is true.

    Without a count and without the weights of the pairs nothing reads the others' arrays, so they stay where they are.

    Args:
        state: of `transformation(...)` for lbfgs.
        when: whether to, `[]`.

    Returns:
        The state.

    Example:
        >>> state = transformation(Config()).init(jnp.zeros(3))
        >>> forget_pairs(state, when=jnp.asarray(True))[0].count.tolist()
        0
    """
    lbfgs, *rest = state
    count, weights = (jnp.where(when, 0, kept) for kept in (lbfgs.count, lbfgs.weights_memory))
    return (lbfgs._replace(count=count, weights_memory=weights), *rest)


def _adam(rate: float, first: float, second: float, epsilon: float) -> optax.GradientTransformation:
    """Return Optax's adam, with its two corrections for short memory in one factor and in both epsilons.

    So written, no product and no quotient by a number is left that a compiler may round in two ways, depending on what
    else is made of it: a run is the same bit for bit whether its gradient is asked for or not, and so is the gradient,
    which hangs on such roundings, whatever of the run is kept for it or computed again.

    Kingma and Ba, *Adam: A Method for Stochastic Optimization*, arXiv:1412.6980, the end of section 2.
    """
    moments = optax.scale_by_adam(first, second)
    least = 1e-16  # under the root: without it the derivative at a gradient of zero is not finite

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count: Any = optax.safe_increment(state.count)
        mean = jax.tree.map(lambda g, kept: (1 - first) * g + first * kept, updates, state.mu)
        square = jax.tree.map(lambda g, kept: (1 - second) * jnp.square(g) + second * kept, updates, state.nu)

        def step(mean: jax.Array, square: jax.Array) -> jax.Array:
            steps = count.astype(mean.dtype)
            of_mean, of_square = 1 - first**steps, 1 - second**steps  # how much of each is there yet
            factor = rate * jnp.sqrt(of_square) / of_mean
            return -(factor * mean) / (jnp.sqrt(square + least * of_square) + epsilon * jnp.sqrt(of_square))

        return jax.tree.map(step, mean, square), state._replace(count=count, mu=mean, nu=square)

    return optax.GradientTransformation(moments.init, update)


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

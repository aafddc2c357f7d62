"""Which way a step goes: Optax's adam and lbfgs, mended where the method needs more than they give.

Neither searches along a line. Both can be differentiated, and stay finite where a gradient or a curvature is zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxstyle.config import Config
from jaxstyle.errors import InputError

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
    raise InputError("Optax's interface does not fit the guarded lbfgs: use jaxstyle.optim.lbfgs.")


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

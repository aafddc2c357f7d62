"""First-order optimizers: Adam and user-defined gradient transformations of Optax.

Adam is differentiable and stays finite where a gradient is zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxstyle.config import Config
from jaxstyle.errors import InputError

LEARNING_RATES = {"lbfgs": 1.0, "adam": 0.02}


def transformation(config: Config) -> optax.GradientTransformationExtraArgs:
    """Return the gradient transformation of `config`: adam or a user-defined one.

    Args:
        config: optimizer, learning rate, betas and epsilon are used.

    Returns:
        The gradient transformation; it accepts and ignores extra arguments.

    Raises:
        InputError: if the optimizer is lbfgs.

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
    raise InputError("lbfgs is not an Optax gradient transformation: use jaxstyle.optim.lbfgs.")


def _adam(rate: float, first: float, second: float, epsilon: float) -> optax.GradientTransformation:
    """Return Optax's adam, with both bias corrections moved into one factor and the epsilons.

    This form has no product or quotient that a compiler may round in different ways depending on its context. So a run
    is the same bit for bit with and without its gradient, and the gradient is the same for any checkpoint segments.

    Kingma and Ba, *Adam: A Method for Stochastic Optimization*, arXiv:1412.6980, the end of section 2.
    """
    moments = optax.scale_by_adam(first, second)
    least = 1e-16  # under the root, so that the derivative at a zero gradient is finite

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count: Any = optax.safe_increment(state.count)
        mean = jax.tree.map(lambda g, kept: (1 - first) * g + first * kept, updates, state.mu)
        square = jax.tree.map(lambda g, kept: (1 - second) * jnp.square(g) + second * kept, updates, state.nu)

        def step(mean: jax.Array, square: jax.Array) -> jax.Array:
            steps = count.astype(mean.dtype)
            of_mean, of_square = 1 - first**steps, 1 - second**steps  # bias corrections
            factor = rate * jnp.sqrt(of_square) / of_mean
            return -(factor * mean) / (jnp.sqrt(square + least * of_square) + epsilon * jnp.sqrt(of_square))

        return jax.tree.map(step, mean, square), state._replace(count=count, mu=mean, nu=square)

    return optax.GradientTransformation(moments.init, update)

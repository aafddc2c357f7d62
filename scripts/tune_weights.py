"""The style weight that removes a given share of the style distance, by Newton's method through the loop.

    python scripts/tune_weights.py examples/cat.jpg examples/strokes.jpg tuned.png --share 0.7

A run from the content with weight w for each style layer reduces the sum S of the style terms from S(content) to S(w):
share(w) = 1 - S(w) / S(content). The weight is a root of f(x) = logit(share(e^x)) - logit(target) in x = log w. f is
nearly linear, so Newton's method, x - f / f', converges in a few steps. f' is the derivative through all steps, by
forward mode, `jax.jvp`, which takes about the time of one more run and stores no residuals.

A step of adam is at most learning_rate / eps times the gradient; only with a large eps is the descent stable for small
gradients, and its derivative meaningful. As a safeguard, a bracket contains the root, and is bisected if Newton's step
leaves it or gains little.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from terminal import start
from tyro.conf import Positional

from jaxstyle import Adam, Objective, init_state, load_image, load_params, make_targets, run_steps, save_image, terms
from jaxstyle.errors import InputError
from jaxstyle.losses.targets import Targets
from jaxstyle.networks.vgg import Params

SIZE, STEPS, TRIES, TOLERANCE = 128, 60, 16, 0.01
LEAST, START, MOST = math.log(1e-3), math.log(0.3), math.log(1e3)
OBJECTIVE, OPTIMIZER = Objective(), Adam(learning_rate=0.05, eps=1e-3)


def response(params: Params, content: jax.Array, style: jax.Array) -> Callable:
    """Return log w -> (share, its derivative, the picture)."""
    targets = make_targets(params, content, style, objective=OBJECTIVE)
    state = init_state(content, objective=OBJECTIVE, optimizer=OPTIMIZER)

    @jax.jit
    def style_distance(params: Params, image: jax.Array, targets: Targets) -> jax.Array:
        each = terms(params, image, targets, objective=OBJECTIVE)
        return sum((each[f"style/{layer}"] for layer in OBJECTIVE.style), jnp.zeros(()))

    before = style_distance(params, content, targets)

    def share(log_weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        objective = replace(OBJECTIVE, style=dict.fromkeys(OBJECTIVE.style, jnp.exp(log_weight)))
        image = run_steps(state, params, targets, objective, steps=STEPS)[0].image
        return 1 - style_distance(params, image, targets) / before, image

    return lambda x: jax.jvp(share, (x,), (jnp.ones_like(x),), has_aux=True)


def tune(respond: Callable, asked: float) -> jax.Array:
    """Return the picture of a run that removes the share `asked` of the style distance; print each try."""
    low, at, high, before = LEAST, START, MOST, math.inf
    for number in range(1, TRIES + 1):
        share, slope, picture = respond(jnp.asarray(at))
        print(f"{number}: weight {math.exp(at):.4g}, share {share:.4f}, by log weight {slope:.4f}", flush=True)
        if abs(share - asked) < TOLERANCE:
            return picture
        inside = min(max(float(share), 1e-3), 1 - 1e-3)  # where a logit is finite
        error, rise = math.log(inside / (1 - inside) * (1 - asked) / asked), float(slope) / inside / (1 - inside)
        if at == MOST and error < 0:
            break
        low, high = (at, high) if error < 0 else (low, at)
        newton = min(at - error / rise, MOST) if rise > 0 and abs(error) < 0.75 * before else math.inf
        at, before = newton if low < newton < high or newton == high == MOST else (low + high) / 2, abs(error)
    raise InputError(f"A share of {asked:g} cannot be reached in {STEPS} steps: use a smaller share or more steps.")


def main(content: Positional[Path], style: Positional[Path], output: Positional[Path], *, share: float = 0.7) -> None:
    """Save the picture for which a share of the style distance is removed."""
    if not 0 < share < 1:
        raise InputError(f"--share is {share:g}: use a number between 0 and 1.")
    photograph, painting = (jnp.asarray(load_image(path, size=SIZE).rgb) for path in (content, style))
    save_image(output, tune(response(load_params("auto"), photograph, painting), share))


if __name__ == "__main__":
    start(main)

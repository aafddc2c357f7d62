"""The style weight at which a chosen share of the style distance is closed, found by its derivative through the loop.

    python scripts/tune_weights.py examples/cat.jpg examples/strokes.jpg tuned.png --share 0.7

A run from the content with weight w for each style layer leaves some sum S(w) of the style terms, of S(content) at
first: share(w) = 1 - S(w) / S(content). The weight asked for is a root of f(x) = logit(share(e^x)) - logit(asked) in
x = log w, in which f is nearly a line: Newton's x - f / f' soon meets it. f' goes through every step of the real loop.
There is one input, so `jax.jvp` carries the derivative forwards, at about the run's own cost and with nothing stored;
`jax.grad` would keep what each step has made, or make it twice.

Adam's step is at most learning_rate / epsilon times the gradient. With a large epsilon that is a stable descent, also
where gradients have become small; else pixels bounce there, and derivatives through many bounces mean nothing. Should
they do so anyway: a bracket is kept around the root, and halved where Newton's step leads outside or gained little.
"""

import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from terminal import start
from tyro.conf import Positional

from jaxstyle import Config, LossWeights, init, load_image, load_params, make_targets, run, save_image, terms
from jaxstyle.errors import InputError
from jaxstyle.networks.vgg import Params

SIZE, STEPS, TRIES, TOLERANCE = 128, 60, 16, 0.01
LEAST, START, MOST = math.log(1e-3), math.log(0.3), math.log(1e3)
CONFIG = Config(optimizer="adam", learning_rate=0.05, epsilon=1e-3)


def response(params: Params, content: jax.Array, style: jax.Array) -> Callable:
    """Return log w -> (share, its derivative, the picture)."""
    targets = make_targets(params, content, style, config=CONFIG)
    style_of = jax.jit(lambda *given: sum(v for k, v in terms(*given, config=CONFIG).items() if k.startswith("style/")))
    untouched = style_of(params, content, targets)

    def share(log_weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        weights = LossWeights(style=dict.fromkeys(CONFIG.style_layers, jnp.exp(log_weight)))
        state, _ = run(init(content, config=CONFIG), params, targets, weights, config=CONFIG, steps=STEPS)
        return 1 - style_of(params, state.image, targets) / untouched, state.image

    return lambda x: jax.jvp(share, (x,), (jnp.ones_like(x),), has_aux=True)


def tune(respond: Callable, asked: float) -> jax.Array:
    """Return the picture of a run that closes the share `asked`; print each try."""
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
    raise InputError(f"A share of {asked:g} is out of reach of {STEPS} steps: ask for another or take more steps.")


def main(content: Positional[Path], style: Positional[Path], output: Positional[Path], *, share: float = 0.7) -> None:
    """Save the picture for which a share of the style distance is closed."""
    if not 0 < share < 1:
        raise InputError(f"--share is {share:g}: ask for one between 0 and 1.")
    photograph, painting = (jnp.asarray(load_image(path, size=SIZE).rgb) for path in (content, style))
    save_image(output, tune(response(load_params("auto"), photograph, painting), share))


if __name__ == "__main__":
    start(main)

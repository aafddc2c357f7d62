"""Derivative of the picture with respect to the style weight, d image / d log weight, through all steps.

    python scripts/sensitivity.py examples/cat.jpg examples/strokes.jpg sensitivity.png

The result of adam is a function of the style weight w, image(w). There is one input and there are many pixels, so
forward mode, `jax.jvp`, is efficient: it takes about the time of one more run, for any number of steps, and stores no
residuals. To first order image((1 + e) w) = image(w) + e d image / d log w.

The sheet shows the picture on the left and its derivative on gray on the right: pixels that are brighter or redder than
gray get brighter or redder with a larger weight. The 99th percentile of absolute values is the range of the scale.

The derivative is meaningful only if the steps are smooth. Average pooling has no maxima that switch between pixels, and
a step of adam is at most learning_rate / eps times the gradient: with a large eps the descent is stable; with a small
one, pixels with almost no gradient oscillate, and their derivative grows with every oscillation.
"""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from terminal import start
from tyro.conf import Positional

from jaxstyle import VGG19, Adam, Objective, init_state, load_image, load_params, make_targets, run_steps, save_image
from jaxstyle.images.contact_sheet import contact_sheet
from jaxstyle.networks.vgg import Params

SIZE, STEPS, WEIGHT, ZOOM = 192, 60, 1.0, 2
OBJECTIVE, NETWORK, OPTIMIZER = Objective(), VGG19(pooling="avg"), Adam(learning_rate=0.05, eps=1e-2)


def sensitivity(
    params: Params, content: jax.Array, style: jax.Array, weight: float = WEIGHT
) -> tuple[jax.Array, jax.Array]:
    """Return the picture `[H, W, 3]` for a style weight, and its derivative by the logarithm of the weight."""
    targets = make_targets(params, content, style, objective=OBJECTIVE, network=NETWORK)
    state = init_state(content, objective=OBJECTIVE, optimizer=OPTIMIZER)

    def picture(log_weight: jax.Array) -> jax.Array:
        objective = replace(OBJECTIVE, style=dict.fromkeys(OBJECTIVE.style, jnp.exp(log_weight)))
        return run_steps(state, params, targets, objective, network=NETWORK, steps=STEPS)[0].image

    at = jnp.log(jnp.asarray(weight))
    return jax.jvp(picture, (at,), (jnp.ones_like(at),))


def main(content: Positional[Path], style: Positional[Path], output: Positional[Path]) -> None:
    """Save the picture beside its derivative, and print the size of the derivative."""
    photograph, painting = (jnp.asarray(load_image(path, size=SIZE).rgb) for path in (content, style))
    picture, change = map(np.asarray, sensitivity(load_params("auto"), photograph, painting))
    span = np.quantile(np.abs(change), 0.99)
    print(f"d image / d log weight: root mean square {np.sqrt(np.mean(change**2)):.4f}, 99 % within {span:.4f}")
    grey = np.clip(0.5 + 0.5 * change / max(span, 1e-12), 0, 1)
    labels = [f"style weight {WEIGHT:g}", f"d image / d log weight, white {span:.2f}"]
    cells = [np.kron(each, np.ones((ZOOM, ZOOM, 1))) for each in (picture, grey)]
    save_image(output, contact_sheet(cells, labels, columns=2))


if __name__ == "__main__":
    start(main)

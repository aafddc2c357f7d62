"""Where a picture changes if the style weighs more: d image / d log weight, through every step of the loop.

    python scripts/sensitivity.py examples/cat.jpg examples/strokes.jpg sensitivity.png

A run of adam is a function of the style weight w, image(w), so it has a derivative. There is one input and there are
many pixels, so `jax.jvp` carries d image / d log w forwards beside the image: about as much again as the run itself,
whatever its length, and nothing is stored. To first order image((1 + e) w) = image(w) + e d image / d log w.

Left is the picture, right its derivative on grey: what is brighter or redder than grey gets brighter or redder with
more style. The 99th percentile of its absolute values spans the scale.

A derivative means something where the steps are smooth. Average pooling has no maxima that change places, and adam's
step is at most learning_rate / epsilon times the gradient: with a large epsilon that is a stable descent, with a small
one pixels of next to no gradient bounce, and their derivative grows with every bounce.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from terminal import start
from tyro.conf import Positional

from jaxstyle import Config, LossWeights, init, load_image, load_params, make_targets, run, save_image
from jaxstyle.images.contact_sheet import contact_sheet
from jaxstyle.networks.vgg import Params

SIZE, STEPS, WEIGHT, ZOOM = 192, 60, 1.0, 2
CONFIG = Config(pooling="avg", optimizer="adam", learning_rate=0.05, epsilon=1e-2)


def sensitivity(
    params: Params, content: jax.Array, style: jax.Array, weight: float = WEIGHT
) -> tuple[jax.Array, jax.Array]:
    """Return the picture `[H, W, 3]` at a style weight, and its derivative by the weight's logarithm."""
    targets = make_targets(params, content, style, config=CONFIG)

    def painted(log_weight: jax.Array) -> jax.Array:
        weights = LossWeights(style=dict.fromkeys(CONFIG.style_layers, jnp.exp(log_weight)))
        state, _ = run(init(content, config=CONFIG), params, targets, weights, config=CONFIG, steps=STEPS)
        return state.image

    at = jnp.log(jnp.asarray(weight))
    return jax.jvp(painted, (at,), (jnp.ones_like(at),))


def main(content: Positional[Path], style: Positional[Path], output: Positional[Path]) -> None:
    """Save the picture beside its derivative, and print how large that is."""
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

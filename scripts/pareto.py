"""What style costs in content: the front between the two distances, followed from the photograph outwards.

    pip install -e '.[plots]'
    python scripts/pareto.py examples/cat.jpg examples/strokes.jpg pareto.png

A picture x is at content distance C(x) from the photograph and at style distance S(x), the mean over the style layers,
from the painting. Minima of C + w S for all w > 0 are points of the front, where less of one is more of the other:
C rises with w, S falls, and along the front dC = -w dS. Here w goes from small to large, and each minimum is sought
from the one before, which is next to it: continuation, a few steps each where a start from scratch takes hundreds.

Printed beside w is the slope -dC/dS between a point and the one before. Where steps suffice it lies between their two
weights. It is no more than a local front: another start may lead to pictures that are better in both.
"""

from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from terminal import start
from tyro.conf import Positional

from jaxstyle import Config, LossWeights, init, load_image, load_params, make_targets, run, terms
from jaxstyle.errors import InputError
from jaxstyle.networks.vgg import Params

SIZE, STEPS, WEIGHTS = 128, 60, tuple(map(float, np.geomspace(0.01, 100, 9)))


def front(params: Params, content: jax.Array, style: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return C and S at each of `WEIGHTS`, `[weights, 2]`, and the pictures, `[weights, H, W, 3]`."""
    config = Config()
    targets = make_targets(params, content, style, config=config)
    share = 1 / len(config.style_layers)

    def distances(picture: jax.Array) -> np.ndarray:
        parts = terms(params, picture, targets, config=config)
        content, style = (sum(float(v) for k, v in parts.items() if k.startswith(kind)) for kind in ("cont", "style"))
        return np.array([content, share * style])

    picture, before, points, pictures = content, distances(content), [], []
    for weight in WEIGHTS:
        weights = LossWeights(style=dict.fromkeys(config.style_layers, share * weight), tv=0.0)
        picture = run(init(picture, config=config), params, targets, weights, config=config, steps=STEPS)[0].image
        (c, s), (rise, fall) = (point := distances(picture)), point - before
        print(f"w = {weight:<8.4g} content {c:.4f}, style {s:.4f}, slope {-rise / fall:.4g}", flush=True)
        before, points, pictures = point, [*points, point], [*pictures, np.asarray(picture)]
    return np.array(points), np.stack(pictures)


def draw(points: np.ndarray, pictures: np.ndarray, path: Path) -> None:
    """Save the front over its pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 * len(pictures), 6.5), layout="constrained")
    axes = figure.subplot_mosaic([["front"] * len(pictures), list(range(len(pictures)))], height_ratios=(3, 1))
    axes["front"].margins(0.1)
    axes["front"].loglog(*points.T, "o-", color="black")
    axes["front"].set(xlabel="content distance C", ylabel="style distance S")
    for number, (point, weight) in enumerate(zip(points, WEIGHTS, strict=True)):
        axes["front"].annotate(f"w = {weight:.3g}", point, xytext=(6, 6), textcoords="offset points")
        axes[number].imshow(pictures[number])
        axes[number].set(xticks=[], yticks=[], title=f"w = {weight:.3g}")
    figure.savefig(path, dpi=120)


def main(content: Positional[Path], style: Positional[Path], output: Positional[Path]) -> None:
    """Follow the front and draw it."""
    if find_spec("matplotlib") is None:
        raise InputError("The front is drawn by matplotlib, which is absent: pip install -e '.[plots]'.")
    photograph, painting = (jnp.asarray(load_image(path, size=SIZE).rgb) for path in (content, style))
    draw(*front(load_params("auto"), photograph, painting), output)


if __name__ == "__main__":
    start(main)

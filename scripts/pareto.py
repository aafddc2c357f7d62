"""The Pareto front between content and style distance, computed by continuation from the photograph.

    pip install -e '.[plots]'
    python scripts/pareto.py examples/cat.jpg examples/strokes.jpg pareto.png

C(x) is the content distance of a picture x from the photograph, and S(x) its style distance from the painting, the mean
over the style layers. Minima of C + w S for w > 0 are points of the front, where one distance can only decrease if the
other increases: C increases with w, S decreases, and along the front dC = -w dS. Here w increases, and each minimum
starts from the previous one, which is close: this continuation takes a few steps per minimum instead of hundreds.

The script prints w and the slope -dC/dS between a point and the previous one, which lies between their two weights if
there are enough steps. The front is local: another initial image may give pictures that are better in both distances.
"""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from terminal import start
from tyro.conf import Positional

from jaxstyle import Objective, init_state, load_image, load_params, make_targets, run_steps, terms
from jaxstyle.errors import InputError
from jaxstyle.networks.vgg import Params

SIZE, STEPS, WEIGHTS = 128, 60, tuple(map(float, np.geomspace(0.01, 100, 9)))


def front(params: Params, content: jax.Array, style: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return C and S at each of `WEIGHTS`, `[weights, 2]`, and the pictures, `[weights, H, W, 3]`."""
    objective = Objective(tv=0.0)
    targets = make_targets(params, content, style, objective=objective)
    share = 1 / len(objective.style)

    def distances(picture: jax.Array) -> np.ndarray:
        each = terms(params, picture, targets, objective=objective)
        content, style = (sum(float(v) for k, v in each.items() if k.startswith(kind)) for kind in ("cont", "style"))
        return np.array([content, share * style])

    picture, before, points, pictures = content, distances(content), [], []
    for weight in WEIGHTS:
        objective = replace(objective, style=dict.fromkeys(objective.style, share * weight))
        picture = run_steps(init_state(picture, objective=objective), params, targets, objective, steps=STEPS)[0].image
        (c, s), (rise, fall) = (point := distances(picture)), point - before
        slope = -rise / fall if fall else np.nan  # of a picture that did not change
        print(f"w = {weight:<8.4g} content {c:.4f}, style {s:.4f}, slope {slope:.4g}", flush=True)
        before, points, pictures = point, [*points, point], [*pictures, np.asarray(picture)]
    return np.array(points), np.stack(pictures)


def draw(points: np.ndarray, pictures: np.ndarray, path: Path) -> None:
    """Save a plot of the front with its pictures."""
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
    """Compute the front and draw it."""
    if find_spec("matplotlib") is None:
        raise InputError("The plot needs matplotlib, which is not installed: pip install -e '.[plots]'.")
    photograph, painting = (jnp.asarray(load_image(path, size=SIZE).rgb) for path in (content, style))
    draw(*front(load_params("auto"), photograph, painting), output)


if __name__ == "__main__":
    start(main)

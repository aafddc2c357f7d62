"""The figures of Gatys et al. from any photograph and painting: what layers keep, weights by layers, starts.

    pip install -e '.[plots]'
    python scripts/paper_figures.py photo.jpg painting.jpg --output figures/

Figure 1 of arXiv:1508.06576 (content reconstructions from conv1_1 to conv5_1, style reconstructions from one to five
layers), its figure 3 (alpha / beta from 1e-5 to 1e-2 by these five sets of style layers: twenty lanes of one program)
and figure 6 of the paper of 2016 (starts), each as PNG and PDF. Deviations: from coarse to fine, lbfgs without a line
search over a pyramid, a penalty on values out of range, and some total variation, without which the grain of white
noise stays. alpha counts with the picture's area, as in the paper, whose pictures had
about 512 pixels a side: smaller ones keep less of their content at the same ratio.
"""

import dataclasses
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tyro.conf import Positional

from jaxstyle import Config, LossWeights, load_image, load_params, make_targets, presets, terms, total
from jaxstyle.errors import InputError, own
from jaxstyle.networks.vgg import Params
from jaxstyle.transfer.sweep import sweep

LAYERS = tuple(f"conv{block}_1" for block in range(1, 6))
RATIOS = (1e-5, 1e-4, 1e-3, 1e-2)
PAPER = presets.preset("gatys-paper")
CONFIG = dataclasses.replace(PAPER.config, scales=None, memory=10)
BOUNDS = PAPER.bounds_weight / PAPER.style_weight  # the paper's beta is 1 here, not 1,000
SMOOTHNESS = 0.1  # of total variation, over what a black picture loses


def cumulative(count: int) -> np.ndarray:
    """Return how much each layer counts where the first `count` count alike, `[layers]`."""
    return np.where(np.arange(len(LAYERS)) < count, 1 / count, 0.0)


def stacked(lanes: Sequence[LossWeights]) -> LossWeights:
    """Return the weights of all lanes as one, each coefficient `[N]`."""
    return jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *lanes)


def weights(content: Sequence[float] | np.ndarray, style: np.ndarray, layers: Sequence[str]) -> LossWeights:
    """Return alpha by content layer and beta by style layer in the paper's units."""
    alpha = {layer: value / 2 for layer, value in zip(layers, content, strict=True)}
    beta = {layer: value / 4 for layer, value in zip(LAYERS, style, strict=True)}
    return LossWeights(content=alpha, style=beta, tv=0.0, bounds=BOUNDS)


class Paint(NamedTuple):
    """Photograph and painting, and how lanes of weights are painted from them."""

    params: Params
    content: jax.Array
    style: jax.Array
    key: jax.Array
    steps: int
    lanes: int | None

    def __call__(
        self, weights: LossWeights, config: Config, *, init: str | jax.Array = "noise", key: Any = None
    ) -> Any:
        """Return the pictures of all lanes, `[N, H, W, 3]`."""
        targets = make_targets(self.params, self.content, self.style, config=config)
        black = terms(self.params, jnp.zeros_like(self.content), targets, config=config)
        smooth = dataclasses.replace(weights, tv=SMOOTHNESS * total(weights, black))
        key, options = self.key if key is None else key, {"steps": self.steps, "lanes": self.lanes}
        found = sweep(self.params, self.content, self.style, smooth, key=key, config=config, init=init, **options)
        return np.asarray(found.image)


def figure_1(paint: Paint) -> np.ndarray:
    """Return what content layers keep of the photograph and style layers of the painting, two rows of five."""
    config = dataclasses.replace(CONFIG, content_layers=LAYERS)
    none = np.zeros(len(LAYERS))
    each = [weights(np.eye(len(LAYERS))[i], none, LAYERS) for i in range(len(LAYERS))]
    each += [weights(none, cumulative(count), LAYERS) for count in range(1, len(LAYERS) + 1)]
    return paint(stacked(each), config).reshape(2, len(LAYERS), *paint.content.shape)


def figure_3(paint: Paint) -> np.ndarray:
    """Return five rows, one for each set of style layers, of four ratios alpha / beta."""
    each = [
        weights([ratio], cumulative(count), CONFIG.content_layers)
        for count in range(1, len(LAYERS) + 1)
        for ratio in RATIOS
    ]
    return paint(stacked(each), CONFIG).reshape(len(LAYERS), len(RATIOS), *paint.content.shape)


def figure_6(paint: Paint) -> np.ndarray:
    """Return what comes of starting from the photograph, the painting and four noises."""
    one = weights([1e-3], cumulative(len(LAYERS)), CONFIG.content_layers)
    starts = jnp.stack([paint.content, paint.style])
    pictures = [paint(one, CONFIG, init=starts), paint(one, CONFIG, key=jax.random.split(paint.key, 4))]
    return np.concatenate(pictures)[None]


FIGURES = {
    "figure_1": (
        figure_1,
        ["content", "style"],
        list(LAYERS),
        "what is kept: at one content layer; at the style layers up to",
    ),
    "figure_3": (
        figure_3,
        [f"to {layer}" for layer in LAYERS],
        [f"{r:g}" for r in RATIOS],
        "alpha / beta, by style layers",
    ),
    "figure_6": (figure_6, [""], ["photograph", "painting", *(f"noise {i}" for i in range(1, 5))], "starts, at 1e-3"),
}


def draw(pictures: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, path: Path) -> None:
    """Save a labelled figure as PNG and PDF."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    height, width = pictures.shape[2:4]
    size = (2.2 * len(columns) + 0.6, 2.2 * height / width * len(rows) + 0.9)
    figure, axes = pyplot.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout="constrained")
    for (i, j), axis in np.ndenumerate(axes):
        axis.imshow(np.clip(pictures[i, j], 0, 1))
        axis.set(xticks=[], yticks=[])
        if i == 0:
            axis.set_title(columns[j], fontsize=9)
        if j == 0:
            axis.set_ylabel(rows[i], fontsize=9)
    figure.suptitle(title, fontsize=10)
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix), dpi=200)
    pyplot.close(figure)


def main(
    content: Annotated[Positional[Path], tyro.conf.arg(metavar="CONTENT")],
    style: Annotated[Positional[Path], tyro.conf.arg(metavar="STYLE")],
    *,
    output: Path = Path("."),
    figures: tuple[Literal["figure_1", "figure_3", "figure_6"], ...] = ("figure_1", "figure_3", "figure_6"),
    size: int = 256,
    steps: int = 150,
    lanes: int | None = None,
    network: str = "auto",
    seed: int = 0,
) -> None:
    """Paint and draw the figures that are named.

    Args:
        content: the photograph.
        style: the painting, which is brought to the photograph's size.
        output: the folder for the figures.
        figures: which of figure_1, figure_3 and figure_6.
        size: longest side of each picture, in pixels.
        steps: gradient evaluations of each picture.
        lanes: pictures at a time; all if left out.
        network: as of `jaxstyle stylize`.
        seed: of the noise.
    """
    if find_spec("matplotlib") is None:
        raise InputError("The figures are drawn by matplotlib, which is absent: pip install -e '.[plots]'.")
    output.mkdir(parents=True, exist_ok=True)
    photograph = jnp.asarray(load_image(content, size=size).rgb)
    painting = jnp.asarray(load_image(style, size=(photograph.shape[1], photograph.shape[0])).rgb)
    paint = Paint(load_params(network), photograph, painting, jax.random.key(seed), steps, lanes)
    for name in figures:
        drawn, rows, columns, title = FIGURES[name]
        pictures = drawn(paint)
        draw(pictures, rows, columns, title, output / name)
        print(f"{output / name}.png and .pdf: {pictures.shape[0]} x {pictures.shape[1]} pictures of {steps} steps")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (InputError, OSError) as error:
        sys.exit(f"paper_figures.py: {own(error) or error}")

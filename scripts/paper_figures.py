"""The figures of Gatys et al. for a photograph and a painting: reconstructions, ratios by layers, initial images.

    pip install -e '.[plots]'
    python scripts/paper_figures.py photo.jpg painting.jpg --output figures/

Figure 1 of arXiv:1508.06576 (content reconstructions from conv1_1 to conv5_1, style reconstructions from one to five
layers), its figure 3 (alpha / beta from 1e-5 to 1e-2 by these five sets of style layers: a batch of twenty in one
program) and figure 6 of the paper of 2016 (initial images), each as PNG and PDF. Deviations: coarse to fine, lbfgs
without a line search on a pyramid, a range penalty, and some total variation, without which the grain of white noise
remains. alpha is proportional to the area of the picture, as in the paper, whose pictures had sides of about 512
pixels: smaller ones preserve less content at the same ratio.
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

from jaxstyle import Objective, load_image, load_params, make_targets, presets, terms, total
from jaxstyle.errors import InputError, user_error
from jaxstyle.networks.vgg import Params
from jaxstyle.transfer.sweep import sweep

LAYERS = tuple(f"conv{block}_1" for block in range(1, 6))
RATIOS = (1e-5, 1e-4, 1e-3, 1e-2)
PAPER = presets.preset("gatys-paper")
CONTENT_LAYERS = PAPER.make_objective().content_layers
OPTIMIZER = dataclasses.replace(PAPER.optimizer, history_size=10)
RANGE_PENALTY = PAPER.range_penalty / PAPER.style_weight  # the paper's beta is 1 here, not 1,000
SMOOTHNESS = 0.1  # weight of total variation, relative to the objective of a black picture


def cumulative(count: int) -> np.ndarray:
    """Return equal weights of the first `count` layers, with sum 1, `[layers]`."""
    return np.where(np.arange(len(LAYERS)) < count, 1 / count, 0.0)


def stacked(objectives: Sequence[Objective]) -> Objective:
    """Return the objectives of a batch as one, each weight `[N]`."""
    return jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *objectives)


def weighted(content: Sequence[float] | np.ndarray, style: np.ndarray, layers: Sequence[str]) -> Objective:
    """Return the objective with alpha by content layer and beta by style layer in the paper's units."""
    alpha = {layer: value / 2 for layer, value in zip(layers, content, strict=True)}
    beta = {layer: value / 4 for layer, value in zip(LAYERS, style, strict=True)}
    return dataclasses.replace(PAPER.make_objective(), content=alpha, style=beta, tv=0.0, range_penalty=RANGE_PENALTY)


class Paint(NamedTuple):
    """Photograph, painting and options; stylizes batches of objectives, initial images or keys."""

    params: Params
    content: jax.Array
    style: jax.Array
    key: jax.Array
    steps: int
    batch_size: int | None

    def __call__(self, objective: Objective, *, init: str | jax.Array = "noise", key: Any = None) -> Any:
        """Return the pictures of the batch, `[N, H, W, 3]`."""
        options: dict[str, Any] = {"objective": objective, "network": PAPER.network}
        targets = make_targets(self.params, self.content, self.style, **options)
        black = terms(self.params, jnp.zeros_like(self.content), targets, **options)
        smooth = dataclasses.replace(objective, tv=SMOOTHNESS * total(objective, black))
        result = sweep(
            self.params,
            self.content,
            self.style,
            objective=smooth,
            network=PAPER.network,
            optimizer=OPTIMIZER,
            key=self.key if key is None else key,
            init=init,
            steps=self.steps,
            batch_size=self.batch_size,
        )
        return np.asarray(result.image)


def figure_1(paint: Paint) -> np.ndarray:
    """Return reconstructions of the photograph by content layers and of the painting by style layers, two rows."""
    none = np.zeros(len(LAYERS))
    each = [weighted(np.eye(len(LAYERS))[i], none, LAYERS) for i in range(len(LAYERS))]
    each += [weighted(none, cumulative(count), LAYERS) for count in range(1, len(LAYERS) + 1)]
    return paint(stacked(each)).reshape(2, len(LAYERS), *paint.content.shape)


def figure_3(paint: Paint) -> np.ndarray:
    """Return five rows, one for each set of style layers, of four ratios alpha / beta."""
    each = [
        weighted([ratio], cumulative(count), CONTENT_LAYERS) for count in range(1, len(LAYERS) + 1) for ratio in RATIOS
    ]
    return paint(stacked(each)).reshape(len(LAYERS), len(RATIOS), *paint.content.shape)


def figure_6(paint: Paint) -> np.ndarray:
    """Return the pictures from three initial images: the photograph, the painting and noise of four keys."""
    one = weighted([1e-3], cumulative(len(LAYERS)), CONTENT_LAYERS)
    starts = jnp.stack([paint.content, paint.style])
    pictures = [paint(one, init=starts), paint(one, key=jax.random.split(paint.key, 4))]
    return np.concatenate(pictures)[None]


FIGURES = {
    "figure_1": (
        figure_1,
        ["content", "style"],
        list(LAYERS),
        "reconstructions: by one content layer; by the style layers up to",
    ),
    "figure_3": (
        figure_3,
        [f"to {layer}" for layer in LAYERS],
        [f"{r:g}" for r in RATIOS],
        "alpha / beta, by style layers",
    ),
    "figure_6": (
        figure_6,
        [""],
        ["photograph", "painting", *(f"noise {i}" for i in range(1, 5))],
        "initial images, at 1e-3",
    ),
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
    batch_size: int | None = None,
    network: str = "auto",
    seed: int = 0,
) -> None:
    """Make the given figures.

    Args:
        content: the photograph.
        style: the painting, which is resized to the size of the photograph.
        output: the folder for the figures.
        figures: figure_1, figure_3, figure_6, or several of them.
        size: longest side of each picture, in pixels.
        steps: gradient evaluations of each picture.
        batch_size: number of pictures at a time; all by default.
        network: as for `jaxstyle stylize`.
        seed: seed of the noise.
    """
    if find_spec("matplotlib") is None:
        raise InputError("The figures need matplotlib, which is not installed: pip install -e '.[plots]'.")
    output.mkdir(parents=True, exist_ok=True)
    photograph = jnp.asarray(load_image(content, size=size).rgb)
    painting = jnp.asarray(load_image(style, size=(photograph.shape[1], photograph.shape[0])).rgb)
    paint = Paint(load_params(network), photograph, painting, jax.random.key(seed), steps, batch_size)
    for name in figures:
        drawn, rows, columns, title = FIGURES[name]
        pictures = drawn(paint)
        draw(pictures, rows, columns, title, output / name)
        print(f"{output / name}.png and .pdf: {pictures.shape[0]} x {pictures.shape[1]} pictures of {steps} steps")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (InputError, OSError) as error:
        sys.exit(f"paper_figures.py: {user_error(error) or error}")

"""One contact sheet per pair of pictures with the result of each setting, for the choice of defaults by eye.

python scripts/compare_settings.py content.jpg style.jpg [content.jpg style.jpg ...] --output sheets/

The label of a picture is its setting, its time, and two distances that no setting minimizes, which makes the numbers of
a row comparable. "style" is the sliced Wasserstein distance from the style at relu2_2, relu3_2 and relu4_3, divided by
that of the content; "structure" is the distance of self-similarity matrices from those of the content at relu3_4 and
relu4_4, see `losses.relaxed_emd.self_similarity`. The last line is the fraction of the content's distance of Gram
matrices that remains at each style layer.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import (
    VGG19,
    Adam,
    Objective,
    load_image,
    load_params,
    make_targets,
    presets,
    save_image,
    stylize,
    terms,
)
from jaxstyle.images.contact_sheet import contact_sheet
from jaxstyle.losses.layer_summaries import image_features
from jaxstyle.losses.neighbors import hypercolumns
from jaxstyle.losses.relaxed_emd import sample_positions, self_similarity
from jaxstyle.losses.wasserstein import quantiles, sliced

DEFAULT = Objective()
LAYERS = DEFAULT.style_layers
DEEP = dict(zip(LAYERS, (2.0, 4.0, 6.0, 8.0, 10.0), strict=True))
STYLE = ("relu2_2", "relu3_2", "relu4_3")
STRUCTURE = ("relu3_4", "relu4_4")
POSITIONS = 2000
SETTINGS: dict[str, dict[str, Any]] = {  # arguments of `stylize`
    "default": {},
    "one scale": {"scales": 1},
    "mean_std": {"objective": Objective(statistic="mean_std")},
    "covariance": {"objective": Objective(statistic="covariance")},
    "wasserstein": {"objective": Objective(statistic="wasserstein")},
    "sliced": {"objective": Objective(statistic="sliced")},
    "shift -1": {"objective": Objective(shift=-1.0)},
    "larger deep weights": {"objective": Objective(style=DEEP)},
    "content relu3_2": {"objective": Objective(content={"relu3_2": 1.0})},
    "content relu5_2": {"objective": Objective(content={"relu5_2": 1.0})},
    "avg pooling": {"network": VGG19(pooling="avg")},
    "no tv": {"objective": Objective(tv=0.0)},
    "tv x 4": {"objective": Objective(tv=20.0)},
    "replicate padding": {"network": VGG19(padding="replicate")},
    "adam, average 0.99": {"optimizer": Adam(ema_decay=0.99)},
} | {name: presets.preset(name).arguments for name in ("jaxstyle", "jaxstyle-neighbors", "nnst", "strotss")}


@jax.jit
def style_distance(params: Any, image: jax.Array, style: jax.Array) -> jax.Array:
    """Return the mean sliced Wasserstein distance over layers."""
    features, of_style = (image_features(params, each, network=VGG19(), layers=STYLE) for each in (image, style))
    distances = [sliced(features[name], quantiles(of_style[name], key=jax.random.key(0))) for name in STYLE]
    return jnp.mean(jnp.stack(distances))


@jax.jit
def structure_distance(params: Any, image: jax.Array, content: jax.Array) -> jax.Array:
    """Return the distance of self-similarity matrices at positions of a grid."""
    positions = sample_positions(*content.shape[:2], key=jax.random.key(0), count=POSITIONS)
    features = (image_features(params, each, network=VGG19(), layers=STRUCTURE) for each in (image, content))
    columns = (hypercolumns(each, positions, divisor="none") for each in features)
    return self_similarity(*(each.reshape(-1, each.shape[-1]) for each in columns))


def main(arguments: list[str] | None = None) -> None:
    """Make the sheets and print their labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="CONTENT STYLE")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--network", default="auto")
    parser.add_argument("--output", type=Path, default=Path("."))
    options = parser.parse_args(arguments)
    if len(options.pictures) % 2:
        parser.error(f"{len(options.pictures)} pictures are not pairs: give a style after each content.")

    params = load_params(options.network)
    for paths in zip(options.pictures[::2], options.pictures[1::2], strict=True):
        content, style = (jnp.asarray(load_image(path, size=options.size).rgb) for path in paths)
        unchanged = style_distance(params, content, style)
        targets = make_targets(params, content, style, objective=DEFAULT)
        before = terms(params, content, targets, objective=DEFAULT)
        cells = []
        for name in options.settings:
            began = time.perf_counter()
            result = stylize(params, content, style, key=jax.random.key(0), steps=options.steps, **SETTINGS[name])
            image = np.asarray(result.image)
            seconds = time.perf_counter() - began
            save_image(options.output / f"{paths[0].stem}_{paths[1].stem}_{name.replace(' ', '-')}.png", image)
            nearer = style_distance(params, jnp.asarray(image), style) / unchanged
            structure = structure_distance(params, jnp.asarray(image), content)
            after = terms(params, jnp.asarray(image), targets, objective=DEFAULT)
            percentages = [100 * float(after[f"style/{layer}"] / before[f"style/{layer}"]) for layer in LAYERS]
            label = f"{name}\n{seconds:.0f} s, style {nearer:.3f}, structure {structure:.3f}\nGram % "
            label += " ".join(f"{each:.1f}" for each in percentages)
            print(f"{paths[0].stem} x {paths[1].stem}: {label}".replace("\n", ": "), flush=True)
            cells.append((image, label))
            jax.clear_caches()  # settings share no programs, and a process can map only a limited number
        page = contact_sheet(*zip(*cells, strict=True), columns=4)
        save_image(options.output / f"{paths[0].stem}_{paths[1].stem}.png", page)


if __name__ == "__main__":
    main()

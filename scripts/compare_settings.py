"""One sheet a pair of pictures: what each setting makes of it, beside the default, to choose defaults by looking.

python scripts/compare_settings.py content.jpg style.jpg [content.jpg style.jpg ...] --output sheets/

Every cell is labelled with its setting, its time, and how much of the style distance it has left at each style layer,
measured by Gram matrices whatever the setting is, so that numbers compare along a row.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import Config, LossWeights, load_image, load_params, make_targets, save_image, stylize, terms
from jaxstyle.images.contact_sheet import contact_sheet

LAYERS = Config().style_layers
DEEP = dict(zip(LAYERS, (2.0, 4.0, 6.0, 8.0, 10.0), strict=True))
FLAT = LossWeights()
SETTINGS: dict[str, tuple[Config, LossWeights]] = {
    "default": (Config(), FLAT),
    "one scale": (Config(scales=1), FLAT),
    "mean_std": (Config(statistic="mean_std"), FLAT),
    "covariance": (Config(statistic="covariance"), FLAT),
    "wasserstein": (Config(statistic="wasserstein"), FLAT),
    "sliced": (Config(statistic="sliced"), FLAT),
    "shift -1": (Config(shift=-1.0), FLAT),
    "deep layers more": (Config(), replace(FLAT, style=DEEP)),
    "content relu3_2": (Config(content_layers=("relu3_2",)), replace(FLAT, content={"relu3_2": 1.0})),
    "content relu5_2": (Config(content_layers=("relu5_2",)), replace(FLAT, content={"relu5_2": 1.0})),
    "avg pooling": (Config(pooling="avg"), FLAT),
    "no tv": (Config(), replace(FLAT, tv=0.0)),
    "tv x 4": (Config(), replace(FLAT, tv=20.0)),
    "replicated border": (Config(border="replicate"), FLAT),
    "adam, average 0.99": (Config(optimizer="adam", averaging=0.99), FLAT),
}


def main(arguments: list[str] | None = None) -> None:
    """Make the sheets and print what stands under their cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="CONTENT STYLE")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--network", default="auto")
    parser.add_argument("--output", type=Path, default=Path("."))
    options = parser.parse_args(arguments)
    if len(options.pictures) % 2:
        parser.error(f"{len(options.pictures)} pictures are no pairs: name a style after each content.")

    params = load_params(options.network)
    for paths in zip(options.pictures[::2], options.pictures[1::2], strict=True):
        content, style = (jnp.asarray(load_image(path, size=options.size).rgb) for path in paths)
        targets = make_targets(params, content, style, config=Config())
        untouched = terms(params, content, targets, config=Config())
        cells = []
        for name in options.settings:
            config, weights = SETTINGS[name]
            began = time.perf_counter()
            made = stylize(
                params, content, style, key=jax.random.key(0), config=config, weights=weights, steps=options.steps
            )
            image = np.asarray(made.image)
            seconds = time.perf_counter() - began
            left = terms(params, jnp.asarray(image), targets, config=Config())
            shares = [float(left[f"style/{layer}"] / untouched[f"style/{layer}"]) for layer in LAYERS]
            label = f"{name}\n{seconds:.0f} s, left % " + " ".join(f"{100 * share:.1f}" for share in shares)
            print(f"{paths[0].stem} x {paths[1].stem}: {label}".replace("\n", ": "), flush=True)
            cells.append((image, label))
            jax.clear_caches()  # no program serves two settings, and a process may map only so many
        page = contact_sheet(*zip(*cells, strict=True), columns=4)
        save_image(options.output / f"{paths[0].stem}_{paths[1].stem}.png", page)


if __name__ == "__main__":
    main()

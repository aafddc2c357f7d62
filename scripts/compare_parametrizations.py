"""How many evaluations each way to write the image takes to a given loss, for lbfgs and for adam.

python scripts/compare_parametrizations.py examples/cat.jpg examples/mosaic.jpg --network mini

The loss to reach is the lowest that plain pixels reach by the same optimiser, at each of some numbers of evaluations.
Each starts at the photograph; what is counted is one gradient of the whole objective, as all take one a step.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from terminal import start

from jaxstyle import Config, LossWeights, init, load_image, load_params, make_targets, run
from jaxstyle.errors import InputError
from jaxstyle.optim.parametrizations import PARAMETRIZATIONS, compose

WAYS: dict[str, Any] = {
    "pixels": "pixels",
    "pyramid": "pyramid",
    "decorrelated": "decorrelated",
    "fourier": "fourier",
    "decorrelated fourier": compose(PARAMETRIZATIONS["decorrelated"], PARAMETRIZATIONS["fourier"]),
    "sigmoid": "sigmoid",
}


def main(
    content: Path, style: Path, /, *, network: str = "auto", size: int = 256, evaluations: int = 200, at: int = 100
) -> None:
    """Run each optimiser with each way to write the image and print a table.

    Args:
        content: the photograph.
        style: the painting.
        network: "auto", "vgg19", "mini" or a file.
        size: longest side of both, in pixels.
        evaluations: of each run.
        at: how many of plain pixels set the loss that all are to reach.
    """
    if not 1 <= at <= evaluations:
        raise InputError(f"--at is {at}: use 1 to {evaluations}, the number of --evaluations.")
    params = load_params(network)
    photograph, painting = (jnp.asarray(load_image(path, size=size).rgb) for path in (content, style))
    print(f"| optimiser | written as | evaluations to what pixels reach in {at} | lowest in {evaluations} |")
    print("|---|---|---|---|")
    for optimizer in ("lbfgs", "adam"):
        wanted = None
        for name, way in WAYS.items():
            config = replace(Config(scales=1), optimizer=optimizer, parametrization=way)
            lowest = np.minimum.accumulate(minimized(params, photograph, painting, config, evaluations))
            wanted = lowest[at - 1] if wanted is None else wanted
            reached = int(np.searchsorted(-lowest, -wanted)) + 1  # the first that is as low
            count = str(reached) if reached <= evaluations else f"more than {evaluations}"
            print(f"| {optimizer} | {name} | {count} | {lowest[-1]:.3f} |", flush=True)


def minimized(params: Any, content: Any, style: Any, config: Config, evaluations: int) -> np.ndarray:
    """Return what is minimised, the objective and the penalty on what is out of range, at each evaluation."""
    weights, targets = LossWeights(), make_targets(params, content, style, config=config)
    _, trace = run(init(content, config=config), params, targets, weights, config=config, steps=evaluations)
    return np.asarray(trace["total"] + weights.bounds * trace["bounds"])


if __name__ == "__main__":
    start(main)

"""Number of evaluations to a given loss with each parametrization of the image, for lbfgs and for adam.

python scripts/compare_parametrizations.py examples/cat.jpg examples/mosaic.jpg --network mini

The loss to reach is the lowest loss of plain pixels with the same optimizer after a given number of evaluations. The
initial image is the photograph. An evaluation is one gradient of the objective; every step takes one.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from terminal import start

from jaxstyle import LBFGS, Adam, Objective, init_state, load_image, load_params, make_targets, run_steps
from jaxstyle.errors import InputError
from jaxstyle.optim.parametrizations import PARAMETRIZATIONS, compose

OBJECTIVE = Objective()
CHOICES: dict[str, Any] = {
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
    """Run each optimizer with each parametrization and print a table.

    Args:
        content: the photograph.
        style: the painting.
        network: "auto", "vgg19", "mini" or a file.
        size: longest side of both, in pixels.
        evaluations: number of evaluations of each run.
        at: number of evaluations after which plain pixels define the loss to reach.
    """
    if not 1 <= at <= evaluations:
        raise InputError(f"--at is {at}: use 1 to {evaluations}, the number of --evaluations.")
    params = load_params(network)
    photograph, painting = (jnp.asarray(load_image(path, size=size).rgb) for path in (content, style))
    print(f"| optimizer | parametrization | evaluations to the loss of pixels after {at} | lowest in {evaluations} |")
    print("|---|---|---|---|")
    for optimizer in (LBFGS(), Adam()):
        goal = None
        for name, parametrization in CHOICES.items():
            chosen = replace(optimizer, parametrization=parametrization)
            lowest = np.minimum.accumulate(minimized(params, photograph, painting, chosen, evaluations))
            goal = lowest[at - 1] if goal is None else goal
            reached = int(np.searchsorted(-lowest, -goal)) + 1  # the first value that is as low
            count = str(reached) if reached <= evaluations else f"more than {evaluations}"
            print(f"| {type(optimizer).__name__.lower()} | {name} | {count} | {lowest[-1]:.3f} |", flush=True)


def minimized(params: Any, content: Any, style: Any, optimizer: LBFGS | Adam, evaluations: int) -> np.ndarray:
    """Return the minimized value, the total plus the weighted range penalty, at each evaluation."""
    targets = make_targets(params, content, style, objective=OBJECTIVE)
    state = init_state(content, objective=OBJECTIVE, optimizer=optimizer)
    _, history = run_steps(state, params, targets, OBJECTIVE, steps=evaluations)
    return np.asarray(history["total"] + OBJECTIVE.range_penalty * history["range_penalty"])


if __name__ == "__main__":
    start(main)

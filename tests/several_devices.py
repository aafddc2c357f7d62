"""Runs with four CPU devices: `python several_devices.py` prints comparisons with one device as JSON.

The current folder holds content.png, style.png and tiny.h5, and receives the pictures of the commands.
"""

import contextlib
import io
import json
import os
import re
import sys
from typing import Any

os.environ["JAX_NUM_CPU_DEVICES"] = "4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from conftest import TINY, picture

from jaxstyle.cli import main
from jaxstyle.distributed.sharding import HEIGHT, SplitRows, mesh_of
from jaxstyle.losses.loss_terms import terms, total
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.random_init import random_params
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.optimizers import Adam
from jaxstyle.transfer.sweep import sweep

jax.config.update("jax_numpy_rank_promotion", "raise")
WIDTH = 32
SHALLOW: dict[str, Any] = {"content": {"relu2_1": 1.0}, "style": {"relu1_1": 6.0, "relu2_1": 6.0}}
CASES: dict[str, dict[str, Any]] = {
    "fewer rows than devices at relu5_1": {"height": 45, "objective": Objective(), "network": VGG19()},
    "circular": {"height": 32, "objective": Objective(**SHALLOW), "network": VGG19(padding="circular")},
    "masks": {
        "height": 45,
        "objective": Objective(**SHALLOW, statistic="mean_std", tv_form="nine_point"),
        "network": VGG19(padding="replicate", pooling="avg"),
    },
}
HOW = "--weights tiny.h5 --steps 10 --optimizer adam --scales 1 --bits 16"
HOW += " --content-layers relu1_1 --style-layers relu1_1"
PAINT = f"stylize content.png style.png {HOW} --size 50 -o"
SWEEP = f"sweep content.png style.png {HOW} --size 40 --style-weight 1,2,3,4,5 -o"
FOUR = "--checkpoint kept --save-every 5 --every 5"
COMMANDS = {
    "one": f"{PAINT} one.png",  # one device, since the picture is small
    "dry run": f"{PAINT} never.png --devices 4 {FOUR} --dry-run",
    "four": f"{PAINT} four.png --devices 4 {FOUR}",
    "rerun": "rerun four.png --weights tiny.h5",
    "three": f"{PAINT} three.png --devices 3 {FOUR}",
    "batch": f"{SWEEP} some",
    "batch on one": f"{SWEEP} single --devices 1",
    "rerun of an image of a batch": "rerun some/style-weight=5.png --weights tiny.h5 --inputs .",
}


def rows(name: str, *, height: int, objective: Objective, network: VGG19) -> dict[str, Any]:
    """Return differences of loss and gradient between four devices and one, and the communication of the program."""
    params = random_params(widths=TINY, seed=1)
    content, image = picture(height, WIDTH, seed=4), picture(height, WIDTH, seed=2)
    styles, masks = [picture(50, 43, seed=5)], None
    if name == "masks":
        masks = jnp.stack([image[..., 0], jnp.zeros((height, WIDTH)).at[10:].set(1.0)])
        styles.append(picture(48, 50, seed=6))
    targets = make_targets(params, content, styles, objective=objective, network=network, content_masks=masks)

    def loss(image: jax.Array, params: Any, targets: Any, network: VGG19) -> jax.Array:
        return total(objective, terms(params, image, targets, objective=objective, network=network))

    step = jax.jit(jax.value_and_grad(loss), static_argnums=3)
    value, gradient = step(image, params, targets, network)
    split = network.clone(conv=SplitRows(mesh_of(jax.devices(), HEIGHT)))
    program = step.lower(image, params, targets, split).compile()
    other, theirs = program(image, params, targets)
    text = program.as_text() or ""
    gathers = re.findall(r"^(.*) all-gather", text, flags=re.MULTILINE)
    return {
        "loss": abs(float(value - other)) / float(value),
        "gradient": float(np.linalg.norm(gradient - theirs) / np.linalg.norm(gradient)),
        "permutes": len(re.findall(r" collective-permute(?:-start)?\(", text)),
        "gathered": [shape for line in gathers for shape in re.findall(r"\w+\[([\d,]+)\]", line)],
    }


def batch() -> dict[str, Any]:
    """Return the difference between a sweep of five images on four devices and on one."""
    params, content, style = random_params(widths=TINY, seed=1), picture(40, 36, seed=0), picture(36, 32, seed=1)
    tv = jnp.asarray([0.0, 1.0, 5.0, 10.0, 50.0])
    objective = Objective(content={"relu1_1": 1.0}, style={"relu1_1": 100.0}, tv=tv)
    options: dict[str, Any] = {"objective": objective, "optimizer": Adam(), "scales": 1, "steps": 5}
    one = sweep(params, content, style, **options)
    four = sweep(params, content, style, **options, devices=jax.devices(), batch_size=4)
    images, others = np.asarray(one.image), np.asarray(four.image)
    return {"apart": float(abs(images - others).max()), "shape": images.shape, "differ": float(np.ptp(images, 0).max())}


def command(line: str) -> tuple[int, str]:
    """Return the status and the output of a command."""
    with contextlib.redirect_stderr(io.StringIO()) as output, contextlib.redirect_stdout(output):
        status = main(line.split())
    return status, output.getvalue()


if __name__ == "__main__":
    actual = {
        "rows": {name: rows(name, **case) for name, case in CASES.items()},
        "batch": batch(),
        "commands": {name: command(line) for name, line in COMMANDS.items()},
    }
    print(json.dumps(actual), file=sys.__stdout__)

"""What tests run with four devices, each a process of its own: `python several_devices.py CASE ...` prints JSON."""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["JAX_NUM_CPU_DEVICES"] = "4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from conftest import TINY, picture

from jaxstyle import image as images
from jaxstyle.cli import main
from jaxstyle.config import Config, LossWeights
from jaxstyle.mesh import HEIGHT, SplitRows, mesh_of
from jaxstyle.objective import make_targets, terms, total
from jaxstyle.pretrained import load_params
from jaxstyle.sweep import sweep
from jaxstyle.untrained import random_params

jax.config.update("jax_numpy_rank_promotion", "raise")
CASES: dict[str, dict[str, Any]] = {
    "does not divide": {"height": 125},
    "fewer rows than devices at relu5_1": {"height": 45},
    "circular": {"height": 128, "border": "circular"},
    "replicate": {"height": 125, "border": "replicate", "statistic": "wasserstein", "pooling": "avg"},
    "masks": {"height": 101, "tv_form": "nine_point", "statistic": "mean_std", "style_layers": ("conv1_2", "conv3_1")},
}


def compared(name: str, *, height: int, **chosen: Any) -> dict[str, Any]:
    """Return how far loss and gradient of rows on four devices are from those of one, and what devices exchange."""
    params = random_params(widths=TINY, seed=1)
    content, image = picture(height, 96, seed=4), picture(height, 96, seed=2)
    styles, masks = [picture(150, 131, seed=5)], None
    if name == "masks":
        masks = jnp.stack([image[..., 0], jnp.zeros((height, 96)).at[30:].set(1.0)])
        styles.append(picture(88, 90, seed=6))
    return rows(params, content, styles, image, config=Config(**chosen), masks=masks)


def real() -> dict[str, Any]:
    """Return the same for VGG-19 and a photograph, with half its size compared too."""
    folder = Path(os.environ["PICTURES"])
    content, style = (
        jnp.asarray(images.load(folder / name, size=141).rgb) for name in ("golden_gate.jpg", "starry_night_google.jpg")
    )
    image = jnp.clip(content + 0.05 * jax.random.normal(jax.random.key(0), content.shape), 0, 1)
    return rows(load_params("vgg19"), content, [style], image, config=Config())


def rows(params: Any, content: jax.Array, styles: Any, image: jax.Array, *, config: Config, masks: Any = None) -> Any:
    targets = make_targets(params, content, styles, config=config, content_masks=masks)
    weights = LossWeights(dict.fromkeys(config.content_layers, 1.0), dict.fromkeys(config.style_layers, 6.0))

    def loss(image: jax.Array, params: Any, targets: Any, config: Config) -> jax.Array:
        return total(weights, terms(params, image, targets, config=config))

    step = jax.jit(jax.value_and_grad(loss), static_argnums=3)
    value, gradient = step(image, params, targets, config)
    split = replace(config, conv=SplitRows(mesh_of(jax.devices(), HEIGHT)))
    program = step.lower(image, params, targets, split).compile()
    other, theirs = program(image, params, targets)
    text = program.as_text() or ""
    gathered = [re.findall(r"\w+\[([\d,]+)\]", line.partition(" all-gather")[0]) for line in text.splitlines()]
    gathered = [
        shape
        for line, shapes in zip(text.splitlines(), gathered, strict=True)
        if " all-gather" in line
        for shape in shapes
    ]
    return {
        "loss": abs(float(value - other)) / float(value),
        "gradient": float(np.linalg.norm(gradient - theirs) / np.linalg.norm(gradient)),
        "permutes": len(re.findall(r" collective-permute(?:-start)?\(", text)),
        "gathered": gathered,
    }


def lanes() -> dict[str, Any]:
    """Return how far a sweep of five lanes on four devices is from one on one device."""
    params, content, style = random_params(widths=TINY, seed=1), picture(40, 36, seed=0), picture(36, 32, seed=1)
    weights = LossWeights(tv=jnp.asarray([0.0, 1.0, 5.0, 10.0, 50.0]))
    how: dict[str, Any] = {"config": Config(optimizer="adam", scales=1), "steps": 5}
    one = sweep(params, content, style, weights, **how)
    some = sweep(params, content, style, weights, **how, devices=jax.devices())
    few = sweep(params, content, style, weights, **how, devices=jax.devices(), lanes=4)
    return {"apart": [float(jnp.abs(each.image - one.image).max()) for each in (some, few)], "shape": one.image.shape}


def commands(path: Path) -> Any:
    """Return status and standard error of each command in a file."""
    found = []
    for line in path.read_text().splitlines():
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
            status = main(line.split())
        found.append([status, said.getvalue()])
    return found


if __name__ == "__main__":
    [_, case, *rest] = sys.argv
    special: dict[str, Callable[[], Any]] = {"real": real, "lanes": lanes, "commands": lambda: commands(Path(rest[0]))}
    print(json.dumps(special[case]() if case in special else compared(case, **CASES[case])))

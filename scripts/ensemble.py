"""Variation of the picture between networks: one pair stylized by perturbed copies of VGG-19, in one program.

    python scripts/ensemble.py examples/cat.jpg examples/strokes.jpg ensemble.png

The params of the network are an argument, so `jax.vmap` maps over networks as over pictures. The kernels of each
network have independent relative noise, k (1 + NOISE n) with n normal, and each network has its targets; objective,
initial image and optimizer are the same. Where the mean of the pictures is sharp and their deviation dark, the picture
does not depend on the exact values of the kernels; where the mean is blurred and the deviation bright, it does.

The deviation is the root of the variance over networks, averaged over the three channels.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from terminal import start
from tyro.conf import Positional

from jaxstyle import init_state, load_image, load_params, make_targets, run_steps, save_image
from jaxstyle.images.contact_sheet import contact_sheet
from jaxstyle.networks.vgg import Params

SIZE, STEPS, NETWORKS, NOISE, ZOOM = 128, 60, 4, 0.3, 3


def disturbed(params: Params, key: jax.Array, noise: float) -> Params:
    """Return params of the same shape, whose kernels are those of `params` times 1 + `noise` n."""
    keys = dict(zip(params, jax.random.split(key, len(params)), strict=True))

    def kernel(name: str) -> jax.Array:
        exact = params[name]["kernel"]
        return exact * (1 + noise * jax.random.normal(keys[name], exact.shape))

    return {name: {**params[name], "kernel": kernel(name)} for name in params}


def ensemble(params: Params, content: jax.Array, style: jax.Array, noise: float = NOISE) -> jax.Array:
    """Return the picture of each network, `[NETWORKS, H, W, 3]`."""

    def picture(params: Params) -> jax.Array:
        targets = make_targets(params, content, style)
        return run_steps(init_state(content), params, targets, steps=STEPS)[0].image

    keys = jax.random.split(jax.random.key(0), NETWORKS)
    networks = jax.vmap(lambda key: disturbed(params, key, noise))(keys)  # each leaf [NETWORKS, ...]
    return jax.jit(jax.vmap(picture))(networks)


def main(content: Positional[Path], style: Positional[Path], output: Positional[Path]) -> None:
    """Save mean, deviation and the picture of each network on one sheet, and print the size of the deviation."""
    photograph, painting = (jnp.asarray(load_image(path, size=SIZE).rgb) for path in (content, style))
    pictures = np.asarray(ensemble(load_params("auto"), photograph, painting))
    mean, deviation = pictures.mean(0), np.sqrt(pictures.var(0).mean(-1, keepdims=True))  # [H, W, 3] and [H, W, 1]
    brightest = max(float(deviation.max()), 1e-12)
    print(f"{NETWORKS} networks, noise {NOISE:g}: mean deviation {deviation.mean():.4f}, maximum {brightest:.4f}")
    cells = [mean, np.repeat(deviation / brightest, 3, axis=-1), *pictures]
    labels = ["mean", f"deviation, white is {brightest:.2f}", *(f"network {i + 1}" for i in range(NETWORKS))]
    cells = [np.kron(each, np.ones((ZOOM, ZOOM, 1))) for each in cells]
    save_image(output, contact_sheet(cells, labels, columns=3))


if __name__ == "__main__":
    start(main)

"""Gatys et al.'s neural style transfer in sixty lines: python scripts/stylize.py photo.jpg painting.jpg out.png."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxstyle import VGG19, load_image, load_params, save_image

SIZE, STEPS, SEGMENT = 384, 200, 20
CONTENT_LAYER, STYLE_LAYERS = "relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def gram(features: jax.Array) -> jax.Array:
    """Return the correlations of channels, the mean of f f^T over pixels."""
    return jnp.einsum("hwi,hwj->ij", features, features) / (features.shape[0] * features.shape[1])  # [C, C]


def relative(x: jax.Array, target: jax.Array) -> jax.Array:
    """Return the squared distance from a target, 1 for zero."""
    return jnp.sum((x - target) ** 2) / jnp.sum(target**2)


def main(content_path: str, style_path: str, output_path: str) -> None:
    """Transfer the style of one image to another."""
    content = jnp.asarray(load_image(content_path, size=SIZE).rgb)  # [H, W, 3], sRGB in [0, 1]
    style = jnp.asarray(load_image(style_path, size=SIZE).rgb)
    params = load_params("auto")  # VGG-19, or the mini network if it cannot be downloaded
    features, variables = jax.jit(VGG19.from_params(params).apply), {"params": params}  # every activation by name
    content_target, style_features = features(variables, content)[CONTENT_LAYER], features(variables, style)
    style_targets = {layer: gram(style_features[layer]) for layer in STYLE_LAYERS}
    optimizer = optax.adam(0.02)

    def loss(image: jax.Array, variables: Any) -> jax.Array:
        activations = features(variables, image)
        of_style = [relative(gram(activations[layer]), style_targets[layer]) for layer in STYLE_LAYERS]
        variation = jnp.mean(jnp.diff(image, axis=0) ** 2) + jnp.mean(jnp.diff(image, axis=1) ** 2)
        return relative(activations[CONTENT_LAYER], content_target) + 30 * sum(of_style) / len(of_style) + 5 * variation

    @jax.jit
    def segment(carry, variables):  # the network is an argument: a constant would be copied into the program
        def step(carry, _):
            image, state = carry
            value, gradient = jax.value_and_grad(loss)(image, variables)
            updates, state = optimizer.update(gradient, state)
            return (jnp.clip(image + updates, 0, 1), state), value

        return jax.lax.scan(step, carry, length=SEGMENT)

    carry = content, optimizer.init(content)
    for done in range(SEGMENT, STEPS + 1, SEGMENT):
        carry, values = segment(carry, variables)
        print(f"step {done}: loss {values[-1]:.4f}")
    save_image(output_path, carry[0])


if __name__ == "__main__":
    main(*sys.argv[1:])

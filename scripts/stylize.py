"""Gatys et al.'s neural style transfer in forty lines: python scripts/stylize.py photo.jpg painting.jpg out.png."""

import sys

import jax
import jax.numpy as jnp
import optax

from jaxstyle import VGG19, load_image, load_params, save_image

SIZE, STEPS, SEGMENT = 384, 200, 20
CONTENT_LAYER, STYLE_LAYERS = "relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def gram(features: jax.Array) -> jax.Array:
    """Return the correlations of channels, the mean of f f^T over pixels."""
    return jnp.einsum("hwi,hwj->ij", features, features) / (features.shape[0] * features.shape[1])  # [C, C]


def relative(found: jax.Array, target: jax.Array) -> jax.Array:
    """Return the squared distance from a target, 1 for zero."""
    return jnp.sum((found - target) ** 2) / jnp.sum(target**2)


def main(content_path: str, style_path: str, output_path: str) -> None:
    """Transfer the style of one image to another."""
    content = jnp.asarray(load_image(content_path, size=SIZE).rgb)  # [H, W, 3], sRGB in [0, 1]
    style = jnp.asarray(load_image(style_path, size=SIZE).rgb)
    params = load_params("auto")  # VGG-19, or the mini network if it cannot be downloaded
    network = VGG19.from_params(params)
    features = jax.jit(lambda image: network.apply({"params": params}, image))  # every activation by name
    content_target = features(content)[CONTENT_LAYER]
    style_targets = {layer: gram(features(style)[layer]) for layer in STYLE_LAYERS}

    def loss(image: jax.Array) -> jax.Array:
        found = features(image)
        of_style = sum(relative(gram(found[layer]), style_targets[layer]) for layer in STYLE_LAYERS) / len(STYLE_LAYERS)
        variation = jnp.mean(jnp.diff(image, axis=0) ** 2) + jnp.mean(jnp.diff(image, axis=1) ** 2)
        return relative(found[CONTENT_LAYER], content_target) + 30 * of_style + 5 * variation

    optimizer = optax.adam(0.02)

    def step(carry, _):
        image, state = carry
        value, gradient = jax.value_and_grad(loss)(image)
        updates, state = optimizer.update(gradient, state)
        return (jnp.clip(image + updates, 0, 1), state), value

    segment = jax.jit(lambda carry: jax.lax.scan(step, carry, length=SEGMENT))
    carry = content, optimizer.init(content)
    for done in range(SEGMENT, STEPS + 1, SEGMENT):
        carry, values = segment(carry)
        print(f"step {done}: loss {values[-1]:.4f}")
    save_image(output_path, carry[0])


if __name__ == "__main__":
    main(*sys.argv[1:])

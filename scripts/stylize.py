"""Gatys et al.'s neural style transfer, whole, in forty lines: read it top to bottom, then change it.

python scripts/stylize.py examples/cat.jpg examples/strokes.jpg cat.png
"""

import sys

import jax
import jax.numpy as jnp

from jaxstyle import (
    VGG19,
    Config,
    LossWeights,
    init,
    load_image,
    load_params,
    make_targets,
    run,
    save_image,
    terms,
    total,
)

SIZE, STEPS, SEGMENT = 384, 150, 10


def main(content_path: str, style_path: str, output_path: str) -> None:
    """Repaint the picture at `content_path` in the style of the one at `style_path`."""
    content = jnp.asarray(load_image(content_path, size=SIZE).rgb)  # [H, W, 3], sRGB in [0, 1]
    style = jnp.asarray(load_image(style_path, size=SIZE).rgb)
    params = load_params("auto")  # VGG-19, or the mini network where it cannot be had
    network = VGG19.from_params(params)  # a Linen module: network.apply({"params": params}, image) returns activations
    activations = jax.eval_shape(network.apply, {"params": params}, content)
    print(f"conv1_1 to relu5_4: {len(activations)} activations, relu4_2 is {activations['relu4_2'].shape}")

    # What is compared, and how much it counts. The loss is the weighted sum of the terms.
    config = Config(
        content_layers=("relu4_2",),
        style_layers=("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        optimizer="lbfgs",
    )
    weights = LossWeights(content={"relu4_2": 1.0}, style=dict.fromkeys(config.style_layers, 6.0))
    targets = make_targets(params, content, style, config=config)  # content features, Gram matrices of the style
    untouched = terms(params, content, targets, config=config)
    print(f"the untouched photograph scores {total(weights, untouched):.3f}, nearly all of it style")

    # What is optimised is the image. A segment is one compiled `lax.scan`; any number of them equals one long run.
    state = init(content, config=config)
    for step in range(0, STEPS, SEGMENT):
        state, trace = run(state, params, targets, weights, config=config, steps=SEGMENT)
        print(f"step {step + SEGMENT}: total {trace['total'][-1]:.4f}, content {trace['content/relu4_2'][-1]:.4f}")
    save_image(output_path, state.image)


if __name__ == "__main__":
    main(*sys.argv[1:])

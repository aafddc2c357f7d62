# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Neural style transfer in forty lines of JAX
#
# This page implements [*A Neural Algorithm of Artistic Style*](https://arxiv.org/abs/1508.06576) by Gatys, Ecker and
# Bethge. It imports only two names from jaxstyle: `load_params` loads the weights of a network, and `VGG19` is the
# network. Losses and loop are plain JAX and Optax.
#
# The network is the mini network that comes with jaxstyle, a small copy of VGG-19, which was trained to classify
# photographs. Images have 128 pixels, so that the page runs in seconds on a laptop.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from jaxstyle import VGG19, load_params


def load(path, size):
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return jnp.asarray(picture, jnp.float32) / 255


def show(*pictures):  # side by side
    row = jnp.concatenate([jnp.clip(each, 0, 1) for each in pictures], axis=1)
    height, width, _ = row.shape
    picture = Image.fromarray(np.asarray(255 * row + 0.5, np.uint8))
    return picture.resize((3 * width, 3 * height))


params = load_params("mini")
network = VGG19.from_params(params)  # a Linen module with the widths of the params


@jax.jit
def features(image):
    return network.apply({"params": params}, image)


content = load("examples/cat.jpg", 128)  # [H, W, 3], sRGB in [0, 1]
style = load("examples/strokes.jpg", 128)
print(content.shape, style.shape)

# %% [markdown]
# ## Features
#
# `features` is a pure function. It returns all activations of the network for an image: early layers respond to colors
# and edges; late layers, which have fewer pixels and more channels, respond to parts of objects.

# %%
for layer, activation in features(content).items():
    if layer.startswith("relu") and layer.endswith("_1"):
        print(layer, activation.shape)

# %% [markdown]
# ## Content: the same features at the same positions
#
# Two images have the same content if their features agree, pixel by pixel, at a late layer:
#
# $$C = \frac{\sum_{k,i} (F_{ki} - P_{ki})^2}{\sum_{k,i} P_{ki}^2}$$
#
# $F_{ki}$ is the feature of the image at pixel $k$ in channel $i$, and $P_{ki}$ the feature of the photograph. The
# paper uses half the sum. Division by the target's energy gives a loss of 1 for features that are all zero, at any
# layer and size.
#
# ## Style: the same correlations at any position
#
# The Gram matrix contains the correlations of channels without positions:
#
# $$G_{ij} = \frac{1}{N} \sum_k F_{ki} F_{kj}$$
#
# Swirls activate certain pairs of channels, and dots activate others. The loss compares matrices in the same way as
# features, at several layers, for fine and coarse structure.

# %%
CONTENT_LAYER = "relu4_2"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def distance(x, target):
    return jnp.sum((x - target) ** 2) / jnp.sum(target**2)


def gram(activation):
    pixels = activation.reshape(-1, activation.shape[-1])  # [N, C]
    return pixels.T @ pixels / pixels.shape[0]  # [C, C]


def smoothness(image):
    down, right = jnp.diff(image, axis=0), jnp.diff(image, axis=1)
    return jnp.mean(down**2) + jnp.mean(right**2)


content_target = features(content)[CONTENT_LAYER]
of_painting = features(style)
style_targets = {layer: gram(of_painting[layer]) for layer in STYLE_LAYERS}


def loss(image, style_weight, smooth_weight):
    activations = features(image)
    of_content = distance(activations[CONTENT_LAYER], content_target)
    each = [
        distance(gram(activations[layer]), style_targets[layer])
        for layer in STYLE_LAYERS
    ]
    of_style = sum(each) / len(each)
    return of_content + style_weight * of_style + smooth_weight * smoothness(image)


print(f"the untouched photograph scores {loss(content, 30.0, 5.0):.2f}")

# %% [markdown]
# ## The loop: gradient descent on the pixels
#
# The network is fixed; gradient descent changes only the image. A step is a pure function
# of its state, so all steps are one `jax.lax.scan`, compiled once.

# %%
STEPS = 100
optimizer = optax.adam(0.02)


@jax.jit
def paint(image, style_weight, smooth_weight):
    def step(state, _):
        image, memory = state
        value, gradient = jax.value_and_grad(loss)(image, style_weight, smooth_weight)
        updates, memory = optimizer.update(gradient, memory)
        return (jnp.clip(optax.apply_updates(image, updates), 0, 1), memory), value

    start = image, optimizer.init(image)
    (image, _), losses = jax.lax.scan(step, start, length=STEPS)
    return image, losses


picture, losses = paint(content, 30.0, 5.0)
for step in (0, 10, 50, STEPS - 1):
    print(f"step {step}: loss {losses[step]:.2f}")
show(content, picture)

# %% [markdown]
# This is the complete method, in about forty lines with its imports.
#
# ## More or less style
#
# Weights are arguments, not constants, so other values do not trigger a recompilation:

# %%
show(*(paint(content, weight, 5.0)[0] for weight in (3.0, 300.0)))

# %% [markdown]
# `jax.vmap` makes pictures with several weights as a batch in one program:

# %%
several = jax.vmap(paint, in_axes=(None, 0, None))
pictures, _ = several(content, jnp.array([1.0, 10.0, 100.0]), 5.0)
show(*pictures)

# %% [markdown]
# ## What jaxstyle adds
#
# [The method](../method.md) has a formula for every loss of jaxstyle, beside its function. jaxstyle also has:
#
# - lbfgs on a pyramid instead of adam on pixels, and coarse-to-fine scales: large structures converge faster;
# - more statistics than Gram matrices, several styles, regions, colors;
# - images larger than memory, several devices, checkpoints.
#
# [scripts/stylize.py](../../scripts/stylize.py) is the script version of this page. The next page,
# [differentiating through style transfer](differentiating.py), takes the gradient of the loop.

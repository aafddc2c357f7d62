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
# # Differentiating through style transfer
#
# `run` is a pure function of a state, a `jax.lax.scan` over steps. So its picture has derivatives with respect to all
# inputs: the weights of the loss, the photograph, the style. This page computes some of them in seconds, at 64 pixels
# with the mini network.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxstyle
from jaxstyle import VGG19, Config, LossWeights, init, make_targets, run

params = jaxstyle.load_params("mini")
content = jnp.asarray(jaxstyle.load_image("examples/cat.jpg", size=64).rgb)
style = jnp.asarray(jaxstyle.load_image("examples/mosaic.jpg", size=64).rgb)


def show(*pictures):  # side by side
    whole = jnp.concatenate([jnp.clip(each, 0, 1) for each in pictures], axis=1)
    height, width, _ = whole.shape
    picture = Image.fromarray(np.asarray(255 * whole + 0.5, np.uint8))
    return picture.resize((4 * width, 4 * height))


# %% [markdown]
# Derivatives through many steps are accurate only if the steps are smooth. Average pooling has no maxima that switch
# between pixels, and adam with a large `epsilon` does not amplify small gradients. (lbfgs divides by differences of
# gradients; its picture is better, its derivatives are worse.) Adam clips at each step; the derivative of a clipped
# value is zero.

# %%
config = Config(
    content_layers=("relu3_2",),
    style_layers=("relu1_1", "relu2_1", "relu3_1"),
    pooling="avg",
    optimizer="adam",
    learning_rate=0.05,
    epsilon=0.01,
)
targets = make_targets(params, content, style, config=config)
start = init(content, config=config)
STEPS = 30


def painted(strength):
    """Return the picture for a weight of e**strength, shared out among the style layers."""
    each = jnp.exp(strength) / len(config.style_layers)
    weights = LossWeights(
        content=dict.fromkeys(config.content_layers, 1.0),
        style=dict.fromkeys(config.style_layers, each),
    )
    state, _ = run(start, params, targets, weights, config=config, steps=STEPS)
    return state.image


show(content, *(painted(jnp.log(weight)) for weight in (0.3, 3.0, 30.0)))

# %% [markdown]
# ## A sensitivity image: forward mode
#
# `jax.jvp` carries one tangent through the loop and gives the derivative of *every pixel* with respect to one number:
# the change of the picture with the style weight. It stores nothing of earlier steps, so its memory does not grow with
# the number of steps.

# %%
middle = jnp.log(3.0)
sensitivity = jax.jit(lambda s: jax.jvp(painted, (s,), (jnp.ones_like(s),)))
picture, tangent = sensitivity(middle)
show(picture, 0.5 + 0.4 * tangent / jnp.abs(tangent).max())

# %% [markdown]
# Gray pixels on the right do not change. The cosine between the tangent and a finite difference, here between weights
# a quarter lower and a third higher, shows how well the tangent predicts the picture at another weight:

# %%
change = (painted(middle + 0.3) - painted(middle - 0.3)) / 0.6
lengths = jnp.linalg.norm(change) * jnp.linalg.norm(tangent)
cosine = jnp.vdot(change, tangent) / lengths
print(f"cosine of tangent and finite difference: {cosine:.2f}")
assert cosine > 0.5

# %% [markdown]
# ## The gradient of a score: reverse mode
#
# `jax.grad` goes in the other direction: from one number, a score of the final picture, back through all steps to all
# inputs. The score here is the distance between picture and photograph in a layer that the loss does not use:

# %%
JUDGED = "relu2_2"
network = VGG19.from_params(params)


def features(image):
    return network.apply({"params": params}, image)[JUDGED]


seen = features(content)


def moved(strength):
    found = features(painted(strength))
    return jnp.sum((found - seen) ** 2) / jnp.sum(seen**2)


judge = jax.jit(jax.value_and_grad(moved))
value, slope = judge(middle)
print(f"moved by {value:.3f}, by {slope:+.4f} more for each e-fold of the style weight")

# %% [markdown]
# Both modes compute derivatives of the same function, so they agree:

# %%
along = jax.jit(lambda s: jax.jvp(moved, (s,), (jnp.ones_like(s),))[1])(middle)
print(f"reverse {slope:+.5f}, forward {along:+.5f}")
assert jnp.allclose(slope, along, rtol=5e-2)

# %% [markdown]
# ## Gradient-based choice of the weight
#
# This gradient can choose the weight. The target here is a distance of 0.3. Each step of the outer loop makes a picture
# and takes one Newton step on its weight:

# %%
WANTED = 0.3
strength = jnp.log(0.3)
for _ in range(6):
    value, slope = judge(strength)
    print(f"style weight {jnp.exp(strength):7.3f}: moved by {value:.4f}")
    strength = strength - jnp.clip((value - WANTED) / slope, -1.5, 1.5)
assert abs(moved(strength) - WANTED) < 0.03
show(content, painted(strength))

# %% [markdown]
# The same works for every leaf of `LossWeights`, for single layers, for the photograph and for the style: make them
# arguments of the differentiated function. Memory is the limit: reverse mode stores the residuals of every step.
# `run(..., segments=5)` stores only the state at the start of each of five segments and recomputes the rest; the
# gradient is the same:


# %%
def moved_in_segments(strength):
    each = jnp.exp(strength) / len(config.style_layers)
    weights = LossWeights(
        content=dict.fromkeys(config.content_layers, 1.0),
        style=dict.fromkeys(config.style_layers, each),
    )
    state, _ = run(
        start, params, targets, weights, config=config, steps=STEPS, segments=5
    )
    found = features(state.image)
    return jnp.sum((found - seen) ** 2) / jnp.sum(seen**2)


again = jax.jit(jax.grad(moved_in_segments))(middle)
print(f"whole {judge(middle)[1]:+.5f}, in segments {again:+.5f}")
assert jnp.allclose(again, judge(middle)[1], rtol=5e-2)

# %% [markdown]
# [For researchers](../research.md) covers custom terms, networks and optimizers, [the method](../method.md) the losses,
# and [the first tutorial](forty_lines.py) writes out the loop.

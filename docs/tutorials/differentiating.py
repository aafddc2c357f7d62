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
# `run` is a pure function: state in, state out, a `jax.lax.scan` of steps in between. So its picture has derivatives
# with respect to whatever went in: the weights of the loss, the photograph, the style. This page takes some of them,
# at 64 pixels and with the mini network, so that it takes seconds.

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
# Derivatives of a long descent are only as good as its steps are smooth. Average pooling has no maxima that change
# places, and adam with a large `epsilon` does not blow small gradients up. (lbfgs divides by differences of
# gradients; its picture is better, its derivatives are not.) Adam clips at each step; where a value is clipped, its
# derivative is zero.

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
# ## A picture of sensitivity: forward mode
#
# `jax.jvp` carries one tangent along with the loop and gives the derivative of *every pixel* with respect to one
# number: how the picture would change if the style weight did. It keeps nothing of the steps that lie behind, so
# that its memory does not grow with their number.

# %%
middle = jnp.log(3.0)
sensitivity = jax.jit(lambda s: jax.jvp(painted, (s,), (jnp.ones_like(s),)))
picture, tangent = sensitivity(middle)
show(picture, 0.5 + 0.4 * tangent / jnp.abs(tangent).max())

# %% [markdown]
# Grey on the right is what stays. How well the tangent predicts what another weight gives is the angle between it and
# a finite difference, here between weights a quarter lower and a third higher:

# %%
change = (painted(middle + 0.3) - painted(middle - 0.3)) / 0.6
lengths = jnp.linalg.norm(change) * jnp.linalg.norm(tangent)
cosine = jnp.vdot(change, tangent) / lengths
print(f"cosine of tangent and finite difference: {cosine:.2f}")
assert cosine > 0.5

# %% [markdown]
# ## The gradient of a judgement: reverse mode
#
# `jax.grad` goes the other way: from one number, some judgement of the final picture, back through all steps to
# everything that went in. The judgement here is how far the picture has moved from the photograph, as the network
# sees it at a layer that the loss does not compare:

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
# Both modes are derivatives of the same function, so they agree:

# %%
along = jax.jit(lambda s: jax.jvp(moved, (s,), (jnp.ones_like(s),))[1])(middle)
print(f"reverse {slope:+.5f}, forward {along:+.5f}")
assert jnp.allclose(slope, along, rtol=5e-2)

# %% [markdown]
# ## Descent on the weight itself
#
# With this gradient a weight need not be chosen by looking. Say the picture is to move by just 0.3. Each step of the
# outer loop paints a whole picture and takes one step of Newton's on its weight:

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
# The same works for every leaf of `LossWeights`, for each layer by itself, for the photograph and for the style: give
# them to the function that is differentiated. What bounds it is memory: reverse mode keeps what each step's gradient
# needs. `run(..., segments=5)` keeps only where each of five segments begins, and computes the rest again; the gradient
# is the same:


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
# [For researchers](../research.md) has terms, networks and optimisers of one's own, [the method](../method.md) the
# losses, and [the first page](forty_lines.py) writes the loop out.

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
# `run_steps` is a pure function of a state, a `jax.lax.scan` over steps. So its picture has derivatives with respect to
# all inputs: the weights of the loss, the learning rate, the photograph, the style. This page computes some of them in
# seconds, at 64 pixels with the mini network.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxstyle
from jaxstyle import VGG19, Adam, Objective, init_state, make_targets, run_steps

params = jaxstyle.load_params("mini")
content = jnp.asarray(jaxstyle.load_image("examples/cat.jpg", size=64).rgb)
style = jnp.asarray(jaxstyle.load_image("examples/mosaic.jpg", size=64).rgb)


def show(*pictures):  # side by side
    row = jnp.concatenate([jnp.clip(each, 0, 1) for each in pictures], axis=1)
    height, width, _ = row.shape
    picture = Image.fromarray(np.asarray(255 * row + 0.5, np.uint8))
    return picture.resize((4 * width, 4 * height))


# %% [markdown]
# Derivatives through many steps are accurate only if the steps are smooth. Average pooling has no maxima that switch
# between pixels, and adam with a large `eps` does not amplify small gradients. (lbfgs divides by differences of
# gradients, so its derivatives are worse, although its picture is better.) Adam clips at each step; the derivative of
# a clipped value is zero.

# %%
CONTENT_LAYERS, STYLE_LAYERS = ("relu3_2",), ("relu1_1", "relu2_1", "relu3_1")
NETWORK = VGG19(pooling="avg")
STEPS = 30


def objective_of(log_weight):
    """Return the objective with a weight of e**log_weight, divided among the style layers."""
    weight = jnp.exp(log_weight) / len(STYLE_LAYERS)
    return Objective(
        content=dict.fromkeys(CONTENT_LAYERS, 1.0),
        style=dict.fromkeys(STYLE_LAYERS, weight),
    )


objective = objective_of(0.0)
targets = make_targets(params, content, style, objective=objective, network=NETWORK)
optimizer = Adam(learning_rate=0.05, eps=0.01)
start = init_state(content, objective=objective, optimizer=optimizer)


def stylized(log_weight, **options):
    given = params, targets, objective_of(log_weight)
    state, _ = run_steps(start, *given, network=NETWORK, steps=STEPS, **options)
    return state.image


show(content, *(stylized(jnp.log(weight)) for weight in (0.3, 3.0, 30.0)))

# %% [markdown]
# ## A sensitivity image: forward mode
#
# `jax.jvp` carries one tangent through the loop and gives the derivative of *every pixel* with respect to one number:
# the change of the picture with the style weight. It stores nothing of earlier steps, so its memory does not grow with
# the number of steps.

# %%
middle = jnp.log(3.0)
sensitivity = jax.jit(lambda s: jax.jvp(stylized, (s,), (jnp.ones_like(s),)))
picture, tangent = sensitivity(middle)
show(picture, 0.5 + 0.4 * tangent / jnp.abs(tangent).max())

# %% [markdown]
# Gray pixels on the right do not change. The cosine between the tangent and a finite difference shows how well the
# tangent predicts the picture at another weight. The weights here are a quarter lower and a third higher:

# %%
change = (stylized(middle + 0.3) - stylized(middle - 0.3)) / 0.6
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
LAYER = "relu2_2"
network = VGG19.from_params(params)


def features(image):
    return network.apply({"params": params}, image)[LAYER]


target = features(content)


def distance(log_weight, **options):
    difference = features(stylized(log_weight, **options)) - target
    return jnp.sum(difference**2) / jnp.sum(target**2)


distance_and_slope = jax.jit(jax.value_and_grad(distance))
value, slope = distance_and_slope(middle)
print(f"distance {value:.3f}, derivative by the log of the style weight {slope:+.4f}")

# %% [markdown]
# Both modes compute derivatives of the same function, so they agree:

# %%
forward = jax.jit(lambda s: jax.jvp(distance, (s,), (jnp.ones_like(s),))[1])(middle)
print(f"reverse {slope:+.5f}, forward {forward:+.5f}")
assert jnp.allclose(slope, forward, rtol=5e-2)

# %% [markdown]
# ## Gradient-based choice of the weight
#
# This gradient can choose the weight. The target here is a distance of 0.3. Each step of the outer loop makes a picture
# and takes one Newton step on its weight:

# %%
GOAL = 0.3
log_weight = jnp.log(0.3)
for _ in range(6):
    value, slope = distance_and_slope(log_weight)
    print(f"style weight {jnp.exp(log_weight):7.3f}: distance {value:.4f}")
    log_weight = log_weight - jnp.clip((value - GOAL) / slope, -1.5, 1.5)
assert abs(distance(log_weight) - GOAL) < 0.03
show(content, stylized(log_weight))

# %% [markdown]
# The same works for every leaf of `Objective`, for the learning rate, for the photograph and for the style: make each
# of these an argument of the differentiated function. Memory is the limit: reverse mode stores the residuals of every
# step. `run_steps(..., checkpoint_segments=5)` stores only the state at the start of each of five segments and
# recomputes the rest; the gradient is the same:

# %%
in_segments = jax.jit(jax.grad(lambda s: distance(s, checkpoint_segments=5)))(middle)
_, slope = distance_and_slope(middle)
print(f"no segments {slope:+.5f}, five segments {in_segments:+.5f}")
assert jnp.allclose(in_segments, slope, rtol=5e-2)

# %% [markdown]
# [For researchers](../research.md) covers custom terms, networks and optimizers. [The method](../method.md) defines the
# losses, and [the first tutorial](forty_lines.py) writes out the loop.

"""Derivatives of the final picture through the loop, compared with central differences in float64."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_problem as toy

from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.loop import init_state, run_steps
from jaxstyle.optim.optimizers import LBFGS, Adam
from jaxstyle.transfer.stylize import stylize

pytestmark = pytest.mark.slow

OBJECTIVE = Objective(content={"relu2_2": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=20.0)
# Adam divides by the gradient's size: where that is small its step is a sign, unless epsilon is larger than by default.
OPTIMIZERS: dict[str, LBFGS | Adam] = {"lbfgs": LBFGS(history_size=4), "adam": Adam(eps=1e-4)}
STEPS = 7


@partial(jax.jit, static_argnames=("network", "checkpoint_segments"))
def brightness(inputs, network, checkpoint_segments=None):
    """Return the mean of a part of the final picture, a smooth function of all inputs."""
    params, objective = inputs["params"], inputs["objective"]
    targets = make_targets(params, inputs["content"], inputs["style"], objective=objective, network=network)
    state = init_state(inputs["start"], objective=objective, optimizer=inputs["optimizer"])
    options = {"network": network, "steps": STEPS, "checkpoint_segments": checkpoint_segments}
    return run_steps(state, params, targets, objective, **options)[0].image[1:, ::3].mean()


gradient = jax.jit(jax.grad(brightness), static_argnames=("network", "checkpoint_segments"))


def difference(inputs, network, directions, step):
    """Return the central difference of the brightness along `directions`, for some of `inputs`."""
    ends = []
    for by in (step, -step):
        moved = {name: jax.tree.map(lambda x, d, by=by: x + by * d, inputs[name], d) for name, d in directions.items()}
        ends.append(float(brightness({**inputs, **moved}, network)))
    return (ends[0] - ends[1]) / (2 * step)


def check(inputs, network, checkpoint_segments):
    """Compare the gradient by each array with a central difference along it, and by each number with another."""
    slopes, rng = jax.tree.map(np.asarray, gradient(inputs, network, checkpoint_segments)), np.random.default_rng(0)
    for name in ("params", "content", "style", "start"):
        # uphill in each number, so that the slope stands out from rounding
        uphill = partial(jax.tree.map, lambda leaf, slope: np.abs(rng.normal(size=leaf.shape)) * np.sign(slope))
        directions = uphill(inputs[name], slopes[name])
        slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, slopes[name], directions)))
        assert slope == pytest.approx(difference(inputs, network, {name: directions}, step=1e-8), rel=1e-5), name
        assert slope > 0
    numbers = {name: inputs[name] for name in ("objective", "optimizer")}
    leaves, structure = jax.tree.flatten(numbers)
    slopes_of_numbers = jax.tree.leaves({name: slopes[name] for name in numbers})
    clipped = isinstance(inputs["optimizer"], Adam)
    for number, (path, leaf) in enumerate(jax.tree.leaves_with_path(numbers)):
        directions = jax.tree.unflatten(structure, [leaf * (i == number) for i, leaf in enumerate(leaves)])
        slope, expected = slopes_of_numbers[number], difference(inputs, network, directions, step=1e-6)
        assert slope * leaf == pytest.approx(expected, rel=1e-5), path
        penalty = "range_penalty" in jax.tree_util.keystr(path)
        if clipped or not penalty:
            assert (slope == 0) == penalty, path  # adam clips, so nothing is out of range
    return slopes


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.soak(long=True)
def test_gradients_equal_central_differences_on_vgg(params, content, style, name):
    setting = {"params": params, "content": content, "style": style, "start": content[::-1], "objective": OBJECTIVE}
    with jax.enable_x64(True):
        inputs = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), setting | {"optimizer": OPTIMIZERS[name]})
        check(inputs, VGG19(), 3)


@pytest.mark.parametrize("name", ["lbfgs", pytest.param("adam", marks=pytest.mark.soak(long=True))])
def test_gradients_with_all_extras_in_checkpoint_segments_and_in_both_modes(name):
    """With an average, for lbfgs with patience, and for adam with normalized gradients.

    Backward in segments, and forward without them, by all inputs.
    """
    optimizer = replace(OPTIMIZERS[name], ema_decay=0.8)
    objective = replace(toy.OBJECTIVE, tv=20.0, normalize_gradients=name == "adam")
    setting = {"params": toy.PARAMS, "content": toy.CONTENT, "style": toy.STYLE, "start": toy.START}
    with jax.enable_x64(True):
        inputs = jax.tree.map(np.float64, setting | {"objective": objective, "optimizer": optimizer})
        slopes = check(inputs, toy.network, 3)

        @jax.jit
        def forwards(inputs, directions):
            return jax.jvp(lambda x: brightness(x, toy.network), (inputs,), (directions,))[1]

        rng = np.random.default_rng(1)
        directions = jax.tree.map(lambda leaf: rng.normal(size=np.shape(leaf)), inputs)
        reverse = sum(jax.tree.leaves(jax.tree.map(np.vdot, slopes, directions)))
        assert forwards(inputs, directions) == pytest.approx(reverse, rel=1e-9)


@pytest.mark.slow(optimized=True)
def test_adam_is_the_same_bit_for_bit_with_and_without_its_gradient(params, content, style):
    """Else derivatives of long runs, which depend on rounding, would be those of another run."""
    targets = make_targets(params, content, style, objective=OBJECTIVE)

    def picture(objective):
        state = init_state(content, objective=objective, optimizer=Adam())
        return run_steps(state, params, targets, objective, steps=30)[0].image

    objective = jax.tree.map(jnp.asarray, OBJECTIVE)
    beside = jax.jit(lambda objective: jax.vjp(picture, objective))(objective)[0]
    np.testing.assert_array_equal(beside, jax.jit(picture)(objective))


def test_the_gradient_of_stylize_goes_through_scales_in_checkpoint_segments_too():
    """Over two scales, of which the second has fewer steps than there are segments; by content and weight."""
    rng = np.random.default_rng(0)
    content, style = rng.uniform(0.2, 0.8, (2, 8, 12, 3))

    @partial(jax.jit, static_argnames="checkpoint_segments")
    def program(strength, content, checkpoint_segments):
        def mean(strength, content):
            objective = replace(toy.OBJECTIVE, style=dict.fromkeys(toy.OBJECTIVE.style_layers, strength))
            result = stylize(
                toy.PARAMS,
                content,
                style,
                objective=objective,
                network=toy.network,
                optimizer=OPTIMIZERS["adam"],
                steps=7,
                scales=(8, 12),
                checkpoint_segments=checkpoint_segments,
            )
            return result.image[2:, ::3].mean()

        return jax.value_and_grad(mean, (0, 1))(strength, content)

    with jax.enable_x64(True):
        whole, cut = (program(6.0, content, checkpoint_segments) for checkpoint_segments in (None, 4))
        for mine, expected in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-14)
        _, (by_weight, by_content) = whole
        direction, step = np.cos(np.arange(content.size)).reshape(content.shape), 1e-6
        ends = [program(6.0, content + sign * step * direction, None)[0] for sign in (1, -1)]
        expected = float(ends[0] - ends[1]) / (2 * step)
        assert np.vdot(by_content, direction) == pytest.approx(expected, rel=1e-4) and expected != 0
        ends = [program(6.0 + sign * 1e-5, content, None)[0] for sign in (1, -1)]
        assert by_weight == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-4) and by_weight != 0

"""What only a GPU or TPU does: rounded products, donated states, and several of them; `pytest -m slow` runs it there.

Expectations follow from the formats: TF32 has factors of 11 bits, bfloat16 of 8, both sum in float32.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import picture

from jaxstyle import VGG19, Adam, Objective, make_targets, sweep
from jaxstyle.losses.layer_summaries import image_features
from jaxstyle.optim.loop import init_state, run_segment
from jaxstyle.runtime.fitting import fit
from jaxstyle.runtime.problem import make_problem

OBJECTIVE = Objective(content={"relu2_1": 1.0}, style={"relu1_1": 6.0, "relu2_1": 6.0}, tv=0.1)
OPTIONS: dict[str, Any] = {"objective": OBJECTIVE, "optimizer": Adam(), "steps": 6, "scales": 1}
EXACT = VGG19(precision="float32")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def accelerators() -> list[Any]:
    result = [device for device in jax.local_devices() if device.platform != "cpu"]
    if not result:
        pytest.skip("this machine has no GPU or TPU")
    return result


@pytest.fixture
def several(accelerators) -> list[Any]:
    if len(accelerators) < 2:
        pytest.skip(f"this machine has one accelerator: {accelerators[0].device_kind}")
    return accelerators


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 11), ("bfloat16", 8)])
def test_products_are_rounded_to_the_precision_and_no_further(precision, bits, params):
    image, layers = picture(64, 64, seed=0), ("relu1_2", "relu3_1")
    exact, rounded = (
        image_features(params, image, network=VGG19(precision=each), layers=layers) for each in ("float32", precision)
    )
    for layer in layers:
        error = jnp.linalg.norm(rounded[layer].astype(jnp.float32) - exact[layer]) / jnp.linalg.norm(exact[layer])
        assert error < 4 * 2.0**-bits, layer  # of four layers at most, whose errors are independent
        assert error > 0 or precision == "tf32", layer  # which GPUs before 2020 do not have


def test_float32_equals_the_cpu(params):
    image, layers = picture(64, 64, seed=0), ("relu1_2", "relu3_1")
    here = image_features(params, image, network=EXACT, layers=layers)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        there = image_features(*jax.tree.map(np.asarray, (params, image)), network=EXACT, layers=layers)
    for layer in layers:
        np.testing.assert_allclose(here[layer], there[layer], rtol=1e-4, atol=1e-4 * float(there[layer].max()))


def test_a_segment_of_steps_reuses_the_memory_of_its_state(params, content, style):
    targets = make_targets(params, content, style, objective=OBJECTIVE)
    state = jax.device_put(init_state(content, objective=OBJECTIVE, optimizer=Adam()))
    options: dict[str, Any] = {"network": VGG19(), "most_steps": 3}
    program = run_segment.lower(state, params, targets, OBJECTIVE, jnp.int32(3), **options).compile()
    actual: Any = program.memory_analysis()
    image_bytes = 4 * np.prod(content.shape)
    assert actual.alias_size_in_bytes >= 3 * image_bytes  # pixels and both moments
    program(state, params, targets, OBJECTIVE, jnp.int32(3))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.parameters, state.memory)) if leaf.ndim == 3)


def test_rows_and_pictures_divided_among_accelerators_equal_those_of_one(several, params):
    content, style = picture(32 * len(several), 40, seed=0), picture(36, 32, seed=1)
    one, divided = (
        fit(make_problem(params, content, style, network=EXACT, devices=count, **OPTIONS)).image
        for count in (1, len(several))
    )
    assert one is not None and divided is not None
    np.testing.assert_allclose(divided, one, atol=2e-3)
    weights = jnp.linspace(0.1, 1.0, 2 * len(several))
    options = OPTIONS | {"network": EXACT, "objective": replace(OBJECTIVE, tv=weights)}
    alone, shared = (sweep(params, content, style, devices=each, **options) for each in (None, several))
    np.testing.assert_allclose(shared.image, alone.image, atol=2e-3)

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_moments import numpy_statistics

from jaxstyle import statistic as module
from jaxstyle.errors import InputError
from jaxstyle.losses import Divisor
from jaxstyle.moments import Moments
from jaxstyle.statistic import Statistic, distance, summarize
from jaxstyle.transport import Quantiles

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
FEATURES = RNG.normal(0.5, 1, (2, 5, 7, 3)).astype(np.float32)
STYLE = (RNG.normal(size=(5, 7, 3)) @ RNG.normal(size=(3, 3)) + 1).astype(np.float32)
WEIGHTS = RNG.uniform(size=(5, 7))
GUIDE = (WEIGHTS / WEIGHTS.sum()).astype(np.float32)
ELEMENTS: dict[Statistic, int] = {"gram": 9, "covariance": 9, "mean_std": 6}
ZEROS: Any = np.zeros(3, np.float32)
EYE: Any = np.eye(3, dtype=np.float32)
LEVELS: Any = np.zeros((3, 512), np.float32)
MOMENTS, QUANTILES = Moments(ZEROS, EYE), Quantiles(EYE, LEVELS)


@jax.jit
def compared(x, style) -> Any:
    """Return the distance of guided features by statistic and divisor."""
    found, options = {}, {"guide": GUIDE, "shift": -1.0, "scale": 1 / 3}
    for statistic in ELEMENTS:
        target = summarize(style, statistic=statistic)
        found[statistic] = {
            name: distance(x, target, statistic=statistic, divisor=name, **options) for name in get_args(Divisor)
        }
    return found


@pytest.mark.parametrize("statistic", ELEMENTS)
def test_distance_of_guided_features_is_that_of_their_statistics(statistic):
    name = "shifted" if statistic == "gram" else statistic  # shift and scale are those of Gram matrices only
    target = numpy_statistics(STYLE, np.full((5, 7), 1 / 35))[name]
    squares = np.stack([np.sum((numpy_statistics(x, GUIDE)[name] - target) ** 2) for x in FEATURES])
    found = jax.device_get(compared(FEATURES, STYLE))[statistic]
    for divisor, by in {"energy": np.sum(target**2), "elements": ELEMENTS[statistic], "none": 1}.items():
        np.testing.assert_allclose(found[divisor], squares / by, rtol=1e-5)


def test_distance_of_moments_by_default_is_that_of_gram_matrices_over_their_energy():
    found = jax.jit(distance)(MOMENTS, Moments(ZEROS + 1, 0 * EYE + 2))
    assert found == pytest.approx((3 * 1 + 6 * 4) / 36, rel=1e-6)


def test_transport_distances_get_the_features_the_guide_and_the_divisor(monkeypatch):
    calls = []
    for name in ("wasserstein", "sliced"):
        monkeypatch.setattr(module, name, lambda *given, name=name, **options: calls.append((name, given, options)))
    distance(MOMENTS, MOMENTS, statistic="wasserstein", divisor="none")
    features: Any = FEATURES
    distance(features, QUANTILES, statistic="sliced", guide=GUIDE, divisor="elements")  # pyright: ignore[reportArgumentType]
    assert calls[0] == ("wasserstein", (MOMENTS, MOMENTS), {"divisor": "none"})
    name, given, options = calls[1]
    assert name == "sliced" and given[0] is FEATURES and given[1] is QUANTILES
    assert options["guide"] is GUIDE and options["divisor"] == "elements"


@pytest.mark.parametrize("statistic", get_args(Statistic))
def test_only_sliced_is_summarized_by_quantiles(statistic):
    found = jax.eval_shape(lambda style: summarize(style, key=KEY, statistic=statistic, guide=GUIDE), STYLE)
    assert isinstance(found, Quantiles if statistic == "sliced" else Moments)


def test_a_summary_of_another_statistic_is_refused():
    for target, other in ((QUANTILES, "gram"), (MOMENTS, "sliced")):
        with pytest.raises(InputError, match=f"{type(target).__name__}.*'{other}'"):
            distance(FEATURES, target, statistic=other)  # pyright: ignore[reportArgumentType]


def test_sliced_without_a_key_is_refused():
    with pytest.raises(InputError, match="'sliced' .*key"):
        summarize(STYLE, statistic="sliced")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize("statistic", get_args(Statistic))
def test_distances_are_finite_on_constant_features_and_fall_along_the_gradient_and_toward_the_style(statistic):
    """On features of VGG's size float32 leaves a covariance of several units, of either sign, where it should be 0."""
    levels = RNG.uniform(0, 300, 64).astype(np.float32)
    flat = np.broadcast_to(levels, (48, 48, 64))
    other = flat + (RNG.normal(size=(48, 48, 64)) * 100).astype(np.float32)
    zeros = np.zeros_like(other)

    @jax.jit
    def slope(x, style):
        target = summarize(style, key=KEY, statistic=statistic)
        return jax.value_and_grad(lambda x: distance(x, target, statistic=statistic))(x)

    for x, style in ((flat, other), (other, flat), (flat, flat), (flat, 2 * flat), (zeros, other), (other, zeros)):
        value, gradient = jax.device_get(slope(x, style))
        assert np.isfinite(value) and np.isfinite(gradient).all()
    style = jnp.asarray(other) @ jnp.asarray(RNG.normal(size=(64, 64)) / 8, jnp.float32)
    before, gradient = slope(other, style)
    assert slope(other - gradient * 1e-2 / jnp.max(jnp.abs(gradient)), style)[0] < before
    along = [float(slope((1 - t) * other + t * style, style)[0]) for t in np.linspace(0, 1, 5)]
    assert along == sorted(along, reverse=True) and along[-1] < 1e-3

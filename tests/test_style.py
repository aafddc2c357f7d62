from functools import partial
from typing import Any, get_args

import jax
import numpy as np
import pytest
from test_moments import numpy_statistics

from jaxstyle.errors import InputError
from jaxstyle.losses import style as module
from jaxstyle.losses.moments import Moments
from jaxstyle.losses.pixel import Normalization
from jaxstyle.losses.style import Statistic, distance, summarize
from jaxstyle.losses.wasserstein import Quantiles

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
    """Return the distance of guided features by statistic and normalization."""
    result, options = {}, {"guide": GUIDE, "shift": -1.0, "scale": 1 / 3}
    for statistic in ELEMENTS:
        target = summarize(style, statistic=statistic)
        result[statistic] = {
            name: distance(x, target, statistic=statistic, normalization=name, **options)
            for name in get_args(Normalization)
        }
    return result


@pytest.mark.parametrize("statistic", ELEMENTS)
def test_distance_of_guided_features_is_that_of_their_statistics(statistic):
    name = "shifted" if statistic == "gram" else statistic  # shift and scale are those of Gram matrices only
    target = numpy_statistics(STYLE, np.full((5, 7), 1 / 35))[name]
    squares = np.stack([np.sum((numpy_statistics(x, GUIDE)[name] - target) ** 2) for x in FEATURES])
    actual = jax.device_get(compared(FEATURES, STYLE))[statistic]
    for divisor, by in {"energy": np.sum(target**2), "elements": ELEMENTS[statistic], "none": 1}.items():
        np.testing.assert_allclose(actual[divisor], squares / by, rtol=1e-5)


def test_distance_of_moments_by_default_is_that_of_gram_matrices_over_their_energy():
    actual = jax.jit(distance)(MOMENTS, Moments(ZEROS + 1, 0 * EYE + 2))
    assert actual == pytest.approx((3 * 1 + 6 * 4) / 36, rel=1e-6)


def test_transport_distances_get_the_features_the_guide_and_the_divisor(monkeypatch):
    calls = []
    for name in ("wasserstein", "sliced"):
        monkeypatch.setattr(module, name, lambda *inputs, name=name, **options: calls.append((name, inputs, options)))
    distance(MOMENTS, MOMENTS, statistic="wasserstein", normalization="none")
    features: Any = FEATURES
    distance(features, QUANTILES, statistic="sliced", guide=GUIDE, normalization="elements")  # pyright: ignore[reportArgumentType]
    assert calls[0] == ("wasserstein", (MOMENTS, MOMENTS), {"normalization": "none"})
    name, inputs, options = calls[1]
    assert name == "sliced" and inputs[0] is FEATURES and inputs[1] is QUANTILES
    assert options["guide"] is GUIDE and options["normalization"] == "elements"


@pytest.mark.parametrize("statistic", get_args(Statistic))
def test_only_sliced_is_summarized_by_quantiles(statistic):
    actual = jax.eval_shape(lambda style: summarize(style, key=KEY, statistic=statistic, guide=GUIDE), STYLE)
    assert isinstance(actual, Quantiles if statistic == "sliced" else Moments)


def test_a_summary_of_another_statistic_is_refused():
    for target, other in ((QUANTILES, "gram"), (MOMENTS, "sliced")):
        with pytest.raises(InputError, match=f"{type(target).__name__}.*'{other}'"):
            distance(FEATURES, target, statistic=other)  # pyright: ignore[reportArgumentType]


def test_sliced_of_moments_is_refused():
    with pytest.raises(InputError, match="features"):
        distance(MOMENTS, QUANTILES, statistic="sliced")  # pyright: ignore[reportArgumentType]


def test_sliced_without_a_key_is_refused():
    with pytest.raises(InputError, match="'sliced' .*key"):
        summarize(STYLE, statistic="sliced")  # pyright: ignore[reportArgumentType]


@partial(jax.jit, static_argnames="statistic")
def slope(x, style, *, statistic):
    """Return the distance and its gradient."""
    target = summarize(style, key=KEY, statistic=statistic)
    return jax.value_and_grad(lambda x: distance(x, target, statistic=statistic))(x)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", get_args(Statistic))
def test_distances_and_gradients_are_finite_on_constant_features(statistic):
    """On features of VGG's size float32 leaves a covariance of several units, of either sign, where it should be 0."""
    levels = RNG.uniform(0, 300, 64).astype(np.float32)
    flat = np.broadcast_to(levels, (48, 48, 64))
    other = flat + (RNG.normal(size=(48, 48, 64)) * 100).astype(np.float32)
    zeros = np.zeros_like(other)
    for x, style in ((flat, other), (other, flat), (flat, flat), (flat, 2 * flat), (zeros, other), (other, zeros)):
        value, gradient = jax.device_get(slope(x, style, statistic=statistic))
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize("statistic", get_args(Statistic))
def test_distances_fall_along_the_gradient_and_to_zero_toward_the_style(statistic):
    rng = np.random.default_rng(0)
    style = (rng.normal(size=(16, 12, 4)) @ rng.normal(size=(4, 4)) + rng.normal(size=4)).astype(np.float32)
    x = (0.2 * rng.normal(size=(16, 12, 4))).astype(np.float32)
    before, gradient = jax.device_get(slope(x, style, statistic=statistic))
    assert slope(x - 1e-3 / np.abs(gradient).max() * gradient, style, statistic=statistic)[0] < before
    line = [((1 - t) * x + t * style).astype(np.float32) for t in np.linspace(0, 1, 9)]
    along = [float(slope(each, style, statistic=statistic)[0]) for each in line]
    assert all(after < before for before, after in zip(along, along[1:], strict=False))
    assert along[0] > 0.1 and along[-1] == pytest.approx(0, abs=1e-4)

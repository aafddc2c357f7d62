from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.errors import InputError
from jaxstyle.losses import Divisor
from jaxstyle.moments import Moments
from jaxstyle.statistic import Statistic, distance, summarize
from jaxstyle.transport import Quantiles

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
STATISTICS = get_args(Statistic)
SHAPE = (16, 12, 4)
STYLE = jnp.asarray(RNG.normal(size=SHAPE) @ RNG.normal(size=(4, 4)) + RNG.normal(size=4), jnp.float32)
X = jnp.asarray(0.2 * RNG.normal(size=SHAPE), jnp.float32)

every_statistic = pytest.mark.parametrize("statistic", STATISTICS)


@partial(jax.jit, static_argnames="statistic")
def summary(style, *, statistic, guide=None):
    return summarize(style, key=KEY, statistic=statistic, guide=guide)


@partial(jax.jit, static_argnames="statistic")
def by_divisor(x, target, *, statistic, guide=None) -> dict[str, Any]:
    return {name: distance(x, target, statistic=statistic, guide=guide, divisor=name) for name in get_args(Divisor)}


def compared(x, style, *, statistic, guide=None) -> Any:
    """Return the distance of two pictures that share their guide."""
    target = summary(style, statistic=statistic, guide=guide)
    return by_divisor(x, target, statistic=statistic, guide=guide)["energy"]


slope = jax.jit(jax.value_and_grad(distance), static_argnames="statistic")


@every_statistic
def test_a_style_is_at_no_distance_from_itself_and_another_picture_is(statistic):
    assert compared(STYLE, STYLE, statistic=statistic) == pytest.approx(0, abs=1e-4)
    assert compared(X, STYLE, statistic=statistic) > 0.1


@every_statistic
def test_pixels_that_change_places_change_nothing(statistic):
    x, style = (jnp.asarray(RNG.permutation(np.asarray(each).reshape(-1, 4)).reshape(SHAPE)) for each in (X, STYLE))
    before = compared(X, STYLE, statistic=statistic)
    assert compared(x, style, statistic=statistic) == pytest.approx(float(before), rel=1e-4)


@every_statistic
def test_the_distance_falls_all_along_the_line_to_the_style(statistic):
    along = [float(compared((1 - t) * X + t * STYLE, STYLE, statistic=statistic)) for t in np.linspace(0, 1, 9)]
    assert all(after < before for before, after in zip(along, along[1:], strict=False))


@every_statistic
def test_constant_pictures_have_finite_distances_and_gradients_both_ways(statistic):
    zeros, threes = jnp.zeros(SHAPE), jnp.full(SHAPE, 3.0)
    for x, style in ((zeros, STYLE), (threes, STYLE), (X, zeros), (X, threes), (zeros, zeros), (threes, threes)):
        number, gradient = slope(x, summary(style, statistic=statistic), statistic=statistic)
        assert np.isfinite(number) and np.isfinite(gradient).all()


@every_statistic
def test_constant_features_of_vggs_size_have_finite_distances_and_gradients(statistic):
    """There float32 leaves a covariance of several units, of either sign, where it should be zero."""
    levels = jnp.asarray(RNG.uniform(0, 300, 64), jnp.float32)
    flat = jnp.broadcast_to(levels, (48, 48, 64))
    other = flat + jnp.asarray(RNG.normal(size=(48, 48, 64)) * 100, jnp.float32)
    for x, style in ((flat, other), (other, flat), (flat, flat), (flat, 2 * flat)):
        number, gradient = slope(x, summary(style, statistic=statistic), statistic=statistic)
        assert np.isfinite(number) and np.isfinite(gradient).all()


@pytest.mark.parametrize(("statistic", "other"), [("sliced", "gram"), ("wasserstein", "sliced")])
def test_a_summary_of_another_kind_is_refused(statistic, other):
    with pytest.raises(InputError, match=f"The target is .*, not what '{other}' compares: summarize it again"):
        distance(X, summary(STYLE, statistic=statistic), statistic=other)


@every_statistic
def test_one_step_down_the_gradient_makes_the_distance_smaller(statistic):
    before, gradient = slope(X, summary(STYLE, statistic=statistic), statistic=statistic)
    step = 1e-3 / jnp.max(jnp.abs(gradient))
    assert compared(X - step * gradient, STYLE, statistic=statistic) < before


@every_statistic
def test_a_batch_has_the_distance_of_each(statistic):
    batch = jnp.stack([X, 3 * X + 1])
    each = [compared(x, STYLE, statistic=statistic) for x in batch]
    np.testing.assert_allclose(compared(batch, STYLE, statistic=statistic), each, rtol=1e-4)


@every_statistic
def test_jit_equals_eager(statistic):
    eager = distance(X, summarize(STYLE, key=KEY, statistic=statistic), statistic=statistic)
    assert compared(X, STYLE, statistic=statistic) == pytest.approx(float(eager), rel=1e-4)


@every_statistic
def test_guides_make_a_part_of_a_picture_a_picture(statistic):
    left = jnp.zeros((16, 24)).at[:, :12].set(1 / 192)
    x, style = jnp.concatenate([X, 5 * STYLE + 5], axis=1), jnp.concatenate([STYLE, 5 * X + 5], axis=1)
    guided = compared(x, style, statistic=statistic, guide=left)
    assert guided == pytest.approx(float(compared(X, STYLE, statistic=statistic)), rel=1e-3)


@every_statistic
def test_divisors_are_factors_of_one_distance(statistic):
    found = by_divisor(X, summary(STYLE, statistic=statistic), statistic=statistic)
    elements = {"gram": 16, "covariance": 16, "mean_std": 8, "wasserstein": 4, "sliced": 4}[statistic]
    assert found["elements"] == pytest.approx(float(found["none"]) / elements, rel=1e-5)


@pytest.mark.parametrize("statistic", ["gram", "wasserstein", "sliced"])
def test_divided_by_energy_zeros_are_at_distance_one(statistic):
    far = 100 * STYLE  # beside which the ridge is nothing
    assert compared(jnp.zeros(SHAPE), far, statistic=statistic) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("statistic", ["covariance", "mean_std"])
def test_a_statistic_of_deviations_is_divided_by_its_own_squares(statistic):
    pixels = np.asarray(STYLE, np.float64).reshape(-1, 4)
    own = np.cov(pixels, rowvar=False, bias=True)
    if statistic == "mean_std":
        own = np.stack([pixels.mean(axis=0), np.sqrt(np.diag(own) + 1e-4)])
    found = by_divisor(X, summary(STYLE, statistic=statistic), statistic=statistic)
    assert found["energy"] == pytest.approx(float(found["none"]) / np.sum(own**2), rel=1e-4)


def test_shift_and_scale_are_those_of_the_gram_matrices():
    target = summarize(STYLE)
    shifted = distance(X, target, shift=-1.0, scale=0.5, divisor="none")
    x, style = (np.asarray(each, np.float64).reshape(-1, 4) - 1 for each in (X, STYLE))
    expected = np.sum((0.5 * (x.T @ x - style.T @ style) / 192) ** 2)
    assert shifted == pytest.approx(expected, rel=1e-4)


@every_statistic
def test_only_sliced_keeps_quantiles(statistic):
    kind = Quantiles if statistic == "sliced" else Moments
    assert isinstance(summarize(STYLE, key=KEY, statistic=statistic), kind)


def test_sliced_without_a_key_is_refused():
    with pytest.raises(InputError, match=r"'sliced' has no seed for its directions: pass key=jax\.random\.key\(0\)\."):
        summarize(STYLE, statistic="sliced")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.parametrize import COARSE_GAIN, Circular, decode, encode


@pytest.mark.parametrize("levels", [1, 3, 5])
def test_an_encoded_image_decodes_to_itself_exactly(content, levels):
    assert (decode(encode(content, levels=levels)) == content).all()


def test_levels_halve_and_round_up():
    assert [level.shape[:2] for level in encode(jnp.zeros((33, 20, 3)), levels=4)] == [
        (33, 20),
        (17, 10),
        (9, 5),
        (5, 3),
    ]


def test_a_coarse_level_is_enlarged_bilinearly():
    """Against the textbook rule: the value at a pixel's centre, linear between the centres of the coarse pixels."""
    coarse = np.random.default_rng(0).uniform(size=(4, 4, 3)).astype(np.float32)
    positions = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    low = np.minimum(positions.astype(int), 2)
    part = positions - low
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    expected = rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    found = decode((jnp.zeros((8, 8, 3)), jnp.asarray(coarse)))
    np.testing.assert_allclose(found, COARSE_GAIN * expected, atol=1e-6)


def test_a_constant_in_every_level_is_a_constant_image():
    levels = encode(jnp.ones((17, 9, 3)), levels=4)
    expected = 1 + 3 * COARSE_GAIN
    np.testing.assert_allclose(decode(tuple(jnp.ones_like(level) for level in levels)), expected, rtol=1e-6)


def test_the_gradient_of_a_coarse_level_is_the_transpose_of_its_enlargement(content):
    parameters = encode(content, levels=3)
    cotangent = content[::-1]
    tangent = tuple(jnp.cos(level + 1) for level in parameters)
    _, forward = jax.jvp(decode, (parameters,), (tangent,))
    (backward,) = jax.vjp(decode, parameters)[1](cotangent)
    assert jnp.vdot(forward, cotangent) == pytest.approx(
        float(sum(jnp.vdot(x, y) for x, y in zip(tangent, backward, strict=True))), rel=1e-5
    )


@pytest.mark.slow
def test_a_circular_pyramid_rolls_with_its_levels():
    levels = encode(jnp.zeros((32, 48, 3)), levels=3, circular=True)
    keys = jax.random.split(jax.random.key(0), 3)
    levels = jax.tree.map(lambda level, key: jax.random.normal(key, level.shape), levels, Circular(keys))
    rolled = Circular(jnp.roll(level, (-8 // 2**i, 16 // 2**i), (0, 1)) for i, level in enumerate(levels))
    np.testing.assert_allclose(decode(rolled), jnp.roll(decode(levels), (-8, 16), (0, 1)), atol=1e-5)
    assert np.abs(decode(levels) - decode(tuple(levels))).max() > 0.05

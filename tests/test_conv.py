import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.conv import conv3x3

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 5, 6, 3)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
COTANGENT = RNG.normal(size=(2, 5, 6, 4)).astype(np.float32)


def lax_conv(image: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def numpy_conv(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate by shifting: nine matrix products over a zero-padded image."""
    _, height, width, _ = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)]
    return np.sum(taps, axis=0)


def test_value_equals_nine_shifted_matrix_products():
    np.testing.assert_allclose(conv3x3(jnp.asarray(IMAGE), jnp.asarray(KERNEL)), numpy_conv(IMAGE, KERNEL), atol=1e-5)


@pytest.mark.parametrize("argument", [0, 1], ids=["image", "kernel"])
def test_gradients_equal_those_of_lax(argument):
    def scalar(conv):
        return lambda image, kernel: jnp.sum(conv(image, kernel) * COTANGENT)

    ours, theirs = (jax.grad(scalar(conv), argnums=argument)(IMAGE, KERNEL) for conv in (conv3x3, lax_conv))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_forward_mode_equals_that_of_lax():
    tangents = (IMAGE[::-1].copy(), KERNEL[::-1].copy())
    ours, theirs = (jax.jvp(conv, (IMAGE, KERNEL), tangents)[1] for conv in (conv3x3, lax_conv))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_second_derivatives_equal_those_of_lax():
    def curvature(conv):
        gradient = jax.grad(lambda image: jnp.sum(conv(image, KERNEL) ** 3))
        return jax.jvp(gradient, (IMAGE,), (IMAGE[::-1].copy(),))[1]

    np.testing.assert_allclose(curvature(conv3x3), curvature(lax_conv), rtol=1e-3, atol=1e-2)


def test_vmap_over_images_and_over_kernels_equals_a_loop():
    images, kernels = jnp.stack([IMAGE, 2 * IMAGE]), jnp.stack([KERNEL, KERNEL[::-1]])
    both = jax.vmap(conv3x3)(images, kernels)
    np.testing.assert_allclose(both[1], conv3x3(images[1], kernels[1]), atol=1e-5)


def test_the_gradient_inside_a_loop_reads_its_kernels_as_xla_does_fast():
    def descend(image, kernel):
        def step(image, _):
            return image - jax.grad(lambda x: jnp.sum(conv3x3(x, kernel) ** 2))(image), None

        return jax.lax.scan(step, image, length=3)[0]

    program = jax.jit(descend).lower(IMAGE, KERNEL).compile().as_text()
    if jax.default_backend() != "cpu":
        pytest.skip("the layout of kernels matters on the CPU only")
    assert program and "01io->b01f" in program
    assert "01oi->b01f" not in program

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.networks.conv import conv3x3

RNG = np.random.default_rng(0)
IMAGE, ALONG = RNG.normal(size=(2, 2, 5, 6, 3)).astype(np.float32)
KERNEL, KERNEL_ALONG = RNG.normal(size=(2, 3, 3, 3, 4)).astype(np.float32)
COTANGENT = RNG.normal(size=(2, 5, 6, 4)).astype(np.float32)


def numpy_conv(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate by shifting: nine matrix products over a zero-padded image."""
    _, height, width, _ = image.shape
    padded = np.pad(image.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)]
    return np.sum(taps, axis=0)


def numpy_by_image(cotangent: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the gradient by the image: the convolution with the flipped and transposed kernel."""
    return numpy_conv(cotangent, np.swapaxes(kernel[::-1, ::-1], 2, 3))


def numpy_by_kernel(image: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    """Return the gradient by the kernel: for each tap the product of shifted pixels and cotangents."""
    _, height, width, _ = image.shape
    padded = np.pad(image.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [[padded[:, i : i + height, j : j + width] for j in range(3)] for i in range(3)]
    return np.stack([[np.einsum("nhwc,nhwd->cd", each, cotangent) for each in row] for row in windows])


def numpy_derivatives() -> dict[str, np.ndarray]:
    value = numpy_conv(IMAGE, KERNEL)
    along = numpy_conv(ALONG, KERNEL)
    return {
        "value": value,
        "by_image": numpy_by_image(COTANGENT, KERNEL),
        "by_kernel": numpy_by_kernel(IMAGE, COTANGENT),
        "tangent": along + numpy_conv(IMAGE, KERNEL_ALONG),
        "curvature": numpy_by_image(COTANGENT * 2 * along, KERNEL),  # of the sum of cotangents times squares
    }


def derivatives(conv, image, kernel) -> dict[str, jax.Array]:
    """Return the value of `conv` and its derivatives, as `numpy_derivatives` does."""
    value, back = jax.vjp(conv, image, kernel)
    by_image, by_kernel = back(COTANGENT)
    slope = jax.grad(lambda image: jnp.sum(COTANGENT * conv(image, kernel) ** 2))
    return {
        "value": value,
        "by_image": by_image,
        "by_kernel": by_kernel,
        "tangent": jax.jvp(conv, (image, kernel), (ALONG, KERNEL_ALONG))[1],
        "curvature": jax.jvp(slope, (image,), (ALONG,))[1],
    }


def test_value_equals_shifted_matrix_products():
    np.testing.assert_allclose(jax.jit(conv3x3)(IMAGE, KERNEL), numpy_conv(IMAGE, KERNEL), atol=1e-5)


@pytest.mark.slow
def test_vmap_over_images_and_over_kernels_equals_a_loop():
    images, kernels = np.stack([IMAGE, 2 * IMAGE]), np.stack([KERNEL, KERNEL[::-1]])
    both = np.asarray(jax.jit(jax.vmap(conv3x3))(images, kernels))
    for i in range(2):
        np.testing.assert_allclose(both[i], numpy_conv(images[i], kernels[i]), atol=1e-5)


@pytest.mark.slow
def test_value_and_every_derivative_equal_shifted_matrix_products():
    actual = jax.device_get(jax.jit(lambda *inputs: derivatives(conv3x3, *inputs))(IMAGE, KERNEL))
    for name, expected in numpy_derivatives().items():
        np.testing.assert_allclose(actual[name], expected, atol=3e-6 * np.abs(expected).max(), err_msg=name)


@pytest.mark.slow(optimized=True)
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

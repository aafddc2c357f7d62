"""Winograd's convolution against the direct one: values and every derivative, of images and of kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import conv, vgg, winograd
from jaxstyle.conv import prepared
from jaxstyle.untrained import random_params

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 5, 4)), jnp.float32)
SHAPES = [(1, 8, 8, 5), (2, 7, 6, 5), (3, 1, 1, 5)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def images(shape) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def direct(image, kernel):
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def ours(image, kernel):
    return winograd.conv(image, winograd.to_domain(kernel))


def relative(found, expected) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_a_kernel_comes_back_from_the_domain():
    np.testing.assert_allclose(winograd.from_domain(winograd.to_domain(KERNEL)), KERNEL, atol=1e-6)


def test_the_domain_is_that_of_the_paper():
    g = np.asarray([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    expected = np.einsum("xi,ijcd,yj->xycd", g, KERNEL, g)
    np.testing.assert_allclose(winograd.to_domain(KERNEL), expected, atol=1e-6)


@every_shape
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_the_value_is_that_of_the_direct_convolution(shape, jit):
    image = images(shape)
    assert relative((jax.jit(ours) if jit else ours)(image, KERNEL), direct(image, KERNEL)) < 1e-5


@every_shape
@pytest.mark.parametrize("argument", [0, 1], ids=["image", "kernel"])
def test_gradients_are_those_of_the_direct_convolution(shape, argument):
    image = images(shape)

    def gradient(conv):
        return jax.grad(lambda image, kernel: jnp.sum(jnp.sin(conv(image, kernel))), argnums=argument)(image, KERNEL)

    assert relative(gradient(ours), gradient(direct)) < 1e-5


def test_forward_mode_is_that_of_the_direct_convolution():
    image = images((2, 7, 6, 5))
    tangents = (images(image.shape), images(KERNEL.shape))
    found, expected = (jax.jvp(conv, (image, KERNEL), tangents)[1] for conv in (ours, direct))
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("argument", [0, 1], ids=["image", "kernel"])
def test_second_derivatives_are_those_of_the_direct_convolution(argument):
    given = (images((2, 7, 6, 5)), KERNEL)
    along = images(given[argument].shape)

    def curvature(conv):
        def gradient(at):
            inputs = (at, KERNEL) if argument == 0 else (given[0], at)
            return jax.grad(lambda *inputs: jnp.sum(conv(*inputs) ** 3), argnums=argument)(*inputs)

        return jax.jvp(gradient, (given[argument],), (along,))[1]

    assert relative(curvature(ours), curvature(direct)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0, None), (0, 0), (2, 1), (None, 0)], ids=str)
def test_lanes_of_images_and_of_kernels_are_a_loop(axes):
    of_image, of_kernel = axes
    image = images((2, 7, 6, 5) if of_image is None else (3, 2, 7, 6, 5))
    kernel = images((3, 3, 5, 4) if of_kernel is None else (3, 3, 3, 5, 4))
    image = image if of_image is None else jnp.moveaxis(image, 0, of_image)
    kernel = kernel if of_kernel is None else jnp.moveaxis(kernel, 0, of_kernel)

    def gradient(image, kernel):
        return jax.grad(lambda image: jnp.sum(jnp.sin(ours(image, kernel))))(image)

    for function in (ours, gradient):
        lanes = jax.vmap(function, axes)(image, kernel)
        for i in range(3):
            own_image = image if of_image is None else jnp.take(image, i, of_image)
            own_kernel = kernel if of_kernel is None else jnp.take(kernel, i, of_kernel)
            assert relative(lanes[i], function(own_image, own_kernel)) < 1e-5


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_algorithm_is_chosen_where_a_program_is_lowered(platform):
    image, kernel = images((1, 8, 8, 5)), winograd.to_domain(KERNEL)
    text = jax.export.export(jax.jit(winograd.conv), platforms=[platform])(image, kernel).mlir_module()
    products, convolutions = text.count("stablehlo.dot_general"), text.count("stablehlo.convolution")
    assert (products, convolutions) == ((16, 0) if platform == "cpu" else (0, 1))


@pytest.mark.slow
def test_features_of_a_prepared_network_are_the_networks(monkeypatch):
    params = random_params(widths=((4, 4), (6, 6), (8,) * 4, (8,) * 4, (8,) * 4), seed=1)
    monkeypatch.setattr(conv, "WINOGRAD_FROM", (6, 8))
    ready = prepared(params)
    assert [name for name in ready if ready[name]["kernel"].shape[0] == 4] == list(ready)[4:]
    assert prepared(ready)["conv5_1"] is ready["conv5_1"]
    image = jnp.asarray(RNG.uniform(size=(33, 40, 3)), jnp.float32)
    found, expected = (jax.jit(vgg.features)(each, image) for each in (ready, params))
    for name in expected:
        assert relative(found[name], expected[name]) < 1e-5, name


def test_what_is_prepared_is_wide_and_on_the_cpu_and_ours():
    params = random_params(widths=((4, 4), (128, 128), (256,) * 4, (8,) * 4, (8,) * 4), seed=1)
    assert prepared(params, conv=jax.lax.conv_general_dilated) is params
    if jax.default_backend() == "cpu":
        ready = prepared(params)
        taps = {name: layer["kernel"].shape[0] for name, layer in ready.items()}
        assert [name for name in taps if taps[name] == 4] == [f"conv3_{i}" for i in range(1, 5)]

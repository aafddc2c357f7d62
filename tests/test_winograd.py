"""Winograd's convolution against the direct one: values and every derivative, of images and of kernels."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conv import IMAGE, KERNEL, derivatives, numpy_conv, numpy_derivatives
from vgg_layers import features

from jaxstyle.networks import conv, pretrained, weights_io, winograd
from jaxstyle.networks.conv import prepared
from jaxstyle.networks.random_init import param_shapes

RNG = np.random.default_rng(0)
WIDTHS = {"conv2_2": (128, 128), "conv3_1": (128, 256), "conv3_2": (256, 128), "conv4_1": (127, 512)}


def direct(image, kernel):
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def ours(image, kernel):
    return winograd.conv(image, winograd.to_domain(kernel))


def relative(actual, expected) -> float:
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


def test_the_domain_of_kernels_is_that_of_the_paper_and_has_an_inverse():
    g = np.asarray([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

    inside, again = jax.jit(lambda kernel: (actual := winograd.to_domain(kernel), winograd.from_domain(actual)))(KERNEL)
    np.testing.assert_allclose(inside, np.einsum("xi,ijcd,yj->xycd", g, KERNEL, g), atol=1e-6)
    np.testing.assert_allclose(again, KERNEL, atol=1e-6)


@pytest.mark.slow
def test_values_and_every_derivative_are_those_of_the_direct_convolution():
    actual = jax.device_get(jax.jit(lambda *inputs: derivatives(ours, *inputs))(IMAGE, KERNEL))
    for name, expected in numpy_derivatives().items():
        assert relative(actual[name], expected) < 1e-5, name
    slope = jax.grad(lambda *inputs: jnp.sum(jnp.sin(inputs[0](*inputs[1:]))), argnums=(1, 2))
    compiled = jax.jit(lambda *inputs: (ours(*inputs), slope(ours, *inputs), slope(direct, *inputs)))
    for shape in ((1, 8, 8, 3), (3, 1, 1, 3)):
        image = RNG.normal(size=shape).astype(np.float32)
        value, actual, expected = jax.device_get(compiled(image, KERNEL))
        assert relative(value, numpy_conv(image, KERNEL)) < 1e-5
        for mine, others in zip(actual, expected, strict=True):
            assert relative(mine, others) < 1e-5


@pytest.mark.slow
def test_second_derivatives_by_the_kernel_are_those_of_the_direct_convolution():
    along = RNG.normal(size=KERNEL.shape).astype(np.float32)

    def curvature(conv):
        gradient = jax.grad(lambda kernel: jnp.sum(conv(IMAGE, kernel) ** 3))
        return jax.jvp(gradient, (KERNEL,), (along,))[1]

    actual, expected = jax.jit(lambda: (curvature(ours), curvature(direct)))()
    assert relative(actual, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0, None), (2, 1), (None, 0)], ids=str)
def test_a_batch_of_images_or_kernels_equals_a_loop(axes):
    images, kernels = RNG.normal(size=(3, 2, 5, 6, 3)).astype(np.float32), RNG.normal(size=(3, 3, 3, 3, 4))
    each = [images, kernels.astype(np.float32)]
    inputs = [one[0] if axis is None else np.moveaxis(one, 0, axis) for one, axis in zip(each, axes, strict=True)]

    def gradient(image, kernel):
        return ours(image, kernel), jax.grad(lambda image: jnp.sum(jnp.sin(ours(image, kernel))))(image)

    together, alone = jax.jit(jax.vmap(gradient, axes))(*inputs), jax.jit(gradient)
    for i in range(3):
        one = (parts[0] if axis is None else parts[i] for parts, axis in zip(each, axes, strict=True))
        for actual, expected in zip(together, alone(*one), strict=True):
            assert relative(actual[i], expected) < 1e-5


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_algorithm_is_chosen_where_a_program_is_lowered(platform):
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((1, 8, 8, 5), (4, 4, 5, 4))]
    text = jax.export.export(jax.jit(winograd.conv), platforms=[platform])(*shapes).mlir_module()
    products, convolutions = text.count("stablehlo.dot_general"), text.count("stablehlo.convolution")
    assert (products, convolutions) == ((16, 0) if platform == "cpu" else (0, 1))


@pytest.mark.slow
def test_features_of_a_prepared_network_are_the_networks(params, monkeypatch):
    monkeypatch.setattr(conv, "WINOGRAD_FROM", (8, 8))
    ready = prepared(params)
    assert [name for name in ready if ready[name]["kernel"].shape[0] == 4] == list(ready)[5:]
    assert prepared(ready)["conv5_1"] is ready["conv5_1"]
    image = RNG.uniform(size=(33, 40, 3)).astype(np.float32)
    actual, expected = (jax.jit(features)(each, image) for each in (ready, params))
    for name in expected:
        assert relative(actual[name], expected[name]) < 1e-5, name


def test_winograd_pays_where_many_wide_products_win_its_compilation_back(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    winograd_pays = partial(conv.winograd_pays, layers=("relu3_1", "relu5_1"))
    vgg19, mini = param_shapes(), param_shapes(widths=weights_io.widths(pretrained.MINI))
    assert winograd_pays(vgg19, pixels=192 * 256, steps=100) and not winograd_pays(vgg19, pixels=192 * 256, steps=10)
    assert winograd_pays(vgg19, pixels=384 * 512, steps=30) and not winograd_pays(vgg19, pixels=96 * 128, steps=60)
    assert not winograd_pays(mini, pixels=1024**2, steps=150) and winograd_pays(mini, pixels=2048**2, steps=1000)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not winograd_pays(vgg19, pixels=2048**2, steps=1000)


def test_the_device_of_the_network_decides_before_the_default_one(monkeypatch):
    on_cpu: Any = {"conv1_1": {"kernel": jax.device_put(np.zeros((3, 3, 3, 4)), jax.devices("cpu")[0])}}
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert conv.platform_of(on_cpu) == "cpu" and conv.platform_of(jax.device_get(on_cpu)) == "tpu"


def test_wide_layers_are_prepared_on_the_cpu_for_the_default_convolution():
    shape = partial(jax.ShapeDtypeStruct, dtype=np.float32)
    shapes: Any = {name: {"kernel": shape((3, 3, *ends)), "bias": shape(ends[1:])} for name, ends in WIDTHS.items()}
    assert prepared(shapes, conv=jax.lax.conv_general_dilated) is shapes
    ready = jax.eval_shape(prepared, shapes)
    wide = [name for name, layer in ready.items() if layer["kernel"].shape[0] == 4]
    assert wide == (["conv3_1"] if jax.default_backend() == "cpu" else [])
    if jax.default_backend() == "cpu":
        wide = [
            name for name, layer in jax.eval_shape(prepared, param_shapes()).items() if layer["kernel"].shape[0] == 4
        ]
        assert wide == list(param_shapes())[4:]  # of VGG-19, those from conv3_1 on
    assert prepared(shapes, use_winograd=False) is shapes
    half = jax.eval_shape(lambda params: prepared(params, precision="bfloat16"), shapes)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("bfloat16")}

"""jaxstyle against PyTorch, with the real weights of VGG-19 and a real photograph."""

from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vgg_layers import features

from jaxstyle.images.load import load_image
from jaxstyle.losses.loss_terms import terms, total
from jaxstyle.losses.targets import make_targets
from jaxstyle.networks import pretrained
from jaxstyle.networks.vgg import ACTIVATIONS
from jaxstyle.optim.loop import init_state, run_steps
from jaxstyle.transfer.presets import preset

pytestmark = pytest.mark.parity(optimized=True)

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def torch():
    """PyTorch, which is slow to import: not at collection."""
    return pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")


@pytest.fixture(autouse=True)
def full_precision():
    """Accelerators would round to TF32 or bfloat16."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def real_params(weights_path):
    return pretrained.load_params(weights_path)


@pytest.fixture(scope="module")
def pictures(real_pictures):
    """A photograph and a painting, 128 pixels wide, resized as by neural-style-pt."""
    names = ("golden_gate.jpg", "starry_night_google.jpg")
    how = {"size": 128, "resample": "bilinear", "rounding": "truncate"}
    return [jnp.asarray(load_image(real_pictures / name, **how).rgb) for name in names]


@pytest.fixture(scope="module")
def torch_layers(weights_path):
    """Kernels `[out, in, 3, 3]` and biases, read from Keras' file by its block names."""
    import torch

    layers = {}
    with h5py.File(weights_path) as file:
        for block, convolutions in enumerate((2, 2, 4, 4, 4), 1):
            for i in range(1, convolutions + 1):
                name = f"block{block}_conv{i}"
                kernel, bias = (np.asarray(file[f"{name}/{name}_{part}_1:0"]) for part in "Wb")
                layers[f"{block}_{i}"] = (torch.tensor(kernel).permute(3, 2, 0, 1), torch.tensor(bias))
    return layers


def torch_features(layers, picture):
    """Return all activations of VGG-19 for an RGB tensor `[1, 3, H, W]` in [0, 1]."""
    import torch

    mean = torch.tensor([103.939, 116.779, 123.68], dtype=picture.dtype).reshape(1, 3, 1, 1)
    x, result = 255 * picture.flip(1) - mean, {}
    for name, (kernel, bias) in layers.items():
        if name.endswith("_1") and name != "1_1":
            x = torch.nn.functional.max_pool2d(x, 2)
        result[f"conv{name}"] = torch.nn.functional.conv2d(x, kernel, bias, padding=1)
        x = result[f"relu{name}"] = torch.relu(result[f"conv{name}"])
    return result


def torch_objective(layers, picture, content, style):
    """Return the objective of neural-style-pt."""
    import torch

    def gram(x):
        rows = x.reshape(x.shape[1], -1)
        return rows @ rows.T / x.numel()

    f, p, a = (torch_features(layers, x) for x in (picture, content, style))
    loss = 5 * torch.nn.functional.mse_loss(f["relu4_2"], p["relu4_2"])
    for name in STYLE_LAYERS:
        loss = loss + 100 * torch.nn.functional.mse_loss(gram(f[name]), gram(a[name]))
    x = 255 * picture
    return loss + 1e-3 * ((x[:, :, 1:] - x[:, :, :-1]).abs().sum() + (x[..., 1:] - x[..., :-1]).abs().sum())


def to_torch(picture):
    import torch

    return torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None]


def relative(ours, theirs) -> float:
    return float(np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs))


def neural_style_pt(real_params, content, style):
    """Return the options of the objective, and its targets."""
    chosen = preset("neural-style-pt")
    objective = chosen.make_objective({"relu4_2": 1.0}, dict.fromkeys(STYLE_LAYERS, 1.0))
    options: dict[str, Any] = {"objective": objective, "network": chosen.network}
    return options, make_targets(real_params, content, style, **options)


def test_features_agree_with_pytorch_at_every_layer(real_params, pictures, torch_layers):
    ours = jax.jit(features)(real_params, pictures[0])
    theirs = torch_features(torch_layers, to_torch(pictures[0]))
    for name in ACTIVATIONS:
        assert relative(ours[name], theirs[name][0].permute(1, 2, 0).numpy()) < TOLERANCE, name


def test_loss_and_image_gradient_agree_with_pytorch(real_params, pictures, torch_layers):
    with jax.enable_x64(True):  # in float32 units near zero and pools of near equals may tip: 5e-4 was seen
        double = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (real_params, *pictures))
        params, content, style = double
        options, targets = neural_style_pt(params, content, style)
        at = 0.8 * content + 0.1  # not the content itself, where its term and gradient vanish

        @jax.jit
        def computed(picture, params, targets):
            return total(options["objective"], terms(params, picture, targets, **options))

        loss, gradient = jax.value_and_grad(computed)(at, params, targets)
    layers = {name: (kernel.double(), bias.double()) for name, (kernel, bias) in torch_layers.items()}
    picture = to_torch(at).requires_grad_()
    expected = torch_objective(layers, picture, to_torch(content), to_torch(style))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert picture.grad is not None
    assert relative(gradient, picture.grad[0].permute(1, 2, 0).numpy()) < TOLERANCE / 10


def test_the_objective_of_the_photograph_equals_the_value_that_neural_style_pt_reports(real_params, real_pictures):
    how = {"size": 256, "resample": "bilinear", "rounding": "truncate"}
    content, style = (
        jnp.asarray(load_image(real_pictures / name, **how).rgb)
        for name in ("golden_gate.jpg", "starry_night_google.jpg")
    )
    options, targets = neural_style_pt(real_params, content, style)
    assert content.shape == (191, 256, 3)
    state = init_state(content, objective=options["objective"], optimizer=preset("neural-style-pt").optimizer)
    _, history = run_steps(state, real_params, targets, **options, steps=1)
    assert history["total"][0] == pytest.approx(35_437_228, rel=1e-5)

import importlib.util
import os
import runpy
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from vgg_layers import features

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import sha256
from jaxstyle.networks import pretrained, state_dict, vgg, weights_io

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_weights.py"
TINY: vgg.Widths = ((5, 3), (4, 2), (3, 2, 4, 2), (3, 2, 2, 3), (2, 3, 2, 4))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("convert_weights", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def torch():
    """PyTorch, which takes seconds to import."""
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install jaxstyle[parity]")


def network(torch):
    """Return VGG-19's convolutions in PyTorch, narrow, with biases and torchvision's numbering."""
    torch.manual_seed(0)
    layers, channels = [], 3
    for block in TINY:
        for width in block:
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU()]
            channels = width
        layers.append(torch.nn.MaxPool2d(2))
    return torch.nn.Sequential(*layers)


def state_of(model):
    return {f"features.{key}": values for key, values in model.state_dict().items()}


def saved(path, model, torch):
    torch.save(state_of(model) | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


def test_tensors_of_a_nested_checkpoint_are_found(script):
    nested = {"epoch": 3, "model": {"net": {"module.34.bias": np.zeros(4)}}, "optimizer": {"state": {0: {"step": 1}}}}
    assert list(script.tensors_of(nested)) == ["model.net.module.34.bias"]
    endless: dict = {}
    endless["again"] = endless
    assert script.tensors_of(endless) == {}


def picture(size=32):
    return np.random.default_rng(0).random((size, size, 3), np.float32)


def run(model, planes, torch):
    """Return PyTorch's relu5_4 and conv1_1 for `[H, W, 3]` planes, channels last."""
    with torch.no_grad():
        batch = torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))[None]
        return [model[:end](batch)[0].numpy().transpose(1, 2, 0) for end in (-1, 1)]


def normalised(image):
    """Normalise RGB in [0, 1] like torchvision."""
    return ((image - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])).astype(np.float32)


def activations(path, image, *layers):
    return jax.jit(partial(features, layers=layers))(pretrained.load_params(path), image)


@pytest.mark.parity
def test_a_caffe_state_dict_gives_the_same_activations_in_jax(script, torch, tmp_path):
    model, image = network(torch), picture()
    script.convert(saved(tmp_path / "a.pth", model, torch), kind="caffe", out=tmp_path / "a.h5")
    planes = 255 * image[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    deep, first = run(model, planes, torch)
    actual = activations(tmp_path / "a.h5", image, "conv1_1", "relu5_4")
    np.testing.assert_allclose(actual["conv1_1"], first, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(actual["relu5_4"], deep, rtol=1e-3, atol=1e-3 * np.abs(deep).max())


@pytest.mark.parity
def test_a_torchvision_state_dict_is_exact_except_for_the_mean_colours_difference_at_the_border(
    script, torch, tmp_path
):
    model, image = network(torch), picture()
    script.convert(saved(tmp_path / "a.pth", model, torch), kind="torchvision", out=tmp_path / "a.h5")
    _, expected = run(model, normalised(image), torch)
    error = np.abs(np.asarray(activations(tmp_path / "a.h5", image, "conv1_1")["conv1_1"]) - expected)
    assert error[1:-1, 1:-1].max() < 1e-5
    # a zero outside is (0.0001, 0.0087, 0.0071) deviations of R, G, B away from torchvision's zero
    taps = np.abs(model[0].weight.detach().numpy()).sum((2, 3))
    bound = taps @ np.array([0.0001, 0.0088, 0.0072])
    assert np.all(error.max((0, 1)) <= bound)
    assert 1e-4 < error.max() < 0.02 * np.abs(expected).max()


def test_folding_gives_the_bias_of_torchvisions_network_at_the_mean_colour():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 4))
    folded = state_dict.fold(kernel, np.zeros(4))
    mean_colour = np.array([123.68, 116.779, 103.939]) / 255
    expected = np.einsum("hwio,i->o", kernel, normalised(mean_colour))
    np.testing.assert_allclose(folded["bias"], expected, atol=1e-6)
    np.testing.assert_allclose(folded["kernel"][:, :, 0], kernel[:, :, 2] / (255 * 0.225), rtol=1e-6)  # blue is first
    with pytest.raises(InputError, match="1 input channels"):
        state_dict.fold(kernel[:, :, :1], np.zeros(4))


@pytest.mark.parity
def test_the_origin_of_a_state_dict_is_stored(script, torch, tmp_path):
    path = tmp_path / "a.pth"
    state = {f"features.{key}": values for key, values in network(torch).named_parameters()}  # with gradients
    torch.save(state, path)
    script.convert(path, kind="torchvision", out=tmp_path / "a.h5")
    origin = weights_io.provenance(tmp_path / "a.h5")
    assert origin["source"] == "a.pth (torchvision)"
    assert origin["checksum"] == f"sha256:{sha256(path)}"
    assert "torchvision" in origin["licence"] and "BGR" in origin["preprocessing"]


def test_a_file_of_the_keras_kind_retains_its_values(script, params, tmp_path):
    weights_io.write(tmp_path / "a.h5", params, source="", checksum="", licence="")
    script.convert(tmp_path / "a.h5", kind="keras", out=tmp_path / "b.h5")
    actual = weights_io.read(tmp_path / "b.h5")
    np.testing.assert_array_equal(actual["conv3_2"]["kernel"], params["conv3_2"]["kernel"])


@pytest.mark.parity
def test_an_invalid_state_dict_is_refused_in_one_sentence(script, torch, tmp_path):
    state, zeros = state_of(network(torch)), torch.zeros
    for content, expected in [
        (b"not a pickle", "no readable PyTorch state dict"),
        (b"", "no readable PyTorch state dict"),
        (zeros(3), "lacks 32 of VGG-19's 32 tensors"),
        ([1, 2], "lacks 32 of VGG-19's 32 tensors"),
        ({"model": {}}, "lacks 32 of VGG-19's 32 tensors, such as features.0.weight"),
        (
            {key: state[key] for key in state if key != "features.34.bias"},
            "lacks 1 of VGG-19's 32 tensors, such as features.34.b",
        ),
        (state | {"features.2.weight": zeros(3)}, "such as features.2.weight"),
        (state | {"features.2.weight": "text"}, "such as features.2.weight"),
        (
            state | {"features.2.weight": zeros(3, 5, 3, 3).to_sparse()},
            "features.2.weight of " + str(tmp_path / "a.pth") + " is no readable PyTorch state dict",
        ),
        (state | {"features.2.weight": zeros(3, 7, 3, 3)}, "holds conv1_2"),
        (state | {"features.0.weight": zeros(5, 1, 3, 3)}, "has 1 input channels, not the 3 of RGB"),
        (state | {"features.2.bias": torch.full((3,), torch.nan)}, "3 of 3 values"),
        (state | {"features.2.bias": zeros(3, dtype=torch.int8)}, "features.2.bias as torch.int8"),
    ]:
        path = tmp_path / "a.pth"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(InputError) as caught:
            script.convert(path, kind="torchvision", out=tmp_path / "a.h5")
        message = str(caught.value)
        assert expected in message and message.isprintable() and message.endswith(".")
        assert not (tmp_path / "a.h5").exists()
    with pytest.raises(InputError, match="none.pth is not a file"):
        script.convert(tmp_path / "none.pth", kind="caffe", out=tmp_path / "a.h5")


@pytest.mark.parity
def test_a_file_that_contains_code_is_refused_without_running_it(script, torch, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    for content in (network(torch), {"features.0.weight": Harm()}):  # a whole saved module, a malicious pickle
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(InputError, match=r"a\.pth contains Python code.*not executed: save.*state_dict\(\) alone"):
            script.convert(tmp_path / "a.pth", kind="caffe", out=tmp_path / "a.h5")
    assert not (tmp_path / "harm").exists() and not (tmp_path / "a.h5").exists()


@pytest.mark.parity
@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_with_any_prefix_and_nesting_is_converted(script, torch, tmp_path, legacy):
    state = network(torch).state_dict()
    checkpoint = {
        "epoch": 3,
        "state_dict": {f"module.vgg.{key}": values.half() for key, values in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(5, 3, 3, 3)}}, "param_groups": [{"lr": 0.1}]},
    }
    torch.save(checkpoint, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    script.convert(tmp_path / "a.pth", kind="caffe", out=tmp_path / "a.h5")
    kernel = weights_io.read(tmp_path / "a.h5")["conv5_4"]["kernel"]
    np.testing.assert_array_equal(kernel, state["34.weight"].half().float().numpy().transpose(2, 3, 1, 0))


@pytest.mark.parity
def test_a_failing_machine_is_named_as_the_cause(script, torch, tmp_path, monkeypatch):
    path = saved(tmp_path / "a.pth", network(torch), torch)
    before = path.read_bytes()
    for fault, kind, expected in [
        (OSError(5, "Input/output error"), UnavailableError, r"Input/output error\): check the disk"),
        (OSError(12, "Cannot allocate memory"), UnavailableError, "memory is exhausted: close"),
        (MemoryError(), UnavailableError, "memory is exhausted: close"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), UnavailableError, "memory is exhausted"),
        (PermissionError(13, "Permission denied"), InputError, "may not be read by this user: change"),
    ]:

        def fail(*_, fault=fault, **__):
            raise fault

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(kind, match=expected):
            script.convert(path, kind="caffe", out=tmp_path / "a.h5")
    assert path.read_bytes() == before and not (tmp_path / "a.h5").exists()


def test_without_pytorch_the_error_proposes_to_install_it(script, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnavailableError, match="pip install torch"):
        script.convert(tmp_path / "a.pth", kind="caffe", out=tmp_path / "a.h5")


def test_wrong_arguments_of_the_command_exit_with_status_2(tmp_path, capsys, monkeypatch):
    for arguments, expected in [
        ([tmp_path / "none.h5", "--kind", "keras", "--out", tmp_path / "a.h5"], f"{tmp_path}/none.h5 does not exist"),
        ([tmp_path / "a.pth"], "--kind"),
    ]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        out, err = capsys.readouterr()
        assert caught.value.code == 2 and out == "" and expected in err and "Traceback" not in err

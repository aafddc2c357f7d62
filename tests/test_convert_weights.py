import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxstyle import pretrained, vgg, weights_file
from jaxstyle.errors import InputError

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install jaxstyle[parity]")

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_weights.py"
TINY: vgg.Widths = ((5, 3), (4, 2), (3, 2, 4, 2), (3, 2, 2, 3), (2, 3, 2, 4))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("convert_weights", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network():
    """Return the convolutions of VGG-19 in PyTorch, tiny and numbered as torchvision numbers them, with biases."""
    torch.manual_seed(0)
    layers, channels = [], 3
    for block in TINY:
        for width in block:
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU()]
            channels = width
        layers.append(torch.nn.MaxPool2d(2))
    return torch.nn.Sequential(*layers)


def saved(path, model):
    state = {f"features.{key}": values for key, values in model.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


def picture(size=32):
    return np.random.default_rng(0).random((size, size, 3), np.float32)


def run(model, planes):
    """Return PyTorch's relu5_4 and conv1_1 for `[H, W, 3]` planes, channels last."""
    with torch.no_grad():
        batch = torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))[None]
        return [model[:end](batch)[0].numpy().transpose(1, 2, 0) for end in (-1, 1)]


def seen_by_torchvision(image):
    return ((image - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])).astype(np.float32)


def test_a_caffe_state_dict_gives_the_same_activations_in_jax(script, tmp_path):
    model, image = network(), picture()
    script.convert(saved(tmp_path / "a.pth", model), kind="caffe", out=tmp_path / "a.h5")
    planes = 255 * image[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    deep, first = run(model, planes)
    activations = vgg.features(pretrained.load_params(tmp_path / "a.h5"), image)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(activations["conv1_1"], first, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(activations["relu5_4"], deep, rtol=1e-3, atol=1e-3 * np.abs(deep).max())


def test_a_torchvision_state_dict_is_exact_inside_and_off_by_the_mean_colours_difference_at_the_border(
    script, tmp_path
):
    model, image = network(), picture()
    script.convert(saved(tmp_path / "a.pth", model), kind="torchvision", out=tmp_path / "a.h5")
    _, expected = run(model, seen_by_torchvision(image))
    params = pretrained.load_params(tmp_path / "a.h5")
    error = np.abs(vgg.features(params, image)["conv1_1"] - expected)  # pyright: ignore[reportArgumentType]
    assert error[1:-1, 1:-1].max() < 1e-5
    # a zero outside is (0.0001, 0.0087, 0.0071) deviations of R, G, B away from what torchvision's network sees there
    taps = np.abs(model[0].weight.detach().numpy()).sum((2, 3))
    bound = taps @ np.array([0.0001, 0.0088, 0.0072])
    assert np.all(error.max((0, 1)) <= bound)
    assert 1e-4 < error.max() < 0.02 * np.abs(expected).max()


def test_folding_gives_the_bias_that_torchvisions_network_has_for_the_mean_colour(script):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 4))
    folded = script.fold(kernel, np.zeros(4))
    mean_colour = np.array([123.68, 116.779, 103.939]) / 255
    expected = np.einsum("hwio,i->o", kernel, seen_by_torchvision(mean_colour))
    np.testing.assert_allclose(folded["bias"], expected, atol=1e-6)
    np.testing.assert_allclose(folded["kernel"][:, :, 0], kernel[:, :, 2] / (255 * 0.225), rtol=1e-6)  # blue is first


def test_the_file_tells_where_it_came_from(script, tmp_path):
    path = saved(tmp_path / "a.pth", network())
    script.convert(path, kind="torchvision", out=tmp_path / "a.h5")
    origin = weights_file.provenance(tmp_path / "a.h5")
    assert origin["source"] == "a.pth (torchvision)"
    assert origin["checksum"] == f"sha256:{weights_file.sha256(path)}"
    assert "torchvision" in origin["licence"] and "BGR" in origin["preprocessing"]


def test_a_file_in_the_keras_kind_keeps_its_values(script, tmp_path):
    params = pretrained.random_params(widths=TINY)
    weights_file.write(tmp_path / "a.h5", params, source="", checksum="", licence="")
    script.convert(tmp_path / "a.h5", kind="keras", out=tmp_path / "b.h5")
    np.testing.assert_array_equal(
        weights_file.read(tmp_path / "b.h5")["conv3_2"]["kernel"], params["conv3_2"]["kernel"]
    )


def test_parameters_that_require_gradients_are_converted(script, tmp_path):
    state = {f"features.{key}": values for key, values in network().named_parameters()}
    torch.save(state, tmp_path / "a.pth")
    script.convert(tmp_path / "a.pth", kind="caffe", out=tmp_path / "a.h5")


def spoiled(change):
    state = {f"features.{key}": values for key, values in network().state_dict().items()}
    change(state)
    return state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a pickle", "no readable PyTorch state dict"),
        (b"", "no readable PyTorch state dict"),
        (torch.zeros(3), "no readable PyTorch state dict"),
        ([1, 2], "lacks 32 of 32 tensors"),
        ({"model": {}}, "lacks 32 of 32 tensors, such as features.0.weight"),
        (spoiled(lambda state: state.pop("features.34.bias")), "lacks 1 of 32 tensors, such as features.34.bias"),
        (spoiled(lambda state: state.update({"features.2.weight": torch.zeros(3)})), "such as features.2.weight"),
        (spoiled(lambda state: state.update({"features.2.weight": "text"})), "no readable PyTorch state dict"),
        (spoiled(lambda state: state.update({"features.2.weight": torch.zeros(3, 7, 3, 3)})), "holds conv1_2"),
        (
            spoiled(lambda state: state.update({"features.0.weight": torch.zeros(5, 1, 3, 3)})),
            "The first kernel takes 1 channels, not the 3 of RGB",
        ),
        (spoiled(lambda state: state.update({"features.2.bias": torch.full((3,), torch.nan)})), "3 of 3 values"),
    ],
)
def test_a_state_dict_of_something_else_is_refused_in_one_sentence(script, tmp_path, content, message):
    path = tmp_path / "a.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError) as caught:
        script.convert(path, kind="torchvision", out=tmp_path / "a.h5")
    assert message in str(caught.value) and str(caught.value).isprintable() and str(caught.value).endswith(".")
    assert not (tmp_path / "a.h5").exists()


def test_a_pickle_that_would_run_code_is_refused(script, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"features.0.weight": Harm()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="no readable PyTorch state dict"):
        script.convert(tmp_path / "a.pth", kind="caffe", out=tmp_path / "a.h5")
    assert not (tmp_path / "harm").exists()


def test_a_state_dict_that_is_not_there_is_refused_in_one_sentence(script, tmp_path):
    with pytest.raises(InputError, match="none.pth is not a file: give the path of a PyTorch state dict"):
        script.convert(tmp_path / "none.pth", kind="caffe", out=tmp_path / "a.h5")


def command(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


def test_on_the_command_line_wrong_input_is_one_sentence_and_status_2(tmp_path):
    done = command(tmp_path / "none.h5", "--kind", "keras", "--out", tmp_path / "a.h5")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"{tmp_path}/none.h5 does not exist: give the path of an HDF5 file.\n"


def test_the_kind_has_to_be_named(tmp_path):
    done = command(tmp_path / "a.pth")
    assert done.returncode == 2 and "--kind" in done.stderr and "Traceback" not in done.stderr

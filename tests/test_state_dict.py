"""State dicts of PyTorch and `.safetensors` files: names, variants of VGG, and damaged files."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from specimens import WIDTHS, safetensors
from specimens import state_dict as state

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.networks import pretrained, safetensors_io, state_dict, weights_io
from jaxstyle.networks.vgg import VGG19, evaluate_layers

# features of torchvision 0.24, from its printed models: the convolutions of vgg11, vgg13_bn, vgg19_bn, vgg16
INDICES = {
    "VGG-11 (8 convolutions)": [0, 3, 6, 8, 11, 13, 16, 18],
    "VGG-13 with batch normalization (10 convolutions)": [0, 3, 7, 10, 14, 17, 21, 24, 28, 31],
    "VGG-19 with batch normalization (16 convolutions)": [0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49],
}
VGG16 = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def shapes(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in tensors.items()}


def refusal(path: Path, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        weights_io.read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and ": " in message and message.endswith(".") and ". " not in message
    return message


def test_every_prefix_leads_to_the_names_of_vgg19():
    for prefix in ("", "features.", "module.features.", "state_dict.vgg.", "model.net.0."):
        names = state_dict.tensor_names("a.pth", shapes(state(prefix)))
        assert names["conv3_4"] == {"kernel": f"{prefix}16.weight", "bias": f"{prefix}16.bias"}


@pytest.mark.parametrize("name", INDICES)
def test_other_variants_of_vgg_are_refused_by_name(name):
    for prefix in ("features.", "state_dict.module."):
        with pytest.raises(InputError) as caught:
            state_dict.tensor_names("a.pth", shapes(state(prefix, INDICES[name])))
        assert f"a.pth is {name}, which is not supported: give the weights of VGG-19" in str(caught.value)


def test_missing_tensors_and_several_networks_are_refused():
    tensors = shapes(state("net."))
    for name, shape in (("net.34.bias", ()), ("net.12.weight", (3, 3)), ("net.5.bias", (1, 2))):
        with pytest.raises(InputError, match=f"lacks 1 of VGG-19's 32 tensors, such as {name}: give"):
            state_dict.tensor_names("a.pth", tensors | {name: shape})
    with pytest.raises(InputError, match=r"holds 2 VGG networks, such as under 'ema\.' and 'net\.': save a single one"):
        state_dict.tensor_names("a.pth", shapes(state("ema.")) | tensors)
    with pytest.raises(InputError, match="lacks 32 of VGG-19's 32 tensors, such as features.0.weight"):
        state_dict.tensor_names("a.pth", {"fc.weight": (3, 3), f"{'9' * 5000}.weight": (1, 1, 1, 1)})


def test_a_safetensors_file_equals_the_folded_state_dict_for_every_type_of_float(tmp_path):
    single = state()
    upper = {name: (array.view("<u4") >> 16).astype("<u2") for name, array in single.items()}
    rounded = {name: (array.astype("<u4") << 16).view("<f4") for name, array in upper.items()}
    for stored, exact in [
        (single, single),
        ({name: array.astype("f8") for name, array in single.items()}, single),
        ({name: array.astype("f2") for name, array in single.items()}, None),
        (upper, rounded),
    ]:
        path = safetensors(tmp_path / "a.safetensors", stored)
        expected = exact or {name: array.astype("f4") for name, array in stored.items()}
        actual = weights_io.read(path)
        np.testing.assert_array_equal(actual["conv5_4"]["kernel"], expected["features.34.weight"].transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(actual["conv1_2"]["bias"], expected["features.2.bias"])
        first = state_dict.fold(expected["features.0.weight"].transpose(2, 3, 1, 0), expected["features.0.bias"])
        np.testing.assert_array_equal(actual["conv1_1"]["kernel"], first["kernel"])
        assert all(array.dtype == np.float32 for layer in actual.values() for array in layer.values())
    assert weights_io.widths(path) == WIDTHS
    assert "torchvision" in weights_io.provenance(path)["preprocessing"]
    assert pretrained.find("vgg19", weights=path).path == path


def test_a_damaged_or_wrong_safetensors_file_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "a.safetensors"
    assert "does not exist" in refusal(path)
    path.write_bytes(b"abc")
    assert "(3 bytes) is truncated or no .safetensors file" in refusal(path)
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}" * 50)
    assert "is truncated or no .safetensors file" in refusal(path)
    path.write_bytes((2**21).to_bytes(8, "little") + bytes(2**21))
    assert "header of 2097152 bytes, more than 1048576" in refusal(path)
    for header in (b"{", b"[]", b"[" * 10**5, b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [1]}}', b"\xff\xfe\xfa"):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        assert "is damaged" in refusal(path)
    path.write_bytes(safetensors(path, state()).read_bytes()[:-1])
    assert "is truncated, as its values end at" in refusal(path)
    for changes in (
        {"shape": [2, 3, 3]},
        {"shape": [-2, 3, 3, -3]},
        {"shape": [1] * 9, "data_offsets": [0, 4]},
        {"shape": [2**61] * 4},
        {"shape": [2.0, 3, 3, 3]},
        {"data_offsets": [216, 0]},
        {"data_offsets": [0, True]},
    ):
        assert "is damaged" in refusal(safetensors(path, state(), **changes)), changes
    assert "features.0.weight as I32" in refusal(safetensors(path, state(), dtype="I32"))
    wide = state() | {"features.34.weight": np.zeros((513, 2, 3, 3), "f4"), "features.34.bias": np.zeros(513, "f4")}
    assert "from 1 to 512" in refusal(safetensors(path, wide))
    assert "1 of 4 values in features.34.bias" in refusal(
        safetensors(path, state() | {"features.34.bias": np.array([0, 1, np.nan, 2], "f4")})
    )
    assert "is VGG-11 (8 convolutions)" in refusal(safetensors(path, state("", INDICES["VGG-11 (8 convolutions)"])))


def test_vgg16_is_read_and_written_and_has_no_fourth_convolution_in_its_last_blocks(tmp_path):
    params = weights_io.read(safetensors(tmp_path / "vgg16.safetensors", state("vgg.", VGG16)))
    assert len(params) == 13 and not {"conv3_4", "conv4_4", "conv5_4"} & params.keys()
    weights_io.write(tmp_path / "vgg16.h5", params, source="", checksum="", licence="")
    again = weights_io.read(tmp_path / "vgg16.h5")
    assert list(again) == list(params)
    np.testing.assert_array_equal(again["conv5_3"]["kernel"], params["conv5_3"]["kernel"])
    network = VGG19.from_params(jax.device_put(again))
    assert list(map(len, network.widths)) == [2, 2, 3, 3, 3]
    with pytest.raises(InputError, match=r"VGG-16.*relu4_4"):
        jax.eval_shape(partial(evaluate_layers, network, layers=("relu4_4",)), again, jnp.ones((32, 48, 3)))


@pytest.mark.slow
def test_vgg16_is_vgg19_with_identities_as_its_missing_convolutions(tmp_path):
    params: Any = jax.device_put(weights_io.read(safetensors(tmp_path / "vgg16.safetensors", state("", VGG16))))
    identities = {}
    for layer in ("conv3_4", "conv4_4", "conv5_4"):
        width = params[f"{layer[:5]}_3"]["bias"].size
        kernel = jnp.zeros((3, 3, width, width)).at[1, 1].set(jnp.eye(width))
        identities[layer] = {"kernel": kernel, "bias": jnp.zeros(width)}
    image = jax.random.uniform(jax.random.key(0), (32, 48, 3))
    actual, expected = (
        evaluate_layers(VGG19.from_params(each), each, image, layers=("relu3_3", "relu5_3"))
        for each in (params, params | identities)
    )
    assert actual["relu5_3"].shape == (2, 3, 2) and jnp.any(actual["relu3_3"] > 0)
    for layer, values in actual.items():
        np.testing.assert_allclose(values, expected[layer], rtol=1e-4, atol=1e-3)


class Failing:
    """A file whose reads raise an error, or return a byte less than asked for."""

    def __init__(self, file: Any, fault: Exception | None) -> None:
        self.file, self.fault = file, fault

    def __enter__(self) -> "Failing":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def seek(self, at: int) -> int:
        return self.file.seek(at)

    def read(self, size: int) -> bytes:
        if self.fault is not None:
            raise self.fault
        return self.file.read(size)[:-1]


@pytest.mark.parametrize(
    ("fault", "kind", "expected"),
    [
        (OSError(5, "Input/output error"), UnavailableError, "(Input/output error): check the disk"),
        (OSError(12, "Cannot allocate memory"), UnavailableError, "memory is exhausted: close other programs"),
        (MemoryError(), UnavailableError, "memory is exhausted: close other programs"),
        (OSError(24, "Too many open files"), UnavailableError, "(Too many open files): raise the limit (ulimit -n)"),
        (PermissionError(13, "Permission denied"), InputError, "may not be read by this user: change its permissions"),
        (None, InputError, "was truncated while it was read"),
    ],
)
def test_a_failing_read_of_a_safetensors_file_is_named_and_the_file_remains(
    fault, kind, expected, tmp_path, monkeypatch
):
    path = safetensors(tmp_path / "a.safetensors", state())
    before = path.read_bytes()
    with monkeypatch.context() as patched:  # values are read by `open`, the header by `Path.open`
        patched.setattr(safetensors_io, "open", lambda *how: Failing(open(*how), fault), raising=False)
        assert expected in refusal(path, kind)
    assert path.read_bytes() == before

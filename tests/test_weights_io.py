import hashlib
import os
import time
from typing import Any

import h5py
import numpy as np
import pytest

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import sha256
from jaxstyle.networks import weights_io
from jaxstyle.networks.vgg import BLOCK_WIDTHS, CONV_LAYERS

TINY = ((2, 3), (4, 2), (3, 2, 4, 2), (3, 2, 2, 3), (2, 3, 2, 4))
ORIGIN = {"source": "https://example.org/a", "checksum": "md5:12", "licence": "CC BY, Zoë", "preprocessing": "none"}


def tiny(dtype: Any = np.float32):
    rng, channels, params = np.random.default_rng(0), 3, {}
    for name, out in zip(CONV_LAYERS, sum(TINY, ()), strict=True):
        kernel, bias = rng.standard_normal((3, 3, channels, out)), rng.standard_normal(out)
        params[name] = {"kernel": kernel.astype(dtype), "bias": bias.astype(dtype)}
        channels = out
    return params


def written(path, params=None):
    weights_io.write(path, params or tiny(), **ORIGIN)
    return path


def keras_written(path, params, *, names="fixed", prefix=""):
    as_names = {"fixed": np.bytes_, "bytes": lambda words: [word.encode() for word in words], "str": list}[names]
    with h5py.File(path, "w") as file:
        root = file.create_group(prefix) if prefix else file
        layers = [f"block{name[4]}_conv{name[6]}" for name in params]
        root.attrs["layer_names"] = as_names(["input_1", *layers, "block1_pool", "fc1"])
        for name in ("input_1", "block1_pool"):
            root.create_group(name).attrs["weight_names"] = np.zeros(0, "S1")
        for layer, values in [*zip(layers, params.values(), strict=True), ("fc1", tiny()["conv1_1"])]:
            group = root.create_group(layer)
            group.attrs["weight_names"] = as_names([f"{layer}/kernel:0", f"{layer}/bias:0"])
            group[f"{layer}/kernel:0"], group[f"{layer}/bias:0"] = values["kernel"], values["bias"]
    return path


def assert_equal(actual, expected):
    assert list(actual) == list(expected) == list(CONV_LAYERS)
    for name in CONV_LAYERS:
        for part in ("kernel", "bias"):
            assert actual[name][part].dtype == np.float32
            np.testing.assert_array_equal(actual[name][part], expected[name][part].astype(np.float32))


def refusal(path, kind: type[Exception] = InputError):
    """Return the message with which `path` is refused, once it is known to be one sentence with a cure."""
    with pytest.raises(kind) as caught:
        weights_io.read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and ": " in message and message.endswith(".")
    assert message.isprintable() and ". " not in message
    return message


def test_written_weights_are_read_back_exactly_in_float32(tmp_path):
    for dtype in (np.float32, np.float16, np.float64, ">f4"):
        path = written(tmp_path / "a.h5", tiny(dtype))
        assert_equal(weights_io.read(path), tiny(dtype))
        assert weights_io.widths(path) == TINY
        with h5py.File(path) as file:
            assert file["conv5_4/kernel"].dtype == dtype  # pyright: ignore[reportAttributeAccessIssue]


def test_equal_weights_give_equal_bytes_a_second_later_from_jax_and_numpy(tmp_path, params):
    arrays = {name: {part: np.asarray(values) for part, values in layer.items()} for name, layer in params.items()}
    first = written(tmp_path / "a.h5", arrays).read_bytes()
    time.sleep(1.1)  # HDF5's time stamps have seconds
    assert written(tmp_path / "b.h5", params).read_bytes() == first


def test_the_origin_is_stored_in_the_project_format_only(tmp_path):
    assert weights_io.provenance(written(tmp_path / "a.h5")) == ORIGIN
    weights_io.write(tmp_path / "a.h5", tiny(), **ORIGIN, training="3 steps")
    assert weights_io.provenance(tmp_path / "a.h5") == {**ORIGIN, "training": "3 steps"}
    assert weights_io.provenance(keras_written(tmp_path / "a.h5", tiny())) == {}


def test_sha256_is_the_published_digest_of_abc(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == digest


def test_keras_layers_are_read_by_name_and_other_layers_are_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_io, "BLOCK_WIDTHS", TINY)  # VGG-19's real widths take 80 MB
    for names, prefix in [("fixed", ""), ("bytes", "model_weights"), ("str", ""), ("str", "model_weights")]:
        path = keras_written(tmp_path / "a.h5", tiny(), names=names, prefix=prefix)
        assert_equal(weights_io.read(path), tiny())


def test_a_keras_file_of_other_widths_or_with_missing_layers_is_refused(tmp_path):
    message = refusal(keras_written(tmp_path / "a.h5", tiny()))
    assert "conv1_1" in message and "(3, 3, 3, 2)" in message and "64" in message
    params = tiny()
    del params["conv3_3"], params["conv4_1"]
    message = refusal(keras_written(tmp_path / "a.h5", params))
    assert "lacks 2 of VGG-19's 16 convolutions (conv3_3, conv4_1)" in message


def test_a_path_that_is_no_complete_hdf5_file_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    assert "does not exist" in refusal(path)
    assert "is a folder" in refusal(tmp_path)
    path.touch()
    assert "is empty" in refusal(path)
    path.write_bytes(b"PK\x03\x04" * 1000)
    assert "(4000 bytes) is not HDF5" in refusal(path)
    path.write_bytes(written(tmp_path / "b.h5").read_bytes()[:-5000])
    assert "is truncated" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    assert "no regular file" in refusal(tmp_path / "pipe.h5")


@pytest.mark.parametrize("place", [(h5py, "File"), (h5py.Dataset, "__getitem__")])
@pytest.mark.parametrize(
    ("fault", "kind", "expected"),
    [
        (OSError(5, "Can't read data (errno = 5)"), UnavailableError, "(Input/output error): check the disk or"),
        (OSError(12, "Can't read data (errno = 12)"), UnavailableError, "memory is exhausted: close other programs"),
        (MemoryError(), UnavailableError, "memory is exhausted: close other programs"),
        (PermissionError(13, "Permission denied"), InputError, "may not be read by this user: change its permissions"),
        (OSError(22, "Can't read data (errno = 22)"), InputError, "is damaged"),  # at an invalid address
    ],
)
def test_a_failing_read_is_named_and_the_file_remains(place, fault, kind, expected, tmp_path, monkeypatch):
    def fail(*_):
        raise fault

    path = written(tmp_path / "a.h5")
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(*place, fail)
        assert expected in refusal(path, kind)
    assert path.read_bytes() == before


def test_a_file_that_is_truncated_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "a.h5")
    layers = weights_io._layers

    def truncating(file, name):
        result = layers(file, name)
        os.truncate(path, 20_000)  # HDF5 then reads zeros
        return result

    monkeypatch.setattr(weights_io, "_layers", truncating)
    assert "was truncated while it was read" in refusal(path)


def test_a_failing_disk_is_named_for_the_sha256(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")  # of a read, without a file name

    path = written(tmp_path / "a.h5")
    monkeypatch.setattr(hashlib, "file_digest", fail)
    with pytest.raises(UnavailableError, match=r"a\.h5 cannot be read \(Input/output error\): check"):
        sha256(path)


def test_a_file_of_pytorch_is_refused_with_the_converter(tmp_path):
    for name in ("vgg19.pth", "vgg19.PT"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        assert "is a file of PyTorch: convert it with scripts/convert_weights.py" in refusal(tmp_path / name)


def test_a_file_of_another_network_lacks_all_sixteen_layers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dense/kernel"] = np.zeros((2, 2))
    assert "lacks 16 of VGG-19's 16" in refusal(tmp_path / "a.h5")


def edited(path, sound, name, **dataset):
    """Write the bytes of a sound file with another data set in place of `name`."""
    path.write_bytes(sound)
    with h5py.File(path, "a") as file:
        del file[name]
        if dataset:
            file.create_dataset(name, **dataset)
    return path


def test_an_invalid_data_set_is_refused(tmp_path):
    sound = written(tmp_path / "a.h5").read_bytes()
    for name, dataset, expected in [
        ("conv2_2/bias", {}, "lacks 'conv2_2/bias'"),
        ("conv2_2", {}, "lacks 1 of VGG-19's 16 convolutions (conv2_2)"),
        ("conv1_1/kernel", {"data": np.zeros((2, 3, 3, 3), "f4")}, "not (3, 3, 3, n)"),  # OIHW
        ("conv1_2/kernel", {"data": np.zeros((3, 3, 5, 3), "f4")}, "not (3, 3, 2, n)"),  # 5 inputs after 2 outputs
        ("conv5_4/bias", {"data": np.zeros(5, "f4")}, "(5,)"),
        ("conv5_4/bias", {"data": np.float32(0)}, "()"),
        ("conv5_4/bias", {"dtype": "f4", "shape": (2**40,)}, "from 1 to 512"),  # 4 terabytes, never allocated
        ("conv5_4/bias", {"data": h5py.Empty("f4")}, "None"),
        ("conv5_4/bias", {"data": np.zeros(4, "i4")}, "int32"),
        ("conv5_4/bias", {"data": np.zeros(4, "c8")}, "complex64"),
        ("conv5_4/bias", {"data": ["0"] * 4}, "object"),
        ("conv5_4/bias", {"data": np.array([0, 1, np.nan, np.inf], "f4")}, "2 of 4 values in conv5_4/bias"),
        ("conv5_4/bias", {"data": np.array([0, 1, 1e300, 2])}, "1 of 4 values in conv5_4/bias"),
        ("conv5_4/bias", {"shape": (4,), "dtype": "f4", "external": [("/dev/zero", 0, 16)]}, "elsewhere"),
        ("conv5_4/bias", {"shape": (4,), "dtype": "f4", "chunks": (2**29,), "maxshape": (None,)}, "oversized"),
        ("conv5_4/bias", {"data": np.zeros(4, "f4"), "chunks": (4,), "compression": "gzip"}, "compressed"),
        ("conv5_4", {"data": np.zeros(4)}, "is damaged"),  # a data set in place of a group
    ]:
        assert expected in refusal(edited(tmp_path / "a.h5", sound, name, **dataset))


def test_widths_of_512_channels_are_the_widest_allowed(tmp_path):
    path = tmp_path / "a.h5"
    for width in (512, 513):
        params = tiny()
        params["conv5_4"] = {"kernel": np.zeros((3, 3, 2, width), "f4"), "bias": np.zeros(width, "f4")}
        if width == 513:
            with pytest.raises(InputError, match="from 1 to 512"):
                written(path, params)
        else:
            assert weights_io.widths(written(path, params))[-1] == (2, 3, 2, 512)


def test_links_and_virtual_data_sets_are_not_followed(tmp_path):
    other = written(tmp_path / "b.h5")
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(other, "conv1_1/bias", (2,))
    for link in (h5py.SoftLink("/conv1_1/bias"), h5py.ExternalLink("b.h5", "/conv1_1/bias"), layout):
        with h5py.File(edited(tmp_path / "a.h5", other.read_bytes(), "conv1_1/bias"), "a") as file:
            if link is layout:
                file.create_virtual_dataset("conv1_1/bias", layout)
            else:
                file["conv1_1/bias"] = link
        assert ("elsewhere" if link is layout else "by a link") in refusal(tmp_path / "a.h5")


def test_a_damaged_file_raises_only_input_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_io, "BLOCK_WIDTHS", TINY)
    path, rng = tmp_path / "a.h5", np.random.default_rng(0)
    for whole in (written(path).read_bytes(), keras_written(path, tiny()).read_bytes()):
        refused = 0
        for _ in range(12):
            damaged = np.frombuffer(whole, np.uint8).copy()
            damaged[rng.integers(damaged.size, size=8)] = rng.integers(256, size=8)
            path.write_bytes(damaged.tobytes())
            try:
                weights_io.read(path)
            except InputError:
                refused += 1
        assert refused > 2


def test_invalid_weights_are_not_written(tmp_path):
    for part, value in [("bias", np.zeros(9, "f4")), ("bias", np.zeros(3, "i4")), ("bias", np.full(3, np.nan, "f4"))]:
        params = tiny()
        params["conv4_4"][part] = value
        with pytest.raises(InputError, match="conv4_4"):
            written(tmp_path / "a.h5", params)
    params = tiny()
    del params["conv4_4"]
    with pytest.raises(InputError, match="conv4_4"):
        written(tmp_path / "a.h5", params)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    before = written(tmp_path / "a.h5").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UnavailableError, match="No space left"):
        written(tmp_path / "a.h5", tiny(np.float16))
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for folder in ("none", "file"):
        with pytest.raises(UnavailableError, match=r"a\.h5 cannot be written \([A-Z][a-z ]+\): .*\.$"):
            written(tmp_path / folder / "a.h5")


def test_the_real_weights_have_the_published_size(weights_path):
    params = weights_io.read(weights_path)
    assert weights_io.widths(weights_path) == BLOCK_WIDTHS
    assert sum(array.size for layer in params.values() for array in layer.values()) == 20_024_384

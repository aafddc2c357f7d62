import os
import time
from typing import Any

import h5py
import numpy as np
import pytest

from jaxstyle import weights_file
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.vgg import BLOCK_WIDTHS, CONV_LAYERS

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
    weights_file.write(path, params or tiny(), **ORIGIN)
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


def refusal(path):
    """Return the message with which `path` is refused, once it is known to be one sentence with a cure."""
    with pytest.raises(InputError) as caught:
        weights_file.read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and ": " in message and message.endswith(".")
    assert message.isprintable() and ". " not in message
    return message


def test_what_is_written_is_read_back_exactly(tmp_path):
    path = written(tmp_path / "a.h5")
    assert_equal(weights_file.read(path), tiny())
    assert weights_file.widths(path) == TINY


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_every_float_type_is_read_as_float32(tmp_path, dtype):
    assert_equal(weights_file.read(written(tmp_path / "a.h5", tiny(dtype))), tiny(dtype))


def test_half_precision_is_kept_on_disk(tmp_path):
    with h5py.File(written(tmp_path / "a.h5", tiny(np.float16))) as file:
        assert file["conv5_4/kernel"].dtype == np.float16  # pyright: ignore[reportAttributeAccessIssue]


def test_jax_arrays_are_written_as_numpy_arrays_are(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    params = {name: {part: jnp.asarray(a) for part, a in layer.items()} for name, layer in tiny().items()}
    assert written(tmp_path / "a.h5", params).read_bytes() == written(tmp_path / "b.h5").read_bytes()


def test_a_file_written_a_second_later_has_the_same_bytes(tmp_path):
    first = written(tmp_path / "a.h5").read_bytes()
    time.sleep(1.1)
    assert written(tmp_path / "b.h5").read_bytes() == first


def test_the_origin_is_read_back(tmp_path):
    assert weights_file.provenance(written(tmp_path / "a.h5")) == ORIGIN


def test_a_keras_file_states_no_origin(tmp_path):
    assert weights_file.provenance(keras_written(tmp_path / "a.h5", tiny())) == {}


def test_sha256_is_the_published_digest_of_abc(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert weights_file.sha256(tmp_path / "abc") == digest


@pytest.mark.parametrize("names", ["fixed", "bytes", "str"])
@pytest.mark.parametrize("prefix", ["", "model_weights"])
def test_keras_layers_are_read_by_their_names_and_the_rest_is_ignored(tmp_path, monkeypatch, names, prefix):
    monkeypatch.setattr(weights_file, "BLOCK_WIDTHS", TINY)  # stands for VGG-19's own widths, which make 80 MB
    path = keras_written(tmp_path / "a.h5", tiny(), names=names, prefix=prefix)
    assert_equal(weights_file.read(path), tiny())


def test_a_keras_file_of_other_widths_is_refused(tmp_path):
    message = refusal(keras_written(tmp_path / "a.h5", tiny()))
    assert "conv1_1" in message and "(3, 3, 3, 2)" in message and "64" in message


def test_a_keras_file_without_a_layer_is_refused_by_its_name(tmp_path):
    params = tiny()
    del params["conv3_3"], params["conv4_1"]
    message = refusal(keras_written(tmp_path / "a.h5", params))
    assert "lacks 2 of VGG-19's 16 convolutions (conv3_3, conv4_1)" in message


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(tmp_path):
    (tmp_path / "empty.h5").touch()
    assert "does not exist" in refusal(tmp_path / "none.h5")
    assert "is a folder" in refusal(tmp_path)
    assert "is empty" in refusal(tmp_path / "empty.h5")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    assert "no regular file" in refusal(tmp_path / "pipe.h5")


def test_a_file_that_is_not_hdf5_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"PK\x03\x04" * 1000)
    assert "(4000 bytes) is not HDF5" in refusal(tmp_path / "a.h5")


def test_a_truncated_file_is_refused_in_one_sentence(tmp_path):
    path = written(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:-5000])
    assert "is truncated" in refusal(path)


def test_a_file_of_another_network_lacks_all_sixteen_layers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dense/kernel"] = np.zeros((2, 2))
    assert "lacks 16 of VGG-19's 16" in refusal(tmp_path / "a.h5")


def edited(path, name, **dataset):
    """Write the tiny network and put another data set in place of `name`."""
    with h5py.File(written(path), "a") as file:
        del file[name]
        if dataset:
            file.create_dataset(name, **dataset)
    return path


@pytest.mark.parametrize(
    ("name", "dataset", "part_of_message"),
    [
        ("conv2_2/bias", {}, "lacks 'conv2_2/bias'"),
        ("conv2_2", {}, "lacks 1 of VGG-19's 16 convolutions (conv2_2)"),
        ("conv1_1/kernel", {"data": np.zeros((2, 3, 3, 3), "f4")}, "not (3, 3, 3, n)"),  # OIHW
        ("conv1_2/kernel", {"data": np.zeros((3, 3, 5, 3), "f4")}, "not (3, 3, 2, n)"),  # takes 5, is given 2
        ("conv5_4/bias", {"data": np.zeros(5, "f4")}, "(5,)"),
        ("conv5_4/bias", {"data": np.float32(0)}, "()"),
        ("conv5_4/bias", {"dtype": "f4", "shape": (2**40,)}, "from 1 to 512"),  # four terabytes, never allocated
        ("conv5_4/bias", {"data": h5py.Empty("f4")}, "None"),
        ("conv5_4/bias", {"data": np.zeros(4, "i4")}, "int32"),
        ("conv5_4/bias", {"data": np.zeros(4, "c8")}, "complex64"),
        ("conv5_4/bias", {"data": ["0"] * 4}, "object"),
        ("conv5_4/bias", {"data": np.array([0, 1, np.nan, np.inf], "f4")}, "2 of 4 values in conv5_4/bias"),
        ("conv5_4/bias", {"data": np.array([0, 1, 1e300, 2])}, "1 of 4 values in conv5_4/bias"),
        ("conv5_4/bias", {"shape": (4,), "dtype": "f4", "external": [("/dev/zero", 0, 16)]}, "elsewhere"),
        ("conv5_4/bias", {"shape": (4,), "dtype": "f4", "chunks": (2**29,), "maxshape": (None,)}, "oversized"),
    ],
)
def test_a_wrong_data_set_is_refused_before_it_is_used(tmp_path, name, dataset, part_of_message):
    assert part_of_message in refusal(edited(tmp_path / "a.h5", name, **dataset))


@pytest.mark.parametrize("link", [h5py.SoftLink("/conv1_1/bias"), h5py.ExternalLink("b.h5", "/conv1_1/bias")])
def test_a_link_is_not_followed(tmp_path, link):
    written(tmp_path / "b.h5")
    with h5py.File(written(tmp_path / "a.h5"), "a") as file:
        del file["conv1_1/bias"]
        file["conv1_1/bias"] = link
    assert "by a link" in refusal(tmp_path / "a.h5")


def test_a_virtual_data_set_is_not_read(tmp_path):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(written(tmp_path / "b.h5"), "conv1_1/bias", (2,))
    with h5py.File(written(tmp_path / "a.h5"), "a") as file:
        del file["conv1_1/bias"]
        file.create_virtual_dataset("conv1_1/bias", layout)
    assert "elsewhere" in refusal(tmp_path / "a.h5")


def test_a_data_set_where_a_group_belongs_is_refused(tmp_path):
    assert "is damaged" in refusal(edited(tmp_path / "a.h5", "conv5_4", data=np.zeros(4)))


@pytest.mark.parametrize("layout", ["own", "keras"])
def test_damaged_bytes_are_read_or_refused_and_never_crash(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(weights_file, "BLOCK_WIDTHS", TINY)
    path = tmp_path / "a.h5"
    whole = (written(path) if layout == "own" else keras_written(path, tiny())).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(100):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(damaged.size, size=8)] = rng.integers(256, size=8)
        path.write_bytes(damaged.tobytes())
        try:
            weights_file.read(path)
        except InputError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("spoil", ["missing", "shape", "kind", "nan"])
def test_what_could_not_be_read_is_not_written(tmp_path, spoil):
    params = tiny()
    if spoil == "missing":
        del params["conv4_4"]
    elif spoil == "nan":
        params["conv4_4"]["bias"][0] = np.nan
    else:
        params["conv4_4"]["bias"] = {"shape": np.zeros(9, "f4"), "kind": np.zeros(3, "i4")}[spoil]
    with pytest.raises(InputError, match="conv4_4"):
        written(tmp_path / "a.h5", params)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    before = written(tmp_path / "a.h5").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UnavailableError, match="No space left"):
        written(tmp_path / "a.h5", tiny(np.float16))
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("folder", ["none", "file"])
def test_a_folder_that_cannot_be_written_is_named_in_one_sentence(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"a\.h5 cannot be written \([A-Z][a-z ]+\): .*\.$"):
        written(tmp_path / folder / "a.h5")


def test_the_development_file_is_read_as_the_whole_network(weights_path):
    params = weights_file.read(weights_path)
    assert weights_file.widths(weights_path) == BLOCK_WIDTHS
    assert sum(array.size for layer in params.values() for array in layer.values()) == 20_024_384

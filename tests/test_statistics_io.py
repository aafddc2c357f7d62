import itertools
import os
import time
from dataclasses import replace
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.losses import statistics_io
from jaxstyle.losses.moments import Moments
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.statistics_io import network_hash
from jaxstyle.losses.wasserstein import LEVELS, Quantiles
from jaxstyle.networks.vgg import CONV_LAYERS, VGG19

CHANNELS = {"relu1_1": 4, "relu2_1": 6}  # of the tiny network
OBJECTIVE = Objective(content={}, style=dict.fromkeys(CHANNELS, 1.0))
SLICED = replace(OBJECTIVE, statistic="sliced")
NETWORK = VGG19()


def summary(kind: type[Moments] | type[Quantiles] = Moments, *, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        layer: [(n,), (n, n)] if kind is Moments else [(n, n - 1), (n - 1, LEVELS)] for layer, n in CHANNELS.items()
    }
    return {
        layer: kind(*(jnp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in both))
        for layer, both in shapes.items()
    }


def write(path, sizes, params, *, objective=OBJECTIVE, network: Any = NETWORK, pictures=("a.jpg",)):
    statistics_io.write(path, sizes, params=params, objective=objective, network=network, pictures=pictures)


def read(path, params, *, objective=OBJECTIVE, network: Any = NETWORK):
    return statistics_io.read(path, params=params, objective=objective, network=network)


def written(path, params, *, objective=OBJECTIVE, network: Any = NETWORK):
    kind = Quantiles if objective.statistic == "sliced" else Moments
    sizes = {side: summary(kind, seed=side) for side in (128, 512)}
    write(path, sizes, params, objective=objective, network=network, pictures=["a.jpg", "ö.png"])
    return path


def edited(path, sound, name, **dataset):
    """Write the bytes of a sound file with another data set in place of `name`."""
    path.write_bytes(sound)
    with h5py.File(path, "a") as file:
        if name.endswith("/deeper"):
            del file[name.removesuffix("/deeper")]
        elif name in file:
            del file[name]
        if dataset:
            file.create_dataset(name, **dataset)
    return path


def refusal(path, params, *, objective=OBJECTIVE, network=NETWORK):
    """Return the message with which `path` is refused, once it is known to be one sentence with a cure."""
    with pytest.raises(InputError) as caught:
        read(path, params, objective=objective, network=network)
    message = str(caught.value)
    assert message.startswith(str(path)) and ": " in message and message.endswith(".")
    assert message.isprintable() and ". " not in message
    return message


def test_written_statistics_are_read_back_exactly(tmp_path, params):
    for objective, kind in ((OBJECTIVE, Moments), (SLICED, Quantiles)):
        actual = read(written(tmp_path / "a.h5", params, objective=objective), params, objective=objective)
        assert sorted(actual) == [128, 512]
        for side, by_layer in actual.items():
            assert list(by_layer) == list(CHANNELS)
            jax.tree.map(np.testing.assert_array_equal, by_layer, summary(kind, seed=side))


def test_equal_arguments_give_equal_bytes_a_second_later(tmp_path, params):
    first = written(tmp_path / "a.h5", params).read_bytes()
    time.sleep(1.1)  # HDF5's time stamps have seconds
    assert written(tmp_path / "b.h5", params).read_bytes() == first


def test_any_number_of_picture_names_is_stored_in_utf8(tmp_path, params):
    for pictures, stored in [
        (["a.jpg", "ö.png"], "a.jpg\nö.png"),
        ([os.fsdecode(b"\xff.png")], "\\udcff.png"),  # not valid UTF-8
        (["long" * 100 + ".jpg"] * 1000, ("long" * 100 + ".jpg\n") * 1000),
        ([], ""),
    ]:
        path = tmp_path / "a.h5"
        write(path, {64: summary()}, params, pictures=pictures)
        with h5py.File(path) as file:
            text = bytes(file.attrs["pictures"]).decode()  # pyright: ignore[reportArgumentType]
        assert text == stored[:60_000]
        assert list(read(path, params)) == [64]


def test_moments_are_read_for_every_statistic_that_is_derived_from_them(tmp_path, params):
    path = written(tmp_path / "a.h5", params)
    for name in ("mean_std", "covariance", "wasserstein"):
        assert read(path, params, objective=replace(OBJECTIVE, statistic=name))


def test_a_run_with_fewer_layers_reads_those_layers(tmp_path, params):
    objective = replace(OBJECTIVE, style={"relu2_1": 1.0})
    actual = read(written(tmp_path / "a.h5", params), params, objective=objective)
    assert [list(by_layer) for by_layer in actual.values()] == [["relu2_1"]] * 2


def test_the_hash_of_a_network_depends_on_its_numbers_and_not_on_their_type():
    rng = np.random.default_rng(0)
    params: Any = {name: {part: rng.random(2, np.float32) for part in ("kernel", "bias")} for name in CONV_LAYERS}
    wide: Any = {name: {part: np.float64(x) for part, x in layer.items()} for name, layer in params.items()}
    first = network_hash(params)
    assert network_hash(wide) == first
    for name in CONV_LAYERS:
        for part in ("kernel", "bias"):
            values = params[name][part]
            for changed in (values + np.float32(1e-6), values.reshape(1, 2)):
                assert network_hash({**params, name: {**params[name], part: changed}}) != first


def test_statistics_of_another_run_are_refused(tmp_path, params):
    path = written(tmp_path / "a.h5", params)
    for network, expected in [
        (VGG19(pooling="avg"), "has the pooling 'max times 1', but this run has 'avg times 1'"),
        (VGG19(pooling_gain=2.0), "but this run has 'max times 2'"),
        (VGG19(padding="replicate"), "has the border 'zeros', but this run has 'replicate'"),
        (VGG19(input_scale=1.0), "has the white '255', but this run has '1'"),
    ]:
        assert expected in refusal(path, params, network=network)
    for objective, expected in [
        (SLICED, "has the statistic 'moments', but this run has 'quantiles'"),
        (replace(OBJECTIVE, style={"relu1_1": 1.0, "relu3_1": 1.0}), "lacks '128/relu3_1/mean'"),
    ]:
        assert expected in refusal(path, params, objective=objective)
    other = {**params, "conv5_4": {**params["conv5_4"], "bias": np.asarray(params["conv5_4"]["bias"]) + 1}}
    assert "has the network " in refusal(path, other)


def test_a_path_that_is_no_complete_file_of_statistics_is_refused(tmp_path, params):
    path = tmp_path / "a.h5"
    assert "does not exist" in refusal(path, params)
    path.touch()
    assert "is empty" in refusal(path, params)
    path.write_bytes(b"PK\x03\x04" * 1000)
    assert "(4000 bytes) is not HDF5" in refusal(path, params)
    path.write_bytes(written(tmp_path / "b.h5", params).read_bytes()[:-2000])
    assert "is truncated" in refusal(path, params)
    with h5py.File(path, "w") as file:
        file["dense/kernel"] = np.zeros((2, 2))
    assert "has the format ''" in refusal(path, params)


def test_invalid_moments_are_refused(tmp_path, params):
    path = tmp_path / "a.h5"
    sound = written(path, params).read_bytes()
    for name, dataset, expected in [
        ("128/relu2_1/second", {}, "lacks '128/relu2_1/second'"),
        ("128/relu2_1", {}, "lacks '128/relu2_1/mean'"),
        ("512", {"data": np.zeros(4, "f4")}, "is damaged"),  # a data set in place of a group
        ("128/relu2_1/mean", {"data": np.zeros(5, "f4")}, "128/relu2_1/mean in another form than (6,)"),
        ("128/relu2_1/mean", {"data": np.float32(0)}, "in another form than (6,)"),
        ("128/relu2_1/second", {"data": np.zeros((6, 5), "f4")}, "in another form than (6, 6)"),
        ("128/relu2_1/mean", {"shape": (2**40,), "dtype": "f4"}, "in another form"),  # 4 terabytes, never allocated
        ("128/relu2_1/mean", {"data": h5py.Empty("f4")}, "in another form"),
        ("128/relu2_1/mean", {"data": np.zeros(6)}, "in another form"),  # float64
        ("128/relu2_1/mean", {"data": ["0"] * 6}, "in another form"),
        ("128/relu2_1/mean/deeper", {"data": np.zeros(6, "f4")}, "in another form"),  # a group in place of a data set
        ("128/relu2_1/mean", {"shape": (6,), "dtype": "f4", "external": [("/dev/zero", 0, 24)]}, "in another form"),
        ("128/relu2_1/mean", {"shape": (6,), "dtype": "f4", "chunks": (2**29,), "maxshape": (None,)}, "in another"),
        ("128/relu2_1/mean", {"data": np.array([0, 1, 2, 3, 4, np.nan], "f4")}, "128/relu2_1/mean that are not finite"),
        ("512/relu1_1/second", {"data": np.full((4, 4), np.inf, "f4")}, "512/relu1_1/second that are not finite"),
        ("abc/relu1_1/mean", {"data": np.zeros(4, "f4")}, "holds 3 groups, not 1 to 64 sizes"),
        ("-1/relu1_1/mean", {"data": np.zeros(4, "f4")}, "holds 3 groups"),
        ("0/relu1_1/mean", {"data": np.zeros(4, "f4")}, "holds 3 groups"),
        ("1234567/relu1_1/mean", {"data": np.zeros(4, "f4")}, "holds 3 groups"),
    ]:
        assert expected in refusal(edited(path, sound, name, **dataset), params), name


def test_invalid_quantiles_are_refused(tmp_path, params):
    path = tmp_path / "a.h5"
    sound = written(path, params, objective=SLICED).read_bytes()
    for name, shape, expected in [
        ("128/relu1_1/values", (3, LEVELS + 1), "128/relu1_1/values in another form than (3, 512)"),
        ("128/relu1_1/values", (2, LEVELS), "in another form than (3, 512)"),
        ("128/relu1_1/directions", (3, 3), "128/relu1_1/directions in another form than (4, 3)"),
        ("128/relu1_1/directions", (4, 5), "in another form"),  # more directions than channels
        ("128/relu1_1/directions", (), "is damaged"),
    ]:
        edited(path, sound, name, data=np.zeros(shape, "f4"))
        assert expected in refusal(path, params, objective=SLICED)


def test_a_file_has_1_to_64_sizes(tmp_path, params):
    layer = {"relu1_1": summary()["relu1_1"]}
    objective = replace(OBJECTIVE, style={"relu1_1": 1.0})
    for count in (0, 64, 65):
        sizes = dict.fromkeys(range(100, 100 + count), layer)
        write(tmp_path / "a.h5", sizes, params, objective=objective)
        if count == 64:
            assert list(read(tmp_path / "a.h5", params, objective=objective)) == list(sizes)
        else:
            message = refusal(tmp_path / "a.h5", params, objective=objective)
            assert f"holds {count} groups, not 1 to 64 sizes" in message


def test_links_and_virtual_data_sets_are_not_followed(tmp_path, params):
    other, path = written(tmp_path / "b.h5", params), tmp_path / "a.h5"
    links = (h5py.SoftLink("/512/relu1_1"), h5py.ExternalLink("b.h5", "/512/relu1_1"))
    for name, link in itertools.product(("128/relu1_1", "128"), links):
        with h5py.File(edited(path, other.read_bytes(), name), "a") as file:
            file[name] = link
        assert "by a link" in refusal(path, params)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(other, "128/relu1_1/mean", (4,))
    with h5py.File(edited(path, other.read_bytes(), "128/relu1_1/mean"), "a") as file:
        file.create_virtual_dataset("128/relu1_1/mean", layout)
    assert "in another form" in refusal(path, params)


def test_an_attribute_that_is_not_text_is_refused(tmp_path, params):
    for value in (np.zeros(3), np.bytes_(b"\xff\xfe")):
        with h5py.File(written(tmp_path / "a.h5", params), "a") as file:
            file.attrs["network"] = value
        assert "is damaged" in refusal(tmp_path / "a.h5", params)


def test_a_damaged_file_raises_only_input_errors(tmp_path, params):
    path = written(tmp_path / "a.h5", params)
    whole, rng, refused = np.frombuffer(path.read_bytes(), np.uint8), np.random.default_rng(0), 0
    for _ in range(20):
        damaged = whole.copy()
        damaged[rng.integers(damaged.size, size=8)] = rng.integers(256, size=8)
        path.write_bytes(damaged.tobytes())
        try:
            read(path, params)
        except InputError:
            refused += 1
    assert refused > 4


def test_a_folder_that_cannot_be_written_is_refused_and_no_file_is_left(tmp_path, params):
    (tmp_path / "file").touch()
    for folder in ("none", "file"):
        with pytest.raises(UnavailableError, match=r"a\.h5 cannot be written \([A-Z][a-z ]+\): .*\.$"):
            written(tmp_path / folder / "a.h5", params)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, params, monkeypatch):
    before = written(tmp_path / "a.h5", params).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UnavailableError, match="No space left"):
        written(tmp_path / "a.h5", params, objective=SLICED)
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_statistics_of_a_custom_network_are_refused(tmp_path, params):
    with pytest.raises(InputError, match="network"):
        written(tmp_path / "a.h5", params, network=lambda params, image: {})

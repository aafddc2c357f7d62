import os
import time
from dataclasses import replace

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import statistics_file
from jaxstyle.config import Config
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.moments import Moments
from jaxstyle.transport import LEVELS, Quantiles

CHANNELS = {"relu1_1": 4, "relu2_1": 6}  # of the tiny network
CONFIG = Config(content_layers=(), style_layers=tuple(CHANNELS))
SLICED = replace(CONFIG, statistic="sliced")


def summary(kind: type[Moments] | type[Quantiles] = Moments, *, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        layer: [(n,), (n, n)] if kind is Moments else [(n, n - 1), (n - 1, LEVELS)] for layer, n in CHANNELS.items()
    }
    return {
        layer: kind(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in both))
        for layer, both in shapes.items()
    }


def written(path, params, *, config=CONFIG):
    kind = Quantiles if config.statistic == "sliced" else Moments
    sizes = {side: summary(kind, seed=side) for side in (128, 512)}
    statistics_file.write(path, sizes, params=params, config=config, pictures=["a.jpg", "ö.png"])
    return path


def edited(path, params, name, *, config=CONFIG, **dataset):
    """Write statistics and put another data set in place of `name`."""
    with h5py.File(written(path, params, config=config), "a") as file:
        if name in file:
            del file[name]
        if dataset:
            file.create_dataset(name, **dataset)
    return path


def refusal(path, params, *, config=CONFIG):
    """Return the message with which `path` is refused, once it is known to be one sentence with a cure."""
    with pytest.raises(InputError) as caught:
        statistics_file.read(path, params=params, config=config)
    message = str(caught.value)
    assert message.startswith(str(path)) and ": " in message and message.endswith(".")
    assert message.isprintable() and ". " not in message
    return message


@pytest.mark.parametrize("config", [CONFIG, SLICED], ids=["moments", "quantiles"])
def test_what_is_written_is_read_back_exactly(tmp_path, params, config):
    found = statistics_file.read(written(tmp_path / "a.h5", params, config=config), params=params, config=config)
    kind = Quantiles if config.statistic == "sliced" else Moments
    assert sorted(found) == [128, 512]
    for side, by_layer in found.items():
        assert list(by_layer) == list(CHANNELS)
        jax.tree.map(np.testing.assert_array_equal, by_layer, summary(kind, seed=side))


def test_equal_arguments_give_equal_bytes_a_second_later(tmp_path, params):
    first = written(tmp_path / "a.h5", params).read_bytes()
    time.sleep(1.1)
    assert written(tmp_path / "b.h5", params).read_bytes() == first


def test_the_pictures_are_named_in_the_file(tmp_path, params):
    with h5py.File(written(tmp_path / "a.h5", params)) as file:
        assert bytes(file.attrs["pictures"]).decode() == "a.jpg\nö.png"  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pictures", [[], ["long" * 100 + ".jpg"] * 1000], ids=["none", "very many"])
def test_any_number_of_pictures_can_be_named(tmp_path, params, pictures):
    statistics_file.write(tmp_path / "a.h5", {64: summary()}, params=params, config=CONFIG, pictures=pictures)
    assert list(statistics_file.read(tmp_path / "a.h5", params=params, config=CONFIG)) == [64]


def test_a_name_that_is_no_text_is_written_so_that_it_can_be_told(tmp_path, params):
    pictures = [os.fsdecode(b"\xff.png"), "ö.png"]
    statistics_file.write(tmp_path / "a.h5", {64: summary()}, params=params, config=CONFIG, pictures=pictures)
    with h5py.File(tmp_path / "a.h5") as file:
        assert bytes(file.attrs["pictures"]).decode() == "\\udcff.png\nö.png"  # pyright: ignore[reportArgumentType]


def test_statistics_of_moments_serve_every_statistic_that_is_made_of_them(tmp_path, params):
    path = written(tmp_path / "a.h5", params)
    for name in ("mean_std", "covariance", "wasserstein"):
        assert statistics_file.read(path, params=params, config=replace(CONFIG, statistic=name))


def test_a_run_with_fewer_layers_reads_those(tmp_path, params):
    config = replace(CONFIG, style_layers=("relu2_1",))
    found = statistics_file.read(written(tmp_path / "a.h5", params), params=params, config=config)
    assert [list(by_layer) for by_layer in found.values()] == [["relu2_1"]] * 2


def test_the_hash_of_a_network_is_of_its_numbers_and_not_of_their_type(params):
    wide = jax.tree.map(lambda array: np.asarray(array, np.float64), params)
    other = {**params, "conv5_4": {**params["conv5_4"], "bias": params["conv5_4"]["bias"] + 1e-6}}
    assert statistics_file.network_hash(wide) == statistics_file.network_hash(params)
    assert statistics_file.network_hash(other) != statistics_file.network_hash(params)


def test_statistics_of_another_network_are_refused(tmp_path, params):
    other = jax.tree.map(lambda array: array + 1, params)
    assert "has the network " in refusal(written(tmp_path / "a.h5", other), params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "avg"}, "has the pooling 'max times 1', but this run has 'avg times 1'"),
        ({"pooling_gain": 2.0}, "but this run has 'max times 2'"),
        ({"border": "replicate"}, "has the border 'zeros', but this run has 'replicate'"),
        ({"white": 1.0}, "has the white '255', but this run has '1'"),
        ({"statistic": "sliced"}, "has the statistic 'moments', but this run has 'quantiles'"),
        ({"style_layers": ("relu1_1", "relu3_1")}, "lacks '128/relu3_1/mean'"),
    ],
)
def test_statistics_of_other_facts_are_refused(tmp_path, params, change, message):
    assert message in refusal(written(tmp_path / "a.h5", params), params, config=replace(CONFIG, **change))


def test_a_file_of_something_else_is_refused(tmp_path, params):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dense/kernel"] = np.zeros((2, 2))
    assert "has the format ''" in refusal(tmp_path / "a.h5", params)


def test_a_file_that_is_missing_or_empty_or_not_hdf5_or_truncated_is_refused(tmp_path, params):
    assert "does not exist" in refusal(tmp_path / "none.h5", params)
    (tmp_path / "empty.h5").touch()
    assert "is empty" in refusal(tmp_path / "empty.h5", params)
    (tmp_path / "a.h5").write_bytes(b"PK\x03\x04" * 1000)
    assert "(4000 bytes) is not HDF5" in refusal(tmp_path / "a.h5", params)
    path = written(tmp_path / "b.h5", params)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "is truncated" in refusal(path, params)


@pytest.mark.parametrize(
    ("name", "dataset", "message"),
    [
        ("128/relu2_1/second", {}, "lacks '128/relu2_1/second'"),
        ("128/relu2_1", {}, "lacks '128/relu2_1/mean'"),
        ("512", {"data": np.zeros(4, "f4")}, "is damaged"),  # a data set where a group belongs
        ("128/relu2_1/mean", {"data": np.zeros(5, "f4")}, "128/relu2_1/mean in another form than (6,)"),
        ("128/relu2_1/mean", {"data": np.float32(0)}, "in another form than (6,)"),
        ("128/relu2_1/second", {"data": np.zeros((6, 5), "f4")}, "in another form than (6, 6)"),
        ("128/relu2_1/mean", {"shape": (2**40,), "dtype": "f4"}, "in another form"),  # 4 terabytes, never allocated
        ("128/relu2_1/mean", {"data": h5py.Empty("f4")}, "in another form"),
        ("128/relu2_1/mean", {"data": np.zeros(6)}, "in another form"),  # float64
        ("128/relu2_1/mean", {"data": ["0"] * 6}, "in another form"),
        ("128/relu2_1/mean/deeper", {"data": np.zeros(6, "f4")}, "in another form"),  # a group where data belong
        ("128/relu2_1/mean", {"shape": (6,), "dtype": "f4", "external": [("/dev/zero", 0, 24)]}, "in another form"),
        ("128/relu2_1/mean", {"shape": (6,), "dtype": "f4", "chunks": (2**29,), "maxshape": (None,)}, "in another"),
        ("128/relu2_1/mean", {"data": np.array([0, 1, 2, 3, 4, np.nan], "f4")}, "128/relu2_1/mean that are not finite"),
        ("512/relu1_1/second", {"data": np.full((4, 4), np.inf, "f4")}, "512/relu1_1/second that are not finite"),
        ("abc/relu1_1/mean", {"data": np.zeros(4, "f4")}, "holds 3 groups, not 1 to 64 sizes"),
        ("-1/relu1_1/mean", {"data": np.zeros(4, "f4")}, "holds 3 groups"),
        ("1234567/relu1_1/mean", {"data": np.zeros(4, "f4")}, "holds 3 groups"),
    ],
)
def test_wrong_contents_are_refused_before_they_are_used(tmp_path, params, name, dataset, message):
    path = tmp_path / "a.h5"
    if name.endswith("/deeper"):
        edited(path, params, name.removesuffix("/deeper"))
        with h5py.File(path, "a") as file:
            file.create_dataset(name, **dataset)
    else:
        edited(path, params, name, **dataset)
    assert message in refusal(path, params)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("128/relu1_1/values", (3, LEVELS + 1), "128/relu1_1/values in another form than (3, 512)"),
        ("128/relu1_1/values", (2, LEVELS), "in another form than (3, 512)"),
        ("128/relu1_1/directions", (3, 3), "128/relu1_1/directions in another form than (4, 3)"),
        ("128/relu1_1/directions", (4, 5), "in another form"),  # more directions than channels
        ("128/relu1_1/directions", (), "is damaged"),
    ],
)
def test_quantiles_of_wrong_shapes_are_refused(tmp_path, params, name, shape, message):
    path = edited(tmp_path / "a.h5", params, name, config=SLICED, data=np.zeros(shape, "f4"))
    assert message in refusal(path, params, config=SLICED)


def test_a_file_without_sizes_or_with_too_many_is_refused(tmp_path, params):
    for count in (0, statistics_file.MOST_SIZES + 1):
        sizes = dict.fromkeys(range(100, 100 + count), {"relu1_1": summary()["relu1_1"]})
        statistics_file.write(tmp_path / "a.h5", sizes, params=params, config=CONFIG, pictures=["a.jpg"])
        assert f"holds {count} groups, not 1 to 64 sizes" in refusal(tmp_path / "a.h5", params)


@pytest.mark.parametrize("link", [h5py.SoftLink("/512/relu1_1"), h5py.ExternalLink("b.h5", "/512/relu1_1")])
@pytest.mark.parametrize("name", ["128/relu1_1", "128"])
def test_a_link_is_not_followed(tmp_path, params, link, name):
    written(tmp_path / "b.h5", params)
    with h5py.File(written(tmp_path / "a.h5", params), "a") as file:
        del file[name]
        file[name] = link
    assert "by a link" in refusal(tmp_path / "a.h5", params)


def test_a_virtual_data_set_is_not_read(tmp_path, params):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(written(tmp_path / "b.h5", params), "128/relu1_1/mean", (4,))
    with h5py.File(edited(tmp_path / "a.h5", params, "128/relu1_1/mean"), "a") as file:
        file.create_virtual_dataset("128/relu1_1/mean", layout)
    assert "in another form" in refusal(tmp_path / "a.h5", params)


@pytest.mark.parametrize("value", [np.zeros(3), np.bytes_(b"\xff\xfe")], ids=["numbers", "no text"])
def test_a_fact_that_is_no_text_is_refused(tmp_path, params, value):
    with h5py.File(written(tmp_path / "a.h5", params), "a") as file:
        file.attrs["network"] = value
    assert "is damaged" in refusal(tmp_path / "a.h5", params)


def test_damaged_bytes_are_read_or_refused_and_never_crash(tmp_path, params):
    path = written(tmp_path / "a.h5", params)
    whole, rng, refused = np.frombuffer(path.read_bytes(), np.uint8), np.random.default_rng(0), 0
    for _ in range(100):
        damaged = whole.copy()
        damaged[rng.integers(damaged.size, size=8)] = rng.integers(256, size=8)
        path.write_bytes(damaged.tobytes())
        try:
            statistics_file.read(path, params=params, config=CONFIG)
        except InputError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("folder", ["none", "file"])
def test_a_folder_that_cannot_be_written_is_named_in_one_sentence_and_nothing_is_left(tmp_path, params, folder):
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"a\.h5 cannot be written \([A-Z][a-z ]+\): .*\.$"):
        written(tmp_path / folder / "a.h5", params)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(tmp_path, params, monkeypatch):
    before = written(tmp_path / "a.h5", params).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UnavailableError, match="No space left"):
        written(tmp_path / "a.h5", params, config=SLICED)
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]

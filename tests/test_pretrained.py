import functools
import hashlib
import itertools
import logging
import tempfile
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TINY
from vgg_layers import features

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.networks import pretrained, vgg, weights_io
from jaxstyle.networks.pretrained import KERAS_FILE, cache

ORIGIN = {"source": "test", "checksum": "none", "licence": "none"}


@pytest.fixture(autouse=True)
def places(isolated, monkeypatch):
    """Search in empty folders of the test only, and refuse downloads."""
    (isolated / "checkout" / "weights").mkdir(parents=True)
    (isolated / "checkout" / "pyproject.toml").touch()
    monkeypatch.setattr(pretrained, "CHECKOUT", isolated / "checkout")
    return isolated


@functools.cache
def sound(widths: vgg.Widths = TINY) -> bytes:
    """Return the file of a network of random values."""
    rng, channels, params = np.random.default_rng(0), 3, {}
    for name, out in zip(vgg.CONV_LAYERS, itertools.chain(*widths), strict=True):
        params[name] = {"kernel": rng.random((3, 3, channels, out), "f4"), "bias": rng.random(out, "f4")}
        channels = out
    with tempfile.TemporaryDirectory() as folder:
        weights_io.write(f"{folder}/a.h5", params, **ORIGIN)
        return Path(folder, "a.h5").read_bytes()


def tiny(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sound())
    return path


def whole(path, monkeypatch):
    """Write a tiny network and replace VGG-19's widths by its widths."""
    monkeypatch.setattr(pretrained, "BLOCK_WIDTHS", TINY)
    return tiny(path)


def assert_same(actual, path):
    for name, layer in weights_io.read(path).items():
        for part, values in layer.items():
            assert isinstance(actual[name][part], jax.Array)
            np.testing.assert_array_equal(actual[name][part], values)


def left_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


@pytest.fixture
def serve(places, monkeypatch):
    """Serve a tiny network in place of the official download, with a fault if one is requested; return its bytes."""
    servers = []

    def start(*, status=200, keep=None, wrong=False, silent=False):
        body = tiny(places / "origin.h5").read_bytes()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if silent:
                    time.sleep(1)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:keep])

            def log_message(self, format, *args):  # noqa: A002 - the base class names it so
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        monkeypatch.setattr(pretrained, "URL", f"http://127.0.0.1:{server.server_port}/vgg19.h5")
        monkeypatch.setattr(pretrained, "MD5", hashlib.md5(body[:-1] if wrong else body).hexdigest())
        return body

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


class Progress:
    total, seen, closed = 0, 0, False

    def update(self, amount):
        self.seen += amount

    def reset(self):
        self.seen = 0

    def close(self):
        self.closed = True


def test_a_named_file_is_loaded_without_a_warning_whatever_its_checksum(tmp_path, recwarn):
    path = tiny(tmp_path / "mine.h5")
    arguments: Any
    for arguments in (
        {"weights": path},
        {"network": path},
        {"network": str(path)},
        {"network": "vgg19", "weights": path},
    ):
        assert pretrained.find(**arguments) == pretrained.WeightsSource("vgg19", path)
        assert_same(pretrained.load_params(**arguments), path)
    assert not recwarn.list


def test_a_found_network_has_an_origin_and_a_digest(tmp_path):
    path = tiny(tmp_path / "mine.h5")
    result = pretrained.find(path)
    assert result.origin == str(path)
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (pretrained.find("random").origin, pretrained.find("random").sha256) == ("computed from a seed", "")


def test_locations_are_searched_in_the_documented_order(places, monkeypatch):
    named, variable = tiny(places / "a.h5"), tiny(places / "b.h5")
    checkout, cache = tiny(places / "checkout/weights/vgg19.h5"), tiny(places / "cache/vgg19.h5")
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(variable))
    assert pretrained.find(weights=named).path == named
    assert [result.path for result in pretrained.installed()] == [variable, checkout, cache, pretrained.MINI, None]
    for path in (variable, checkout, cache):
        assert pretrained.find().path == pretrained.find("vgg19", offline=True).path == path
        path.unlink()
        monkeypatch.delenv("JAXSTYLE_WEIGHTS", raising=False)
    assert pretrained.find(offline=True).path == pretrained.MINI
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "")  # counts as unset
    assert pretrained.find(offline=True).network == "mini"


def test_in_a_folder_the_documented_names_precede_others(places, monkeypatch):
    folder = places / "folder"
    other = whole(folder / "copy.h5", monkeypatch)
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(folder))
    assert pretrained.find().path == other
    keras = tiny(folder / KERAS_FILE)
    assert pretrained.find().path == keras
    own = tiny(folder / "vgg19.h5")
    assert pretrained.find().path == own


def test_files_of_other_networks_in_a_folder_are_ignored(places, monkeypatch):
    folder = places / "checkout/weights"
    (folder / "vgg19_mini.h5").write_bytes(sound(((1, 1), (1, 1), (1,) * 4, (1,) * 4, (1,) * 4)))
    (folder / "notes.h5").write_text("not HDF5")
    assert pretrained.find(offline=True).network == "mini"
    other = whole(folder / "copy.h5", monkeypatch)
    assert pretrained.find(offline=True).path == other


def test_two_unnamed_networks_in_a_folder_are_refused(places, monkeypatch):
    whole(places / "cache/a.h5", monkeypatch)
    whole(places / "cache/b.h5", monkeypatch)
    with pytest.raises(InputError, match=r"holds 2 files of VGG-19: .* --weights .* vgg19\.h5"):
        pretrained.find()


def test_a_folder_in_the_variable_without_the_network_is_an_error(places, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(places / "checkout"))
    with pytest.raises(InputError, match=r"^\$JAXSTYLE_WEIGHTS is .*checkout"):
        pretrained.find()


def test_a_broken_file_is_an_error_in_every_location(places, monkeypatch):
    broken = places / "cache/vgg19.h5"
    broken.parent.mkdir()
    broken.write_bytes(tiny(places / "a.h5").read_bytes()[:-4000])
    for network in ("auto", "vgg19"):
        with pytest.raises(InputError, match="truncated"):
            pretrained.find(network)
        with pytest.raises(InputError, match="truncated"):
            pretrained.find(network, weights=broken)
        with monkeypatch.context() as patched:
            patched.setenv("JAXSTYLE_CACHE", str(places / "none"))
            patched.setenv("JAXSTYLE_WEIGHTS", str(broken))
            with pytest.raises(InputError, match="truncated"):
                pretrained.find(network)


def test_a_path_that_does_not_exist_is_an_error(places, monkeypatch):
    with pytest.raises(InputError, match="does not exist"):
        pretrained.find(weights=places / "none.h5")
    with pytest.raises(InputError, match="vgg16 .*auto, vgg19, mini, builtin, random"):
        pretrained.find("vgg16")
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(places / "none.h5"))
    with pytest.raises(InputError, match="does not exist"):
        pretrained.find()


def test_weights_together_with_another_network_are_refused(tmp_path):
    path = tiny(tmp_path / "a.h5")
    for network in ("mini", "builtin", "random", "other.h5"):
        with pytest.raises(InputError, match=f"a.h5.*the network is {network}"):
            pretrained.find(network, weights=path)


def test_a_weights_folder_beside_an_installed_package_is_ignored(places):
    tiny(places / "checkout/weights/vgg19.h5")
    (places / "checkout/pyproject.toml").unlink()
    assert pretrained.find(offline=True).network == "mini"


def test_a_download_is_silent_and_leaves_only_the_converted_file(places, serve, capfd, caplog):
    caplog.set_level(logging.INFO)
    body, progress = serve(), Progress()
    result = pretrained.find(progress=progress)
    assert result == pretrained.WeightsSource("vgg19", places / "cache/vgg19.h5")
    assert left_in(places / "cache") == ["vgg19.h5"]
    assert (progress.total, progress.seen, progress.closed) == (len(body), len(body), True)
    assert_same(pretrained.load(result), places / "origin.h5")
    origin = weights_io.provenance(places / "cache/vgg19.h5")
    assert origin["source"] == pretrained.URL and origin["checksum"] == f"md5:{hashlib.md5(body).hexdigest()}"
    assert origin["licence"].startswith("CC BY")
    assert pretrained.find("vgg19", offline=True) == result
    assert capfd.readouterr() == ("", "") and "Download" not in caplog.text


FAILURES = {
    "refused": (None, "ConnectionError"),
    "silent": ({"silent": True}, "ReadTimeout"),
    "missing": ({"status": 404}, "HTTP status 404"),
    "broken midway": ({"keep": 9000}, "ChunkedEncodingError"),
    "wrong checksum": ({"wrong": True}, "has the MD5"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_is_one_sentence_and_leaves_no_file(places, serve, monkeypatch, failure):
    options, reason = FAILURES[failure]
    monkeypatch.setattr(pretrained, "TIMEOUT", 0.3)
    if options is not None:
        serve(**options)
    with pytest.raises(UnavailableError) as caught:
        pretrained.find("vgg19")
    message = str(caught.value)
    assert reason in message and pretrained.URL in message and "--weights" in message
    assert message.isprintable() and ". " not in message and message.endswith(".")
    assert left_in(places / "cache") == []


def test_auto_falls_back_to_the_mini_network_with_one_warning():
    with pytest.warns(UserWarning) as caught:
        assert_same(pretrained.load_params(), pretrained.MINI)
    assert len(caught) == 1 and caught[0].filename == __file__
    note = pretrained.find().note
    assert str(caught[0].message) == note
    assert "mini network" in note and "ConnectionError" in note and "--weights" in note and note.isprintable()


def test_offline_nothing_is_downloaded(places, serve):
    serve()
    assert "offline" in pretrained.find(offline=True).note
    with pytest.raises(InputError, match="offline .*--weights"):
        pretrained.find("vgg19", offline=True)
    assert left_in(places / "cache") == []


def test_without_a_writable_cache_the_download_is_stored_in_a_temporary_folder(places, serve, monkeypatch):
    serve()
    (places / "file").touch()
    (places / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places / "temporary"))
    monkeypatch.setenv("JAXSTYLE_CACHE", str(places / "file" / "cache"))
    result = pretrained.find("vgg19")
    assert "Not a directory" in result.note and "$JAXSTYLE_CACHE" in result.note
    assert result.path and result.path.is_relative_to(places / "temporary")
    assert_same(pretrained.load(result), places / "origin.h5")


def test_random_params_depend_on_the_seed_only(params):
    again, other = (pretrained.random_params(widths=TINY, seed=seed) for seed in (1, 2))
    for name in vgg.CONV_LAYERS:
        np.testing.assert_array_equal(params[name]["kernel"], again[name]["kernel"])
        assert np.abs(np.asarray(params[name]["kernel"]) - np.asarray(other[name]["kernel"])).max() > 0.01


def test_random_kernels_are_orthogonal_with_the_gain_of_relu():
    widths: vgg.Widths = ((40, 8), (8, 80), (8,) * 4, (8,) * 4, (8,) * 4)
    params = pretrained.random_params(widths=widths)
    assert vgg.widths_of(params) == widths
    for layer in params.values():
        matrix = np.asarray(layer["kernel"], np.float64).reshape(-1, layer["kernel"].shape[-1])
        np.testing.assert_allclose((matrix**2).sum(0).mean(), 2, rtol=1e-5)
        gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        np.testing.assert_allclose(gram, gram[0, 0] * np.eye(len(gram)), atol=1e-5)
        assert not np.asarray(layer["bias"]).any()


def clouds(size):
    """Return an image whose spectrum falls with frequency as a photograph's does."""
    rows, columns = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size))
    fall = np.maximum(np.hypot(rows, columns), 1 / size)[..., None]
    noise = np.fft.fft2(np.random.default_rng(0).standard_normal((size, size, 3)), axes=(0, 1))
    image = np.fft.ifft2(noise / fall, axes=(0, 1)).real
    return np.clip(0.45 + 0.25 * image / image.std(), 0, 1).astype(np.float32)


@pytest.mark.slow
def test_random_activations_neither_vanish_nor_explode_with_depth():
    params = pretrained.load_params("random")
    assert vgg.widths_of(params) == vgg.BLOCK_WIDTHS
    layers = [f"relu{block}_1" for block in range(1, 6)]
    look = jax.jit(partial(features, layers=layers), static_argnames="pooling")
    for pooling in ("max", "avg"):
        activations = look(params, clouds(64), pooling=pooling)
        energy = [np.sqrt(np.mean(np.square(activations[layer]))) for layer in layers]
        assert all(0.4 < later / energy[0] < 2.5 for later in energy)  # max pooling adds, averaging takes away


def test_builtin_is_another_name_of_the_mini_network():
    assert pretrained.find("builtin") == pretrained.find("mini") == pretrained.WeightsSource("mini", pretrained.MINI)


def test_a_damaged_mini_network_is_an_error(places, monkeypatch):
    broken = places / "vgg19_mini.h5"
    broken.write_bytes(pretrained.MINI.read_bytes()[:-4000])
    monkeypatch.setattr(pretrained, "MINI", broken)
    for find in (lambda: pretrained.find("mini"), lambda: pretrained.find(offline=True), pretrained.installed):
        with pytest.raises(InputError, match=r"mini network .* cannot be used \(.*vgg19_mini\.h5"):
            find()


def test_the_cache_is_the_systems_unless_the_variable_is_set(tmp_path, monkeypatch):
    assert cache() == tmp_path / "cache"
    monkeypatch.delenv("JAXSTYLE_CACHE")
    assert cache().is_absolute() and "jaxstyle" in cache().parts


def test_real_weights_map_the_mean_colour_to_the_bias(weights_path, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(weights_path))
    result = pretrained.find("vgg19", offline=True)
    params = pretrained.load(result)
    assert vgg.widths_of(params) == vgg.BLOCK_WIDTHS
    # a mean-coloured image is zero to the network, so conv1_1 gives its bias
    grey = np.broadcast_to(np.array(vgg.MEAN_BGR[::-1], np.float32) / 255, (8, 8, 3))
    look = jax.jit(partial(features, layers=("conv1_1",)))
    inside = np.asarray(look(params, grey)["conv1_1"])[1:-1, 1:-1]
    np.testing.assert_allclose(inside, np.broadcast_to(params["conv1_1"]["bias"], inside.shape), atol=1e-3)

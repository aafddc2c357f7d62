import hashlib
import logging
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import download, pretrained, vgg, weights_file
from jaxstyle.errors import InputError, UnavailableError

TINY: vgg.Widths = ((2, 3), (4, 2), (3, 2, 4, 2), (3, 2, 2, 3), (2, 3, 2, 4))
ORIGIN = {"source": "test", "checksum": "none", "licence": "none"}


@pytest.fixture(autouse=True)
def places(isolated, monkeypatch):
    """Keep every test away from the user's files and from the network: all places are empty folders of the test's."""
    (isolated / "checkout" / "weights").mkdir(parents=True)
    (isolated / "checkout" / "pyproject.toml").touch()
    monkeypatch.setattr(pretrained, "CHECKOUT", isolated / "checkout")
    return isolated


def tiny(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    weights_file.write(path, pretrained.random_params(widths=TINY, seed=1), **ORIGIN)
    return path


def whole(path, monkeypatch):
    """Write a tiny network and let its widths pass for those of the whole VGG-19."""
    monkeypatch.setattr(pretrained, "BLOCK_WIDTHS", TINY)
    return tiny(path)


def assert_same(actual, path):
    for name, layer in weights_file.read(path).items():
        for part, values in layer.items():
            assert isinstance(actual[name][part], jax.Array)
            np.testing.assert_array_equal(actual[name][part], values)


def left_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


@pytest.fixture
def serve(places, monkeypatch):
    """Serve a tiny network, well or badly, as the official download; returns the served bytes."""
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
        monkeypatch.setattr(download, "URL", f"http://127.0.0.1:{server.server_port}/vgg19.h5")
        monkeypatch.setattr(download, "MD5", hashlib.md5(body[:-1] if wrong else body).hexdigest())
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


def test_a_named_file_is_loaded_whatever_its_checksum(tmp_path):
    path = tiny(tmp_path / "mine.h5")
    arguments: Any
    for arguments in (
        {"weights": path},
        {"network": path},
        {"network": str(path)},
        {"network": "vgg19", "weights": path},
    ):
        assert pretrained.find(**arguments) == pretrained.Found("vgg19", path)
        assert_same(pretrained.load_params(**arguments), path)


def test_found_tells_the_origin_and_the_digest(tmp_path):
    path = tiny(tmp_path / "mine.h5")
    found = pretrained.find(path)
    assert found.origin == str(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (pretrained.find("random").origin, pretrained.find("random").sha256) == ("computed from a seed", "")


def test_the_places_are_searched_in_their_documented_order(places, monkeypatch):
    named, variable = tiny(places / "a.h5"), tiny(places / "b.h5")
    checkout, cache = tiny(places / "checkout/weights/vgg19.h5"), tiny(places / "cache/vgg19.h5")
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(variable))
    assert pretrained.find(weights=named).path == named
    assert [found.path for found in pretrained.installed()] == [variable, checkout, cache, pretrained.MINI, None]
    for path in (variable, checkout, cache):
        assert pretrained.find().path == pretrained.find("vgg19", offline=True).path == path
        path.unlink()
        monkeypatch.delenv("JAXSTYLE_WEIGHTS", raising=False)
    assert pretrained.find(offline=True).path == pretrained.MINI


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", "")
    assert pretrained.find(offline=True).network == "mini"


def test_in_a_folder_the_known_names_come_before_others(places, monkeypatch):
    folder = places / "folder"
    other = whole(folder / "copy.h5", monkeypatch)
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(folder))
    assert pretrained.find().path == other
    keras = tiny(folder / download.KERAS_FILE)
    assert pretrained.find().path == keras
    own = tiny(folder / "vgg19.h5")
    assert pretrained.find().path == own


def test_files_of_other_networks_in_a_folder_are_passed_over(places, monkeypatch):
    folder = places / "checkout/weights"
    mini = pretrained.random_params(widths=((1, 1), (1, 1), (1,) * 4, (1,) * 4, (1,) * 4))
    weights_file.write(folder / "vgg19_mini.h5", mini, **ORIGIN)
    (folder / "notes.h5").write_text("not HDF5")
    assert pretrained.find(offline=True).network == "mini"
    other = whole(folder / "copy.h5", monkeypatch)
    assert pretrained.find(offline=True).path == other


def test_two_unnamed_networks_in_a_folder_are_refused(places, monkeypatch):
    whole(places / "cache/a.h5", monkeypatch)
    whole(places / "cache/b.h5", monkeypatch)
    with pytest.raises(
        InputError, match=r"holds 2 files of VGG-19: pass one as --weights or rename it to vgg19\.h5\.$"
    ):
        pretrained.find()


def test_a_folder_named_by_the_variable_has_to_hold_the_network(places, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(places / "checkout"))
    with pytest.raises(InputError, match=r"^\$JAXSTYLE_WEIGHTS is .*checkout, where no \.h5 file holds VGG-19: .*\.$"):
        pretrained.find()


@pytest.mark.parametrize("network", ["auto", "vgg19"])
def test_a_broken_file_is_an_error_wherever_it_lies(places, monkeypatch, network):
    broken = places / "cache/vgg19.h5"
    broken.parent.mkdir()
    broken.write_bytes(tiny(places / "a.h5").read_bytes()[:-4000])
    for place in ("argument", "variable", "cache"):
        if place == "variable":
            monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(broken))
        with pytest.raises(InputError, match="truncated"):
            pretrained.find(network, weights=broken if place == "argument" else None)
        monkeypatch.delenv("JAXSTYLE_WEIGHTS", raising=False)


def test_a_path_that_does_not_exist_is_an_error(places, monkeypatch):
    with pytest.raises(InputError, match="does not exist"):
        pretrained.find(weights=places / "none.h5")
    with pytest.raises(InputError, match="vgg16 is neither a file nor a network: choose from auto, vgg19, mini, "):
        pretrained.find("vgg16")
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(places / "none.h5"))
    with pytest.raises(InputError, match="does not exist"):
        pretrained.find()


@pytest.mark.parametrize("network", ["mini", "builtin", "random", "other.h5"])
def test_weights_together_with_another_network_are_refused(tmp_path, network):
    with pytest.raises(InputError, match=f"VGG-19's, but the network is {network}: give one of the two"):
        pretrained.find(network, weights=tiny(tmp_path / "a.h5"))


def test_a_weights_folder_beside_an_installed_package_is_not_ours(places):
    tiny(places / "checkout/weights/vgg19.h5")
    (places / "checkout/pyproject.toml").unlink()
    assert pretrained.find(offline=True).network == "mini"


def test_a_download_is_converted_once_and_nothing_else_stays(places, serve):
    body, progress = serve(), Progress()
    found = pretrained.find(progress=progress)
    assert found == pretrained.Found("vgg19", places / "cache/vgg19.h5")
    assert left_in(places / "cache") == ["vgg19.h5"]
    assert (progress.total, progress.seen, progress.closed) == (len(body), len(body), True)
    assert_same(pretrained.load(found), places / "origin.h5")
    origin = weights_file.provenance(places / "cache/vgg19.h5")
    assert origin["source"] == download.URL and origin["checksum"] == f"md5:{hashlib.md5(body).hexdigest()}"
    assert origin["licence"].startswith("CC BY")
    assert pretrained.find("vgg19", offline=True) == found


FAILURES = {
    "refused": (None, "ConnectionError"),
    "silent": ({"silent": True}, "ReadTimeout"),
    "missing": ({"status": 404}, "HTTP status 404"),
    "broken midway": ({"keep": 9000}, "ChunkedEncodingError"),
    "wrong checksum": ({"wrong": True}, "has the MD5"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_is_told_in_one_sentence_and_leaves_nothing(places, serve, monkeypatch, failure):
    options, reason = FAILURES[failure]
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    if options is not None:
        serve(**options)
    with pytest.raises(UnavailableError) as caught:
        pretrained.find("vgg19")
    message = str(caught.value)
    assert reason in message and download.URL in message and "--weights" in message
    assert message.isprintable() and ". " not in message and message.endswith(".")
    assert left_in(places / "cache") == []


def test_auto_falls_back_to_the_mini_network_with_one_warning():
    with pytest.warns(UserWarning) as caught:
        assert_same(pretrained.load_params(), pretrained.MINI)
    assert len(caught) == 1 and caught[0].filename == __file__
    note = pretrained.find().note
    assert str(caught[0].message) == note
    assert note.startswith("The mini network, a quarter of VGG-19, stands in for it: ")
    assert "ConnectionError" in note and "--weights" in note and note.isprintable()


def test_offline_nothing_is_downloaded(places, serve):
    serve()
    assert "offline" in pretrained.find(offline=True).note
    with pytest.raises(InputError, match=r"not installed, and offline .*: name a file with --weights"):
        pretrained.find("vgg19", offline=True)
    assert left_in(places / "cache") == []


def test_a_cache_that_cannot_be_written_costs_the_copy_and_not_the_network(places, serve, monkeypatch):
    serve()
    (places / "file").touch()
    (places / "temporary").mkdir()
    monkeypatch.setattr(download.tempfile, "tempdir", str(places / "temporary"))
    monkeypatch.setenv("JAXSTYLE_CACHE", str(places / "file" / "cache"))
    found = pretrained.find("vgg19")
    assert found.note.startswith("VGG-19's download is not kept") and "Not a directory" in found.note
    assert found.path and found.path.is_relative_to(places / "temporary")
    assert_same(pretrained.load(found), places / "origin.h5")


def test_the_download_is_silent(serve, capfd, caplog):
    serve()
    with caplog.at_level(logging.INFO):
        pretrained.find()
    assert capfd.readouterr() == ("", "")
    assert "Download" not in caplog.text


def test_a_named_network_is_loaded_without_a_warning(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        pretrained.load_params(tiny(tmp_path / "a.h5"))
    assert not caught


def test_random_params_are_equal_for_equal_seeds_only():
    first, again, other = (pretrained.random_params(widths=TINY, seed=seed) for seed in (3, 3, 4))
    for name in vgg.CONV_LAYERS:
        np.testing.assert_array_equal(first[name]["kernel"], again[name]["kernel"])
        assert np.abs(first[name]["kernel"] - other[name]["kernel"]).max() > 0.01


def test_random_kernels_are_orthogonal_with_the_gain_of_relu():
    widths: vgg.Widths = ((40, 8), (8, 80), (8,) * 4, (8,) * 4, (8,) * 4)
    params = pretrained.random_params(widths=widths)
    assert vgg.widths_of(params) == widths
    for layer in params.values():
        matrix = np.asarray(layer["kernel"], np.float64).reshape(-1, layer["kernel"].shape[-1])
        np.testing.assert_allclose((matrix**2).sum(0).mean(), 2, rtol=1e-5)
        gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        np.testing.assert_allclose(gram, gram[0, 0] * np.eye(len(gram)), atol=1e-5)
        assert not np.any(layer["bias"])


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
    for pooling in ("max", "avg"):
        activations = vgg.features(params, jnp.asarray(clouds(64)), pooling=pooling)
        energy = [float(jnp.sqrt(jnp.mean(activations[f"relu{block}_1"] ** 2))) for block in range(1, 6)]
        assert all(0.4 < later / energy[0] < 2.5 for later in energy)  # max pooling adds, averaging takes away


def test_builtin_is_another_name_of_the_mini_network():
    assert pretrained.find("builtin") == pretrained.find("mini") == pretrained.Found("mini", pretrained.MINI)


def test_a_damaged_mini_network_says_that_jaxstyle_is_to_be_installed_anew(places, monkeypatch):
    broken = places / "vgg19_mini.h5"
    broken.write_bytes(pretrained.MINI.read_bytes()[:-4000])
    monkeypatch.setattr(pretrained, "MINI", broken)
    for find in (lambda: pretrained.find("mini"), lambda: pretrained.find(offline=True), pretrained.installed):
        with pytest.raises(
            InputError, match=r"mini network .* damaged \(.*vgg19_mini\.h5.*\): install jaxstyle anew\.$"
        ):
            find()


def test_the_cache_is_the_systems_unless_a_variable_names_another(tmp_path, monkeypatch):
    assert download.cache() == tmp_path / "cache"
    monkeypatch.delenv("JAXSTYLE_CACHE")
    assert download.cache().is_absolute() and "jaxstyle" in download.cache().parts


def test_real_weights_answer_the_mean_colour_with_their_bias(weights_path, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_WEIGHTS", str(weights_path))
    found = pretrained.find("vgg19", offline=True)
    params = pretrained.load(found)
    assert vgg.widths_of(params) == vgg.BLOCK_WIDTHS
    # a mean-coloured image is zero to the network, so conv1_1 gives its bias
    grey = np.broadcast_to(np.array(vgg.MEAN_BGR[::-1], np.float32) / 255, (8, 8, 3))
    inside = vgg.features(params, jnp.asarray(grey))["conv1_1"][1:-1, 1:-1]
    np.testing.assert_allclose(inside, np.broadcast_to(params["conv1_1"]["bias"], inside.shape), atol=1e-3)

"""Pretrained networks: VGG-19 from a file or download, the mini network of this package, or random parameters.

`find` locates a network, `load` reads it, and `load_params` does both. The search order for VGG-19 is: the file that
the caller names; `$JAXSTYLE_WEIGHTS`, a file or a folder; `weights/` of the checkout; the user's cache
(`$JAXSTYLE_CACHE`, or the cache folder of the system). In a folder, `vgg19.h5` takes precedence over the original name
of the Keras file, and that over the only other `*.h5` file of a complete VGG-19. `download` downloads the official
Keras file, verifies it and saves it in the user's cache.
"""

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pooch

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import sha256
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.networks.vgg import BLOCK_WIDTHS, Params

NETWORKS = ("auto", "vgg19", "mini", "builtin", "random")
PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent
MINI_PLACES = (PACKAGE / "vgg19_mini.h5", CHECKOUT / "weights" / "vgg19_mini.h5")  # of a wheel, of a checkout
MINI = next(filter(Path.is_file, MINI_PLACES), MINI_PLACES[-1])


@dataclass(frozen=True)
class WeightsSource:
    """A network that can be loaded: "vgg19", "mini" or "random"."""

    network: str
    path: Path | None = None  # None for random parameters
    note: str = ""  # one sentence for the user about a fallback

    @property
    def origin(self) -> str:
        """Path of the file, or "computed from a seed"."""
        return str(self.path or "computed from a seed")

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, computed at each call; "" without a file."""
        return sha256(self.path) if self.path else ""


def load_params(
    network: str | os.PathLike[str] = "auto",
    *,
    weights: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Any = None,
) -> Params:
    """Find and load a network; warn if "auto" falls back to the mini network.

    Args:
        network: "vgg19"; "mini" or "builtin", VGG-19 with a quarter of the channels, part of jaxstyle; "random",
            untrained; "auto", "vgg19" if available, otherwise "mini"; or a path, short for "vgg19" with `weights`.
        weights: file of VGG-19 or VGG-16, HDF5 or `.safetensors`, in one of the layouts of `weights_io`.
        offline: never download VGG-19 if it is not installed.
        progress: progress bar of the download: an object with `total`, `update(bytes)`, `reset()` and `close()`, as for
            pooch's `HTTPDownloader`.

    Returns:
        The params of `jaxstyle.VGG19`, in float32.

    Raises:
        InputError: if a named or installed file is missing or damaged, if arguments contradict each other, or if
            "vgg19" is not installed and `offline`.
        UnavailableError: if "vgg19" cannot be downloaded, or if the machine cannot read a file.

    Example:
        >>> load_params("random")["conv1_1"]["kernel"].shape
        (3, 3, 3, 64)
    """
    source = find(network, weights=weights, offline=offline, progress=progress)
    if source.note:
        warnings.warn(source.note, stacklevel=2)
    return load(source)


def find(
    network: str | os.PathLike[str] = "auto",
    *,
    weights: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Any = None,
) -> WeightsSource:
    """Locate a network as `load_params` does; download VGG-19 if it is not installed.

    The layers and shapes of an installed file are checked, and the checksum of a download. The result has a `note` if
    it is a fallback or if its download could not be saved.
    """
    if weights is not None and network not in ("auto", "vgg19"):
        raise InputError(f"weights is {weights}, for VGG-19, but the network is {network}: use one of the two.")
    if network == "random":
        return WeightsSource("random")
    if network in ("mini", "builtin"):
        return _mini()
    if network not in NETWORKS:
        weights, network = network, "vgg19"
        if not Path(weights).exists():
            raise InputError(f"{weights} is neither a file nor a network: choose from {', '.join(NETWORKS)} or a path.")
    path = next(_installed(), None) if weights is None else Path(weights)
    if path:
        weights_io.widths(path)
        return WeightsSource("vgg19", path)
    try:
        if offline:
            raise InputError(f"VGG-19's weights are not installed, and offline they cannot be downloaded: {CURE}")
        return WeightsSource("vgg19", *download(progress))
    except (InputError, UnavailableError) as error:
        if network == "vgg19":
            raise
        return _mini(note=f"The mini network, a quarter of VGG-19, replaces it: {error}")


def load(source: WeightsSource) -> Params:
    """Load a network of `find` or `installed`, in float32."""
    return jax.device_put(weights_io.read(source.path)) if source.path else random_params()


def installed() -> list[WeightsSource]:
    """List all networks that need no download, in the order of preference of "auto".

    Example:
        >>> [source.network for source in installed()][-1]
        'random'
    """
    return [WeightsSource("vgg19", path) for path in _installed()] + [_mini(), WeightsSource("random")]


def _mini(note: str = "") -> WeightsSource:
    """Return the mini network; check its file."""
    try:
        weights_io.widths(MINI)
    except InputError as error:
        reason = str(error).partition(":")[0]
        problem = f"The mini network of this installation cannot be used ({reason})"
        raise InputError(f"{problem}: reinstall jaxstyle.") from error
    return WeightsSource("mini", MINI, note)


def _installed() -> Iterator[Path]:
    """Yield the files of VGG-19 on this machine, in order of preference."""
    if named := os.environ.get("JAXSTYLE_WEIGHTS"):
        path = Path(named).expanduser()
        if os.path.isdir(path) and not (path := _in_folder(path)):
            problem = f"$JAXSTYLE_WEIGHTS is {named}, where no .h5 file holds VGG-19"
            raise InputError(f"{problem}: put one there or unset it.")
        yield path
    # A folder "weights" beside an installed package belongs to another project.
    folders = [CHECKOUT / "weights"] if (CHECKOUT / "pyproject.toml").is_file() else []
    yield from filter(None, map(_in_folder, [*folders, cache()]))


def _in_folder(folder: Path) -> Path | None:
    """Return the file of VGG-19 in `folder`; with another name, only if it is the single file of VGG-19."""
    for name in (FILE, KERAS_FILE):
        if os.path.isfile(folder / name):  # `Path.is_file` raises without permission
            return folder / name
    try:
        files = [folder / name for name in sorted(os.listdir(folder)) if name.endswith(".h5")]
    except OSError:  # an unreadable folder counts as empty
        return None
    full = [path for path in files if _is_vgg19(path)]
    if len(full) > 1:
        raise InputError(f"{folder} holds {len(full)} files of VGG-19: pass one as --weights or rename it to {FILE}.")
    return full[0] if full else None


def _is_vgg19(path: Path) -> bool:
    try:
        return weights_io.widths(path) == BLOCK_WIDTHS
    except InputError:
        return False


FILE = "vgg19.h5"
KERAS_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{KERAS_FILE}"
MD5 = "253f8cb515780f3b799900260a226db6"  # of the file at URL, from keras.applications.vgg19
LICENCE = "CC BY, K. Simonyan and A. Zisserman, University of Oxford"
TIMEOUT = 10.0  # seconds to connect, and between two chunks of the download
CURE = "name a file with --weights or $JAXSTYLE_WEIGHTS, or run once with a connection (80 MB)."


def cache() -> Path:
    """Return the folder of downloads, `$JAXSTYLE_CACHE` or the cache folder of the system; it may not exist yet."""
    named = os.environ.get("JAXSTYLE_CACHE")
    return Path(named).expanduser() if named else pooch.os_cache("jaxstyle")


def download(progress: Any = None) -> tuple[Path, str]:
    """Download the Keras file, verify it, and save it in the layout of the project; temporary files are removed.

    Return the file, and one sentence for the user if it could not be saved permanently, else "".
    """
    folder, note = _writable(cache())
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        raw = Path(scratch) / KERAS_FILE
        fetch = pooch.HTTPDownloader(progressbar=progress or False, chunk_size=1 << 16, timeout=TIMEOUT)
        try:
            fetch(URL, str(raw), None)
        except (OSError, ValueError) as error:  # requests derives its errors from OSError
            reason = getattr(error, "strerror", None) or type(error).__name__
            if (response := getattr(error, "response", None)) is not None:
                reason = f"HTTP status {response.status_code}"
                response.close()
            raise UnavailableError(f"VGG-19's weights cannot be downloaded from {URL} ({reason}): {CURE}") from error
        if (md5 := pooch.file_hash(str(raw), alg="md5")) != MD5:
            raise UnavailableError(f"The download from {URL} has the MD5 {md5} instead of {MD5}: {CURE}")
        weights_io.write(folder / FILE, weights_io.read(raw), source=URL, checksum=f"md5:{MD5}", licence=LICENCE)
    return folder / FILE, note


def _writable(wanted: Path) -> tuple[Path, str]:
    """Return `wanted`, or if it cannot be written a folder that is removed at the end of the process, and a note."""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted, ""
    except OSError as error:
        folder = Path(tempfile.mkdtemp(prefix="jaxstyle-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        reason = error.strerror or type(error).__name__
        problem = f"The download of VGG-19 is temporary, as {wanted} cannot be written ({reason})"
        return folder, f"{problem}: set $JAXSTYLE_CACHE."

"""Finds the network's params: VGG-19's file or download, the mini network of this package, or random numbers.

`find` says which network there is and where from, `load` reads it, and `load_params` does both in one call. VGG-19 is
looked for in this order: the file that the caller names; `$JAXSTYLE_WEIGHTS`, a file or a folder; `weights/` of the
checkout; the user's cache (`$JAXSTYLE_CACHE`, or the system's folder for caches). In a folder `vgg19.h5` comes first,
Keras' file by its own name second, and else the only `*.h5` that holds the whole VGG-19. `download` fetches Keras'
official file, verifies it and keeps it in the user's cache.
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
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.networks.vgg import BLOCK_WIDTHS, Params

NETWORKS = ("auto", "vgg19", "mini", "builtin", "random")
PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent
MINI_PLACES = (PACKAGE / "vgg19_mini.h5", CHECKOUT / "weights" / "vgg19_mini.h5")  # of a wheel, of a checkout
MINI = next(filter(Path.is_file, MINI_PLACES), MINI_PLACES[-1])


@dataclass(frozen=True)
class Found:
    """A network that can be loaded.

    Attributes:
        network: "vgg19", "mini" or "random".
        path: its file, or None where it is computed.
        note: one sentence for the user where this is not what one would expect, else "".
    """

    network: str
    path: Path | None = None
    note: str = ""

    @property
    def origin(self) -> str:
        """The file's path, or "computed from a seed"."""
        return str(self.path or "computed from a seed")

    @property
    def sha256(self) -> str:
        """The file's SHA-256, read anew at each call; "" where there is no file."""
        return weights_io.sha256(self.path) if self.path else ""


def load_params(
    network: str | os.PathLike[str] = "auto",
    *,
    weights: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Any = None,
) -> Params:
    """Find and load a network; where "auto" has to fall back to the mini network, a warning says so.

    Args:
        network: as for `find`.
        weights: as for `find`.
        offline: as for `find`.
        progress: as for `find`.

    Returns:
        The params of `jaxstyle.VGG19`, in float32.

    Raises:
        InputError: as `find` and `load` do.
        UnavailableError: as `find` does.

    Example:
        >>> load_params("random")["conv1_1"]["kernel"].shape
        (3, 3, 3, 64)
    """
    found = find(network, weights=weights, offline=offline, progress=progress)
    if found.note:
        warnings.warn(found.note, stacklevel=2)
    return load(found)


def find(
    network: str | os.PathLike[str] = "auto",
    *,
    weights: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Any = None,
) -> Found:
    """Say which network is there and where from; download VGG-19 if none is installed.

    A file that is found is checked for its layers and shapes. It may have any checksum; a download may not.

    Args:
        network: "vgg19"; "mini", also called "builtin", which is VGG-19 narrowed to a quarter and comes with jaxstyle;
            "random", which was never trained; "auto", which is "vgg19" if that can be had and "mini" otherwise; or a
            path, short for "vgg19" with `weights`.
        weights: VGG-19's file, in one of the layouts that `jaxstyle.networks.weights_io.read` knows.
        offline: never download.
        progress: shows the download: an object with `total`, `update(bytes)`, `reset()` and `close()`, as pooch's
            `HTTPDownloader` takes it.

    Returns:
        The network, with a `note` if it is a fallback or if its download could not be kept.

    Raises:
        InputError: if a named or installed file is missing or damaged, if arguments contradict each other, or if
            "vgg19" is asked for, not installed, and `offline`.
        UnavailableError: if "vgg19" is asked for and cannot be downloaded.

    Example:
        >>> find("random")
        Found(network='random', path=None, note='')
    """
    if weights is not None and network not in ("auto", "vgg19"):
        raise InputError(f"The file {weights} is VGG-19's, but the network is {network}: give one of the two.")
    if network == "random":
        return Found("random")
    if network in ("mini", "builtin"):
        return _mini()
    if network not in NETWORKS:
        weights, network = network, "vgg19"
        if not Path(weights).exists():
            raise InputError(f"{weights} is neither a file nor a network: choose from {', '.join(NETWORKS)} or a path.")
    path = next(_installed(), None) if weights is None else Path(weights)
    if path:
        weights_io.widths(path)
        return Found("vgg19", path)
    try:
        if offline:
            raise InputError(f"VGG-19's weights are not installed, and offline they cannot be downloaded: {CURE}")
        return Found("vgg19", *download(progress))
    except (InputError, UnavailableError) as error:
        if network == "vgg19":
            raise
        return _mini(note=f"The mini network, a quarter of VGG-19, stands in for it: {error}")


def load(found: Found) -> Params:
    """Load what `find` found.

    Args:
        found: from `find` or `installed`.

    Returns:
        The params of `jaxstyle.VGG19`, in float32.

    Raises:
        InputError: if the file is damaged.

    Example:
        >>> load(find("random"))["conv5_4"]["bias"].shape
        (512,)
    """
    return jax.device_put(weights_io.read(found.path)) if found.path else random_params()


def installed() -> list[Found]:
    """List every network that needs no download, in the order in which "auto" chooses.

    Returns:
        VGG-19's files, the mini network, and the one that is computed.

    Raises:
        InputError: if `$JAXSTYLE_WEIGHTS` names nothing that holds VGG-19, or if a folder holds it more than once.

    Example:
        >>> [found.network for found in installed()][-1]
        'random'
    """
    return [Found("vgg19", path) for path in _installed()] + [_mini(), Found("random")]


def _mini(note: str = "") -> Found:
    """Return the mini network, if its file is what it should be."""
    try:
        weights_io.widths(MINI)
    except InputError as error:
        reason = str(error).partition(":")[0]
        raise InputError(
            f"The mini network of this installation is damaged ({reason}): install jaxstyle anew."
        ) from error
    return Found("mini", MINI, note)


def _installed() -> Iterator[Path]:
    """Yield the files of VGG-19 on this machine, the preferred one first."""
    if named := os.environ.get("JAXSTYLE_WEIGHTS"):
        path = Path(named).expanduser()
        if os.path.isdir(path) and not (path := _in_folder(path)):
            raise InputError(
                f"$JAXSTYLE_WEIGHTS is {named}, where no .h5 file holds VGG-19: put one there or unset it."
            )
        yield path
    # a folder "weights" beside the installed package is somebody else's
    folders = [CHECKOUT / "weights"] if (CHECKOUT / "pyproject.toml").is_file() else []
    yield from filter(None, map(_in_folder, [*folders, cache()]))


def _in_folder(folder: Path) -> Path | None:
    """Return the file of VGG-19 in `folder`; another name counts if that file alone has its layers and widths.

    A folder that may not be read is as good as empty.
    """
    for name in (FILE, KERAS_FILE):
        if os.path.isfile(folder / name):  # Path's own method raises where it may not look
            return folder / name
    try:
        files = [folder / name for name in sorted(os.listdir(folder)) if name.endswith(".h5")]
    except OSError:
        return None
    whole = [path for path in files if _is_whole(path)]
    if len(whole) > 1:
        raise InputError(f"{folder} holds {len(whole)} files of VGG-19: pass one as --weights or rename it to {FILE}.")
    return whole[0] if whole else None


def _is_whole(path: Path) -> bool:
    try:
        return weights_io.widths(path) == BLOCK_WIDTHS
    except InputError:
        return False


FILE = "vgg19.h5"
KERAS_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{KERAS_FILE}"
MD5 = "253f8cb515780f3b799900260a226db6"  # of the file at URL, from keras.applications.vgg19
LICENCE = "CC BY, K. Simonyan and A. Zisserman, University of Oxford"
TIMEOUT = 10.0  # seconds to connect, and between two pieces of the download
CURE = "name a file with --weights or $JAXSTYLE_WEIGHTS, or run once with a connection (80 MB)."


def cache() -> Path:
    """Say where a download is kept; the folder may not exist yet.

    Returns:
        `$JAXSTYLE_CACHE`, or the system's folder for caches.

    Example:
        >>> cache()  # doctest: +SKIP
        PosixPath('/home/ada/.cache/jaxstyle')
    """
    named = os.environ.get("JAXSTYLE_CACHE")
    return Path(named).expanduser() if named else pooch.os_cache("jaxstyle")


def download(progress: Any = None) -> tuple[Path, str]:
    """Download Keras' file, check it, and keep it in the project's layout; nothing else stays behind.

    Args:
        progress: shows the download: an object with `total`, `update(bytes)`, `reset()` and `close()`, as pooch's
            `HTTPDownloader` takes it.

    Returns:
        The file, and one sentence for the user where it could not be kept, else "".

    Raises:
        UnavailableError: if there is no connection, or if what came is not what it should be.

    Example:
        >>> download()[0].name  # doctest: +SKIP
        'vgg19.h5'
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
    """Return `wanted`, or a folder that goes when the process ends and a note, where it cannot be written."""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted, ""
    except OSError as error:
        folder = Path(tempfile.mkdtemp(prefix="jaxstyle-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        reason = error.strerror or type(error).__name__
        return folder, f"VGG-19's download is not kept, as {wanted} cannot be written ({reason}): set $JAXSTYLE_CACHE."

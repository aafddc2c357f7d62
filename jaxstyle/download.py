"""Fetches VGG-19's weights, Keras' official file, verifies them and keeps them in the user's cache."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pooch

from jaxstyle import weights_file
from jaxstyle.errors import UnavailableError

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
        weights_file.write(folder / FILE, weights_file.read(raw), source=URL, checksum=f"md5:{MD5}", licence=LICENCE)
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

"""Paths that the system refuses: errors of commands, and a cache that cannot be read.

The refusals are simulated, so that the tests do the same whether or not they run as root.
"""

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from jaxstyle.cli import main
from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.networks import pretrained

LONG = f"{'a' * 300}.png"
STYLIZE = "stylize content.png style.png --size 32 --steps 1 --quiet --weights tiny.h5"
INSIDE = [(os, "stat"), (os, "lstat"), (os, "mkdir"), (os, "access"), (builtins, "open"), (io, "open")]
LISTING = [(os, "listdir"), (os, "scandir"), (os, "open")]  # also temporary files without a name: O_TMPFILE


@pytest.fixture
def locked(refused, monkeypatch) -> Path:
    """A folder with a picture, on which the system answers as for another user's folder of mode 000."""
    folder = Path("locked").absolute()
    folder.mkdir()
    Path("locked/content.png").write_bytes(Path("content.png").read_bytes())

    def without_permission(function: Callable[..., Any], *, on: Callable[[Path], bool]) -> Callable[..., Any]:
        def refusing(path: Any = ".", *args: Any, **options: Any) -> Any:
            if isinstance(path, str | bytes | os.PathLike) and on(Path(os.path.abspath(os.fsdecode(path)))):
                if function.__name__ == "access":
                    return False
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return function(path, *args, **options)

        return refusing

    for module, name in INSIDE:
        wrapped = without_permission(getattr(module, name), on=lambda path: folder in path.parents)
        monkeypatch.setattr(module, name, wrapped)
    for module, name in LISTING:
        wrapped = without_permission(getattr(module, name), on=lambda path: folder in (path, *path.parents))
        monkeypatch.setattr(module, name, wrapped)
    return Path("locked")


def test_a_path_without_permission_ends_a_command_with_status_2_and_its_name(locked, refused):
    for arguments, mentioned in {
        # inputs
        "stylize locked/content.png style.png -o out.png": "locked/content.png permissions",
        f"{STYLIZE} -o out.png --init locked/init.png": "--init locked/init.png",
        "statistics locked -o style.h5": "locked Permission denied",
        "rerun locked/content.png": "locked/content.png permissions",
        # networks
        "stylize content.png style.png -o out.png --network locked/n.h5": "locked/n.h5 Permission denied",
        f"{STYLIZE} -o out.png --weights locked/n.h5": "locked/n.h5 permissions",
        # outputs
        f"{STYLIZE} -o locked/out.png": "locked/out.png Permission denied",
        f"{STYLIZE} -o {LONG}": f"{LONG} File name too long",
        f"{STYLIZE} -o out.png --log locked/log.csv": "locked/log.csv",
        f"{STYLIZE} -o out.png --checkpoint locked/kept": "locked/kept Permission denied",
        f"{STYLIZE} -o out.png --checkpoint locked": "--checkpoint locked Permission denied",
        "sweep content.png style.png -o locked/out": "locked/out Permission denied",
        "statistics style.png -o locked/style.h5": "locked/style.h5 Permission denied",
    }.items():
        status, sentence = refused(*arguments.split())
        assert status == 2 and all(word in sentence for word in mentioned.split()), (arguments, sentence)


def test_weights_without_read_permission_are_refused(refused, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(h5py, "File", refuse)
    status, sentence = refused(*STYLIZE.split(), "-o", "out.png")
    assert "tiny.h5" in sentence and "permissions" in sentence and status == 2


def test_a_batch_skips_a_picture_without_read_permission(locked, refused):
    command = "batch locked/content.png --styles style.png -o out --quiet --weights tiny.h5 --size 32"
    status, sentence = refused(*command.split())
    assert sentence.startswith("content_style.png ") and "locked/content.png may not be read by" in sentence
    assert status == 1


@pytest.mark.parametrize("cache", ["locked", "locked/cache"])
def test_a_cache_without_read_permission_counts_as_empty(cache, locked, fake_runner, monkeypatch, capsys):
    monkeypatch.setenv("JAXSTYLE_CACHE", cache)
    assert [actual.network for actual in pretrained.installed()] == ["mini", "random"]
    actual = pretrained.find("auto")  # tries to download, too
    assert actual.network == "mini" and "VGG-19's weights cannot be downloaded" in actual.note
    with pytest.raises(InputError, match="VGG-19's weights are not installed, and offline"):
        pretrained.find("vgg19", offline=True)
    assert main([*STYLIZE.split(), "-o", "out.png"]) == 0
    assert capsys.readouterr() == ("", "")
    assert load_image("out.png").rgb.shape == (32, 32, 3)

"""What a command says of folders that it may not look into, and that it gets by without a cache.

Nothing but the permissions of files stands against the user here, who may be root, whom they would not stop.
"""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxstyle import image, pretrained
from jaxstyle.cli import main
from jaxstyle.errors import InputError

LONG = f"{'a' * 300}.png"
OVERRIDING = 0b110  # the bits of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, from linux/capability.h
VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, from the same
STYLIZE = "stylize content.png style.png --size 32 --steps 1 --quiet --weights tiny.h5"


@pytest.fixture
def locked(refused) -> Iterator[Path]:
    """A folder with a picture, which nobody may look into, in a folder with two more and a network."""
    folder = Path("locked")
    folder.mkdir()
    Path("locked/content.png").write_bytes(Path("content.png").read_bytes())
    folder.chmod(0)
    root, libc = os.geteuid() == 0, ctypes.CDLL(None)
    header, before = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if root:
        if not hasattr(libc, "capset"):
            pytest.skip("root cannot be kept out of a folder here")
        libc.capget(header, before)
        without = (ctypes.c_uint32 * 6)(before[0] & ~OVERRIDING, *before[1:])  # effective, permitted, inheritable, ...
        assert libc.capset(header, without) == 0
    with pytest.raises(PermissionError):
        os.stat("locked/content.png")
    yield folder
    if root:
        assert libc.capset(header, before) == 0
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        # inputs
        (
            "stylize locked/content.png style.png -o out.png",
            "locked/content.png cannot be read (Permission denied): na",
        ),
        (
            "stylize content.png locked/content.png -o out.png --weights tiny.h5",
            "locked/content.png cannot be read (Pe",
        ),
        (
            "statistics locked -o style.h5",
            "locked cannot be used (Permission denied): name another path or change perm",
        ),
        (
            "batch locked --styles style.png -o out",
            "locked cannot be used (Permission denied): name another path or ch",
        ),
        (
            f"{STYLIZE} -o out.png --init locked/init.png",
            "--init locked/init.png is no file: use content, style, noise or the path of a picture.",
        ),
        (
            f"{STYLIZE} -o out.png --content-mask locked/mask.png",
            "locked/mask.png cannot be read (Permission denied): n",
        ),
        (
            "rerun locked/content.png",
            "locked/content.png cannot be read (Permission denied): name a picture file that ",
        ),
        # networks
        (
            "stylize content.png style.png -o out.png --network locked/n.h5",
            "locked/n.h5 cannot be used (Permission den",
        ),
        (
            f"{STYLIZE} -o out.png --weights locked/n.h5",
            "locked/n.h5 may not be read by this user: change its permissio",
        ),
        # outputs
        (f"{STYLIZE} -o locked/out.png", "locked/out.png cannot be written (Permission denied): name another output."),
        (f"{STYLIZE} -o {LONG}", f"{LONG} cannot be written (File name too long): name another output."),
        (
            f"{STYLIZE} -o out.png --log locked/log.csv",
            "locked/log.csv cannot be used (Permission denied): name anothe",
        ),
        (
            f"{STYLIZE} -o out.png --checkpoint locked/kept",
            "locked/kept cannot be used (Permission denied): name anoth",
        ),
        (
            f"{STYLIZE} -o out.png --checkpoint locked",
            "--checkpoint locked cannot be read (Permission denied): name a fo",
        ),
        (
            "sweep content.png style.png -o locked/out",
            "locked/out cannot be used (Permission denied): name another pat",
        ),
        (
            "sweep content.png style.png -o locked",
            "locked/sweep.csv cannot be used (Permission denied): name another p",
        ),
        (
            "batch content.png --styles style.png -o locked/out",
            "locked/out cannot be used (Permission denied): name an",
        ),
        (
            "statistics style.png -o locked/style.h5",
            "locked/style.h5 cannot be used (Permission denied): name another ",
        ),
    ],
)
def test_a_path_that_cannot_be_used_ends_a_command_with_a_sentence_and_status_2(arguments, saying, locked, refused):
    status, sentence = refused(*arguments.split())
    assert sentence.startswith(saying) and status == 2


def test_a_batch_leaves_out_a_picture_that_it_may_not_read(locked, refused):
    command = "batch locked/content.png --styles style.png -o out --quiet --weights tiny.h5 --size 32"
    status, sentence = refused(*command.split())
    assert sentence.startswith("content_style.png is left out: locked/content.png cannot be read (Permission denied)")
    assert status == 1


@pytest.mark.parametrize("cache", ["locked", "locked/cache"])
def test_a_cache_that_may_not_be_read_is_as_good_as_empty(cache, locked, monkeypatch, capsys):
    monkeypatch.setenv("JAXSTYLE_CACHE", cache)
    assert [found.network for found in pretrained.installed()] == ["mini", "random"]
    found = pretrained.find("auto")  # tries to download, too
    assert found.network == "mini" and "VGG-19's weights cannot be downloaded" in found.note
    with pytest.raises(InputError, match="VGG-19's weights are not installed, and offline"):
        pretrained.find("vgg19", offline=True)
    assert main(["networks"]) == 0
    assert capsys.readouterr().out.startswith("mini ")


@pytest.mark.slow
def test_a_picture_is_painted_without_a_cache_that_may_be_read(locked, monkeypatch, capsys):
    monkeypatch.setenv("JAXSTYLE_CACHE", "locked")
    assert main([*STYLIZE.split(), "-o", "out.png"]) == 0
    assert capsys.readouterr() == ("", "")
    assert image.load("out.png").rgb.shape == (32, 32, 3)

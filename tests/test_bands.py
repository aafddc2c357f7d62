"""Pictures that are read and written in bands, and the limits of large ones."""

import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import specimens
import tifffile
from PIL import Image

from jaxstyle import bands, encoding, encoding_large, image, image_limits
from jaxstyle.cli import main
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.image import description_of, load, save, size_of
from jaxstyle.image_opening import pillows_limit, raised
from jaxstyle.orientation import stored_box, turned, upright

H, W = 67, 61  # neither divides into bands or tiles
SPECIMENS = specimens.pictures()
KINDS = [(".png", 8), (".jpg", 8), (".webp", 8), (".tif", 8), (".png", 16), (".tif", 16)]
STYLIZE = "stylize content.png style.png -o out.png --size 32 --steps 1 --quiet --weights tiny.h5 --offline"
LARGE = [(".tif", 8), (".tif", 16), (".png", 16)]


def unit(*channels: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(H, W, *channels)).astype(np.float32)


@pytest.fixture
def narrow(monkeypatch):
    """Bands of three rows and less."""
    monkeypatch.setattr(bands, "PIXELS", 200)


@pytest.fixture
def large(monkeypatch):
    """Every picture counts as large, and is written in bands of one row of tiles at a time."""
    monkeypatch.setattr(encoding, "LARGE", 0)
    monkeypatch.setattr(encoding_large, "TILE", 16)
    monkeypatch.setattr(bands, "PIXELS", 200)


def test_bands_have_every_row_once_and_a_multiple_of_rows():
    for height, width, multiple in [(67, 2**20, 1), (67, 2**23, 1), (5000, 2**14, 256), (67, 2**20, 16), (1, 1, 1)]:
        found = list(bands.rows(height, width, multiple=multiple))
        assert [row for top, end in found for row in range(top, end)] == list(range(height))
        assert all((end - top) % multiple == 0 for top, end in found[:-1])


# reading


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_picture_is_the_same_in_bands_as_in_one(name, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(SPECIMENS[name])
    sizes = (None, 24, 50, (40, 17), (17, 40), (33, 60))
    whole = [load(path, size=size) for size in sizes]
    monkeypatch.setattr(bands, "PIXELS", 100)
    for size, expected in zip(sizes, whole, strict=True):
        found = load(path, size=size)
        # in floating point, Pillow's other order of rows and columns shows in the last bit
        close = 0 if size is None or "16" not in name and "float" not in name else 3e-7
        np.testing.assert_allclose(found.rgb, expected.rgb, rtol=0, atol=close)
        assert (found.alpha is None) == (expected.alpha is None)
        if found.alpha is not None and expected.alpha is not None:
            np.testing.assert_allclose(found.alpha, expected.alpha, rtol=0, atol=close)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_every_orientation_is_undone_from_band_to_band(orientation, bits, tmp_path, monkeypatch):
    exif, pixels = Image.Exif(), np.random.default_rng(1).integers(0, 2**bits, (H, W, 3), f"u{bits // 8}")
    exif[0x0112] = orientation
    if bits == 8:
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    else:
        data = imagecodecs.png_encode(pixels)
        body = b"eXIf" + exif.tobytes()[6:]
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    whole, small = load(tmp_path / "a.png").rgb, load(tmp_path / "a.png", size=30).rgb
    np.testing.assert_allclose(whole, turned(pixels, orientation) / (2**bits - 1), atol=1e-7)
    monkeypatch.setattr(bands, "PIXELS", 200)
    np.testing.assert_array_equal(load(tmp_path / "a.png").rgb, whole)
    np.testing.assert_allclose(load(tmp_path / "a.png", size=30).rgb, small, rtol=0, atol=0 if bits == 8 else 3e-7)
    assert size_of(tmp_path / "a.png") == whole.shape[1::-1]


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 99])
def test_rows_of_the_upright_picture_are_where_they_are_said_to_be(orientation):
    stored = np.arange(5 * 7).reshape(5, 7)
    whole = turned(stored, orientation)
    assert upright((7, 5), orientation) == whole.shape[::-1]
    left, top, right, bottom = stored_box((7, 5), orientation, 1, 3)
    np.testing.assert_array_equal(turned(stored[top:bottom, left:right], orientation), whole[1:3])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_tiles_of_others_are_read(bits, alpha, big, compression, tmp_path, narrow):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (H, W, 4 if alpha else 3), f"u{bits // 8}")
    how: Any = {"extrasamples": ["unassalpha"]} if alpha else {}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 16), bigtiff=big, compression=compression, **how)
    found = load(path)
    np.testing.assert_allclose(found.rgb, pixels[..., :3] / (2**bits - 1), rtol=0, atol=1e-7)
    assert (found.alpha is not None) == alpha
    if found.alpha is not None:
        np.testing.assert_allclose(found.alpha, pixels[..., 3] / (2**bits - 1), rtol=0, atol=1e-7)


# writing


@pytest.mark.parametrize(("suffix", "bits"), KINDS)
@pytest.mark.parametrize("alpha", [False, True])
def test_a_file_does_not_depend_on_the_bands_that_it_is_written_in(suffix, bits, alpha, tmp_path, monkeypatch):
    picture, files = unit(4), []
    for pixels in (2**22, 200):
        monkeypatch.setattr(bands, "PIXELS", pixels)
        path = tmp_path / f"{pixels}{suffix}"
        save(path, picture[..., :3], alpha=picture[..., 3] if alpha else None, bits=bits, description="told")
        files.append(path.read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(("suffix", "bits"), LARGE)
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_a_large_picture_is_written_as_any_other(suffix, bits, alpha, big, tmp_path, large, monkeypatch):
    picture, path = unit(4), tmp_path / f"a{suffix}"
    opacity = picture[..., 3] if alpha else None
    if big:
        monkeypatch.setattr(encoding_large, "MOST_CLASSIC", 0)
    save(path, picture[..., :3], alpha=opacity, bits=bits, description='{"told": 1}')
    found, data = load(path), path.read_bytes()
    np.testing.assert_array_equal(np.rint(found.rgb * (2**bits - 1)), np.rint(picture[..., :3] * (2**bits - 1)))
    assert (found.alpha is not None) == alpha
    if found.alpha is not None:
        np.testing.assert_array_equal(np.rint(found.alpha * (2**bits - 1)), np.rint(picture[..., 3] * (2**bits - 1)))
    assert description_of(path) == '{"told": 1}'
    if suffix == ".tif":
        assert data[:4] == (b"II+\0" if big else b"II*\0")
        with tifffile.TiffFile(path) as file:
            assert file.pages.first.tile == (16, 16)
    save(path, picture[..., :3], alpha=opacity, bits=bits, description='{"told": 1}')
    assert path.read_bytes() == data


def test_a_large_png_is_sound_to_another_reader(tmp_path, large):
    save(tmp_path / "a.png", unit(3), bits=16)
    expected = np.rint(unit(3) * 65535).astype(np.uint16)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), expected)
    with Image.open(tmp_path / "a.png") as file:
        file.verify()


def test_a_tiff_of_16_bits_has_no_byte_that_nobody_wrote(tmp_path):
    for seed in range(8):  # about half of them have an odd number of compressed bytes
        picture = np.random.default_rng(seed).uniform(size=(16, 16, 3))
        save(tmp_path / "a.tif", picture, bits=16)
        data = (tmp_path / "a.tif").read_bytes()
        with tifffile.TiffFile(BytesIO(data)) as file:
            page = file.pages.first
            assert isinstance(page, tifffile.TiffPage)
            end = page.dataoffsets[-1] + page.databytecounts[-1]
        assert not any(data[end : struct.unpack("<I", data[4:8])[0]])


@pytest.mark.parametrize(("suffix", "bits"), LARGE)
def test_a_disk_that_fills_up_while_a_large_picture_is_written_leaves_the_old_file(suffix, bits, tmp_path, large):
    resource = pytest.importorskip("resource")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(UnavailableError, match=r"cannot be written \(File too large\): free space or use"):
            save(path, unit(3), bits=bits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"old"


def test_values_that_are_not_numbers_are_counted_over_all_bands(tmp_path, narrow):
    rgb = unit(3)
    rgb[::20, 0] = np.nan
    with pytest.raises(InputError, match=r"a\.png would hold 12 values that are not numbers"):
        save(tmp_path / "a.png", rgb)
    assert os.listdir(tmp_path) == []


# limits


@pytest.mark.parametrize("name", [name for name in SPECIMENS if "animated" not in name])
def test_max_pixels_allows_what_pillow_does_not_and_for_that_picture_alone(name, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(SPECIMENS[name])
    expected = load(tmp_path / "a").rgb
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(load(tmp_path / "a", max_pixels=792).rgb, expected)
    with pytest.raises(InputError, match="over the limit of 791 in all: shrink it first or allow it with --max-pixels"):
        load(tmp_path / "a", max_pixels=791)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(InputError, match=r"over Pillow's limit of 100|exceeds limit of 200"):
        load(tmp_path / "a")


def test_a_picture_far_over_the_limit_has_no_description_but_a_cure(tmp_path, monkeypatch):
    save(tmp_path / "a.png", unit(3), description="told")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"is 61x67 pixels, over Pillow's limit of 100 in all: shrink it"):
        description_of(tmp_path / "a.png")
    assert description_of(tmp_path / "a.png", max_pixels=H * W) == "told"


def test_the_size_that_is_asked_for_counts_too(tmp_path, monkeypatch):
    save(tmp_path / "a.png", unit(3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W)
    with pytest.raises(InputError, match=r"is 91x100 pixels at size 100, over Pillow's .*: lower the size or"):
        load(tmp_path / "a.png", size=100)
    assert load(tmp_path / "a.png", size=100, max_pixels=9100).rgb.shape == (100, 91, 3)


@pytest.mark.parametrize("most", [0, -1, 4 * 10**9 + 1])
def test_more_than_can_be_counted_is_no_limit(most, tmp_path):
    save(tmp_path / "a.png", unit(3))
    with pytest.raises(InputError, match=rf"max_pixels is {most}: use a whole number from 1 to 4000000000\."):
        load(tmp_path / "a.png", max_pixels=most)


def test_a_few_bytes_may_not_claim_more_pixels_because_more_are_allowed(tmp_path):
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(bytes(10**6)), b"IEND": b""}.items()
    packed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(InputError, match=r"is 30000x30000 pixels, over Pillow's .* allow it with --max-pixels 900MP\."):
        load(tmp_path / "a.png")
    with pytest.raises(InputError, match="claims 30000x30000 pixels in .* bytes, but over 33554432 pixels must come"):
        load(tmp_path / "a.png", max_pixels=10**9)


def test_a_file_may_have_more_bytes_where_it_may_have_more_pixels(tmp_path, monkeypatch):
    save(tmp_path / "a.png", unit(3))
    monkeypatch.setattr(image_limits, "MOST_BYTES", 100)
    with pytest.raises(InputError, match=r"over the limit of 100: shrink the picture or allow it with --max"):
        load(tmp_path / "a.png")
    assert load(tmp_path / "a.png", max_pixels=10**6).rgb.shape == (H, W, 3)


def test_pillows_limit_is_back_after_an_error_and_stays_where_none_is_needed(monkeypatch):
    before = pillows_limit()
    with pytest.raises(ZeroDivisionError), raised(10**9):
        raise ZeroDivisionError
    assert pillows_limit() == before
    with raised(10), raised(None):
        assert Image.MAX_IMAGE_PIXELS == before
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with raised(10):
        assert pillows_limit() is None


def test_another_thread_does_not_see_a_limit_that_was_raised_for_one_picture():
    before, seen = pillows_limit(), []
    other = threading.Thread(target=lambda: seen.append(pillows_limit()))
    with raised(10**9):
        other.start()
        other.join(0.05)
        assert seen == []
    other.join()
    assert seen == [before]


# the command line


def test_a_larger_picture_is_refused_in_a_sentence_that_names_the_option(refused, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    status, sentence = refused(*STYLIZE.split())
    assert status == 2
    assert sentence == (
        "content.png is 32x32 pixels, over Pillow's limit of 600 in all: shrink it first or allow it with "
        "--max-pixels 1MP."
    )


@pytest.mark.parametrize(
    "command",
    [
        STYLIZE,
        STYLIZE.replace("stylize", "sweep").replace("out.png", "out"),
        "batch content.png --styles style.png -o out --size 32 --weights tiny.h5",
        "reconstruct content.png -o out.png",
        "texture style.png -o out.png",
        "statistics style.png -o style.h5 --weights tiny.h5",
    ],
)
def test_every_command_hands_the_option_on(command, refused, monkeypatch):
    told = []

    def refuse(*_, max_pixels: int | None, **__) -> None:
        told.append(max_pixels)
        raise InputError("There is no more.")

    monkeypatch.setattr(image, "load", refuse)
    status, sentence = refused(*command.split(), "--quiet", "--max-pixels", "0.5GP")
    assert told == [5 * 10**8]
    assert "There is no more." in sentence and status == (1 if command.startswith("batch") else 2)


@pytest.mark.slow
def test_a_larger_picture_is_repainted_if_that_is_asked_for_and_again(refused, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert main([*STYLIZE.split(), "--max-pixels", "1MP"]) == 0
    assert capsys.readouterr().err == "" and size_of("out.png", max_pixels=1024) == (32, 32)
    assert "limits" not in json.loads(description_of("out.png", max_pixels=1024))["options"]
    rerun = "rerun out.png --quiet --offline --weights tiny.h5".split()
    status, sentence = refused(*rerun)
    assert status == 2 and "out.png is 32x32 pixels, over Pillow's limit of 400 in all" in sentence
    assert main([*rerun, "--max-pixels", "1MP"]) == 0
    assert Path("out_rerun.png").read_bytes() == Path("out.png").read_bytes()


# memory


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told by /proc")
@pytest.mark.parametrize(("name", "bits", "height"), [("a.png", 8, 1201), ("a.tif", 16, 6901)])
def test_a_picture_takes_less_than_twice_its_floats(name, bits, height, tmp_path):
    scripts, width = Path(__file__).parents[1] / "scripts", 5001
    assert bits == 8 or height * width > encoding.LARGE
    code = "import sys, benchmark_pictures as b; print(*b.measured(*sys.argv[1:3], *map(int, sys.argv[3:])))"
    most = {"save": 1.4, "load": 1.6, "load 1024": 0.8}
    itself = 2**27  # bytes of the process without the picture, and of bands
    for action, factor in most.items():
        told = subprocess.run(
            [sys.executable, "-c", code, action, tmp_path / name, *map(str, (height, width, bits))],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(scripts), *filter(None, sys.path)])},
            check=True,
            capture_output=True,
            text=True,
        )
        assert float(told.stdout.split()[0]) < factor * 12 * height * width + itself, action

"""Pictures that are read and written in chunks of rows, and the limits of large ones."""

import importlib
import json
import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import specimens
import tifffile
from PIL import Image

from jaxstyle.cli import main
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.images import image_rows
from jaxstyle.images import limits as limits_module
from jaxstyle.images import load as load_module
from jaxstyle.images import save as save_module
from jaxstyle.images.exif import stored_box, turned, upright
from jaxstyle.images.limits import allowing
from jaxstyle.images.load import load_image, size_of
from jaxstyle.images.metadata import description_of
from jaxstyle.images.save import save_image
from jaxstyle.runtime import inputs as inputs_module
from jaxstyle.runtime import sweep_job

H, W = 67, 61  # neither divides into chunks or tiles
SPECIMENS = specimens.pictures()
KINDS = [(".png", 8), (".jpg", 8), (".webp", 8), (".tif", 8), (".png", 16), (".tif", 16)]
STYLIZE = "stylize content.png style.png -o out.png --size 32 --steps 1 --quiet --weights tiny.h5 --offline"
LARGE = [(".tif", 8), (".tif", 16), (".png", 16)]


def unit(*channels: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(H, W, *channels)).astype(np.float32)


def with_orientation(png: bytes, orientation: int) -> bytes:
    """Return a PNG with an EXIF chunk behind its header."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = b"eXIf" + exif.tobytes()[6:]
    return png[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


@pytest.fixture
def narrow(monkeypatch):
    """Use chunks of at most three rows."""
    monkeypatch.setattr(image_rows, "PIXELS", 200)


@pytest.fixture
def large(monkeypatch):
    """Write every picture like a large one, in chunks of one row of tiles."""
    monkeypatch.setattr(save_module, "LARGE", 0)
    monkeypatch.setattr(save_module, "TILE", 16)
    monkeypatch.setattr(image_rows, "PIXELS", 200)


def test_chunks_partition_the_rows_into_multiples():
    for height, width, multiple in [(67, 2**20, 1), (67, 2**23, 1), (5000, 2**14, 256), (67, 2**20, 16), (1, 1, 1)]:
        actual = list(image_rows.row_chunks(height, width, multiple=multiple))
        assert [row for top, end in actual for row in range(top, end)] == list(range(height))
        assert all((end - top) % multiple == 0 for top, end in actual[:-1])
        assert all((end - top) * width <= max(image_rows.PIXELS, multiple * width) for top, end in actual)
    assert list(image_rows.row_chunks(500, 2**14)) == [(0, 128), (128, 256), (256, 384), (384, 500)]


# reading

MODES = (  # one for each path through the decoder
    "png", "png grey", "png palette", "png bits", "png alpha, marked", "png 16", "png 16 alpha", "png 16 grey",
    "jpeg cmyk", "jpeg marked", "webp alpha, marked", "tiff", "tiff float", "tiff 16", "tiff 16 deflate alpha",
    "tiff 16 tiled", "tiff 16 planes", "tiff 16 grey", "gif", "pgm 16", "avif",
)  # fmt: skip


def test_a_picture_does_not_depend_on_the_chunks_that_it_is_read_in(tmp_path, monkeypatch):
    for name in MODES:
        (tmp_path / "a").write_bytes(SPECIMENS[name])
        for size in (None, 24, (17, 60)):
            monkeypatch.setattr(image_rows, "PIXELS", 2**21)
            expected = load_image(tmp_path / "a", size=size)
            monkeypatch.setattr(image_rows, "PIXELS", 100)
            actual = load_image(tmp_path / "a", size=size)
            # in floating point, Pillow's other order of rows and columns shows in the last bit
            close = 0 if size is None or "16" not in name and "float" not in name else 3e-7
            np.testing.assert_allclose(actual.rgb, expected.rgb, rtol=0, atol=close, err_msg=f"{name} at {size}")
            assert (actual.alpha is None) == (expected.alpha is None), name
            if actual.alpha is not None and expected.alpha is not None:
                np.testing.assert_allclose(
                    actual.alpha, expected.alpha, rtol=0, atol=close, err_msg=f"{name} at {size}"
                )


def test_all_orientations_are_applied_in_chunks(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    for bits in (8, 16):
        pixels = np.random.default_rng(1).integers(0, 2**bits, (H, W, 3), f"u{bits // 8}")
        for orientation in range(1, 9):
            path.write_bytes(with_orientation(bytes(imagecodecs.png_encode(pixels)), orientation))
            monkeypatch.setattr(image_rows, "PIXELS", 2**21)
            whole, small = load_image(path).rgb, load_image(path, size=30).rgb
            np.testing.assert_allclose(whole, turned(pixels, orientation) / (2**bits - 1), atol=1e-7)
            monkeypatch.setattr(image_rows, "PIXELS", 200)
            np.testing.assert_array_equal(load_image(path).rgb, whole)
            np.testing.assert_allclose(load_image(path, size=30).rgb, small, rtol=0, atol=0 if bits == 8 else 3e-7)
            assert size_of(path) == whole.shape[1::-1]


def test_the_stored_box_of_rows_holds_those_rows_of_the_upright_picture():
    stored = np.arange(5 * 7).reshape(5, 7)
    for orientation in (*range(1, 9), 0, 99):
        whole = turned(stored, orientation)
        assert upright((7, 5), orientation) == whole.shape[::-1]
        left, top, right, bottom = stored_box((7, 5), orientation, 1, 3)
        np.testing.assert_array_equal(turned(stored[top:bottom, left:right], orientation), whole[1:3])


def test_tiled_tiffs_of_another_writer_are_read(tmp_path, narrow):
    path = tmp_path / "a.tif"
    for bits, alpha, big, compression in [
        (8, False, False, None),
        (8, True, True, "lzw"),
        (8, False, True, "deflate"),
        (16, True, False, "deflate"),
        (16, False, True, None),
        (16, True, True, None),
        (16, False, False, "lzw"),
    ]:
        pixels = np.random.default_rng(0).integers(0, 2**bits, (H, W, 4 if alpha else 3), f"u{bits // 8}")
        extra = ["unassalpha"] if alpha else None
        how = {"tile": (32, 16), "bigtiff": big, "compression": compression, "extrasamples": extra}
        tifffile.imwrite(path, pixels, photometric="rgb", **how)  # pyright: ignore[reportArgumentType]
        actual = load_image(path)
        np.testing.assert_allclose(actual.rgb, pixels[..., :3] / (2**bits - 1), rtol=0, atol=1e-7)
        assert (actual.alpha is not None) == alpha
        if actual.alpha is not None:
            np.testing.assert_allclose(actual.alpha, pixels[..., 3] / (2**bits - 1), rtol=0, atol=1e-7)


# writing


def test_a_file_does_not_depend_on_the_chunks_that_it_is_written_in(tmp_path, monkeypatch):
    picture = unit(4)
    for suffix, bits in KINDS:
        for alpha in (None, picture[..., 3]):
            files, path = [], tmp_path / f"a{suffix}"
            for pixels in (2**22, 200):
                monkeypatch.setattr(image_rows, "PIXELS", pixels)
                save_image(path, picture[..., :3], alpha=alpha, bits=bits, description="a description")
                files.append(path.read_bytes())
            assert files[0] == files[1], (suffix, bits)
            assert description_of(path) == "a description"


def test_a_large_picture_is_loaded_exactly_from_the_same_bytes_each_time(tmp_path, large, monkeypatch):
    picture, text = unit(4), '{"steps": 1}'
    for suffix, bits in LARGE:
        levels, path = np.rint(picture * (2**bits - 1)), tmp_path / f"a{suffix}"
        for alpha in (None, picture[..., 3]):
            for big in (False, True) if suffix == ".tif" else (False,):
                monkeypatch.setattr(save_module, "MOST_CLASSIC", 0 if big else 2**32 - 2**25)
                save_image(path, picture[..., :3], alpha=alpha, bits=bits, description=text)
                actual, data = load_image(path), path.read_bytes()
                np.testing.assert_array_equal(np.rint(actual.rgb * (2**bits - 1)), levels[..., :3])
                assert (actual.alpha is None) == (alpha is None)
                if actual.alpha is not None:
                    np.testing.assert_array_equal(np.rint(actual.alpha * (2**bits - 1)), levels[..., 3])
                assert description_of(path) == text
                if suffix == ".tif":
                    assert data[:4] == (b"II+\0" if big else b"II*\0")
                    with tifffile.TiffFile(path) as file:
                        assert file.pages.first.tile == (16, 16)
                save_image(path, picture[..., :3], alpha=alpha, bits=bits, description=text)
                assert path.read_bytes() == data


def test_a_large_png_is_valid_for_other_readers(tmp_path, large):
    save_image(tmp_path / "a.png", unit(3), bits=16)
    expected = np.rint(unit(3) * 65535).astype(np.uint16)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), expected)
    with Image.open(tmp_path / "a.png") as file:
        file.verify()


def test_the_padding_byte_of_a_16_bit_tiff_is_zero(tmp_path):
    for seed in range(8):  # about half of them have an odd number of compressed bytes
        picture = np.random.default_rng(seed).uniform(size=(16, 16, 3))
        save_image(tmp_path / "a.tif", picture, bits=16)
        data = (tmp_path / "a.tif").read_bytes()
        with tifffile.TiffFile(BytesIO(data)) as file:
            page = file.pages.first
            assert isinstance(page, tifffile.TiffPage)
            end = page.dataoffsets[-1] + page.databytecounts[-1]
        assert not any(data[end : struct.unpack("<I", data[4:8])[0]])


def test_a_full_disk_leaves_the_old_file_of_a_large_picture(tmp_path, large):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for suffix, bits in LARGE:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            with pytest.raises(UnavailableError, match=r"cannot be written \(File too large\)"):
                save_image(path, unit(3), bits=bits)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"old"
        path.unlink()


def test_nan_values_are_counted_over_all_chunks(tmp_path, narrow):
    rgb = unit(3)
    rgb[::20, 0] = np.nan
    with pytest.raises(InputError, match=r"a\.png would hold 12 values that are not numbers"):
        save_image(tmp_path / "a.png", rgb)
    assert os.listdir(tmp_path) == []


# limits


def test_max_pixels_replaces_pillows_limit_for_one_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("png", "png 16 alpha", "jpeg", "webp", "tiff", "tiff 16 tiled", "gif", "bmp", "pgm 16", "avif"):
        (tmp_path / "a").write_bytes(SPECIMENS[name])
        assert load_image(tmp_path / "a", max_pixels=33 * 24).rgb.size == 3 * 33 * 24, name
        with pytest.raises(InputError, match="over the limit of 791 .*--max-pixels"):
            load_image(tmp_path / "a", max_pixels=33 * 24 - 1)
        assert Image.MAX_IMAGE_PIXELS == 100
        with pytest.raises(InputError, match=r"over Pillow's limit of 100|exceeds limit of 200"):
            load_image(tmp_path / "a")


def test_the_description_of_a_picture_over_the_limit_needs_max_pixels(tmp_path, monkeypatch):
    save_image(tmp_path / "a.png", unit(3), description="a description")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"is 61x67 pixels, over Pillow's limit of 100 .*--max-pixels"):
        description_of(tmp_path / "a.png")
    assert description_of(tmp_path / "a.png", max_pixels=H * W) == "a description"


def test_the_limit_applies_to_the_requested_size(tmp_path, monkeypatch):
    save_image(tmp_path / "a.png", unit(3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W)
    with pytest.raises(InputError, match=r"is 91x100 pixels at size 100, over Pillow's .*: lower the size or"):
        load_image(tmp_path / "a.png", size=100)
    assert load_image(tmp_path / "a.png", size=100, max_pixels=9100).rgb.shape == (100, 91, 3)


def test_max_pixels_out_of_range_is_refused(tmp_path):
    save_image(tmp_path / "a.png", unit(3))
    for most in (0, -1, 4 * 10**9 + 1):
        with pytest.raises(InputError, match=f"max_pixels is {most}: .* 1 to 4000000000"):
            load_image(tmp_path / "a.png", max_pixels=most)
    assert load_image(tmp_path / "a.png", max_pixels=4 * 10**9).rgb.shape == (H, W, 3)


def test_the_limit_of_the_option_is_the_last_that_an_error_proposes():
    assert allowing(149_999_999).endswith("--max-pixels 150MP")
    assert allowing(4 * 10**9).endswith("--max-pixels 4000MP")
    assert allowing(4 * 10**9 + 1) == ""


def test_a_file_of_few_bytes_may_not_claim_many_pixels_whatever_max_pixels(tmp_path):
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(bytes(10**6)), b"IEND": b""}.items()
    packed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(InputError, match=r"is 30000x30000 pixels, over Pillow's .* --max-pixels 900MP"):
        load_image(tmp_path / "a.png")
    with pytest.raises(InputError, match="claims 30000x30000 pixels in .* 33554432 pixels"):
        load_image(tmp_path / "a.png", max_pixels=10**9)


def test_max_pixels_raises_the_limit_of_bytes_by_9_a_pixel(tmp_path, monkeypatch):
    save_image(tmp_path / "a.tif", unit(3), bits=16)
    size = (tmp_path / "a.tif").stat().st_size
    monkeypatch.setattr(limits_module, "MOST_BYTES", 100)
    with pytest.raises(InputError, match=r"over the limit of 100: .* --max-pixels 1MP"):
        load_image(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"has {size} bytes, over the limit of {9 * (size // 9 - 1)}"):
        load_image(tmp_path / "a.tif", max_pixels=size // 9 - 1)
    monkeypatch.setattr(limits_module, "MOST_BYTES", size)
    assert load_image(tmp_path / "a.tif").rgb.shape == (H, W, 3)
    monkeypatch.setattr(limits_module, "MOST_BYTES", 100)
    assert load_image(tmp_path / "a.tif", max_pixels=10**6).rgb.shape == (H, W, 3)


# the command line


def test_an_error_about_a_large_picture_names_the_option(refused, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    status, sentence = refused(*STYLIZE.split())
    assert status == 2 and "content.png is 32x32 pixels" in sentence and "--max-pixels 1MP" in sentence


def test_every_command_passes_max_pixels_to_load(refused, monkeypatch):
    passed = []

    def refuse(*_, max_pixels: int | None, **__) -> None:
        passed.append(max_pixels)
        raise InputError("There is no more.")

    monkeypatch.setattr(load_module, "load_image", refuse)
    for module in (inputs_module, sweep_job):
        monkeypatch.setattr(module, "load_image", refuse)
    for command in (
        STYLIZE,
        STYLIZE.replace("stylize", "sweep").replace("out.png", "out"),
        "batch content.png --styles style.png -o out --size 32 --weights tiny.h5",
        "reconstruct content.png -o out.png",
        "texture style.png -o out.png",
        "statistics style.png -o style.h5 --weights tiny.h5",
    ):
        passed.clear()
        status, sentence = refused(*command.split(), "--quiet", "--max-pixels", "0.5GP")
        assert passed == [5 * 10**8], command
        assert "There is no more." in sentence and status == (1 if command.startswith("batch") else 2)


def test_a_rerun_needs_max_pixels_too_which_is_not_recorded(refused, fake_runner, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert main([*STYLIZE.split(), "--max-pixels", "1MP"]) == 0
    assert capsys.readouterr().err == "" and size_of("out.png", max_pixels=1024) == (32, 32)
    assert "limits" not in json.loads(description_of("out.png", max_pixels=1024))["options"]
    rerun = "rerun out.png --quiet --offline --weights tiny.h5".split()
    status, sentence = refused(*rerun)
    assert status == 2 and "out.png is 32x32 pixels, over Pillow's limit of 400" in sentence
    assert main([*rerun, "--max-pixels", "1MP"]) == 0
    assert Path("out_rerun.png").read_bytes() == Path("out.png").read_bytes()


# memory


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(("name", "bits"), [("a.png", 8), ("a.tif", 16)])
def test_the_peak_memory_of_a_picture_is_below_twice_its_floats(name, bits, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    child = importlib.import_module("benchmark_pictures").CHILD
    small = "image_rows.PIXELS, save.LARGE, save.BUFFER = 2**17, 0, 2**18"  # as if the picture were large
    code, width, height = f"from jaxstyle.images import image_rows, save; {small}\n{child}", 2001, 1201

    def peak(action: str, path: Path, height: int) -> float:
        command = [sys.executable, "-c", code, action, path, *map(str, (height, width, bits))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[0])

    for action, factor in {"save": 1.4, "load": 1.6, "load 256": 0.8}.items():
        itself = peak(action, tmp_path / f"small_{name}", 160)
        assert peak(action, tmp_path / name, height) - itself < factor * 12 * (height - 160) * width, action

"""Picture files that are cut short, of other formats, unreadable or too large for memory; and reading in threads."""

import errno
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import specimens
import tifffile
from PIL import Image, PngImagePlugin

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.images import load as load_module
from jaxstyle.images import truncated
from jaxstyle.images.load import Picture, PictureWarning, load_image
from jaxstyle.images.save import save_image

H, W = 1700, 24  # one row of blocks of a JPEG is less than 1 % of the rows


def photograph() -> np.ndarray:
    """Return waves with noise, uint8 `[H, W, 3]`."""
    y, x = np.mgrid[:H, :W]
    waves = np.stack([np.sin(x / 3 + y / 20), np.cos(y / 9), np.sin((x - y) / 14)], -1)
    return np.rint(127 + 90 * waves + np.random.default_rng(0).normal(0, 12, (H, W, 3))).clip(0, 255).astype(np.uint8)


def encoded(container: str, **options) -> bytes:
    buffer = BytesIO()
    Image.fromarray(photograph()).save(buffer, container, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options) -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb", metadata=None, rowsperstrip=4, **options)
    return buffer.getvalue()


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


FILES = {
    "jpeg": lambda: encoded("JPEG"),
    "jpeg rotated": lambda: encoded("JPEG", exif=rotated()),
    "jpeg progressive": lambda: encoded("JPEG", progressive=True),
    "png": lambda: encoded("PNG"),
    "png 16": lambda: bytes(imagecodecs.png_encode(photograph().astype(np.uint16) * 257)),
    "webp": lambda: encoded("WEBP"),
    "webp lossless": lambda: encoded("WEBP", lossless=True),
    "tiff": lambda: encoded("TIFF"),
    "tiff strips": lambda: tiff(photograph()),
    "tiff deflate": lambda: tiff(photograph(), compression="deflate"),
    "tiff 16 deflate": lambda: tiff(photograph().astype(np.uint16) * 257, compression="deflate"),
}


def loaded(path: Path, data: bytes) -> tuple[Picture, list[str]]:
    """Return the picture of a file, and its warnings."""
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = load_image(path)
    assert all(each.category is PictureWarning for each in caught)
    return picture, [str(each.message) for each in caught]


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_read_with_a_warning_if_99_percent_are_present_and_refused_otherwise(kind, tmp_path):
    data, rng, read, refused = FILES[kind](), random.Random(kind), 0, 0
    whole, none = loaded(tmp_path / "a", data)
    assert none == []
    near = [1, 2, 3, 5, len(data) // 500, len(data) // 250]
    for cut in near + [rng.randint(1, int(0.6 * len(data))) for _ in range(50 - len(near))]:
        try:
            picture, (warning,) = loaded(tmp_path / "a", data[:-cut])
        except InputError as error:
            assert "is damaged or cut short" in str(error) and str(error).endswith("again."), str(error)
            refused += 1
        else:
            same = (picture.rgb == whole.rgb).all(-1)
            assert max(same.all(0).mean(), same.all(1).mean()) >= truncated.LEAST, f"{cut}: {warning}"
            assert "lacks the end of the file, but " in warning and " % of the picture is present" in warning
            read += 1
    assert read > 0 and refused > 20


def test_a_jpeg_that_lacks_only_its_end_marker_is_read_exactly(tmp_path):
    data = encoded("JPEG")
    picture, (warning,) = loaded(tmp_path / "a", data[:-2])
    np.testing.assert_array_equal(picture.rgb, loaded(tmp_path / "a", data)[0].rgb)
    assert warning.startswith(f"{tmp_path / 'a'} lacks the end of the file, but 100 %")


def test_a_progressive_jpeg_that_lacks_its_last_scan_is_refused(tmp_path):
    data = encoded("JPEG", progressive=True)
    with pytest.raises(InputError, match="is damaged or cut short"):
        loaded(tmp_path / "a", data[: data.rindex(b"\xff\xda")])


def test_missing_rows_repeat_the_last_one(tmp_path):
    for kind in ("png", "png 16", "tiff", "tiff strips"):
        data = FILES[kind]()
        rgb = loaded(tmp_path / "a", data[: -len(data) // 250])[0].rgb
        np.testing.assert_array_equal(rgb[-2], rgb[-1], kind)


def test_a_webp_without_its_metadata_says_that_its_orientation_is_missing(tmp_path):
    _, (warning,) = loaded(tmp_path / "a", encoded("WEBP", exif=rotated())[:-8])
    assert warning.endswith("100 % of the picture is present and is read without its orientation.")


# formats

KINDS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"8BPS": "a Photoshop file",
    b"%PDF-1.7": "a PDF document",
    b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">': "an SVG drawing",
    b"<!DOCTYPE html>": "a web page",
    b"\0\0\0\x18ftypcrx ": "a raw photograph",
    b"\0\0\0\x18ftypisom": "a video",
    b"\x1a\x45\xdf\xa3": "a video",
    b"PK\3\4": "a ZIP archive",
    b"\x89HDF\r\n": "an HDF5 file",
}


def test_a_file_of_another_format_is_refused_by_the_name_of_its_format(tmp_path):
    for start, name in KINDS.items():
        with pytest.raises(InputError, match=rf"is not a picture in a supported format \({name}.*: convert it to PNG"):
            loaded(tmp_path / "a", start + bytes(64))


def test_the_preview_in_a_raw_photograph_is_not_read_as_the_picture(tmp_path):
    with pytest.raises(InputError, match="a raw photograph"):
        extra = [(50706, 1, 4, b"\1\4\0\0", True)]  # DNGVersion
        loaded(tmp_path / "a", tiff(photograph()[:40], subfiletype=1, extratags=extra))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_a_heic_picture_needs_the_extra_which_the_error_names(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxstyle.images.formats.find_spec", lambda module: None if module == "pillow_heif" else True)
    with pytest.raises(
        InputError, match=r"is a HEIC picture, which needs the extra heif: pip install 'jaxstyle\[heif\]'"
    ):
        loaded(tmp_path / "a", HEIC + bytes(64))


def test_a_heic_picture_is_read_with_the_extra(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    image, buffer = Image.fromarray(photograph()[:64]), BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95)
    before = dict(Image.OPEN)
    rgb = loaded(tmp_path / "a", buffer.getvalue())[0].rgb
    np.testing.assert_allclose(rgb.mean((0, 1)), np.asarray(image).mean((0, 1)) / 255, atol=0.01)
    assert rgb.shape == (64, W, 3) and Image.OPEN == before
    two, several = pillow_heif.from_pillow(image), BytesIO()
    two.add_from_pillow(image.rotate(180))
    two.save(several)
    assert "has several pictures: only one is read" in loaded(tmp_path / "a", several.getvalue())[1][0]
    with pytest.raises(InputError):
        loaded(tmp_path / "a", buffer.getvalue()[:-900])


# faults


@pytest.mark.parametrize(
    ("fault", "kind", "expected"),
    [
        (OSError(errno.EIO, "Input/output error"), UnavailableError, r"cannot be read \(Input/output error\): check"),
        (OSError(errno.EACCES, "Permission denied"), InputError, "may not be read by this user: change"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), UnavailableError, "cannot be read, as memory is exhausted"),
        (MemoryError(), UnavailableError, "cannot be read, as memory is exhausted"),
    ],
)
def test_a_fault_while_a_file_is_read_is_told_in_one_sentence(fault, kind, expected, tmp_path, monkeypatch):
    def fail(_: Path) -> bytes:
        raise fault

    save_image(tmp_path / "a.png", np.zeros((16, 16, 3)))
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(kind, match=expected) as caught:
        load_image(tmp_path / "a.png")
    assert str(caught.value).count(".png") == 1 and str(caught.value).endswith(".")


def test_a_file_that_is_read_only_in_part_is_refused(tmp_path, monkeypatch):
    save_image(tmp_path / "a.png", np.zeros((16, 16, 3)))
    data = (tmp_path / "a.png").read_bytes()
    for count in (0, 40, len(data) - 1):
        monkeypatch.setattr(Path, "read_bytes", lambda _, count=count: data[:count])
        with pytest.raises(UnavailableError, match=rf"was read only to byte {count} of {len(data)}: "):
            load_image(tmp_path / "a.png")


def test_a_picture_that_does_not_fit_in_memory_is_told_with_a_size_that_does(tmp_path, monkeypatch):
    def fail(*_) -> None:
        raise MemoryError

    save_image(tmp_path / "a.png", np.zeros((200, 400, 3)))
    for function, cure in [("read_all", "lower the size to at most"), ("_shallow", "shrink it to")]:
        with monkeypatch.context() as patch:
            patch.setattr(load_module, function, fail)
            with pytest.raises(
                UnavailableError, match=rf"^memory is too small .*400x200 .* free: {cure} 200x100 pixels"
            ):
                load_image(tmp_path / "a.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "_open", fail)
    with pytest.raises(UnavailableError, match=r"^memory is too small to read .*a\.png: shrink the picture\.$"):
        load_image(tmp_path / "a.png")


# threads


def test_threads_that_read_and_write_files_at_once_leave_no_global_state(tmp_path):
    files = {name: data for name, data in specimens.pictures().items() if "animated" not in name}
    for i, data in enumerate(files.values()):
        (tmp_path / f"{i}").write_bytes(data)

    def both(i: int) -> np.ndarray:
        picture = load_image(tmp_path / f"{i % len(files)}", max_pixels=None if i % 3 else 2 * 10**8)
        for suffix in (".png", (".jpg", ".webp", ".tif")[i % 3]):
            save_image(tmp_path / f"out{i}{suffix}", picture.rgb, alpha=picture.alpha)
        return load_image(tmp_path / f"out{i}.png").rgb

    alone = [both(i) for i in range(len(files))]
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters), warnings.showwarning
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(both, range(2 * len(files))))
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters), warnings.showwarning) == before
    for i, rgb in enumerate(together):
        np.testing.assert_array_equal(rgb, alone[i % len(files)])

import errno
import os
import stat
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.image import check_output, fit, load, save

H, W = 24, 33


def noise(*channels: int, bits: int = 8) -> np.ndarray:
    """Return integers over the whole range, `[H, W, *channels]`."""
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(0).integers(0, 2**bits, (H, W, *channels), dtype)


def smooth(height: int = H, width: int = W) -> np.ndarray:
    """Return a picture that JPEG keeps well, uint8 `[height, width, 3]`."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.rint(255 * np.stack([x, y, 1 - x], -1)).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, container: str, **options) -> bytes:
    buffer = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, container, **options)
    return buffer.getvalue()


def png_16_bit(pixels: np.ndarray, chunks: dict[bytes, bytes] | None = None) -> bytes:
    """Write a PNG by hand: IHDR, `chunks`, the unfiltered rows."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    everything = {b"IHDR": header, **(chunks or {}), b"IDAT": zlib.compress(rows), b"IEND": b""}
    packed = (
        struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
        for kind, payload in everything.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff_16_bit(pixels: np.ndarray, tags: dict[int, int | bytes] | None = None, *, planar: bool = False) -> bytes:
    """Write an uncompressed TIFF by hand: pixels, then the directory with `tags`."""
    height, width, channels = pixels.shape
    body = (np.moveaxis(pixels, -1, 0) if planar else pixels).astype("<u2").tobytes()
    strips = channels if planar else 1
    size = len(body) // strips
    entries: dict[int, tuple[str, list[int]] | bytes] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [16] * channels),
        259: ("H", [1]),
        262: ("H", [2]),
        273: ("I", [8 + i * size for i in range(strips)]),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [size] * strips),
        284: ("H", [2 if planar else 1]),
    }
    for tag, value in (tags or {}).items():
        entries[tag] = value if isinstance(value, bytes) else ("H", [value])
    directory, extra = struct.pack("<H", len(entries)), b""
    extra_at = 8 + len(body) + 2 + 12 * len(entries) + 4
    for tag, entry in sorted(entries.items()):
        kind, data = (7, entry) if isinstance(entry, bytes) else ({"H": 3, "I": 4}[entry[0]], b"")
        if not isinstance(entry, bytes):
            data = struct.pack(f"<{len(entry[1])}{entry[0]}", *entry[1])
        count = len(entry) if isinstance(entry, bytes) else len(entry[1])
        inline = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", extra_at + len(extra))
        directory += struct.pack("<HHI", tag, kind, count) + inline
        extra += data + b"\0" * (len(data) % 2) if len(data) > 4 else b""
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + b"\0" * 4 + extra


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED_AND_GREEN_SWAPPED = SRGB.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")


def black_only_cmyk_profile() -> bytes:
    """Return a CMYK profile under which cyan, magenta and yellow print nothing and black is lightness."""
    lightness = [255 * (1 - node % 2) for node in range(16)]  # the black channel varies fastest
    table = b"".join(bytes([value, 128, 128]) for value in lightness)  # Lab, 8 bit
    identity = np.eye(3, dtype=int).ravel() * 65536
    curves = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *identity) + 4 * curves + table + 3 * curves
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"none\0".ljust(8, b"\0")
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"cmyk\0" + bytes(4 + 4 + 2 + 1 + 67 + 3)
    directory, body = b"", b""
    for kind, data in {b"A2B0": lut, b"wtpt": white, b"cprt": text, b"desc": name}.items():
        padded = data + bytes(-len(data) % 4)
        directory += kind + struct.pack(">II", 128 + 4 + 4 * 12 + len(body), len(data))
        body += padded
    size = 128 + 4 + len(directory) + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"none", 0x02100000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 4) + directory + body


# sizes


@pytest.mark.parametrize(
    ("width", "height", "size", "rounding", "expected"),
    [
        (979, 734, 256, "truncate", (256, 191)),
        (979, 734, 256, "round", (256, 192)),
        (734, 979, 256, "truncate", (191, 256)),
        (100, 50, 400, "round", (400, 200)),
        (1000, 1, 64, "round", (64, 1)),
        (512, 49, 64, "truncate", (64, 6)),
        (49, 49, 64, "truncate", (63, 63)),  # as neural-style-pt has it: 64 / 49 * 49 = 63.99999999999999
    ],
)
def test_fit_gives_the_longest_side_and_keeps_the_shape(width, height, size, rounding, expected):
    assert fit(width, height, size, rounding=rounding) == expected


def test_rounding_always_reaches_the_size():
    assert all(max(fit(long, long // 2, size)) == size for size in (64, 255, 512) for long in range(16, 2000, 7))


@pytest.mark.parametrize("size", [0, -5])
def test_a_size_below_one_is_refused(size, tmp_path):
    save(tmp_path / "a.png", smooth() / 255)
    for action in (lambda: fit(20, 20, size), lambda: load(tmp_path / "a.png", size=size)):
        with pytest.raises(InputError, match=f"size of {size} pixels is below 1: give .* such as 512"):
            action()


def test_unknown_options_are_refused(tmp_path):
    save(tmp_path / "a.png", smooth() / 255)
    with pytest.raises(InputError, match="Resample 'cubic' is unknown: use 'lanczos' or 'bilinear'"):
        load(tmp_path / "a.png", resample="cubic")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="Rounding 'up' is unknown: use 'round' or 'truncate'"):
        load(tmp_path / "a.png", size=20, rounding="up")  # pyright: ignore[reportArgumentType]


def test_an_8_bit_picture_is_resized_as_neural_style_pt_does(tmp_path):
    source = Image.fromarray(np.random.default_rng(1).integers(0, 256, (734, 979, 3), np.uint8))
    source.save(tmp_path / "a.png")
    expected = np.asarray(source.resize((256, 191), Image.Resampling.BILINEAR))
    rgb = load(tmp_path / "a.png", size=256, resample="bilinear", rounding="truncate").rgb
    np.testing.assert_array_equal(rgb, expected.astype(np.float32) / 255)


@pytest.mark.parametrize("size", [25, 60])
def test_alpha_and_colour_are_resized_alike(size, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(noise(4), "PNG"))
    rgb, alpha = load(tmp_path / "a.png", size=size)
    assert alpha is not None
    assert rgb.shape[:2] == alpha.shape == fit(W, H, size)[::-1]
    assert rgb.dtype == alpha.dtype == np.float32


@pytest.mark.parametrize("resample", ["lanczos", "bilinear"])
def test_a_16_bit_picture_is_resized_at_full_precision_and_stays_in_range(resample, tmp_path):
    pixels = noise(3, bits=16)
    pixels[:, : W // 2], pixels[:, W // 2 :] = (
        pixels[:, : W // 2] // 400,
        65535,
    )  # an edge, and less than a level of 8 bits
    (tmp_path / "a.png").write_bytes(png_16_bit(pixels))
    rgb = load(tmp_path / "a.png", size=60, resample=resample).rgb
    unit = pixels.astype(np.float32) / 65535
    filters = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR}
    planes = [Image.fromarray(unit[..., c]).resize((60, 44), filters[resample]) for c in range(3)]
    expected = np.clip(np.stack([np.asarray(plane) for plane in planes], -1), 0, 1)
    np.testing.assert_allclose(rgb, expected, atol=1e-6)
    assert 0 <= rgb.min() and rgb.max() <= 1


# what files say: kind of pixel, transparency, orientation, profile


@pytest.mark.parametrize("container", ["PNG", "TIFF", "WEBP", "BMP"])
def test_every_value_of_8_bits_is_read_exactly(container, tmp_path):
    options = {"lossless": True} if container == "WEBP" else {}
    (tmp_path / "a").write_bytes(encoded(noise(3), container, **options))
    rgb, alpha = load(tmp_path / "a")
    np.testing.assert_array_equal(rgb, noise(3).astype(np.float32) / 255)
    assert alpha is None and rgb.dtype == np.float32


@pytest.mark.parametrize(
    ("mode", "container"), [("L", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("1", "TIFF"), ("CMYK", "TIFF")]
)
def test_other_kinds_of_8_bit_picture_become_rgb(mode, container, tmp_path):
    image = Image.fromarray(smooth()).convert(mode)
    (tmp_path / "a").write_bytes(encoded(image, container))
    rgb, alpha = load(tmp_path / "a")
    np.testing.assert_allclose(
        rgb, np.asarray(image.convert("RGB")) / 255, atol=3 / 255 if container == "JPEG" else 1e-7
    )
    assert alpha is None


def test_cmyk_without_a_profile_is_the_complement_less_black(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("CMYK", (W, H), (255, 0, 0, 51)), "JPEG", quality=100))
    np.testing.assert_allclose(load(tmp_path / "a.jpg").rgb[0, 0], [0, 0.8, 0.8], atol=0.01)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("container", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_kept_aside_and_colour_under_it_survives(mode, container, tmp_path):
    image = Image.fromarray(noise(4)).convert(mode)
    options = {"lossless": True, "exact": True} if container == "WEBP" else {}
    (tmp_path / "a").write_bytes(encoded(image.convert("RGBA") if options else image, container, **options))
    rgb, alpha = load(tmp_path / "a")
    expected = np.asarray(image.convert("RGBA")).astype(np.float32) / 255
    np.testing.assert_array_equal(rgb, expected[..., :3])
    assert alpha is not None
    np.testing.assert_array_equal(alpha, expected[..., 3])


def test_transparency_of_a_palette_becomes_alpha(tmp_path):
    indices = noise() % 3
    image = Image.fromarray(indices).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    (tmp_path / "a.png").write_bytes(encoded(image, "PNG", transparency=bytes([0, 51, 255])))
    rgb, alpha = load(tmp_path / "a.png")
    np.testing.assert_array_equal(rgb, np.eye(3, dtype=np.float32)[indices])
    assert alpha is not None
    np.testing.assert_allclose(alpha, np.array([0, 0.2, 1])[indices], atol=1e-7)


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror as a camera would that notes `orientation`."""
    return {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: np.swapaxes(upright, 0, 1),
        6: np.rot90(upright),
        7: np.rot90(np.swapaxes(upright, 0, 1), 2),
        8: np.rot90(upright, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "grey tiff 16", "png 16", "tiff 16"])
def test_exif_orientation_is_applied_for_all_eight_values(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep = kind.endswith("16")
    upright = noise(3, bits=16) if deep else smooth()
    pixels = stored(upright, orientation)
    if kind == "png 16":
        data = png_16_bit(pixels, {b"eXIf": exif.tobytes()[6:]})
    elif kind == "tiff 16":
        data = tiff_16_bit(pixels, {274: orientation})
    elif kind == "grey tiff 16":
        upright = np.repeat(upright[..., :1], 3, -1)
        data = encoded(np.ascontiguousarray(pixels[..., 0]), "TIFF", exif=exif)
    else:
        data = encoded(np.ascontiguousarray(pixels), kind, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    (tmp_path / "a").write_bytes(data)
    rgb = load(tmp_path / "a").rgb
    np.testing.assert_allclose(rgb, upright / (65535 if deep else 255), atol=0.06 if kind == "jpeg" else 1e-6)


@pytest.mark.parametrize("container", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_embedded_profile_is_converted_to_srgb(container, tmp_path):
    options = {"lossless": True} if container == "WEBP" else {"quality": 100} if container == "JPEG" else {}
    (tmp_path / "a").write_bytes(encoded(smooth(), container, icc_profile=RED_AND_GREEN_SWAPPED, **options))
    np.testing.assert_allclose(load(tmp_path / "a").rgb, smooth()[..., [1, 0, 2]] / 255, atol=0.03)


def test_an_embedded_profile_leaves_alpha_alone(tmp_path):
    pixels = np.dstack([smooth(), noise()])
    (tmp_path / "a.png").write_bytes(encoded(pixels, "PNG", icc_profile=RED_AND_GREEN_SWAPPED))
    rgb, alpha = load(tmp_path / "a.png")
    assert alpha is not None
    np.testing.assert_allclose(rgb, smooth()[..., [1, 0, 2]] / 255, atol=2 / 255)
    np.testing.assert_array_equal(alpha, noise().astype(np.float32) / 255)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_profile_is_applied_at_16_bits(kind, tmp_path):
    pixels = noise(3, bits=16)
    chunk = b"p\0\0" + zlib.compress(RED_AND_GREEN_SWAPPED)
    tagged = (
        png_16_bit(pixels, {b"iCCP": chunk}) if kind == "png" else tiff_16_bit(pixels, {34675: RED_AND_GREEN_SWAPPED})
    )
    (tmp_path / "a").write_bytes(tagged)
    np.testing.assert_allclose(load(tmp_path / "a").rgb, pixels[..., [1, 0, 2]] / 65535, atol=2e-3)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_profile_is_converted_to_srgb(bits, tmp_path):
    grey = noise(bits=bits)
    profile = imagecodecs.cms_profile("gray", gamma=1.8)
    (tmp_path / "a.png").write_bytes(encoded(grey, "PNG", icc_profile=profile))
    light = (grey / (2**bits - 1)) ** 1.8
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(
        load(tmp_path / "a.png").rgb, np.dstack([expected] * 3), atol=1e-3 if bits == 16 else 2 / 255
    )


def test_grey_with_a_colour_profile_stays_grey(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(noise(), "PNG", icc_profile=SRGB))
    np.testing.assert_allclose(load(tmp_path / "a.png").rgb, np.dstack([noise()] * 3) / 255, atol=1.1 / 255)


def test_cmyk_with_a_profile_is_converted_by_it(tmp_path):
    image = Image.merge("CMYK", [Image.fromarray(noise())] * 3 + [Image.new("L", (W, H), 0)])
    (tmp_path / "a.tif").write_bytes(encoded(image, "TIFF", icc_profile=black_only_cmyk_profile()))
    np.testing.assert_allclose(load(tmp_path / "a.tif").rgb, 1, atol=0.02)  # without it, noise


@pytest.mark.parametrize(
    "profile", [b"junk", SRGB[:300], black_only_cmyk_profile()], ids=["junk", "cut", "other space"]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_broken_profile_is_ignored(profile, bits, tmp_path):
    pixels = noise(3, bits=bits)
    chunk = {b"iCCP": b"p\0\0" + zlib.compress(profile)}
    data = png_16_bit(pixels, chunk) if bits == 16 else encoded(pixels, "PNG", icc_profile=profile)
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_allclose(load(tmp_path / "a.png").rgb, pixels / (2**bits - 1), atol=1e-7)


@pytest.mark.parametrize("container", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_never_clipped(container, tmp_path):
    grey = noise(bits=16)
    grey[0, :3] = [0, 300, 65535]
    (tmp_path / "a").write_bytes(encoded(grey, container))
    np.testing.assert_allclose(load(tmp_path / "a").rgb, np.dstack([grey] * 3) / 65535, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_greys_are_read_on_their_scale(dtype, tmp_path):
    grey = noise(bits=16)
    stored_as = grey.astype(np.int32) if dtype == np.int32 else (grey / 65535).astype(np.float32)
    (tmp_path / "a.tif").write_bytes(encoded(stored_as, "TIFF"))
    np.testing.assert_allclose(load(tmp_path / "a.tif").rgb, np.dstack([grey] * 3) / 65535, atol=1e-6)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_is_read_at_16_bits(channels, tmp_path):
    pixels = noise(channels, bits=16)
    colour = pixels[..., :1].repeat(3, -1) if channels == 2 else pixels[..., :3]
    (tmp_path / "a.png").write_bytes(png_16_bit(pixels))
    rgb, alpha = load(tmp_path / "a.png")
    np.testing.assert_allclose(rgb, colour / 65535, atol=1e-7)
    assert (alpha is None) == (channels == 3)
    if alpha is not None:
        np.testing.assert_allclose(alpha, pixels[..., -1] / 65535, atol=1e-7)


@pytest.mark.parametrize("planar", [False, True])
def test_a_16_bit_tiff_may_store_its_planes_apart(planar, tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_16_bit(noise(3, bits=16), planar=planar))
    np.testing.assert_allclose(load(tmp_path / "a.tif").rgb, noise(3, bits=16) / 65535, atol=1e-7)


def test_alpha_multiplied_into_a_16_bit_tiff_is_divided_out(tmp_path):
    pixels = np.full((H, W, 4), 65535 // 4, np.uint16)
    pixels[..., 3] = 65535 // 2
    (tmp_path / "a.tif").write_bytes(tiff_16_bit(pixels, {338: 1}))
    np.testing.assert_allclose(load(tmp_path / "a.tif").rgb, 0.5, atol=0.01)


@pytest.mark.parametrize("container", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(container, tmp_path):
    first, second = (Image.new("RGB", (W, H), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if container == "WEBP" else {}
    (tmp_path / "a").write_bytes(encoded(first, container, save_all=True, append_images=[second], **options))
    assert np.unique(load(tmp_path / "a").rgb.reshape(-1, 3), axis=0).tolist() == [[1, 0, 0]]


# what cannot be read

RGB_FILES = {kind: encoded(smooth(), kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF")}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", {}, r"is empty \(0 bytes\): name a file that holds a picture\.$"),
        (b"hello" * 9, {}, r"is not a picture of a kind that is read: convert it to PNG, JPEG, WebP or TIFF\.$"),
        (RGB_FILES["PNG"][:90], {}, r"is damaged or cut short \(.+\): get the file anew or export it again\.$"),
        (RGB_FILES["JPEG"][:-200], {}, r"is damaged or cut short \(.+\): get the file anew or export it again\.$"),
        (RGB_FILES["TIFF"][:-300], {}, r"is damaged or cut short \(.+\): get the file anew or export it again\.$"),
        (png_16_bit(noise(3, bits=16))[:-99], {}, r"is damaged or cut short \(.+\): get the file anew"),
        (
            encoded(smooth(9, 40), "PNG"),
            {},
            r"is 40x9 pixels, but both sides must be at least 16: pass a larger picture\.$",
        ),
        (encoded(smooth(40, 9), "PNG"), {"size": 512}, r"is 9x40 pixels, but both sides must be at least 16"),
        (
            encoded(smooth(20, 1000), "PNG"),
            {"size": 64},
            r"is 64x1 pixels at size 64, but both sides must be at least 16: raise the size or crop the picture\.$",
        ),
        (
            RGB_FILES["PNG"],
            {"size": 100_000},
            r"is 100000x72727 pixels at size 100000, over Pillow's limit of 89478485 in all: lower the size\.$",
        ),
        (
            encoded(np.full((H, W), np.nan, np.float32), "TIFF"),
            {},
            r"holds values from nan to nan, but its kind runs from 0 \(black\) to 1 \(white\): rescale it\.$",
        ),
        (encoded(np.full((H, W), 255, np.float32), "TIFF"), {}, r"holds values from 255 to 255, .* to 1 \(white\)"),
        (encoded(np.full((H, W), -7, np.int32), "TIFF"), {}, r"holds values from -7 to -7, .* to 65535 \(white\)"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_what_to_do(data, options, message, tmp_path):
    path = tmp_path / "content.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as info:
        load(path, **options)
    assert str(info.value).startswith(str(path)) and "\n" not in str(info.value)


@pytest.mark.parametrize("shape", [(30, 40), (100, 120)], ids=["over the limit", "over twice the limit"])
@pytest.mark.parametrize("container", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_a_picture_over_the_limit_of_pillow_is_refused_before_it_is_decoded(shape, container, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(encoded(smooth(*shape), container))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    if container == "WEBP" and shape[0] == 100:  # newer Pillows tell only the product
        expected = r"a is .*(12000|120x100) pixels.* limit of [12]000 .*: shrink it first\.$"
    else:
        allowed = r"shrink it first or allow it with --max-pixels 1MP\.$"
        expected = rf"a is {shape[1]}x{shape[0]} pixels, over Pillow's limit of 1000 in all: {allowed}"
    with pytest.raises(InputError, match=expected):
        load(tmp_path / "a")


def test_a_path_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"none\.jpg cannot be read \(No such file.*\): name a picture file"):
        load(tmp_path / "none.jpg")
    with pytest.raises(InputError, match=r"cannot be read \(.+\): name a picture file that you may read\.$"):
        load(tmp_path)

    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        InputError, match=r"a\.jpg cannot be read \(Permission denied\): name a picture file that you may"
    ):
        load(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", [*RGB_FILES, "PNG 16", "TIFF 16"])
def test_damage_never_raises_anything_but_an_input_error(kind, tmp_path):
    pixels = noise(3, bits=16)
    sound = {**RGB_FILES, "PNG 16": png_16_bit(pixels), "TIFF 16": tiff_16_bit(pixels)}[kind]
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(60):
        data = bytearray(sound[: rng.integers(1, len(sound))] if trial % 4 == 0 else sound)
        for _ in range(3):
            data[rng.integers(min(len(data), 200 if trial % 2 else len(data)))] = rng.integers(256)
        (tmp_path / "a").write_bytes(data)
        try:
            load(tmp_path / "a", size=32)
        except InputError:
            refused += 1
    assert refused > 10


# writing


def unit(bits: int, channels: int) -> np.ndarray:
    return (noise(channels, bits=bits) / (2**bits - 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "bits"),
    [(".png", 8), (".webp", 8), (".tif", 8), (".TIFF", 8), (".png", 16), (".tif", 16), (".TIFF", 16)],
)
@pytest.mark.parametrize("with_alpha", [False, True])
def test_what_is_saved_loads_again_exactly(suffix, bits, with_alpha, tmp_path):
    picture = unit(bits, 4)
    alpha = picture[..., 3] if with_alpha else None
    path = tmp_path / f"a{suffix}"
    save(path, picture[..., :3], alpha=alpha, bits=bits)
    again = load(path)
    np.testing.assert_array_equal(np.rint(again.rgb * (2**bits - 1)), noise(4, bits=bits)[..., :3])
    assert (again.alpha is None) == (alpha is None)
    if alpha is not None and again.alpha is not None:
        np.testing.assert_allclose(again.alpha, alpha, atol=1e-7)


def test_16_bits_are_really_in_the_file(tmp_path):
    save(tmp_path / "a.png", unit(16, 3), bits=16)
    save(tmp_path / "a.tif", unit(16, 3), bits=16)
    assert (tmp_path / "a.png").read_bytes()[24] == 16  # the header's bit depth
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[258] == (16, 16, 16)  # pyright: ignore[reportAttributeAccessIssue]


def test_jpeg_is_written_at_quality_95_without_chroma_subsampling(tmp_path):
    save(tmp_path / "a.jpg", smooth() / 255)
    Image.fromarray(smooth()).save(tmp_path / "reference.jpeg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image, Image.open(tmp_path / "reference.jpeg") as reference:
        assert isinstance(image, JpegImagePlugin.JpegImageFile) and isinstance(reference, JpegImagePlugin.JpegImageFile)
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
        assert image.quantization == reference.quantization
    np.testing.assert_allclose(load(tmp_path / "a.jpg").rgb, smooth() / 255, atol=0.02)


def test_a_jpeg_shows_transparency_on_white(tmp_path):
    alpha = np.zeros((32, 32))
    alpha[:16] = 0.5
    save(tmp_path / "a.jpg", np.zeros((32, 32, 3)), alpha=alpha)
    rgb = load(tmp_path / "a.jpg").rgb
    np.testing.assert_allclose(rgb[:16], 0.5, atol=0.01)
    np.testing.assert_allclose(rgb[16:], 1, atol=0.01)


@pytest.mark.parametrize("bits", [8, 16])
def test_values_are_clipped_and_rounded(bits, tmp_path):
    white = 2**bits - 1
    rgb = np.zeros((16, 16, 3))
    rgb[0, :6, 0] = [-0.5, 1.5, np.inf, 0.6 / white, 1.4 / white, 1 - 0.4 / white]
    save(tmp_path / "a.png", rgb, bits=bits)
    np.testing.assert_array_equal(
        np.rint(load(tmp_path / "a.png").rgb[0, :6, 0] * white), [0, white, white, 1, 1, white]
    )


def test_values_that_are_not_numbers_are_refused(tmp_path):
    rgb = np.zeros((16, 16, 3))
    rgb[0, :2] = np.nan
    with pytest.raises(InputError, match=r"a\.png would hold 6 values that are not numbers: lower the step size\.$"):
        save(tmp_path / "a.png", rgb)
    assert os.listdir(tmp_path) == []


def test_only_three_channels_are_a_picture(tmp_path):
    with pytest.raises(ValueError, match=r"\[H, W, 3\], not \(1, 16, 16, 3\)"):
        save(tmp_path / "a.png", np.zeros((1, 16, 16, 3)))


def test_a_picture_too_large_for_its_format_names_another(tmp_path):
    with pytest.raises(InputError, match=r"a\.webp cannot hold 16400x16 pixels as WEBP \(.+\): save it as PNG\.$"):
        save(tmp_path / "a.webp", np.zeros((16, 16400, 3)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("suffix", "bits"), [(".png", 8), (".jpg", 8), (".webp", 8), (".tif", 8), (".png", 16), (".tif", 16)]
)
def test_the_same_array_makes_the_same_bytes(suffix, bits, tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}{suffix}", unit(bits, 3), alpha=unit(bits, 3)[..., 0], bits=bits)
        os.utime(tmp_path / f"{name}{suffix}", (0, 0))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(tmp_path):
    resource = pytest.importorskip("resource")
    (tmp_path / "a.png").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(UnavailableError, match=r"a\.png cannot be written \(File too large\): free space or use"):
            save(tmp_path / "a.png", unit(8, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "a.png", unit(8, 3))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_saved_file_has_the_mode_of_any_new_file(umask, tmp_path):
    previous = os.umask(umask)
    try:
        save(tmp_path / "a.png", unit(8, 3))
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o666 & ~umask


def test_saving_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    save(tmp_path / "link.png", unit(8, 3))
    assert (tmp_path / "link.png").is_symlink()
    assert load(tmp_path / "real.png").rgb.shape == (H, W, 3)


# checks before the work


def test_a_good_output_passes_and_nothing_is_made(tmp_path):
    check_output(tmp_path / "out.tiff", bits=16, inputs=[tmp_path / "in.png"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "bits", "message"),
    [
        (
            "out.gif",
            8,
            r"suffix '\.gif', which is none of \.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff: use one of these",
        ),
        ("out", 8, r"suffix '', which is none of \.png"),
        ("out.jpg", 16, r"out\.jpg cannot hold 16 bits a channel as JPEG: use \.png or \.tiff, or 8 bits"),
        ("out.webp", 16, r"out\.webp cannot hold 16 bits a channel as WEBP: use \.png"),
        ("out.png", 12, r"out\.png cannot have 12 bits a channel: use 8 or 16"),
        ("none/out.png", 8, r"needs a folder .*none that exists and is writable: create it or use another"),
        ("folder.png", 8, r"folder\.png is a folder: name a file in it, such as .*folder\.png.out\.png"),
        (".", 8, r"is a folder: name a file in it"),
    ],
)
@pytest.mark.parametrize("action", [check_output, lambda path, bits: save(path, np.zeros((16, 16, 3)), bits=bits)])
def test_an_output_that_cannot_be_written_is_refused(action, name, bits, message, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=message):
        action(tmp_path / name, bits=bits)


def test_a_folder_that_is_not_writable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="needs a folder .* that exists and is writable"):
        check_output(tmp_path / "out.png")


@pytest.mark.parametrize("way", ["same", "relative", "symbolic link", "hard link", "folder link"])
def test_an_output_that_is_an_input_is_refused(way, tmp_path, monkeypatch):
    source = tmp_path / "in.png"
    source.write_bytes(b"precious")
    (tmp_path / "symbolic.png").symlink_to(source)
    (tmp_path / "hard.png").hardlink_to(source)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    output = {
        "same": source,
        "relative": Path("folder/../in.png"),
        "symbolic link": tmp_path / "symbolic.png",
        "hard link": tmp_path / "hard.png",
        "folder link": tmp_path / "again" / "in.png",
    }[way]
    with pytest.raises(InputError, match=r"is the same file as the input .*in\.png: name another output\.$"):
        check_output(output, inputs=["other.png", source])


def test_ordinary_pictures_need_neither_imagecodecs_nor_jax(tmp_path):
    save(tmp_path / "a.png", unit(8, 3))
    program = (
        "import sys; from jaxstyle.image import load, save; save('b.jpg', load('a.png').rgb); "
        "assert not {'imagecodecs', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_a_size_of_two_numbers_is_the_width_and_height_whatever_the_shape(tmp_path):
    (tmp_path / "in.png").write_bytes(encoded(smooth(), "PNG"))
    assert load(tmp_path / "in.png", size=(20, 40)).rgb.shape == (40, 20, 3)

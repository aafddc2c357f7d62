import os
import stat
import struct
import subprocess
import sys
import zlib
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.images.load import Picture, PictureWarning, Rounding, fit, load_image
from jaxstyle.images.save import check_output, save_image

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


@pytest.fixture
def decoded(tmp_path):
    """Return a function that writes bytes to a file and loads it."""

    def decode(data: bytes, **options) -> Picture:
        (tmp_path / "a").write_bytes(data)
        return load_image(tmp_path / "a", **options)

    return decode


# sizes


def test_fit_scales_the_longest_side_to_the_size_and_preserves_the_aspect_ratio():
    table: list[tuple[int, int, int, Rounding, tuple[int, int]]] = [
        (979, 734, 256, "truncate", (256, 191)),
        (979, 734, 256, "round", (256, 192)),
        (734, 979, 256, "truncate", (191, 256)),
        (100, 50, 400, "round", (400, 200)),
        (1000, 1, 64, "round", (64, 1)),
        (512, 49, 64, "truncate", (64, 6)),
        (49, 49, 64, "truncate", (63, 63)),  # neural-style-pt has this too: 64 / 49 * 49 = 63.99999999999999
    ]
    for width, height, size, rounding, expected in table:
        assert fit(width, height, size, rounding=rounding) == expected
    assert all(max(fit(long, long // 2, size)) == size for size in (64, 255, 512) for long in range(16, 2000, 7))


def test_sizes_below_one_and_unknown_options_are_refused(tmp_path):
    save_image(tmp_path / "a.png", smooth() / 255)
    for options, value in [
        ({"size": 0}, "size is 0"),
        ({"size": -5}, "size is -5"),
        ({"resample": "cubic"}, "'cubic'"),
        ({"size": 20, "rounding": "up"}, "'up'"),
    ]:
        with pytest.raises(InputError, match=value):
            load_image(tmp_path / "a.png", **options)
    with pytest.raises(InputError, match="size is 0"):
        fit(20, 20, 0)


def test_an_8_bit_picture_is_resized_like_in_neural_style_pt(decoded):
    source = Image.fromarray(np.random.default_rng(1).integers(0, 256, (120, 164, 3), np.uint8))
    expected = np.asarray(source.resize((64, 46), Image.Resampling.BILINEAR))
    rgb = decoded(encoded(source, "PNG"), size=64, resample="bilinear", rounding="truncate").rgb
    np.testing.assert_array_equal(rgb, expected.astype(np.float32) / 255)


def test_colour_and_alpha_are_resized_to_the_requested_size(decoded):
    image = Image.fromarray(noise(4))
    for size, (width, height) in [(25, (25, 18)), (60, (60, 44)), ((20, 40), (20, 40)), (None, (W, H))]:
        rgb, alpha = decoded(encoded(image, "PNG"), size=size)
        planes = [np.asarray(image.getchannel(c).resize((width, height), Image.Resampling.LANCZOS)) for c in range(4)]
        np.testing.assert_array_equal(rgb, np.stack(planes[:3], -1).astype(np.float32) / 255)
        np.testing.assert_array_equal(alpha, planes[3].astype(np.float32) / 255)
        assert alpha is not None and rgb.dtype == alpha.dtype == np.float32


def test_a_16_bit_picture_is_resized_at_full_precision_and_stays_in_range(decoded):
    pixels = noise(3, bits=16)
    pixels[:, : W // 2] //= 400  # less than a level of 8 bits
    pixels[:, W // 2 :] = 65535  # an edge, at which Lanczos overshoots
    unit = pixels.astype(np.float32) / 65535
    for name, resample in {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR}.items():
        rgb = decoded(png_16_bit(pixels), size=60, resample=name).rgb
        planes = [Image.fromarray(unit[..., c]).resize((60, 44), resample) for c in range(3)]
        expected = np.clip(np.stack([np.asarray(plane) for plane in planes], -1), 0, 1)
        np.testing.assert_allclose(rgb, expected, atol=1e-6)
        assert 0 <= rgb.min() and rgb.max() <= 1


# pixel formats


def test_lossless_8_bit_formats_are_read_exactly(decoded):
    for container, options in [("PNG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True})]:
        rgb, alpha = decoded(encoded(noise(3), container, **options))
        np.testing.assert_array_equal(rgb, noise(3).astype(np.float32) / 255, container)
        assert alpha is None and rgb.dtype == np.float32


def test_grey_palette_bilevel_and_cmyk_pictures_become_rgb(decoded):
    for mode, container in [("L", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("1", "TIFF"), ("CMYK", "TIFF")]:
        image = Image.fromarray(smooth()).convert(mode)
        rgb, alpha = decoded(encoded(image, container))
        close = 3 / 255 if container == "JPEG" else 1e-7
        np.testing.assert_allclose(
            rgb, np.asarray(image.convert("RGB")) / 255, atol=close, err_msg=f"{mode} {container}"
        )
        assert alpha is None


def test_cmyk_without_a_profile_is_the_complement_less_black(decoded):
    data = encoded(Image.new("CMYK", (W, H), (255, 0, 0, 51)), "JPEG", quality=100)
    np.testing.assert_allclose(decoded(data).rgb[0, 0], [0, 0.8, 0.8], atol=0.01)


def test_alpha_is_separated_from_colour_which_is_not_premultiplied(decoded):
    for mode in ("RGBA", "LA"):
        image = Image.fromarray(noise(4)).convert(mode)
        expected = np.asarray(image.convert("RGBA")).astype(np.float32) / 255
        for container in ("PNG", "TIFF", "WEBP"):
            options = {"lossless": True, "exact": True} if container == "WEBP" else {}
            rgb, alpha = decoded(encoded(image.convert("RGBA") if options else image, container, **options))
            np.testing.assert_array_equal(rgb, expected[..., :3], f"{mode} {container}")
            assert alpha is not None
            np.testing.assert_array_equal(alpha, expected[..., 3], f"{mode} {container}")


def test_transparency_of_a_palette_becomes_alpha(decoded):
    indices = noise() % 3
    image = Image.fromarray(indices).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    rgb, alpha = decoded(encoded(image, "PNG", transparency=bytes([0, 51, 255])))
    np.testing.assert_array_equal(rgb, np.eye(3, dtype=np.float32)[indices])
    assert alpha is not None
    np.testing.assert_allclose(alpha, np.array([0, 0.2, 1])[indices], atol=1e-7)


def test_16_bit_grey_is_scaled_and_not_clipped(decoded):
    grey = noise(bits=16)
    grey[0, :3] = [0, 300, 65535]
    for container in ("PNG", "TIFF", "PPM"):
        rgb = decoded(encoded(grey, container)).rgb
        np.testing.assert_allclose(rgb, np.dstack([grey] * 3) / 65535, atol=1e-7, err_msg=container)


def test_32_bit_greys_range_to_65535_as_integers_and_to_1_as_floats(decoded):
    grey = noise(bits=16)
    for pixels in (grey.astype(np.int32), (grey / 65535).astype(np.float32)):
        np.testing.assert_allclose(decoded(encoded(pixels, "TIFF")).rgb, np.dstack([grey] * 3) / 65535, atol=1e-6)


def test_16_bit_colour_is_read_at_16_bits(decoded):
    for channels in (2, 3, 4):
        pixels = noise(channels, bits=16)
        colour = pixels[..., :1].repeat(3, -1) if channels == 2 else pixels[..., :3]
        rgb, alpha = decoded(png_16_bit(pixels))
        np.testing.assert_allclose(rgb, colour / 65535, atol=1e-7)
        assert (alpha is None) == (channels == 3)
        if alpha is not None:
            np.testing.assert_allclose(alpha, pixels[..., -1] / 65535, atol=1e-7)
    for planar in (False, True):
        rgb = decoded(tiff_16_bit(noise(3, bits=16), planar=planar)).rgb
        np.testing.assert_allclose(rgb, noise(3, bits=16) / 65535, atol=1e-7)


def test_colour_of_a_16_bit_tiff_is_divided_by_premultiplied_alpha(decoded):
    pixels = np.full((H, W, 4), 65535 // 4, np.uint16)
    pixels[..., 3] = 65535 // 2
    np.testing.assert_allclose(decoded(tiff_16_bit(pixels, {338: 1})).rgb, 0.5, atol=0.01)


def test_the_first_frame_of_an_animation_is_read_with_a_warning(decoded):
    first, second = (Image.new("RGB", (W, H), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    for container in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if container == "WEBP" else {}
        with pytest.warns(PictureWarning, match="a (is an animation|has several pages): only (its|the) first "):
            rgb = decoded(encoded(first, container, save_all=True, append_images=[second], **options)).rgb
        assert np.unique(rgb.reshape(-1, 3), axis=0).tolist() == [[1, 0, 0]], container


# orientation and profiles


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror like a camera that writes `orientation`."""
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


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "grey tiff 16", "png 16", "tiff 16"])
def test_all_eight_exif_orientations_are_applied(kind, decoded):
    deep = kind.endswith("16")
    upright = noise(3, bits=16) if deep else smooth()
    if kind == "grey tiff 16":
        upright = np.repeat(upright[..., :1], 3, -1)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = np.ascontiguousarray(stored(upright, orientation))
        if kind == "png 16":
            data = png_16_bit(pixels, {b"eXIf": exif.tobytes()[6:]})
        elif kind == "tiff 16":
            data = tiff_16_bit(pixels, {274: orientation})
        elif kind == "grey tiff 16":
            data = encoded(np.ascontiguousarray(pixels[..., 0]), "TIFF", exif=exif)
        else:
            data = encoded(pixels, kind, exif=exif, **({"lossless": True} if kind == "webp" else {}))
        close, expected = 0.06 if kind == "jpeg" else 1e-6, upright / (65535 if deep else 255)
        np.testing.assert_allclose(decoded(data).rgb, expected, atol=close, err_msg=f"orientation {orientation}")


def test_an_embedded_profile_is_converted_to_srgb(decoded):
    for container, options in [("PNG", {}), ("JPEG", {"quality": 100}), ("WEBP", {"lossless": True}), ("TIFF", {})]:
        rgb = decoded(encoded(smooth(), container, icc_profile=RED_AND_GREEN_SWAPPED, **options)).rgb
        np.testing.assert_allclose(rgb, smooth()[..., [1, 0, 2]] / 255, atol=0.03, err_msg=container)


def test_an_embedded_profile_does_not_change_alpha(decoded):
    rgb, alpha = decoded(encoded(np.dstack([smooth(), noise()]), "PNG", icc_profile=RED_AND_GREEN_SWAPPED))
    assert alpha is not None
    np.testing.assert_allclose(rgb, smooth()[..., [1, 0, 2]] / 255, atol=2 / 255)
    np.testing.assert_array_equal(alpha, noise().astype(np.float32) / 255)


def test_a_profile_is_applied_at_16_bits(decoded):
    pixels = noise(3, bits=16)
    chunk = b"p\0\0" + zlib.compress(RED_AND_GREEN_SWAPPED)
    for data in (png_16_bit(pixels, {b"iCCP": chunk}), tiff_16_bit(pixels, {34675: RED_AND_GREEN_SWAPPED})):
        np.testing.assert_allclose(decoded(data).rgb, pixels[..., [1, 0, 2]] / 65535, atol=2e-3)


def test_a_grey_profile_is_converted_to_srgb(decoded):
    profile = imagecodecs.cms_profile("gray", gamma=1.8)
    for bits, close in ((8, 2 / 255), (16, 1e-3)):
        grey = noise(bits=bits)
        light = (grey / (2**bits - 1)) ** 1.8
        expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        rgb = decoded(encoded(grey, "PNG", icc_profile=profile)).rgb
        np.testing.assert_allclose(rgb, np.dstack([expected] * 3), atol=close)


def test_a_grey_picture_with_a_colour_profile_stays_grey(decoded):
    rgb = decoded(encoded(noise(), "PNG", icc_profile=SRGB)).rgb
    np.testing.assert_allclose(rgb, np.dstack([noise()] * 3) / 255, atol=1.1 / 255)


def test_cmyk_with_a_profile_is_converted_by_it(decoded):
    image = Image.merge("CMYK", [Image.fromarray(noise())] * 3 + [Image.new("L", (W, H), 0)])
    rgb = decoded(encoded(image, "TIFF", icc_profile=black_only_cmyk_profile())).rgb
    np.testing.assert_allclose(rgb, 1, atol=0.02)  # without the profile, noise


def test_a_broken_profile_is_ignored(decoded):
    for profile in (b"junk", SRGB[:300], black_only_cmyk_profile()):
        for bits in (8, 16):
            pixels = noise(3, bits=bits)
            chunk = {b"iCCP": b"p\0\0" + zlib.compress(profile)}
            data = png_16_bit(pixels, chunk) if bits == 16 else encoded(pixels, "PNG", icc_profile=profile)
            np.testing.assert_allclose(decoded(data).rgb, pixels / (2**bits - 1), atol=1e-7)


# errors of reading

RGB_FILES = {kind: encoded(smooth(), kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF")}


def test_an_unusable_file_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "content.png"
    for data, options, expected in [
        (b"", {}, r"is empty \(0 bytes\)"),
        (b"hello" * 9, {}, "is not a picture"),
        (RGB_FILES["PNG"][:90], {}, r"is damaged or cut short \(.+\)"),
        (RGB_FILES["JPEG"][:-200], {}, r"is damaged or cut short \(.+\)"),
        (RGB_FILES["TIFF"][:-300], {}, r"is damaged or cut short \(.+\)"),
        (png_16_bit(noise(3, bits=16))[:-99], {}, r"is damaged or cut short \(.+\)"),
        (encoded(smooth(15, 40), "PNG"), {}, "is 40x15 pixels, .* at least 16: pass a larger"),
        (encoded(smooth(40, 9), "PNG"), {"size": 512}, "is 9x40 pixels, .* at least 16"),
        (encoded(smooth(20, 1000), "PNG"), {"size": 64}, "is 64x1 pixels at size 64, .* at least 16: raise the size"),
        (RGB_FILES["PNG"], {"size": 100_000}, "is 100000x72727 pixels at size 100000, .* 89478485 .*: lower the size"),
        (encoded(np.full((H, W), np.nan, np.float32), "TIFF"), {}, r"from nan to nan.* 1 \(white\)"),
        (encoded(np.full((H, W), 255, np.float32), "TIFF"), {}, r"from 255 to 255.* 1 \(white\)"),
        (encoded(np.full((H, W), -7, np.int32), "TIFF"), {}, r"from -7 to -7.* 65535 \(white\)"),
    ]:
        path.write_bytes(data)
        with pytest.raises(InputError, match=expected) as caught:
            load_image(path, **options)
        message = str(caught.value)
        assert message.startswith(str(path)) and message.isprintable() and message.endswith(".")


def test_sides_of_16_pixels_are_the_smallest_allowed(decoded):
    assert decoded(encoded(smooth(16, 16), "PNG")).rgb.shape == (16, 16, 3)


def test_a_picture_over_pillows_limit_is_refused_before_it_is_decoded(decoded, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for container in ("PNG", "JPEG", "WEBP", "TIFF", "GIF"):
        for height, width in ((30, 40), (100, 120)):  # over the limit, and over twice the limit
            expected = f"a is {width}x{height} pixels.* 1000 .*--max-pixels 1MP"
            if container == "WEBP" and height == 100:  # newer Pillows give the product only
                expected = "a is .*(12000|120x100) pixels.* limit of [12]000 "
            with pytest.raises(InputError, match=expected):
                decoded(encoded(smooth(height, width), container))


def test_a_path_that_cannot_be_read_is_refused_with_the_reason(tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg cannot be read \(No such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match=r"cannot be read \(.+\)"):
        load_image(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read \(.*null"):
        load_image("a\0.png")


def test_a_damaged_file_raises_only_input_errors(decoded):
    pixels, rng = noise(3, bits=16), np.random.default_rng(0)
    for kind, sound in {**RGB_FILES, "PNG 16": png_16_bit(pixels), "TIFF 16": tiff_16_bit(pixels)}.items():
        refused = 0
        for trial in range(12):
            data = bytearray(sound[: rng.integers(1, len(sound))] if trial % 4 == 0 else sound)
            for _ in range(3):
                data[rng.integers(min(len(data), 200 if trial % 2 else len(data)))] = rng.integers(256)
            try:
                decoded(data, size=32)
            except InputError:
                refused += 1
        assert refused > 1, kind


# writing

FORMATS = [(".png", 8), (".webp", 8), (".tif", 8), (".TIFF", 8), (".png", 16), (".tif", 16), (".TIFF", 16)]


def unit(bits: int, channels: int) -> np.ndarray:
    return (noise(channels, bits=bits) / (2**bits - 1)).astype(np.float32)


def test_a_saved_picture_is_loaded_exactly(tmp_path):
    for suffix, bits in FORMATS:
        picture, path = unit(bits, 4), tmp_path / f"a{suffix}"
        for alpha in (None, picture[..., 3]):
            save_image(path, picture[..., :3], alpha=alpha, bits=bits)
            rgb, opacity = load_image(path)
            levels = np.rint(rgb * (2**bits - 1))
            np.testing.assert_array_equal(levels, noise(4, bits=bits)[..., :3], f"{suffix} of {bits} bits")
            assert (opacity is None) == (alpha is None)
            if alpha is not None and opacity is not None:
                np.testing.assert_allclose(opacity, alpha, atol=1e-7)


def test_the_same_array_gives_the_same_bytes(tmp_path):
    for suffix, bits in [*FORMATS, (".jpg", 8)]:
        path, files = tmp_path / f"a{suffix}", []
        for _ in range(2):
            save_image(path, unit(bits, 3), alpha=unit(bits, 3)[..., 0], bits=bits)
            files.append(path.read_bytes())
        assert files[0] == files[1], suffix


def test_16_bit_files_have_a_bit_depth_of_16(tmp_path):
    save_image(tmp_path / "a.png", unit(16, 3), bits=16)
    save_image(tmp_path / "a.tif", unit(16, 3), bits=16)
    assert (tmp_path / "a.png").read_bytes()[24] == 16  # the header's bit depth
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[258] == (16, 16, 16)  # pyright: ignore[reportAttributeAccessIssue]


def test_jpeg_is_written_at_quality_95_without_chroma_subsampling(tmp_path):
    save_image(tmp_path / "a.jpg", smooth() / 255)
    Image.fromarray(smooth()).save(tmp_path / "reference.jpeg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image, Image.open(tmp_path / "reference.jpeg") as reference:
        assert isinstance(image, JpegImagePlugin.JpegImageFile) and isinstance(reference, JpegImagePlugin.JpegImageFile)
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
        assert image.quantization == reference.quantization
    np.testing.assert_allclose(load_image(tmp_path / "a.jpg").rgb, smooth() / 255, atol=0.02)


def test_a_jpeg_is_composed_over_white(tmp_path):
    alpha = np.zeros((32, 32))
    alpha[:16] = 0.5
    save_image(tmp_path / "a.jpg", np.zeros((32, 32, 3)), alpha=alpha)
    rgb = load_image(tmp_path / "a.jpg").rgb
    np.testing.assert_allclose(rgb[:16], 0.5, atol=0.01)
    np.testing.assert_allclose(rgb[16:], 1, atol=0.01)


def test_values_are_clipped_and_rounded(tmp_path):
    for bits in (8, 16):
        white = 2**bits - 1
        rgb = np.zeros((16, 16, 3))
        rgb[0, :6, 0] = [-0.5, 1.5, np.inf, 0.6 / white, 1.4 / white, 1 - 0.4 / white]
        save_image(tmp_path / "a.png", rgb, alpha=rgb[..., 0], bits=bits)
        actual = load_image(tmp_path / "a.png")
        for plane in (actual.rgb[..., 0], actual.alpha):
            assert plane is not None
            np.testing.assert_array_equal(np.rint(plane[0, :6] * white), [0, white, white, 1, 1, white])


def test_arrays_that_are_no_picture_are_refused(tmp_path):
    rgb = np.zeros((16, 16, 3))
    rgb[0, :2] = np.nan
    with pytest.raises(InputError, match=r"a\.png would hold 6 values that are not numbers"):
        save_image(tmp_path / "a.png", rgb)
    for other in (np.zeros((1, 16, 16, 3)), np.zeros((16, 16, 4)), np.zeros((16, 16, 3), np.uint8), "b.png"):
        with pytest.raises(InputError, match=r"a\.png would hold an array .*, not a picture: pass float32 \[H, W, 3\]"):
            save_image(tmp_path / "a.png", other)
    with pytest.raises(InputError, match=r"a\.webp cannot hold 16400x16 pixels as WEBP \(.+\): save it as PNG\.$"):
        save_image(tmp_path / "a.webp", np.zeros((16, 16400, 3)))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    resource = pytest.importorskip("resource")
    (tmp_path / "a.png").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(UnavailableError, match=r"a\.png cannot be written \(File too large\)"):
            save_image(tmp_path / "a.png", unit(8, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"


def test_an_interrupted_save_leaves_no_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_image(tmp_path / "a.png", unit(8, 3))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_the_mode_of_a_saved_file_follows_the_umask(tmp_path):
    for umask in (0o022, 0o077):
        previous = os.umask(umask)
        try:
            save_image(tmp_path / "a.png", unit(8, 3))
        finally:
            os.umask(previous)
        assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o666 & ~umask


def test_saving_to_a_symbolic_link_replaces_its_target(tmp_path):
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    save_image(tmp_path / "link.png", unit(8, 3))
    assert (tmp_path / "link.png").is_symlink()
    assert load_image(tmp_path / "real.png").rgb.shape == (H, W, 3)


# checks of output paths


def test_a_valid_output_path_passes_and_no_file_is_created(tmp_path):
    check_output(tmp_path / "out.tiff", bits=16, inputs=[tmp_path / "in.png"])
    assert os.listdir(tmp_path) == []


def test_an_output_path_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    for name, bits, expected in [
        ("out.gif", 8, r"suffix '\.gif', .*\.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff"),
        ("out", 8, r"suffix ''"),
        ("out.jpg", 16, r"out\.jpg cannot hold 16 bits per channel as JPEG"),
        ("out.webp", 16, r"out\.webp cannot hold 16 bits per channel as WEBP"),
        ("out.png", 12, r"out\.png cannot have 12 bits"),
        ("none/out.png", 8, r"needs a folder .*none"),
        ("folder.png", 8, r"folder\.png is a folder: .*folder\.png.out\.png"),
        (".", 8, r"is a folder"),
        ("n" * 300 + ".png", 8, r"cannot be written \(File name too long\)"),
    ]:
        for action in (check_output, lambda path, bits: save_image(path, np.zeros((16, 16, 3)), bits=bits)):
            with pytest.raises(InputError, match=expected):
                action(tmp_path / name, bits=bits)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="needs a folder .* that exists and is writable"):
        check_output(tmp_path / "out.png")


def test_an_output_that_is_an_input_is_refused(tmp_path, monkeypatch):
    source = tmp_path / "in.png"
    source.write_bytes(b"precious")
    (tmp_path / "symbolic.png").symlink_to(source)
    (tmp_path / "hard.png").hardlink_to(source)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    outputs = (source, "folder/../in.png", tmp_path / "symbolic.png", tmp_path / "hard.png", tmp_path / "again/in.png")
    for output in outputs:
        with pytest.raises(InputError, match=r"is the same file as the input .*in\.png"):
            check_output(output, inputs=["other.png", source])


def test_8_bit_pictures_import_neither_imagecodecs_nor_jax(tmp_path):
    save_image(tmp_path / "a.png", unit(8, 3))
    program = (
        "import sys; from jaxstyle import load_image, save_image; save_image('b.jpg', load_image('a.png').rgb); "
        "assert not {'imagecodecs', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)

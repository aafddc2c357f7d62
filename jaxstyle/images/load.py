"""Image files to arrays: upright, in sRGB, with separate alpha.

An array is float32 sRGB in [0, 1], `[H, W, 3]`. The color profile and the orientation of a file are applied when it is
read and are not written again, so the same array always gives the same bytes.

Pillow reads color with 8 bits per channel. imagecodecs reads 16-bit color; it is imported when needed, and only after
Pillow has checked the file.
"""

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from jaxstyle.errors import InputError, PictureWarning, UnavailableError, check_whole, excerpt, printable
from jaxstyle.images.exif import orientation_of, stored_box, turned, upright
from jaxstyle.images.formats import UnsupportedFormatError, has_more_images, is_webp, opened
from jaxstyle.images.image_rows import RowReader, read_all, read_resized, row_chunks
from jaxstyle.images.limits import check_packing, check_sides, read_bytes, too_small_a_memory
from jaxstyle.images.truncated import LEAST, completed, lacks_end, lacks_orientation, share_present

Resample = Literal["lanczos", "bilinear"]
Rounding = Literal["round", "truncate"]

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR}
WHITE = {"I;16": 65535, "I;16B": 65535, "I": 65535, "F": 1}  # by Pillow's mode; "I" is the mode of 16-bit PGM files
COLOR_16_BIT = ("RGB;16B", "RGBA;16B", "LA;16B")  # raw modes of Pillow's PNG reader that it reduces to 8 bits
BYTES_OF_FLOATS = 16  # per pixel of the result, with alpha
BYTES_DECODED = 8  # per pixel of the file, by Pillow and, if it has 16 bits, by imagecodecs
LIBTIFF_MEMORY = "decoder error -9"  # message of Pillow


class Picture(NamedTuple):
    """An image and its alpha, float32 in [0, 1]."""

    rgb: NDArray[np.float32]  # [H, W, 3], sRGB
    alpha: NDArray[np.float32] | None = None  # [H, W], 1 where opaque; None if the file has no alpha


def fit(width: int, height: int, size: int, *, rounding: Rounding = "round") -> tuple[int, int]:
    """Return the width and height of an image scaled to a longest side of `size`.

    Args:
        width: width in pixels.
        height: height in pixels.
        size: longest side of the result in pixels.
        rounding: "round", or "truncate" for `int(size / longest * side)`, as in neural-style-pt; in floating point
            that makes the longest side one pixel too short for about one image in nine.

    Raises:
        InputError: if `size` is below 1 or `rounding` is unknown.

    Example:
        >>> fit(979, 734, 256, rounding="truncate")
        (256, 191)
    """
    check_whole("size", size)
    if rounding not in ("round", "truncate"):
        raise InputError(f"Rounding {rounding!r} is unknown: use 'round' or 'truncate'.")
    to_integer = round if rounding == "round" else int
    scale = size / max(width, height)
    return max(1, to_integer(scale * width)), max(1, to_integer(scale * height))


def load_image(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    resample: Resample = "lanczos",
    rounding: Rounding = "round",
    max_pixels: int | None = None,
) -> Picture:
    """Read an image, upright and in sRGB.

    Only the first frame of an animation is read, with a `PictureWarning`. So is a truncated JPEG, PNG, WebP or TIFF of
    which at least 99 % is present. No state of Pillow or Python is changed; several threads may read files at once.

    Args:
        path: a PNG, JPEG, WebP, TIFF, GIF, BMP, PNM, AVIF or JPEG 2000 file, or HEIC with the extra heif.
        size: longest side of the result in pixels, smaller or larger than that of the image, or width and height,
            which may change the aspect ratio; None for the size of the image.
        resample: Pillow's antialiased "lanczos" or "bilinear"; 8-bit images are resized in 8 bits, as in
            neural-style-pt, others in floating point.
        rounding: rounding of the other side, see `fit`.
        max_pixels: maximum number of pixels of the file and the result; None for `PIL.Image.MAX_IMAGE_PIXELS`. A
            higher limit allows untrusted files to use more memory.

    Raises:
        InputError: if the file cannot be read or is not a valid image, or an option is out of range.
        UnavailableError: if the disk fails, or memory is too small.

    Example:
        >>> load_image("content.jpg", size=512).rgb.shape  # doctest: +SKIP
        (384, 512, 3)
    """
    if resample not in FILTERS:
        raise InputError(f"Resample {resample!r} is unknown: use 'lanczos' or 'bilinear'.")
    reader = decode(read_bytes(path, max_pixels=max_pixels), str(path), max_pixels=max_pixels)
    for note in reader.notes:
        warnings.warn(f"{printable(str(path))} {note}.", PictureWarning, stacklevel=2)
    if size is None:
        width, height = reader.width, reader.height
    else:
        width, height = size if isinstance(size, tuple) else fit(reader.width, reader.height, size, rounding=rounding)
        check_sides(str(path), width, height, size=max(width, height), max_pixels=max_pixels)
    try:
        return Picture(*(read_all(reader) if size is None else read_resized(reader, width, height, FILTERS[resample])))
    except MemoryError as error:
        cure = "lower the size to at most"
        raise too_small_a_memory(str(path), (width, height), bytes_per_pixel=BYTES_OF_FLOATS, cure=cure) from error


def size_of(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> tuple[int, int]:
    """Return the width and height of an image as read by `load_image` without `size`.

    Args:
        path: as for `load_image`.
        max_pixels: as for `load_image`.

    Raises:
        InputError: if the file cannot be read or is not a valid image.
    """
    reader = decode(read_bytes(path, max_pixels=max_pixels), str(path), max_pixels=max_pixels)
    return reader.width, reader.height


def decode(data: bytes, name: str, *, max_pixels: int | None = None) -> RowReader:
    """Decode an image file, for an animation its first frame, to be read upright and in sRGB in chunks of rows.

    They are of uint8 if the file has 8 bits per channel, else of float32.
    """
    with _errors_about(name):
        try:
            reader = _decode_sound_or_truncated(data, name, max_pixels=max_pixels)
        except MemoryError as error:
            raise too_small_a_memory(name) from error
    return reader._replace(read=_errors_about(name)(reader.read))


@contextmanager
def _errors_about(name: str) -> Iterator[None]:
    """Convert all exceptions in the context but those of memory to errors about the file."""
    try:
        yield
    except (InputError, UnavailableError, MemoryError):
        raise
    except UnsupportedFormatError as error:
        raise InputError(str(error)) from error
    except Exception as error:  # for damaged files Pillow raises almost anything, such as struct.error
        cure = "download the file or export it again"
        raise InputError(f"{name} is damaged or cut short ({excerpt(error)}): {cure}.") from error


def _decode_sound_or_truncated(data: bytes, name: str, *, max_pixels: int | None) -> RowReader:
    cause: Exception = EOFError("the end of the file is missing")
    if not lacks_end(data):
        try:
            return _decode_sound(data, name, max_pixels=max_pixels)
        except (InputError, UnavailableError, UnsupportedFormatError):
            raise
        except Exception as error:
            cause = error
    try:
        reader = _decode_truncated(data, name, max_pixels=max_pixels)
    except (InputError, UnavailableError, MemoryError):
        raise
    except Exception:  # of the completed file
        reader = None
    if reader is None:
        raise cause
    return reader


def _decode_truncated(data: bytes, name: str, *, max_pixels: int | None) -> RowReader | None:
    """Decode a file that lacks its end; None if too many rows are missing."""
    if not is_webp(data):  # a WebP is not opened without its end; the completed file is checked
        with opened(data, name, max_pixels=max_pixels) as image:
            _check(image, data, name, max_pixels=max_pixels)
    repaired = completed(data)
    if repaired is None:
        return None
    reader = _decode_sound(repaired.data, name, max_pixels=max_pixels)
    shares = [] if repaired.rows is None else [repaired.rows / reader.height]
    for other in repaired.others:
        with suppress(Exception):  # some ways to complete a lossless WebP are invalid
            shares.append(share_present(reader, _decode_sound(other, name, max_pixels=max_pixels)))
            if shares[-1] < LEAST:
                break
    share = min(shares, default=0.0)
    if share < LEAST:
        return None
    percent = math.floor(1000 * share) / 10
    lost = " without its orientation" if lacks_orientation(data) else ""
    note = f"lacks the end of the file, but {percent:g} % of the picture is present and is read{lost}"
    return reader._replace(notes=(*reader.notes, note))


def _check(image: Image.Image, data: bytes, name: str, *, max_pixels: int | None) -> bool:
    """Check the size of an opened file, and return whether it has 16 bits per channel."""
    check_sides(name, *image.size, max_pixels=max_pixels)
    deep = _is_deep(image)
    check_packing(name, image, data, deep=deep)
    return deep


def _decode_sound(data: bytes, name: str, *, max_pixels: int | None) -> RowReader:
    size = None
    try:
        with opened(data, name, max_pixels=max_pixels) as image:
            deep, size = _check(image, data, name, max_pixels=max_pixels), image.size
            more = has_more_images(data, image)
            reader = _deep(image, data, name) if deep else _shallow(image)
    except Exception as error:
        if isinstance(error, MemoryError) or "out of memory" in str(error).lower() or str(error) == LIBTIFF_MEMORY:
            raise too_small_a_memory(name, size, bytes_per_pixel=BYTES_DECODED, cure="shrink it to") from error
        raise
    return reader._replace(notes=(more,) if more else ())


def _load(image: Image.Image) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # else Pillow applies its limit, which is global
        image.im = Image.new(image.mode, (image.tag_v2[256], image.tag_v2[257]), None).im
    image.load()


def _cut(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Return a copy of a part of an image; unlike `crop`, it does not apply Pillow's limit, which is global."""
    left, top, right, bottom = box
    part = Image.new(image.mode, (right - left, bottom - top), None)
    part.paste(image, (-left, -top))
    part.info = image.info
    return part


def _shallow(image: Image.Image) -> RowReader:
    _load(image)
    orientation, has_alpha = orientation_of(image), image.has_transparency_data
    if image.mode in ("P", "PA"):  # their parts would lack the palette
        image = image.convert("RGBA" if has_alpha else "RGB")
    mode = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
    profile, transform = image.info.get("icc_profile"), None
    if profile:
        if mode == "L" and profile[16:20] == b"RGB ":  # the color space in the header
            mode = "RGB"
        with suppress(ImageCms.PyCMSError, OSError):  # with a broken profile, the values are read as sRGB
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")

    def read(top: int, end: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        part = _cut(image, stored_box(image.size, orientation, top, end))
        alpha = np.asarray(part.convert("RGBA").getchannel("A")) if has_alpha else None
        color = part if part.mode == mode else part.convert(mode)
        if transform is not None:
            with suppress(ImageCms.PyCMSError, OSError):
                color = ImageCms.applyTransform(color, transform) or color  # never None, which Pillow's types allow
        rgb = np.asarray(color if color.mode == "RGB" else color.convert("RGB"))
        return turned(rgb, orientation), None if alpha is None else turned(alpha, orientation)

    return RowReader(*upright(image.size, orientation), has_alpha, read)


def _is_deep(image: Image.Image) -> bool:
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("RGB", "RGBA"):
        bits, extra = image.tag_v2.get(258, ()), image.tag_v2.get(338, ())
        return set(bits) == {16} and 1 not in extra  # Pillow converts premultiplied alpha (1)
    png_modes = [tile.args for tile in getattr(image, "tile", ())] if image.format == "PNG" else []
    return image.mode in WHITE or any(mode in COLOR_16_BIT for mode in png_modes)


def _deep(image: Image.Image, data: bytes, name: str) -> RowReader:
    orientation = orientation_of(image)  # of the pixels that imagecodecs decodes
    tags = dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    _load(image)  # raises for a damaged file
    profile = image.info.get("icc_profile")
    if image.mode in WHITE:
        return _gray(image, WHITE[image.mode], profile, name)
    size = tuple(tags.get(tag, side) for tag, side in zip((256, 257), image.size, strict=True))  # not yet upright
    has_alpha = image.mode == "RGBA"
    image.close()  # frees its memory
    samples = turned(_samples(data, size, tags), orientation)

    def read(top: int, end: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        unit = np.divide(samples[top:end], np.float32(65535), dtype=np.float32, order="C")
        color = _to_srgb(unit[..., :3] if unit.shape[-1] >= 3 else unit[..., :1], profile)
        return color, unit[..., -1] if has_alpha else None

    return RowReader(samples.shape[1], samples.shape[0], has_alpha, read)


def _gray(image: Image.Image, white: int, profile: bytes | None, name: str) -> RowReader:
    orientation = orientation_of(image)
    width, height = upright(image.size, orientation)

    def gray(top: int, end: int) -> NDArray[np.float32]:
        return turned(np.asarray(_cut(image, stored_box(image.size, orientation, top, end)), np.float32), orientation)

    def read(top: int, end: int) -> tuple[NDArray[Any], None]:
        return _to_srgb((gray(top, end) / np.float32(white))[..., None], profile), None

    ranges = [(part.min(), part.max()) for part in (gray(top, end) for top, end in row_chunks(height, width))]
    low, high = (float(reduce(ends)) for reduce, ends in zip((np.min, np.max), zip(*ranges, strict=True), strict=True))
    if low >= 0 and high <= white:  # false for NaN
        return RowReader(width, height, False, read)
    limits = f"0 (black) to {white} (white)"
    raise InputError(f"{name} holds values from {low:g} to {high:g}, but its format has {limits}: rescale it.")


def _samples(data: bytes, size: tuple[int, int], tags: Mapping[int, Any]) -> NDArray[np.uint16]:
    """Return the 16-bit samples of a PNG, or of a TIFF with `tags`, `[H, W, channels]` as stored."""
    import imagecodecs

    width, height = size
    if not tags:
        pixels = imagecodecs.png_decode(data)
    else:  # an array of the size that Pillow checked: libtiff may interpret the same tags as a larger one
        count, planes = max(len(tags[258]), tags.get(277, 1)), tags.get(284) == 2
        shape = (count, height, width) if planes else (height, width, count)
        pixels = imagecodecs.tiff_decode(data, out=np.empty(shape, np.uint16))
        pixels = np.moveaxis(pixels, 0, -1) if planes else pixels
    if pixels.dtype != np.uint16 or pixels.shape[:2] != (height, width):
        raise ValueError(f"samples are {pixels.dtype} of shape {pixels.shape}")
    return pixels


def _to_srgb(color: NDArray[Any], profile: bytes | None) -> NDArray[Any]:
    """Convert `[H, W, 1]` or `[H, W, 3]` in [0, 1] to sRGB `[H, W, 3]`; unchanged if `profile` is broken."""
    rgb = np.repeat(color, 3, axis=-1) if color.shape[-1] == 1 else color
    if not profile:
        return rgb
    import imagecodecs

    gray = profile[16:20] == b"GRAY"
    with suppress(imagecodecs.CmsError, ValueError):
        source = np.ascontiguousarray(rgb[..., 0] if gray else rgb)  # float, since uint16 tables have errors of 19/255
        srgb, space = imagecodecs.cms_profile("srgb"), "gray" if gray else "rgb"
        converted = imagecodecs.cms_transform(source, profile, srgb, colorspace=space, outcolorspace="rgb")
        return np.clip(converted, 0, 1)
    return rgb

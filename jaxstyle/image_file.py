"""The bytes of a picture file to its pixels: upright, in sRGB, transparency aside.

Pillow reads colour at 8 bits a channel. 16-bit colour is read by imagecodecs, which is imported when the first such
picture comes along, and only after Pillow has found the file sound.
"""

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, TiffImagePlugin

from jaxstyle.errors import InputError, excerpt
from jaxstyle.image_limits import check_packing, check_sides, declared_size
from jaxstyle.image_opening import opened

ROWS = 256  # of a strip that is converted at once
WHITE = {"I;16": 65535, "I;16B": 65535, "I": 65535, "F": 1}  # by Pillow's mode; "I" is what 16-bit PGM files come as
COLOUR_16_BIT = ("RGB;16B", "RGBA;16B", "LA;16B")  # as Pillow's PNG reader calls what it is about to cut to 8 bits


def decode(data: bytes, name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the colour and the alpha of a picture, uint8 if it has 8 bits a channel and else float32 in [0, 1].

    Args:
        data: the whole file; of an animation the first frame counts.
        name: what error messages call it.

    Returns:
        Colour `[H, W, 3]` and alpha `[H, W]`, which is None if the file has none.

    Raises:
        InputError: if `data` is no picture, is damaged, too small or too large, or has values out of range.

    Example:
        >>> decode(open("content.jpg", "rb").read(), "content.jpg")[0].shape  # doctest: +SKIP
        (734, 979, 3)
    """
    try:
        with opened(data) as image:
            check_sides(name, *image.size)
            deep = _is_deep(image)
            check_packing(name, image, data, deep=deep)
            return _deep(image, data, name) if deep else _shallow(image)
    except InputError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not a picture of a kind that is read: convert it to PNG, JPEG, WebP or TIFF."
        ) from error
    except Image.DecompressionBombError as error:
        check_sides(name, *declared_size(data))
        raise InputError(f"{name} is too large ({excerpt(error)}): shrink it first.") from error
    except Exception as error:  # on damaged data Pillow raises almost anything, from struct.error to MemoryError
        raise InputError(
            f"{name} is damaged or cut short ({excerpt(error)}): get the file anew or export it again."
        ) from error


def _shallow(image: ImageFile.ImageFile) -> tuple[NDArray[Any], NDArray[Any] | None]:
    ImageOps.exif_transpose(image, in_place=True)  # a large picture is copied no more than it has to be
    alpha = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    mode = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
    colour = image if image.mode == mode else image.convert(mode)
    if profile := image.info.get("icc_profile"):
        if mode == "L" and profile[16:20] == b"RGB ":  # the colour space in the header
            colour = colour.convert("RGB")
        with suppress(ImageCms.PyCMSError, OSError):  # a broken profile: the values are taken as sRGB
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            colour = converted or colour  # never None, which Pillow's types allow for
    return np.asarray(colour if colour.mode == "RGB" else colour.convert("RGB")), alpha


def _is_deep(image: ImageFile.ImageFile) -> bool:
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("RGB", "RGBA"):
        bits, extra = image.tag_v2.get(258, ()), image.tag_v2.get(338, ())
        return set(bits) == {16} and 1 not in extra  # alpha multiplied in already (1) is left to Pillow to divide out
    return image.mode in WHITE or (image.format == "PNG" and any(t.args in COLOUR_16_BIT for t in image.tile))


def _deep(image: ImageFile.ImageFile, data: bytes, name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)  # a TIFF applies and forgets it when loaded
    tags = dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    image.load()  # lets Pillow find damage
    profile = image.info.get("icc_profile")
    if image.mode in WHITE:
        grey = np.asarray(ImageOps.exif_transpose(image), np.float32)
        image.close()  # frees its memory
        return _to_srgb(_normalise(grey, WHITE[image.mode], name)[..., None], profile), None
    size = tuple(tags.get(tag, side) for tag, side in zip((256, 257), image.size, strict=True))  # not yet upright
    with_alpha = image.mode == "RGBA"
    image.close()
    channels = _orient(_samples(data, size, tags), orientation)
    alpha = _unit(channels[..., -1]) if with_alpha else None
    return _to_srgb(_unit(channels[..., :3] if channels.shape[-1] >= 3 else channels[..., :1]), profile), alpha


def _normalise(grey: NDArray[Any], white: int, name: str) -> NDArray[Any]:
    low, high = grey.min(), grey.max()
    if low >= 0 and high <= white:  # false for NaN
        return grey / np.float32(white)
    raise InputError(
        f"{name} holds values from {low:g} to {high:g}, but its kind runs from 0 (black) to {white} (white): "
        "rescale it."
    )


def _samples(data: bytes, size: tuple[int, int], tags: Mapping[int, Any]) -> NDArray[np.uint16]:
    """Return a PNG, or a TIFF with `tags`, at all of its 16 bits: `[H, W, channels]` as stored."""
    import imagecodecs

    width, height = size
    if not tags:
        pixels = imagecodecs.png_decode(data)
    else:  # room for what Pillow has seen: libtiff, from the same tags, might make out something larger
        count, planes = max(len(tags[258]), tags.get(277, 1)), tags.get(284) == 2
        shape = (count, height, width) if planes else (height, width, count)
        pixels = imagecodecs.tiff_decode(data, out=np.empty(shape, np.uint16))
        pixels = np.moveaxis(pixels, 0, -1) if planes else pixels
    if pixels.dtype != np.uint16 or pixels.shape[:2] != (height, width):
        raise ValueError(f"samples are {pixels.dtype} of shape {pixels.shape}")
    return pixels


def _unit(samples: NDArray[np.uint16]) -> NDArray[np.float32]:
    return np.divide(samples, np.float32(65535), dtype=np.float32, order="C")


def _orient(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation, 1 to 8: from 5 on rows and columns are swapped, and then mirrored like the others."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::down, ::right]


def _to_srgb(colour: NDArray[Any], profile: bytes | None) -> NDArray[Any]:
    """Turn `[H, W, 1]` or `[H, W, 3]` in [0, 1] into sRGB `[H, W, 3]`, which it is taken for if `profile` is broken."""
    rgb = np.repeat(colour, 3, axis=-1) if colour.shape[-1] == 1 else colour
    if not profile:
        return rgb
    import imagecodecs

    grey = profile[16:20] == b"GRAY"
    with suppress(imagecodecs.CmsError, ValueError):
        srgb = imagecodecs.cms_profile("srgb")
        space = "gray" if grey else "rgb"
        for rows in range(0, len(rgb), ROWS):  # in strips, since a large picture fits into memory a few times only
            strip = rgb[rows : rows + ROWS]
            source = np.ascontiguousarray(strip[..., 0] if grey else strip)  # float: uint16 tables err by 19/255
            converted = imagecodecs.cms_transform(source, profile, srgb, colorspace=space, outcolorspace="rgb")
            np.clip(converted, 0, 1, out=strip)
    return rgb

"""The bytes of a picture file to its pixels: upright, in sRGB, transparency aside.

Pillow reads colour at 8 bits a channel. 16-bit colour is read by imagecodecs, which is imported when the first such
picture comes along, and only after Pillow has found the file sound.
"""

import warnings
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, TiffImagePlugin

from jaxstyle.errors import InputError

SHORTEST_SIDE = 16  # pixels: what relu5_1 of VGG needs to have one
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
        # ignored are remarks on metadata and, since `check_sides` is stricter, on the number of pixels
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(data)) as image:
            check_sides(name, *image.size)
            return _deep(image, data, name) if _is_deep(image) else _shallow(image)
    except InputError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not a picture that Pillow knows: convert it to PNG, JPEG, WebP or TIFF."
        ) from error
    except Image.DecompressionBombError as error:
        check_sides(name, *_declared_size(data))
        raise InputError(f"{name} is too large ({str(error).rstrip('.')}): shrink it first.") from error
    except Exception as error:  # on damaged data Pillow raises almost anything, from struct.error to MemoryError
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(f"{name} is damaged or cut short ({reason}): get the file anew or export it again.") from error


def check_sides(name: str, width: int, height: int, *, size: int | None = None) -> None:
    """Raise if a picture is too small for the network or too large for Pillow.

    Args:
        name: what the error message calls it.
        width: pixels.
        height: pixels.
        size: the longest side that was asked for, if that is what made it so.

    Raises:
        InputError: if a side is below 16 pixels or their product over `PIL.Image.MAX_IMAGE_PIXELS`.

    Example:
        >>> check_sides("content.jpg", 979, 734)
    """
    becomes = f"{name} is {width}x{height} pixels" + (f" at size {size}" if size else "")
    if min(width, height) < SHORTEST_SIDE:
        cure = "raise the size or crop the picture" if size else "pass a larger picture"
        raise InputError(f"{becomes}, but both sides must be at least {SHORTEST_SIDE}: {cure}.")
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        cure = "lower the size" if size else "shrink it first"
        raise InputError(f"{becomes}, over Pillow's limit of {Image.MAX_IMAGE_PIXELS} in all: {cure}.")


def _declared_size(data: bytes) -> tuple[int, int]:
    """Return the size in the header, which `Image.open` keeps to itself when it is over twice the limit."""
    for factory, accept in Image.OPEN.values():
        with suppress(Exception), warnings.catch_warnings(action="ignore"):
            if accept and accept(data[:16]):
                return factory(BytesIO(data), "").size
    return SHORTEST_SIDE, SHORTEST_SIDE  # unknown: the format checks the limit itself


def _shallow(image: Image.Image) -> tuple[NDArray[Any], NDArray[Any] | None]:
    image = ImageOps.exif_transpose(image)
    alpha = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    mode = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
    colour = image.convert(mode)
    if profile := image.info.get("icc_profile"):
        if mode == "L" and profile[16:20] == b"RGB ":  # the colour space in the header
            colour = colour.convert("RGB")
        with suppress(ImageCms.PyCMSError, OSError):  # a broken profile: the values are taken as sRGB
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            colour = converted or colour  # never None, which Pillow's types allow for
    return np.asarray(colour.convert("RGB")), alpha


def _is_deep(image: ImageFile.ImageFile) -> bool:
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("RGB", "RGBA"):
        bits, extra = image.tag_v2.get(258, ()), image.tag_v2.get(338, ())
        return set(bits) == {16} and 1 not in extra  # alpha multiplied in already (1) is left to Pillow to divide out
    return image.mode in WHITE or (image.format == "PNG" and any(t.args in COLOUR_16_BIT for t in image.tile))


def _deep(image: ImageFile.ImageFile, data: bytes, name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)  # a TIFF applies and forgets it when loaded
    image.load()  # lets Pillow find damage
    profile = image.info.get("icc_profile")
    if image.mode in WHITE:
        grey = np.asarray(ImageOps.exif_transpose(image), np.float32)
        return _to_srgb(_normalise(grey, WHITE[image.mode], name)[..., None], profile), None
    channels = _orient(_colour_16_bit(data, image.format), orientation)
    colour = channels[..., :3] if channels.shape[-1] >= 3 else channels[..., :1]
    return _to_srgb(colour, profile), channels[..., -1] if image.mode == "RGBA" else None


def _normalise(grey: NDArray[Any], white: int, name: str) -> NDArray[Any]:
    low, high = grey.min(), grey.max()
    if low >= 0 and high <= white:  # false for NaN
        return grey / np.float32(white)
    raise InputError(
        f"{name} holds values from {low:g} to {high:g}, but its kind runs from 0 (black) to {white} (white): "
        "rescale it."
    )


def _colour_16_bit(data: bytes, container: str | None) -> NDArray[Any]:
    import imagecodecs

    pixels = imagecodecs.png_decode(data) if container == "PNG" else imagecodecs.tiff_decode(data)
    if pixels.dtype != np.uint16:
        raise ValueError(f"samples are {pixels.dtype}, not uint16")
    if pixels.shape[0] in (3, 4):  # a TIFF may store one plane after the other; no picture is 4 pixels high
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels / np.float32(65535)


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
    source = np.ascontiguousarray(colour[..., 0] if grey else rgb)  # float: the tables for uint16 err by 19/255
    with suppress(imagecodecs.CmsError, ValueError):
        srgb = imagecodecs.cms_profile("srgb")
        space = "gray" if grey else "rgb"
        rgb = imagecodecs.cms_transform(source, profile, srgb, colorspace=space, outcolorspace="rgb")
    return np.clip(rgb, 0, 1)

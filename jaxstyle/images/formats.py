"""Formats of image files: those that are read, and the names of others for error messages.

Files are opened by the classes of Pillow's plugins instead of `PIL.Image.open`, which checks the number of pixels
against a limit that is global to the process; `limits` checks it per call. Nothing here changes state of Pillow or of
Python's warnings, so several threads may read files at once.
"""

import ctypes
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO

from PIL import GifImagePlugin, Image, TiffImagePlugin

from jaxstyle.errors import InputError, excerpt
from jaxstyle.images.limits import check_sides, limit_below

PNG, JPEG, JPEG_2000 = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \r\n\x87\n")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")


class UnsupportedFormatError(Exception):
    """A file is not of a supported format, or its header is damaged."""


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG: length, kind, data and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def is_webp(data: bytes) -> bool:
    """Return whether a file is a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _brands(data: bytes) -> list[bytes]:
    """Return the main and the compatible brands of an ISO media file (HEIC, AVIF, MP4)."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4]), 256)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]


def _is_avif(data: bytes) -> bool:
    return any(brand in AVIF_BRANDS for brand in _brands(data))


def _is_heif(data: bytes) -> bool:
    return not _is_avif(data) and any(brand in HEIF_BRANDS for brand in _brands(data))


# Name, test of the first bytes of a file, and class or factory of images. Not EPS, which is a program.
FORMATS: tuple[tuple[str, Callable[[bytes], bool], str], ...] = (
    ("PNG", lambda data: data.startswith(PNG), "PIL.PngImagePlugin.PngImageFile"),
    ("JPEG", lambda data: data.startswith(JPEG), "PIL.JpegImagePlugin.jpeg_factory"),
    ("WebP", is_webp, "PIL.WebPImagePlugin.WebPImageFile"),
    ("TIFF", lambda data: data.startswith(TIFF), "PIL.TiffImagePlugin.TiffImageFile"),
    ("GIF", lambda data: data.startswith((b"GIF87a", b"GIF89a")), "PIL.GifImagePlugin.GifImageFile"),
    ("BMP", lambda data: data.startswith(b"BM"), "PIL.BmpImagePlugin.BmpImageFile"),
    ("PNM", lambda data: data[:1] == b"P" and data[1:2] in b"123456fy", "PIL.PpmImagePlugin.PpmImageFile"),
    ("JPEG 2000", lambda data: data.startswith(JPEG_2000), "PIL.Jpeg2KImagePlugin.Jpeg2KImageFile"),
    ("AVIF", _is_avif, "PIL.AvifImagePlugin.AvifImageFile"),  # of Pillow 11.3
    # Extra: heif. Not by `register_heif_opener`, which changes the table of formats of Pillow.
    ("HEIC", _is_heif, "pillow_heif.HeifImageFile"),
)
CONVERT = "convert it to PNG, JPEG, WebP or TIFF"


@contextmanager
def opened(data: bytes, name: str, *, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an untrusted image file and read its header; loaded pixels stay available after it is closed."""
    _silence()
    kind, path = next(((kind, path) for kind, accepts, path in FORMATS if accepts(data[:256])), ("", ""))
    module, _, opener = path.rpartition(".")
    if not module or find_spec(module) is None:
        raise unsupported(data, name)
    if is_webp(data) and (size := webp_size(data)):  # before the decoder, which allocates the image
        _check_far(name, size, max_pixels)
    with BytesIO(data) as file:
        try:
            image = getattr(import_module(module), opener)(file, "")
        except Image.DecompressionBombError as error:  # of Pillow's limit, where `max_pixels` is higher
            if not is_webp(data):
                raise InputError(f"{name} is too large ({excerpt(error)}): shrink it first.") from error
            image = _large_webp(data)
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            raise UnsupportedFormatError(
                f"{name} has the format {kind}, but is damaged or of a variant that is not supported "
                f"({excerpt(error)}): export it again or {CONVERT}."
            ) from error
        with image:
            _check_far(name, image.size, max_pixels)
            if _is_raw(image):
                raise UnsupportedFormatError(
                    f"{name} is not a picture in a supported format (a raw photograph): {CONVERT}."
                )
            yield image


def _check_far(name: str, size: tuple[int, int], max_pixels: int | None) -> None:
    """Raise `InputError` for an image over twice the limit, as Pillow does."""
    if limit_below(size[0] * size[1] // 2, max_pixels=max_pixels):
        check_sides(name, *size, max_pixels=max_pixels)


def _is_raw(image: Image.Image) -> bool:
    """Return whether a TIFF is a raw photograph, such as DNG or NEF, whose first image is a preview."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    reduced, others, dng = (image.tag_v2.get(tag) for tag in (254, 330, 50706))
    return reduced == 1 and (others is not None or dng is not None)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height in the header of a WebP, None if it is damaged."""
    kind, size = data[12:16], None
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack("<HH", data[26:30])
        size = width & 0x3FFF, height & 0x3FFF
    elif kind == b"VP8X" and len(data) >= 30:
        size = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return size


def _large_webp(data: bytes) -> Image.Image:
    """Decode a WebP over Pillow's limit, which its plugin does not open."""
    import imagecodecs

    image = Image.fromarray(imagecodecs.webp_decode(data))
    image.format, at = "WEBP", 12
    while at + 8 <= len(data):
        kind, count = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in (b"ICCP", b"EXIF"):
            image.info["icc_profile" if kind == b"ICCP" else "exif"] = data[at + 8 : at + 8 + count]
        at += 8 + count + count % 2
    return image


def has_more_images(data: bytes, image: Image.Image) -> str:
    """Return a phrase for the further images of a file, "" for none."""
    if image.format == "GIF":  # in a separate file, since Pillow searches for the second frame
        with BytesIO(data) as file, GifImagePlugin.GifImageFile(file) as again:
            several = again.is_animated
    else:
        several = image.format in ("PNG", "WEBP", "AVIF", "TIFF", "HEIF") and getattr(image, "is_animated", False)
    several_of = {"TIFF": "has several pages: only the first is read", "HEIF": "has several pictures: only one is read"}
    return several_of.get(str(image.format), "is an animation: only its first frame is read") if several else ""


SIGNATURES = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "a Photoshop file"),
    (b"gimp xcf", "a GIMP file"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript program"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "a DDS texture"),
    (b"FUJIFILMCCD-RAW", "a raw photograph"),
    ((b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb"), "a raw photograph"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\3\4", "a ZIP archive or office document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file"),
)


def unsupported(data: bytes, name: str) -> UnsupportedFormatError:
    """Return the error for a file whose format is not read, which names the format."""
    if _is_heif(data):
        return UnsupportedFormatError(
            f"{name} is a HEIC picture, which needs the extra heif: pip install 'jaxstyle[heif]' or {CONVERT}."
        )
    kind = _name_of(data)
    return UnsupportedFormatError(
        f"{name} is not a picture in a supported format{f' ({kind})' if kind else ''}: {CONVERT}."
    )


def _name_of(data: bytes) -> str:
    for signature, kind in SIGNATURES:
        if data.startswith(signature):
            return kind
    start = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<") and b"<svg" in start:
        return "an SVG drawing"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if brands := _brands(data):
        if _is_avif(data):
            return "AVIF, which needs Pillow 11.3"
        return "a raw photograph" if brands[0] == b"crx " else "a video"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "a video"
    return ""


@cache
def _silence() -> None:
    """Keep imaging libraries from writing to stderr; errors are still raised."""
    for library in ("PIL", "imagecodecs", "tifffile"):
        logging.getLogger(library).addHandler(logging.NullHandler())  # instead of Python's default, stderr
    with suppress(AttributeError, OSError, ImportError):  # not possible if libtiff is linked differently
        from PIL import _imaging

        libtiff = ctypes.CDLL(_imaging.__file__)
        for handler in (libtiff.TIFFSetErrorHandler, libtiff.TIFFSetWarningHandler):
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)

"""Limits of image files, checked before decoding, and memory that does not suffice.

Files are untrusted. A few bytes may claim any image size, and some decoders fill in missing data and allocate that
size.
"""

import math
import os
from pathlib import Path

from PIL import Image, TiffImagePlugin

from jaxstyle.errors import InputError, UnavailableError, excerpt, read_error

SHORTEST_SIDE = 16  # pixels; the minimum for relu5_1 of VGG
MOST_PIXELS = 4 * 10**9  # maximum of --max-pixels; beyond, integers of other libraries overflow
MOST_BYTES = 3 * 2**28  # of a file: uncompressed 16-bit color with alpha at Pillow's limit
BYTES = 9  # per pixel, with a higher --max-pixels: the same, rounded up
PACKED = 2**25  # pixels that any file may have, such as a mask of two colors; half of that at 16 bits
PIXELS_PER_BYTE = 50  # limit beyond that: photographs have 1 to 30, a JPEG of one color has 64
MOST_SCANS = 100  # of a progressive JPEG, each of which decodes all pixels; encoders write about ten


def read_bytes(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> bytes:
    """Return the contents of an image file, which may have 9 bytes per pixel of `max_pixels`."""
    file, most, count = Path(path), max(MOST_BYTES, BYTES * (max_pixels or 0)), 0
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # reading a pipe may block forever
            raise InputError(f"{path} is no regular file: name a picture file on disk.")
        if file.is_file() and (count := file.stat().st_size) > most:
            cure = f"shrink the picture{allowing(count // BYTES + 1)}"
            raise InputError(f"{path} has {count} bytes, over the limit of {most}: {cure}.")
        data = file.read_bytes()
    except InputError:
        raise
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a null character in the path
        reason = excerpt(getattr(error, "strerror", None) or error)
        other = InputError(f"{path} cannot be read ({reason}): name a picture file that you may read.")
        raise read_error(path, error) or other from error
    if len(data) < count:
        raise UnavailableError(f"{path} was read only to byte {len(data)} of {count}: check its disk, then try again.")
    if not data:
        raise InputError(f"{path} is empty (0 bytes): name a file that holds a picture.")
    return data


def too_small_a_memory(
    name: str, size: tuple[int, int] | None = None, *, bytes_per_pixel: int = 0, cure: str = ""
) -> UnavailableError:
    """Return the error for an image that does not fit in memory, with the size that would if `size` is known."""
    if size is None:
        return UnavailableError(f"memory is too small to read {name}: shrink the picture.")
    need, free = size[0] * size[1] * bytes_per_pixel, _free_memory()
    factor = min(0.5, math.sqrt(0.8 * free / need))  # at most half, since a limit may be unknown; 0.8 for copies
    width, height = (max(SHORTEST_SIDE, int(factor * side)) for side in size)
    return UnavailableError(
        f"memory is too small to read {name}: {size[0]}x{size[1]} pixels need about {-(-need // 10**6)} MB and "
        f"{free // 10**6} MB are free: {cure} {width}x{height} pixels."
    )


def _free_memory() -> int:
    """Return the bytes of memory that this process may still allocate."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        import resource
    except ImportError:  # Windows
        return free
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return free if limit == resource.RLIM_INFINITY else min(free, max(0, limit - psutil.Process().memory_info().vms))


def check_sides(name: str, width: int, height: int, *, size: int | None = None, max_pixels: int | None = None) -> None:
    """Check the sides of an image, resized if `size` is given, against the minimum of the network and the limit."""
    becomes = f"{name} is {width}x{height} pixels" + (f" at size {size}" if size else "")
    if min(width, height) < SHORTEST_SIDE:
        cure = "raise the size or crop the picture" if size else "pass a larger picture"
        raise InputError(f"{becomes}, but both sides must be at least {SHORTEST_SIDE}: {cure}.")
    if limit := limit_below(width * height, max_pixels=max_pixels):
        cure = "lower the size" if size else "shrink it first"
        raise InputError(f"{becomes}, over {limit} in all: {cure}{allowing(width * height)}.")


def limit_below(pixels: int, *, max_pixels: int | None = None) -> str:
    """Return a phrase for the limit that a number of pixels exceeds, or ""."""
    if max_pixels is not None and not 1 <= max_pixels <= MOST_PIXELS:
        raise InputError(f"max_pixels is {excerpt(max_pixels)}: use a whole number from 1 to {MOST_PIXELS}.")
    limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    whose = "Pillow's" if max_pixels is None else "the"
    return f"{whose} limit of {limit}" if limit and pixels > limit else ""


def allowing(pixels: int) -> str:
    """Return a phrase for the option that allows this many pixels, or "" beyond its maximum."""
    return f" or allow it with --max-pixels {-(-pixels // 10**6)}MP" if pixels <= MOST_PIXELS else ""


def check_packing(name: str, image: Image.Image, data: bytes, *, deep: bool) -> None:
    """Check that an opened file, of 16 bits if `deep`, is not too short for its pixels, and not too slow to decode."""
    width, height = image.size
    packed = PACKED // 2 if deep else PACKED
    if width * height > max(packed, PIXELS_PER_BYTE * len(data)):
        raise InputError(
            f"{name} claims {width}x{height} pixels in {len(data)} bytes, but over {packed} pixels a file needs one "
            f"byte per {PIXELS_PER_BYTE} pixels: shrink it first."
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = [image.tag_v2.get(tag, 0) for tag in (322, 323)]
        if not all(isinstance(side, int) for side in tile) or tile[0] * tile[1] > 4 * width * height + 2**20:
            raise InputError(f"{name} has tiles of {tile} pixels, far over its {width}x{height}: export it again.")
    if image.format in ("JPEG", "MPO") and (scans := _scans(data)) > MOST_SCANS:
        raise InputError(f"{name} has {scans} scans, over the limit of {MOST_SCANS}: export it again.")


def _scans(data: bytes) -> int:
    """Return the number of scans of a JPEG; a scan cannot contain markers."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:  # segments before the first scan
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    end = data.find(b"\xff\xd9", at)
    return data.count(b"\xff\xda", at, end if end >= 0 else None)

"""Picture files to arrays and back: Pillow lives here and in the rooms of `image_file`, `image_limits` and `encoding`.

An array is float32 sRGB in [0, 1], `[H, W, 3]`. What a file says about its colours and its orientation is applied on
the way in; nothing of it is left to write on the way out, so the same array always makes the same bytes.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from jaxstyle.bands import collected, resized, rows
from jaxstyle.encoding import FORMATS, described, write
from jaxstyle.errors import InputError
from jaxstyle.files import whole
from jaxstyle.image_file import decode
from jaxstyle.image_limits import check_sides, read_bytes, too_large
from jaxstyle.levels import Levels

Resample = Literal["lanczos", "bilinear"]
Rounding = Literal["round", "truncate"]

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR}


class Picture(NamedTuple):
    """A picture and, aside from it, its transparency.

    Attributes:
        rgb: float32 `[H, W, 3]`, sRGB in [0, 1].
        alpha: float32 `[H, W]`, 1 where opaque; None if the file has none.
    """

    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32] | None = None


def fit(width: int, height: int, size: int, *, rounding: Rounding = "round") -> tuple[int, int]:
    """Return the width and height of a picture scaled to a longest side of `size`.

    Args:
        width: pixels.
        height: pixels.
        size: the longest side of the result, in pixels.
        rounding: "round", or "truncate" for `int(size / longest * side)`, as neural-style-pt has it; in floating
            point that leaves the longest side itself one pixel short for about one picture in nine.

    Raises:
        InputError: if `size` is below 1 or `rounding` is unknown.

    Example:
        >>> fit(979, 734, 256, rounding="truncate")
        (256, 191)
    """
    if size < 1:
        raise InputError(f"A size of {size} pixels is below 1: give the longest side of the result, such as 512.")
    if rounding not in ("round", "truncate"):
        raise InputError(f"Rounding {rounding!r} is unknown: use 'round' or 'truncate'.")
    whole = round if rounding == "round" else int
    scale = size / max(width, height)
    return max(1, whole(scale * width)), max(1, whole(scale * height))


def load(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    resample: Resample = "lanczos",
    rounding: Rounding = "round",
    max_pixels: int | None = None,
) -> Picture:
    """Read a picture (of an animation the first frame), upright and in sRGB.

    Args:
        path: a PNG, JPEG, WebP, TIFF, GIF, BMP, PNM, AVIF or JPEG 2000 file.
        size: the longest side of the result in pixels, be it smaller or larger, or its width and height, whatever the
            picture's shape; None keeps the picture's own.
        resample: Pillow's antialiased "lanczos" or "bilinear"; 8-bit pictures are resized in 8 bits, as
            neural-style-pt does, deeper ones in floating point.
        rounding: how `fit` finds the other side.
        max_pixels: how many the file and the result may have; None for `PIL.Image.MAX_IMAGE_PIXELS`. Of files from
            strangers, a higher one lets them ask for more memory.

    Raises:
        InputError: if the file cannot be read or holds no usable picture, or an option is out of range.

    Example:
        >>> load("content.jpg", size=512).rgb.shape  # doctest: +SKIP
        (384, 512, 3)
    """
    if resample not in FILTERS:
        raise InputError(f"Resample {resample!r} is unknown: use 'lanczos' or 'bilinear'.")
    bands = decode(read_bytes(path, max_pixels=max_pixels), str(path), max_pixels=max_pixels)
    if size is None:
        return Picture(*collected(bands))
    exact = isinstance(size, tuple)
    width, height = size if exact else fit(bands.width, bands.height, size, rounding=rounding)
    check_sides(str(path), width, height, size=max(width, height), max_pixels=max_pixels)
    return Picture(*resized(bands, width, height, FILTERS[resample]))


def size_of(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> tuple[int, int]:
    """Return the width and height of a picture as `load` gives it at its own size.

    Args:
        path: as of `load`.
        max_pixels: as of `load`.

    Raises:
        InputError: if the file cannot be read or holds no usable picture.

    Example:
        >>> size_of("content.jpg")  # doctest: +SKIP
        (979, 734)
    """
    bands = decode(read_bytes(path, max_pixels=max_pixels), str(path), max_pixels=max_pixels)
    return bands.width, bands.height


def description_of(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> str:
    """Return what a picture file says of itself, as `save` has written it, or "".

    Args:
        path: any picture file; nothing of it is trusted.
        max_pixels: as of `load`.

    Raises:
        InputError: if the file cannot be read, or has far more pixels.

    Example:
        >>> description_of("out.png")  # doctest: +SKIP
        '{"format": "jaxstyle run 1", ...}'
    """
    data = read_bytes(path, max_pixels=max_pixels)
    try:
        return described(data, max_pixels=max_pixels)
    except Image.DecompressionBombError as error:
        raise too_large(str(path), data, error, max_pixels=max_pixels) from error


def check_output(path: str | os.PathLike[str], *, bits: int = 8, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise if `save` could not write `path` or would overwrite an input: to be called before the hours of work.

    Args:
        path: the file to be written.
        bits: 8, or 16 for PNG and TIFF.
        inputs: files that must survive.

    Raises:
        InputError: naming what is wrong and what to pass instead.

    Example:
        >>> check_output("out.png", bits=16, inputs=["content.jpg"])
    """
    target = Path(os.path.realpath(path))
    try:
        is_folder = target.is_dir()
    except OSError as error:  # such as a name that is too long, or a folder on the way that may not be searched
        raise InputError(f"{path} cannot be written ({error.strerror}): name another output.") from error
    if is_folder:
        raise InputError(f"{path} is a folder: name a file in it, such as {Path(path) / 'out.png'}.")
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path} has the suffix {suffix!r}, which is none of {', '.join(FORMATS)}: use one of these.")
    if bits not in (8, 16):
        raise InputError(f"{path} cannot have {bits} bits a channel: use 8 or 16.")
    if bits == 16 and FORMATS[suffix] not in ("PNG", "TIFF"):
        raise InputError(f"{path} cannot hold 16 bits a channel as {FORMATS[suffix]}: use .png or .tiff, or 8 bits.")
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
        raise InputError(
            f"{path} needs a folder {target.parent} that exists and is writable: create it or use another."
        )
    for source in inputs:
        if target.exists() and os.path.exists(source) and target.samefile(source):
            raise InputError(f"{path} is the same file as the input {source}: name another output.")


def save(
    path: str | os.PathLike[str],
    rgb: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    bits: int = 8,
    description: str = "",
) -> None:
    """Write a picture whole or not at all: PNG, JPEG (quality 95, 4:4:4), WebP (lossless) or TIFF, by suffix.

    Args:
        path: where to; an existing file is replaced.
        rgb: `[H, W, 3]`, sRGB; clipped to [0, 1] and rounded.
        alpha: `[H, W]` in [0, 1]; a JPEG, which cannot carry it, shows the picture on white.
        bits: 8, or 16 for PNG and TIFF.
        description: what the file says of itself, see `description_of`; ASCII, up to 64 KB in a JPEG.

    Raises:
        InputError: if `check_output` rejects `path`, the format cannot hold so large a picture, or values are NaN.
        UnavailableError: if writing fails, as on a full disk.

    Example:
        >>> save("out.png", np.zeros((16, 16, 3)), bits=16)  # doctest: +SKIP
    """
    check_output(path, bits=bits)
    container = FORMATS[Path(path).suffix.lower()]
    shape = np.shape(rgb)
    if len(shape) != 3 or shape[-1] != 3:
        raise ValueError(f"A picture is [H, W, 3], not {shape}.")
    opacity = None if alpha is None else np.asarray(alpha)
    levels = Levels(np.asarray(rgb), opacity, bits, on_white=container == "JPEG")
    bands = list(rows(levels.height, levels.width))
    if missing := sum(int(np.isnan(levels.floats(top, end)).sum()) for top, end in bands):
        raise InputError(f"{path} would hold {missing} values that are not numbers: lower the step size.")
    with whole(path) as part, part.open("wb") as file:
        try:
            write(file, levels, container, description=description)
        except (OSError, ValueError, RuntimeError) as error:  # a WebP ends at 16383 pixels a side, a JPEG at 65500
            if isinstance(error, OSError) and error.errno:  # as on a full disk
                raise
            size = f"{levels.width}x{levels.height}"
            raise InputError(f"{path} cannot hold {size} pixels as {container} ({error}): save it as PNG.") from error

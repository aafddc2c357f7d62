"""The input images of a command: loads and checks content, styles and masks."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from jaxstyle.cli.options import MOST_WHOLE, check_number, parse_numbers
from jaxstyle.errors import InputError

if TYPE_CHECKING:
    import jax

    from jaxstyle.config import Config
    from jaxstyle.images.load import Picture
    from jaxstyle.networks.vgg import Params
    from jaxstyle.transfer.color import Sizes
    from jaxstyle.transfer.presets import Preset

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")  # suffixes of images in folders
STATISTICS = (".h5", ".hdf5")  # suffixes of files of `jaxstyle statistics`
TOLERANCE = 0.02  # of the aspect ratio of a mask relative to that of its image


@dataclass(frozen=True)
class Controls:
    """Styles, colors and masks."""

    blend: Annotated[str | None, arg(metavar="W1,W2,...", help_behavior_hint="")] = None
    """Weights of several styles. (default: equal)"""
    style_scale: Annotated[float | None, arg(metavar="FACTOR", help_behavior_hint="")] = None
    """Size of the style relative to the content: 2 for coarser strokes, 0.5 for finer ones."""
    style_size: Annotated[int | None, arg(metavar="PIXELS", help_behavior_hint="")] = None
    """Longest side of the style in pixels. (default: --size)"""
    color: Literal["none", "keep", "match", "match-cholesky", "histogram"] = "none"
    """Colors of the content: keep them, or recolor the style by mean and covariance (match, match-cholesky) or by
    histogram."""
    content_mask: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="PICTURE")] = ()
    """Region of a style, white in this image; once for each style, in their order."""
    style_mask: Annotated[UseAppendAction[tuple[Literal["all"] | Path, ...]], arg(metavar="PICTURE|all")] = ()
    """Part of a style to use, white in this image, or all; once for each style."""
    feather: int = 0
    """Width of the soft edge of content masks in pixels of the output."""

    def check(self, styles: int) -> None:
        """Check the options for this number of styles."""
        check_number("style_scale", self.style_scale, 0.01, 100)
        check_number("style_size", self.style_size, 16, MOST_WHOLE)
        check_number("feather", self.feather, 0, 1000)
        if self.style_scale is not None and self.style_size is not None:
            raise InputError("--style-scale and --style-size both set the size of the style: drop one.")
        self.shares(styles)
        for option, masks in (("--content-mask", self.content_mask), ("--style-mask", self.style_mask)):
            if masks and len(masks) != styles:
                raise InputError(f"{option} is given {len(masks)} times for {styles} styles: give one mask per style.")
        if self.blend is not None and self.content_mask:
            raise InputError("--blend and --content-mask cannot be combined: drop one.")
        if self.feather and not self.content_mask:
            raise InputError("--feather needs --content-mask: add one.")

    def shares(self, styles: int) -> list[float] | None:
        """Return the style weights, which sum to 1, or None for equal weights."""
        if self.blend is None:
            return None
        numbers = parse_numbers("blend", self.blend, count=styles)
        return [number / sum(numbers) for number in numbers]

    def files(self) -> list[Path]:
        """Return the files of masks."""
        return [path for path in (*self.content_mask, *self.style_mask) if path != "all"]

    def load_style(
        self, path: Path, *, size: int, content: Picture, preset: Preset, max_pixels: int | None
    ) -> jax.Array:
        """Load a style at its size for the last scale."""
        from jaxstyle.images.load import load_image

        height, width, _ = content.rgb.shape
        own = self.style_scale is not None or self.style_size is not None
        side = self.style_size or max(16, round((self.style_scale or 1.0) * size))
        fit = (width, height) if preset.style_fit == "content" and not own else side
        how: dict[str, Any] = {"resample": preset.resample, "rounding": preset.rounding, "max_pixels": max_pixels}
        style: Any = load_image(path, size=fit, **how).rgb
        return style

    def load_statistics(
        self, path: Path, *, size: int, params: Params, config: Config, tell: Callable[[str], None]
    ) -> Sizes:
        """Load the statistics of a style, and show a message if none of them are for about `size` pixels."""
        from jaxstyle.losses import statistics_io

        if self.style_scale is not None or self.style_size is not None or self.style_mask:
            raise InputError(
                f"{path} holds statistics, which are fixed: drop --style-size, --style-scale and --style-mask."
            )
        if config.color != "none":
            raise InputError(f"{path} holds statistics, which cannot be recolored: drop --color or pass a picture.")
        found = statistics_io.read(path, params=params, config=config)
        if all(abs(math.log2(side / size)) > 0.5 for side in found):
            sides = ", ".join(map(str, sorted(found)))
            tell(f"{path} is for pictures of {sides} pixels, not {size}: the style will look larger or smaller.")
        return found

    def load_content_masks(self, content: Picture, *, max_pixels: int | None) -> jax.Array | None:
        """Load the content masks at the size of the content, with soft edges."""
        import jax.numpy as jnp

        from jaxstyle.losses.masks import feather

        if not self.content_mask:
            return None
        height, width, _ = content.rgb.shape
        how: dict[str, Any] = {"option": "--content-mask", "max_pixels": max_pixels}
        masks = [load_mask(path, height=height, width=width, **how) for path in self.content_mask]
        return jnp.stack([feather(mask, pixels=self.feather) for mask in masks])

    def load_style_masks(
        self, styles: list[tuple[Path, jax.Array]], *, max_pixels: int | None
    ) -> list[jax.Array | None] | None:
        """Load the style masks at the size of their styles."""
        from jaxstyle.images.load import size_of
        from jaxstyle.images.resample import resample

        if not self.style_mask:
            return None
        masks: list[jax.Array | None] = []
        for path, (source, style) in zip(self.style_mask, styles, strict=True):
            if path == "all":
                masks.append(None)
                continue
            width, height = size_of(source, max_pixels=max_pixels)  # the style may have another aspect ratio
            mask = load_mask(path, height=height, width=width, option="--style-mask", max_pixels=max_pixels)
            masks.append(resample(mask, *style.shape[:2], method="linear"))
        return masks


def expanded(paths: Iterable[Path], *, besides: Collection[Path] = ()) -> list[Path]:
    """Return `paths` with folders replaced by their images, and patterns such as *.jpg by the matching files.

    The resolved paths `besides` are excluded from folders and patterns.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if os.path.isdir(path):  # an inaccessible path is reported when it is read
            inside = sorted(each for each in path.iterdir() if each.suffix.lower() in PICTURES)
            if not inside:
                raise InputError(f"The folder {path} has no pictures: name one with {', '.join(PICTURES)} files.")
        elif glob.has_magic(str(path)) and not os.path.exists(path):
            inside = sorted(each for each in map(Path, glob.glob(str(path))) if os.path.isfile(each))
            if not inside:
                raise InputError(f"No file matches {path}: name pictures, folders or a pattern that matches files.")
        found += inside if inside == [path] else [each for each in inside if each.resolve() not in besides]
    return found


def load_mask(path: Path, *, height: int, width: int, option: str, max_pixels: int | None) -> jax.Array:
    """Load a mask for an image of this size: its luminance times its alpha."""
    import jax.numpy as jnp

    from jaxstyle.images.load import load_image
    from jaxstyle.images.resample import resample
    from jaxstyle.transfer import color

    found = load_image(path, max_pixels=max_pixels)
    mask = color.luminance(jnp.asarray(found.rgb))[..., 0]
    mask = mask if found.alpha is None else mask * jnp.asarray(found.alpha)
    own_height, own_width = mask.shape
    if abs(own_width / own_height * height / width - 1) > TOLERANCE + 1 / min(height, width):
        raise InputError(
            f"{option} {path} is {own_width}x{own_height} pixels, but its picture is {width}x{height}: "
            "use a mask with the same aspect ratio."
        )
    mask = resample(mask, height, width, method="linear")
    if float(mask.max()) < 1 / 255:
        raise InputError(f"{option} {path} is empty: paint the region white on black.")
    return mask

"""Input files of a run: the network, pictures, statistics and masks, and the problem that is made of them."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.errors import InputError
from jaxstyle.images.load import Picture, load_image, size_of
from jaxstyle.images.resample import resample
from jaxstyle.losses import masks as masks_module
from jaxstyle.losses import statistics_io
from jaxstyle.losses.objective import Objective
from jaxstyle.networks import pretrained
from jaxstyle.networks.vgg import Params
from jaxstyle.runtime import style_cache
from jaxstyle.runtime.callbacks import Callback, message
from jaxstyle.runtime.options import (
    STATISTICS,
    ObjectiveOptions,
    ReconstructOptions,
    StylizeOptions,
    TextureOptions,
    parse_shares,
)
from jaxstyle.runtime.problem import Problem, make_problem
from jaxstyle.runtime.record import Weights
from jaxstyle.transfer import color
from jaxstyle.transfer.color import Sizes
from jaxstyle.transfer.presets import Preset

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")  # suffixes of images in folders
TOLERANCE = 0.02  # of the aspect ratio of a mask relative to that of its image


class LoadedNetwork(NamedTuple):
    """The parameters of a network, and its entry in a record."""

    params: Params
    weights: Weights


LoadNetwork = Callable[[], LoadedNetwork]  # called after the pictures are loaded, since it may download
Loaded = tuple[Problem, np.ndarray | None]  # with the alpha channel of the content


def load_network(
    name: str = "auto",
    *,
    weights: Path | None = None,
    offline: bool = False,
    progress: Any = None,
    callbacks: Sequence[Callback] = (),
) -> LoadedNetwork:
    """Find and load a network, and send a message with its origin.

    Args:
        name: "auto", "vgg19", "mini", "random", or a weights file.
        weights: file of VGG-19's weights.
        offline: whether to refuse a download.
        progress: progress bar of a download, as for pooch; None for none.
        callbacks: receive messages.

    Raises:
        InputError: if there is no such network.
        UnavailableError: if the download fails.

    Example:
        >>> load_network("mini").weights.name
        'mini'
    """
    source = pretrained.find(name, weights=weights, offline=offline, progress=progress)
    if source.note:
        message(callbacks, source.note, kind="warning")
    message(callbacks, f"Network: {source.network}, {source.origin}")
    params = pretrained.load(source)
    file = source.path.name if source.path else ""
    return LoadedNetwork(params, Weights(source.network, file, statistics_io.network_hash(params)))


def load_stylize(
    content: Path,
    styles: Sequence[Path],
    options: StylizeOptions,
    network: LoadNetwork,
    *,
    callbacks: Sequence[Callback] = (),
) -> Loaded:
    """Load the content and the styles, pictures or statistics, of a style transfer."""
    preset, objective = options.resolve()
    how: dict[str, Any] = {"resample": preset.resample, "max_pixels": options.max_pixels}
    picture = load_image(content, size=options.size, rounding=preset.rounding, **how)
    height, width, _ = picture.rgb.shape
    start: Any = options.init
    needs_images = preset.color != "none" or start in ("style", "recolored") or options.style_mask
    if isinstance(start, Path):
        start = load_image(start, size=(width, height), **how).rgb
    masks = _content_masks(options, height, width)
    files = [path for path in dict.fromkeys(styles) if path.suffix.lower() in STATISTICS]
    images = [path for path in styles if path not in files]
    known: dict[Path, Any] = {path: _style_image(path, options, preset, picture) for path in dict.fromkeys(images)}
    params = network().params
    known |= {path: _statistics(path, options, params, callbacks) for path in files}
    if files and len(styles) > 1 and getattr(objective, "statistic", None) == "sliced":
        raise InputError("Statistics of 'sliced' have different directions: mix the pictures instead.")
    style_masks = _style_masks(options, [(path, known[path]) for path in images])
    problem = make_problem(
        params,
        picture.rgb,
        [known[path] for path in styles],
        **_method(options),
        color=preset.color,
        init=start,
        style_weights=parse_shares(options.style_weights, count=len(styles)),
        content_masks=masks,
        style_masks=style_masks,
    )
    if isinstance(objective, Objective) and not needs_images:
        problem = style_cache.with_statistics(problem)
    return problem, picture.alpha


def load_texture(styles: Sequence[Path], options: TextureOptions, network: LoadNetwork) -> Loaded:
    """Load the styles of a texture."""
    how: dict[str, Any] = {"size": options.style_size, "max_pixels": options.max_pixels}
    images: Any = [load_image(path, **how).rgb for path in styles]
    ground = np.zeros((*options.shape(), 3), np.float32)
    shares = parse_shares(options.style_weights, count=len(styles))
    return make_problem(network().params, ground, images, init="noise", style_weights=shares, **_method(options)), None


def load_reconstruction(image: Path, options: ReconstructOptions, network: LoadNetwork) -> Loaded:
    """Load the image of a reconstruction."""
    preset, _ = options.resolve()
    how: dict[str, Any] = {"resample": preset.resample, "rounding": preset.rounding, "max_pixels": options.max_pixels}
    picture = load_image(image, size=options.size, **how)
    rgb: Any = picture.rgb
    return make_problem(network().params, rgb, [rgb], init="noise", **_method(options)), picture.alpha


def _method(options: ObjectiveOptions) -> dict[str, Any]:
    preset, objective = options.resolve()
    of_preset = {name: getattr(preset, name) for name in ("network", "optimizer", "scales")}
    return {"objective": objective, **of_preset, "steps": options.steps, "key": jax.random.key(options.seed)}


def _style_image(path: Path, options: StylizeOptions, preset: Preset, content: Picture) -> jax.Array:
    """Load a style at its size for the last scale; the preset may give it the height and width of the content."""
    size: Any = options.style_size or max(16, round((options.style_scale or 1.0) * options.size))
    if preset.style_fit == "content" and options.style_scale is None and options.style_size is None:
        size = content.rgb.shape[1::-1]
    how: dict[str, Any] = {"resample": preset.resample, "rounding": preset.rounding, "max_pixels": options.max_pixels}
    style: Any = load_image(path, size=size, **how).rgb
    return style


def _statistics(path: Path, options: StylizeOptions, params: Params, callbacks: Sequence[Callback]) -> Sizes:
    """Load the statistics of a style, and send a message if none of them are for about the size of the picture."""
    preset, objective = options.resolve()
    holds = f"{path} holds statistics, which"
    if options.style_scale is not None or options.style_size is not None or options.style_mask:
        raise InputError(f"{holds} are fixed: drop --style-size, --style-scale and --style-mask.")
    if not isinstance(objective, Objective):
        raise InputError(f"{holds} --preset {options.preset} does not use: pass a picture.")
    if preset.color != "none":
        raise InputError(f"{holds} have no colors: drop --color or pass a picture.")
    if options.init in ("recolored", "style"):
        raise InputError(f"{holds} have no colors: use --init content or pass a picture.")
    sizes = statistics_io.read(path, params=params, objective=objective, network=preset.network)
    if all(abs(math.log2(side / options.size)) > 0.5 for side in sizes):
        sides = ", ".join(map(str, sorted(sizes)))
        text = f"{path} is for pictures of {sides} pixels, not {options.size}: the style will look larger or smaller."
        message(callbacks, text)
    return sizes


def _content_masks(options: StylizeOptions, height: int, width: int) -> jax.Array | None:
    if not options.content_mask:
        return None
    how: dict[str, Any] = {"option": "--content-mask", "max_pixels": options.max_pixels}
    masks = [load_mask(path, height=height, width=width, **how) for path in options.content_mask]
    return jnp.stack([masks_module.feather(mask, pixels=options.feather) for mask in masks])


def _style_masks(options: StylizeOptions, styles: list[tuple[Path, jax.Array]]) -> list[jax.Array | None] | None:
    if not options.style_mask:
        return None
    masks: list[jax.Array | None] = [None] * len(styles)
    for i, (path, (source, style)) in enumerate(zip(options.style_mask, styles, strict=True)):
        if path != "all":
            width, height = size_of(source, max_pixels=options.max_pixels)  # the style may have another aspect ratio
            mask = load_mask(path, height=height, width=width, option="--style-mask", max_pixels=options.max_pixels)
            masks[i] = resample(mask, *style.shape[:2], method="linear")
    return masks


def expand_paths(paths: Iterable[Path], *, besides: Collection[Path] = ()) -> list[Path]:
    """Return `paths` with folders replaced by their images, and patterns such as *.jpg by the matching files."""
    files: list[Path] = []
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
        files += inside if inside == [path] else [each for each in inside if each.resolve() not in besides]
    return files


def load_mask(path: Path, *, height: int, width: int, option: str, max_pixels: int | None) -> jax.Array:
    """Load a mask for an image of this size: its luminance times its alpha, `[H, W]`."""
    picture = load_image(path, max_pixels=max_pixels)
    mask = color.luminance(jnp.asarray(picture.rgb))[..., 0]
    mask = mask if picture.alpha is None else mask * jnp.asarray(picture.alpha)
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

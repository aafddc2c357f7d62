"""Input files of a run: the network, pictures, statistics and masks, and the problem that is made of them."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
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
from jaxstyle.losses.targets import Style
from jaxstyle.networks import pretrained
from jaxstyle.networks.vgg import Params
from jaxstyle.runtime import style_cache
from jaxstyle.runtime.callbacks import Callback, message
from jaxstyle.runtime.options import STATISTICS, StylizeOptions
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
    found = pretrained.find(name, weights=weights, offline=offline, progress=progress)
    if found.note:
        message(callbacks, found.note, kind="warning")
    message(callbacks, f"Network: {found.network}, {found.origin}")
    params = pretrained.load(found)
    file = found.path.name if found.path else ""
    return LoadedNetwork(params, Weights(found.network, file, statistics_io.network_hash(params)))


def load_stylize(
    content: Path,
    styles: Sequence[Path],
    options: StylizeOptions,
    network: LoadNetwork,
    *,
    cached: Mapping[Path, Style | Sizes] = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> tuple[Problem, np.ndarray | None]:
    """Load the pictures of a style transfer, and return its problem and the alpha channel of the content."""
    preset, objective = options.resolve()
    pixels = options.max_pixels
    how: dict[str, Any] = {"resample": preset.resample, "max_pixels": pixels}
    picture = load_image(content, size=options.size, rounding=preset.rounding, **how)
    height, width, _ = picture.rgb.shape
    start: Any = options.init
    if isinstance(start, Path):
        start = load_image(start, size=(width, height), **how).rgb
    masks = _content_masks(options, picture)
    images = {
        path: style_image(path, options, preset, content=picture)
        for path in styles
        if path.suffix.lower() not in STATISTICS and path not in cached
    }
    params = network().params
    saved = {
        path: _statistics(path, options, preset, objective, params=params, callbacks=callbacks)
        for path in styles
        if path not in images and path not in cached
    }
    if saved and objective.statistic == "sliced" and len(styles) > 1:
        raise InputError("Statistics of 'sliced' have different directions: mix the pictures instead.")
    if options.color == "none" and options.init != "style" and not options.style_mask:
        how = {"steps": options.steps, "scales": preset.scales, "params": params, "seed": options.seed}
        how |= {"objective": objective, "network": preset.network}
        saved |= style_cache.summarize_styles(images, height, width, **how)
    in_order = [(path, images[path]) for path in styles if path in images]
    known: dict[Path, Any] = {**images, **saved, **cached}
    problem = make_problem(
        params,
        picture.rgb,
        [known[path] for path in styles],
        **method_of(preset),
        objective=objective,
        color=options.color,
        init=start,
        key=jax.random.key(options.seed),
        steps=options.steps,
        style_weights=options.shares(len(styles)),
        content_masks=masks,
        style_masks=_style_masks(options, in_order),
    )
    return problem, picture.alpha


def load_texture(
    styles: Sequence[Path],
    height: int,
    width: int,
    *,
    network: LoadNetwork,
    preset: Preset,
    objective: Objective,
    steps: int = 300,
    seed: int = 0,
    style_size: int | None = None,
    style_weights: Sequence[float] | None = None,
    max_pixels: int | None = None,
) -> Problem:
    """Load the styles of a texture, and return its problem."""
    images: Any = [load_image(path, size=style_size, max_pixels=max_pixels).rgb for path in styles]
    ground: Any = np.zeros((height, width, 3), np.float32)
    how: dict[str, Any] = {"init": "noise", "key": jax.random.key(seed), "steps": steps}
    how |= {"style_weights": style_weights, "objective": objective, **method_of(preset)}
    return make_problem(network().params, ground, images, **how)


def load_reconstruction(
    image: Path,
    *,
    network: LoadNetwork,
    preset: Preset,
    objective: Objective,
    size: int = 512,
    steps: int = 300,
    seed: int = 0,
    max_pixels: int | None = None,
) -> tuple[Problem, np.ndarray | None]:
    """Load the image of a reconstruction, and return its problem and the alpha channel of the image."""
    picture = load_image(image, size=size, resample=preset.resample, rounding=preset.rounding, max_pixels=max_pixels)
    rgb: Any = picture.rgb
    how: dict[str, Any] = {"init": "noise", "key": jax.random.key(seed), "steps": steps}
    how |= {"objective": objective, **method_of(preset)}
    return make_problem(network().params, rgb, [rgb], **how), picture.alpha


def method_of(preset: Preset) -> dict[str, Any]:
    """Return the arguments of `make_problem` that a preset sets, except the objective."""
    return {"network": preset.network, "optimizer": preset.optimizer, "scales": preset.scales}


def style_image(path: Path, options: StylizeOptions, preset: Preset, *, content: Picture | None = None) -> jax.Array:
    """Load a style at its size for the last scale."""
    own = options.style_scale is not None or options.style_size is not None
    side = options.style_size or max(16, round((options.style_scale or 1.0) * options.size))
    size: Any = side
    if content is not None and preset.style_fit == "content" and not own:
        size = content.rgb.shape[1::-1]
    how: dict[str, Any] = {"resample": preset.resample, "rounding": preset.rounding, "max_pixels": options.max_pixels}
    style: Any = load_image(path, size=size, **how).rgb
    return style


def _statistics(
    path: Path,
    options: StylizeOptions,
    preset: Preset,
    objective: Objective,
    *,
    params: Params,
    callbacks: Sequence[Callback],
) -> Sizes:
    """Load the statistics of a style, and send a message if none of them are for about the size of the picture."""
    if options.style_scale is not None or options.style_size is not None or options.style_mask:
        raise InputError(
            f"{path} holds statistics, which are fixed: drop --style-size, --style-scale and --style-mask."
        )
    if options.color != "none":
        raise InputError(f"{path} holds statistics, which cannot be recolored: drop --color or pass a picture.")
    found = statistics_io.read(path, params=params, objective=objective, network=preset.network)
    if all(abs(math.log2(side / options.size)) > 0.5 for side in found):
        sides = ", ".join(map(str, sorted(found)))
        text = f"{path} is for pictures of {sides} pixels, not {options.size}: the style will look larger or smaller."
        message(callbacks, text)
    return found


def _content_masks(options: StylizeOptions, content: Picture) -> jax.Array | None:
    """Load the content masks at the size of the content, with soft edges."""
    if not options.content_mask:
        return None
    height, width, _ = content.rgb.shape
    how: dict[str, Any] = {"option": "--content-mask", "max_pixels": options.max_pixels}
    masks = [load_mask(path, height=height, width=width, **how) for path in options.content_mask]
    return jnp.stack([masks_module.feather(mask, pixels=options.feather) for mask in masks])


def _style_masks(options: StylizeOptions, styles: list[tuple[Path, jax.Array]]) -> list[jax.Array | None] | None:
    """Load the style masks at the size of their styles."""
    if not options.style_mask:
        return None
    masks: list[jax.Array | None] = []
    for path, (source, style) in zip(options.style_mask, styles, strict=True):
        if path == "all":
            masks.append(None)
            continue
        width, height = size_of(source, max_pixels=options.max_pixels)  # the style may have another aspect ratio
        mask = load_mask(path, height=height, width=width, option="--style-mask", max_pixels=options.max_pixels)
        masks.append(resample(mask, *style.shape[:2], method="linear"))
    return masks


def expand_paths(paths: Iterable[Path], *, besides: Collection[Path] = ()) -> list[Path]:
    """Return `paths` with folders replaced by their images, and patterns such as *.jpg by the matching files."""
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
    """Load a mask for an image of this size: its luminance times its alpha, `[H, W]`."""
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

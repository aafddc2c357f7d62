"""The cache of style statistics by the hash of a style: each style is summarized once per size."""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxstyle import __version__
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.losses import statistics_io
from jaxstyle.losses.layer_summaries import AnyNetwork, sized_layers
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import network_of_styles, summarize_style
from jaxstyle.networks import pretrained
from jaxstyle.networks.vgg import VGG19, Params
from jaxstyle.transfer.color import Sizes
from jaxstyle.transfer.resize import resize_style
from jaxstyle.transfer.scale import style_sides
from jaxstyle.transfer.schedule import Scales, plan

MOST = 2**28  # bytes; the least recently used files are removed first


class Settings(NamedTuple):
    """All but the picture and its size that statistics of a style depend on; `seed` is that of directions."""

    params: Params
    objective: Objective
    network: AnyNetwork
    seed: int


def summarize_styles(
    pictures: Mapping[Path, jax.Array], height: int, width: int, *, settings: Settings, steps: int, scales: Scales
) -> dict[Path, Sizes]:
    """Return the statistics of styles for every scale of a picture of this size."""
    longest, objective = max(height, width), settings.objective
    layers = sized_layers(settings.network, objective.layers)
    planned = plan(height, width, steps=steps, scales=scales, layers=layers)
    sides = style_sides(longest, planned, objective=objective)
    return {path: statistics_of(style, sides, settings, longest=longest) for path, style in pictures.items()}


def statistics_of(style: jax.Array, sides: Sequence[int], settings: Settings, *, longest: int) -> Sizes:
    """Return the statistics of a style for pictures of these longest sides, and save them in the user's cache.

    `longest` is the longest side of the picture for which the style is not reduced. If the cache cannot be read or
    written, they are computed again.
    """
    params, objective, network, seed = settings
    path = _path(style, settings, longest=longest)
    how: dict[str, Any] = {"params": params, "objective": objective, "network": network}
    found: Sizes = {}
    with contextlib.suppress(InputError, OSError):
        found = statistics_io.read(path, **how)
        os.utime(path)
    if missing := [side for side in sides if side not in found]:
        reduced = {side: resize_style(style, side / longest, layers=objective.style_layers) for side in missing}
        summaries = _summarize(params, reduced, jax.random.key(seed), objective.without_weights(), network=network)
        found = {**found, **summaries}
        with contextlib.suppress(UnavailableError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            statistics_io.write(path, found, pictures=[], **how)
            _limit_size(path.parent)
    return {side: found[side] for side in sides}


@partial(jax.jit, static_argnames="network")
def _summarize(
    params: Params, styles: dict[int, jax.Array], key: jax.Array, objective: Objective, *, network: AnyNetwork
) -> dict[int, Any]:
    """Return the statistics of a style at several sizes, computed by one program."""
    key = jax.random.fold_in(key, 1)  # the key of `scale.targets_for_scale`
    how: dict[str, Any] = {"objective": objective, "network": network, "key": key}
    return {side: summarize_style(params, style, **how) for side, style in styles.items()}


def _path(style: jax.Array, settings: Settings, *, longest: int) -> Path:
    """Return the file for a style and all options on which its statistics depend."""
    params, objective, network, seed = settings
    of_styles: Any = network_of_styles(network)
    sliced = objective.statistic == "sliced"
    facts = (style.shape, longest, objective.style_layers, objective.statistic, seed if sliced else None)
    if isinstance(of_styles, VGG19):
        names = ("pooling", "pooling_gain", "padding", "input_scale", "precision")
        facts += tuple(getattr(of_styles, name) for name in names)
    facts += (jax.devices()[0].device_kind,)
    digest = hashlib.sha256(repr((facts, __version__, jax.__version__)).encode())
    digest.update(statistics_io.network_hash(params).encode() + np.asarray(style).tobytes())
    return pretrained.cache() / "styles" / f"{digest.hexdigest()}.h5"


def _limit_size(folder: Path) -> None:
    files = sorted(folder.glob("*.h5"), key=lambda file: file.stat().st_mtime, reverse=True)
    taken = 0
    for file in files:
        taken += file.stat().st_size
        if taken > MOST:
            file.unlink(missing_ok=True)

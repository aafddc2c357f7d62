"""The cache of style statistics by the hash of a style: each style is summarized once per size."""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxstyle import __version__
from jaxstyle.config import Config
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.losses import statistics_io
from jaxstyle.losses.targets import summarize_style
from jaxstyle.networks import pretrained
from jaxstyle.networks.vgg import Params
from jaxstyle.transfer.color import Sizes
from jaxstyle.transfer.resize import resize_style
from jaxstyle.transfer.schedule import plan
from jaxstyle.transfer.stylize import style_sides

MOST = 2**28  # bytes; the least recently used files are removed first


def summarize_styles(
    pictures: Mapping[Path, jax.Array],
    height: int,
    width: int,
    *,
    steps: int,
    params: Params,
    config: Config,
    seed: int,
) -> dict[Path, Sizes]:
    """Return the statistics of styles for every scale of a picture of this size."""
    longest = max(height, width)
    sides = style_sides(longest, plan(height, width, steps=steps, config=config), config=config)
    return {
        path: statistics_of(style, sides, longest=longest, params=params, config=config, seed=seed)
        for path, style in pictures.items()
    }


def statistics_of(
    style: jax.Array, sides: Sequence[int], *, longest: int, params: Params, config: Config, seed: int
) -> Sizes:
    """Return the statistics of a style for pictures of these longest sides, and save them in the user's cache.

    `longest` is the longest side of the picture for which the style is not reduced. If the cache cannot be read or
    written, they are computed again.
    """
    path = _path(style, longest=longest, params=params, config=config, seed=seed)
    found: Sizes = {}
    with contextlib.suppress(InputError, OSError):
        found = statistics_io.read(path, params=params, config=config)
        os.utime(path)
    if missing := [side for side in sides if side not in found]:
        reduced = {side: resize_style(style, side / longest, layers=config.style_layers) for side in missing}
        found = {**found, **_summarize(params, reduced, jax.random.key(seed), config=config)}
        with contextlib.suppress(UnavailableError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            statistics_io.write(path, found, params=params, config=config, pictures=[])
            _limit_size(path.parent)
    return {side: found[side] for side in sides}


@partial(jax.jit, static_argnames="config")
def _summarize(params: Params, styles: dict[int, jax.Array], key: jax.Array, *, config: Config) -> dict[int, Any]:
    """Return the statistics of a style at several sizes, computed by one program."""
    key = jax.random.fold_in(key, 1)  # the key of `stylize.targets_at`
    return {side: summarize_style(params, style, key=key, config=config) for side, style in styles.items()}


def _path(style: jax.Array, *, longest: int, params: Params, config: Config, seed: int) -> Path:
    """Return the file for a style and all options on which its statistics depend."""
    sliced = config.statistic == "sliced"
    facts = (style.shape, longest, config.style_layers, config.statistic, config.pooling, config.pooling_gain)
    facts += (
        config.style_border,
        config.white,
        config.precision,
        jax.devices()[0].device_kind,
        seed if sliced else None,
    )
    digest = hashlib.sha256(repr((facts, __version__, jax.__version__)).encode())
    digest.update(statistics_io.network_hash(params).encode() + np.asarray(style).tobytes())
    return pretrained.cache() / "styles" / f"{digest.hexdigest()}.h5"


def _limit_size(folder: Path) -> None:
    """Remove the least recently used files until the others are within the limit."""
    files = sorted(folder.glob("*.h5"), key=lambda file: file.stat().st_mtime, reverse=True)
    taken = 0
    for file in files:
        taken += file.stat().st_size
        if taken > MOST:
            file.unlink(missing_ok=True)

"""The cache of style statistics by the hash of a style: each style is summarized once per size."""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxstyle import __version__
from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import limit_size
from jaxstyle.losses import statistics_io
from jaxstyle.losses.targets import network_of_styles, summarize_style
from jaxstyle.networks import pretrained
from jaxstyle.networks.vgg import Params
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.record import NETWORK_SETTINGS
from jaxstyle.transfer.color import Sizes
from jaxstyle.transfer.resize import resize_style
from jaxstyle.transfer.scale import style_sides

MOST = 2**28  # bytes; the least recently used files are removed first


def with_statistics(problem: Problem) -> Problem:
    """Return a problem whose style images are replaced by their statistics at every scale, from the user's cache."""
    sides = style_sides(max(problem.content.shape[:2]), problem.schedule, objective=problem.objective)
    styles = [style if isinstance(style, Mapping) else statistics_of(style, sides, problem) for style in problem.styles]
    return replace(problem, styles=styles)


def statistics_of(style: Any, sides: Sequence[int], problem: Problem) -> Sizes:
    """Return the statistics of a style for scales of these longest sides, and save them in the user's cache."""
    params, path, longest = problem.params, _path(style, problem), max(problem.content.shape[:2])
    objective: Any = problem.objective
    how: dict[str, Any] = {"params": params, "objective": objective, "network": problem.network}
    statistics: Sizes = {}
    with contextlib.suppress(InputError, OSError):  # then they are computed again
        statistics = statistics_io.read(path, **how)
        os.utime(path)
    if missing := [side for side in sides if side not in statistics]:
        reduced = {side: resize_style(style, side / longest, layers=objective.style_layers) for side in missing}
        options: dict[str, Any] = {"objective": objective.without_weights(), "network": problem.network}
        statistics = {**statistics, **_summarize(params, reduced, problem.key, **options)}
        with contextlib.suppress(UnavailableError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            statistics_io.write(path, statistics, pictures=[], **how)
            limit_size(path.parent.glob("*.h5"), MOST)
    return {side: statistics[side] for side in sides}


@partial(jax.jit, static_argnames="network")
def _summarize(params: Params, styles: dict[int, Any], key: jax.Array | None, **options: Any) -> dict[int, Any]:
    """Return the statistics of a style at several sizes, computed by one program."""
    options["key"] = None if key is None else jax.random.fold_in(key, 1)  # the key of `Transfer.targets`
    return {side: summarize_style(params, style, **options) for side, style in styles.items()}


def _path(style: Any, problem: Problem) -> Path:
    """Return the file for a style and all options on which its statistics depend."""
    objective: Any = problem.objective
    network, key = network_of_styles(problem.network), problem.key
    settings = [getattr(network, name, None) for name in NETWORK_SETTINGS if name not in ("remat", "tile_pixels")]
    facts = (style.shape, max(problem.content.shape[:2]), objective.style_layers, objective.statistic, settings)
    seed = None if key is None or objective.statistic != "sliced" else jax.random.key_data(key).tolist()
    facts += (seed, jax.devices()[0].device_kind, __version__, jax.__version__)
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(statistics_io.network_hash(problem.params).encode() + np.asarray(style).tobytes())
    return pretrained.cache() / "styles" / f"{digest.hexdigest()}.h5"

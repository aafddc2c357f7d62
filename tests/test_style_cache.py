"""The cache of style statistics: one computation per style, size, network and options, and no error if it fails."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import stylize, write_inputs
from conftest import picture

from jaxstyle.losses.moments import Moments
from jaxstyle.losses.objective import Objective
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.optimizers import LBFGS
from jaxstyle.runtime import style_cache
from jaxstyle.runtime.problem import Problem

OBJECTIVE = Objective(content={"relu1_1": 1.0}, style={"relu1_1": 6.0})
STYLE = np.full((40, 32, 3), 0.5, np.float32)


@pytest.fixture
def computed(isolated, monkeypatch) -> list[float]:
    """Replace the statistics of a style by constants; return a list of the factors by which it is resized."""
    factors: list[float] = []

    def one(style: Any) -> dict[str, Moments]:
        factors.append(len(style) / len(STYLE))
        mean: Any = np.full(4, factors[-1], np.float32)
        second: Any = np.full((4, 4), style.mean(), np.float32)
        return {"relu1_1": Moments(mean, second)}

    def compute(_params: Any, styles: Any, *_: Any, **__: Any) -> Any:
        return {side: one(style) for side, style in styles.items()}

    monkeypatch.setattr(style_cache, "_summarize", compute)
    return factors


def problem(*, longest: int = 64, objective: Any = OBJECTIVE, network: Any = None, seed: int = 0, **others) -> Problem:
    content = np.full((48, longest, 3), 0.5, np.float32)
    parts: dict[str, Any] = {"objective": objective, "network": network or VGG19(), "optimizer": LBFGS()}
    parts |= {"start": "content", "key": jax.random.key(seed), "steps": 10, "picture": content, "content": content}
    parts |= {"styles": [STYLE]} | others
    return Problem(**parts)


@pytest.fixture
def get(params):
    """Return the statistics of a style for some sizes."""

    def get(style: Any = STYLE, sides: Any = (32, 64), **options: Any) -> Any:
        return style_cache.statistics_of(style, sides, problem(**{"params": params} | options))

    return get


def test_statistics_are_computed_once_per_size_and_read_from_the_cache(computed, get):
    first = get()
    assert computed == [0.5, 1.0] and list(first) == [32, 64]
    again = get()
    assert computed == [0.5, 1.0]
    for side in (32, 64):
        np.testing.assert_array_equal(again[side]["relu1_1"].mean, first[side]["relu1_1"].mean)
    assert list(get(sides=(16, 64))) == [16, 64] and computed == [0.5, 1.0, 0.25]
    assert list(get(sides=(16, 32, 64))) == [16, 32, 64] and len(computed) == 3


def test_another_style_size_network_or_seed_is_computed_anew(computed, get, params):
    get()
    for options in (
        {"style": STYLE + 1 / 256},
        {"style": STYLE.reshape(32, 40, 3)},
        {"longest": 128},
        {"network": VGG19(pooling="avg")},
        {"network": VGG19(pooling_gain=2.0)},
        {"network": VGG19(precision="bfloat16")},
        {"network": VGG19(padding="replicate")},
        {"network": VGG19(input_scale=256.0)},
    ):
        before = len(computed)
        get(**options)
        assert len(computed) == before + 2, options
    before = len(computed)
    get(objective=Objective(content={"relu1_2": 2.0}, style={"relu1_1": 3.0}), seed=7)  # used by no moment of the style
    assert len(computed) == before
    sliced = replace(OBJECTIVE, statistic="sliced")
    paths = [style_cache._path(STYLE, problem(params=params, objective=sliced, seed=seed)) for seed in (0, 7)]
    assert paths[0] != paths[1]
    get(sides=(64,), params=jax.tree.map(lambda leaf: np.asarray(leaf) + 1, params))
    assert len(computed) == before + 1


@pytest.mark.parametrize("fault", ["damaged", "a folder", "not writable"])
def test_a_cache_that_fails_costs_a_computation_only(computed, get, fault):
    get()
    [file] = Path(os.environ["JAXSTYLE_CACHE"], "styles").glob("*.h5")
    if fault == "damaged":
        file.write_bytes(file.read_bytes()[:500])
    elif fault == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.unlink()
        file.parent.rmdir()
        file.parent.write_text("a file in place of the folder")
    assert list(get()) == [32, 64] and len(computed) == 4


def test_the_least_recently_used_statistics_are_removed_first(computed, get, monkeypatch):
    styles = [STYLE + i / 256 for i in range(4)]
    folder = Path(os.environ["JAXSTYLE_CACHE"], "styles")
    files: list[Path] = []
    for age, style in enumerate(styles[:3]):
        get(style)
        [new] = set(folder.glob("*.h5")) - set(files)
        os.utime(new, (age, age))
        files.append(new)
    get(styles[0])  # now the most recently used
    monkeypatch.setattr(style_cache, "MOST", 3 * files[0].stat().st_size)
    get(styles[3])
    assert files[0].exists() and not files[1].exists() and files[2].exists() and len(list(folder.glob("*.h5"))) == 3


def test_a_command_reads_statistics_only_where_nothing_else_of_a_style_is_used(fake_runner, isolated, monkeypatch):
    monkeypatch.chdir(isolated)
    write_inputs(isolated)
    asked: list[Any] = []
    monkeypatch.setattr(style_cache, "with_statistics", lambda problem: asked.append(problem) or problem)
    assert stylize() == 0
    assert len(asked) == 1
    for options in ({"color": "keep"}, {"init": "style"}, {"style_mask": ("all",)}):
        assert stylize(**options) == 0
    assert len(asked) == 1


def test_sizes_are_those_of_all_scales_and_halves(computed, params):
    objective = Objective(content={"relu1_2": 1.0}, style={"relu1_1": 6.0}, half_resolution_above=16)
    actual = style_cache.with_statistics(problem(params=params, objective=objective, longest=80, scales=(40, 80)))
    assert [list(style) for style in actual.styles] == [[10, 20, 40, 80]]
    assert computed == [1 / 8, 1 / 4, 1 / 2, 1.0]


@pytest.mark.slow
def test_cached_statistics_equal_those_of_the_picture_at_every_scale_and_half(params, isolated):
    objective = replace(OBJECTIVE, half_resolution_above=40)
    style = picture(70, 64, seed=1)
    direct_problem = problem(params=params, objective=objective, longest=80, scales=1, styles=[style])
    cached_problem = style_cache.with_statistics(direct_problem)
    for number in range(len(direct_problem.schedule)):
        cached, direct = (each.targets(number) for each in (cached_problem, direct_problem))
        for _ in range(2):
            np.testing.assert_allclose(cached.style["relu1_1"].second, direct.style["relu1_1"].second, rtol=1e-4)
            cached, direct = cached.half, direct.half

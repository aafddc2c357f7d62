"""The loop of segments and scales of a command, with steps in NumPy instead of compiled programs."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import UnavailableError
from jaxstyle.losses.objective import term_names
from jaxstyle.networks import pretrained, weights_io
from jaxstyle.networks.vgg import BLOCK_WIDTHS
from jaxstyle.optim.early_stopping import Watch
from jaxstyle.runtime import memory, problem, runner
from jaxstyle.runtime.runner import Diverged, Place, is_whole, news_of, walked_again
from jaxstyle.transfer.schedule import Scale

NOTHING: Any = None
SCALES = (Scale(16, 20, steps=5), Scale(32, 40, steps=7))
CONFIG = Config(optimizer="adam", content_layers=("relu1_1",), style_layers=("relu1_2",))
WEIGHTS = LossWeights(content={"relu1_1": 2.0}, style={"relu1_2": 3.0}, tv=0.5)


class State(NamedTuple):
    """A state whose image rises by 1 / 64 in each step, until step `stop` of its scale."""

    image: np.ndarray
    taken: int
    stop: int
    parameters: None = None
    stall: None = None

    @property
    def watch(self) -> Any:
        return Watch(NOTHING, NOTHING, np.asarray(self.stop if self.done else 0))  # pyright: ignore

    @property
    def done(self) -> bool:
        return bool(self.stop) and self.taken >= self.stop


class Step:
    """A program of some steps in NumPy; `fault(step)` returns terms that replace those of a step of the scale."""

    def __init__(self, *, fault: Callable[[int], dict[str, float]] = lambda step: {}, size: int = 0) -> None:
        self.fault, self.size = fault, size

    def __call__(self, state: State, *given: Any) -> tuple[State, np.ndarray]:
        rows = []
        for _step in range(given[-1]):
            if not state.done:
                state = state._replace(image=state.image + 1 / 64, taken=state.taken + 1)
            value = float(state.image.flat[0])
            terms = {"content/relu1_1": value, "style/relu1_2": 2 * value, "tv": 1.0, "bounds": 0.0, "total": 9 * value}
            rows.append(terms | self.fault(state.taken))
        return state, np.asarray([[row[name] for name in term_names(CONFIG)] for row in rows], np.float32)

    def memory_analysis(self) -> SimpleNamespace:
        return SimpleNamespace(temp_size_in_bytes=self.size, output_size_in_bytes=0, alias_size_in_bytes=0)


class FakeWork(problem.Work):
    """A `Work` of two scales, whose programs are `Step` objects."""

    ready: Any = staticmethod(lambda scale: None)
    stops: Any = {}  # the step at which a scale levels off, by its number
    fault: Any = staticmethod(lambda step: {})
    size = 0
    cut = 0

    def scales(self) -> tuple[Scale, ...]:
        return SCALES

    def program(self, scale: Scale, targets: Any, *, cut: int = 0) -> Any:
        return Step(fault=self.fault, size=self.size)

    def at(self, scale: Scale, *, cuts: Any = None) -> Any:
        segment = self.segment(scale)
        cut = self.cut if cuts is None else cuts.get(max(scale.width, scale.height), 0)
        return problem.Ready(NOTHING, segment, self.program(scale, None), cut, state_bytes=100)

    def compile_ahead(self, scale: Scale) -> None:
        self.compiled[scale.width,] = NOTHING

    def begin(self, scale: Scale, painted: Any = None) -> Any:
        start = 0.0 if painted is None else float(painted.flat[0])
        return State(
            np.full((scale.height, scale.width, 3), start, np.float32), 0, self.stops.get(SCALES.index(scale), 0)
        )

    def image_of(self, state: Any, scale: Scale) -> Any:
        return state.image

    def finite(self, image: Any) -> np.ndarray:
        return np.asarray(np.isfinite(np.asarray(image)).all())


def fake(*, config: Config | None = None, **attributes: Any) -> FakeWork:
    own = {name: attributes.pop(name) for name in list(attributes) if name in ("stops", "fault", "size", "cut")}
    kind: Any = type("Fake", (FakeWork,), own)
    config = config or CONFIG
    return kind({}, NOTHING, NOTHING, [], WEIGHTS, config, "content", NOTHING, steps=12, **attributes)


@pytest.fixture(autouse=True)
def accelerator(monkeypatch) -> None:
    """Take the segments of an accelerator, whose length depends on nothing but the steps."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


class Shown:
    """A progress bar that counts steps."""

    taken = 0

    def compiling(self, side: int) -> Any:
        return nullcontext()

    def go_on(self, taken: int) -> None:
        self.taken = taken

    def advance(self, steps: int, terms: Any) -> None:
        self.taken += steps


def steps() -> Any:
    return Shown()


def places(of: problem.Work, **options: Any) -> list[Place]:
    return list(runner.walk(of, steps(), **options))


def same(one: Place, two: Place) -> None:
    assert (one.scale, one.taken, one.steps) == (two.scale, two.taken, two.steps)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.sides, two.sides)
    for name in one.trace:
        np.testing.assert_array_equal(one.trace[name], two.trace[name])


def test_a_walk_takes_all_steps_of_all_scales_and_starts_each_from_the_image_before():
    found = places(fake())
    last = found[-1]
    assert [place.steps for place in found] == [5, 12]  # one segment per scale
    assert last.sides.tolist() == [20] * 5 + [40] * 7 and (last.scale, last.taken) == (1, 7)
    np.testing.assert_array_equal(last.image, np.full((32, 40, 3), 12 / 64, np.float32))
    np.testing.assert_allclose(last.trace["content/relu1_1"], np.arange(1, 13) / 64)
    assert is_whole(fake(), last) and not is_whole(fake(), found[0])


def test_each_scale_but_the_first_is_compiled_while_the_one_before_runs():
    of = fake()
    next(runner.walk(of, steps()))  # waits for the thread when it is closed
    assert list(of.compiled) == [(40,)]
    of = fake()
    assert [place.steps for place in places(of, until=5)] == [5] and of.compiled == {}


@given(save_every=st.integers(0, 13), most=st.integers(1, 10), until=st.integers(1, 12), split=st.integers(1, 12))
def test_segments_multiples_and_resuming_do_not_change_a_walk(save_every, most, until, split):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problem, "MOST_STEPS_A_SEGMENT", most)
        found = places(fake(save_every=save_every))
        same(found[-1], places(fake())[-1])
        reached = {place.steps for place in found}
        assert save_every == 0 or set(range(save_every, 13, save_every)) <= reached
        assert places(fake(save_every=save_every), until=until)[-1].steps == until
        start = places(fake(), until=split)[-1]
        resumed = places(fake(save_every=save_every), place=start)
        same(resumed[-1] if resumed else start, found[-1])
        again = walked_again(fake(), steps(), lambda: False, until=until)
        assert again is not None and again.steps == until


def test_a_scale_that_levels_off_ends_at_the_same_step_for_any_segment(monkeypatch):
    for most in [1, 4, 10]:
        monkeypatch.setattr(problem, "MOST_STEPS_A_SEGMENT", most)
        shown = steps()
        last = list(runner.walk(fake(stops={0: 3, 1: 2}), shown))[-1]
        assert last.sides.tolist() == [20] * 3 + [40] * 2 and len(last.trace["total"]) == 5
        assert shown.taken == 12  # the steps that are left out count as taken
        assert is_whole(fake(), last)


def test_a_walk_stops_before_the_next_segment_when_halted(monkeypatch):
    monkeypatch.setattr(problem, "MOST_STEPS_A_SEGMENT", 1)
    answers = iter([False, False, True, True])
    assert [place.steps for place in places(fake(), halted=lambda: next(answers))] == [1, 2]
    assert walked_again(fake(), steps(), lambda: True, until=3) is None
    assert walked_again(fake(), steps(), lambda: False, until=0) is None


@pytest.mark.parametrize(("most", "place"), [(1, 3), (10, None)])
def test_divergence_names_the_step_and_returns_a_place_before_it_if_there_is_one(most, place, monkeypatch):
    monkeypatch.setattr(problem, "MOST_STEPS_A_SEGMENT", most)
    bad = fake(fault=staticmethod(lambda step: {"tv": np.nan} if step == 5 else {}))
    with pytest.raises(Diverged, match="tv is nan at step 5") as raised:
        places(bad)
    assert raised.value.fault.sound == 3  # the terms of a step are those of the image before it
    assert (raised.value.place.steps if raised.value.place else None) == place
    again = walked_again(bad, steps(), lambda: False, until=3)
    assert again is not None and again.steps == 3


def test_an_image_that_is_not_finite_diverges_even_if_its_terms_are_finite(monkeypatch):
    monkeypatch.setattr(FakeWork, "finite", lambda self, image: np.asarray(np.asarray(image).max() < 4.5 / 64))
    monkeypatch.setattr(problem, "MOST_STEPS_A_SEGMENT", 1)
    with pytest.raises(Diverged, match="not finite after step 5") as raised:
        places(fake())
    assert raised.value.fault.sound == 4 and raised.value.place is not None and raised.value.place.steps == 4


def test_the_earliest_term_that_is_not_finite_is_the_fault():
    trace = {"tv": np.array([1, np.inf, np.nan]), "total": np.array([1, 2, -np.inf]), "bounds": np.zeros(3)}
    assert runner.fault_of(trace, finite=True, done=4) == ("tv is inf at step 6", 4)
    assert runner.fault_of({"total": np.zeros(3)}, finite=False, done=4) == (
        "the picture is not finite after step 7",
        6,
    )
    assert runner.fault_of({"total": np.zeros(3)}, finite=True) is None


def test_cuts_of_a_scale_are_recorded_and_used_again_after_resuming():
    first = places(fake(cut=77), until=7)[-1]
    assert dict(first.cuts) == {20: 77, 40: 77}
    assert dict(places(fake(cut=55), place=first)[-1].cuts) == {20: 77, 40: 77}
    assert dict(places(fake(cuts={40: 33}))[-1].cuts) == {40: 33}


def test_a_program_that_does_not_fit_is_refused_with_its_need_before_the_first_step(monkeypatch):
    monkeypatch.setattr(memory, "in_use", lambda: 2**30)
    monkeypatch.setattr(memory, "limit", lambda: 3 * 2**30)
    monkeypatch.setattr(runner, "most_of_all", lambda: 3 * 2**30)
    with pytest.raises(UnavailableError, match=r"^20 pixels take 5 GiB, but only 3 GiB .* --size 16\.$"):
        places(fake(size=4 * 2**30))
    at_limit = fake(size=2 * 2**30 - 100)  # 100 bytes of state
    assert places(at_limit)[-1].steps == 12
    with pytest.raises(UnavailableError):
        places(fake(size=2 * 2**30 - 99))


def test_memory_that_runs_out_in_a_step_names_need_and_cures(monkeypatch):
    def fault(step: int) -> dict[str, float]:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffer 1:\n...")

    monkeypatch.setattr(memory, "in_use", lambda: 2**30)
    monkeypatch.setattr(memory, "limit", lambda: 3 * 2**30)
    monkeypatch.setattr(runner, "most_of_all", lambda: 2**60)
    lbfgs = fake(size=4 * 2**30, fault=staticmethod(fault), config=replace(CONFIG, optimizer="lbfgs", memory=10))
    with pytest.raises(UnavailableError, match="20 pixels take 5 GiB, but only 3 GiB .* use --size 16"):
        places(lbfgs)

    def broken(step: int) -> dict[str, float]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        places(fake(fault=staticmethod(broken)))


def test_the_cures_for_a_shortage_fit_by_the_memory_of_the_program(monkeypatch):
    monkeypatch.setattr(memory, "in_use", lambda: 2**30)
    monkeypatch.setattr(memory, "limit", lambda: 3 * 2**30)
    step: Any = Step(size=4 * 2**30)
    options: Any = {"pair": 2**28, "pairs": 20, "lanes": 8, "strips": True}
    said = memory.shortage(step, 1000, **options)
    assert said.startswith("1000 pixels take 5 GiB, but only 3 GiB are there: use --lanes 4 or --size ")
    assert said.endswith(" or --memory 12 or --remat.")
    size = int(said.partition("--size ")[2].split()[0])
    assert 0.9 * 2 < 4 * (size / 1000) ** 2 <= 2 and size % 16 == 0  # GiB besides those in use
    assert "--memory 3 " in memory.shortage(step, 1000, **options | {"pairs": 11})
    assert "--memory" not in memory.shortage(step, 1000, **options | {"pairs": 10})
    alone: Any = {"pair": 0, "pairs": 20, "lanes": 1, "strips": False}
    assert memory.shortage(step, 1000, **alone, shared=True).endswith(f"use --size {size} or --devices 1.")
    assert "take 6 GiB" in memory.shortage(step, 1000, **alone, missing=2**30)


def test_restarts_and_stops_of_lbfgs_are_reported_once_for_finite_lanes():
    def at(restarted: list[int], stopped: list[int], *, taken: int) -> Place:
        state: Any = SimpleNamespace(stall=SimpleNamespace(restarted=np.array(restarted), stopped=np.array(stopped)))
        totals = np.array([[1.0] * 12, [1.0] * 12, [np.nan] * 12])
        return Place(1, taken, state, NOTHING, np.full(12, 40), {"total": totals}, {})

    reader: Any = SimpleNamespace(read=lambda tree: tree, config=Config(patience=4))
    news = news_of(reader, at([3, 0, 3], [6, 0, 6], taken=7), before=5)  # the scale started at step 5
    assert [lane for lane, _ in news] == [0, 0]
    assert "no progress in 4 steps at 40 pixels" in news[0][1] and "restarted at step 8" in news[0][1]
    assert "stopped at step 11" in news[1][1] and "--learning-rate" in news[1][1]
    assert [text for _, text in news_of(reader, at([3, 0, 3], [6, 0, 6], taken=7), before=8)] == [news[1][1]]
    assert news_of(reader, at([3, 0, 3], [6, 0, 6], taken=7), before=11) == []
    assert news_of(reader, places(fake())[-1], before=0) == []  # adam


def test_a_segment_on_a_cpu_is_longer_for_less_arithmetic_per_step(monkeypatch):
    monkeypatch.setattr(problem, "WORK_A_SEGMENT", 3e10)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    mini = weights_io.widths(pretrained.MINI)
    for widths, size, expected in [
        (BLOCK_WIDTHS, 512, 1),
        (BLOCK_WIDTHS, 128, 6),
        (mini, 512, 6),
        (mini, 2048, 1),
        (TINY, 512, 10),
    ]:
        names = [f"conv{block + 1}_{i + 1}" for block, own in enumerate(widths) for i in range(len(own))]
        outputs = [width for own in widths for width in own]
        kernels = [np.broadcast_to(0.0, (3, 3, *pair)) for pair in zip([3, *outputs], outputs, strict=False)]
        params: Any = {name: {"kernel": kernel} for name, kernel in zip(names, kernels, strict=True)}
        some = problem.Work(params, NOTHING, NOTHING, [], LossWeights(), Config(), "content", NOTHING, steps=100)
        assert some.segment(Scale(size * 3 // 4, size, steps=100)) == expected
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    some = problem.Work({}, NOTHING, NOTHING, [], LossWeights(), Config(), "", NOTHING, steps=100)
    assert some.segment(Scale(32, 32, steps=100)) == 10


def test_the_summary_of_a_step_weights_the_terms_and_averages_over_lanes():
    last = {"content/relu1_1": 1.0, "style/relu1_2": 2.0, "tv": 4.0, "total": 10.0}
    trace = {name: np.array([[0.0, value], [0.0, 3 * value]]) for name, value in last.items()}
    assert runner._summary(trace, WEIGHTS) == {"total": 20.0, "content": 4.0, "style": 12.0, "tv": 4.0}
    assert "tv" not in runner._summary(trace, replace(WEIGHTS, tv=0.0))

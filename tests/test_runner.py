"""The loop of segments and scales of a command, with steps in NumPy instead of compiled programs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event as Flag
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.losses.objective import Objective
from jaxstyle.networks import pretrained, weights_io
from jaxstyle.networks.vgg import BLOCK_WIDTHS, VGG19
from jaxstyle.optim.early_stopping import Watch
from jaxstyle.optim.optimizers import LBFGS, Adam
from jaxstyle.runtime import fitting, memory, problem, runner
from jaxstyle.runtime.callbacks import Event, never
from jaxstyle.runtime.fitting import fit
from jaxstyle.runtime.problem import make_problem
from jaxstyle.runtime.runner import Diverged, Snapshot, is_complete, lbfgs_messages, repeat
from jaxstyle.transfer.schedule import Scale

NOTHING: Any = None
SCALES = (Scale(16, 20, steps=5), Scale(32, 40, steps=7))
OBJECTIVE = Objective(content={"relu1_1": 2.0}, style={"relu1_2": 3.0}, tv=0.5)
PARTS: dict[str, Any] = {"picture": NOTHING, "content": NOTHING, "styles": [], "start": "content", "key": NOTHING}
PARTS |= {"objective": OBJECTIVE, "network": VGG19(), "optimizer": Adam(), "steps": 100}


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

    def __call__(self, state: State, *inputs: Any) -> tuple[State, np.ndarray]:
        rows = []
        for _step in range(inputs[-1]):
            if not state.done:
                state = state._replace(image=state.image + 1 / 64, taken=state.taken + 1)
            value = float(state.image.flat[0])
            terms = {"content/relu1_1": value, "style/relu1_2": 2 * value, "tv": 1.0, "total": 9 * value}
            rows.append(terms | {"range_penalty": 0.0} | self.fault(state.taken))
        return state, np.asarray([[row[name] for name in OBJECTIVE.term_names] for row in rows], np.float32)

    def memory_analysis(self) -> SimpleNamespace:
        return SimpleNamespace(temp_size_in_bytes=self.size, output_size_in_bytes=0, alias_size_in_bytes=0)


class FakeProblem(problem.Problem):
    """A `Problem` of two scales, whose programs are `Step` objects."""

    schedule: Any = SCALES
    ready: Any = staticmethod(lambda scale: None)
    stops: Any = {}  # the step at which a scale levels off, by its number
    fault: Any = staticmethod(lambda step: {})
    size = 0
    memory_plan = 0

    def program(self, scale: Scale, targets: Any, memory_plan: int = 0) -> Any:
        return Step(fault=self.fault, size=self.size)

    def at(self, number: int, image: Any = None, *, memory_plans: Any = None) -> Any:
        scale = SCALES[number]
        segment = self.segment(scale)
        memory_plan = self.memory_plan if memory_plans is None else memory_plans.get(max(scale.width, scale.height), 0)
        return problem.CompiledScale(NOTHING, segment, self.program(scale, None), memory_plan, state_bytes=100)

    def compile_ahead(self, number: int) -> None:
        self.compiled[number,] = NOTHING

    def initial_image(self, scale: Scale, previous: Any) -> np.ndarray:
        start = 0.0 if previous is None else float(previous.flat[0])
        return np.full((scale.height, scale.width, 3), start, np.float32)

    def begin(self, image: Any) -> Any:
        [number] = [number for number, scale in enumerate(SCALES) if image.shape[:2] == scale[:2]]
        return State(image, 0, self.stops.get(number, 0))

    def image_of(self, state: Any, scale: Scale) -> Any:
        return state.image

    def finite(self, image: Any) -> np.ndarray:
        return np.asarray(np.isfinite(np.asarray(image)).all())


def fake(**attributes: Any) -> FakeProblem:
    own = {name: attributes.pop(name) for name in list(attributes) if name in ("stops", "fault", "size", "memory_plan")}
    kind: Any = type("Fake", (FakeProblem,), own)
    return kind(**PARTS | {"params": {}, "steps": 12} | attributes)


@pytest.fixture(autouse=True)
def accelerator(monkeypatch) -> None:
    """Take the segments of an accelerator, whose length depends on nothing but the steps."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def places(of: problem.Problem, **options: Any) -> list[Snapshot]:
    return list(runner.iterate(of, **options))


def same(one: Snapshot, two: Snapshot) -> None:
    assert (one.scale, one.scale_step, one.step) == (two.scale, two.scale_step, two.step)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.sides, two.sides)
    for name in one.history:
        np.testing.assert_array_equal(one.history[name], two.history[name])


def test_a_walk_takes_all_steps_of_all_scales_and_starts_each_from_the_image_before():
    actual = places(fake())
    last = actual[-1]
    assert [place.step for place in actual] == [5, 12]  # one segment per scale
    assert last.sides.tolist() == [20] * 5 + [40] * 7 and (last.scale, last.scale_step) == (1, 7)
    np.testing.assert_array_equal(last.image, np.full((32, 40, 3), 12 / 64, np.float32))
    np.testing.assert_allclose(last.history["content/relu1_1"], np.arange(1, 13) / 64)
    assert is_complete(fake(), last) and not is_complete(fake(), actual[0])


def test_each_scale_but_the_first_is_compiled_while_the_one_before_runs():
    of = fake()
    next(runner.iterate(of))  # waits for the thread when it is closed
    assert list(of.compiled) == [(1,)]
    of = fake()
    assert [place.step for place in places(of, until=5)] == [5] and of.compiled == {}


def test_threads_compile_a_program_once_and_another_one_tries_after_a_failure():
    class Programs(dict):
        def setdefault(self, key: Any, value: Any = None) -> Any:
            asked.append(key)
            both.set() if len(asked) == 2 else None
            return super().setdefault(key, value)

    asked, made, both, program = list[Any](), list[bool](), Flag(), object()
    values: Any = Programs()

    def make() -> Any:
        made.append(both.wait(10))  # until the other thread asks too
        if len(made) == 1:
            raise MemoryError
        return program

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(problem.once, values, ("key",), make) for _ in range(2)]
        errors = [each.exception() for each in results]
    assert sorted(map(type, errors), key=str) == [MemoryError, type(None)] and made == [True, True]
    assert problem.once(values, ("key",), make) is program and len(made) == 2


@given(save_every=st.integers(0, 13), most=st.integers(1, 10), until=st.integers(1, 12), split=st.integers(1, 12))
def test_segments_multiples_and_resuming_do_not_change_a_walk(save_every, most, until, split):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problem, "MOST_STEPS_PER_SEGMENT", most)
        actual = places(fake(save_every=save_every))
        same(actual[-1], places(fake())[-1])
        reached = {place.step for place in actual}
        assert save_every == 0 or set(range(save_every, 13, save_every)) <= reached
        assert places(fake(save_every=save_every), until=until)[-1].step == until
        start = places(fake(), until=split)[-1]
        resumed = places(fake(save_every=save_every), resume=start)
        same(resumed[-1] if resumed else start, actual[-1])
        again = repeat(fake(), should_stop=never, until=until)
        assert again is not None and again.step == until


def test_a_scale_that_levels_off_ends_at_the_same_step_for_any_segment(monkeypatch):
    for most in [1, 4, 10]:
        monkeypatch.setattr(problem, "MOST_STEPS_PER_SEGMENT", most)
        events: list[Event] = []
        last = places(fake(stops={0: 3, 1: 2}), callbacks=[lambda event, _, events=events: events.append(event)])[-1]
        assert last.sides.tolist() == [20] * 3 + [40] * 2 and len(last.history["total"]) == 5
        level_off = [(event.step, event.size) for event in events if event.kind == "level off"]
        assert level_off == [(5, (20, 16)), (12, (40, 32))]  # the steps that are left out count as done
        assert events[-1].progress == 1.0
        assert is_complete(fake(), last)


def test_a_walk_stops_before_the_next_segment_when_halted(monkeypatch):
    monkeypatch.setattr(problem, "MOST_STEPS_PER_SEGMENT", 1)
    answers = iter([False, False, True, True])
    assert [place.step for place in places(fake(), should_stop=lambda: next(answers))] == [1, 2]
    assert repeat(fake(), should_stop=lambda: True, until=3) is None
    assert repeat(fake(), should_stop=never, until=0) is None


@pytest.mark.parametrize(("most", "place"), [(1, 3), (10, None)])
def test_divergence_names_the_step_and_returns_a_place_before_it_if_there_is_one(most, place, monkeypatch):
    monkeypatch.setattr(problem, "MOST_STEPS_PER_SEGMENT", most)
    bad = fake(fault=staticmethod(lambda step: {"tv": np.nan} if step == 5 else {}))
    with pytest.raises(Diverged, match="tv is nan at step 5") as raised:
        places(bad)
    assert raised.value.fault.last_finite == 3  # the terms of a step are those of the image before it
    assert (raised.value.snapshot.step if raised.value.snapshot else None) == place
    again = repeat(bad, should_stop=never, until=3)
    assert again is not None and again.step == 3


def test_an_image_that_is_not_finite_diverges_even_if_its_terms_are_finite(monkeypatch):
    monkeypatch.setattr(FakeProblem, "finite", lambda self, image: np.asarray(np.asarray(image).max() < 4.5 / 64))
    monkeypatch.setattr(problem, "MOST_STEPS_PER_SEGMENT", 1)
    with pytest.raises(Diverged, match="not finite after step 5") as raised:
        places(fake())
    assert raised.value.fault.last_finite == 4 and raised.value.snapshot is not None and raised.value.snapshot.step == 4


def test_the_earliest_term_that_is_not_finite_is_the_fault():
    history = {"tv": np.array([1, np.inf, np.nan]), "total": np.array([1, 2, -np.inf]), "range_penalty": np.zeros(3)}
    assert runner.fault_of(history, finite=True, done=4) == ("tv is inf at step 6", 4)
    assert runner.fault_of({"total": np.zeros(3)}, finite=False, done=4) == (
        "the picture is not finite after step 7",
        6,
    )
    assert runner.fault_of({"total": np.zeros(3)}, finite=True) is None


def test_the_memory_plan_of_a_scale_is_recorded_and_used_again_after_resuming():
    first = places(fake(memory_plan=77), until=7)[-1]
    assert dict(first.memory_plans) == {20: 77, 40: 77}
    assert dict(places(fake(memory_plan=55), resume=first)[-1].memory_plans) == {20: 77, 40: 77}
    assert dict(places(fake(memory_plans={40: 33}))[-1].memory_plans) == {40: 33}


def test_a_program_that_does_not_fit_is_refused_with_its_need_before_the_first_step(monkeypatch):
    monkeypatch.setattr(memory, "in_use", lambda: 2**30)
    monkeypatch.setattr(memory, "limit", lambda: 3 * 2**30)
    monkeypatch.setattr(memory, "limit_with_swap", lambda: 3 * 2**30)
    with pytest.raises(UnavailableError, match=r"^20 pixels take 5 GiB, but only 3 GiB .* --size 16\.$"):
        places(fake(size=4 * 2**30))
    at_limit = fake(size=2 * 2**30 - 100)  # 100 bytes of state
    assert places(at_limit)[-1].step == 12
    with pytest.raises(UnavailableError):
        places(fake(size=2 * 2**30 - 99))


def test_memory_that_runs_out_in_a_step_names_need_and_cures(monkeypatch):
    def fault(step: int) -> dict[str, float]:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffer 1:\n...")

    monkeypatch.setattr(memory, "in_use", lambda: 2**30)
    monkeypatch.setattr(memory, "limit", lambda: 3 * 2**30)
    monkeypatch.setattr(memory, "limit_with_swap", lambda: 2**60)
    lbfgs = fake(size=4 * 2**30, fault=staticmethod(fault), optimizer=LBFGS(history_size=10))
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
    layout: Any = SimpleNamespace(spans_processes=False)

    def said(pairs: int = 20, *, missing: int = 0, **options: Any) -> str:
        ready = problem.CompiledScale(NOTHING, 1, step, 0, state_bytes=(pairs + 1) * 2**28)
        some = fake(**{"optimizer": LBFGS(history_size=pairs)} | options)
        return runner.shortage(some, ready, Scale(750, 1000, 1), missing=missing)

    text = said(batch_size=8)
    assert text.startswith("1000 pixels take 5 GiB, but only 3 GiB are available: use --batch-size 4 or --size ")
    assert text.endswith(" or --lbfgs-history 12 or --remat.")
    size = int(text.partition("--size ")[2].split()[0])
    assert 0.9 * 2 < 4 * (size / 1000) ** 2 <= 2 and size % 16 == 0  # GiB besides those in use
    assert "--lbfgs-history 3 " in said(11, batch_size=8) and "--lbfgs-history" not in said(10, batch_size=8)
    assert said(optimizer=Adam(), layout=layout).endswith(f"use --size {size} or --devices 1.")
    assert "take 6 GiB" in said(missing=2**30)


def test_restarts_and_stops_of_lbfgs_are_reported_once_for_finite_images():
    def at(restarted: list[int], stopped: list[int], *, taken: int) -> Snapshot:
        state: Any = SimpleNamespace(stall=SimpleNamespace(restarted=np.array(restarted), stopped=np.array(stopped)))
        totals = np.array([[1.0] * 12, [1.0] * 12, [np.nan] * 12])
        return Snapshot(1, taken, state, NOTHING, np.full(12, 40), {"total": totals}, {})

    reader: Any = SimpleNamespace(read=lambda tree: tree, optimizer=LBFGS(patience=4))
    news = lbfgs_messages(reader, at([3, 0, 3], [6, 0, 6], taken=7), before=5)  # the scale started at step 5
    assert [index for index, _ in news] == [0, 0]
    assert "no progress in 4 steps at 40 pixels" in news[0][1] and "restarted at step 8" in news[0][1]
    assert "stopped at step 11" in news[1][1] and "--learning-rate" in news[1][1]
    assert [text for _, text in lbfgs_messages(reader, at([3, 0, 3], [6, 0, 6], taken=7), before=8)] == [news[1][1]]
    assert lbfgs_messages(reader, at([3, 0, 3], [6, 0, 6], taken=7), before=11) == []
    assert lbfgs_messages(reader, places(fake())[-1], before=0) == []  # adam


def test_a_segment_on_a_cpu_is_longer_for_less_arithmetic_per_step(monkeypatch):
    monkeypatch.setattr(problem, "WORK_PER_SEGMENT", 3e10)
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
        some = problem.Problem(params, **PARTS)
        assert some.segment(Scale(size * 3 // 4, size, steps=100)) == expected
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    some = problem.Problem({}, **PARTS)
    assert some.segment(Scale(32, 32, steps=100)) == 10


def test_the_metrics_of_a_step_are_weighted_terms_averaged_over_a_batch():
    last = {"content/relu1_1": 1.0, "style/relu1_2": 2.0, "tv": 4.0, "total": 10.0}
    history = {name: np.array([[0.0, value], [0.0, 3 * value]]) for name, value in last.items()}
    assert runner._metrics(history, OBJECTIVE) == {"total": 20.0, "content": 4.0, "style": 12.0, "tv": 4.0}
    assert "tv" not in runner._metrics(history, replace(OBJECTIVE, tv=0.0))


# fit


def fitted(of: problem.Problem, **options: Any) -> Any:
    """Return the result of `fit`; the picture is the image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "picture_of", lambda _, snapshot: np.asarray(snapshot.image))
        return fit(of, **options)


def test_events_come_in_the_order_of_the_run_with_rising_steps_and_progress(monkeypatch):
    monkeypatch.setattr(problem, "MOST_STEPS_PER_SEGMENT", 4)
    events: list[tuple[Event, Any]] = []
    result = fitted(fake(), callbacks=[lambda *event: events.append(event)])
    kinds = "compiling compiled steps steps compiling compiled steps steps".split()
    assert [event.kind for event, _ in events] == kinds
    assert [event.step for event, _ in events] == [0, 0, 4, 5, 5, 5, 9, 12]
    assert all((snapshot is not None) == (event.kind == "steps") for event, snapshot in events)
    assert [event.size for event, _ in events] == [(20, 16)] * 4 + [(40, 32)] * 4
    assert {event.total_steps for event, _ in events} == {12}
    pixels = 5 * 320 + 7 * 1280
    shares = [0, 0, 4 * 320, 5 * 320, 5 * 320, 5 * 320, 5 * 320 + 4 * 1280, pixels]
    assert [event.progress for event, _ in events] == pytest.approx([share / pixels for share in shares])
    assert events[-1][0].metrics["total"] == pytest.approx(9 * 12 / 64)
    assert (result.stop_reason, result.steps, result.resumed_at) == ("done", 12, 0)
    assert result.snapshot is events[-1][1]


def test_a_stopped_fit_is_resumed_to_the_same_result(monkeypatch):
    monkeypatch.setattr(problem, "MOST_STEPS_PER_SEGMENT", 1)
    answers = iter([False] * 3 + [True] * 9)
    first = fitted(fake(), should_stop=lambda: next(answers))
    assert (first.stop_reason, first.steps) == ("stopped", 3)
    second = fitted(fake(), resume=first.snapshot)
    assert (second.stop_reason, second.steps, second.resumed_at) == ("done", 12, 3)
    same(second.snapshot, fitted(fake()).snapshot)
    nothing = fitted(fake(), should_stop=lambda: True)
    assert (nothing.stop_reason, nothing.image, nothing.snapshot) == ("stopped", None, None)


def test_the_reason_of_the_end_is_that_of_the_steps(monkeypatch):
    monkeypatch.setattr(problem, "MOST_STEPS_PER_SEGMENT", 1)
    assert fitted(fake(stops={0: 3, 1: 2})).stop_reason == "converged"
    assert fitted(fake(), until=4)[3:6:2] == (4, "done")
    bad = fake(fault=staticmethod(lambda step: {"tv": np.nan} if step == 4 else {}))
    result = fitted(bad)
    assert (result.stop_reason, result.steps, result.message) == ("diverged", 2, "tv is nan at step 4")
    assert all(np.isfinite(values).all() for values in result.history.values())
    first = fake(fault=staticmethod(lambda step: {"tv": np.nan}))
    with pytest.raises(UnavailableError, match="tv is nan at step 1, so there is no picture: lower the weights"):
        fitted(first)


def test_a_snapshot_of_another_problem_is_refused():
    last = places(fake())[-1]
    with pytest.raises(InputError, match="after step 12 is of another problem"):
        places(fake(), resume=last._replace(scale=7))


@pytest.mark.slow
def test_two_fits_in_threads_have_the_results_of_two_in_sequence_and_stop_within_a_segment(params, content, style):
    options: dict[str, Any] = {"optimizer": Adam(), "scales": 1, "steps": 40}
    objectives = [Objective(content={"relu1_1": 1.0}, style={"relu1_2": weight}) for weight in (3.0, 30.0)]
    problems = [make_problem(params, content, style, objective=own, **options) for own in objectives]
    one_by_one = [fit(each) for each in problems]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(fit, problems))
    for one, other in zip(one_by_one, together, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.history["total"], other.history["total"])
    stop = Flag()
    steps: list[int] = []

    def listen(event: Event, _: Any) -> None:
        if event.kind == "steps":
            steps.append(event.step)
            stop.set()

    stopped = fit(problems[0], callbacks=[listen], should_stop=stop.is_set)
    assert stopped.stop_reason == "stopped" and steps == [stopped.steps] and stopped.steps < 40
    resumed = fit(problems[0], resume=stopped.snapshot)
    np.testing.assert_array_equal(resumed.image, one_by_one[0].image)


@pytest.mark.slow
def test_a_fit_is_resumed_from_its_folder_of_checkpoints_by_the_same_problem_only(params, content, style, tmp_path):
    options: dict[str, Any] = {"objective": OBJECTIVE, "optimizer": Adam(), "scales": 1, "steps": 40}
    problem_ = make_problem(params, content, style, **options)
    whole = fit(problem_)
    first = fit(problem_, checkpoint=tmp_path / "kept", until=20)
    second = fit(problem_, checkpoint=tmp_path / "kept")
    assert (first.steps, second.resumed_at, second.steps) == (20, 20, 40)
    np.testing.assert_array_equal(second.image, whole.image)
    other = make_problem(params, content, content, **options)
    with pytest.raises(InputError, match="has a checkpoint of another run, whose arrays"):
        fit(other, checkpoint=tmp_path / "kept")

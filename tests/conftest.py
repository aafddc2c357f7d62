"""Shared fixtures: a tiny network, small pictures, and the real weights and pictures where they are present."""

import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several workers may share an accelerator

import jax
import numpy as np
import pytest
from fake_runner import FakeRunner
from hypothesis import HealthCheck, settings

from jaxstyle.cli import main
from jaxstyle.images.save import save_image
from jaxstyle.networks import pretrained, weights_io
from jaxstyle.networks import pretrained as pretrained_module
from jaxstyle.networks.random_init import random_params

SHARED = Path(__file__).resolve().parents[2] / "shared"
TINY = ((4, 4), (6, 6), (8,) * 4, (8,) * 4, (8,) * 4)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


RELAXED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("short", max_examples=10, derandomize=True, database=None, **RELAXED)
settings.register_profile("long", max_examples=200, database=None, **RELAXED)

MARKERS = ("slow", "parity", "soak", "docs", "browser")
QUICK = " and ".join(f"not {name}" for name in MARKERS)  # addopts of pyproject.toml
MOST_PROGRAMS = 40  # distinct programs of the quick suite that take XLA longer than LONG_COMPILATION
LONG_COMPILATION = 0.1  # processor seconds, which do not depend on what else the machine does
FORGET_EVERY = 8  # slow tests, which compile up to ten large programs each
SLOW_TESTS = itertools.count(1)
PROGRAMS = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`: all damaged files of the soak tests and 200 examples a property, with a new seed each time."""
    parser.addoption("--long", action="store_true", help="run the soak tests in full, with random seeds")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the number of examples, skip XLA's optimizations while tests are collected, and count programs."""
    settings.load_profile("long" if config.option.long else "short")
    jax.config.update("jax_disable_most_optimizations", True)
    config.stash[PROGRAMS] = {}
    _count_programs(config.stash[PROGRAMS])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the soak tests that are no part of the sample, `soak(long=True)`, unless `--long` is given."""
    if not config.option.long:
        longer = [item for item in items if (mark := item.get_closest_marker("soak")) and mark.kwargs.get("long")]
        config.hook.pytest_deselected(items=longer)
        items[:] = [item for item in items if item not in longer]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Turn most of XLA's optimizations off, also in processes that the test starts, where a claim does not need them.

    Compilation then takes two thirds of the time. Tests marked with `optimized=True`, of equal bits, rounding, memory
    and agreement with PyTorch, compile programs as users run them; so do all suites but the quick one with `--long`.
    """
    options = item.config.option
    needed = options.long or any(mark.kwargs.get("optimized") for mark in item.iter_markers())
    disabled = options.markexpr == QUICK or not needed
    if disabled != jax.config.read("jax_disable_most_optimizations"):
        jax.clear_caches()  # programs of both kinds have one key
        jax.config.update("jax_disable_most_optimizations", disabled)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(disabled))


def _count_programs(programs: dict[str, float]) -> None:
    """Enter every program whose compilation takes XLA more processor seconds than `LONG_COMPILATION`, with its test."""
    began = time.process_time()

    def listen(event: str, duration_secs: float, **facts: str | int) -> None:
        nonlocal began
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":  # ends where XLA begins
            began = time.process_time()
        elif event == "/jax/core/compile/backend_compile_duration":
            seconds = min(time.process_time() - began, duration_secs)
            if seconds > LONG_COMPILATION:
                name = f"{len(programs)} {facts.get('fun_name', '')} {os.environ.get('PYTEST_CURRENT_TEST', '')}"
                programs[name] = seconds

    jax.monitoring.register_event_duration_secs_listener(listen)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Collect the programs of a worker."""
    for name, seconds in getattr(node, "workeroutput", {}).get("programs", {}).items():
        node.config.stash[PROGRAMS][f"{node.gateway.id} {name}"] = seconds


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the quick suite if it compiles too many programs."""
    programs, config = session.config.stash[PROGRAMS], session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["programs"] = programs  # pyright: ignore[reportAttributeAccessIssue]
    elif config.option.markexpr == QUICK and len(programs) > MOST_PROGRAMS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Print how many programs were compiled, and the slowest where they are too many."""
    programs = config.stash[PROGRAMS]
    terminalreporter.write_line(f"{len(programs)} programs took XLA more than {LONG_COMPILATION} processor seconds")
    if config.option.markexpr == QUICK and len(programs) > MOST_PROGRAMS:
        terminalreporter.write_line(f"ERROR: at most {MOST_PROGRAMS} are allowed in the quick suite", red=True)
    if config.option.markexpr == QUICK and (len(programs) > MOST_PROGRAMS or config.option.verbose > 0):
        for name, seconds in sorted(programs.items(), key=lambda item: -item[1]):
            terminalreporter.write_line(f"  {seconds:.2f} s  {name}")


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory):
    """Share compiled programs among the processes of one run of the tests: most of their time is compiling."""
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")
    jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))


@pytest.fixture(autouse=True)
def forgotten(request: pytest.FixtureRequest):
    """Forget large programs now and then: with hundreds of them in a process XLA has died, rarely, in compiling."""
    yield
    if request.node.get_closest_marker("slow") and next(SLOW_TESTS) % FORGET_EVERY == 0:
        jax.clear_caches()


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the tests were asked for by `--long`."""
    return request.config.option.long


@pytest.fixture(scope="session")
def params():
    """A VGG of 4 to 8 channels; its layers and their order are the real ones."""
    return random_params(widths=TINY, seed=1)


@pytest.fixture(scope="session")
def content():
    """A smooth picture of 32x40 pixels, float32 in [0, 1]."""
    return picture(32, 40, seed=0)


@pytest.fixture(scope="session")
def style():
    """A picture of another size than the content."""
    return picture(36, 32, seed=1)


def picture(height: int, width: int, *, seed: int) -> jax.Array:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(rng.uniform(2, 12) * x + rng.uniform(2, 12) * y + rng.uniform(0, 6)) for _ in range(3)]
    smooth = 0.5 + 0.35 * np.stack(waves, -1) + rng.uniform(-0.1, 0.1, (height, width, 3))
    return jax.numpy.asarray(np.clip(smooth, 0, 1), jax.numpy.float32)


@pytest.fixture
def isolated(tmp_path, monkeypatch) -> Path:
    """A folder of the test's own; the user's weights and cache are out of sight, and a download is refused."""
    monkeypatch.setattr(pretrained, "CHECKOUT", tmp_path / "none")
    monkeypatch.setattr(pretrained_module, "URL", "http://127.0.0.1:9/vgg19.h5")  # the discard port: refused
    monkeypatch.setattr(pretrained_module, "TIMEOUT", 2.0)
    monkeypatch.setenv("JAXSTYLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXSTYLE_WEIGHTS", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def input_files(tmp_path_factory) -> Path:
    """A folder with two pictures and a tiny network, to be copied."""
    path = tmp_path_factory.mktemp("inputs")
    save_image(path / "content.png", picture(32, 40, seed=0))
    save_image(path / "style.png", picture(36, 32, seed=1))
    params = random_params(widths=TINY, seed=1)
    weights_io.write(path / "tiny.h5", params, source="a seed", checksum="none", licence="none")
    return path


@pytest.fixture(scope="session")
def square_files(tmp_path_factory) -> Path:
    """A folder with two pictures of 32x32 pixels, to be copied."""
    path = tmp_path_factory.mktemp("square")
    for seed, name in enumerate(("content.png", "style.png")):
        save_image(path / name, picture(32, 32, seed=seed))
    return path


@pytest.fixture
def folder(isolated, input_files, monkeypatch) -> Path:
    """Problem in a folder of the test's own, with two pictures and a tiny network."""
    monkeypatch.chdir(isolated)
    for path in input_files.iterdir():
        shutil.copy(path, isolated)
    return isolated


@pytest.fixture
def refused(folder, square_files, capsys) -> Callable[..., tuple[int, str]]:
    """Run a command that fails, in `folder` with pictures of 32x32 pixels; return its status and its one sentence."""
    for path in square_files.iterdir():
        shutil.copy(path, folder)

    def run(*arguments: object) -> tuple[int, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        sentence = err.removesuffix("\n")
        assert out == "" and sentence.isprintable(), err  # so one line and no traceback
        assert sentence.startswith("jaxstyle: ") and sentence.endswith("."), err
        return status, sentence.removeprefix("jaxstyle: ")

    return run


@pytest.fixture
def fake_runner(monkeypatch) -> FakeRunner:
    """Replace the optimization loop of the command line by one that compiles nothing."""
    runner = FakeRunner()
    runner.install(monkeypatch)
    return runner


@pytest.fixture
def compilations():
    """A list that grows by one with each program that XLA compiles during the test."""
    compiled = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if "backend_compile" in event:
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compiled
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def weights_path() -> Path:
    """The real weights: $JAXSTYLE_WEIGHTS, or the folder beside the checkout."""
    named = os.environ.get("JAXSTYLE_WEIGHTS")
    actual = [Path(named)] if named else []
    actual += sorted((SHARED / "weights").glob("*.h5"))
    for path in actual:
        if path.is_dir() and (inside := sorted(set(path.glob("*.h5")) - {path / pretrained.MINI.name})):
            return inside[0]
        if path.is_file():
            return path
    pytest.skip("VGG-19's weights are absent: set $JAXSTYLE_WEIGHTS to a file")


@pytest.fixture(scope="session")
def real_pictures() -> Path:
    """The folder of real photographs and paintings."""
    folder = SHARED / "images"
    if not folder.is_dir():
        pytest.skip("the real pictures are absent: they lie in ../shared/images, outside the repository")
    return folder

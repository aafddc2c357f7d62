"""Mutation testing of the numerical modules: which share of small faults in them the tests catch.

A seeded sample of mutants of cosmic-ray (a changed operator, number, comparison, condition or loop) is written, one at
a time, into a copy of the repository, where the quick tests of the mutated module run, and then, if they pass, its slow
tests. Mutants of type annotations are left out. `tests/equivalent_mutants.txt` lists mutants that change no behavior.

    python scripts/mutation_testing.py --mutants 160 --seed 0
"""

import argparse
import ast
import difflib
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.txt"
TESTS = {
    "losses/pixel": ("pixel",),
    "losses/moments": ("moments", "style"),
    "losses/wasserstein": ("wasserstein", "style"),
    "losses/objective": ("objective", "user_functions", "loop", "stylize"),
    "losses/masks": ("masks", "stylize"),
    "optim/loop": ("loop", "early_stopping", "user_functions", "stylize", "neighbor_objective"),
    "optim/optimizers": ("optimizers", "early_stopping", "loop"),
    "optim/lbfgs": ("lbfgs", "early_stopping", "loop"),
    "images/resample": ("schedule", "stylize"),
    "transfer/schedule": ("schedule", "stylize"),
    "transfer/resize": ("schedule", "stylize"),
    "transfer/color": ("color", "stylize"),
}
SUITES = {"quick": ("", 600), "slow": ("slow", 1800)}  # the marker and the limit in seconds


class Spot(NamedTuple):
    """A place in a module where one operator applies: the mutant, not written yet."""

    module: str
    operator: str
    occurrence: int


class Mutant(NamedTuple):
    """A changed module: its name, its text and the changed lines."""

    module: str
    code: str
    change: str


def source(module: str) -> str:
    """Return the text of a module of jaxstyle."""
    return (ROOT / "jaxstyle" / f"{module}.py").read_text()


def spots(module: str) -> Iterator[Spot]:
    """Yield every place that has a mutant, but for type annotations."""
    code = source(module)
    parts = (getattr(node, name, None) for node in ast.walk(ast.parse(code)) for name in ("annotation", "returns"))
    spans = [(part.lineno, part.col_offset, part.end_lineno, part.end_col_offset) for part in parts if part is not None]
    nodes = list(ast_nodes(get_ast(code)))
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        starts = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(starts):
            if not any((top, left) <= start <= (bottom, right) for top, left, bottom, right in spans):
                yield Spot(module, name, occurrence)


def mutant_at(spot: Spot) -> Mutant:
    """Return the mutant of a place."""
    code = source(spot.module)
    mutated = MutationVisitor.mutate_code(code, get_operator(spot.operator)(), spot.occurrence) or code
    return Mutant(spot.module, mutated, _change(code, mutated))


def compiles(mutant: Mutant) -> bool:
    """Return whether a mutant is a Python program, which Python itself would not catch."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            compile(mutant.code, mutant.module, "exec")
    except SyntaxError:
        return False
    return True


def _change(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return " ".join(f"{line[0]} {line[1:].strip()}" for line in lines if line[:2] not in ("--", "++", "@@"))


def outcome(mutant: Mutant, folder: Path, cache: Path, *, suites: Sequence[str]) -> str:
    """Return which suite catches a mutant, or "survived"; `folder` is a copy of the repository."""
    path = folder / "jaxstyle" / f"{mutant.module}.py"
    sound = path.read_text()
    environment = os.environ | {"PYTHONPATH": str(folder), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    path.write_text(mutant.code)
    try:
        for suite, (marker, limit) in ((suite, SUITES[suite]) for suite in suites):
            files = [f"tests/test_{name}.py" for name in TESTS[mutant.module]]
            command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider", *files]
            command += ["-m", marker] if marker else []
            try:
                status = subprocess.run(
                    command, cwd=folder, env=environment, capture_output=True, timeout=limit
                ).returncode
            except subprocess.TimeoutExpired:
                return suite
            if status not in (0, 5):  # 5: no test is selected
                return suite
        return "survived"
    finally:
        path.write_text(sound)


def main() -> None:
    """Draw mutants, run the tests against each and print what survives."""
    parser = argparse.ArgumentParser(description="Mutation testing of the numerical modules.")
    parser.add_argument("--mutants", type=int, default=160, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tested at a time")
    parser.add_argument("--quick", action="store_true", help="run the quick tests only")
    arguments = parser.parse_args()

    everything = [spot for module in TESTS for spot in spots(module)]
    random.Random(arguments.seed).shuffle(everything)  # noqa: S311
    sample = list(itertools.islice(filter(compiles, map(mutant_at, everything)), arguments.mutants))
    listed = EQUIVALENT.read_text().splitlines() if EQUIVALENT.is_file() else []
    equivalent = {line for line in listed if line and not line.startswith("#")}
    print(f"{len(sample)} of {len(everything)} mutants of {len(TESTS)} modules", flush=True)
    suites = ["quick"] if arguments.quick else list(SUITES)
    by_result: dict[str, list[Mutant]] = {"quick": [], "slow": [], "survived": [], "equivalent": []}
    with tempfile.TemporaryDirectory() as scratch:
        folders: Queue[Path] = Queue()
        for job in range(arguments.jobs):
            copy = Path(scratch, str(job), "main")
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__"))
            if (ROOT.parent / "shared").is_dir():
                (copy.parent / "shared").symlink_to(ROOT.parent / "shared")
            folders.put(copy)

        def test(mutant: Mutant) -> None:
            if f"{mutant.module}: {mutant.change}" in equivalent:
                result = "equivalent"
            else:
                folder = folders.get()
                result = outcome(mutant, folder, Path(scratch, "programs"), suites=suites)
                folders.put(folder)
            by_result[result].append(mutant)
            print(f"{result:10} {mutant.module}: {mutant.change}", flush=True)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(test, sample))
    caught, survived = len(by_result["quick"]) + len(by_result["slow"]), len(by_result["survived"])
    print(f"caught {caught} of {caught + survived} ({caught / max(1, caught + survived):.1%}):")
    print(", ".join(f"{len(mutants)} {name}" for name, mutants in by_result.items()))


if __name__ == "__main__":
    main()

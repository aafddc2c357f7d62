"""Kill runs at random times, resume them by the same commands, and compare the pictures with those of undisturbed runs.

    python scripts/kill_and_resume.py --runs 100

Every run is killed by SIGKILL at a random time within its duration. Each resumed run is killed again with probability
1/2. The final picture must have the same bytes as that of an undisturbed run. With `--from-checkpoint` the first kill
is within a second after the first checkpoint.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxstyle import save_image
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params

WIDTHS = ((4, 4), (6, 6), (8,) * 4, (8,) * 4, (8,) * 4)
SMALL = ("--steps", "240", "--weights", "tiny.h5", "--style-layers", "relu1_1,relu2_1", "--quiet")
STYLIZE = ("stylize", "content.png", "style.png", *SMALL, "--content-layers", "relu2_1", "--size", "64")
COMMANDS = {
    "lbfgs, two scales": (*STYLIZE, "--scales", "2"),
    "sweep of three": ("sweep", *STYLIZE[1:], "--scales", "1", "--style-weight", "1,10,100"),
    "adam, averaged": (*STYLIZE, "--optimizer", "adam", "--ema-decay", "0.9", "--scales", "1"),
    "texture from noise": ("texture", "style.png", *SMALL, "--size", "64x48"),
}
CHECKPOINTS = ("--checkpoint", "checkpoints", "--every", "7")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all commands and print the number of equal pictures; return 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="number of runs to kill (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times (default: 0)")
    parser.add_argument(
        "--at-a-time", type=int, default=os.cpu_count(), help="number of runs at a time (default: number of processors)"
    )
    parser.add_argument("--from-checkpoint", action="store_true", help="kill each run after its first checkpoint")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        write_inputs(inputs)
        names = [list(COMMANDS)[number % len(COMMANDS)] for number in range(options.runs)]
        times = 1 if options.from_checkpoint else 2
        wanted = {name: undisturbed(inputs, name, times=times) for name in dict.fromkeys(names)}
        rngs = [random.Random(options.seed + number) for number in range(options.runs)]  # noqa: S311  # instants to kill at

        def one(name: str, rng: random.Random) -> tuple[bool, int, int]:
            return disturbed(inputs, name, rng, *wanted[name], from_checkpoint=options.from_checkpoint)

        with ThreadPoolExecutor(options.at_a_time) as pool:
            outcomes = list(pool.map(one, names, rngs))
    for name in wanted:
        runs = [each for each, its in zip(outcomes, names, strict=True) if its == name]
        same, kills, resumed = (sum(each[i] for each in runs) for i in range(3))
        print(
            f"{name:22} {same} of {len(runs)} the same bytes, after {kills} kills, {resumed} of them with a checkpoint"
        )
    print(f"{sum(same for same, _, _ in outcomes)} of {len(outcomes)} runs ended with the bytes of an undisturbed run")
    return 0 if all(same for same, _, _ in outcomes) else 1


def write_inputs(folder: Path) -> None:
    """Write two pictures and a tiny network."""
    y, x = np.mgrid[0:1:56j, 0:1:64j]
    for name, waves in (("content", (3, 5, 7)), ("style", (23, 31, 17))):
        rgb = np.stack([0.5 + 0.4 * np.sin(wave * x + 2 * wave * y) for wave in waves], -1)
        save_image(folder / f"{name}.png", rgb)
    params = random_params(widths=WIDTHS, seed=1)
    weights_io.write(folder / "tiny.h5", params, source="a seed", checksum="none", licence="none")


def started(inputs: Path, name: str, folder: Path) -> subprocess.Popen:
    """Start the command of this name, which writes into a folder."""
    for path in inputs.iterdir():
        if path.is_file() and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    output = "out" if COMMANDS[name][0] == "sweep" else "out.png"
    command = [sys.executable, "-m", "jaxstyle", *COMMANDS[name], "-o", output, *CHECKPOINTS]
    cached = {"JAXSTYLE_CACHE": str(inputs / "cache"), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=folder, env=os.environ | cached)


def pictures(folder: Path) -> list[bytes]:
    """Return the bytes of the pictures."""
    return [path.read_bytes() for path in sorted(folder.glob("out*/*=*.png")) + sorted(folder.glob("out.png"))]


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run."""
    return list(folder.glob("checkpoints/*.npz"))


def undisturbed(inputs: Path, name: str, *, times: int) -> tuple[list[bytes], float]:
    """Return the pictures of an undisturbed run, and the duration of the last of several such runs."""
    results, seconds = [], 0.0
    for _ in range(times):
        with tempfile.TemporaryDirectory(dir=inputs) as folder:
            began = time.monotonic()
            if started(inputs, name, Path(folder)).wait():
                raise SystemExit(f"{name} failed without a kill")
            results, seconds = pictures(Path(folder)), time.monotonic() - began
    return results, seconds


def disturbed(
    inputs: Path, name: str, rng: random.Random, wanted: list[bytes], seconds: float, *, from_checkpoint: bool
) -> tuple[bool, int, int]:
    """Return whether a killed run has equal pictures, its number of kills, and of kills after a checkpoint."""
    kills = resumed = 0
    with tempfile.TemporaryDirectory(dir=inputs) as scratch:
        folder = Path(scratch)
        while True:
            process = started(inputs, name, folder)
            if not kills or rng.random() < 0.5:
                waiting = from_checkpoint and not kills
                while waiting and process.poll() is None and not checkpoints(folder):
                    time.sleep(0.02)
                try:
                    process.wait(timeout=rng.uniform(0, 1 if waiting else seconds))
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
                    resumed += bool(checkpoints(folder))
                    process.wait()
                    continue
            return process.wait() == 0 and pictures(folder) == wanted, kills, resumed


if __name__ == "__main__":
    sys.exit(main())

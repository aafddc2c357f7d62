"""Benchmarks of jaxstyle against a baseline: both alternate in one process, and each result is a ratio.

    python scripts/benchmark.py step photo.jpg painting.jpg --baseline torch
    python scripts/benchmark.py solve photo.jpg painting.jpg
    python scripts/benchmark.py memory photo.jpg painting.jpg
    python scripts/benchmark.py tiles photo.jpg painting.jpg
    python scripts/benchmark.py gradient photo.jpg painting.jpg
    python scripts/benchmark.py sweep photo.jpg painting.jpg
    python scripts/benchmark.py startup photo.jpg painting.jpg
    python scripts/benchmark.py precision photo.jpg painting.jpg
    python scripts/benchmark.py accelerator photo.jpg painting.jpg
    python scripts/benchmark.py pictures --megapixels 300

The objective is that of the preset neural-style-pt, the baseline PyTorch (`pip install -e '.[parity]'`).
"""

import subprocess
import sys
from typing import Annotated

import tyro
from benchmark_accelerator import Accelerator, Rounding
from benchmark_commands import Startup, Sweep
from benchmark_gradients import Gradient
from benchmark_pictures import Pictures
from benchmark_solve import Solve
from benchmark_steps import Memory, Step
from benchmark_tiles import Tiles
from tyro.conf import OmitArgPrefixes, subcommand

from jaxstyle.errors import InputError, user_error

Command = (
    Annotated[Step, subcommand("step")]
    | Annotated[Solve, subcommand("solve")]
    | Annotated[Memory, subcommand("memory")]
    | Annotated[Tiles, subcommand("tiles")]
    | Annotated[Gradient, subcommand("gradient")]
    | Annotated[Sweep, subcommand("sweep")]
    | Annotated[Startup, subcommand("startup")]
    | Annotated[Rounding, subcommand("precision")]
    | Annotated[Accelerator, subcommand("accelerator")]
    | Annotated[Pictures, subcommand("pictures")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run one benchmark."""
    command = tyro.cli(Command, args=arguments, description=__doc__, config=(OmitArgPrefixes,))  # pyright: ignore
    command.run()


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"benchmark.py: {user_error(error) or error}")

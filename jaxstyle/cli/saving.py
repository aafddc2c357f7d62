"""Options for output files: intermediate pictures, log, record and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from jaxstyle.cli.options import MOST_WHOLE, check_number
from jaxstyle.errors import InputError
from jaxstyle.runtime.outputs import Outputs


@dataclass(frozen=True)
class Saving(Outputs):
    """Output."""

    save_every: int = 0
    """Number of steps between intermediate pictures OUT_0050.png; 0 for none."""
    log: Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="")] = None
    """CSV file of all loss terms of every step."""
    bits: Literal[8, 16] = 8
    """Bits per channel of the output; 16 for .png and .tiff."""
    record: bool = False
    """Write the record of the picture to OUT.json too."""
    checkpoint: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Checkpoint folder; rerun the same command to resume from it."""
    every: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """Number of steps between checkpoints. (default: 50)"""
    dry_run: bool = False
    """Print the memory and time that the run would take, and make no picture."""
    quiet: bool = False
    """Print errors only."""

    def check(self, outputs: Iterable[Path], *, steps: int, inputs: Sequence[Path]) -> None:
        """Raise `InputError` if a file cannot be written, or would replace an input."""
        check_number("save_every", self.save_every, 0, MOST_WHOLE)
        check_number("every", self.every, 1, MOST_WHOLE)
        if self.every is not None and self.checkpoint is None:
            raise InputError(f"--every {self.every} needs a folder of checkpoints: name it with --checkpoint.")
        super().check(outputs, steps=steps, inputs=inputs)

"""What is saved of a run, and how often: the options, intermediate pictures and the log of every step."""

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
    """What is saved and said."""

    save_every: int = 0
    """Save the image every so many steps beside the output, as OUT_0050.png; 0 for never."""
    log: Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="")] = None
    """A .csv file for every term of every step."""
    bits: Literal[8, 16] = 8
    """Bits a channel of the output; 16 for .png and .tiff."""
    record: bool = False
    """Write what the picture was made from beside it too, as OUT.json; the picture itself has it in any case."""
    checkpoint: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """A folder from which the same command goes on where it was stopped, however that came about."""
    every: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """Steps from one checkpoint to the next. (default: 50)"""
    dry_run: bool = False
    """Paint no picture, but say how much memory and time it would take."""
    quiet: bool = False
    """Print errors only."""

    def check(self, outputs: Iterable[Path], *, steps: int, inputs: Sequence[Path]) -> None:
        """Raise `InputError` if something could not be written at the end, or would replace an input."""
        check_number("save_every", self.save_every, 0, MOST_WHOLE)
        check_number("every", self.every, 1, MOST_WHOLE)
        if self.every is not None and self.checkpoint is None:
            raise InputError(
                f"--every {self.every} is of checkpoints that go nowhere: name their folder with --checkpoint."
            )
        super().check(outputs, steps=steps, inputs=inputs)

"""Output files of a run besides its picture: intermediate pictures, the record, and the log of every step."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.files import atomic_write
from jaxstyle.runtime import checkpoint_folder
from jaxstyle.runtime.callbacks import Callback, message
from jaxstyle.runtime.options import MOST_NUMBER, check_number

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class OutputOptions:
    """Other output files of a run, and their intervals.

    Attributes:
        save_every: number of steps per intermediate picture, saved next to the output; 0 for none.
        log: .csv file for every term of every step.
        bits: bits per channel of the picture; 16 for .png and .tiff.
        record: whether the picture contains its record.
        record_file: whether to write the record to a .json file beside the picture.
        checkpoint: folder of checkpoints.
        every: number of steps between checkpoints; None for 50.
    """

    save_every: int = 0
    log: Path | None = None
    bits: Literal[8, 16] = 8
    record: bool = True
    record_file: bool = False
    checkpoint: Path | None = None
    every: int | None = None

    def check(self, pictures: Iterable[Path], *, steps: int, inputs: Collection[Path]) -> None:
        """Raise `InputError` if a picture or another file cannot be written, or would replace an input."""
        from jaxstyle.images.save import check_output

        check_number("save_every", self.save_every, 0, MOST_NUMBER)
        check_number("every", self.every, 1, MOST_NUMBER)
        if self.every is not None and self.checkpoint is None:
            raise InputError(f"--every {self.every} needs a folder of checkpoints: name it with --checkpoint.")
        if self.checkpoint is not None:
            checkpoint_folder.check(self.checkpoint)
            checkpoint_folder.check_unlocked(self.checkpoint)
        existing = [path for path in inputs if os.path.exists(path)]
        for picture in pictures:
            check_output(picture, bits=self.bits, inputs=inputs)
            record = picture.with_suffix(".json")
            if self.record_file and not _can_be_written(record):
                raise InputError(f"{record}, of --record-file, is a folder or lacks one: name another output.")
            for path in existing:
                if self.record_file and _is_same(record, path):
                    raise InputError(f"{path} is an input that --record-file would replace: name another output.")
                step = path.stem.rpartition("_")[2]
                if step.isdecimal() and int(step) and self.due(int(step), steps=steps):
                    if _is_same(numbered(picture, int(step), steps=steps), path):
                        raise InputError(f"{path} is an input that --save-every would replace: name another output.")
        if self.log is None:
            return
        if self.log.suffix.lower() != ".csv":
            raise InputError(f"The log {self.log} has the suffix {self.log.suffix!r}: use .csv.")
        if not _can_be_written(self.log):
            raise InputError(f"The log {self.log} is a folder or lacks a writable one: name a file in one that exists.")
        if any(_is_same(self.log, path) for path in existing):
            raise InputError(f"The log {self.log} is an input too: name another file.")

    def due(self, done: int, *, steps: int) -> bool:
        """Return whether to save an intermediate picture after `done` of `steps` steps."""
        return bool(self.save_every) and done % self.save_every == 0 and done < steps


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


def _can_be_written(path: Path) -> bool:
    folder = os.path.dirname(os.path.realpath(path))  # where `atomic_write` writes
    return not path.is_dir() and os.access(folder, os.W_OK)


def make_folder(path: Path) -> None:
    """Create a folder for pictures if it does not exist."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: name a folder for the pictures.")
    path.mkdir(parents=True, exist_ok=True)


def numbered(output: Path, step: int, *, steps: int) -> Path:
    """Return the path of the intermediate picture after `step` of `steps` steps."""
    digits = max(4, len(str(steps)))
    return output.with_stem(f"{output.stem}_{step:0{digits}d}")


def attempt(save: Callable[[], None], callbacks: Sequence[Callback]) -> None:
    """Save another file than the picture; a failure sends an event "failed" and does not end the run."""
    try:
        save()
    except (InputError, UnavailableError) as error:
        message(callbacks, str(error), kind="failed")


def log_rows(sides: np.ndarray, history: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yield a row of the log for each step: its number, the longest side of the image, and every term."""
    for i, side in enumerate(sides.tolist()):
        yield {"step": i + 1, "side": side, **{name: float(values[i]) for name, values in history.items()}}


def table(names: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True) -> str:
    """Return rows as the text of a .csv file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_log(path: Path, rows: Sequence[dict[str, Any]], *, mode: Literal["w", "a"] = "w") -> None:
    """Write rows to a log atomically, or append them."""
    try:
        before = path.read_bytes() if mode == "a" and path.exists() else b""
        text = table(list(rows[0]), rows, header=not before) if rows else ""
        with atomic_write(path) as part:
            part.write_bytes(before + text.encode())
    except OSError as error:
        reason = getattr(error.__cause__ or error, "strerror", None) or error
        raise UnavailableError(
            f"The log {path} cannot be written ({reason}), but the picture is: free space or name another log."
        ) from error


def read_log(path: Path) -> list[dict[str, str]]:
    """Return the rows of a log; empty if it cannot be read."""
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []

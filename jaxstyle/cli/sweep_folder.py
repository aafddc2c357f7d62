"""The lanes of a sweep and the folder that they go to: what is there, and what is painted there already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxstyle.cli.grid import Lane
from jaxstyle.cli.report import Entry, entry_of, read_entry
from jaxstyle.cli.saving import Saving, read_log, write_log
from jaxstyle.config import LossWeights
from jaxstyle.errors import InputError
from jaxstyle.images.load import load_image
from jaxstyle.images.save import check_output


@dataclass(frozen=True)
class SweepFolder:
    """Lanes, each with its weights, its seed and a hash of all that its picture depends on, and their folder."""

    folder: Path
    lanes: Sequence[Lane]
    weights: Sequence[LossWeights]
    seeds: Sequence[int]
    saving: Saving
    digests: Sequence[str] = ()
    max_pixels: int | None = None

    def check(self, *, steps: int, inputs: Sequence[Path]) -> None:
        """Refuse an output that cannot be, before hours of work."""
        pictures = [self.picture(i) for i in range(len(self.lanes))]
        for path in (self.folder / "sweep.csv", self.folder / "index.html", *map(entry_of, pictures)):
            if path.is_dir():
                raise InputError(f"{path} is a folder, where the sweep writes a file: name another folder.")
        for path in (self.folder / "grid.png", *pictures):
            check_output(path, bits=self.saving.bits, inputs=inputs)
        self.saving.check(pictures, steps=steps, inputs=inputs)
        if self.saving.log is not None and self.saving.log.absolute() == (self.folder / "sweep.csv").absolute():
            raise InputError(f"The log {self.saving.log} is where the sweep's table goes: name another file.")

    def picture(self, i: int) -> Path:
        """Return where the picture of a lane goes."""
        return self.folder / f"{self.lanes[i].name}.png"

    def finished(self) -> list[Entry]:
        """Return the entries of all lanes that are finished."""
        return [entry for i in range(len(self.lanes)) if (entry := self.entry(i)) is not None]

    def keep_log(self) -> None:
        """Leave in the log what it has of lanes that are finished."""
        if self.saving.log is None or not self.saving.log.exists():
            return
        finished = {entry.picture for entry in self.finished()}
        write_log(self.saving.log, [row for row in read_log(self.saving.log) if row.get("picture") in finished])

    def entry(self, i: int) -> Entry | None:
        """Return the entry of a lane if it is finished and was made from what it would be made from now."""
        found = read_entry(entry_of(self.picture(i)))
        there = found is not None and found.digest == self.digests[i] and self.picture(i).is_file()
        return found if there else None

    def is_whole(self, i: int) -> bool:
        """Return whether a lane is finished and its picture can be read; forget it if the picture is damaged."""
        if self.entry(i) is None:
            return False
        try:
            load_image(self.picture(i), max_pixels=self.max_pixels)
        except InputError:
            entry_of(self.picture(i)).unlink(missing_ok=True)  # another process may have been here
            return False
        return True

"""`batch.json`: for each picture a hash of its inputs and options; with one file per process."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxstyle.runtime.plain_data import structured

PARTS = re.compile(r"batch(\.\d+)?\.json")
BEING_MADE = ""  # instead of a hash


@dataclass(frozen=True)
class BatchRecord:
    """Hashes of the pictures in a folder."""

    folder: Path

    def read(self) -> dict[str, str]:
        """Return the hashes of all pictures, as far as they can be read."""
        try:
            parts = [path for path in self.folder.iterdir() if PARTS.fullmatch(path.name)]
            parts.sort(key=lambda path: path.stat().st_mtime)  # newer files take precedence
        except OSError:
            return {}
        done: dict[str, str] = {}
        for path in parts:
            try:
                done |= structured(dict[str, str], json.loads(path.read_text()))
            except (OSError, ValueError, RecursionError):
                continue
        return done

    def write(self, done: Mapping[str, str], *, process: int = 0) -> None:
        """Write the hashes of one process."""
        from jaxstyle.files import write_text

        name = f"batch.{process}.json" if process else "batch.json"
        write_text(self.folder / name, json.dumps(dict(done), indent=1))

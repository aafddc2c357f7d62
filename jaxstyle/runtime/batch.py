"""`batch.json`: by picture a hash of what it was made from; each further process has a file of its own."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxstyle.runtime.plain_data import structured

PARTS = re.compile(r"batch(\.\d+)?\.json")
BEING_MADE = ""  # the hash of nothing


@dataclass(frozen=True)
class BatchRecord:
    """What is known of the pictures in a folder."""

    folder: Path

    def read(self) -> dict[str, str]:
        """Return the hashes of the pictures that are there, as far as they can be read."""
        try:
            parts = [path for path in self.folder.iterdir() if PARTS.fullmatch(path.name)]
            parts.sort(key=lambda path: path.stat().st_mtime)  # what was said last counts
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
        """Write what one of the processes knows."""
        from jaxstyle.files import write_text

        name = f"batch.{process}.json" if process else "batch.json"
        write_text(self.folder / name, json.dumps(dict(done), indent=1))

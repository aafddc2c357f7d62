"""What reading and writing a large picture takes: memory of a fresh process, in multiples of the float32 array."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import report

CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from jaxstyle import load_image, save_image

def peak():
    if sys.platform == "linux":  # not getrusage, which counts the parent's
        return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

action, path, height, width, bits = *sys.argv[1:3], *map(int, sys.argv[3:6])
began = time.perf_counter()
if action == "save":
    rgb = np.empty((height, width, 3), np.float32)  # slopes, and the grain of a photograph
    grain = np.random.default_rng(0).normal(size=(1024, width, 3)).astype(np.float32) / 256
    slope = np.linspace(0, 1, width, dtype=np.float32)[:, None]
    for top in range(0, height, 1024):
        rows = rgb[top : top + 1024]
        np.add(grain[: len(rows)], slope * (top / height), out=rows)
    del grain
    began = time.perf_counter()
    save_image(path, rgb, bits=bits)
else:
    size = None if action == "load" else int(action.partition(" ")[2])
    load_image(path, size=size, max_pixels=max(10**6, height * width))
print(peak(), time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Pictures:
    """How much memory it takes to save a picture and to load it again, whole and at a smaller size."""

    megapixels: int = 100
    """Of the picture, which is 3 wide and 2 high."""
    size: int = 1024
    """The smaller one: its longest side."""
    json: Path | None = None
    """A file for results, machine, versions and settings."""

    def run(self) -> None:
        """Measure 8-bit PNG and JPEG and TIFF and PNG of 16 bits."""
        height = round((self.megapixels * 1e6 * 2 / 3) ** 0.5)
        width = round(1.5 * height)
        rows: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            for name, bits in (("8.png", 8), ("8.jpg", 8), ("8.tif", 8), ("16.tif", 16), ("16.png", 16)):
                path = Path(folder, name)
                for action in ("save", "load", f"load {self.size}"):
                    peak, seconds = measured(action, path, height, width, bits)
                    rows.append(
                        {
                            "file": f"{bits}-bit {path.suffix[1:]}",
                            "bytes": path.stat().st_size,
                            "action": action,
                            "peak bytes": peak,
                            "of float32": peak / (12 * height * width),
                            "seconds": seconds,
                        }
                    )
                path.unlink()
        report("pictures", vars(self), rows, self.json)


def measured(action: str, path: Path, height: int, width: int, bits: int) -> tuple[int, float]:
    """Return the peak memory of a process that does one thing, and the seconds that it took for it."""
    command = [sys.executable, "-c", CHILD, action, str(path), str(height), str(width), str(bits)]
    peak, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(peak), float(seconds)

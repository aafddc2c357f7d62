"""Reads files in a process of its own, so that a crash, a hang or gigabytes are an outcome like others.

Run as a program this is that process: a path a line comes in, an outcome as JSON a line goes out.
"""

import json
import os
import selectors
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PATIENCE = 60.0  # seconds of the clock, for machines that are busy with other things
STARTING = 300.0


class Outcome(NamedTuple):
    """How a reading ended.

    Attributes:
        error: "" or "InputError", or the name of what else was raised, or "died" or "hangs".
        messages: with which readers refused it.
        read: how many of the readers took the file.
        seconds: of processor time, of all of them.
        peak: the most bytes that the process has held until now.
    """

    error: str
    messages: list[str]
    read: int
    seconds: float
    peak: int


class Reader:
    """A process that reads files of one kind, those of `READERS`, and is started again when it has died."""

    def __init__(self, kind: str, stderr: Path) -> None:
        self.kind, self.stderr = kind, stderr
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def read(self, path: Path) -> Outcome:
        if self.process is None:
            self.process = self.start()
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n".encode())
        self.process.stdin.flush()
        line = self.answer(PATIENCE)
        if line:
            return Outcome(*json.loads(line))
        status = "hangs" if line is None else f"exit status {self.process.wait()}"
        self.stop()
        return Outcome("hangs" if line is None else "died", [status], 0, PATIENCE if line is None else 0, 0)

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "always", "-X", "faulthandler", __file__, self.kind]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "JAX_PLATFORMS": "cpu"}
        with open(self.stderr, "ab") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=environment
            )
        assert self.answer(STARTING) == b"ready\n", self.stderr.read_text()
        return self.process

    def answer(self, seconds: float) -> bytes | None:
        """Return the next line, empty where the process has ended, or None if it takes longer than `seconds`."""
        assert self.process is not None and self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return self.process.stdout.readline() if selector.select(seconds) else None

    def stop(self) -> None:
        if self.process is not None:
            with self.process as process:  # closes the pipes
                process.kill()
            self.process = None


def peak_memory() -> int:
    """Return the most bytes that this process has held; on Linux not by getrusage, which counts the parent's."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def pictures() -> list[Callable[[Path], object]]:
    from jaxstyle.images.load import load_image
    from jaxstyle.images.metadata import description_of

    return [load_image, description_of]


def hdf5_files() -> list[Callable[[Path], object]]:
    import specimens

    from jaxstyle.losses import statistics_io
    from jaxstyle.networks import weights_io

    weights_io.BLOCK_WIDTHS = specimens.WIDTHS  # stands for VGG-19's own widths, which make 80 MB
    params = specimens.random_params(widths=specimens.WIDTHS, seed=1)
    statistics = [
        lambda path, objective=objective: statistics_io.read(path, params=params, objective=objective)
        for objective in specimens.OBJECTIVES.values()
    ]
    return [weights_io.read, weights_io.widths, weights_io.provenance, *statistics]


def safetensors_files() -> list[Callable[[Path], object]]:
    from jaxstyle.networks import weights_io

    return [weights_io.read, weights_io.widths]


def records() -> list[Callable[[Path], object]]:
    from jaxstyle.runtime.rerun import picture_record, recorded_command

    def read(path: Path) -> object:
        record = picture_record(path)
        return recorded_command(record, picture=path, inputs=[path] * len(record.inputs))

    return [read]


READERS = {"picture": pictures, "hdf5": hdf5_files, "safetensors": safetensors_files, "json": records}


def main(kind: str) -> None:
    from jaxstyle.errors import PictureWarning

    warnings.filterwarnings("ignore", category=PictureWarning)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata
    each = READERS[kind]()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        error, messages, read, began = "", [], 0, time.process_time()
        for reader in each:
            try:
                reader(Path(line.rstrip("\n")))
                read += 1
            except BaseException as caught:  # whatever it is, it is told
                messages.append(str(caught))
                if error in ("", "InputError"):
                    error = type(caught).__name__
        outcome = Outcome(error, messages, read, time.process_time() - began, peak_memory())
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])

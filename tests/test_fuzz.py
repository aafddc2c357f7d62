"""Damaged files are read or refused in one sentence, within limits of time and memory.

The quick tests read a few damaged files per format in this process. The soak tests read many in another process, where
a crash is an outcome: a sample by default; 20,000 pictures, 5,000 HDF5 files and 5,000 records with --long, each time
with a new seed.
"""

import os
import random
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import reading
import specimens
from damage import damaged
from reading import Reader

from jaxstyle.errors import InputError, PictureWarning
from jaxstyle.networks import weights_io

MOST_MEMORY = 2**30
MOST_SECONDS = 5.0
LONGEST = 400  # characters of a message beside the path
SIDES = (specimens.WIDTH, specimens.HEIGHT, specimens.WIDTH - 1, specimens.HEIGHT - 1)
# in the files, to be overwritten
NUMBERS = {"picture": SIDES, "hdf5": specimens.NUMBERS, "safetensors": (0, 3), "json": (0, 3, 16)}
# damaged files by default and with --long
SOAK = {"picture": (600, 20_000), "hdf5": (40, 5_000), "safetensors": (40, 2_000), "json": (100, 5_000)}


def complaint(message: str, path: Path) -> str:
    """Return why a message is not one clean sentence about the path, or ""."""
    rest = message.removeprefix(str(path))
    faults = {
        "does not begin with the path": not message.startswith(str(path)),
        "holds what cannot be printed": not message.isprintable(),
        "does not end as a sentence": not message.endswith("."),
        "is more than a sentence": ". " in rest.replace("... ", ""),
        "is long": len(rest) > LONGEST,
        "shows a traceback": "Traceback" in message,
        "names no cure": ": " not in rest,
    }
    return ", ".join(fault for fault, result in faults.items() if result)


def sound_files(kind: str, scratch: Path) -> Mapping[str, bytes]:
    """Return the undamaged files of a kind by name."""
    files = {"hdf5": specimens.hdf5_files, "safetensors": specimens.safetensors_files}
    return files[kind](scratch) if kind in files else {"picture": specimens.pictures, "json": specimens.records}[kind]()


@pytest.mark.parametrize(("kind", "each"), [("picture", 3), ("hdf5", 2), ("safetensors", 9), ("json", 5)])
def test_a_few_damaged_files_of_each_format_are_read_or_refused_in_one_sentence(kind, each, folder, monkeypatch, capfd):
    monkeypatch.setattr(weights_io, "BLOCK_WIDTHS", specimens.WIDTHS)  # VGG-19's own would make 80 MB
    readers, sound, rng = reading.READERS[kind](), sound_files(kind, folder), random.Random(0)
    outcomes, path = Counter(), folder / f"damaged.{kind}"
    for name, data in sound.items():
        path.write_bytes(data)
        assert any(is_read(reader, path) for reader in readers), f"{name} is not read although it is sound"
        for _ in range(each):
            path.write_bytes(damaged(data, list(sound.values()), NUMBERS[kind], rng))
            for reader in readers:
                outcomes[is_read(reader, path)] += 1
    assert min(outcomes[True], outcomes[False]) > sum(outcomes.values()) / 10
    assert capfd.readouterr() == ("", "")


def is_read(reader: Callable[[Path], object], path: Path) -> bool:
    """Return whether a file is read; it must be refused in one sentence otherwise."""
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", category=PictureWarning)
        try:
            reader(path)
        except InputError as error:
            message = str(error)
            assert not complaint(message, path), f"{complaint(message, path)}: {message}"
            return False
    return True


@pytest.mark.soak
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot wait for a pipe")
@pytest.mark.parametrize("kind", SOAK)
def test_many_damaged_files_are_read_or_refused_in_one_sentence(kind, is_long, tmp_path):
    count = SOAK[kind][is_long]
    seed = str(random.SystemRandom().random() if is_long else 0)
    outcomes = read_damaged(kind, sound_files(kind, tmp_path), NUMBERS[kind], count=count, seed=seed, folder=tmp_path)
    assert min(outcomes["read"], outcomes["refused"]) > count / 10


def read_damaged(kind: str, sound: Mapping[str, bytes], numbers: Sequence[int], *, count: int, seed: str, folder: Path):
    """Read each of `sound` and `count` files made from them; return how many of the latter were read and refused."""
    path, stderr, outcomes = folder / f"damaged.{kind}", folder / "stderr", Counter()
    stderr.touch()
    with Reader(kind, stderr) as reader:
        for name, data in sound.items():
            path.write_bytes(data)
            assert reader.read(path).read, f"{name} is not read although it is sound"
        whole = list(sound.values())
        for number in range(count):
            data = damaged(whole[number % len(whole)], whole, numbers, random.Random(f"{seed}/{number}"))
            path.write_bytes(data)
            outcomes.update(outcome_of(reader, path, f"number {number} of seed {seed}"))
    return outcomes


def outcome_of(reader: Reader, path: Path, name: str) -> dict[str, int]:
    """Return whether a damaged file was read and refused, in one sentence and within limits of time and memory."""
    outcome = reader.read(path)
    details = f"{path}, {name}: {outcome} {reader.stderr.read_text()}"
    assert outcome.error in ("", "InputError"), details
    assert not reader.stderr.stat().st_size, details
    assert outcome.seconds < MOST_SECONDS and outcome.peak < MOST_MEMORY, details
    for message in outcome.messages:
        assert not complaint(message, path), f"{complaint(message, path)}: {details}"
    return {"read": bool(outcome.read), "refused": bool(outcome.messages)}

"""Damaged files: whatever comes in, it is read or refused in one sentence, in little time and memory.

By default a few hundred files, always the same; by `--long` 20,000 pictures, 5,000 HDF5 files and 5,000
records, other ones each time.
"""

import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import specimens
from mutation import mutated
from reading import Reader

MOST_MEMORY = 2**30
MOST_SECONDS = 5.0
LONGEST = 400  # letters of a message beside the path
SHARDS = 4  # so that processes share the work

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot wait for a pipe")


def complaint(message: str, path: Path) -> str:
    """Return what keeps a message from being a clean sentence; nothing if it is one."""
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
    return ", ".join(fault for fault, found in faults.items() if found)


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
            data = mutated(whole[number % len(whole)], whole, numbers, random.Random(f"{seed}/{number}"))
            path.write_bytes(data)
            outcomes.update(harmless(reader, path, f"number {number} of seed {seed}"))
    return outcomes


def harmless(reader: Reader, path: Path, name: str) -> dict[str, int]:
    """Return whether a damaged file was read and refused, which has to be in one sentence, little time and memory."""
    outcome = reader.read(path)
    told = f"{path}, {name}: {outcome} {reader.stderr.read_text()}"  # the file stays there
    assert outcome.error in ("", "InputError"), told
    assert not reader.stderr.stat().st_size, told
    assert outcome.seconds < MOST_SECONDS and outcome.peak < MOST_MEMORY, told
    for message in outcome.messages:
        assert not complaint(message, path), f"{complaint(message, path)}: {told}"
    return {"read": bool(outcome.read), "refused": bool(outcome.messages)}


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_damaged_picture_is_read_or_refused_in_one_sentence(shard, is_long, tmp_path):
    seed = f"{random.SystemRandom().random() if is_long else 0}, {shard}"
    numbers = (specimens.WIDTH, specimens.HEIGHT, specimens.WIDTH - 1, specimens.HEIGHT - 1)
    count = (20_000 if is_long else 400) // SHARDS
    outcomes = read_damaged("picture", specimens.pictures(), numbers, count=count, seed=seed, folder=tmp_path)
    assert min(outcomes["read"], outcomes["refused"]) > count / 10


def test_a_damaged_hdf5_file_is_read_or_refused_in_one_sentence(is_long, tmp_path):
    seed = str(random.SystemRandom().random() if is_long else 0)
    count = 5_000 if is_long else 100
    outcomes = read_damaged(
        "hdf5", specimens.hdf5_files(tmp_path), specimens.NUMBERS, count=count, seed=seed, folder=tmp_path
    )
    assert min(outcomes["read"], outcomes["refused"]) > count / 10


def test_a_damaged_record_is_read_or_refused_in_one_sentence(is_long, tmp_path):
    seed = str(random.SystemRandom().random() if is_long else 0)
    count = 5_000 if is_long else 100
    outcomes = read_damaged("json", specimens.records(), (0, 3, 16), count=count, seed=seed, folder=tmp_path)
    assert min(outcomes["read"], outcomes["refused"]) > count / 10

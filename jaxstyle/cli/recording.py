"""A command and its record: what is written of it into every picture, and how it is made again from that."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxstyle.cli.options import parse_memory
from jaxstyle.cli.walk import Place
from jaxstyle.cli.work import Work
from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.plain_data import plain, structured
from jaxstyle.runtime.record import Record, Weights, source, versions

# options that no pixel depends on
NOT_IN_PICTURE = ("output", "saving", "network", "preview", "lanes", "limits", "processes")
# parts of a config that are functions, or are read by them; no command has other ones than those of the defaults
FUNCTIONS = ("conv", "own_terms", "own_layers", "network")


class Job(NamedTuple):
    """What a command computes, its content's transparency, and its record as far as it is known beforehand."""

    work: Work
    alpha: np.ndarray | None
    record: Record


def job(command: Any, work: Work, alpha: np.ndarray | None, network: Weights) -> Job:
    """Return the job of a command that has read its files."""
    computing, inputs = command.computing, {}
    command = replace(command, computing=replace(computing, max_memory=None, devices=None))  # told by what follows
    names = [each.name for each in fields(command) if each.name not in NOT_IN_PICTURE]
    options = {name: plain(getattr(command, name), paths=inputs) for name in names}
    record = Record(
        command=type(command).__name__.lower(),
        options={**options, "bits": command.saving.bits, "save_every": command.saving.save_every},
        inputs=tuple(source(path) for path in inputs),
        network=network,
        config=_facts(work.config),
        weights=numbers(work.weights),
        versions=versions(),
        device=_device(),
    )
    memory, every = parse_memory(computing.max_memory), command.saving.save_every
    return Job(replace(work, save_every=every, memory=memory, devices=computing.devices), alpha, record)


def finished(record: Record, place: Place) -> Record:
    """Return the record of the picture that is there at a place of the walk."""
    trace = {name: (float(found[0]), float(found[-1])) for name, found in place.trace.items()}
    return replace(record, cuts={str(side): cut for side, cut in place.cuts.items()}, steps=place.steps, trace=trace)


def command_of(kind: type, record: Record, *, picture: Path, inputs: Sequence[Path], output: Path) -> Any:
    """Return the command that a picture's record is of, for these inputs and that output.

    Raises:
        InputError: if the record's options are none of that command.
    """
    options: dict[str, Any] = {name: value for name, value in record.options.items() if name not in NOT_IN_PICTURE}
    saving = {"bits": options.pop("bits", 8), "save_every": options.pop("save_every", 0)}
    try:
        command = structured(kind, {**options, "output": 0, "saving": saving}, paths=inputs)
    except ValueError as error:
        raise InputError(
            f"{picture} was painted with options that {record.command} does not take ({excerpt(error)}): use the "
            f"version that made it, {excerpt(record.versions.get('jaxstyle', 'which it does not tell'))}."
        ) from error
    return replace(command, output=output)  # only now, so that no option can name it


def _facts(config: Config) -> dict[str, Any]:
    return {name: plain(value, paths={}) for name, value in vars(config).items() if name not in FUNCTIONS}


def numbers(weights: LossWeights) -> dict[str, float]:
    """Return the coefficients of the loss by term."""
    terms = {f"{kind}/{layer}": own for kind in ("content", "style") for layer, own in getattr(weights, kind).items()}
    return {name: float(own) for name, own in {**terms, "tv": weights.tv, "bounds": weights.bounds}.items()}


def _device() -> str:
    """Return what the numbers are rounded by: the accelerator, or the processor and how many share the work."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} x {model}"

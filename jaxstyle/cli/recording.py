"""Conversion of a command to its record, which every picture contains, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxstyle.cli.options import parse_memory
from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.plain_data import plain, structured
from jaxstyle.runtime.problem import Work
from jaxstyle.runtime.record import Job, Record, Weights, record_of

# Options on which no pixel depends.
NOT_IN_PICTURE = ("output", "saving", "network", "preview", "lanes", "limits", "processes")


def job(command: Any, work: Work, alpha: np.ndarray | None, network: Weights) -> Job:
    """Return the job of a command from its work, after loading its files."""
    computing = command.computing
    inputs: dict[Path, int] = {}
    command = replace(
        command, computing=replace(computing, max_memory=None, devices=None)
    )  # the record has the results of these
    names = [each.name for each in fields(command) if each.name not in NOT_IN_PICTURE]
    options = {name: plain(getattr(command, name), paths=inputs) for name in names}
    options |= {"bits": command.saving.bits, "save_every": command.saving.save_every}
    record = record_of(type(command).__name__.lower(), options, inputs=inputs, network=network, work=work)
    memory, every = parse_memory(computing.max_memory), command.saving.save_every
    return Job(replace(work, save_every=every, memory=memory, devices=computing.devices), alpha, record)


def command_of(kind: type, record: Record, *, picture: Path, inputs: Sequence[Path], output: Path) -> Any:
    """Return the command of a record, for these inputs and this output.

    Raises:
        InputError: if the options of the record are not those of the command.
    """
    options: dict[str, Any] = {name: value for name, value in record.options.items() if name not in NOT_IN_PICTURE}
    saving = {"bits": options.pop("bits", 8), "save_every": options.pop("save_every", 0)}
    try:
        command = structured(kind, {**options, "output": 0, "saving": saving}, paths=inputs)
    except ValueError as error:
        raise InputError(
            f"{picture} was made with options that {record.command} does not take ({excerpt(error)}): use the "
            f"version that made it, {excerpt(record.versions.get('jaxstyle', 'which is unknown'))}."
        ) from error
    return replace(command, output=output)  # last, so that no option of the record can set it

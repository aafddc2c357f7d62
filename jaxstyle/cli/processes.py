"""Options of distributed runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from jaxstyle.cli.options import check_number
from jaxstyle.errors import InputError, excerpt

MOST_PROCESSES = 10**6
MOST_PORT = 2**16 - 1
MOST_SECONDS = 10**6


@dataclass(frozen=True)
class Processes:
    """Distributed runs: start the same command in each process."""

    distributed: bool = False
    """Run together with the same command in other processes. Slurm, Open MPI, Kubernetes and TPUs are detected;
    elsewhere use the next three options."""
    coordinator: Annotated[str | None, arg(metavar="HOST:PORT", help_behavior_hint="(default: the cluster's)")] = None
    """Address of process 0 in a trusted network."""
    num_processes: Annotated[int | None, arg(metavar="COUNT", help_behavior_hint="(default: the cluster's)")] = None
    """Number of processes."""
    process_id: Annotated[int | None, arg(metavar="NUMBER", help_behavior_hint="(default: the cluster's)")] = None
    """Number of this process, from 0."""
    initialization_timeout: int = 60
    """Seconds to wait for the other processes at the beginning."""
    heartbeat_timeout: int = 100
    """Seconds without a heartbeat of another process after which this one ends with an error."""

    def check(self, *, devices: int | None) -> None:
        """Check that the options are valid and consistent."""
        options = {
            "--coordinator": self.coordinator,
            "--num-processes": self.num_processes,
            "--process-id": self.process_id,
        }
        missing = [name for name, value in options.items() if value is None]
        given = [name for name in options if name not in missing]
        if given and not self.distributed:
            raise InputError(f"{given[0]} needs --distributed: add that or drop it.")
        if given and missing:
            raise InputError(
                f"{given[0]} is given without {' and '.join(missing)}: give all three, or none if the cluster sets "
                "them."
            )
        if self.distributed and devices is not None:
            raise InputError(f"--devices is {devices}, but --distributed uses all devices: drop one.")
        check_number("num_processes", self.num_processes, 1, MOST_PROCESSES)
        check_number("process_id", self.process_id, 0, (self.num_processes or 1) - 1)
        check_number("initialization_timeout", self.initialization_timeout, 1, MOST_SECONDS)
        check_number("heartbeat_timeout", self.heartbeat_timeout, 1, MOST_SECONDS)
        if self.coordinator is not None:
            found = re.fullmatch(r"(?:[^\s:\[\]/]+|\[[^\s\[\]/]+\]):(\d{1,5})", self.coordinator)
            if not found or not 1 <= int(found[1]) <= MOST_PORT:
                raise InputError(
                    f"--coordinator is {excerpt(repr(self.coordinator))}: use host and port, such as 10.0.0.1:1234."
                )

    def initialize(self) -> None:
        """Connect this process to the others, see `distributed.processes.initialize`."""
        from jaxstyle.distributed import processes

        processes.initialize(
            self.coordinator,
            self.num_processes,
            self.process_id,
            initialization_timeout=self.initialization_timeout,
            heartbeat_timeout=self.heartbeat_timeout,
        )

    def finish(self) -> None:
        """Wait for all processes, and disconnect."""
        from jaxstyle.distributed import processes

        processes.finish()

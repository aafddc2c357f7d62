"""The commands of `jaxstyle` and their dispatch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import subcommand

from jaxstyle.cli.batch import Batch
from jaxstyle.cli.info import Doctor, Networks
from jaxstyle.cli.reconstruct import Reconstruct
from jaxstyle.cli.rerun import Rerun
from jaxstyle.cli.statistics import Statistics
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.cli.texture import Texture


# A data class, since tyro parses the source of `typing` for the help of a union.
@dataclass(frozen=True)
class Command:
    """Transfer the style of one picture to another by optimization (Gatys et al., arXiv:1508.06576)."""

    command: (
        Annotated[Stylize, subcommand("stylize")]
        | Annotated[Sweep, subcommand("sweep")]
        | Annotated[Batch, subcommand("batch")]
        | Annotated[Reconstruct, subcommand("reconstruct")]
        | Annotated[Texture, subcommand("texture")]
        | Annotated[Rerun, subcommand("rerun")]
        | Annotated[Statistics, subcommand("statistics")]
        | Annotated[Networks, subcommand("networks")]
        | Annotated[Doctor, subcommand("doctor")]
    )


def run(arguments: Sequence[str]) -> int:
    """Run the command of `arguments` and return its exit status; exit for `--help` or invalid arguments."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    command = tyro.cli(Command, prog="jaxstyle", args=arguments, config=config).command
    if not isinstance(command, Stylize | Sweep | Batch | Reconstruct | Texture):
        return command.run()
    command.processes.check(devices=command.computing.devices)
    if not command.processes.distributed:
        return command.run()
    from jaxstyle.distributed import processes  # takes a second

    processes.initialize(**{name: value for name, value in vars(command.processes).items() if name != "distributed"})
    status = command.run()
    processes.finish()
    return status

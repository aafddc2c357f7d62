"""The commands of `jaxstyle` and their dispatch."""

from collections.abc import Sequence
from typing import Annotated

import tyro

from jaxstyle.cli.batch import Batch
from jaxstyle.cli.info import Doctor, Networks
from jaxstyle.cli.reconstruct import Reconstruct
from jaxstyle.cli.rerun import Rerun
from jaxstyle.cli.statistics import Statistics
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.cli.texture import Texture

Command = (
    Annotated[Stylize, tyro.conf.subcommand("stylize")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Batch, tyro.conf.subcommand("batch")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Texture, tyro.conf.subcommand("texture")]
    | Annotated[Rerun, tyro.conf.subcommand("rerun")]
    | Annotated[Statistics, tyro.conf.subcommand("statistics")]
    | Annotated[Networks, tyro.conf.subcommand("networks")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def run(arguments: Sequence[str]) -> int:
    """Run the command of `arguments` and return its exit status; exit for `--help` or invalid arguments."""
    command = tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="jaxstyle",
        args=arguments,
        description="Repaint a picture in the style of another (Gatys et al., arXiv:1508.06576).",
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
    )
    if not isinstance(command, Stylize | Sweep | Batch | Reconstruct | Texture):
        return command.run()
    command.processes.check(devices=command.computing.devices)
    if not command.processes.distributed:
        return command.run()
    command.processes.initialize()
    status = command.run()
    command.processes.finish()
    return status

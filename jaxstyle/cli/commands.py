"""The commands of `jaxstyle` and their dispatch."""

from collections.abc import Sequence

import tyro

from jaxstyle.cli.batch import Batch
from jaxstyle.cli.info import Doctor, Networks
from jaxstyle.cli.reconstruct import Reconstruct
from jaxstyle.cli.rerun import Rerun
from jaxstyle.cli.statistics import Statistics
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.cli.texture import Texture

COMMANDS = (Stylize, Sweep, Batch, Reconstruct, Texture, Rerun, Statistics, Networks, Doctor)


def run(arguments: Sequence[str]) -> int:
    """Run the command of `arguments` and return its exit status; exit for `--help` or invalid arguments."""
    command = tyro.extras.subcommand_cli_from_dict(
        {kind.__name__.lower(): kind for kind in COMMANDS},
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
    from jaxstyle.distributed import processes  # takes a second

    processes.initialize(**{name: value for name, value in vars(command.processes).items() if name != "distributed"})
    status = command.run()
    processes.finish()
    return status

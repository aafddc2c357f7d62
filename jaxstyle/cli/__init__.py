"""The command line: one file a command, and the only place that prints.

Nothing here imports jax before a command runs, so that `--help` answers at once.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from jaxstyle import __version__
from jaxstyle.cli.batch import Batch
from jaxstyle.cli.doctor import Doctor
from jaxstyle.cli.networks import Networks
from jaxstyle.cli.reconstruct import Reconstruct
from jaxstyle.cli.rerun import Rerun
from jaxstyle.cli.signals import raising, status_of
from jaxstyle.cli.statistics import Statistics
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.cli.texture import Texture
from jaxstyle.errors import InputError, out_of_memory

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `jaxstyle` with `arguments` and return its exit status.

    Args:
        arguments: those of the process if None.

    Returns:
        0; 2 for what the user can mend, 1 for what the user cannot, 130 after Ctrl-C, 143 after SIGTERM.

    Example:
        >>> main(["--version"])
        jaxstyle 0.1.0
        0
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(f"jaxstyle {__version__}")
        return 0
    command = tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="jaxstyle",
        args=arguments,
        description="Repaint a picture in the style of another (Gatys et al., arXiv:1508.06576).",
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes),
    )
    try:
        with raising():
            return command.run()
    except InputError as error:
        print(f"jaxstyle: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a vanished folder, a download that failed
        print(f"jaxstyle: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if (sentence := out_of_memory(error)) is None:
            raise
        print(f"jaxstyle: {sentence}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("jaxstyle: interrupted before a picture was saved.", file=sys.stderr)
        return status_of(error)

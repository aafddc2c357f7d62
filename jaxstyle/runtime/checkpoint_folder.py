"""The folder of a run's checkpoints, in which they have numbers and are removed when there are newer ones."""

from pathlib import Path

from jaxstyle.errors import InputError

TEMPORARY = ".orbax-checkpoint-tmp"
PARTS = ("arrays", "facts.json", "_CHECKPOINT_METADATA")  # of which each checkpoint has one, however little is written


def check(folder: Path) -> None:
    """Raise if checkpoints cannot go to a folder: what else is in it may not be called as they are.

    Args:
        folder: that may not exist yet.

    Raises:
        InputError: if it is a file, may not be read, or holds a folder with the name of a checkpoint that is none.

    Example:
        >>> check(Path("none"))
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--checkpoint {folder} is a file: name a folder for the checkpoints.")
    try:
        strange = [path.name for path in sorted(folder.iterdir()) if _is_called_as(path) and not _is_checkpoint(path)]
    except OSError as error:
        raise InputError(
            f"--checkpoint {folder} cannot be read ({error.strerror}): name a folder that you may read."
        ) from error
    if strange:
        raise InputError(f"--checkpoint {folder} holds {strange[0]}, which is no checkpoint: name another folder.")


def _is_called_as(path: Path) -> bool:
    """Return whether something is a folder with the name of a checkpoint."""
    return (path.name.isdecimal() or TEMPORARY in path.name) and path.is_dir() and not path.is_symlink()


def _is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint, or what a killed process has left of one."""
    names = [path.name for path in folder.iterdir()]
    return not names or any(name.startswith(PARTS) for name in names)

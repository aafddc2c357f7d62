"""The folder of the checkpoints of a run, whose names are numbers; old checkpoints are removed."""

from pathlib import Path

from jaxstyle.errors import InputError

TEMPORARY = ".orbax-checkpoint-tmp"
PARTS = ("arrays", "facts.json", "_CHECKPOINT_METADATA")  # each checkpoint has at least one of them, even if incomplete


def check(folder: Path) -> None:
    """Check a folder for checkpoints: other contents must not have the names of checkpoints.

    Args:
        folder: a folder, which may not exist yet.

    Raises:
        InputError: if it is a file, cannot be read, or has a folder with the name of a checkpoint that is not one.

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
    """Return whether a path is a folder with the name of a checkpoint."""
    return (path.name.isdecimal() or TEMPORARY in path.name) and path.is_dir() and not path.is_symlink()


def _is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint, or an incomplete one of a killed process."""
    names = [path.name for path in folder.iterdir()]
    return not names or any(name.startswith(PARTS) for name in names)

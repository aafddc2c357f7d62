"""Checkpoints: arrays and facts of a run on disk, written atomically with Orbax.

Checkpoints are untrusted: their size and the shape of each array are checked before they are read.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxstyle.distributed.processes import by_leader, of_each
from jaxstyle.errors import InputError, UnavailableError, excerpt
from jaxstyle.files import check_free_space, write_text
from jaxstyle.runtime.checkpoint_folder import TEMPORARY, check

KEPT = 2
FACTS = "facts.json"
MOST_FACTS = 2**22  # bytes
SPARE = 2**18  # bytes of a checkpoint besides its arrays


class _QuietLogger:
    """Suppresses Orbax' log messages, which exceptions repeat, while any thread is within it."""

    def __init__(self) -> None:
        self.lock, self.users, self.before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        logger = logging.getLogger("absl")
        with self.lock:
            if not self.users:
                self.before, logger.disabled = logger.disabled, True
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                logging.getLogger("absl").disabled = self.before


_QUIET = _QuietLogger()


@dataclass(frozen=True)
class CheckpointStore:
    """The two newest checkpoints in a folder for checkpoints only, which is created with the first one.

    Example:
        >>> CheckpointStore(folder).save(10, {"image": image}, {"size": 512})  # doctest: +SKIP
        >>> CheckpointStore(folder).latest(lambda facts: {"image": image}, print)  # doctest: +SKIP
    """

    folder: Path

    def save(self, step: int, arrays: Any, facts: Mapping[str, Any]) -> None:
        """Save a checkpoint; older ones are removed only after it is complete.

        Args:
            step: number of the checkpoint, higher than previous ones.
            arrays: pytree of arrays.
            facts: JSON data.

        Raises:
            UnavailableError: if it cannot be written, such as on a full disk.
        """
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
        folder, aside = self.folder / str(step), self.folder / f"{step}.unreadable"

        def begin() -> None:
            check(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            check_free_space(self.folder, size + SPARE)  # otherwise Orbax prints long error messages
            if (folder / FACTS).exists():  # a checkpoint that could not be read
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
            elif folder.exists():  # left by a save that was interrupted
                shutil.rmtree(folder)

        def end() -> None:
            text = json.dumps({"facts": facts, "files": _hashes(folder)})
            write_text(folder / FACTS, text)  # last, so that a checkpoint without them is incomplete
            shutil.rmtree(aside, ignore_errors=True)
            self._prune(step)

        try:
            by_leader(begin)
            if not all(of_each(int(self.folder.is_dir()))):
                raise InputError(f"The folder {self.folder} does not exist in all processes: use a shared folder.")
            with self._manager() as manager:
                manager.save(step, args=ocp.args.Composite(arrays=ocp.args.StandardSave(arrays)), force=True)
            by_leader(end)
        except InputError:
            raise
        except Exception as error:  # TensorStore and Orbax raise many kinds
            reason = getattr(error, "strerror", None) or excerpt(error)
            for path in self.folder.glob(f"{step}{TEMPORARY}*"):
                shutil.rmtree(path, ignore_errors=True)
            raise UnavailableError(
                f"The checkpoint in {self.folder} cannot be written ({reason}): free space or name another folder."
            ) from error

    def latest(
        self, like: Callable[[dict[str, Any]], Any], warn: Callable[[str], None]
    ) -> tuple[dict[str, Any], Any] | None:
        """Return the facts and the arrays of the newest readable checkpoint.

        Unreadable checkpoints are not removed until newer ones have been saved.

        Args:
            like: maps the facts of a checkpoint to the shapes and dtypes of its arrays; it may raise `InputError` for
                facts of another run, or another error for invalid facts.
            warn: called with a message for each unreadable checkpoint.

        Raises:
            InputError: of `like`, or if the folder is not one of checkpoints.
        """
        found: list[tuple[dict[str, Any], Any]] = []

        def newest() -> int:
            """Return the number of the newest undamaged checkpoint, 0 for none."""
            with self._manager(alone=True) as manager:
                for step in sorted(manager.all_steps(), reverse=True) if manager else ():
                    try:
                        found.append(_read(manager, self.folder / str(step), like))
                        return step
                    except InputError:
                        raise
                    except Exception as error:  # TensorStore and Orbax raise many kinds
                        reason = getattr(error, "strerror", None) or excerpt(error, most=160)
                        warn(f"The checkpoint {self.folder / str(step)} cannot be read ({reason}) and is skipped.")
            return 0

        step = by_leader(newest)
        if step and not found:  # another process has selected it
            with self._manager(alone=True) as manager:
                return _read(manager, self.folder / str(step), like)
        return found[0] if found else None

    def facts(self) -> dict[str, Any] | None:
        """Return the facts of the newest checkpoint with readable facts."""
        with self._manager(alone=True) as manager:
            for step in sorted(manager.all_steps(), reverse=True) if manager else ():
                with contextlib.suppress(Exception):
                    return _facts(self.folder / str(step))
        return None

    def clear(self) -> None:
        """Remove all checkpoints; raise `UnavailableError` if one cannot be removed."""

        def remove() -> None:
            with self._manager(alone=True) as manager:
                for step in manager.all_steps() if manager else ():
                    try:
                        manager.delete(step)
                    except OSError as error:
                        raise UnavailableError(
                            f"The checkpoint {self.folder / str(step)} cannot be removed "
                            f"({error.strerror or excerpt(error)}): remove it."
                        ) from error
            for path in self.folder.glob("*.unreadable"):
                shutil.rmtree(path, ignore_errors=True)

        by_leader(remove)

    def _prune(self, step: int) -> None:
        """Remove the checkpoints before `step` but the newest readable ones."""
        steps = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        readable = []
        for each in steps:
            with contextlib.suppress(Exception):
                _facts(self.folder / str(each))
                readable.append(each)
        for each in set(steps) - set(sorted(readable)[-KEPT:]):
            if each < step:
                shutil.rmtree(self.folder / str(each), ignore_errors=True)

    @contextlib.contextmanager
    def _manager(self, *, alone: bool = False) -> Iterator[Any]:
        """Open the folder, in all processes together or in this process `alone`; None if it does not exist.

        Together, incomplete checkpoints of killed processes are removed in the background; only `save` waits for that.
        """
        check(self.folder)
        if not self.folder.exists():
            yield None
            return
        processes = ocp.options.MultiprocessingOptions()
        if alone and jax.process_count() > 1:
            me = jax.process_index()
            processes = ocp.options.MultiprocessingOptions(
                primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
            )
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not alone,
            create=False,
            multiprocessing_options=processes,
        )
        handlers = {"arrays": ocp.StandardCheckpointHandler(multiprocessing_options=processes)}
        folder = self.folder.absolute()
        with _QUIET, ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as manager:
            yield manager


def _read(manager: Any, folder: Path, like: Callable[[dict[str, Any]], Any]) -> tuple[dict[str, Any], Any]:
    """Return the facts and arrays of a checkpoint; raise any exception if it is damaged."""
    step, facts = int(folder.name), _facts(folder)
    wanted = like(facts)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), wanted)
    leaves = jax.tree.leaves(wanted)
    most = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) + SPARE + MOST_FACTS
    if sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) > most:
        raise ValueError("a checkpoint is larger than its arrays")
    if _hashes(folder) != json.loads((folder / FACTS).read_text())["files"]:
        raise ValueError("a checkpoint's files are not those that were saved")
    held: Any = manager.item_metadata(step)["arrays"]
    held = jax.tree.leaves(held.tree)
    shapes = [str((leaf.shape, leaf.dtype)) for leaf in held]
    chunks = [(chunk, side) for leaf in held for chunk, side in zip(leaf.storage.chunk_shape, leaf.shape, strict=True)]
    if sorted(shapes) != sorted(str((leaf.shape, leaf.dtype)) for leaf in leaves) or any(a > b for a, b in chunks):
        raise ValueError("a checkpoint holds other arrays")
    arrays = manager.restore(step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(wanted)))["arrays"]
    return facts, jax.tree.map(np.asarray, arrays)


def _facts(folder: Path) -> dict[str, Any]:
    """Return the facts of a checkpoint; raise any exception if they are damaged."""
    files = list(folder.rglob("*"))
    if any(file.is_symlink() or not (file.is_file() or file.is_dir()) for file in [folder, *files]):
        raise ValueError("a checkpoint holds links")
    if (folder / FACTS).stat().st_size > MOST_FACTS:
        raise ValueError("the facts of a checkpoint are too long")
    facts = json.loads((folder / FACTS).read_text())["facts"]
    if not isinstance(facts, dict):
        raise ValueError("the facts of a checkpoint are none")
    return facts


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint except the facts."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FACTS)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

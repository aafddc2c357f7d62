"""Checkpoints: `CheckpointStore` saves arrays and facts with Orbax, and `RunCheckpoints` the snapshots of one run.

Checkpoints are untrusted: their size and the shape of each array are checked before they are read. A run is resumed
from the last checkpoint of the same problem.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import operator
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxstyle.distributed.processes import allgather_json, on_process_zero
from jaxstyle.errors import InputError, UnavailableError, excerpt
from jaxstyle.files import check_free_space, write_text
from jaxstyle.runtime import checkpoint_folder
from jaxstyle.runtime.callbacks import Callback, Event, message, notify
from jaxstyle.runtime.checkpoint_folder import TEMPORARY, check
from jaxstyle.runtime.placement import cropped, padded_shapes
from jaxstyle.runtime.problem import Problem, bytes_of
from jaxstyle.runtime.record import differences, settings_of
from jaxstyle.runtime.runner import Snapshot

EVERY = 50  # steps between checkpoints
VERSIONS = "versions."  # prefix of versions of packages in an identity
KEPT = 2
FACTS = "facts.json"
MOST_FACTS = 2**22  # bytes
SPARE = 2**18  # bytes of a checkpoint besides its arrays


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Orbax' log messages, which exceptions repeat."""
    logger = logging.getLogger("absl")

    def suppress(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(suppress)  # one of each thread
    try:
        yield
    finally:
        logger.removeFilter(suppress)


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
        import orbax.checkpoint as ocp  # slow

        size = bytes_of(arrays)
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
            on_process_zero(begin)
            if not all(allgather_json(self.folder.is_dir())):
                raise InputError(f"The folder {self.folder} does not exist in all processes: use a shared folder.")
            options = ocp.CheckpointManagerOptions(
                enable_async_checkpointing=False, cleanup_tmp_directories=True, create=False
            )
            with _quiet(), ocp.CheckpointManager(self.folder.absolute(), options=options) as manager:
                manager.save(step, args=ocp.args.Composite(arrays=ocp.args.StandardSave(arrays)), force=True)
            on_process_zero(end)
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
            for step in self._steps():
                try:
                    found.append(_read(self.folder / str(step), like))
                    return step
                except InputError:
                    raise
                except Exception as error:  # TensorStore and Orbax raise many kinds
                    reason = getattr(error, "strerror", None) or excerpt(error, most=160)
                    warn(f"The checkpoint {self.folder / str(step)} cannot be read ({reason}) and is skipped.")
            return 0

        step = on_process_zero(newest)
        if step and not found:  # another process has selected it
            return _read(self.folder / str(step), like)
        return found[0] if found else None

    def facts(self) -> dict[str, Any] | None:
        """Return the facts of the newest checkpoint with readable facts."""
        for step in self._steps():
            with contextlib.suppress(Exception):
                return _facts(self.folder / str(step))
        return None

    def clear(self) -> None:
        """Remove all checkpoints; raise `UnavailableError` if one cannot be removed."""

        def remove() -> None:
            for step in self._steps():
                try:
                    shutil.rmtree(self.folder / str(step))
                except OSError as error:
                    raise UnavailableError(
                        f"The checkpoint {self.folder / str(step)} cannot be removed "
                        f"({error.strerror or excerpt(error)}): remove it."
                    ) from error
            for path in self.folder.glob("*.unreadable"):
                shutil.rmtree(path, ignore_errors=True)

        on_process_zero(remove)

    def _prune(self, step: int) -> None:
        """Remove the checkpoints before `step` but the newest readable ones."""
        steps, readable = self._steps(), []
        for each in steps:
            with contextlib.suppress(Exception):
                _facts(self.folder / str(each))
                readable.append(each)
        for each in set(steps) - set(readable[:KEPT]):
            if each < step:
                shutil.rmtree(self.folder / str(each), ignore_errors=True)

    def _steps(self) -> list[int]:
        """Return the numbers of all checkpoints, the newest first."""
        check(self.folder)
        paths = self.folder.iterdir() if self.folder.exists() else ()
        names = [path.name for path in paths if path.is_dir() and not path.is_symlink()]
        return sorted((int(name) for name in names if name.isdecimal() and str(int(name)) == name), reverse=True)


def _read(folder: Path, like: Callable[[dict[str, Any]], Any]) -> tuple[dict[str, Any], Any]:
    """Return the facts and arrays of a checkpoint in this process alone; raise any exception if it is damaged."""
    import orbax.checkpoint as ocp

    facts = _facts(folder)
    wanted = like(facts)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), wanted)
    leaves = jax.tree.leaves(wanted)
    most = 2 * bytes_of(leaves) + SPARE + MOST_FACTS
    if sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) > most:
        raise ValueError("a checkpoint is larger than its arrays")
    if _hashes(folder) != json.loads((folder / FACTS).read_text())["files"]:
        raise ValueError("a checkpoint's files are not those that were saved")
    me = jax.process_index()
    alone: Any = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with _quiet(), ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        place = folder.absolute() / "arrays"
        held: Any = jax.tree.leaves(checkpointer.metadata(place).item_metadata.tree)
        shapes = sorted(str((leaf.shape, leaf.dtype)) for leaf in held)
        chunks = [pair for leaf in held for pair in zip(leaf.storage.chunk_shape, leaf.shape, strict=True)]
        if shapes != sorted(str((leaf.shape, leaf.dtype)) for leaf in leaves) or any(a > b for a, b in chunks):
            raise ValueError("a checkpoint holds other arrays")
        arrays = checkpointer.restore(place, args=ocp.args.StandardRestore(wanted))
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
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FACTS)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True)
class RunCheckpoints:
    """Checkpoints of a problem, in its layout on devices, after `every` so many steps."""

    folder: Path
    problem: Problem
    identity: Mapping[str, Any]  # JSON data that must be equal to resume a run, except for versions of packages
    batch: Sequence[int] = ()  # numbers of the pictures of a batch of a sweep
    every: int = EVERY

    @property
    def store(self) -> CheckpointStore:
        """The checkpoints of any run in this folder."""
        return CheckpointStore(self.folder)

    def load(self, callbacks: Sequence[Callback] = ()) -> Snapshot | None:
        """Return the last snapshot, or None; `InputError` if the folder has checkpoints of another problem."""
        found = self.store.latest(self._like, lambda text: message(callbacks, text, kind="warning"))
        if found is None:
            return None
        facts, arrays = found
        for name, before, now in self._differences(facts):  # of versions; of others, `_like` has raised an error
            text = f"{self.folder}: {name} was {before} and is {now}: the bytes may differ."
            message(callbacks, text, kind="warning")
        message(callbacks, f"{self.folder}: resuming after step {len(arrays['sides'])}")
        problem, number = self.problem, facts["scale"]
        scale = problem.schedule[number]
        names = problem.objective.term_names  # in the order of a run; checkpoints are sorted
        history = {name: np.asarray(arrays["history"][name]) for name in names}
        state = problem.resumed(cropped(arrays["state"], problem.shape(scale)))  # devices may have changed
        image, memory_plans = problem.image_of(state, scale), _memory_plans(facts)
        start = np.asarray(arrays["start"]) if "start" in arrays else None
        sides = np.asarray(arrays["sides"])
        return Snapshot(number, facts["scale_step"], state, image, sides, history, memory_plans, start)

    def due(self, step: int, *, before: int) -> bool:
        """Return whether to save a checkpoint after `step` steps, given the number `before` at the last snapshot."""
        return step // self.every > before // self.every

    def save(self, snapshot: Snapshot, callbacks: Sequence[Callback] = ()) -> None:
        """Save a snapshot and send an event "saved", or "failed" if it cannot be written."""
        layout = self.problem.layout
        arrays = {"state": snapshot.state, "sides": snapshot.sides, "history": dict(snapshot.history)}
        if snapshot.start is not None:
            arrays["start"] = np.asarray(snapshot.start)
        facts = {
            "run": dict(self.identity),
            "scale": snapshot.scale,
            "scale_step": snapshot.scale_step,
            "step": snapshot.step,
            "batch": list(self.batch),
            "layout": None if layout is None else [layout.axis, layout.mesh.size],
            "memory_plans": {str(side): plan for side, plan in snapshot.memory_plans.items()},
        }
        try:
            self.store.save(snapshot.step, arrays, facts)
        except (InputError, UnavailableError) as error:
            message(callbacks, str(error), kind="failed")
        else:
            notify(callbacks, Event("saved", snapshot.step, self.problem.steps, message=str(self.folder)))

    def interrupted_batch(self) -> tuple[int, ...]:
        """Return the numbers of the batch at which the same sweep was stopped; empty without one."""
        facts = self.store.facts()
        if facts is None:
            return ()
        self._compare(facts)
        batch: Any = facts.get("batch")
        valid = isinstance(batch, list) and all(type(number) is int for number in batch)
        return tuple(batch) if valid else ()

    def _like(self, facts: dict[str, Any]) -> Any:
        """Return the shapes of the arrays of a checkpoint; check that its facts match this problem."""
        self._compare(facts)
        problem, step = self.problem, facts["step"]
        scale = problem.schedule[range(len(problem.schedule))[facts["scale"]]]
        if not (0 < facts["scale_step"] <= scale.steps and facts["scale_step"] <= step <= problem.steps):
            raise ValueError("a checkpoint is at no step of this run")
        if facts["batch"] != list(self.batch):
            raise ValueError("a checkpoint is of another batch")
        if any(type(plan) is not int for plan in _memory_plans(facts).values()):
            raise ValueError("a checkpoint has memory plans that are no numbers of pixels")
        axes = () if problem.batch_size is None else (problem.batch_size,)
        history = dict.fromkeys(problem.objective.term_names, jax.ShapeDtypeStruct((*axes, step), np.float32))
        state = problem.shape(scale)
        if facts["layout"] is not None:
            axis, count = facts["layout"]
            state = padded_shapes(state, axis=axis, count=operator.index(count))
        found = {"state": state, "sides": jax.ShapeDtypeStruct((step,), np.int32), "history": history}
        return found | ({"start": problem.image_shape(scale)} if problem.keeps_start else {})

    def _compare(self, facts: dict[str, Any]) -> None:
        for name, theirs, own in self._differences(facts):
            if not name.startswith(VERSIONS):
                raise InputError(
                    f"{self.folder} has a checkpoint of another run, whose {name} is {theirs} and not {own}: name "
                    "another folder, or repeat that run's command."
                )

    def _differences(self, facts: dict[str, Any]) -> list[tuple[str, ...]]:
        found = differences(facts["run"], self.identity)
        return [tuple(excerpt(each, most=60) for each in (name, repr(one), repr(two))) for name, one, two in found]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in process 0; raise `InputError` in all processes if another run holds it."""
    with contextlib.ExitStack() as stack:
        on_process_zero(lambda: stack.enter_context(checkpoint_folder.locked(folder)))
        yield


def identity_of(problem: Problem) -> dict[str, Any]:
    """Return the identity of a problem: its options, and a hash of its arrays."""
    start = problem.start if isinstance(problem.start, str) else ""
    keys = [jax.random.key_data(key) for key in (problem.key, problem.noise) if key is not None]
    names = ("params", "picture", "content", "styles", "objective", "style_weights", "content_masks", "style_masks")
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves([*(getattr(problem, name) for name in names), keys, None if start else problem.start]):
        array = np.asarray(leaf)
        digest.update(repr((array.shape, array.dtype.str)).encode() + array.tobytes())
    facts = {"settings": settings_of(problem), "start": start, "steps": problem.steps}
    return facts | {"batch_size": problem.batch_size, "arrays": digest.hexdigest()}


def _memory_plans(facts: Mapping[str, Any]) -> dict[int, int]:
    return {int(side): plan for side, plan in facts["memory_plans"].items()}

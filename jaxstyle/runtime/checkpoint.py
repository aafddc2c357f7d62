"""Checkpoints: `CheckpointStore` saves arrays and facts, and `RunCheckpoints` the snapshots of one run.

A checkpoint is one .npz file of NumPy with its facts as JSON, which is written atomically. Such files are untrusted:
the shape of each array is checked before it is read, and Python objects are refused. A run is resumed from the last
checkpoint of the same problem.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.distributed.processes import allgather_json, on_process_zero
from jaxstyle.errors import InputError, UnavailableError, check_whole, excerpt, user_error
from jaxstyle.files import atomic_write
from jaxstyle.runtime import checkpoint_folder
from jaxstyle.runtime.callbacks import Callback, Event, message, notify
from jaxstyle.runtime.problem import Problem
from jaxstyle.runtime.record import differences, settings_of
from jaxstyle.runtime.runner import Snapshot

EVERY = 50  # steps between checkpoints
VERSIONS = "versions."  # prefix of versions of packages in an identity
KEPT = 2
NAME = re.compile(r"checkpoint-([1-9][0-9]{0,17})\.npz")
INCOMPLETE = ".checkpoint-*.part"  # of `atomic_write`, left by a run that was killed
FACTS = "facts.json"
MOST_FACTS = 2**22  # bytes


@dataclass(frozen=True)
class CheckpointStore:
    """The two newest checkpoints in a folder, which is created with the first one.

    Example:
        >>> CheckpointStore(folder).save(10, {"image": image}, {"size": 512})  # doctest: +SKIP
        >>> CheckpointStore(folder).latest(lambda facts: {"image": image}, print)  # doctest: +SKIP
    """

    folder: Path

    def save(self, step: int, arrays: Any, facts: Mapping[str, Any]) -> None:
        """Save a checkpoint; older ones are removed only after it is complete. Saves must not overlap.

        Args:
            step: number of the checkpoint, from 1, higher than previous ones.
            arrays: pytree of arrays, of which those of process 0 are saved.
            facts: JSON data.

        Raises:
            UnavailableError: if it cannot be written, such as on a full disk.
        """
        check_whole("step", step)

        def write() -> None:
            checkpoint_folder.check(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_incomplete()
            if self._path(step).is_symlink():  # whose target would be replaced
                self._path(step).unlink()
            with atomic_write(self._path(step)) as part, zipfile.ZipFile(part, "w") as file:
                file.writestr(FACTS, json.dumps(facts))
                for name, leaf in _by_name(arrays).items():
                    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf, order="C")
                    with file.open(name, "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array.view(_stored(array.dtype)), allow_pickle=False)
            self._prune(step)

        try:
            on_process_zero(write)
            if not all(allgather_json(self.folder.is_dir())):
                raise InputError(f"The folder {self.folder} does not exist in all processes: use a shared folder.")
        except InputError:
            raise
        except Exception as error:  # of the file, or of arrays that NumPy cannot write
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or excerpt(cause)
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
            InputError: of `like`, or if the folder is a file or cannot be read.
        """
        readable: list[tuple[dict[str, Any], Any]] = []

        def newest() -> int:
            """Return the number of the newest undamaged checkpoint, 0 for none."""
            for step in self._steps():
                try:
                    readable.append(_read(self._path(step), like))
                    return step
                except InputError:
                    raise
                except Exception as error:  # damaged files raise many kinds
                    reason = getattr(error, "strerror", None) or excerpt(error, most=160)
                    warn(f"The checkpoint {self._path(step)} cannot be read ({reason}) and is skipped.")
            return 0

        step = on_process_zero(newest)
        if step and not readable:  # another process has selected it
            return _read(self._path(step), like)
        return readable[0] if readable else None

    def facts(self) -> dict[str, Any] | None:
        """Return the facts of the newest checkpoint with readable facts."""
        for step in self._steps():
            with contextlib.suppress(Exception):
                return _facts(self._path(step))
        return None

    def clear(self) -> None:
        """Remove all checkpoints; raise `UnavailableError` if one cannot be removed."""

        def remove() -> None:
            self._remove_incomplete()
            for step in self._steps():
                try:
                    self._path(step).unlink()
                except OSError as error:
                    reason = error.strerror or excerpt(error)
                    text = f"The checkpoint {self._path(step)} cannot be removed ({reason}): remove it."
                    raise UnavailableError(text) from error

        on_process_zero(remove)

    def _path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}.npz"

    def _remove_incomplete(self) -> None:
        for part in self.folder.glob(INCOMPLETE):
            part.unlink(missing_ok=True)

    def _prune(self, step: int) -> None:
        """Remove the checkpoints before `step` but the newest readable ones."""
        steps, readable = self._steps(), []
        for each in steps:
            with contextlib.suppress(Exception):
                _facts(self._path(each))
                readable.append(each)
        for each in set(steps) - set(readable[:KEPT]):
            if each < step:
                with contextlib.suppress(OSError):
                    self._path(each).unlink()

    def _steps(self) -> list[int]:
        """Return the numbers of all checkpoints, the newest first."""
        checkpoint_folder.check(self.folder)
        names = [path.name for path in self.folder.iterdir()] if self.folder.exists() else []
        return sorted((int(match[1]) for match in map(NAME.fullmatch, names) if match), reverse=True)


def _by_name(tree: Any) -> dict[str, Any]:
    """Return the leaves of a pytree by the names of their files, such as "history/total.npy"."""
    leaves = jax.tree.leaves_with_path(tree)
    by_name = {f"{jax.tree_util.keystr(path, simple=True, separator='/')}.npy": leaf for path, leaf in leaves}
    if len(by_name) < len(leaves):
        raise ValueError("two arrays have the same name")
    return by_name


def _is_key(leaf: Any) -> bool:
    """Return whether an array contains random keys, as in a state of `optax.add_noise`."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored(dtype: Any) -> np.dtype:
    """Return the dtype in a file, where types unknown to NumPy, such as bfloat16, are stored as whole numbers."""
    original = np.dtype(dtype)
    return np.dtype(f"u{original.itemsize}") if original.kind == "V" else original


def _read(path: Path, like: Callable[[dict[str, Any]], Any]) -> tuple[dict[str, Any], Any]:
    """Return the facts and arrays of a checkpoint in this process alone; raise any exception if it is damaged."""
    facts = _facts(path)
    wanted = like(facts)
    leaves = _by_name(wanted)
    with _opened(path) as file:
        if set(file.namelist()) != {FACTS, *leaves}:
            raise ValueError("a checkpoint holds other arrays")
        arrays = [_array(file, name, leaf) for name, leaf in leaves.items()]
    return facts, jax.tree.unflatten(jax.tree.structure(wanted), arrays)


def _array(file: zipfile.ZipFile, name: str, like: Any) -> Any:
    """Return an array of a checkpoint; raise `ValueError` before it is read if it has another shape or dtype."""
    if _is_key(like):
        kinds: list[Any] = []  # key_impl needs an array, traced or not
        data = jax.eval_shape(lambda key: (kinds.append(jax.random.key_impl(key)), jax.random.key_data(key))[1], like)
        return jax.random.wrap_key_data(_array(file, name, data), impl=kinds[0])
    with file.open(name) as member:
        np.lib.format.read_magic(member)
        if np.lib.format.read_array_header_1_0(member) != (like.shape, False, _stored(like.dtype)):
            raise ValueError("a checkpoint holds other arrays")
    with file.open(name) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # the checksum is compared at the end
            raise ValueError("a checkpoint holds other arrays")
    return array.view(like.dtype)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a checkpoint; raise `ValueError` for a link, and for compressed files, which may become large."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("a checkpoint is not a regular file")
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError("a checkpoint is compressed")
        yield file


def _facts(path: Path) -> dict[str, Any]:
    """Return the facts of a checkpoint; raise any exception if they are damaged."""
    with _opened(path) as file:
        if file.getinfo(FACTS).file_size > MOST_FACTS:
            raise ValueError("the facts of a checkpoint are too long")
        facts = json.loads(file.read(FACTS))
    if not isinstance(facts, dict):
        raise ValueError("the facts of a checkpoint are no JSON object")
    return facts


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
        saved = self.store.latest(self._like, lambda text: message(callbacks, text, kind="warning"))
        if saved is None:
            return None
        facts, arrays = saved
        for name, before, now in self._differences(facts):  # of versions; of others, `_like` has raised an error
            text = f"{self.folder}: {name} was {before} and is {now}: the bytes may differ."
            message(callbacks, text, kind="warning")
        message(callbacks, f"{self.folder}: resuming after step {len(arrays['sides'])}")
        problem, number = self.problem, facts["scale"]
        scale = problem.schedule[number]
        names = problem.objective.term_names  # JAX sorts the names of dictionaries
        history = {name: arrays["history"][name] for name in names}
        state = problem.resumed(arrays["state"])
        image, memory_plans = problem.image_of(state, scale), _memory_plans(facts)
        start, sides = arrays.get("start"), arrays["sides"]
        return Snapshot(number, facts["scale_step"], state, image, sides, history, memory_plans, start)

    def due(self, step: int, *, before: int) -> bool:
        """Return whether to save a checkpoint after `step` steps, given the number `before` at the last snapshot."""
        return step // self.every > before // self.every

    def save(self, snapshot: Snapshot, callbacks: Sequence[Callback] = ()) -> None:
        """Save a snapshot and send an event "saved", or "failed" if it cannot be written."""
        problem = self.problem
        arrays = {"sides": snapshot.sides, "history": dict(snapshot.history)}
        if snapshot.start is not None:
            arrays["start"] = np.asarray(snapshot.start)
        facts = {
            "run": dict(self.identity),
            "scale": snapshot.scale,
            "scale_step": snapshot.scale_step,
            "step": snapshot.step,
            "batch": list(self.batch),
            "memory_plans": {str(side): plan for side, plan in snapshot.memory_plans.items()},
        }
        try:
            arrays["state"] = problem.saved(snapshot.state, problem.schedule[snapshot.scale])
            self.store.save(snapshot.step, arrays, facts)
        except Exception as error:
            if (fault := user_error(error)) is None:
                raise
            message(callbacks, str(fault), kind="failed")
        else:
            notify(callbacks, Event("saved", snapshot.step, problem.steps, message=str(self.folder)))

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
        history = dict.fromkeys(
            problem.objective.term_names, jax.ShapeDtypeStruct((*axes, step), problem.content.dtype)
        )
        shapes = {"state": problem.shape(scale), "sides": jax.ShapeDtypeStruct((step,), np.int32), "history": history}
        return shapes | ({"start": problem.image_shape(scale)} if problem.keeps_start else {})

    def _compare(self, facts: dict[str, Any]) -> None:
        for name, theirs, ours in self._differences(facts):
            if not name.startswith(VERSIONS):
                raise InputError(
                    f"{self.folder} has a checkpoint of another run, whose {name} is {theirs} and not {ours}: name "
                    "another folder, or repeat that run's command."
                )

    def _differences(self, facts: dict[str, Any]) -> list[tuple[str, ...]]:
        different = differences(facts["run"], self.identity)
        return [tuple(excerpt(each, most=60) for each in (name, repr(one), repr(two))) for name, one, two in different]


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

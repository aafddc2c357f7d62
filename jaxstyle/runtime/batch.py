"""Batches of pictures: one for each pair of content and style, and the record of the finished ones.

`batch.json` has for each picture a hash of its inputs and options; there is one such file per process. The hash is ""
while the picture is made, and is written after it is saved: an interruption in between repeats the picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from jaxstyle.distributed.processes import is_distributed
from jaxstyle.errors import InputError, UnavailableError, excerpt, user_error
from jaxstyle.files import sha256, write_text
from jaxstyle.images.load import fit as fit_size
from jaxstyle.images.load import size_of
from jaxstyle.runtime.callbacks import Callback, Event, message, never, notify
from jaxstyle.runtime.inputs import LoadedNetwork, expand_paths
from jaxstyle.runtime.options import StylizeOptions
from jaxstyle.runtime.outputs import OutputOptions
from jaxstyle.runtime.record import check_same, structured
from jaxstyle.runtime.run import Run, divergence_message, load_run, run_to_file
from jaxstyle.transfer.presets import Preset
from jaxstyle.transfer.schedule import Scale, plan

FILES = re.compile(r"batch(\.\d+)?\.json")
OF_PRESET = (
    "objective",
    "network",
    "optimizer",
    "color",
    "style_fit",
    "resample",
    "rounding",
)  # on which pixels depend
IN_PROGRESS = ""  # instead of a hash
MOST_PROGRAMS = 50  # kept for pictures of the same shape; a process may map only so many
MOST_SIZE_AHEAD = 1024  # pixels of the longest side of pictures that are loaded ahead, which takes memory


class BatchPicture(NamedTuple):
    """One picture of a batch: its content, its style and its file."""

    content: Path
    style: Path
    output: Path

    def inputs(self, options: StylizeOptions) -> list[Path]:
        """Return all input files except the network."""
        return [self.content, self.style, *options.files()]


class BatchResult(NamedTuple):
    """Numbers of pictures made, skipped as finished, and failed."""

    made: int
    skipped: int
    failed: int
    stop_reason: Literal["done", "stopped"]


@dataclass(frozen=True)
class BatchRecord:
    """Hashes of the pictures in a folder."""

    folder: Path

    def read(self, callbacks: Sequence[Callback] = ()) -> dict[str, str]:
        """Return the hashes of all pictures; a file that cannot be read is skipped with a warning."""
        try:
            parts = [path for path in self.folder.iterdir() if FILES.fullmatch(path.name)]
            parts.sort(key=lambda path: path.stat().st_mtime)  # newer files take precedence
        except OSError:
            return {}
        done: dict[str, str] = {}
        for path in parts:
            try:
                done |= structured(dict[str, str], json.loads(path.read_text()))
            except (OSError, ValueError, RecursionError) as error:
                reason = excerpt(getattr(error, "strerror", None) or error)
                text = f"{path} cannot be read ({reason}): the pictures in it are made again."
                message(callbacks, text, kind="warning")
        return done

    def write(self, done: Mapping[str, str], *, process: int = 0) -> None:
        """Write the hashes of one process."""
        name = f"batch.{process}.json" if process else "batch.json"
        write_text(self.folder / name, json.dumps(dict(done), indent=1))


def batch_pictures(
    contents: Iterable[Path], styles: Iterable[Path], folder: Path, *, pairwise: bool = False, suffix: str = "png"
) -> list[BatchPicture]:
    """Return the pictures of a batch, sorted by style, of all pairs of files, folders and patterns, or `pairwise`."""
    contents, styles = list(contents), list(styles)
    if not contents or not styles:
        raise InputError("There is no content or no style: name at least one of each.")
    # Pictures that the folder has are no inputs.
    made = {(folder / name).resolve() for name in BatchRecord(folder).read()}
    first, second = (expand_paths(paths, besides=made) for paths in (contents, styles))
    if pairwise and len(first) != len(second):
        raise InputError(f"--zip pairs {len(first)} contents with {len(second)} styles: name as many.")
    pairs = list(zip(first, second, strict=True)) if pairwise else [(c, s) for s in second for c in first]
    pictures = [BatchPicture(c, s, folder / f"{c.stem}_{s.stem}.{suffix}") for c, s in pairs]
    names = [each.output.name for each in pictures]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"Two pictures would be called {twice[0]}: rename one of the files.")
    return pictures


def check_batch(pictures: Sequence[BatchPicture], options: StylizeOptions, outputs: OutputOptions) -> None:
    """Raise `InputError` unless the options can be used, and all outputs be written without replacing an input."""
    options.check([pictures[0].style])
    inputs = {path.resolve() for picture in pictures for path in picture.inputs(options)}
    for picture in pictures:
        outputs.check([picture.output], steps=options.steps, inputs=picture.inputs(options))
        if picture.output.resolve() in inputs:
            raise InputError(f"{picture.output} is an input that would be replaced: use another folder.")


def batch(
    pictures: Sequence[BatchPicture],
    folder: Path,
    *,
    options: StylizeOptions,
    network: LoadedNetwork,
    outputs: OutputOptions,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], object] = never,
) -> BatchResult:
    """Make the pictures that are not finished, those of one style and of one size after each other."""
    options, (preset, _) = options.with_init(), options.resolve()
    record, done = BatchRecord(folder), BatchRecord(folder).read(callbacks)
    facts = replace(options, max_memory=None, devices=None, max_pixels=None)
    scales = _scales(options.size, options.size, preset, options)  # a later version may have other defaults
    method = [getattr(preset, name) for name in OF_PRESET]
    common = repr((facts, scales, method, outputs.bits, outputs.record))
    common += network.weights.sha256
    process, processes = 0, 1
    if is_distributed():
        names = [picture.output.name for picture in pictures]
        check_same({"options": common, "network": network.weights.sha256, "pictures": names})
        process, processes = jax.process_index(), jax.process_count()
    mine = pictures[process::processes]
    others = {picture.output.name for picture in pictures} - {picture.output.name for picture in mine}
    done = {name: digest for name, digest in done.items() if name not in others}
    if processes > 1:
        record.write(done, process=process)
    pending = [picture for picture in mine if should_stop() or not _is_finished(picture, done, common, options)]
    skipped = len(mine) - len(pending)
    pending, programs = _by_size(pending, preset, options)
    if len(pending) > 1:
        message(callbacks, f"{len(pending)} pictures with {programs} different programs of steps")
    made, failed, stopped = 0, 0, False
    with ThreadPoolExecutor(1) as thread:
        loader = _Loader(pending, common, options, network, outputs, should_stop, thread)
        for number, picture in enumerate(pending):
            name = picture.output.name
            if stopped := bool(should_stop()):
                break
            done[name] = IN_PROGRESS
            record.write(done, process=process)
            try:
                message(callbacks, f"{number + 1} of {len(pending)}: {picture.content} as {picture.style}")
                digest, run, events = loader.take(number)
                for event in events:
                    notify(callbacks, event)

                load_next = partial(loader.load_next, number + 1, run.problem.schedule[-1])
                result = run_to_file(run, picture.output, callbacks=(*callbacks, load_next), should_stop=should_stop)
                if result.stop_reason == "diverged":
                    raise UnavailableError(divergence_message(result, picture.output))
            except Exception as error:
                if (fault := user_error(error)) is None:
                    raise
                failed += 1
                message(callbacks, f"{name} failed: {fault}", kind="failed")
                continue
            except KeyboardInterrupt:
                stopped = True
                break
            if stopped := result.stop_reason == "stopped":
                break
            message(callbacks, f"{picture.output}: {result.steps} steps in {result.seconds:.1f} s, {result.totals}")
            made, done[name] = made + 1, digest
            record.write(done, process=process)
    return BatchResult(made, skipped, failed, "stopped" if stopped else "done")


class _LoadedPicture(NamedTuple):
    digest: str
    run: Run
    events: list[Event]  # of loading


@dataclass
class _Loader:
    """Loads the pictures of a batch in order, the next one in a thread beside the steps, and compiles its programs."""

    pictures: Sequence[BatchPicture]
    common: str
    options: StylizeOptions
    network: LoadedNetwork
    outputs: OutputOptions
    should_stop: Callable[[], object]
    thread: ThreadPoolExecutor
    compiled: dict[tuple, Any] = field(default_factory=dict)
    ahead: Future[_LoadedPicture] | None = None

    def take(self, number: int) -> _LoadedPicture:
        """Return a picture, which `load_next` has loaded or which is loaded now."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            return ahead.result()
        self._limit_programs()
        return self._load(number)

    def load_next(self, number: int, last: Scale, event: Event, _: object) -> None:
        """Load a picture in the thread, after the first steps of the last scale of the one before."""
        starts = event.kind == "steps" and event.size == (last.width, last.height) and self.ahead is None
        allowed = self.options.size <= MOST_SIZE_AHEAD and self.options.max_memory is None
        if starts and allowed and number < len(self.pictures):
            self._limit_programs()
            self.ahead = self.thread.submit(self._load, number, compiling=True)

    def _limit_programs(self) -> None:
        if len(self.compiled) > MOST_PROGRAMS:
            self.compiled.clear()
            jax.clear_caches()

    def _load(self, number: int, *, compiling: bool = False) -> _LoadedPicture:
        picture, events = self.pictures[number], list[Event]()
        digest = _digest(self.common, picture.inputs(self.options))
        files = {"content": picture.content, "styles": (picture.style,)}
        how: dict[str, Any] = {"outputs": self.outputs, "callbacks": [lambda event, _: events.append(event)]}
        run = load_run(files, self.options, lambda: self.network, **how)
        devices = 1 if is_distributed() else run.problem.devices
        problem = replace(run.problem, compiled=self.compiled, devices=devices)
        if compiling and devices in (None, 1):
            with contextlib.suppress(Exception):  # repeated, with a message, when the picture is computed
                for scale in range(len(problem.schedule)):
                    if not self.should_stop():
                        problem.compile_ahead(scale)
        return _LoadedPicture(digest, run._replace(problem=problem), events)


def _by_size(
    pictures: Sequence[BatchPicture], preset: Preset, options: StylizeOptions
) -> tuple[list[BatchPicture], int]:
    """Return the pictures sorted by style and size, and the number of programs, one for each shape of a scale."""
    sizes: dict[Path, tuple[int, int]] = {}
    shapes: set[tuple[int, int]] = set()
    for content in dict.fromkeys(picture.content for picture in pictures):
        try:
            size = size_of(content, max_pixels=options.max_pixels)
            width, height = sizes[content] = fit_size(*size, options.size, rounding=preset.rounding)
            shapes |= {scale[:2] for scale in _scales(height, width, preset, options)}
        except InputError:  # reported later, for its picture
            sizes[content] = 0, 0
    styles = {style: number for number, style in enumerate(dict.fromkeys(each.style for each in pictures))}
    order = {size: number for number, size in enumerate(dict.fromkeys(sizes.values()))}
    return sorted(pictures, key=lambda each: (styles[each.style], order[sizes[each.content]])), len(shapes)


def _scales(height: int, width: int, preset: Preset, options: StylizeOptions) -> tuple[Scale, ...]:
    layers, passes = preset.objective.layers, preset.objective.passes
    return plan(height, width, steps=options.steps, scales=preset.scales, layers=layers, passes=passes)


def _is_finished(picture: BatchPicture, done: Mapping[str, str], common: str, options: StylizeOptions) -> bool:
    digest = done.get(picture.output.name, IN_PROGRESS)
    if not digest or not picture.output.is_file():
        return False
    try:
        return digest == _digest(common, picture.inputs(options))
    except InputError:
        return False


def _digest(common: str, files: Iterable[Path]) -> str:
    digest = hashlib.sha256(common.encode())
    for path in files:
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()

"""Repetition of a run from the record of its picture and its input files, which are found by their hashes."""

from __future__ import annotations

import contextlib
import filecmp
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax

from jaxstyle.errors import InputError, UnavailableError, excerpt, printable
from jaxstyle.files import sha256
from jaxstyle.images.load import load_image
from jaxstyle.images.metadata import description_of
from jaxstyle.images.save import check_output
from jaxstyle.networks import weights_io
from jaxstyle.runtime.callbacks import Callback, message, never
from jaxstyle.runtime.fitting import Result
from jaxstyle.runtime.inputs import LoadedNetwork
from jaxstyle.runtime.options import STATISTICS, ObjectiveOptions, ReconstructOptions, StylizeOptions, TextureOptions
from jaxstyle.runtime.outputs import OutputOptions
from jaxstyle.runtime.record import CURE, RunRecord, differences, plain, read, record_of, structured
from jaxstyle.runtime.run import NOT_RECORDED, load_run, run_to_file
from jaxstyle.runtime.sweep_grid import SweepOptions
from jaxstyle.runtime.sweep_job import sweep_folder

WEIGHTS = (*STATISTICS, ".safetensors")  # suffixes of files of weights
OPTIONS: dict[str, type[ObjectiveOptions]] = {
    kind.command: kind for kind in (StylizeOptions, SweepOptions, TextureOptions, ReconstructOptions)
}
FILES: dict[str, dict[str, Any]] = {
    "stylize": {"content": Path, "styles": tuple[Path, ...]},
    "sweep": {"content": Path, "styles": tuple[Path, ...]},
    "texture": {"styles": tuple[Path, ...]},
    "reconstruct": {"image": Path},
}
LoadNamed = Callable[[str, Path | None], LoadedNetwork]  # by name and weights file


def rerun(
    picture: Path,
    output: Path,
    folders: Sequence[Path],
    *,
    load: LoadNamed,
    weights: Path | None = None,
    max_pixels: int | None = None,
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], object] = never,
) -> Result:
    """Repeat the run that made a picture; inputs, and the network without `weights`, are searched in `folders`."""
    if picture.suffix.lower() == ".json":
        raise InputError(f"{picture} is a record and no picture: name the picture next to it.")
    record = picture_record(picture, max_pixels=max_pixels)
    available = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    inputs = _inputs(picture, record, available, folders)
    files, options, outputs = recorded_command(record, picture=picture, inputs=inputs)
    options = replace(options, max_pixels=max_pixels)
    options = replace(options, **dict.fromkeys(options.unused()))  # which earlier versions accepted
    check_output(output, bits=outputs.bits, inputs=[picture, *inputs])
    options.check(files.get("styles", ()))
    loaded = _network(picture, record, available, weights=weights, load=load)
    command = command_line(record.command, files, options, outputs)
    message(callbacks, f"Repeats: {command} --network {loaded.weights.name} -o {shlex.quote(printable(str(output)))}")
    run = load_run(files, options, lambda: loaded, outputs=outputs, callbacks=callbacks)
    if isinstance(options, SweepOptions):
        run = sweep_folder(output.parent, options, outputs=outputs).run(run, record.batch, index=record.index)
    problem = run.problem
    sides = [max(scale.height, scale.width) for scale in problem.schedule]
    plans = {side: record.memory_plans.get(str(side), 0) for side in sides}
    problem = replace(problem, memory_plans=plans, devices=min(record.devices, len(jax.devices())))
    same = replace(run.record, options=record.options, inputs=record.inputs, network=record.network)  # names as then
    outputs = OutputOptions(bits=outputs.bits, record=bool(description_of(picture, max_pixels=max_pixels)))
    run = run._replace(problem=problem, record=same, outputs=outputs)
    return run_to_file(run, output, callbacks=callbacks, should_stop=should_stop, until=record.steps)


def picture_record(picture: Path, *, max_pixels: int | None = None) -> RunRecord:
    """Return the record of a picture that can be repeated."""
    record = record_of(picture, max_pixels=max_pixels)
    if record.command not in OPTIONS or record.steps < 1:
        raise InputError(f"{picture} holds no record of a picture: {CURE}")
    return record


def recorded_command(
    record: RunRecord, *, picture: Path, inputs: Sequence[Path]
) -> tuple[dict[str, Any], Any, OutputOptions]:
    """Return the input files by argument, the options and the output options of a record, for these inputs."""
    options, kinds = dict(record.options), FILES[record.command]
    try:
        files = {name: structured(kind, options.pop(name, None), paths=inputs) for name, kind in kinds.items()}
        bits, every = options.pop("bits", 8), options.pop("save_every", 0)
        outputs = structured(OutputOptions, {"bits": bits, "save_every": every})
        options = {name: value for name, value in options.items() if name not in NOT_RECORDED}  # version 1 has them
        parsed = structured(OPTIONS[record.command], options, paths=inputs)
    except ValueError as error:
        raise InputError(
            f"{picture} was made with options that {record.command} does not take ({excerpt(error)}): use the "
            f"version that made it, {excerpt(record.versions.get('jaxstyle', 'which is unknown'))}."
        ) from error
    return files, parsed, outputs


def command_line(command: str, files: Mapping[str, Any], *groups: Any) -> str:
    """Return a command with its files and the options of `groups` that differ from the defaults, for display."""
    paths = [str(path) for path in jax.tree.leaves(list(files.values()))]
    words = ["jaxstyle", command, *(f"./{path}" if path.startswith("-") else path for path in paths)]
    for group in groups:
        for each in fields(group):
            value, option = getattr(group, each.name), f"--{each.name.replace('_', '-')}"
            for part in value if isinstance(value, tuple) else (value,):
                if part != each.default:
                    words += [option] if part is True else [option, part]
    return " ".join(shlex.quote(printable(str(word))) for word in words)


def _inputs(picture: Path, record: RunRecord, files: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    hashes, names = ({getattr(each, part) for each in record.inputs} for part in ("sha256", "name"))
    known: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: path.name not in names):
        if hashes <= known.keys():
            break
        if path.absolute() != picture.absolute():
            with contextlib.suppress(InputError, UnavailableError):
                known.setdefault(sha256(path), path)
    missing = [excerpt(each.name) for each in record.inputs if each.sha256 not in known]
    if missing:
        raise InputError(
            f"{picture} was made from {', '.join(missing[:5])}, and no file in {', '.join(map(str, folders))} has the "
            "same bytes: name the folder with --inputs."
        )
    return [known[each.sha256] for each in record.inputs]


def _network(
    picture: Path, record: RunRecord, files: Sequence[Path], *, weights: Path | None, load: LoadNamed
) -> LoadedNetwork:
    """Return the network with the hash of the record: from `weights`, from `files`, or an installed one."""
    wanted = record.network
    if wanted.name not in ("vgg19", "mini", "random"):
        raise InputError(f"{picture} was made by an unknown network: use the version that made it.")
    candidates: list[Path | None] = [None]
    if weights is not None:
        candidates = [weights]
    elif wanted.name == "vgg19":
        likely = [path for path in files if path.suffix.lower() in WEIGHTS]
        likely.sort(key=lambda path: path.name != wanted.file)
        candidates = [*likely, None]
    digest = ""
    for path in candidates:
        if path is not None and path != weights:
            try:
                weights_io.widths(path)
            except InputError:
                continue  # style statistics, or another file
        loaded = load(wanted.name, path)
        if loaded.weights.sha256 == wanted.sha256:
            return loaded
        digest = excerpt(loaded.weights.sha256, most=15)
    raise InputError(
        f"{picture} was made by a {wanted.name} of SHA-256 {excerpt(wanted.sha256, most=15)}, but the one found has "
        f"{digest}: name its file with --weights."
    )


def equal_pictures(
    picture: Path, output: Path, *, max_pixels: int | None = None, callbacks: Sequence[Callback] = ()
) -> bool:
    """Return whether two pictures have the same bytes; send messages with their differences."""
    if filecmp.cmp(output, picture, shallow=False):
        message(callbacks, f"{output}: byte for byte {picture}")
        return True
    if text := description_of(output, max_pixels=max_pixels):  # like the picture, it may lack its record
        then, now = record_of(picture, max_pixels=max_pixels), read(text, str(output))
        for name, theirs, value in differences(plain(then, paths={}), plain(now, paths={})):
            message(callbacks, f"{excerpt(name)}: {excerpt(repr(theirs))} then, {value!r} now")
    try:
        before, after = (load_image(path, max_pixels=max_pixels) for path in (picture, output))
    except InputError as error:
        message(callbacks, f"{output} differs from {picture}, which is not a picture any more: {error}")
        return False
    if before.rgb.shape != after.rgb.shape:
        height, width, _ = before.rgb.shape
        message(callbacks, f"{output} differs from {picture}, which is {width}x{height} pixels")
        return False
    apart = abs(before.rgb - after.rgb)
    count, most = int((apart > 0).sum()), 255 * float(apart.max())
    pixels = f"in {count} of {apart.size} values, by {most:.3g} of 255 at most" if count else "in no pixel"
    message(callbacks, f"{output} differs from {picture} {pixels}")
    return False

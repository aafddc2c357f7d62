"""`jaxstyle batch`: one picture for each pair of content and style."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from jaxstyle.cli.limits import Limits
from jaxstyle.cli.options import Comparison, Computing, Init, Network
from jaxstyle.cli.pictures import STATISTICS, Controls, expanded
from jaxstyle.cli.processes import Processes
from jaxstyle.cli.saving import Saving
from jaxstyle.cli.signals import check, status_of
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.tuning import Balance, Optimization
from jaxstyle.errors import InputError, own
from jaxstyle.runtime.batch import BEING_MADE, BatchRecord
from jaxstyle.runtime.outputs import make_folder

if TYPE_CHECKING:
    from jaxstyle.config import Config
    from jaxstyle.networks.vgg import Params
    from jaxstyle.transfer.color import Sizes
    from jaxstyle.transfer.presets import Preset

    Known = Mapping[Path, Sizes]

MOST_PROGRAMS = 50  # kept for pictures of the same shape; a process may map only so many
NOT_IN_PICTURES = ("contents", "styles", "output", "zip", "record", "quiet", "network", "limits", "processes")


@dataclass(frozen=True)
class Batch:
    """Transfer each of --styles to each CONTENT image; the same command skips the pictures that are finished."""

    contents: Annotated[Positional[tuple[Path, ...]], arg(metavar="CONTENT [CONTENT ...]")]
    """Content images, folders, or patterns."""
    styles: Annotated[tuple[Path, ...], arg(metavar="STYLE [STYLE ...]")]
    """Style images, folders, patterns, or files (.h5) of `jaxstyle statistics`."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
    """Output folder for the pictures, CONTENT_STYLE.png, and batch.json; existing files are replaced."""

    zip: bool = False
    """Pair the first content with the first style, the second with the second, and so on."""
    format: Literal["png", "jpg", "webp", "tiff"] = "png"
    """File format of the pictures."""
    size: int = 512
    """Longest side of the pictures in pixels."""
    steps: int = 300
    """Number of gradient evaluations of each picture over all scales."""
    init: Init = "content"
    """Initial image: content, style, noise, or an image file."""
    seed: int = 0
    """Seed of the noise and of the directions of --statistic sliced."""
    preview: bool = False
    """Use the mini network, which needs no download."""
    bits: Literal[8, 16] = 8
    """Bits per channel of the pictures; 16 for png and tiff."""
    record: bool = False
    """Write the record of each picture to a .json file too."""
    quiet: bool = False
    """Print errors only."""

    controls: OmitArgPrefixes[Controls] = field(default_factory=Controls)
    comparison: OmitArgPrefixes[Comparison] = field(default_factory=Comparison)
    balance: OmitArgPrefixes[Balance] = field(default_factory=Balance)
    optimization: OmitArgPrefixes[Optimization] = field(default_factory=Optimization)
    computing: OmitArgPrefixes[Computing] = field(default_factory=Computing)
    network: OmitArgPrefixes[Network] = field(default_factory=Network)
    limits: OmitArgPrefixes[Limits] = field(default_factory=Limits)
    processes: OmitArgPrefixes[Processes] = field(default_factory=Processes)

    def run(self) -> int:
        """Run the command; return 1 if a picture failed, 130 after Ctrl-C, else 0."""
        record = BatchRecord(self.output)
        done = record.read()
        commands = self._commands(done)
        preset, _ = commands[0].checked()
        make_folder(self.output)
        self._check(commands)

        import jax

        from jaxstyle.cli.progress import Reporter
        from jaxstyle.cli.session import Session
        from jaxstyle.distributed.processes import together
        from jaxstyle.runtime.record import check_same

        reporter = Reporter(quiet=self.quiet)
        network = reporter.load_network("mini" if self.preview else self.network.network, self.network)
        facts = {name: value for name, value in vars(self).items() if name not in NOT_IN_PICTURES}
        facts["computing"] = replace(self.computing, max_memory=None, devices=None)
        common = repr((facts, preset.config.scales, network.weights.sha256))
        process, processes = 0, 1
        if together():
            check_same({**{name: repr(value) for name, value in facts.items()}, "network": network.weights.sha256})
            check_same({"pictures": [command.output.name for command in commands]})
            process, processes = jax.process_index(), jax.process_count()
        mine = commands[process::processes]
        theirs = {command.output.name for command in commands} - {command.output.name for command in mine}
        done = {name: digest for name, digest in done.items() if name not in theirs}
        if processes > 1:
            record.write(done, process=process)
        pending = [command for command in mine if not _is_finished(command, done, common)]
        skipped = len(mine) - len(pending)
        pending, programs = self._by_size(pending, preset)
        if len(pending) > 1:
            reporter.console.print(f"{len(pending)} pictures with {programs} different programs of steps")
        compiled, known = {}, {}
        failed = made = status = 0
        for number, command in enumerate(pending, 1):
            name = command.output.name
            try:
                check()
                digest = _digest(common, command.inputs())
                if name in done:
                    done[name] = BEING_MADE
                    record.write(done, process=process)
                reporter.console.print(f"{number} of {len(pending)}: {command.content} as {command.styles[0]}")
                known = self._known(command, known, network.params, preset.config)
                job = command.job(reporter, network=network, known=known)
                work = replace(job.work, compiled=compiled, devices=1 if together() else job.work.devices)
                job = job._replace(work=work)
                status = Session(command.output, self.steps, command.saving).run(job, reporter=reporter)
            except Exception as error:
                if (fault := own(error)) is None:
                    raise
                failed += 1
                print(f"jaxstyle: {name} is left out: {fault}", file=sys.stderr)
                continue
            except KeyboardInterrupt as error:
                status = status_of(error)
                break
            if status:
                break
            if len(compiled) > MOST_PROGRAMS:
                compiled.clear()
                jax.clear_caches()
            made, done[name] = made + 1, digest
            record.write(done, process=process)
        reporter.console.print(f"{self.output}: {made} made, {skipped} there already, {failed} left out")
        if status:
            reporter.console.print("Interrupted: repeat the command to go on.")
        return status or (1 if failed else 0)

    def _by_size(self, commands: Sequence[Stylize], preset: Preset) -> tuple[list[Stylize], int]:
        """Return the commands sorted by style and size, and the number of programs, one for each shape of a scale."""
        from jaxstyle.images.load import fit, size_of
        from jaxstyle.transfer.schedule import plan

        sizes: dict[Path, tuple[int, int]] = {}
        shapes: set[tuple[int, int]] = set()
        for content in dict.fromkeys(command.content for command in commands):
            try:
                own = size_of(content, max_pixels=self.limits.pixels())
                width, height = sizes[content] = fit(*own, self.size, rounding=preset.rounding)
                shapes |= {scale[:2] for scale in plan(height, width, steps=self.steps, config=preset.config)}
            except InputError:  # reported later, for its picture
                sizes[content] = 0, 0
        styles = {style: number for number, style in enumerate(dict.fromkeys(each.styles for each in commands))}
        order = {size: number for number, size in enumerate(dict.fromkeys(sizes.values()))}
        return sorted(commands, key=lambda each: (styles[each.styles], order[sizes[each.content]])), len(shapes)

    def _check(self, commands: Sequence[Stylize]) -> None:
        """Check that all outputs can be written and are not inputs of any picture."""
        from jaxstyle.images.save import check_output

        inputs = {path.resolve() for command in commands for path in command.inputs()}
        for command in commands:
            output = command.output
            check_output(output, bits=self.bits)
            command.saving.check([output], steps=self.steps, inputs=command.inputs())
            if output.resolve() in inputs:
                raise InputError(f"{output} is an input that would be replaced: use another folder.")

    def _commands(self, done: Mapping[str, str]) -> list[Stylize]:
        """Return a command for each picture, sorted by style."""
        if not self.contents or not self.styles:
            raise InputError("There is no content or no style: name at least one of each.")
        if self.controls.blend is not None or self.controls.content_mask or self.controls.style_mask:
            raise InputError("A batch has one style for each picture: use --blend and masks with jaxstyle stylize.")
        painted = {(self.output / name).resolve() for name in done}
        contents, styles = (expanded(paths, besides=painted) for paths in (self.contents, self.styles))
        if self.zip and len(contents) != len(styles):
            raise InputError(f"--zip pairs {len(contents)} contents with {len(styles)} styles: name as many.")
        pairs = list(zip(contents, styles, strict=True)) if self.zip else [(c, s) for s in styles for c in contents]
        names = [f"{content.stem}_{style.stem}.{self.format}" for content, style in pairs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"Two pictures would be called {twice[0]}: rename one of the files.")
        own = {name: getattr(self, name) for name in ("size", "steps", "init", "seed", "preview")}
        own |= {name: getattr(self, name) for name in ("controls", "comparison", "balance", "optimization")}
        own |= {"computing": self.computing, "network": self.network, "limits": self.limits}
        own |= {"processes": self.processes}
        saving = Saving(bits=self.bits, record=self.record, quiet=self.quiet)
        return [
            Stylize(content, (style,), self.output / name, saving=saving, **own)
            for (content, style), name in zip(pairs, names, strict=True)
        ]

    def _known(self, command: Stylize, known: Known, params: Params, config: Config) -> Known:
        """Return the cached statistics of the style of a command, unless it needs the style image."""
        from jaxstyle.images.load import load_image
        from jaxstyle.runtime.style_cache import statistics_of
        from jaxstyle.transfer import presets
        from jaxstyle.transfer.schedule import plan
        from jaxstyle.transfer.stylize import style_sides

        [path] = command.styles
        preset = presets.preset(self.comparison.preset)
        if path in known or path.suffix.lower() in STATISTICS or config.color != "none" or self.init == "style":
            return known
        if preset.style_fit == "content":
            return {}
        size = self.controls.style_size or max(16, round((self.controls.style_scale or 1.0) * self.size))
        how: dict[str, Any] = {"rounding": preset.rounding, "max_pixels": self.limits.pixels()}
        style: Any = load_image(path, size=size, resample=preset.resample, **how).rgb
        sides = style_sides(self.size, plan(self.size, self.size, steps=1_000_000, config=config), config=config)
        return {path: statistics_of(style, sides, longest=self.size, params=params, config=config, seed=self.seed)}


def _is_finished(command: Stylize, done: Mapping[str, str], common: str) -> bool:
    """Return whether the picture exists and has the same input files and options."""
    check()
    try:
        known = command.output.name in done and command.output.is_file()
        return known and done[command.output.name] == _digest(common, command.inputs())
    except InputError:  # reported later, for its picture
        return False


def _digest(common: str, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(common.encode())
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): name a picture file.") from error
    return digest.hexdigest()

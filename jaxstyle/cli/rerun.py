"""`jaxstyle rerun`: repeats the command of a picture from its record and input files."""

from __future__ import annotations

import contextlib
import filecmp
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from jaxstyle.cli.limits import Limits
from jaxstyle.cli.options import Network
from jaxstyle.cli.pictures import STATISTICS
from jaxstyle.cli.reconstruct import Reconstruct
from jaxstyle.cli.saving import Saving
from jaxstyle.cli.stylize import Stylize
from jaxstyle.cli.sweep import Sweep
from jaxstyle.cli.texture import Texture
from jaxstyle.errors import InputError, excerpt

if TYPE_CHECKING:
    from jaxstyle.cli.progress import Loaded, Reporter
    from jaxstyle.runtime.record import Record

COMMANDS = {kind.__name__.lower(): kind for kind in (Stylize, Sweep, Texture, Reconstruct)}


@dataclass(frozen=True)
class Rerun:
    """Repeat the command that made PICTURE and compare: the same bytes on the same machine with the same versions."""

    picture: Annotated[Positional[Path], arg(metavar="PICTURE")]
    """Picture made by jaxstyle, or the .json file of --record."""
    inputs: Annotated[tuple[Path, ...], arg(metavar="DIR [DIR ...]", help_behavior_hint="")] = ()
    """Folders of the input files, which are found by their hashes. (default: the folder of the picture)"""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="OUT", help_behavior_hint="")] = None
    """Output image. (default: PICTURE_rerun in the same folder)"""
    weights: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """VGG-19 weights, an .h5 file, if they are neither installed nor in these folders."""
    offline: bool = False
    """Never download weights."""
    quiet: bool = False
    """Print errors only."""

    limits: OmitArgPrefixes[Limits] = field(default_factory=Limits)

    def run(self) -> int:
        """Run the command; return 0 if the picture is byte for byte the same, 1 if not, 130 after Ctrl-C."""
        import jax

        from jaxstyle.cli.progress import Reporter
        from jaxstyle.cli.recording import command_of
        from jaxstyle.cli.session import Session
        from jaxstyle.images.save import check_output

        if self.picture.suffix.lower() == ".json":
            raise InputError(f"{self.picture} is a record and no picture: name the picture next to it.")
        output = self.output or self.picture.with_stem(f"{self.picture.stem}_rerun")
        record = record_of(self.picture, max_pixels=self.limits.pixels())
        files = _files(self.inputs or (self.picture.absolute().parent,))
        inputs = self._found(record, files)
        command = command_of(COMMANDS[record.command], record, picture=self.picture, inputs=inputs, output=output)
        command = replace(command, limits=self.limits)
        check_output(output, bits=command.saving.bits, inputs=[self.picture, *inputs])
        reporter = Reporter(quiet=self.quiet)
        job = command.job(reporter, network=self._network(record, files, reporter))
        if isinstance(command, Sweep):
            job = command.lanes_of(job, record.lanes, record.lane)
        sides = [max(scale.height, scale.width) for scale in job.work.scales()]
        cuts = {side: record.cuts.get(str(side), 0) for side in sides}
        job = job._replace(
            work=replace(job.work, cuts=cuts, devices=min(record.devices, len(jax.devices()))),
            record=replace(job.record, inputs=record.inputs, network=record.network),
        )
        saving = Saving(bits=command.saving.bits, quiet=self.quiet)
        status = Session(output, job.work.steps, saving).run(job, reporter=reporter, until=record.steps)
        return status or self._compare(output, record, reporter)

    def _found(self, record: Record, files: Sequence[Path]) -> list[Path]:
        """Return the input files with the hashes of the record."""
        from jaxstyle.runtime.record import source

        wanted, names = ({getattr(each, part) for each in record.inputs} for part in ("sha256", "name"))
        known: dict[str, Path] = {}
        for path in sorted(files, key=lambda path: path.name not in names):
            if wanted <= known.keys():
                break
            if path != self.picture.absolute():
                with contextlib.suppress(InputError):
                    known.setdefault(source(path).sha256, path)
        missing = [excerpt(each.name) for each in record.inputs if each.sha256 not in known]
        if missing:
            folders = ", ".join(map(str, self.inputs or (self.picture.parent,)))
            raise InputError(
                f"{self.picture} was made from {', '.join(missing[:5])}, and no file in {folders} has the same bytes: "
                "name the folder with --inputs."
            )
        return [known[each.sha256] for each in record.inputs]

    def _network(self, record: Record, files: Sequence[Path], reporter: Reporter) -> Loaded:
        """Return the network with the hash of the record: from --weights, from `files`, or an installed one."""
        from jaxstyle.networks import weights_io

        wanted = record.network
        if wanted.name not in ("vgg19", "mini", "random"):
            raise InputError(f"{self.picture} was made by an unknown network: use the version that made it.")
        places: list[Path | None] = [None]
        if self.weights is not None:
            places = [self.weights]
        elif wanted.name == "vgg19":
            likely = [path for path in files if path.suffix.lower() in STATISTICS]
            likely.sort(key=lambda path: path.name != wanted.file)
            places = [*likely, None]
        loaded = None
        for path in places:
            if path is not None and path != self.weights:
                try:
                    weights_io.widths(path)
                except InputError:
                    continue  # style statistics, or another file
            loaded = reporter.load_network(wanted.name, Network(wanted.name, path, self.offline))
            if loaded.weights.sha256 == wanted.sha256:
                return loaded
        assert loaded is not None  # noqa: S101  # there is at least one place
        raise InputError(
            f"{self.picture} was made by a {wanted.name} of SHA-256 {excerpt(wanted.sha256, most=15)}, but the one "
            f"here has {excerpt(loaded.weights.sha256, most=15)}: name its file with --weights."
        )

    def _compare(self, output: Path, record: Record, reporter: Reporter) -> int:
        """Print whether the pictures are equal, or their differences; return 0 or 1."""
        from jaxstyle.images.load import load_image
        from jaxstyle.images.metadata import description_of
        from jaxstyle.runtime.plain_data import differences, plain
        from jaxstyle.runtime.record import read

        if filecmp.cmp(output, self.picture, shallow=False):
            reporter.console.print(f"{output}: byte for byte {self.picture}")
            return 0
        most = self.limits.pixels()
        now = read(description_of(output, max_pixels=most), str(output))
        facts = [plain(each, paths={}) for each in (record, now)]
        for name, theirs, own in differences(*facts):
            reporter.console.print(f"{excerpt(name)}: {excerpt(repr(theirs))} then, {own!r} now")
        try:
            before, after = (load_image(path, max_pixels=most) for path in (self.picture, output))
        except InputError as error:
            reporter.console.print(f"{output} differs from {self.picture}, which is not a picture any more: {error}")
            return 1
        if before.rgb.shape != after.rgb.shape:
            height, width, _ = before.rgb.shape
            reporter.console.print(f"{output} differs from {self.picture}, which is {width}x{height} pixels")
            return 1
        apart = abs(before.rgb - after.rgb)
        count, most = int((apart > 0).sum()), 255 * float(apart.max())
        pixels = f"in {count} of {apart.size} values, by {most:.3g} of 255 at most" if count else "in no pixel"
        reporter.console.print(f"{output} differs from {self.picture} {pixels}")
        return 1


def record_of(picture: Path, *, max_pixels: int | None = None) -> Record:
    """Return the record of a picture of one of `COMMANDS`, from its metadata or from the .json file next to it.

    Raises:
        InputError: if there is none.
    """
    from jaxstyle.images.metadata import description_of
    from jaxstyle.runtime.record import CURE, MOST

    own, beside = description_of(picture, max_pixels=max_pixels), picture.with_suffix(".json")
    try:
        return _painted(own, picture)
    except InputError:
        if not beside.is_file():
            raise
    try:
        with beside.open(encoding="utf-8") as file:
            text = file.read(MOST + 1)  # at most one character over the limit
    except (OSError, ValueError) as error:
        raise InputError(f"{beside} cannot be read: {CURE}") from error
    return _painted(text, beside)


def _painted(text: str, path: Path) -> Record:
    """Return the record in the text of a file; check that it is of a picture."""
    from jaxstyle.runtime.record import CURE, read

    record = read(text, str(path))
    if record.command not in COMMANDS or record.steps < 1:
        raise InputError(f"{path} holds no record of a picture: {CURE}")
    return record


def _files(folders: Sequence[Path]) -> list[Path]:
    """Return the files in folders."""
    found = []
    for folder in folders:
        try:
            found += [path for path in sorted(folder.iterdir()) if path.is_file()]
        except OSError as error:
            raise InputError(
                f"{folder} cannot be searched ({error.strerror}): name a folder that you may read."
            ) from error
    return found

"""One sweep as the command line sees it: as many lanes at a time as memory allows, each saved when it is finished."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import image, optimize
from jaxstyle.cli.grid import Lane
from jaxstyle.cli.memory import ESTIMATED, room_for, taken_and_free
from jaxstyle.cli.progress import Reporter, Steps
from jaxstyle.cli.rehearsal import rehearse
from jaxstyle.cli.report import Record, read_record, record_of, thinned, write_record
from jaxstyle.cli.saving import Saving, numbered, read_log, write_log
from jaxstyle.cli.work import Work, steps_a_segment
from jaxstyle.config import LossWeights
from jaxstyle.errors import InputError
from jaxstyle.sweep import lanes_within, memory_of


@dataclass(frozen=True)
class SweepSession:
    """The lanes of a sweep and the folder that they go to."""

    folder: Path
    lanes: Sequence[Lane]
    weights: Sequence[LossWeights]
    seeds: Sequence[int]
    saving: Saving
    alpha: np.ndarray | None = None
    digests: Sequence[str] = ()

    def check(self, *, steps: int, inputs: Sequence[Path]) -> None:
        """Refuse an output that cannot be, before hours of work."""
        pictures = [self.picture(i) for i in range(len(self.lanes))]
        for path in (self.folder / "sweep.csv", self.folder / "index.html", *map(record_of, pictures)):
            if path.is_dir():
                raise InputError(f"{path} is a folder, where the sweep writes a file: name another folder.")
        for path in (self.folder / "grid.png", *pictures):
            image.check_output(path, bits=self.saving.bits, inputs=inputs)
        self.saving.check(pictures, steps=steps, inputs=inputs)
        if self.saving.log is not None and self.saving.log.absolute() == (self.folder / "sweep.csv").absolute():
            raise InputError(f"The log {self.saving.log} is where the sweep's table goes: name another file.")

    def run(self, work: Work, *, at_a_time: int | None, memory: int | None, reporter: Reporter) -> int:
        """Paint what is not painted yet; return 1 if a lane diverged, 130 after Ctrl-C, else 0."""
        if self.saving.dry_run:
            return self._rehearse(work, at_a_time=at_a_time, memory=memory, reporter=reporter)
        todo = [i for i in range(len(self.lanes)) if not self._is_whole(i)]
        self._keep_log()
        if len(todo) < len(self.lanes):
            reporter.console.print(f"{len(self.lanes) - len(todo)} of {len(self.lanes)} pictures are there already.")
        if not todo:
            return 0
        began, failed = time.perf_counter(), 0
        try:
            if at_a_time is None:
                at_a_time = self._fitting(work, todo, memory, reporter)
            rounds = [todo[i : i + at_a_time] for i in range(0, len(todo), at_a_time)]
            plan = [(scale.steps, scale.width * scale.height * len(each)) for each in rounds for scale in work.scales()]
            with reporter.steps(plan) as shown:
                for numbers in rounds:
                    failed += self._round(self._work(work, numbers), numbers, shown, reporter)
        except KeyboardInterrupt:
            reporter.console.print("Interrupted: repeat the command to go on.")
            return 130
        seconds = time.perf_counter() - began
        reporter.console.print(f"painted in {seconds:.1f} s (compiled in {shown.compile_seconds:.1f} s)")
        return 1 if failed else 0

    def _rehearse(self, work: Work, *, at_a_time: int | None, memory: int | None, reporter: Reporter) -> int:
        todo = [i for i in range(len(self.lanes)) if self._record(i) is None]
        if len(todo) < len(self.lanes):
            print(f"{len(self.lanes) - len(todo)} of {len(self.lanes)} pictures are there already.")
        if todo:
            lanes = at_a_time or self._fitting(work, todo, memory, reporter)
            rounds, some = -(-len(todo) // lanes), self._work(work, todo[:lanes])
            rehearse(some, save_every=self.saving.save_every, rounds=rounds, reporter=reporter)
        return 0

    def picture(self, i: int) -> Path:
        """Return where the picture of a lane goes."""
        return self.folder / f"{self.lanes[i].name}.png"

    def finished(self) -> list[Record]:
        """Return the records of all lanes that are finished."""
        return [record for i in range(len(self.lanes)) if (record := self._record(i)) is not None]

    def _keep_log(self) -> None:
        """Leave in the log what it has of lanes that are finished."""
        if self.saving.log is None or not self.saving.log.exists():
            return
        finished = {record.picture for record in self.finished()}
        write_log(self.saving.log, [row for row in read_log(self.saving.log) if row.get("picture") in finished])

    def _record(self, i: int) -> Record | None:
        found = read_record(record_of(self.picture(i)))
        there = found is not None and found.digest == self.digests[i] and self.picture(i).is_file()
        return found if there else None

    def _is_whole(self, i: int) -> bool:
        """Return whether a lane is finished and its picture can be read; forget it if the picture is damaged."""
        if self._record(i) is None:
            return False
        try:
            image.load(self.picture(i))
        except InputError:
            record_of(self.picture(i)).unlink()
            return False
        return True

    def _work(self, work: Work, numbers: Sequence[int]) -> Work:
        """Return the work of some lanes."""
        weights = jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *(self.weights[i] for i in numbers))
        noise = jax.vmap(jax.random.key)(jnp.asarray([self.seeds[i] for i in numbers], jnp.uint32))
        noisy = isinstance(work.start, str) and work.start == "noise"
        return replace(work, weights=weights, lanes=len(numbers), noise=noise if noisy else None)

    def _fitting(self, work: Work, todo: Sequence[int], memory: int | None, reporter: Reporter) -> int:
        """Return how many lanes there is room for, and say so."""
        *before, last = work.scales()
        done, targets = sum(scale.steps for scale in before), work.targets(last)

        def needed(lanes: int) -> int:
            some = self._work(work, todo[:lanes])
            image = jax.ShapeDtypeStruct((lanes, last.height, last.width, 3), jnp.float32)
            state = jax.eval_shape(partial(optimize.init, config=work.config), image)
            segment = steps_a_segment(  # what `walk` asks for, so compiled once
                work.params, last, lanes=lanes, done=done, save_every=self.saving.save_every
            )
            with reporter.console.status(f"Estimating the memory of {lanes} lanes"):
                return memory_of(some.program(state, targets, steps=segment))

        needed(len(todo))  # compiling takes memory, of which some stays taken
        room = room_for(memory)
        lanes = lanes_within(room, count=len(todo), needed=needed)
        takes = needed(lanes)
        if memory is not None and takes > room:
            least = (taken_and_free()[0] + takes / ESTIMATED) / 2**20
            raise InputError(
                f"--max-memory is {memory / 2**20:.0f} MiB, but one picture at a time takes {least:.0f} MiB: "
                "give that, add --remat, or lower --size."
            )
        reporter.console.print(
            f"{len(todo)} pictures, {lanes} at a time: {takes / 2**30:.1f} of {room / 2**30:.1f} GiB"
        )
        return lanes

    def _round(self, work: Work, numbers: Sequence[int], shown: Steps, reporter: Reporter) -> int:
        """Paint some lanes and save them; return how many diverged."""
        traces, sides, painted, steps = [], [], None, work.steps
        for segment in work.walk(shown, save_every=self.saving.save_every):
            painted = segment.image
            traces.append(segment.trace)
            for lane, said in segment.news:
                reporter.console.print(f"{self.lanes[numbers[lane]].label}: {said}", style="yellow")
            sides += [segment.side] * segment.trace["total"].shape[-1]
            if self.saving.due(len(sides), steps=steps):
                for i, rgb in zip(numbers, jax.device_get(work.finish(painted)), strict=True):
                    if np.isfinite(rgb).all():
                        self._save(numbered(self.picture(i), len(sides), steps=steps), rgb)
        assert painted is not None
        pictures = jax.device_get(work.finish(painted))
        trace = {name: np.concatenate([each[name] for each in traces], axis=-1) for name in traces[0]}
        failed = 0
        for lane, i in enumerate(numbers):
            own = {term: values[lane] for term, values in trace.items()}
            if not np.isfinite(own["total"]).all() or not np.isfinite(pictures[lane]).all():
                reporter.console.print(
                    f"{self.lanes[i].label}: diverged, so no picture is written: lower the weights.", style="yellow"
                )
                failed += 1
                continue
            self._save(self.picture(i), pictures[lane])
            if self.saving.log is not None:
                write_log(self.saving.log, list(self._rows(i, sides, own)), mode="a")
            terms = {term: float(values[-1]) for term, values in own.items()}
            curve, settings = thinned(own["total"]), dict(self.lanes[i].settings)
            record = Record(self.picture(i).name, self.lanes[i].label, settings, terms, curve, self.digests[i])
            write_record(record_of(self.picture(i)), record)
        return failed

    def _save(self, path: Path, rgb: np.ndarray) -> None:
        image.save(path, rgb, alpha=self.alpha, bits=self.saving.bits)

    def _rows(self, i: int, sides: Sequence[int], trace: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        for step, side in enumerate(sides, 1):
            terms = {term: float(values[step - 1]) for term, values in trace.items()}
            yield {"picture": self.picture(i).name, **self.lanes[i].settings, "step": step, "side": side, **terms}

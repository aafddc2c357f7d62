"""One sweep as the command line sees it: as many lanes at a time as memory allows, each saved when it is finished."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from jaxstyle import image, optimize
from jaxstyle.cli.grid import Lane
from jaxstyle.cli.progress import Reporter, Steps
from jaxstyle.cli.report import Record, read_record, thinned, write_record
from jaxstyle.cli.work import Work, steps_a_segment
from jaxstyle.config import LossWeights
from jaxstyle.sweep import lanes_within, memory_of

FREE_SHARE = 0.8  # of what is free, if nothing else is said
ESTIMATED = 0.7  # of what a process takes; on the CPU convolutions and copies took a third more than the estimate


@dataclass(frozen=True)
class SweepSession:
    """The lanes of a sweep and the folder that they go to."""

    folder: Path
    lanes: Sequence[Lane]
    weights: Sequence[LossWeights]
    seeds: Sequence[int]
    bits: int
    alpha: np.ndarray | None
    digests: Sequence[str]

    def run(self, work: Work, *, at_a_time: int | None, memory: int | None, reporter: Reporter) -> int:
        """Paint what is not painted yet; return 1 if a lane diverged, 130 after Ctrl-C, else 0."""
        todo = [i for i in range(len(self.lanes)) if self._record(i) is None]
        if len(todo) < len(self.lanes):
            reporter.console.print(f"{len(self.lanes) - len(todo)} of {len(self.lanes)} pictures are there already.")
        if not todo:
            return 0
        if at_a_time is None:
            at_a_time = self._fitting(work, todo, memory, reporter)
        rounds = [todo[i : i + at_a_time] for i in range(0, len(todo), at_a_time)]
        plan = [(scale.steps, scale.width * scale.height * len(each)) for each in rounds for scale in work.scales()]
        began, failed = time.perf_counter(), 0
        with reporter.steps(plan) as shown:
            for numbers in rounds:
                try:
                    failed += self._round(self._work(work, numbers), numbers, shown, reporter)
                except KeyboardInterrupt:
                    count = len(self.finished())
                    reporter.console.print(
                        f"Interrupted after {count} of {len(self.lanes)}: repeat the command to go on."
                    )
                    return 130
        seconds = time.perf_counter() - began
        reporter.console.print(
            f"{self.folder / 'index.html'}: {len(todo) - failed} pictures in {seconds:.1f} s "
            f"(compiled in {shown.compile_seconds:.1f} s)"
        )
        return 1 if failed else 0

    def finished(self) -> list[Record]:
        """Return the records of all lanes that are finished."""
        return [record for i in range(len(self.lanes)) if (record := self._record(i)) is not None]

    def _record(self, i: int) -> Record | None:
        found = read_record(self.folder / f"{self.lanes[i].name(i)}.json")
        there = found is not None and found.digest == self.digests[i] and (self.folder / found.picture).is_file()
        return found if there else None

    def _work(self, work: Work, numbers: Sequence[int]) -> Work:
        """Return the work of some lanes."""
        weights = jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *(self.weights[i] for i in numbers))
        noise = jax.vmap(jax.random.key)(jnp.asarray([self.seeds[i] for i in numbers], jnp.uint32))
        noisy = isinstance(work.start, str) and work.start == "noise"
        return replace(work, weights=weights, lanes=len(numbers), noise=noise if noisy else None)

    def _fitting(self, work: Work, todo: Sequence[int], memory: int | None, reporter: Reporter) -> int:
        """Return how many lanes there is room for, and say so."""
        room, last = room_for(memory), work.scales()[-1]

        def needed(lanes: int) -> int:
            some = self._work(work, todo[:lanes])
            image = jax.ShapeDtypeStruct((lanes, last.height, last.width, 3), jnp.float32)
            state = jax.eval_shape(partial(optimize.init, config=work.config), image)
            segment = steps_a_segment(work.params, last, lanes=lanes)  # what `walk` asks for, so compiled once
            with reporter.console.status(f"Estimating the memory of {lanes} lanes"):
                return memory_of(some.program(state, some.targets(last), steps=segment))

        lanes = lanes_within(room, count=len(todo), needed=needed)
        reporter.console.print(
            f"{len(todo)} pictures, {lanes} at a time: {needed(lanes) / 2**30:.1f} of {room / 2**30:.1f} GiB"
        )
        return lanes

    def _round(self, work: Work, numbers: Sequence[int], shown: Steps, reporter: Reporter) -> int:
        """Paint some lanes and save them; return how many diverged."""
        traces, painted = [], None
        for segment in work.walk(shown):
            painted = segment.image
            traces.append(segment.trace)
        assert painted is not None
        pictures = jax.device_get(work.finish(painted))
        trace = {name: np.concatenate([each[name] for each in traces], axis=-1) for name in traces[0]}
        failed = 0
        for lane, i in enumerate(numbers):
            label, stem = self.lanes[i].label, self.lanes[i].name(i)
            if not np.isfinite(trace["total"][lane]).all() or not np.isfinite(pictures[lane]).all():
                reporter.console.print(
                    f"{label}: diverged, so no picture is written: lower the weights.", style="yellow"
                )
                failed += 1
                continue
            name = f"{stem}.png"
            image.save(self.folder / name, pictures[lane], alpha=self.alpha, bits=self.bits)
            terms = {term: float(values[lane, -1]) for term, values in trace.items()}
            curve = thinned(trace["total"][lane])
            settings = dict(self.lanes[i].settings)
            write_record(self.folder / f"{stem}.json", Record(name, label, settings, terms, curve, self.digests[i]))
        return failed


def room_for(memory: int | None) -> int:
    """Return the bytes that programs may take: of `memory` what is not taken yet, or most of what is free."""
    device = jax.local_devices()[0]
    if (found := device.memory_stats() or {}) and device.platform != "cpu":
        used, free = found["bytes_in_use"], found["bytes_limit"] - found["bytes_in_use"]
    else:
        used, free = psutil.Process().memory_info().rss, psutil.virtual_memory().available
    return int(ESTIMATED * (FREE_SHARE * free if memory is None else max(0, memory - used)))

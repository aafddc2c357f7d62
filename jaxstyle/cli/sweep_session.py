"""One sweep on the command line, in batches that fit into memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from jaxstyle.cli.dry_run import rehearse, silent
from jaxstyle.cli.progress import Reporter
from jaxstyle.cli.signals import asked, check, status_of
from jaxstyle.distributed.processes import asked_of_any, leads, of_all, of_leader, together
from jaxstyle.runtime.memory import room_for
from jaxstyle.runtime.placement import lanes_among
from jaxstyle.runtime.problem import Work
from jaxstyle.runtime.record import Job, check_same, laid_out, numbers
from jaxstyle.runtime.resume import Resuming, facts_of
from jaxstyle.runtime.sweep_job import SweepFolder, SweepRound
from jaxstyle.transfer.sweep import lanes_within, memory_of

STOPPED = "Interrupted: repeat the command to go on."


@dataclass(frozen=True)
class SweepSession:
    """The pictures of a sweep."""

    folder: SweepFolder

    def run(self, job: Job, *, at_a_time: int | None, memory: int | None, reporter: Reporter) -> int:
        """Compute all pictures that are not finished.

        Returns:
            130 after Ctrl-C, 143 after SIGTERM, 1 if a picture diverged or a checkpoint could not be saved, else 0.
        """
        if together():
            check_same(facts_of(job, self.folder.saving))
        if self.folder.saving.dry_run:
            return self._rehearse(job.work, at_a_time=at_a_time, memory=memory, reporter=reporter)
        todo: list[int] = of_leader([i for i in range(len(self.folder.lanes)) if not self.folder.is_whole(i)])
        if leads():
            self.folder.keep_log()
        if there := self._there(todo):
            reporter.tell(there)
        if not todo:
            return 0
        began, faults, stopped, scales = time.perf_counter(), 0, 0, job.work.scales()
        saving = self.folder.saving
        resuming = Resuming(saving, job)
        first: list[int] = of_leader(list(resuming.lanes()))
        if not set(first) <= set(todo):  # finished, but the checkpoint was not removed
            resuming.forget()
            first = []
        todo = [i for i in todo if i not in first]
        try:
            if at_a_time is None and todo:
                at_a_time = self._fitting(job.work, todo, memory, reporter)
            rounds = [first] if first else []
            rounds += [todo[i : i + (at_a_time or 1)] for i in range(0, len(todo), at_a_time or 1)]
            plan = [(scale.steps, scale.width * scale.height * len(each)) for each in rounds for scale in scales]
            check()
            with reporter.steps(plan) as shown:
                stop, tell = asked_of_any(asked), reporter.tell
                for each in rounds:
                    some, tell = laid_out(self.job_of(job, each), tell=tell), silent
                    faults |= SweepRound(some, self.folder).paint(shown, reporter, stop)
                    if stopped := stop():
                        break
        except KeyboardInterrupt as error:
            if together():
                raise  # jax then ends the other processes too
            reporter.tell(STOPPED)
            return status_of(error)
        if stopped:
            reporter.tell(STOPPED)
            return stopped
        seconds = time.perf_counter() - began
        reporter.tell(f"painted in {seconds:.1f} s{reporter.compile_times()}")
        return faults

    def _rehearse(self, work: Work, *, at_a_time: int | None, memory: int | None, reporter: Reporter) -> int:
        todo: list[int] = of_leader([i for i in range(len(self.folder.lanes)) if self.folder.entry(i) is None])
        if leads() and (there := self._there(todo)):
            print(there)
        if todo:
            lanes = at_a_time or self._fitting(work, todo, memory, reporter)
            rounds, some = -(-len(todo) // lanes), self._work(work, todo[:lanes])
            some = replace(some, layout=lanes_among(work.devices, lanes=lanes))
            rehearse(some, rounds=rounds, reporter=reporter)
        return 0

    def _there(self, todo: Sequence[int]) -> str:
        count = len(self.folder.lanes)
        return f"{count - len(todo)} of {count} pictures exist already." if len(todo) < count else ""

    def job_of(self, job: Job, lanes: Sequence[int], *, lane: int = 0) -> Job:
        """Return the job of a batch, with the record of one picture."""
        own = numbers(self.folder.weights[lanes[lane]])
        record = replace(job.record, lanes=tuple(lanes), lane=lane, weights=own)
        return job._replace(work=self._work(job.work, lanes), record=record)

    def _work(self, work: Work, lanes: Sequence[int]) -> Work:
        """Return the work of a batch."""
        weights = jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *(self.folder.weights[i] for i in lanes))
        noise = jax.vmap(jax.random.key)(jnp.asarray([self.folder.seeds[i] for i in lanes], jnp.uint32))
        noisy = isinstance(work.start, str) and work.start == "noise"
        return replace(work, weights=weights, lanes=len(lanes), noise=noise if noisy else None)

    def _fitting(self, work: Work, todo: Sequence[int], memory: int | None, reporter: Reporter) -> int:
        """Return the batch size that fits into memory, and show it."""
        last = work.scales()[-1]
        targets = work.targets(last)

        def needed(lanes: int) -> int:
            layout = lanes_among(work.devices, lanes=lanes)
            some = replace(self._work(work, todo[:lanes]), layout=layout)
            with reporter.console.status(f"Estimating the memory of {lanes} lanes"):
                step = some.program(last, targets)  # the program of `walk`, compiled once
                return memory_of(step) * (1 if layout is None else layout.at_once)

        needed(len(todo))  # compilation takes memory, some of which stays in use
        room = min(of_all(room_for(memory)))
        lanes = lanes_within(room, count=len(todo), needed=needed)
        takes = needed(lanes)
        reporter.tell(f"{len(todo)} pictures, {lanes} at a time: {takes / 2**30:.1f} of {room / 2**30:.1f} GiB")
        return lanes

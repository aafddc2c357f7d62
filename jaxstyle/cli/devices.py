"""Which devices a command uses, and what it shares out among them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax

from jaxstyle.cli.layout import Layout
from jaxstyle.cli.recording import Job
from jaxstyle.config import Config
from jaxstyle.distributed.processes import together
from jaxstyle.distributed.sharding import BATCH, HEIGHT, mesh_of
from jaxstyle.errors import InputError, excerpt

LEAST_PIXELS = 2**18  # of an image for each device, by which its rows are shared out unasked


def available(count: int | None) -> Sequence[Any]:
    """Return so many devices, or all that are there, those of other processes included.

    Raises:
        InputError: if there are fewer.
    """
    devices = jax.devices()
    if count is not None and not 1 <= count <= len(devices):
        there = f"{len(devices)} {'is' if len(devices) == 1 else 'are'} there ({devices[0].platform.upper()})"
        raise InputError(f"--devices is {excerpt(count)}, but {there}: use at most as many.")
    return devices[:count]


def lanes_among(count: int | None, *, lanes: int) -> Layout | None:
    """Return how lanes are shared out among so many devices, None for all; None where one will do.

    Raises:
        InputError: as `available` does.
    """
    devices = available(count)
    used = devices if together() else devices[:lanes]
    return Layout(mesh_of(used, BATCH)) if len(used) > 1 else None


def rows_among(count: int | None, *, config: Config, pixels: int, memory: int | None = None) -> Layout | None:
    """Return how the rows of an image are shared out among so many devices, None for all; None where one will do.

    Args:
        count: as the user has it.
        config: some statistics are no sums over rows.
        pixels: of the image; unless the user has it otherwise, or there are several processes, each device has many.
        memory: what the command may take; where that or `config.remat` is said, one device goes through the rows in
            blocks or strips, if it is not said otherwise.

    Raises:
        InputError: as `available` does, or if the rows cannot be shared out, but have to be.
    """
    devices = available(count)
    asked = count is not None or together()
    used = devices if asked else devices[: pixels // LEAST_PIXELS]
    whole = {"--statistic sliced": config.statistic == "sliced", "--normalize-gradients": config.normalize_gradients}
    cause = next((name for name, found in whole.items() if found), None)
    cut = memory is not None or config.remat
    if len(used) < 2 or not asked and (cut or cause is not None):
        return None
    if cause is not None:
        raise InputError(f"{cause} looks at all rows at once, which {len(used)} devices would share: use one device.")
    return Layout(mesh_of(used, HEIGHT))


def laid_out(job: Job, *, tell: Callable[[str], None]) -> Job:
    """Return a job with what its devices share, which is told.

    Raises:
        InputError: as `lanes_among` and `rows_among` do.
    """
    work, last = job.work, job.work.scales()[-1]
    if work.lanes is not None:
        layout = lanes_among(work.devices, lanes=work.lanes)
    else:
        layout = rows_among(work.devices, config=work.config, pixels=last.height * last.width, memory=work.memory)
    if layout is None:
        return job
    what = "the picture's rows" if work.lanes is None else "the pictures"
    among = f" of {jax.process_count()} processes" if layout.spans else ""
    tell(f"{layout.mesh.size} devices{among} share {what}")
    record = replace(job.record, devices=layout.mesh.size)
    return job._replace(work=replace(work, layout=layout), record=record)

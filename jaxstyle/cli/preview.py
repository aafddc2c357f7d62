"""`jaxstyle stylize --preview`: an estimate of the time of VGG-19 after a run of the mini network."""

from __future__ import annotations

import shlex
from pathlib import Path

from jaxstyle.runtime.estimate import vgg19_seconds
from jaxstyle.runtime.problem import Work


def forecast(work: Work, *, seconds: float, output: Path) -> str:
    """Return a message with the estimated time of VGG-19, and the options to start it from the preview.

    Args:
        work: the run of the mini network.
        seconds: duration of its steps.
        output: the saved picture.
    """
    estimate = vgg19_seconds(work, seconds=seconds)
    duration = f"{estimate:.0f} s" if estimate < 120 else f"{estimate / 60:.0f} min"
    return (
        f"VGG-19 would take about {duration} here for these {work.steps} steps (estimated from the number of "
        "operations); to start it from this picture, replace --preview by --network vgg19 --scales 1 --init "
        f"{shlex.quote(str(output))} and name another output."
    )

"""`jaxstyle stylize --preview`: an estimate of VGG-19's time for the steps that the mini network has just run."""

from __future__ import annotations

import shlex
from pathlib import Path

from jaxstyle.cli.arithmetic import gflop_per_step
from jaxstyle.cli.work import Work
from jaxstyle.networks.random_init import param_shapes

# Time per operation of VGG-19 over that of the mini network, whose narrow layers reach less of a processor's peak:
# 0.721 and 0.090 s a step at 256 pixels on two cores (AMD EPYC), 14.8 times the operations.
RELATIVE_TIME = 0.54


def forecast(work: Work, *, seconds: float, output: Path) -> str:
    """Return a line for the user: the estimated time of VGG-19, and how to start it from the preview.

    The time of the steps is multiplied by the ratio of the operations of both networks and by `RELATIVE_TIME`, so that
    nothing is compiled or timed.

    Args:
        work: the run of the mini network.
        seconds: duration of its steps.
        output: the saved picture.
    """
    mini, full = (
        sum(scale.steps * gflop_per_step(params, scale, config=work.config) for scale in work.scales())
        for params in (work.params, param_shapes())
    )
    estimate = RELATIVE_TIME * seconds * full / mini
    duration = f"{estimate:.0f} s" if estimate < 120 else f"{estimate / 60:.0f} min"
    return (
        f"VGG-19 would take about {duration} here for these {work.steps} steps (estimated from the number of "
        "operations); to start it from this picture, replace --preview by --network vgg19 --scales 1 --init "
        f"{shlex.quote(str(output))} and name another output."
    )

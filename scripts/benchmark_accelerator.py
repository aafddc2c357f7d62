"""`benchmark.py precision` and `accelerator`: the effect of rounded products, and all measurements of a GPU."""

from dataclasses import dataclass, replace
from typing import Any, get_args

import jax
import jax.numpy as jnp
from benchmark_commands import Sweep
from benchmark_steps import Step
from measuring import Pictures
from tyro.conf import OmitArgPrefixes

from jaxstyle import LBFGS, VGG19, Adam, Objective, init_state, load_params, make_targets, run_steps, terms, total
from jaxstyle.errors import InputError
from jaxstyle.networks.conv import Precision

FEW = 20  # steps per turn of a comparison of two sides
OBJECTIVE = Objective()


@dataclass(frozen=True)
class Rounding:
    """Stylize with each precision of convolutions, and compare the pictures and their objectives."""

    pictures: OmitArgPrefixes[Pictures]
    size: int = 256
    """Longest side, in pixels."""
    steps: int = 100
    """Gradient evaluations."""

    def run(self) -> None:
        """Measure and print."""
        params, exact = load_params(self.pictures.network), VGG19(precision="float32")
        content, style = self.pictures.load(self.size)
        targets = make_targets(params, content, style, objective=OBJECTIVE, network=exact)
        results: list[dict[str, Any]] = []
        for optimizer in (LBFGS(), Adam()):
            reference = None
            for precision in get_args(Precision):
                image = self._stylize(params, content, style, optimizer, VGG19(precision=precision))
                value = float(total(OBJECTIVE, terms(params, image, targets, objective=OBJECTIVE, network=exact)))
                reference = (image, value) if reference is None else reference
                results.append(
                    {
                        "optimizer": type(optimizer).__name__.lower(),
                        "precision": precision,
                        "objective": value,
                        "over float32": value / reference[1],
                        "mean difference of 255": 255 * float(jnp.abs(image - reference[0]).mean()),
                    }
                )
        self.pictures.report("precision", results, size=self.size, steps=self.steps)

    def _stylize(
        self, params: Any, content: jax.Array, style: jax.Array, optimizer: LBFGS | Adam, network: VGG19
    ) -> jax.Array:
        targets = make_targets(params, content, style, objective=OBJECTIVE, network=network)
        state = init_state(content, objective=OBJECTIVE, optimizer=optimizer)
        return run_steps(state, params, targets, OBJECTIVE, network=network, steps=self.steps)[0].image


@dataclass(frozen=True)
class Accelerator:
    """Measure precision, sweeps and steps on a GPU; --json FILE.json writes FILE-1.json, FILE-2.json and so on."""

    pictures: OmitArgPrefixes[Pictures]
    size: int = 512
    """Longest side, in pixels."""
    steps: int = 500
    """Steps of the long measurement, whose goal is less than a second."""
    batch_size: int = 8
    """Number of images per batch."""

    def run(self) -> None:
        """Measure and print."""
        few = min(self.steps, FEW)
        parts: list[Any] = [Rounding(self.pictures, self.size, min(self.steps, 100))]
        parts.append(Sweep(self.pictures, sizes=(self.size,), steps=few))
        shared: dict[str, Any] = {"sizes": (self.size,), "steps": few}
        rounded: tuple[Precision, ...] = ("tf32", "bfloat16")
        parts += [Step(self.pictures, baseline="both", precision=each, **shared) for each in rounded]
        parts.append(Step(self.pictures, precision="bfloat16", batch_size=self.batch_size, **shared))
        parts += [Step(self.pictures, precision=each, **{**shared, "steps": self.steps}) for each in rounded]
        for number, part in enumerate(parts, 1):
            json = self.pictures.json
            numbered = None if json is None else json.with_stem(f"{json.stem}-{number}")
            try:
                replace(part, pictures=replace(self.pictures, json=numbered)).run()
            except InputError as error:  # measure the other parts
                print(f"{type(part).__name__}: {error}")

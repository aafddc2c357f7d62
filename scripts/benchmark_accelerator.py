"""`benchmark.py precision` and `accelerator`: what rounded products change, and all that a GPU is held to, at once."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from benchmark_commands import Sweep
from benchmark_steps import Step
from measuring import Pictures
from tyro.conf import OmitArgPrefixes

from jaxstyle import Config, LossWeights, init, load_params, make_targets, run, terms, total
from jaxstyle.errors import InputError
from jaxstyle.networks.conv import PRODUCTS, Precision

FEW = 20  # steps in a turn, where two sides take turns


@dataclass(frozen=True)
class Rounding:
    """Paint with each precision of convolutions, and say how far apart the pictures and their objectives are."""

    pictures: OmitArgPrefixes[Pictures]
    size: int = 256
    """Longest side, in pixels."""
    steps: int = 100
    """Gradient evaluations."""

    def run(self) -> None:
        """Measure and print."""
        params, weights = load_params(self.pictures.network), LossWeights()
        content, style = self.pictures.load(self.size)
        exact = Config(scales=1, precision="float32")
        targets = make_targets(params, content, style, config=exact)
        results: list[dict[str, Any]] = []
        for optimizer in ("lbfgs", "adam"):
            reference = None
            for precision in PRODUCTS:
                image = self._painted(params, content, style, replace(exact, optimizer=optimizer, precision=precision))
                found = float(total(weights, terms(params, image, targets, config=exact)))
                reference = (image, found) if reference is None else reference
                results.append(
                    {
                        "optimizer": optimizer,
                        "precision": precision,
                        "objective": found,
                        "over float32": found / reference[1],
                        "mean difference of 255": 255 * float(jnp.abs(image - reference[0]).mean()),
                    }
                )
        self.pictures.report("precision", results, size=self.size, steps=self.steps)

    def _painted(self, params: Any, content: jax.Array, style: jax.Array, config: Config) -> jax.Array:
        targets = make_targets(params, content, style, config=config)
        return run(init(content, config=config), params, targets, LossWeights(), config=config, steps=self.steps)[
            0
        ].image


@dataclass(frozen=True)
class Accelerator:
    """Measure all that jaxstyle is held to on a GPU; with --json FILE.json into FILE-1.json and so on."""

    pictures: OmitArgPrefixes[Pictures]
    size: int = 512
    """Longest side, in pixels."""
    steps: int = 500
    """Steps that are to take less than a second."""
    lanes: int = 8
    """Images at once."""

    def run(self) -> None:
        """Measure and print."""
        few = min(self.steps, FEW)
        parts: list[Any] = [Rounding(self.pictures, self.size, min(self.steps, 100))]
        parts.append(Sweep(self.pictures, sizes=(self.size,), steps=few))
        shared: dict[str, Any] = {"sizes": (self.size,), "steps": few}
        rounded: tuple[Precision, ...] = ("tf32", "bfloat16")
        parts += [Step(self.pictures, baseline="both", precision=each, **shared) for each in rounded]
        parts.append(Step(self.pictures, precision="bfloat16", lanes=self.lanes, **shared))
        parts += [Step(self.pictures, precision=each, **{**shared, "steps": self.steps}) for each in rounded]
        for number, part in enumerate(parts, 1):
            json = self.pictures.json
            numbered = None if json is None else json.with_stem(f"{json.stem}-{number}")
            try:
                replace(part, pictures=replace(self.pictures, json=numbered)).run()
            except InputError as error:  # the others are measured all the same
                print(f"{type(part).__name__}: {error}")

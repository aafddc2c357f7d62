"""Options for how much each term of the loss counts, and for how the image is optimised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from jaxstyle.cli.options import MOST_SEED, MOST_WHOLE, PRESETS_OWN, check_number

if TYPE_CHECKING:
    from jaxstyle.config import LossWeights
    from jaxstyle.transfer.presets import Preset

OF_OPTIMIZER = ("learning_rate", "betas", "epsilon", "averaging")  # a preset's hold for its own optimiser only


@dataclass(frozen=True)
class Balance:
    """How much each term of the loss counts; options left out are the preset's."""

    content_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """How much content counts."""
    style_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """How much style counts."""
    tv_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """How much smoothness (total variation) counts."""
    content_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=PRESETS_OWN)] = None
    """Where content is compared, such as relu4_2 or relu3_2:0.5,relu4_2:1."""
    shift: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """Added to features before their Gram matrices, such as -1 (Novak and Nikulin)."""


@dataclass(frozen=True)
class FromNoise:
    """How a picture is painted that starts from noise and has one weight to choose."""

    tv_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """How much smoothness (total variation) counts."""
    steps: int = 300
    """Gradient evaluations, over all scales."""
    seed: int = 0
    """Of the noise."""

    def check(self) -> None:
        """Refuse numbers out of range."""
        check_number("tv_weight", self.tv_weight, 0)
        check_number("steps", self.steps, 1, MOST_WHOLE)
        check_number("seed", self.seed, 0, MOST_SEED)

    def loss_weights(
        self, preset: Preset, content: Mapping[str, float], style: Mapping[str, float] | None
    ) -> LossWeights:
        """Return the coefficients of the loss, with the smoothness that is chosen."""
        own = preset if self.tv_weight is None else replace(preset, tv_weight=self.tv_weight)
        return own.loss_weights(content, style)


@dataclass(frozen=True)
class Optimization:
    """How the image is optimised; options left out are the preset's."""

    optimizer: Annotated[
        Literal["lbfgs", "adam"] | None, arg(metavar="{lbfgs,adam}", help_behavior_hint=PRESETS_OWN)
    ] = None
    """The optimiser."""
    learning_rate: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Step size. (default: 1 for lbfgs, 0.02 for adam)"""
    memory: Annotated[int | None, arg(metavar="PAIRS", help_behavior_hint=PRESETS_OWN)] = None
    """Number of curvature pairs of lbfgs; by default 20, and 10 from 2^20 pixels up."""
    parametrization: Annotated[
        Literal["pixels", "pyramid", "decorrelated", "fourier", "sigmoid"] | None,
        arg(metavar="{pixels,pyramid,decorrelated,fourier,sigmoid}", help_behavior_hint=""),
    ] = None
    """What the image is written as. (default: pyramid for lbfgs, pixels for adam)"""
    averaging: Annotated[float | None, arg(metavar="SHARE", help_behavior_hint=PRESETS_OWN)] = None
    """Show the mean over steps, of which this share is kept at each, such as 0.99 for adam."""
    tolerance: Annotated[float | None, arg(metavar="SHARE", help_behavior_hint=PRESETS_OWN)] = None
    """Stop a scale when ten steps lower the total by less than this share of it, such as 0.005."""
    patience: Annotated[int | None, arg(metavar="STEPS", help_behavior_hint=PRESETS_OWN)] = None
    """Restart lbfgs after so many steps without progress, and stop it after as many more, or 0 for never."""
    normalize_gradients: bool = False
    """Make the gradients of all terms alike where they enter the network."""

    def chosen(self, preset: str) -> dict[str, Any]:
        """Return what these options change of that preset's config."""
        from jaxstyle.config import Config
        from jaxstyle.transfer import presets

        own = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        if own.get("optimizer", presets.preset(preset).config.optimizer) == presets.preset(preset).config.optimizer:
            return own
        return {name: getattr(Config(), name) for name in OF_OPTIMIZER} | own

"""Options for the weights of the loss and for the optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from jaxstyle.cli.options import MOST_SEED, MOST_WHOLE, PRESETS_OWN, check_number

if TYPE_CHECKING:
    from jaxstyle.config import LossWeights
    from jaxstyle.transfer.presets import Preset

OF_OPTIMIZER = ("learning_rate", "betas", "epsilon", "averaging")  # values of a preset apply to its optimizer only


@dataclass(frozen=True)
class Balance:
    """Weights of the loss."""

    content_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """Weight of the content loss."""
    style_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """Weight of the style loss."""
    tv_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """Weight of total variation."""
    content_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=PRESETS_OWN)] = None
    """Content layers and their relative weights, such as relu4_2 or relu3_2:0.5,relu4_2:1."""
    shift: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """Number added to features before their Gram matrices, such as -1 (Novak and Nikulin)."""


@dataclass(frozen=True)
class FromNoise:
    """Optimization from noise."""

    tv_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=PRESETS_OWN)] = None
    """Weight of total variation."""
    steps: int = 300
    """Number of gradient evaluations over all scales."""
    seed: int = 0
    """Seed of the noise."""

    def check(self) -> None:
        """Check that the options are in range."""
        check_number("tv_weight", self.tv_weight, 0)
        check_number("steps", self.steps, 1, MOST_WHOLE)
        check_number("seed", self.seed, 0, MOST_SEED)

    def loss_weights(
        self, preset: Preset, content: Mapping[str, float], style: Mapping[str, float] | None
    ) -> LossWeights:
        """Return the weights of the loss, with the chosen weight of total variation."""
        own = preset if self.tv_weight is None else replace(preset, tv_weight=self.tv_weight)
        return own.loss_weights(content, style)


@dataclass(frozen=True)
class Optimization:
    """Optimization."""

    optimizer: Annotated[
        Literal["lbfgs", "adam"] | None, arg(metavar="{lbfgs,adam}", help_behavior_hint=PRESETS_OWN)
    ] = None
    """Optimizer."""
    learning_rate: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Learning rate. (default: 1 for lbfgs, 0.02 for adam)"""
    memory: Annotated[int | None, arg(metavar="PAIRS", help_behavior_hint=PRESETS_OWN)] = None
    """Number of curvature pairs of lbfgs; by default 20, and 10 from 2^20 pixels up."""
    parametrization: Annotated[
        Literal["pixels", "pyramid", "decorrelated", "fourier", "sigmoid"] | None,
        arg(metavar="{pixels,pyramid,decorrelated,fourier,sigmoid}", help_behavior_hint=""),
    ] = None
    """Parametrization of the image. (default: pyramid for lbfgs, pixels for adam)"""
    averaging: Annotated[float | None, arg(metavar="SHARE", help_behavior_hint=PRESETS_OWN)] = None
    """Decay of the exponential moving average of iterates, such as 0.99 for adam; 0 for none."""
    tolerance: Annotated[float | None, arg(metavar="SHARE", help_behavior_hint=PRESETS_OWN)] = None
    """Stop a scale when ten steps lower the total by less than this fraction of it, such as 0.005."""
    patience: Annotated[int | None, arg(metavar="STEPS", help_behavior_hint=PRESETS_OWN)] = None
    """Number of steps without progress before lbfgs restarts, and again before it stops; 0 for never."""
    normalize_gradients: bool = False
    """Divide the gradient of each term, where it enters the network, by its sum of absolute values."""

    def chosen(self, preset: str) -> dict[str, Any]:
        """Return the fields of the config of a preset that these options change."""
        from jaxstyle.config import Config
        from jaxstyle.transfer import presets

        own = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        if own.get("optimizer", presets.preset(preset).config.optimizer) == presets.preset(preset).config.optimizer:
            return own
        return {name: getattr(Config(), name) for name in OF_OPTIMIZER} | own

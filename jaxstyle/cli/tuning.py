"""Options for how much each term of the loss counts, and for how the image is optimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import arg

from jaxstyle.cli.options import PRESETS_OWN

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
class Optimization:
    """How the image is optimised; options left out are the preset's."""

    optimizer: Annotated[
        Literal["lbfgs", "adam"] | None, arg(metavar="{lbfgs,adam}", help_behavior_hint=PRESETS_OWN)
    ] = None
    """The optimiser."""
    learning_rate: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Step size. (default: 1 for lbfgs, 0.02 for adam)"""
    memory: Annotated[int | None, arg(metavar="PAIRS", help_behavior_hint=PRESETS_OWN)] = None
    """Curvature pairs that lbfgs keeps."""
    parametrization: Annotated[
        Literal["pixels", "pyramid"] | None, arg(metavar="{pixels,pyramid}", help_behavior_hint="")
    ] = None
    """What the image is written as. (default: pyramid for lbfgs, pixels for adam)"""
    averaging: Annotated[float | None, arg(metavar="SHARE", help_behavior_hint=PRESETS_OWN)] = None
    """Show the mean over steps, of which this share is kept at each, such as 0.99 for adam."""
    tolerance: Annotated[float | None, arg(metavar="SHARE", help_behavior_hint=PRESETS_OWN)] = None
    """Stop a scale when ten steps lower the total by less than this share of it, such as 0.005."""
    normalize_gradients: bool = False
    """Make the gradients of all terms alike where they enter the network."""

    def chosen(self, preset: str) -> dict[str, Any]:
        """Return what these options change of that preset's config."""
        from jaxstyle import presets
        from jaxstyle.config import Config

        own = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        if own.get("optimizer", presets.preset(preset).config.optimizer) == presets.preset(preset).config.optimizer:
            return own
        return {name: getattr(Config(), name) for name in OF_OPTIMIZER} | own

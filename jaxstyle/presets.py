"""Published conventions, and our own, as data: what is compared, how it is weighted, how pictures are brought to size.

A preset fixes the objective; size, steps and start are the user's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxstyle.config import Config, LossWeights
from jaxstyle.errors import InputError
from jaxstyle.vgg import smallest_side

LayerWeights = Mapping[str, float]


@dataclass(frozen=True)
class Preset:
    """A named set of config and weights.

    Attributes:
        source: who published the convention, and where.
        config: the static facts.
        content_weight: the weight of content.
        style_weight: the weight of style.
        tv_weight: the weight of total variation.
        bounds_weight: the weight of the penalty on values out of range, which is ours in every preset.
        spread: a weight is shared out among its layers ("mean") or counts for each of them ("sum").
        resample: how pictures are resized, "lanczos" or "bilinear".
        rounding: how the shorter side becomes whole pixels, "round" or "truncate".
    """

    source: str
    content_weight: float
    style_weight: float
    tv_weight: float
    bounds_weight: float
    config: Config = field(default_factory=Config)
    spread: Literal["mean", "sum"] = "mean"
    resample: Literal["lanczos", "bilinear"] = "lanczos"
    rounding: Literal["round", "truncate"] = "round"

    def loss_weights(self, content_layers: LayerWeights, style_layers: LayerWeights) -> LossWeights:
        """Return the coefficient of every layer, from this preset's weights and the layers' relative ones.

        Args:
            content_layers: the share of each content layer; 1 for each is plain.
            style_layers: the share of each style layer.

        Returns:
            The coefficients.

        Example:
            >>> PRESETS["jaxstyle"].loss_weights({"relu4_2": 1.0}, {"relu1_1": 1.0, "relu2_1": 3.0}).style
            {'relu1_1': 7.5, 'relu2_1': 22.5}
        """
        return LossWeights(
            content=self._spread(self.content_weight, content_layers),
            style=self._spread(self.style_weight, style_layers),
            tv=self.tv_weight,
            bounds=self.bounds_weight,
        )

    def _spread(self, weight: float, layers: LayerWeights) -> dict[str, float]:
        whole = sum(layers.values()) if self.spread == "mean" else 1.0
        return {layer: weight * share / (whole or 1.0) for layer, share in layers.items()}


PRESETS = {
    "jaxstyle": Preset(
        source="ours; the README says what was chosen against what",
        content_weight=1.0,
        style_weight=30.0,
        tv_weight=5.0,
        bounds_weight=1e4,
    ),
    "neural-style-pt": Preset(
        source="github.com/ProGamerGov/neural-style-pt, neural_style.py",
        content_weight=5.0,
        style_weight=100.0,
        tv_weight=1e-3,
        bounds_weight=1.0,
        config=Config(
            divisor="elements",
            gram_divisor="elements",
            tv_power=1,
            pixel_reduction="sum",
            pixel_range=255.0,
            memory=100,
        ),
        spread="sum",
        resample="bilinear",
        rounding="truncate",
    ),
}


def preset(name: str) -> Preset:
    """Return the preset called `name`.

    Args:
        name: a key of `PRESETS`.

    Returns:
        The preset.

    Raises:
        InputError: if there is none of that name.

    Example:
        >>> preset("neural-style-pt").style_weight
        100.0
    """
    if name not in PRESETS:
        raise InputError(f"Preset {name!r} is unknown: use {' or '.join(PRESETS)}.")
    return PRESETS[name]


def parse_layers(text: str) -> dict[str, float]:
    """Read layers and their shares, such as "relu1_1:1,relu2_1:0.5".

    Args:
        text: layers parted by commas; a layer without a number has the share 1.

    Returns:
        The shares by layer, in the order given.

    Raises:
        InputError: if a layer is unknown or named twice, or if a share is not a number from 0.

    Example:
        >>> parse_layers("relu1_1,relu2_1:0.5")
        {'relu1_1': 1.0, 'relu2_1': 0.5}
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        layer, _, number = part.strip().partition(":")
        smallest_side(layer)
        if layer in shares:
            raise InputError(f"Layer {layer} is named twice in {text!r}: name each layer once.")
        try:
            shares[layer] = float(number or 1)
        except ValueError:
            shares[layer] = math.nan
        if not 0 <= shares[layer] < math.inf:
            raise InputError(f"Layer {layer} has the weight {number!r}: use a finite number that is 0 or more.")
    return shares

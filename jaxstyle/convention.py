"""What a convention is: a config, weights, and how pictures are brought to size, as published somewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxstyle.config import Config, LossWeights

LayerWeights = Mapping[str, float]


@dataclass(frozen=True)
class Preset:
    """A named set of config and weights.

    Attributes:
        source: who published the convention, and where.
        content_weight: the weight of content.
        style_weight: the weight of style.
        tv_weight: the weight of total variation.
        bounds_weight: the weight of the penalty on values out of range. For lbfgs about 400 times what an untouched
            photograph of 512 pixels scores, were that penalty a mean over [0, 1]; adam clips at each step.
        config: the static facts.
        style_shares: what each style layer counts for, if they differ.
        pooling_gains: by pooling what pooled layers are multiplied by.
        spread: a weight is shared out among its layers ("mean") or counts for each of them ("sum").
        style_fit: a style has the content's "longest" side, or is squeezed into the "content"'s very size.
        resample: how pictures are resized, "lanczos" or "bilinear".
        rounding: how the shorter side becomes whole pixels, "round" or "truncate".
        deviations: what is not as its source has it.
    """

    source: str
    content_weight: float
    style_weight: float
    tv_weight: float
    bounds_weight: float
    config: Config = field(default_factory=Config)
    style_shares: LayerWeights = field(default_factory=dict)
    pooling_gains: Mapping[str, float] = field(default_factory=dict)
    spread: Literal["mean", "sum"] = "mean"
    style_fit: Literal["longest", "content"] = "longest"
    resample: Literal["lanczos", "bilinear"] = "lanczos"
    rounding: Literal["round", "truncate"] = "round"
    deviations: str = ""

    def loss_weights(
        self, content_layers: LayerWeights | None = None, style_layers: LayerWeights | None = None
    ) -> LossWeights:
        """Return the coefficient of every layer, from this preset's weights and the layers' relative ones.

        Args:
            content_layers: the share of each content layer, such as 1 for each; None for the preset's own.
            style_layers: the share of each style layer; None for the preset's own.

        Returns:
            The coefficients.

        Example:
            >>> PRESETS["jaxstyle"].loss_weights({"relu4_2": 1.0}, {"relu1_1": 1.0, "relu2_1": 3.0}).style
            {'relu1_1': 7.5, 'relu2_1': 22.5}
        """
        if content_layers is None:
            content_layers = dict.fromkeys(self.config.content_layers, 1.0)
        if style_layers is None:
            style_layers = {layer: self.style_shares.get(layer, 1.0) for layer in self.config.style_layers}
        return LossWeights(
            content=self._spread(self.content_weight, content_layers),
            style=self._spread(self.style_weight, style_layers),
            tv=self.tv_weight,
            bounds=self.bounds_weight,
        )

    def _spread(self, weight: float, layers: LayerWeights) -> dict[str, float]:
        whole = sum(layers.values()) if self.spread == "mean" else 1.0
        return {layer: weight * share / (whole or 1.0) for layer, share in layers.items()}

"""Objectives of published programs, and ours, as data: layers, weights, normalization, optimizer and resizing.

A preset sets the objective, the optimizer and the initial image; size and steps are up to the user. The range penalty
is ours in each preset: some published programs clip at every step, others at the end, and lbfgs does not account for
clipping. `deviations` lists the differences from a program. All sources were read in 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from jaxstyle.errors import InputError, excerpt
from jaxstyle.losses.neighbor_objective import NeighborObjective
from jaxstyle.losses.objective import CONTENT_LAYERS, STYLE_LAYERS, CustomObjective, Objective
from jaxstyle.losses.relaxed_emd_objective import RelaxedEmdObjective
from jaxstyle.networks.vgg import VGG19
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.optim.optimizers import LBFGS, Adam
from jaxstyle.transfer.color import Color
from jaxstyle.transfer.schedule import Scales, Series

LayerWeights = Mapping[str, float]
WEIGHTS = ("content_weight", "style_weight", "tv_weight", "content_layers", "style_layers")


@dataclass(frozen=True)
class Preset:
    """A named set of objective, network options, optimizer, initial image and resizing.

    Weights and layers are those of an `Objective`, unless there is a `custom` objective.

    Attributes:
        source: author and address of the program.
        content_weight: weight of content.
        style_weight: weight of style.
        tv_weight: weight of total variation.
        range_penalty: weight of the range penalty. For L-BFGS about 400 times the total of an unchanged photograph of
            512 pixels, for a penalty that is a mean over [0, 1]; Adam clips at each step.
        content_layers: relative weight of each content layer.
        style_layers: relative weight of each style layer.
        objective_options: options of the objective by name.
        custom: an objective of another kind.
        custom_options: fields of `custom` by the name of an option.
        network: options of VGG-19.
        optimizer: the optimizer with its options.
        scales: scales of the schedule, see `schedule.Scales`.
        pooling_gains: factor of pooled layers by pooling.
        spread: a weight is divided among its layers ("mean") or applies to each of them ("sum").
        style_fit: size of styles: the "longest" side of the content, or the height and width of the "content".
        resample: resampling filter, "lanczos" or "bilinear".
        rounding: rounding of the shorter side, "round" or "truncate".
        init: initial image, see `stylize.stylize`.
        color: color of the result, see `stylize.stylize`.
        deviations: differences from the source.
    """

    source: str
    content_weight: float = 0.0
    style_weight: float = 0.0
    tv_weight: float = 0.0
    range_penalty: float = 0.0
    content_layers: LayerWeights = field(default_factory=lambda: dict.fromkeys(CONTENT_LAYERS, 1.0))
    style_layers: LayerWeights = field(default_factory=lambda: dict.fromkeys(STYLE_LAYERS, 1.0))
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    custom: CustomObjective | None = None
    custom_options: Mapping[str, str] = field(default_factory=dict)
    network: VGG19 = VGG19()
    optimizer: LBFGS | Adam = LBFGS()
    scales: Scales = None
    pooling_gains: Mapping[str, float] = field(default_factory=dict)
    spread: Literal["mean", "sum"] = "mean"
    style_fit: Literal["longest", "content"] = "longest"
    resample: Literal["lanczos", "bilinear"] = "lanczos"
    rounding: Literal["round", "truncate"] = "round"
    init: Literal["content", "recolored"] = "content"
    color: Color = "none"
    deviations: str = ""

    @property
    def objective(self) -> AnyObjective:
        """The objective with the layers of this preset."""
        return self.make_objective() if self.custom is None else self.custom

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `jaxstyle.stylize`, such as `stylize(params, content, style, **preset.arguments)`."""
        names = ("objective", "network", "optimizer", "scales", "init", "color")
        return {name: getattr(self, name) for name in names}

    def with_options(self, **changes: Any) -> "Preset":
        """Return a preset with other weights, layers or options of its objective.

        Args:
            changes: weights and layers by the names of the attributes, and options of the objective.

        Returns:
            The preset.

        Raises:
            InputError: if the objective has no such option, or its value is out of range.

        Example:
            >>> PRESETS["jaxstyle"].with_options(tv_weight=0.0, statistic="covariance").objective.statistic
            'covariance'
        """
        known = {*WEIGHTS, *(each.name for each in fields(Objective) if each.metadata.get("static"))}
        known = known if self.custom is None else {*self.custom_options}
        if unknown := sorted(changes.keys() - known):
            options = ", ".join("--" + each.replace("_", "-") for each in unknown)
            raise InputError(f"{options} has no meaning for {self._name}: drop it, or use another preset.")
        if self.custom is not None:
            custom: Any = self.custom
            return replace(self, custom=replace(custom, **{self.custom_options[k]: v for k, v in changes.items()}))
        weights = {name: changes.pop(name) for name in WEIGHTS if name in changes}
        return replace(self, **weights, objective_options={**self.objective_options, **changes})

    def make_objective(
        self, content_layers: LayerWeights | None = None, style_layers: LayerWeights | None = None
    ) -> Objective:
        """Return the objective, with the weight of every layer from the weights of this preset and relative weights.

        Args:
            content_layers: relative weight of each content layer; None for those of the preset.
            style_layers: relative weight of each style layer; None for those of the preset.

        Returns:
            The objective.

        Example:
            >>> PRESETS["jaxstyle"].make_objective({"relu4_2": 1.0}, {"relu1_1": 1.0, "relu2_1": 3.0}).style
            {'relu1_1': 7.5, 'relu2_1': 22.5}
        """
        if self.custom is not None:
            raise InputError(
                f"The layers of {self._name} cannot be chosen: use a preset of Gram matrices, such as jaxstyle."
            )
        return Objective(
            content=self._spread(
                self.content_weight, self.content_layers if content_layers is None else content_layers
            ),
            style=self._spread(self.style_weight, self.style_layers if style_layers is None else style_layers),
            tv=self.tv_weight,
            range_penalty=self.range_penalty,
            **self.objective_options,
        )

    @property
    def _name(self) -> str:
        kind = type(self.custom or Objective()).__name__
        return next((f"preset {name}" for name, each in PRESETS.items() if each.source == self.source), kind)

    def _spread(self, weight: float, layers: LayerWeights) -> dict[str, float]:
        whole = sum(layers.values()) if self.spread == "mean" else 1.0
        return {layer: weight * share / (whole or 1.0) for layer, share in layers.items()}


CONV_1 = dict.fromkeys((f"conv{block}_1" for block in range(1, 6)), 1.0)
CHANNELS = {"relu1_1": 64, "relu2_1": 128, "relu3_1": 256, "relu4_1": 512, "relu5_1": 512}  # of VGG-19
ONE_RESOLUTION = {
    "content_normalization": "elements",
    "style_normalization": "elements",
    "half_resolution_above": None,
}
NEIGHBOR_OPTIONS = {"content_weight": "content_share", "tv_weight": "tv"}
LONG_HISTORY = LBFGS(history_size=100)
OCTAVES = Series(coarsest=64, factor=2.0, steps_by_pixels=0.0, most_steps=None)
UNBOUNDED = Adam(learning_rate=2e-3, parametrization="laplacian", clip=False)


PRESETS = {
    "jaxstyle": Preset(
        source="ours, see the README",
        content_weight=1.0,
        style_weight=30.0,
        tv_weight=5.0,
        range_penalty=1e4,
    ),
    "gatys-paper": Preset(
        source="Gatys, Ecker and Bethge, arXiv:1508.06576; pystiche/papers for alpha/beta and the steps",
        content_weight=1 / 2,  # half the sum of squares
        style_weight=1e3 / 4,  # over 4 C^2 N^2
        tv_weight=0.0,
        range_penalty=4e9,
        content_layers={"conv4_2": 1.0},
        style_layers=CONV_1,
        objective_options=ONE_RESOLUTION | {"content_normalization": "none"},
        network=VGG19(pooling="avg"),
        optimizer=LONG_HISTORY,
        scales=1,
        style_fit="content",
        deviations="network not rescaled to mean activations of 1 (CVPR 2016); initial image is the content, not noise",
    ),
    "gatys-code": Preset(
        source="github.com/leongatys/PytorchNeuralStyleTransfer, NeuralStyleTransfer.ipynb",
        content_weight=1.0,
        style_weight=1e3,
        tv_weight=0.0,
        range_penalty=1e9,
        style_layers={layer: 1 / channels**2 for layer, channels in CHANNELS.items()},
        objective_options=ONE_RESOLUTION,
        optimizer=LONG_HISTORY,
        scales=1,
        spread="sum",
        resample="bilinear",
        deviations="--size is the longest side, not the shorter one; the second run at 800 pixels is --scales",
    ),
    "neural-style": Preset(
        source="github.com/jcjohnson/neural-style, neural_style.lua",
        content_weight=5.0,
        style_weight=100.0,
        tv_weight=1e-3 / 2,
        range_penalty=1.0,
        objective_options=ONE_RESOLUTION
        | {"gram_normalization": "elements", "tv_form": "joint", "pixel_reduction": "sum", "pixel_range": 256.0},
        network=VGG19(input_scale=256.0),
        optimizer=LONG_HISTORY,
        scales=1,
        spread="sum",
        resample="bilinear",
        rounding="truncate",
        deviations="total variation is part of the loss, not only of the gradient",
    ),
    "neural-style-pt": Preset(
        source="github.com/ProGamerGov/neural-style-pt, neural_style.py",
        content_weight=5.0,
        style_weight=100.0,
        tv_weight=1e-3,
        range_penalty=1.0,
        objective_options=ONE_RESOLUTION
        | {"gram_normalization": "elements", "tv_power": 1, "pixel_reduction": "sum", "pixel_range": 255.0},
        optimizer=LONG_HISTORY,
        scales=1,
        spread="sum",
        resample="bilinear",
        rounding="truncate",
    ),
    "anishathalye": Preset(
        source="github.com/anishathalye/neural-style, stylize.py",
        content_weight=5.0,
        style_weight=500.0,
        tv_weight=100.0,
        range_penalty=1.0,
        objective_options=ONE_RESOLUTION | {"gram_normalization": "elements", "pixel_range": 255.0},
        optimizer=Adam(learning_rate=10 / 255),
        scales=1,
        deviations="several styles mix their statistics, not their losses; pooling rounds odd sides down; each step "
        "clips; the result is the last image, not the best; a style has the longest side of the content, not its width",
    ),
    "crowsonkb": Preset(
        source="github.com/crowsonkb/style-transfer-pytorch, style_transfer.py",
        content_weight=0.015,
        style_weight=1.0,
        tv_weight=2.0,
        range_penalty=1.0,
        style_layers={"relu1_1": 256, "relu2_1": 64, "relu3_1": 16, "relu4_1": 4, "relu5_1": 1},
        objective_options=ONE_RESOLUTION | {"statistic": "wasserstein", "tv_form": "nine_point"},
        network=VGG19(padding="replicate"),
        optimizer=Adam(b2=0.99, ema_decay=0.99),
        pooling_gains={"max": 1.0, "avg": 2.0, "l2": 0.78},
        deviations="made for torchvision's weights, whose activations are smaller than Caffe's; the state of adam is "
        "reset at each scale; the average excludes the first image; a small style is enlarged",
    ),
    "pystiche": Preset(
        source="github.com/pystiche/pystiche, pystiche/_cli.py",
        content_weight=1.0,
        style_weight=1e3,
        tv_weight=0.0,
        range_penalty=1e12,
        objective_options=ONE_RESOLUTION,
        optimizer=LONG_HISTORY,
        scales=1,
        resample="bilinear",
        deviations="made for torchvision's weights, whose activations are smaller than Caffe's; --size is the longest "
        "side, not the shorter one",
    ),
    "tensorflow-tutorial": Preset(
        source="tensorflow.org/tutorials/generative/style_transfer",
        content_weight=1e4,
        style_weight=1e-2,
        tv_weight=30.0,
        range_penalty=1.0,
        content_layers={"relu5_2": 1.0},
        objective_options=ONE_RESOLUTION | {"tv_power": 1, "pixel_reduction": "sum"},
        optimizer=Adam(b1=0.99, eps=0.1),
        scales=1,
        resample="bilinear",
        rounding="truncate",
        deviations="images are antialiased when they are reduced",
    ),
    "keras-example": Preset(
        source="keras.io/examples/generative/neural_style_transfer",
        content_weight=2.5e-8,
        style_weight=1e-6 / 36,
        tv_weight=1e-6,
        range_penalty=1e-3,
        content_layers={"relu5_2": 1.0},
        objective_options={
            "half_resolution_above": None,
            "content_normalization": "none",
            "style_normalization": "none",
            "gram_normalization": "image",
            "tv_form": "joint",
            "tv_power": 2.5,
            "pixel_reduction": "sum",
            "pixel_range": 255.0,
        },
        scales=1,
        style_fit="content",
        resample="bilinear",
        rounding="truncate",
        deviations="lbfgs, not gradient descent with a decaying rate; --size is the longest side, not 400 rows; images "
        "are resized bilinearly, not by nearest neighbors",
    ),
    "jaxstyle-neighbors": Preset(
        source="ours; the objective is that of nnst, with Gram matrices for the global statistics and a color term",
        custom=NeighborObjective(
            style_weight=0.3,
            color_weight=5.0,
            tv=0.4,  # 3 lowers the contrast
            rotations=1,
            limit=48,
            style_layers=("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
            color_term=True,
        ),
        custom_options=NEIGHBOR_OPTIONS | {"style_weight": "style_weight", "statistic": "statistic"},
        network=VGG19(padding="replicate"),  # with zeros the borders become lines
        optimizer=replace(UNBOUNDED, learning_rate=3e-3),
        scales=Series(coarsest=64, factor=2.5, steps_by_pixels=-0.7, most_steps=None),
        init="recolored",
    ),
    "nnst": Preset(
        source="github.com/nkolkin13/NeuralNeighborStyleTransfer, styleTransfer.py; arXiv:2203.13215",
        custom=NeighborObjective(split_rotations=4),
        custom_options=NEIGHBOR_OPTIONS,
        optimizer=UNBOUNDED,
        scales=OCTAVES,
        color="chroma",
        deviations="VGG-19 by default; --steps are divided among the scales, not 200 for each; the first image is the "
        "content with its details, which later scales add too; in the last pass the positions of the style are drawn "
        "once; its loss is the mean over layers; borders of styles are no matches; the mean of all positions is "
        "subtracted, not that of a chunk; a range penalty",
    ),
    "strotss": Preset(
        source="github.com/nkolkin13/STROTSS, styleTransfer.py; arXiv:1904.12785",
        custom=RelaxedEmdObjective(),
        custom_options={"content_weight": "content_weight", "tv_weight": "tv"},
        optimizer=replace(UNBOUNDED, b1=0.0, b2=0.99),  # RMSprop with corrected bias
        scales=OCTAVES,
        deviations="VGG-19 by default; --steps are divided among the scales, not 250 for each; the first image is the "
        "content, not its details on the mean color of the style; the last scale adds details too, with the same rate; "
        "positions are on a grid with random offsets, drawn once for the style, not five times; the pyramid has up to "
        "8 levels, not 5; a range penalty",
    ),
}


def preset(name: str) -> Preset:
    """Return the preset `name`.

    Args:
        name: a key of `PRESETS`.

    Returns:
        The preset.

    Raises:
        InputError: if there is no such preset.

    Example:
        >>> preset("neural-style-pt").style_weight
        100.0
    """
    if name not in PRESETS:
        raise InputError(f"Preset {excerpt(repr(name))} is unknown: use {', '.join(PRESETS)}.")
    return PRESETS[name]

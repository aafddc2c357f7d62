"""Groups of options, shared by several commands, and their conversion to the options of `jaxstyle.runtime`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from tyro.conf import UseAppendAction, arg

from jaxstyle.errors import InputError, excerpt
from jaxstyle.runtime.options import Color, check_number, parse_pixels
from jaxstyle.runtime.outputs import OutputOptions

SET_BY_PRESET = "(default: set by the preset)"
DEVICES, MEMORY = "(default: all for a sweep, one for a picture)", "(default: most of the free memory)"
# Help of more than one line; tyro preserves the line breaks of docstrings.
PRESET = (
    "Preset with defaults of the objective, the network and the scales, and where they apply of the optimizer, the "
    "initial image and colors: jaxstyle, or a published program: gatys-paper, gatys-code, neural-style, "
    "neural-style-pt, anishathalye, crowsonkb, pystiche, tensorflow-tutorial or keras-example. The presets "
    "jaxstyle-neighbors, nnst and strotss match features and transfer strokes and motifs of the painting."
)
COLOR = (
    "Color transfer: keep the colors of the content, or recolor the style by mean and covariance (match, "
    "match-cholesky) or by histogram; chroma gives the chroma of the content the distribution of that of the style."
)
MOST_PROCESSES = 10**6
MOST_PORT = 2**16 - 1
MOST_SECONDS = 10**6
DISTRIBUTED = (
    "Share the work with the same command in other processes. Slurm, Open MPI, Kubernetes and TPUs are detected; "
    "otherwise set --coordinator, --num-processes and --process-id."
)

Init = Annotated[
    Literal["content", "recolored", "style", "noise"] | Path | None,
    arg(metavar="content|recolored|style|noise|PICTURE", help_behavior_hint=SET_BY_PRESET),
]
Pooling = Literal["max", "avg", "l2"]
Statistic = Literal["gram", "mean_std", "covariance", "wasserstein", "sliced"]
Optimizer = Literal["lbfgs", "adam"]
Parametrization = Literal["pixels", "pyramid", "laplacian", "decorrelated", "fourier", "sigmoid"]


def choice(kind: Any, hint: str = SET_BY_PRESET, *, help: str | None = None) -> Any:
    """Return the help of an option with the values of a `Literal`, or None for a default that `hint` names."""
    return arg(metavar=f"{{{','.join(get_args(kind))}}}", help_behavior_hint=hint, help=help)


def checked(kind: Any, command: Any, styles: Sequence[Path] = ()) -> Any:
    """Return the options of a command as for `flat`, checked for these styles."""
    options = flat(kind, command)
    options.check(styles)
    return options


def flat(kind: Any, command: Any) -> Any:
    """Return options of the class `kind` with the values of a command and of its groups."""
    values: dict[str, Any] = {}
    for each in fields(command):
        value = getattr(command, each.name)
        values |= vars(value) if is_dataclass(value) else {each.name: value}
    values |= {"max_pixels": parse_pixels(values.get("max_pixels")), "record": not values.get("no_record")}
    return kind(**{each.name: values[each.name] for each in fields(kind) if each.name in values})


@dataclass(frozen=True)
class Network:
    """The network."""

    network: str = "auto"
    """Network: auto (VGG-19, or mini if it cannot be downloaded), vgg19, mini, random, or a weights file."""
    weights: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """Weights of VGG-19 or VGG-16, an .h5 or .safetensors file."""
    offline: bool = False
    """Never download weights."""

    def chosen(self, *, preview: bool) -> str:
        """Return the name of the network, which is mini for a preview."""
        if preview and self.network not in ("auto", "vgg19", "mini", "builtin"):
            raise InputError(f"--preview runs with the mini network, but --network is {self.network}: drop one.")
        return "mini" if preview else self.network


@dataclass(frozen=True)
class Computing:
    """Precision, memory and devices."""

    precision: Literal["float32", "tf32", "bfloat16"] = "tf32"
    """Precision of convolutions; tf32 and bfloat16 are faster on accelerators; a CPU uses float32 for tf32."""
    remat: bool = False
    """Recompute the largest layers for the gradient: a tenth slower, up to half the memory. Not for --statistic sliced
    or presets that match features."""
    devices: Annotated[int | None, arg(metavar="COUNT", help_behavior_hint=DEVICES)] = None
    """Number of accelerators, which share the pictures of a sweep or the rows of one picture."""
    max_memory: Annotated[str | None, arg(metavar="SIZE", help_behavior_hint=MEMORY)] = None
    """Memory budget, such as 8GiB. Images that do not fit are processed in tiles, in about 1.6 times the time."""


@dataclass(frozen=True)
class Method:
    """Objective and scales."""

    preset: Annotated[str, arg(help=PRESET)] = "jaxstyle"
    style_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=SET_BY_PRESET)] = None
    """Style layers and their relative weights, such as relu1_1:1,relu2_1:0.5."""
    statistic: Annotated[Statistic | None, choice(Statistic)] = None
    """Statistic of the style layers."""
    pooling: Annotated[Pooling | None, choice(Pooling)] = None
    """Pooling of VGG-19."""
    scales: Annotated[str | None, arg(metavar="auto|N|SIDES", help_behavior_hint=SET_BY_PRESET)] = None
    """Scales, coarse to fine: auto (from 128 pixels by factors of about 2.4), their number, or their longest sides."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss."""

    content_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=SET_BY_PRESET)] = None
    """Weight of the content loss; for nnst and jaxstyle-neighbors, share of the content in the targets, 0 to 1."""
    style_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=SET_BY_PRESET)] = None
    """Weight of the style loss; not for nnst and strotss."""
    tv_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=SET_BY_PRESET)] = None
    """Weight of total variation."""
    content_layers: Annotated[str | None, arg(metavar="LAYERS", help_behavior_hint=SET_BY_PRESET)] = None
    """Content layers and their relative weights, such as relu4_2 or relu3_2:0.5,relu4_2:1."""
    shift: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=SET_BY_PRESET)] = None
    """Number added to features before their Gram matrices, such as -1 (Novak and Nikulin)."""


@dataclass(frozen=True)
class Optimization:
    """Optimization."""

    optimizer: Annotated[Optimizer | None, choice(Optimizer)] = None
    """Optimizer."""
    learning_rate: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")] = None
    """Learning rate. (default: set by the preset, or 1 for lbfgs and 0.02 for adam)"""
    lbfgs_history: Annotated[int | None, arg(metavar="PAIRS", help_behavior_hint="")] = None
    """Number of curvature pairs of lbfgs. (default: set by the preset, or 20, and 10 from 2^20 pixels up)"""
    parametrization: Annotated[Parametrization | None, choice(Parametrization, hint="")] = None
    """Parametrization of the image. (default: set by the preset, or pyramid for lbfgs and pixels for adam)"""
    ema_decay: Annotated[float | None, arg(metavar="FRACTION", help_behavior_hint=SET_BY_PRESET)] = None
    """Decay of the exponential moving average of iterates, such as 0.99 for adam; 0 for none."""
    tolerance: Annotated[float | None, arg(metavar="FRACTION", help_behavior_hint=SET_BY_PRESET)] = None
    """Stop a scale when ten steps lower the total loss by less than this fraction of its value, such as 0.005."""
    patience: Annotated[int | None, arg(metavar="STEPS", help_behavior_hint=SET_BY_PRESET)] = None
    """Number of steps without progress before lbfgs restarts; after as many again it stops. 0 disables both."""
    normalize_gradients: bool = False
    """Divide the gradient of each term with respect to its layer by the sum of its absolute values."""


@dataclass(frozen=True)
class FromNoise:
    """Optimization from noise."""

    tv_weight: Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint=SET_BY_PRESET)] = None
    """Weight of total variation."""
    steps: int = 205
    """Number of gradient evaluations over all scales."""
    seed: int = 0
    """Seed of the noise."""


@dataclass(frozen=True)
class Appearance:
    """Size of the style, and colors."""

    style_scale: Annotated[float | None, arg(metavar="FACTOR", help_behavior_hint="")] = None
    """Size of the style relative to the content: 2 for coarser strokes, 0.5 for finer ones."""
    style_size: Annotated[int | None, arg(metavar="PIXELS", help_behavior_hint="")] = None
    """Longest side of the style in pixels. (default: --size)"""
    color: Annotated[Color | None, choice(Color, help=COLOR)] = None


@dataclass(frozen=True)
class Regions:
    """Several styles, and masks."""

    style_weights: Annotated[str | None, arg(metavar="W1,W2,...", help_behavior_hint="")] = None
    """Weights of several styles. (default: equal; presets that match features use the nearest feature of all styles)"""
    content_mask: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="PICTURE")] = ()
    """Image that is white in the region of a style; repeat for each style, in the order of the styles."""
    style_mask: Annotated[UseAppendAction[tuple[Literal["all"] | Path, ...]], arg(metavar="PICTURE|all")] = ()
    """Image that is white in the part of a style to use, or all; repeat for each style."""
    feather: int = 0
    """Width of the soft edge of content masks in pixels of the output."""


@dataclass(frozen=True)
class Saving:
    """Output."""

    save_every: int = 0
    """Number of steps between intermediate pictures OUT_0050.png; 0 for none."""
    log: Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="")] = None
    """CSV file of all loss terms of every step."""
    bits: Literal[8, 16] = 8
    """Bits per channel of the output; 16 for .png and .tiff."""
    record_file: bool = False
    """Write the record of the picture to OUT.json too."""
    no_record: bool = False
    """Leave the record (settings, names and hashes of inputs, versions, device) out of the picture."""
    checkpoint: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Checkpoint folder; rerun the same command to resume from it."""
    every: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """Number of steps between checkpoints. (default: 50)"""
    dry_run: bool = False
    """Print the memory and time that the run would take, and make no picture."""
    quiet: bool = False
    """Print errors only."""

    def outputs(self) -> OutputOptions:
        """Return the options for output files."""
        return flat(OutputOptions, self)


@dataclass(frozen=True)
class Limits:
    """Limits."""

    max_pixels: Annotated[str | None, arg(metavar="NUMBER", help_behavior_hint="(default: 89MP)")] = None
    """Maximum number of pixels of an input or output image, such as 500MP; protects from malicious files."""


@dataclass(frozen=True)
class Processes:
    """Distributed runs: start the same command in each process."""

    distributed: Annotated[bool, arg(help=DISTRIBUTED)] = False
    coordinator: Annotated[str | None, arg(metavar="HOST:PORT", help_behavior_hint="(default: detected)")] = None
    """Address of process 0 in a trusted network."""
    num_processes: Annotated[int | None, arg(metavar="COUNT", help_behavior_hint="(default: detected)")] = None
    """Number of processes."""
    process_id: Annotated[int | None, arg(metavar="NUMBER", help_behavior_hint="(default: detected)")] = None
    """Index of this process, from 0."""
    initialization_timeout: int = 60
    """Seconds to wait for the other processes at the beginning."""
    heartbeat_timeout: int = 100
    """Seconds without a heartbeat of another process before this process ends with an error."""

    def check(self, *, devices: int | None) -> None:
        """Check that the options are valid and consistent."""
        options = {
            "--coordinator": self.coordinator,
            "--num-processes": self.num_processes,
            "--process-id": self.process_id,
        }
        missing = [name for name, value in options.items() if value is None]
        present = [name for name in options if name not in missing]
        if present and not self.distributed:
            raise InputError(f"{present[0]} needs --distributed: add that or drop it.")
        if present and missing:
            others = " and ".join(missing)
            cure = "give all three, or none if the cluster sets them"
            raise InputError(f"{present[0]} is given without {others}: {cure}.")
        if self.distributed and devices is not None:
            raise InputError(f"--devices is {devices}, but --distributed uses all devices: drop one.")
        check_number("num_processes", self.num_processes, 1, MOST_PROCESSES)
        check_number("process_id", self.process_id, 0, (self.num_processes or 1) - 1)
        check_number("initialization_timeout", self.initialization_timeout, 1, MOST_SECONDS)
        check_number("heartbeat_timeout", self.heartbeat_timeout, 1, MOST_SECONDS)
        if self.coordinator is not None:
            match = re.fullmatch(r"(?:[^\s:\[\]/]+|\[[^\s\[\]/]+\]):(\d{1,5})", self.coordinator)
            if not match or not 1 <= int(match[1]) <= MOST_PORT:
                where = excerpt(repr(self.coordinator))
                raise InputError(f"--coordinator is {where}: use host and port, such as 10.0.0.1:1234.")

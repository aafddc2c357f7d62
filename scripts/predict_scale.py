"""What large pictures and many of them would take on large machines, on paper: the tables of `docs/scale.md`.

Plans, arithmetic, blocks and states are the library's; what is assumed or was measured elsewhere stands in capitals.
"""

import math
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp

from jaxstyle import Config, load_params
from jaxstyle.images.resample import half_shape
from jaxstyle.losses.layer_summaries import blocks_in_rows
from jaxstyle.losses.tiling import grid
from jaxstyle.networks import vgg
from jaxstyle.networks.vgg import Params
from jaxstyle.optim import loop
from jaxstyle.optim.parametrizations import PYRAMID_LEVELS
from jaxstyle.runtime.estimates import gflop_per_step
from jaxstyle.runtime.memory import ESTIMATED
from jaxstyle.runtime.problem import bytes_of
from jaxstyle.transfer.schedule import Scale, plan

TF32, FLOAT32 = 0.4 * 989e12 / 2, 0.75 * 67e12  # operations a second: assumed shares of an H200's peaks
HBM, LINK = 4.8e12, 450e9  # bytes a second: an H200's memory; NVLink in one direction
START = 2e-3  # seconds that a step takes at least to start some hundreds of kernels, assumed
LAYERS, STATE = 6, 4  # how often a step reads or writes all layers and the optimiser's state, assumed
# Bytes a pixel by XLA's accounts of compiled steps, on a CPU:
WHOLE = 970 * 2**20 / (1024 * 768)  # of an image that is not cut, besides state and targets
BETWEEN, IN_WINDOW = 110, 1150  # of an image in blocks, likewise; of a window
TARGETS, PICTURES = 32, 24  # relu4_2 of an image and of each of its halves; the picture as it came and as it is used
FIXED = 2**30  # bytes of a process
CASES = {"adam": Config(optimizer="adam"), "lbfgs, 3 pairs": Config(memory=3), "lbfgs, 10 pairs": Config(memory=10)}
MEMORIES = {"`--max-memory 24GiB`": (24 * 2**30, ESTIMATED, 2**19), "0.95 of 141 GB": (0.95 * 141e9, 1, 2**23)}
TASKS = {  # side, devices, pixels of a window, pictures of each device
    "1 gigapixel, 1 GPU, whole": (2**15, 1, None, 1),
    "1 gigapixel, 1 GPU, in blocks": (2**15, 1, 2**23, 1),
    "1 gigapixel, 8 GPUs, whole": (2**15, 8, None, 1),
    "1 gigapixel, 8 GPUs, in blocks": (2**15, 8, 2**23, 1),
    "10,000 of 1024x1024, 64 GPUs": (2**10, 1, None, math.ceil(10_000 / 64)),
}


def sizes(scale: Scale, config: Config) -> list[tuple[int, int]]:
    """Return height and width of a scale and of its halves, as far as it is compared there."""
    halved = config.halve_above is not None and max(scale[:2]) > config.halve_above
    return [scale[:2], *(sizes(Scale(*half_shape(*scale[:2]), 1), config) if halved else [])]


def layers(params: Params, config: Config) -> list[tuple[int, int, int]]:
    """Return of each convolution its block, from 0, and the channels that it sees and makes."""
    deepest = max(vgg.CONV_LAYERS.index("conv" + layer[4:]) for layer in config.content_layers + config.style_layers)
    shapes = [(name, params[name]["kernel"].shape) for name in vgg.CONV_LAYERS[: deepest + 1]]
    return [(int(name[4]) - 1, shape[-2], shape[-1]) for name, shape in shapes]


def operations(params: Params, height: int, width: int, config: Config) -> float:
    """Return those of one size: in blocks with what windows see around, a first pass and what is computed again."""
    once = 1e9 * gflop_per_step(params, Scale(height, width, 1), config=replace(config, halve_above=None))
    cut = grid(height, width, most=config.block_pixels, halo=max(map(vgg.halo, config.style_layers)))
    seen = height * width if cut is None else math.prod(cut.window)
    around = 1 if cut is None else len(cut.rows) * len(cut.columns) * seen / (height * width)
    strips = blocks_in_rows(replace(config, remat=cut is not None), seen)
    work = [(block + 1, taken * made / 4**block) for block, taken, made in layers(params, config)]
    again = sum(own for block, own in work if block in strips) / sum(own for _, own in work)
    return once * around * (1 + (cut is not None) / 2 + again / 2)  # half of it is forwards


def exchanged(params: Params, width: int, config: Config) -> int:
    """Return the bytes that a device sends in a step at one size: rows to two neighbours, sums of Gram matrices."""
    # a row of what a convolution sees, forwards, and one of the gradient of what it makes, back
    rows = sum(4 * (width >> block) * (taken + made) for block, taken, made in layers(params, config))
    grams = sum(4 * params["conv" + layer[4:]]["kernel"].shape[-1] ** 2 for layer in config.style_layers)
    return 2 * rows + 2 * grams  # an all-reduce sends about twice what there is


def seconds(params: Params, scale: Scale, config: Config, devices: int) -> list[float]:
    """Return the seconds of a step: for the network, resampling, memory, links and in all; nothing overlaps."""
    of = sizes(scale, config)
    network = sum(operations(params, *size, config) for size in of) / devices / TF32
    links = sum(exchanged(params, width, config) for _, width in of) if devices > 1 else 0
    levels = 1 if config.optimizer == "adam" else PYRAMID_LEVELS
    pairs = [(fine, half_shape(*fine)) for fine in of[:-1]]
    pairs += [(of[0], (math.ceil(of[0][0] / 2**i), math.ceil(of[0][1] / 2**i))) for i in range(1, levels)]
    products = sum(12 * low * wide * (high + low_wide) for (high, wide), (low, low_wide) in pairs)  # forwards, back
    gathered = sum(24 * low * wide for (_, wide), (low, _) in pairs) if devices > 1 else 0  # 3 channels, and back
    written = sum(4 * made / 4**block for block, _, made in layers(params, config)) * sum(map(math.prod, of))
    moved = LAYERS * written + STATE * state_bytes(config) * math.prod(of[0])
    each = network, products / FLOAT32 / devices, moved / HBM / devices, (links + gathered) / LINK
    return [*each, max(START, sum(each))]


@cache
def state_bytes(config: Config) -> float:
    """Return the bytes a pixel of the optimiser's state."""
    image = jax.ShapeDtypeStruct((1024, 1024, 3), jnp.float32)
    return bytes_of(jax.eval_shape(partial(loop.init, config=config), image)) / 2**20


def held(side: int, config: Config, devices: int, window: int | None) -> float:
    """Return the bytes that a device holds of a square."""
    pixels = side * side / devices
    between = WHOLE * pixels if window is None else BETWEEN * pixels + IN_WINDOW * min(window, pixels)
    return FIXED + (PICTURES + TARGETS * 4 / 3 + state_bytes(config)) * pixels + between


def largest(config: Config, memory: float, share: float, window: int) -> int:
    """Return the side of the largest square of which state and steps, in blocks, take that share of what is left."""
    steps, before = state_bytes(config) + BETWEEN, PICTURES + TARGETS * 4 / 3
    return int(math.sqrt((share * (memory - FIXED) - IN_WINDOW * window) / (steps + share * before)))


def main() -> None:
    """Print the tables."""
    params, names = load_params("random"), " | ".join(CASES)  # of VGG-19's shape
    print(f"| largest square in blocks | {names} |\n" + "|---" * 4 + "|")
    for name, given in MEMORIES.items():
        print(f"| {name} | " + " | ".join(f"{largest(config, *given):,}" for config in CASES.values()) + " |")
    print(f"\n| | network | resampling | memory | links | a step | all steps | {names} |\n" + "|---" * 10 + "|")
    for name, (side, devices, window, count) in TASKS.items():
        config = Config(block_pixels=window)
        scales = plan(side, side, steps=300, config=config)
        took = [seconds(params, scale, config, devices) for scale in scales]
        whole = count * sum(scale.steps * each[-1] for scale, each in zip(scales, took, strict=True))
        shown = [f"{each:.2g} s" for each in took[-1]] + [f"{whole:.0f} s"]
        shown += [f"{held(side, each, devices, window) / 1e9:,.1f} GB" for each in CASES.values()]
        print(f"| {name} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()

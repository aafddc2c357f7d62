"""Predicted time and memory of large pictures, and of many, on large machines: the tables of `docs/scale.md`.

Schedules, operations, tiles and states are computed by the library; the constants are assumptions or measurements.
"""

import math
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp

from jaxstyle import LBFGS, VGG19, Adam, Objective, load_params
from jaxstyle.images.resample import half_shape
from jaxstyle.losses.layer_summaries import row_chunk_blocks
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
START = 2e-3  # assumed minimum of seconds per step, to start some hundreds of kernels
LAYERS, STATE = 6, 4  # assumed number of times that a step reads or writes all layers and the optimizer state
# Bytes per pixel by XLA's analysis of compiled steps, on a CPU:
WHOLE = 970 * 2**20 / (1024 * 768)  # of an image without tiles, besides state and targets
BETWEEN, IN_WINDOW = 110, 1150  # of an image in tiles, besides state and targets; of the window of a tile
TARGETS, PICTURES = 32, 24  # relu4_2 of each resolution; the picture before and after preprocessing
FIXED = 2**30  # bytes of a process
CASES = {"adam": Adam(), "lbfgs, 3 pairs": LBFGS(history_size=3), "lbfgs, 10 pairs": LBFGS(history_size=10)}
MEMORIES = {"`--max-memory 24GiB`": (24 * 2**30, ESTIMATED, 2**19), "0.95 of 141 GB": (0.95 * 141e9, 1, 2**23)}
TASKS = {  # side, devices, tile pixels, pictures of each device
    "1 gigapixel, 1 GPU, untiled": (2**15, 1, None, 1),
    "1 gigapixel, 1 GPU, in tiles": (2**15, 1, 2**23, 1),
    "1 gigapixel, 8 GPUs, untiled": (2**15, 8, None, 1),
    "1 gigapixel, 8 GPUs, in tiles": (2**15, 8, 2**23, 1),
    "10,000 of 1024x1024, 64 GPUs": (2**10, 1, None, math.ceil(10_000 / 64)),
}


def sizes(scale: Scale, objective: Objective) -> list[tuple[int, int]]:
    """Return height and width of a scale, and of the lower resolutions of the objective."""
    above = objective.half_resolution_above
    halved = above is not None and max(scale[:2]) > above
    return [scale[:2], *(sizes(Scale(*half_shape(*scale[:2]), 1), objective) if halved else [])]


def layers(params: Params, objective: Objective) -> list[tuple[int, int, int]]:
    """Return the block, from 0, and the numbers of input and output channels of each convolution."""
    deepest = max(vgg.CONV_LAYERS.index("conv" + layer[4:]) for layer in objective.layers)
    shapes = [(name, params[name]["kernel"].shape) for name in vgg.CONV_LAYERS[: deepest + 1] if name in params]
    return [(int(name[4]) - 1, shape[-2], shape[-1]) for name, shape in shapes]


def operations(params: Params, height: int, width: int, objective: Objective, network: VGG19) -> float:
    """Return the operations of one size; in tiles with their margins, the first pass and the recomputation."""
    direct = replace(objective, half_resolution_above=None)
    once = 1e9 * gflop_per_step(params, Scale(height, width, 1), objective=direct)
    tiles = grid(height, width, max_pixels=network.tile_pixels, halo=max(map(vgg.halo, objective.style_layers)))
    window = height * width if tiles is None else math.prod(tiles.window)
    margins = 1 if tiles is None else len(tiles.rows) * len(tiles.columns) * window / (height * width)
    recomputed = network.clone(remat=() if tiles is None else (1, 2))
    row_chunks = row_chunk_blocks(recomputed, window, complete=objective.complete_layers)
    products = [(block + 1, taken * made / 4**block) for block, taken, made in layers(params, objective)]
    again = sum(count for block, count in products if block in row_chunks) / sum(count for _, count in products)
    return once * margins * (1 + (tiles is not None) / 2 + again / 2)  # half of the operations are the forward pass


def exchanged(params: Params, width: int, objective: Objective) -> int:
    """Return the bytes that a device sends in a step at one size: rows to two neighbors, sums of Gram matrices."""
    # one row of the input of each convolution, and one row of the gradient of its output
    rows = sum(4 * (width >> block) * (taken + made) for block, taken, made in layers(params, objective))
    grams = sum(4 * params["conv" + layer[4:]]["kernel"].shape[-1] ** 2 for layer in objective.style_layers)
    return 2 * rows + 2 * grams  # an all-reduce sends about twice the bytes of its array


def seconds(
    params: Params, scale: Scale, devices: int, objective: Objective, optimizer: LBFGS | Adam, network: VGG19
) -> list[float]:
    """Return the seconds of a step for the network, resampling, memory and links, and their sum without overlap."""
    resolutions = sizes(scale, objective)
    convolutions = sum(operations(params, *size, objective, network) for size in resolutions) / devices / TF32
    links = sum(exchanged(params, width, objective) for _, width in resolutions) if devices > 1 else 0
    full, levels = resolutions[0], PYRAMID_LEVELS if optimizer.parametrization == "pyramid" else 1
    pairs = [(fine, half_shape(*fine)) for fine in resolutions[:-1]]
    pairs += [(full, (math.ceil(full[0] / 2**i), math.ceil(full[1] / 2**i))) for i in range(1, levels)]
    products = sum(12 * low * wide * (high + low_wide) for (high, wide), (low, low_wide) in pairs)  # and gradients
    gathered = sum(24 * low * wide for (_, wide), (low, _) in pairs) if devices > 1 else 0  # 3 channels, and gradients
    written = sum(4 * made / 4**block for block, _, made in layers(params, objective)) * sum(
        map(math.prod, resolutions)
    )
    moved = LAYERS * written + STATE * state_bytes(optimizer) * math.prod(full)
    each = convolutions, products / FLOAT32 / devices, moved / HBM / devices, (links + gathered) / LINK
    return [*each, max(START, sum(each))]


@cache
def state_bytes(optimizer: LBFGS | Adam) -> float:
    """Return the bytes of the optimizer state per pixel."""
    image = jax.ShapeDtypeStruct((1024, 1024, 3), jnp.float32)
    return bytes_of(jax.eval_shape(partial(loop.init_state, optimizer=optimizer), image)) / 2**20


def held(side: int, optimizer: LBFGS | Adam, devices: int, window: int | None) -> float:
    """Return the bytes of a square image on each device."""
    pixels = side * side / devices
    between = WHOLE * pixels if window is None else BETWEEN * pixels + IN_WINDOW * min(window, pixels)
    return FIXED + (PICTURES + TARGETS * 4 / 3 + state_bytes(optimizer)) * pixels + between


def largest(optimizer: LBFGS | Adam, memory: float, share: float, window: int) -> int:
    """Return the side of the largest square whose state and steps, in tiles, fit into a share of the memory."""
    steps, before = state_bytes(optimizer) + BETWEEN, PICTURES + TARGETS * 4 / 3
    return int(math.sqrt((share * (memory - FIXED) - IN_WINDOW * window) / (steps + share * before)))


def main() -> None:
    """Print the tables."""
    params, names = load_params("random"), " | ".join(CASES)  # of VGG-19's shape
    print(f"| largest square in tiles | {names} |\n" + "|---" * 4 + "|")
    for name, budget in MEMORIES.items():
        print(f"| {name} | " + " | ".join(f"{largest(each, *budget):,}" for each in CASES.values()) + " |")
    print(f"\n| | network | resampling | memory | links | a step | all steps | {names} |\n" + "|---" * 10 + "|")
    for name, (side, devices, window, count) in TASKS.items():
        objective, network = Objective(), VGG19(tile_pixels=window)
        scales = plan(side, side, steps=205, layers=objective.layers)
        each_scale = [seconds(params, scale, devices, objective, LBFGS(), network) for scale in scales]
        total = count * sum(scale.steps * each[-1] for scale, each in zip(scales, each_scale, strict=True))
        shown = [f"{each:.2g} s" for each in each_scale[-1]] + [f"{total:.0f} s"]
        shown += [f"{held(side, each, devices, window) / 1e9:,.1f} GB" for each in CASES.values()]
        print(f"| {name} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()

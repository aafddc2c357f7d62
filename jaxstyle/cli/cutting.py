"""How finely a scale is cut so that its steps fit into memory: not at all, in strips of large layers, in blocks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from jaxstyle.cli.memory import ESTIMATED, room_for, taken_and_free
from jaxstyle.config import Config
from jaxstyle.errors import InputError
from jaxstyle.losses.layer_summaries import blocks_in_rows, least_pixels
from jaxstyle.transfer.schedule import Scale
from jaxstyle.transfer.sweep import memory_of

STRIPS_SAVE = 2  # what they divide memory by, at most: 1,564 to 761 MiB at 1024 x 768 pixels
FINEST, COARSEST = 0.1, 0.8  # of a window that did not fit, how large the next one is


def cut_to_fit(
    program: Callable[[int], jax.stages.Compiled],
    scale: Scale,
    *,
    config: Config,
    alone: bool,
    memory: int | None,
    there: int,
) -> tuple[jax.stages.Compiled, int]:
    """Return the program of a scale that fits into memory, and how it is cut.

    Args:
        program: as for `fitted`.
        scale: its pixels count.
        config: the static facts.
        alone: whether there is one image; several lanes are not cut.
        memory: bytes that the whole command may take, None for most of what is free.
        there: bytes of the program's inputs that are taken already.

    Raises:
        InputError: if it does not fit into the memory that the command may take.
    """
    pixels = scale.height * scale.width
    fewer = blocks_in_rows(replace(config, remat=True), pixels) != blocks_in_rows(config, pixels)
    adds_up = config.statistic != "sliced" and not config.normalize_gradients
    least = least_pixels(config) if alone and adds_up else None
    room, (taken, _) = room_for(memory), taken_and_free()

    def need(step: jax.stages.Compiled) -> int:
        return memory_of(step) - there

    step, cut = fitted(program, pixels, need=need, room=room, strips=alone and fewer, least=least)
    if alone and memory is not None and need(step) > room:
        takes = (taken + need(step) / ESTIMATED) / 2**20
        raise InputError(
            f"--max-memory is {memory / 2**20:.0f} MiB, but steps at {max(scale.width, scale.height)} pixels "
            f"take {takes:.0f} MiB in the smallest blocks: give that, or lower --size."
        )
    return step, cut


def fitted(
    program: Callable[[int], jax.stages.Compiled],
    pixels: int,
    *,
    need: Callable[[jax.stages.Compiled], int],
    room: int,
    strips: bool,
    least: int | None,
) -> tuple[jax.stages.Compiled, int]:
    """Return the program that fits into memory with the least additional work, or the smallest, and how it is cut.

    Args:
        program: returns the compiled steps for a cut: 0 for none, or the most pixels of a window, those of the whole
            image for strips alone.
        pixels: of the image.
        need: returns the bytes that a program takes.
        room: bytes that there are.
        strips: whether strips would help.
        least: the fewest pixels of a window, or None where blocks cannot be.
    """
    step, cut = program(0), 0
    if room < need(step) <= STRIPS_SAVE * room and strips:
        step, cut = program(pixels), pixels
    window = pixels
    while need(step) > room and least is not None and window > least:
        found: Any = step.memory_analysis()
        share = 1 - (need(step) - room) / max(1, found.temp_size_in_bytes)  # by which what is in between would fit
        window = max(least, int(window * min(COARSEST, max(FINEST, share))))
        step, cut = program(window), window
    return step, cut

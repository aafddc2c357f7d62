"""How finely a scale is cut so that its steps fit into memory: not at all, in strips of large layers, in blocks."""

from collections.abc import Callable
from typing import Any

import jax

STRIPS_SAVE = 2  # what they divide memory by, at most: 1,564 to 761 MiB at 1024 x 768 pixels
FINEST, COARSEST = 0.1, 0.8  # of a window that did not fit, how large the next one is


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

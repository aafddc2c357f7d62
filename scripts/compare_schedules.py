"""How soon the default schedule reaches what neural-style-pt's own recipe reaches at all, under that tool's objective.

python scripts/compare_schedules.py content.jpg style.jpg --size 512 --output schedules/

Both run in this process, one after the other, on the same network, and both are scored from their saved 8-bit pictures.
The recipe: one scale, plain pixels, lbfgs with 100 pairs, no bounds, one clip at the end, 500 evaluations; it is scored
every 20 of them, off the clock. The schedule: `stylize`'s own scales, steps, pyramid and penalty on bounds. Times
include compiling.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxstyle import init, load_params, make_targets, presets, run, stylize, terms, total
from jaxstyle.image import load, save

PRESET = presets.preset("neural-style-pt")
EVALUATIONS, EVERY, STEPS = 500, 20, 300


def main(arguments: list[str] | None = None) -> None:
    """Run both and print when each stood where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content", type=Path)
    parser.add_argument("style", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--network", default="auto")
    parser.add_argument("--output", type=Path, default=Path("."))
    options = parser.parse_args(arguments)

    content, style = (
        jnp.asarray(load(path, size=options.size, resample=PRESET.resample, rounding=PRESET.rounding).rgb)
        for path in (options.content, options.style)
    )
    params, weights = load_params(options.network), PRESET.loss_weights()
    targets = make_targets(params, content, style, config=PRESET.config)
    objective = jax.jit(lambda image: total(weights, terms(params, image, targets, config=PRESET.config)))

    def score(image: jax.Array, name: str) -> float:
        save(options.output / name, image)
        return float(objective(jnp.asarray(load(options.output / name).rgb)))

    print(f"untouched content: {score(content, 'content.png'):,.0f}")
    best, recipe_seconds = recipe(params, content, targets, weights, score)
    print(f"recipe: best {best:,.0f}, {EVALUATIONS} evaluations in {recipe_seconds:.1f} s")

    began = time.perf_counter()
    config = replace(PRESET.config, scales=None)
    image = jax.block_until_ready(stylize(params, content, style, weights=weights, config=config, steps=STEPS).image)
    seconds = time.perf_counter() - began
    print(f"schedule: {score(image, 'schedule.png'):,.0f}, {STEPS} steps in {seconds:.1f} s")
    print(f"time of the schedule over that of the recipe: {seconds / recipe_seconds:.3f}")


def recipe(params, content, targets, weights, score: Callable[[jax.Array, str], float]) -> tuple[float, float]:
    """Run neural-style-pt's recipe; return the best score on its way, and the seconds it took in all."""
    config = replace(PRESET.config, parametrization="pixels")
    began = time.perf_counter()
    state = init(content, config=config)
    free = weights._replace(bounds=0.0)
    step = run.lower(state, params, targets, free, config=config, steps=EVERY).compile()
    seconds, best = time.perf_counter() - began, float("inf")
    for done in range(EVERY, EVALUATIONS + 1, EVERY):
        began = time.perf_counter()
        state, trace = jax.block_until_ready(step(state, params, targets, free))
        seconds += time.perf_counter() - began
        found = score(state.image, "recipe.png")
        best = min(best, found)
        print(
            f"recipe, {done}: {found:,.0f} clipped, {float(trace['total'][-1]):,.0f} not, {seconds:.1f} s", flush=True
        )
    return best, seconds


if __name__ == "__main__":
    main()

"""Comparison of a narrow network with VGG-19: quality of its pictures and time of its steps.

    python scripts/compare_networks.py photo1.jpg painting1.jpg photo2.jpg painting2.jpg

Quality is (J(a) - J(b)) / (J(a) - J(c)) for (a) the content, (b) the picture by the network and (c) the picture by
VGG-19. J is the objective of preset `jaxstyle` under VGG-19 without total variation: content + 30 * the mean of style.
Both pictures are made at one scale.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro
from tyro.conf import Positional, arg

from jaxstyle import (
    Objective,
    init_state,
    load_image,
    load_params,
    make_targets,
    run_steps,
    save_image,
    stylize,
    terms,
    total,
)
from jaxstyle.errors import InputError, user_error
from jaxstyle.losses.targets import Targets
from jaxstyle.networks.vgg import Params

OBJECTIVE, WITHOUT_TV = Objective(), Objective(tv=0.0)
TURNS, TIMED_STEPS = 5, 4


@jax.jit
def evaluate(params: Params, picture: jax.Array, targets: Targets) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return J, the objective without total variation, and its terms."""
    each = terms(params, picture, targets, objective=WITHOUT_TV)
    return total(WITHOUT_TV, each), each


def seconds(networks: list[Params], content: jax.Array, style: jax.Array) -> Iterator[list[float]]:
    """Yield the seconds of a step on each network, in turns of a few steps, after one turn that does not count."""
    programs = []
    for params in networks:
        targets = make_targets(params, content, style, objective=OBJECTIVE)
        arguments = (init_state(content, objective=OBJECTIVE), params, targets, OBJECTIVE)
        step = jax.jit(run_steps, static_argnames="steps").lower(*arguments, steps=TIMED_STEPS).compile()
        jax.block_until_ready(step(*arguments))
        programs.append((step, arguments))
    for _ in range(TURNS):
        times = []
        for step, arguments in programs:
            began = time.perf_counter()
            jax.block_until_ready(step(*arguments))
            times.append((time.perf_counter() - began) / TIMED_STEPS)
        yield times


def main(
    pictures: Annotated[Positional[tuple[Path, ...]], arg(metavar="CONTENT STYLE ...")],
    *,
    network: str = "mini",
    weights: Path | None = None,
    size: int = 256,
    steps: int = 150,
    timed_size: int = 512,
    keep: Path | None = None,
) -> None:
    """Print the quality of a network on pairs of pictures, and the time of its step relative to VGG-19's.

    Args:
        pictures: contents and styles, alternating.
        network: mini, random, or a file.
        weights: weights file of VGG-19; needed if jaxstyle does not find one.
        size: longest side for the measurement of quality, in pixels.
        steps: gradient evaluations for the measurement of quality.
        timed_size: longest side for the measurement of time, in pixels.
        keep: folder for the pictures.
    """
    if not pictures or len(pictures) % 2:
        raise InputError(f"{len(pictures)} pictures are not pairs: give a style after each content.")
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    narrow, whole = load_params(network), load_params("vgg19", weights=weights)
    qualities = []
    for content_path, style_path in zip(pictures[::2], pictures[1::2], strict=True):
        content, style = (jnp.asarray(load_image(path, size=size).rgb) for path in (content_path, style_path))
        targets = make_targets(whole, content, style, objective=OBJECTIVE)
        scores = [float(evaluate(whole, content, targets)[0])]
        for name, params in ((network, narrow), ("vgg19", whole)):
            picture = stylize(params, content, style, objective=OBJECTIVE, steps=steps, scales=1).image
            score, each = evaluate(whole, jnp.asarray(picture), targets)
            scores.append(float(score))
            print(*(f"{term} {value:.4f}" for term, value in each.items()), Path(name).stem, sep="  ")
            if keep:
                save_image(
                    keep / f"{content_path.stem}_{style_path.stem}_{Path(name).stem}.png", jax.device_get(picture)
                )
        a, b, c = scores
        qualities.append((a - b) / (a - c))
        print(
            f"{content_path.name} x {style_path.name}: J {a:.2f} {b:.2f} {c:.2f}, quality {qualities[-1]:.3f}",
            flush=True,
        )
    print(f"quality {sum(qualities) / len(qualities):.3f}, the mean of {len(qualities)}")
    content, style = (jnp.asarray(load_image(path, size=timed_size).rgb) for path in pictures[:2])
    turns = list(seconds([narrow, whole], content, style))
    for ours, theirs in turns:
        print(f"a step at {timed_size} pixels: {ours:.3f} s and {theirs:.3f} s, {ours / theirs:.3f} of it")
    print(f"time {sorted(ours / theirs for ours, theirs in turns)[TURNS // 2]:.3f}, the median of {TURNS} turns")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (InputError, OSError) as error:
        sys.exit(f"compare_networks.py: {user_error(error) or error}")

"""How near a narrow network comes to VGG-19: the share of the way that its pictures go, and the time of a step.

    python scripts/compare_networks.py photo1.jpg painting1.jpg photo2.jpg painting2.jpg

With J the distance of a picture from its content and its style under VGG-19, for (a) the content as it is, (b) the
picture that the network paints and (c) the one that VGG-19 paints, quality is (J(a) - J(b)) / (J(a) - J(c)). J is
content + 30 * the mean of style, preset `jaxstyle`'s objective without total variation. Both paint at one scale.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro
from tyro.conf import Positional, arg

from jaxstyle import load_image, load_params, save_image, stylize
from jaxstyle.config import LossWeights
from jaxstyle.errors import InputError, own
from jaxstyle.losses.objective import Targets, Terms, make_targets, terms, total
from jaxstyle.networks.vgg import Params
from jaxstyle.optim.loop import init, run
from jaxstyle.transfer.presets import PRESETS

CONFIG = replace(PRESETS["jaxstyle"].config, scales=1)
TURNS, TIMED_STEPS = 5, 4


@jax.jit
def objective(params: Params, picture: jax.Array, targets: Targets) -> tuple[jax.Array, Terms]:
    """Return J, preset jaxstyle's objective without total variation, and its terms."""
    shares = terms(params, picture, targets, config=CONFIG)
    return total(LossWeights(tv=0.0), shares), shares


def seconds(networks: list[Params], content: jax.Array, style: jax.Array) -> Iterator[list[float]]:
    """Yield the seconds of a step on each network, in turns of a few steps, after one turn that does not count."""
    programs = []
    for params in networks:
        targets, state = make_targets(params, content, style, config=CONFIG), init(content, config=CONFIG)
        arguments = (state, params, targets, LossWeights())
        step = run.lower(*arguments, config=CONFIG, steps=TIMED_STEPS).compile()
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
    """Print the quality of a network on pairs of pictures, and the time of its step over VGG-19's.

    Args:
        pictures: contents and styles in turn.
        network: mini, random, or a file.
        weights: VGG-19's file, if jaxstyle would not find it.
        size: longest side for quality, in pixels.
        steps: gradient evaluations for quality.
        timed_size: longest side for time, in pixels.
        keep: a folder for the pictures that are painted.
    """
    if not pictures or len(pictures) % 2:
        raise InputError(f"{len(pictures)} pictures make no pairs: name contents and styles in turn.")
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    narrow, whole = load_params(network), load_params("vgg19", weights=weights)
    qualities = []
    for content_path, style_path in zip(pictures[::2], pictures[1::2], strict=True):
        content, style = (jnp.asarray(load_image(path, size=size).rgb) for path in (content_path, style_path))
        targets = make_targets(whole, content, style, config=CONFIG)
        scores = [float(objective(whole, content, targets)[0])]
        for name, params in ((network, narrow), ("vgg19", whole)):
            picture = jnp.clip(stylize(params, content, style, config=CONFIG, steps=steps).image, 0, 1)
            score, shares = objective(whole, picture, targets)
            scores.append(float(score))
            print(*(f"{term} {share:.4f}" for term, share in shares.items()), Path(name).stem, sep="  ")
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
        sys.exit(f"compare_networks.py: {own(error) or error}")

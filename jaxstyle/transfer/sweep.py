"""Many pictures at once: weights, seeds, contents, styles and starts as lanes of one program.

Lanes see the same network and, where they share them, the same targets. Each has the same work to do, since neither
adam nor lbfgs searches along a line, so `jax.vmap` wastes nothing on waiting. What they take of memory is known before
they run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxstyle.config import Config, LossWeights
from jaxstyle.distributed.sharding import BATCH, map_lanes, mesh_of
from jaxstyle.errors import InputError
from jaxstyle.networks.vgg import Params
from jaxstyle.transfer.color import Styles
from jaxstyle.transfer.stylize import Result, stylize


def sweep(
    params: Params,
    content: jax.Array,
    styles: Styles,
    weights: LossWeights = LossWeights(),
    *,
    key: jax.Array | None = None,
    config: Config = Config(),
    steps: int = 300,
    init: str | jax.Array = "content",
    blend: jax.typing.ArrayLike | Sequence[float] | None = None,
    lanes: int | None = None,
    devices: Sequence[Any] | None = None,
) -> Result:
    """Return what `stylize` makes of each of N lanes; whatever has a leading axis of N differs from lane to lane.

    A layer set is a weight of zero, so that a grid over layer sets and ratios is one program: Gatys et al., figure 3.

    Args:
        params: the network.
        content: `[H, W, 3]` for all lanes, or `[N, H, W, 3]`.
        styles: as `stylize` takes them; a picture may be `[N, h, w, 3]`.
        weights: each coefficient a number for all lanes, or `[N]`.
        key: one for all lanes, or N of them, of `jax.random.split`: seeds.
        config: the static facts.
        steps: how many gradient evaluations in each lane, over all scales.
        init: as for `stylize`; an image may be `[N, H, W, 3]`.
        blend: how much each style counts, `[K]` for all lanes or `[N, K]`.
        lanes: how many run at a time, to bound memory; None for all.
        devices: of `jax.devices()`, to share the lanes; None for one.

    Returns:
        Pictures `[N, H, W, 3]` and every term of every step, `[N, steps]`.

    Raises:
        InputError: if nothing has a leading axis, if leading axes differ or are empty, if fewer than one lane is to run
            at a time, or as `stylize` does.

    Example:
        >>> weights = LossWeights(tv=jnp.asarray([0.0, 5.0, 50.0]))
        >>> sweep(params, content, style, weights, steps=100).image.shape  # doctest: +SKIP
        (3, 384, 512, 3)
    """
    several = list(styles) if isinstance(styles, Sequence) else [styles]
    start = init if isinstance(init, str) else None
    image = None if isinstance(init, str) else init
    if lanes is not None and lanes < 1:
        raise InputError(f"{lanes} lanes at a time are none: take at least 1, or None for all.")
    if key is not None and not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # of jax.random.PRNGKey
        key = jax.random.wrap_key_data(key)
    shares = None if blend is None else jnp.asarray(blend, jnp.float32)
    inputs = (weights, content, several, key, image, shares)
    ranks = (0, 3, 3, 0, 3, 1)
    leaves, lane_of = [], []
    for given, rank in zip(inputs, ranks, strict=True):
        found = jax.tree.leaves(given)
        leaves += found
        lane_of += [jnp.ndim(leaf) == rank + 1 for leaf in found]
    counts = {len(leaf) for leaf, own in zip(leaves, lane_of, strict=True) if own}
    if len(counts) != 1:
        found = " and ".join(map(str, sorted(counts))) or "no"
        raise InputError(f"There are {found} lanes: give weights, key, content or styles one leading axis of lanes.")
    count = counts.pop()
    if not count:
        raise InputError("The leading axis of lanes is empty: give at least one lane.")
    return _run_lanes(
        params,
        [leaf for leaf, own in zip(leaves, lane_of, strict=True) if own],
        [leaf for leaf, own in zip(leaves, lane_of, strict=True) if not own],
        lane_of=tuple(lane_of),
        structure=jax.tree.structure(inputs),
        config=config,
        steps=steps,
        start=start,
        lanes=min(lanes or count, count),
        mesh=None if devices is None else mesh_of(devices, BATCH),
    )


@partial(jax.jit, static_argnames=("lane_of", "structure", "config", "steps", "start", "lanes", "mesh"))
def _run_lanes(
    params: Params,
    own: list[jax.Array],
    shared: list[jax.Array],
    *,
    lane_of: tuple[bool, ...],
    structure: Any,
    config: Config,
    steps: int,
    start: str | None,
    lanes: int,
    mesh: Mesh | None,
) -> Result:
    """Run `stylize` on `shared` and each of `own`, so many lanes at a time."""

    def lane(inputs: tuple[Params, list[jax.Array]], own: list[jax.Array]) -> Result:
        params, shared = inputs
        mine, ours = iter(own), iter(shared)
        given = jax.tree.unflatten(structure, [next(mine) if each else next(ours) for each in lane_of])
        weights, content, styles, key, image, blend = given
        init = image if start is None else start
        return stylize(
            params, content, styles, key=key, weights=weights, config=config, steps=steps, init=init, blend=blend
        )

    def several(inputs: tuple[Params, list[jax.Array]], own: list[jax.Array]) -> Result:
        at_a_time = lanes if mesh is None else -(-lanes // mesh.size)
        each = partial(lane, inputs)
        return jax.vmap(each)(own) if at_a_time >= len(own[0]) else jax.lax.map(each, own, batch_size=at_a_time)

    if mesh is None:
        return several((params, shared), own)
    count = len(own[0])
    even = jnp.minimum(jnp.arange(count + -count % mesh.size), count - 1)  # the last one again
    found = map_lanes(several, (params, shared), [leaf[even] for leaf in own], mesh=mesh)
    return jax.tree.map(lambda leaf: leaf[:count], found)


def memory_of(program: jax.stages.Compiled) -> int:
    """Return how much memory a compiled program takes while it runs: arguments, results and what lies between.

    Args:
        program: of `jax.jit(...).lower(...).compile()`.

    Returns:
        Bytes; 0 on backends without an analysis.

    Example:
        >>> memory_of(jax.jit(lambda x: x + 1).lower(jnp.zeros(1000)).compile()) >= 8000
        True
    """
    found: Any = program.memory_analysis()
    if found is None:
        return 0
    whole = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return whole - found.alias_size_in_bytes


def lanes_within(memory: int, *, count: int, needed: Callable[[int], int]) -> int:
    """Return how many of `count` lanes to run at a time: as many as fit, in runs of about equal length, at least one.

    Args:
        memory: what there is, in bytes.
        count: of all lanes.
        needed: returns the bytes of a program of so many lanes; asked for `count` and, if that is too much, for 1.

    Returns:
        Lanes at a time.

    Example:
        >>> lanes_within(1000, count=40, needed=lambda lanes: 100 + 60 * lanes)
        14
    """
    most = needed(count)
    if count == 1 or most <= memory:
        return count
    one = needed(1)
    fit = max(1, 1 + int((memory - one) * (count - 1) / max(1, most - one)))
    return -(-count // -(-count // fit))

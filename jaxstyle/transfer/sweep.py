"""Sweeps over weights, seeds, contents, styles and initial images as a batch of one program.

The images of a batch share the network and, where possible, the targets. Without line searches each image takes the
same work, so `jax.vmap` is efficient. The memory is known before the run.
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
    """Run `stylize` for a batch of N; arguments with a leading axis of length N differ between its images.

    Sets of layers are weights of zero, so that a grid over layer sets and ratios is one program: Gatys et al.,
    figure 3.

    Args:
        params: the network.
        content: `[H, W, 3]` for all, or `[N, H, W, 3]`.
        styles: as for `stylize`; an image may be `[N, h, w, 3]`.
        weights: each weight a number for all, or `[N]`.
        key: one random key for all, or N keys of `jax.random.split`.
        config: the static options.
        steps: number of gradient evaluations of each image over all scales.
        init: as for `stylize`; an image may be `[N, H, W, 3]`.
        blend: style weights, `[K]` for all or `[N, K]`.
        lanes: batch size, to limit memory; None for N.
        devices: devices that share the batch, of `jax.devices()`; None for one.

    Returns:
        Images `[N, H, W, 3]` and the history of every term, `[N, steps]`.

    Raises:
        InputError: if no argument has a leading axis, if leading axes differ or are empty, if `lanes` is below 1, or as
            `stylize` does.

    Example:
        >>> weights = LossWeights(tv=jnp.asarray([0.0, 5.0, 50.0]))
        >>> sweep(params, content, style, weights, steps=100).image.shape  # doctest: +SKIP
        (3, 384, 512, 3)
    """
    several = list(styles) if isinstance(styles, Sequence) else [styles]
    start = init if isinstance(init, str) else None
    image = None if isinstance(init, str) else init
    if lanes is not None and lanes < 1:
        raise InputError(f"lanes is {lanes}: use a batch size of at least 1, or None for all.")
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
        found = " and ".join(map(str, sorted(counts))) or "none"
        raise InputError(
            f"Batch axes have lengths {found}: give weights, key, content or styles a leading axis of one length."
        )
    count = counts.pop()
    if not count:
        raise InputError("The batch axis is empty: use at least one element.")
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
    """Run `stylize` on `shared` and each of `own`, in batches of `lanes`."""

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
    even = jnp.minimum(jnp.arange(count + -count % mesh.size), count - 1)  # repeat the last
    found = map_lanes(several, (params, shared), [leaf[even] for leaf in own], mesh=mesh)
    return jax.tree.map(lambda leaf: leaf[:count], found)


def memory_of(program: jax.stages.Compiled) -> int:
    """Return the memory of a compiled program: arguments, results and temporary arrays.

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
    """Return the batch size for `count` images: the largest that fits, made even over all batches, and at least 1.

    Args:
        memory: available memory in bytes.
        count: number of images.
        needed: maps a batch size to the memory of its program; called with `count`, and with 1 if that does not fit.

    Returns:
        The batch size.

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

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

from jaxstyle.distributed.sharding import BATCH, map_batch, mesh_of
from jaxstyle.errors import InputError, check_whole
from jaxstyle.losses.layer_summaries import AnyNetwork
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.targets import check_picture, check_styles, check_weights, listed
from jaxstyle.networks.vgg import VGG19, Params
from jaxstyle.optim.loop import AnyObjective
from jaxstyle.optim.optimizers import LBFGS, Optimizer, Transformation, as_optimizer
from jaxstyle.transfer.color import Color, Styles
from jaxstyle.transfer.scale import check_key
from jaxstyle.transfer.schedule import Scales
from jaxstyle.transfer.stylize import Result, stylize


def sweep(
    params: Params,
    content: jax.Array,
    styles: Styles,
    *,
    objective: AnyObjective = Objective(),
    network: AnyNetwork = VGG19(),
    optimizer: Optimizer | Transformation = LBFGS(),
    steps: int = 205,
    scales: Scales = None,
    init: str | jax.Array = "content",
    color: Color = "none",
    key: jax.Array | None = None,
    style_weights: jax.typing.ArrayLike | Sequence[float] | None = None,
    batch_size: int | None = None,
    devices: Sequence[Any] | None = None,
) -> Result:
    """Run `stylize` for a batch of N; arguments with a leading axis of length N differ between its images.

    Sets of layers are weights of zero, so that a grid over layer sets and ratios is one program: Gatys et al.,
    figure 3.

    Args:
        params: of the network.
        content: `[H, W, 3]` for all, or `[N, H, W, 3]`.
        styles: as for `stylize`; an image may be `[N, h, w, 3]`.
        objective: each weight a number for all, or `[N]`.
        network: as for `stylize`.
        optimizer: as for `stylize`; a learning rate may be `[N]`.
        steps: number of gradient evaluations of each image over all scales.
        scales: as for `stylize`.
        init: as for `stylize`; an image may be `[N, H, W, 3]`.
        color: as for `stylize`.
        key: one random key for all, or N keys of `jax.random.split`.
        style_weights: `[K]` for all or `[N, K]`.
        batch_size: number of images at a time, to limit memory; None for N.
        devices: devices that share the batch, of `jax.devices()`; None for one.

    Returns:
        Images `[N, H, W, 3]` and the history of every term, `[N, steps]`.

    Raises:
        InputError: if no argument has a leading axis, if leading axes differ or are empty, if `batch_size` is below 1,
            or as `stylize` does.

    Example:
        >>> objective = Objective(tv=jnp.asarray([0.0, 5.0, 50.0]))
        >>> sweep(params, content, style, objective=objective, steps=100).image.shape  # doctest: +SKIP
        (3, 384, 512, 3)
    """
    several = listed(styles)
    check_whole("steps", steps)  # before it is hashed
    if batch_size is not None:
        check_whole("batch_size", batch_size)
    check_key(key)
    if key is not None and not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # of jax.random.PRNGKey
        key = jax.random.wrap_key_data(key)
    content, several = check_picture("content", content, in_range=True), check_styles(several, ranks=(3, 4))
    start, image = (
        (init, None) if isinstance(init, str) else (None, check_picture("initial image", init, in_range=True))
    )
    check_weights(style_weights)
    shares = None if style_weights is None else jnp.asarray(style_weights, jnp.float32)
    inputs = (objective, as_optimizer(optimizer), content, several, key, image, shares)
    ranks = (0, 0, 3, 3, 0, 3, 1)
    pairs = [(leaf, rank) for part, rank in zip(inputs, ranks, strict=True) for leaf in jax.tree.leaves(part)]
    batched = [leaf if jnp.ndim(leaf) == rank + 1 else None for leaf, rank in pairs]
    shared = [leaf if of_image is None else None for (leaf, _), of_image in zip(pairs, batched, strict=True)]
    counts = {len(leaf) for leaf in batched if leaf is not None}
    if len(counts) != 1:
        lengths = " and ".join(map(str, sorted(counts))) or "none"
        raise InputError(
            f"Batch axes have lengths {lengths}: give weights, key, content or styles a leading axis of one length."
        )
    count = counts.pop()
    if not count:
        raise InputError("The batch axis is empty: use at least one element.")
    scales = tuple(scales) if isinstance(scales, list) else scales
    options = {"network": network, "steps": steps, "scales": scales, "color": color}
    return _sweep(
        params,
        batched,
        shared,
        structure=jax.tree.structure(inputs),
        start=start,
        options=tuple(options.items()),
        batch_size=min(batch_size or count, count),
        mesh=None if devices is None else mesh_of(devices, BATCH),
    )


@partial(jax.jit, static_argnames=("structure", "start", "options", "batch_size", "mesh"))
def _sweep(
    params: Params,
    batched: list[jax.Array | None],
    shared: list[jax.Array | None],
    *,
    structure: Any,
    start: str | None,
    options: tuple[tuple[str, Any], ...],
    batch_size: int,
    mesh: Mesh | None,
) -> Result:
    """Run `stylize` for each image, `batch_size` at a time; a leaf of the inputs is in `batched` or in `shared`."""

    def one(inputs: tuple[Params, list[Any]], batched: list[Any]) -> Result:
        params, shared = inputs
        leaves = [of_image if common is None else common for common, of_image in zip(shared, batched, strict=True)]
        objective, optimizer, content, styles, key, image, weights = jax.tree.unflatten(structure, leaves)
        others: Any = {"init": image if start is None else start, "key": key, "style_weights": weights} | dict(options)
        return stylize(params, content, styles, objective=objective, optimizer=optimizer, **others)

    def several(inputs: tuple[Params, list[Any]], batched: list[Any]) -> Result:
        each, count = partial(one, inputs), len(jax.tree.leaves(batched)[0])
        at_a_time = batch_size if mesh is None else -(-batch_size // mesh.size)
        return jax.vmap(each)(batched) if at_a_time >= count else jax.lax.map(each, batched, batch_size=at_a_time)

    if mesh is None:
        return several((params, shared), batched)
    count = len(jax.tree.leaves(batched)[0])
    even = jnp.minimum(jnp.arange(count + -count % mesh.size), count - 1)  # repeat the last
    result = map_batch(several, (params, shared), jax.tree.map(lambda leaf: leaf[even], batched), mesh=mesh)
    return jax.tree.map(lambda leaf: leaf[:count], result)


def memory_of(program: jax.stages.Compiled) -> int:
    """Return the bytes of arguments, results and temporary arrays of a program; 0 on backends without an analysis."""
    analysis: Any = program.memory_analysis()
    if analysis is None:
        return 0
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.argument_size_in_bytes + outputs + analysis.temp_size_in_bytes


def batch_size_within(memory: int, *, count: int, needed: Callable[[int], int]) -> int:
    """Return the batch size for `count` images: the largest that fits, made even over all batches, and at least 1.

    `memory` is in bytes; `needed` maps a batch size to the memory of its program. It is called with `count`, and with 1
    if that does not fit.
    """
    most = needed(count)
    if count == 1 or most <= memory:
        return count
    one = needed(1)
    fit = max(1, 1 + int((memory - one) * (count - 1) / max(1, most - one)))
    return -(-count // -(-count // fit))

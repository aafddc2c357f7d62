"""User-defined networks: their type, and their activations by name, each image by itself, checked."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from jaxstyle.errors import InputError, excerpt
from jaxstyle.networks.row_remat import Rows

Network = Callable[[Any, jax.Array], Mapping[str, jax.Array]]
"""Takes params, any pytree, and an image `[H, W, 3]`; returns activations `[h, w, C]` by name."""


def activations(
    network: Network,
    params: Any,
    image: jax.Array,
    *,
    layers: tuple[str, ...],
    read: Callable[[str, jax.Array, Rows | None], Any] | None,
) -> dict[str, Any]:
    """Return the activations that are asked for, or say what is wrong with them.

    Args:
        network: takes params and an image `[H, W, 3]`.
        params: the network's own, any pytree.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        layers: which activations.
        read: `summarize` of `vgg.evaluate_layers`; rows are always None.

    Returns:
        The activations by name, or what `read` returned of them.

    Raises:
        InputError: if the network returns no mapping, lacks a layer, or gives one without an axis of channels.

    Example:
        >>> found = activations(lambda _, x: {"all": x}, None, jnp.ones((2, 4, 4, 3)), layers=("all",), read=None)
        >>> found["all"].shape
        (2, 4, 4, 3)
    """
    function = partial(network, params)
    found = (jax.vmap(function) if image.ndim == 4 else function)(image)
    if not isinstance(found, Mapping):
        raise InputError(f"Your network returns {excerpt(type(found).__name__)}: return activations by their names.")
    if missing := [layer for layer in layers if layer not in found]:
        raise InputError(f"Your network has no layers {missing}: choose from {excerpt(', '.join(map(str, found)))}.")
    for layer in layers:
        if found[layer].ndim != image.ndim:
            raise InputError(
                f"Your network gives {layer!r} as an array {list(found[layer].shape)} of an image "
                f"{list(image.shape)}: return activations [h, w, C]."
            )
    return {layer: found[layer] if read is None else read(layer, found[layer], None) for layer in layers}

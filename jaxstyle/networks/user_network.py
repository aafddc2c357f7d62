"""User-defined networks: their type, and evaluation with checks."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from jaxstyle.errors import InputError, excerpt
from jaxstyle.networks.row_remat import Rows

Network = Callable[[Any, jax.Array], Mapping[str, jax.Array]]
"""Function of params, any pytree, and an image `[H, W, 3]` that returns activations `[h, w, C]` by name."""


def activations(
    network: Network,
    params: Any,
    image: jax.Array,
    *,
    layers: tuple[str, ...],
    read: Callable[[str, jax.Array, Rows | None], Any] | None,
) -> dict[str, Any]:
    """Return activations of a user-defined network, or summaries of them.

    Args:
        network: function of params and an image `[H, W, 3]`.
        params: parameters of the network, any pytree.
        image: `[H, W, 3]` or `[N, H, W, 3]`, in [0, 1].
        layers: names of layers.
        read: `summarize` of `vgg.evaluate_layers`; rows are always None.

    Returns:
        The activations or summaries by name.

    Raises:
        InputError: if the network does not return a mapping, lacks a layer, or returns one without a channel axis.

    Example:
        >>> found = activations(lambda _, x: {"all": x}, None, jnp.ones((2, 4, 4, 3)), layers=("all",), read=None)
        >>> found["all"].shape
        (2, 4, 4, 3)
    """
    function = partial(network, params)
    found = (jax.vmap(function) if image.ndim == 4 else function)(image)
    if not isinstance(found, Mapping):
        raise InputError(f"The network returns {excerpt(type(found).__name__)}: return activations by name.")
    if missing := [layer for layer in layers if layer not in found]:
        raise InputError(f"The network has no layers {missing}: choose from {excerpt(', '.join(map(str, found)))}.")
    for layer in layers:
        if found[layer].ndim != image.ndim:
            raise InputError(
                f"The network returns {layer!r} as an array {list(found[layer].shape)} for an image "
                f"{list(image.shape)}: return activations [h, w, C]."
            )
    return {layer: found[layer] if read is None else read(layer, found[layer], None) for layer in layers}

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
    summarize: Callable[[str, jax.Array, Rows | None], Any] | None,
) -> dict[str, Any]:
    """Return activations of a user-defined network by name, or summaries of them, as `vgg.evaluate_layers` does."""
    function = partial(network, params)
    found = (jax.vmap(function) if image.ndim == 4 else function)(image)
    if not isinstance(found, Mapping):
        raise InputError(f"The network returns {excerpt(type(found).__name__)}: return activations by name.")
    if missing := [layer for layer in layers if layer not in found]:
        raise InputError(f"The network has no layers {missing}: choose from {excerpt(', '.join(map(str, found)))}.")
    for layer in layers:
        if found[layer].ndim != image.ndim:
            shapes = f"an array {list(found[layer].shape)} for an image {list(image.shape)}"
            raise InputError(f"The network returns {layer!r} as {shapes}: return activations [h, w, C].")
    return {layer: found[layer] if summarize is None else summarize(layer, found[layer], None) for layer in layers}

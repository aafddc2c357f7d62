"""Activations of VGG-19 with the widths of its params."""

from collections.abc import Sequence
from typing import Any

from jaxstyle.networks.vgg import ACTIVATIONS, VGG19, evaluate_layers


def features(params: Any, image: Any, *, layers: Sequence[str] = ACTIVATIONS, **fields: Any) -> dict[str, Any]:
    """Return activations by name, of a network with the given fields."""
    return evaluate_layers(VGG19.from_params(params, **fields), params, image, layers=layers)

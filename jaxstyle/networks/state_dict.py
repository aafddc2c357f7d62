"""State dicts of PyTorch: recognizes the variants of VGG and converts VGG-19 and VGG-16 to this project's layout.

torchvision's names are `features.0.weight` (`[out, in, 3, 3]`) and `features.0.bias` (`[out]`), with the index of the
layer in `vgg19().features`. Any prefix (`module.features.`, `state_dict.vgg.`, none) is accepted, as long as the file
holds a single VGG.

torchvision's network expects RGB in [0, 1], normalized; `fold` converts its first layer to the preprocessing of `vgg`.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from jaxstyle.errors import InputError, excerpt
from jaxstyle.networks.vgg import CONV_LAYERS, MEAN_BGR, VGG16_LACKS

MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's ImageNet normalization
CURE = "give the weights of VGG-19, as weights/README.md tells."
KEY = re.compile(r"((?:.*\.)?)(\d+)\.(weight|bias)", re.DOTALL)
BLOCKS = {  # convolutions per block, arXiv:1409.1556, table 1
    "VGG-11": (1, 1, 2, 2, 2),
    "VGG-13": (2, 2, 2, 2, 2),
    "VGG-16": (2, 2, 3, 3, 3),
    "VGG-19": (2, 2, 4, 4, 4),
}


def _indices(blocks: Iterable[int], *, normalized: bool = False) -> tuple[int, ...]:
    indices, at = [], 0
    for count in blocks:
        for _ in range(count):
            indices.append(at)
            at += 3 if normalized else 2  # convolution, normalization, ReLU
        at += 1  # pooling
    return tuple(indices)


FEATURES = {name: _indices(BLOCKS[name]) for name in ("VGG-16", "VGG-19")}
LAYERS = {"VGG-16": tuple(name for name in CONV_LAYERS if name not in VGG16_LACKS), "VGG-19": CONV_LAYERS}
VARIANTS = {_indices(blocks): name for name, blocks in BLOCKS.items()} | {
    _indices(blocks, normalized=True): f"{name} with batch normalization" for name, blocks in BLOCKS.items()
}


def tensor_names(path: object, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, str]]:
    """Return the names of tensors: `{"conv1_1": {"kernel": "features.0.weight", "bias": "features.0.bias"}, ...}`."""
    convolutions = _convolutions(shapes)
    known = [prefix for prefix, indices in convolutions.items() if indices in VARIANTS]
    if len(known) > 1:
        some = " and ".join(excerpt(repr(prefix)) for prefix in known[:2])
        raise InputError(f"{path} holds {len(known)} VGG networks, such as under {some}: save a single one.")
    if known:
        prefix, indices = known[0], convolutions[known[0]]
        if (variant := VARIANTS[indices]) not in FEATURES:
            raise InputError(f"{path} is {variant} ({len(indices)} convolutions), which is not supported: {CURE}")
    else:  # another network: the message names a tensor that it lacks
        variant = "VGG-19"
        prefix = max(convolutions, key=lambda each: len(convolutions[each]), default="features.")
    names = {
        layer: {"kernel": f"{prefix}{index}.weight", "bias": f"{prefix}{index}.bias"}
        for layer, index in zip(LAYERS[variant], FEATURES[variant], strict=True)
    }
    ranks = {name: 4 if part == "kernel" else 1 for layer in names.values() for part, name in layer.items()}
    if wrong := [name for name, rank in ranks.items() if len(shapes.get(name, ())) != rank]:
        some = f"{len(wrong)} of {variant}'s {len(ranks)} tensors, such as {excerpt(wrong[0])}"
        raise InputError(f"{path} lacks {some}: {CURE}")
    return names


def _convolutions(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the indices of the convolutions with each prefix, in ascending order."""
    groups: dict[str, set[int]] = {}
    for name, shape in shapes.items():
        match = KEY.fullmatch(name)
        if match and match[3] == "weight" and len(shape) == 4 and len(match[2]) < 4:
            groups.setdefault(match[1], set()).add(int(match[2]))
    return {prefix: tuple(sorted(indices)) for prefix, indices in groups.items()}


def params_of(
    names: Mapping[str, Mapping[str, str]], arrays: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the params of `names`, with kernels `[out, in, height, width]` as `[height, width, in, out]`."""
    return {
        layer: {"kernel": np.transpose(arrays[pair["kernel"]], (2, 3, 1, 0)), "bias": arrays[pair["bias"]]}
        for layer, pair in names.items()
    }


def fold(kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Fold torchvision's normalization into conv1_1, which then expects BGR in 0..255 minus the mean color of `vgg`."""
    # Exact except for the outermost pixels: the zeros around the image mean torchvision's mean color there and that of
    # the original here, which differ by (0.00, 0.01, 0.01) standard deviations in R, G, B.
    if kernel.shape[2] != 3:
        raise InputError(f"The first kernel has {kernel.shape[2]} input channels, not the 3 of RGB: {CURE}")
    mean, std = np.array(MEAN_RGB), np.array(STD_RGB)
    shift = (np.array(MEAN_BGR[::-1]) / 255 - mean) / std  # the mean color of `vgg`, normalized as by torchvision
    scaled = (kernel / (255 * std[:, None]))[:, :, ::-1]
    shifted = bias + np.einsum("hwio,i->o", kernel, shift)
    return {"kernel": scaled.astype(np.float32), "bias": shifted.astype(np.float32)}

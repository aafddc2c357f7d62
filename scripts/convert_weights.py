"""Converts VGG-19's convolutions from Keras', Caffe's or torchvision's weights into the project's `vgg19.h5`.

    python scripts/convert_weights.py vgg19-d01eb7cb.pth --kind caffe --out weights/vgg19.h5

The kinds:

- keras: Keras' HDF5 file, with or without its fully connected layers.
- caffe: a PyTorch state dict of the original release, which sees BGR, 0..255, minus ImageNet's mean colour, as the
  network of this project does. Only the layout of the kernels changes.
- torchvision: a PyTorch state dict which sees RGB in [0, 1], normalised. Its mean and standard deviation are folded
  into conv1_1, so that the network sees the same images as the others.

The two kinds of state dict have the same keys and shapes, so the file cannot tell which it is.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from jaxstyle.errors import InputError, UnavailableError
from jaxstyle.networks import weights_io
from jaxstyle.networks.vgg import CONV_LAYERS, MEAN_BGR

Arrays = dict[str, dict[str, np.ndarray]]
FEATURES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)  # indices of torchvision's vgg19().features
MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's ImageNet normalisation
OXFORD = "CC BY, K. Simonyan and A. Zisserman, University of Oxford"
LICENCES = {"keras": OXFORD, "caffe": OXFORD, "torchvision": "BSD-3-Clause, torchvision"}


def convert(
    file: Annotated[Path, tyro.conf.Positional],
    /,
    kind: Literal["keras", "caffe", "torchvision"],
    out: Path = Path("weights/vgg19.h5"),
) -> None:
    """Convert VGG-19's weights into the project's file.

    Args:
        file: the weights to convert: .h5 of Keras, .pth of the other kinds.
        kind: whose weights they are, and so which images the network was trained to see.
        out: the file to write.
    """
    params = weights_io.read(file) if kind == "keras" else from_torch(file)
    if kind == "torchvision":
        params["conv1_1"] = fold(**params["conv1_1"])
    checksum = f"sha256:{weights_io.sha256(file)}"
    weights_io.write(out, params, source=f"{file.name} ({kind})", checksum=checksum, licence=LICENCES[kind])


def from_torch(file: Path) -> Arrays:
    """Read the convolutions of a PyTorch state dict with the keys `features.0.weight` to `features.34.bias`."""
    try:
        import torch
    except ImportError as error:
        raise UnavailableError(f"{file} takes PyTorch to read: run pip install torch.") from error
    if not file.is_file():
        raise InputError(f"{file} is not a file: give the path of a PyTorch state dict.")
    keys = [f"features.{index}.{part}" for index in FEATURES for part in ("weight", "bias")]
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        arrays = {key: state[key].detach().to(torch.float32).numpy() for key in keys if key in state}
    except Exception as error:  # from damaged bytes torch makes UnpicklingError, EOFError, RuntimeError and others
        raise InputError(f"{file} is no readable PyTorch state dict: save the model's state_dict() alone.") from error
    wrong = [key for key in keys if key not in arrays or arrays[key].ndim != (4 if key.endswith("weight") else 1)]
    if wrong:
        raise InputError(
            f"{file} lacks {len(wrong)} of {len(keys)} tensors, such as {wrong[0]}: give VGG-19's weights."
        )
    return {
        name: {
            "kernel": np.transpose(arrays[f"features.{index}.weight"], (2, 3, 1, 0)),  # OIHW to HWIO
            "bias": arrays[f"features.{index}.bias"],
        }
        for name, index in zip(CONV_LAYERS, FEATURES, strict=True)
    }


def fold(kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Fold torchvision's normalisation into conv1_1, so that it sees BGR, 0..255, minus the mean colour.

    Exact but for the outermost pixels: the zeros around the image mean torchvision's mean colour there and the
    original's here, which differ by (0.00, 0.01, 0.01) standard deviations in R, G, B.

    Args:
        kernel: torchvision's, `[3, 3, 3, out]`, for RGB.
        bias: `[out]`.

    Returns:
        The kernel, for BGR, and the bias.

    Raises:
        InputError: if the kernel does not take three channels.
    """
    if kernel.shape[2] != 3:
        raise InputError(f"The first kernel takes {kernel.shape[2]} channels, not the 3 of RGB: give VGG-19's weights.")
    mean, std = np.array(MEAN_RGB), np.array(STD_RGB)
    shift = (np.array(MEAN_BGR[::-1]) / 255 - mean) / std  # what a pixel of our mean colour is to torchvision
    scaled = (kernel / (255 * std[:, None]))[:, :, ::-1]
    shifted = bias + np.einsum("hwio,i->o", kernel, shift)
    return {"kernel": scaled.astype(np.float32), "bias": shifted.astype(np.float32)}


if __name__ == "__main__":
    try:
        tyro.cli(convert)
    except (InputError, UnavailableError) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)

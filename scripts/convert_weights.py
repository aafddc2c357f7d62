"""Converts the convolutions of VGG-19 or VGG-16 from weights of Keras, Caffe or torchvision into the project's layout.

    python scripts/convert_weights.py vgg19-d01eb7cb.pth --kind caffe --out weights/vgg19.h5

The kinds:

- keras: the HDF5 file of Keras, with or without its fully connected layers.
- caffe: a PyTorch state dict of the original release, which expects BGR in 0..255 minus the mean color of ImageNet, as
  the network of this project does. Only the layout of the kernels changes.
- torchvision: a PyTorch state dict which expects RGB in [0, 1], normalized. Its mean and standard deviation are folded
  into conv1_1, so that the network expects the same images as the others.

The two kinds of state dict have the same keys and shapes, so the file does not reveal its kind. Either is a `.pth`
file, which requires PyTorch, or a `.safetensors` file. The names may have any prefix, and the state dict may be part of
a checkpoint.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxstyle.errors import InputError, UnavailableError, excerpt, read_error
from jaxstyle.files import sha256
from jaxstyle.networks import safetensors_io, state_dict, weights_io

Arrays = dict[str, dict[str, np.ndarray]]
OXFORD = "CC BY, K. Simonyan and A. Zisserman, University of Oxford"
LICENCES = {"keras": OXFORD, "caffe": OXFORD, "torchvision": "BSD-3-Clause, torchvision"}
CURE = "save the model's state_dict() alone with torch.save."
MAX_DEPTH = 8  # levels of nesting in a checkpoint
CODE = ("GLOBAL ", "TorchScript")  # in torch's messages
NO_MEMORY = ("can't allocate memory", "not enough memory")  # in torch's RuntimeError


def convert(
    file: Annotated[Path, tyro.conf.Positional],
    /,
    kind: Literal["keras", "caffe", "torchvision"],
    out: Path | None = None,
) -> None:
    """Convert the weights of VGG-19 into the project's file.

    Args:
        file: the weights to convert: .h5 of Keras, .pth or .safetensors of the other kinds.
        kind: origin of the weights, which determines the images that the network expects.
        out: the file to write; by default weights/vgg19.h5, or weights/vgg16.h5 for VGG-16.
    """
    if kind == "keras":
        params = weights_io.read(file)
    elif file.suffix.lower() == safetensors_io.SUFFIX:
        params = weights_io.read_safetensors(file)
    else:
        params = from_torch(file)
    if kind == "torchvision":
        params["conv1_1"] = state_dict.fold(**params["conv1_1"])
    if out is None:
        out = Path("weights", "vgg19.h5" if "conv3_4" in params else "vgg16.h5")
    checksum = f"sha256:{sha256(file)}"
    weights_io.write(out, params, source=f"{file.name} ({kind})", checksum=checksum, licence=LICENCES[kind])


def from_torch(file: Path) -> Arrays:
    """Read the convolutions of a PyTorch state dict, of any prefix and nesting; no code of the file is executed."""
    try:
        import torch
    except ImportError as error:
        raise UnavailableError(f"{file} requires PyTorch to be read: run pip install torch.") from error
    if not file.is_file():
        raise InputError(f"{file} is not a file: give the path of a PyTorch state dict.")
    try:
        tensors = tensors_of(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # for damaged bytes torch raises UnpicklingError, EOFError, RuntimeError and others
        raise refusal(file, error) from error
    names = state_dict.tensor_names(file, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    arrays = {name: array(file, name, tensors[name]) for layer in names.values() for name in layer.values()}
    return state_dict.params_of(names, arrays)


def tensors_of(state: object) -> dict[str, Any]:
    """Return the tensors of nested mappings by their dotted names; objects without a shape are ignored."""
    tensors: dict[str, Any] = {}

    def visit(prefix: str, node: object, depth: int) -> None:
        if isinstance(node, Mapping) and depth < MAX_DEPTH:
            for name, child in node.items():
                visit(f"{prefix}.{name}" if prefix else str(name), child, depth + 1)
        elif hasattr(node, "shape"):
            tensors[prefix] = node

    visit("", state, 0)
    return tensors


def array(file: Path, name: str, tensor: Any) -> np.ndarray:
    """Return a tensor of PyTorch as a float32 array."""
    if not tensor.is_floating_point():
        raise InputError(
            f"{file} has {excerpt(name)} as {tensor.dtype}, such as a quantized model: give one of floats."
        )
    try:
        return tensor.detach().float().numpy()
    except Exception as error:  # such as for sparse tensors
        raise refusal(file, error, about=f"{excerpt(name)} of {file}") from error


def refusal(file: Path, error: Exception, *, about: str = "") -> InputError | UnavailableError:
    """Return the error to show if PyTorch could not read a file."""
    if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY):
        error = MemoryError()
    if (fault := read_error(file, error)) is not None:
        return fault
    if any(word in str(error) for word in CODE):
        return InputError(f"{file} contains Python code, such as a whole model, which is not executed: {CURE}")
    return InputError(f"{about or file} is no readable PyTorch state dict: {CURE}")


if __name__ == "__main__":
    try:
        tyro.cli(convert)
    except (InputError, UnavailableError) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)

"""The objective of neural-style-pt in plain PyTorch, as its users would write it: what `benchmark.py` measures against.

Shares no code with jaxstyle: kernels and pictures come in as NumPy arrays.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CONTENT, STYLE = "relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT = 5.0, 100.0, 1e-3
MEAN_BGR = (103.939, 116.779, 123.68)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def to_torch(picture: np.ndarray) -> torch.Tensor:
    """Return `[H, W, 3]` in [0, 1] as the network's input, `[1, 3, H, W]`: BGR of 0..255 less its mean."""
    mean = torch.tensor(MEAN_BGR).reshape(1, 3, 1, 1)
    x = 255 * torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None].flip(1) - mean
    layout = torch.channels_last if DEVICE == "cuda" else torch.contiguous_format
    return x.to(DEVICE).contiguous(memory_format=layout)


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """Return `[H, W, 3]` in [0, 1], clipped."""
    mean = torch.tensor(MEAN_BGR).reshape(1, 3, 1, 1)
    return ((x.detach().cpu() + mean).flip(1)[0].permute(1, 2, 0) / 255).clamp(0, 1).numpy()


class Objective(nn.Module):
    """Content, style and total variation of an image, to be minimised."""

    def __init__(
        self,
        params: Mapping[str, Mapping[str, Any]],
        content: np.ndarray,
        style: np.ndarray,
        *,
        precision: str = "float32",
    ) -> None:
        """Take the kernels `[3, 3, in, out]` of each layer up to the deepest one compared, and both pictures."""
        super().__init__()
        self.rounded = precision == "bfloat16"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.layers = nn.ModuleDict()
        for name, layer in params.items():
            kernel = torch.tensor(np.asarray(layer["kernel"])).permute(3, 2, 0, 1).contiguous()
            conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
            conv.weight, conv.bias = nn.Parameter(kernel), nn.Parameter(torch.tensor(np.asarray(layer["bias"])))
            self.layers[name] = conv.requires_grad_(False)
            if name == "conv5_1":
                break
        self.to(device=DEVICE)
        if DEVICE == "cuda":
            self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        with torch.no_grad():
            with torch.autocast(DEVICE, torch.bfloat16, enabled=self.rounded):
                self.content = self.features(to_torch(content))[CONTENT]
                activations = self.features(to_torch(style))
            self.grams = {name: self.gram(activations[name]) for name in STYLE}

    def features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the activations that are compared."""
        activations = {}
        for name, conv in self.layers.items():
            if name.endswith("_1") and name != "conv1_1":
                x = functional.max_pool2d(x, 2)
            x = functional.relu(conv(x), inplace=True)
            if (relu := f"relu{name[4:]}") in (CONTENT, *STYLE):
                activations[relu] = x
        return activations

    @staticmethod
    def gram(x: torch.Tensor) -> torch.Tensor:
        """Return the Gram matrix over the number of elements."""
        rows = x.flatten(2)[0].float()
        with torch.autocast(DEVICE, enabled=False):  # sums over pixels overflow eight bits
            return rows @ rows.T / x.numel()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the objective of the image `x`, as `to_torch` makes them."""
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.rounded):
            return self.objective(x)

    def objective(self, x: torch.Tensor) -> torch.Tensor:
        """Return the objective in whatever precision is set."""
        activations = self.features(x)
        loss = CONTENT_WEIGHT * functional.mse_loss(activations[CONTENT].float(), self.content.float())
        for name in STYLE:
            loss = loss + STYLE_WEIGHT * functional.mse_loss(self.gram(activations[name]), self.grams[name])
        rows, columns = x[:, :, 1:] - x[:, :, :-1], x[..., 1:] - x[..., :-1]
        return loss + TV_WEIGHT * (rows.abs().sum() + columns.abs().sum())


class Adam:
    """Steps of adam on an image."""

    def __init__(self, objective: nn.Module, picture: np.ndarray) -> None:
        """Start from a picture."""
        self.objective, self.image = objective, to_torch(picture).requires_grad_()
        self.optimizer = torch.optim.Adam([self.image], lr=1.0)

    def run(self, steps: int) -> float:
        """Take some steps and return the objective before the last."""
        loss = torch.zeros(())
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = self.objective(self.image)
            loss.backward()
            self.optimizer.step()
        return loss.item()  # waits for the device


def solve(objective: Objective, picture: np.ndarray, *, steps: int, every: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yield neural-style-pt's pictures after every so many evaluations of lbfgs, and the seconds until then."""
    image = to_torch(picture).requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=steps, tolerance_grad=-1, tolerance_change=-1, history_size=100)
    saved: list[tuple[float, np.ndarray]] = []
    count, began = 0, time.perf_counter()

    def evaluate() -> torch.Tensor:
        nonlocal count
        optimizer.zero_grad()
        loss = objective(image)
        loss.backward()
        count += 1
        if count % every == 0:
            saved.append((time.perf_counter() - began, to_numpy(image)))
        return loss

    optimizer.step(evaluate)
    yield from saved

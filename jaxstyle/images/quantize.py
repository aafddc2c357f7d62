"""Conversion of float images to integers, a chunk of rows at a time."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Levels(NamedTuple):
    """An image whose values are clipped and rounded on access.

    Attributes:
        rgb: `[H, W, 3]`, sRGB in [0, 1].
        alpha: `[H, W]` in [0, 1], None for an opaque image.
        bits: 8 or 16.
        on_white: whether to composite on white, for files without alpha.
    """

    rgb: NDArray[Any]
    alpha: NDArray[Any] | None = None
    bits: int = 8
    on_white: bool = False

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.rgb.shape[0]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.rgb.shape[1]

    @property
    def channels(self) -> int:
        """3, or 4 with alpha."""
        return 3 if self.alpha is None or self.on_white else 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the integers."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    def floats(self, top: int, end: int) -> NDArray[np.float32]:
        """Return rows before rounding, float32 `[rows, W, channels]` in [0, 1] or NaN."""
        rgb = np.clip(np.asarray(self.rgb[top:end], np.float32), 0, 1)
        if self.alpha is None:
            return rgb
        opacity = np.clip(np.asarray(self.alpha[top:end], np.float32), 0, 1)[..., None]
        return rgb * opacity + 1 - opacity if self.on_white else np.concatenate([rgb, opacity], -1)

    def integers(self, top: int, end: int) -> NDArray[Any]:
        """Return rows of the file, `[rows, W, channels]`."""
        values = self.floats(top, end)
        values *= 2**self.bits - 1
        return np.rint(values, out=values).astype(self.dtype)

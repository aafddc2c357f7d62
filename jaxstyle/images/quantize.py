"""Float pictures as the integers of a file, a band of rows at a time."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Levels(NamedTuple):
    """A picture whose values are clipped and rounded where they are asked for.

    Attributes:
        rgb: `[H, W, 3]`, sRGB in [0, 1].
        alpha: `[H, W]` in [0, 1], None where all is opaque.
        bits: 8 or 16.
        on_white: whether transparency shows white, for files that do not carry it.
    """

    rgb: NDArray[Any]
    alpha: NDArray[Any] | None = None
    bits: int = 8
    on_white: bool = False

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self.rgb.shape[0]

    @property
    def width(self) -> int:
        """Pixels of a row."""
        return self.rgb.shape[1]

    @property
    def channels(self) -> int:
        """3, or 4 with opacity."""
        return 3 if self.alpha is None or self.on_white else 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the integers."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    def floats(self, top: int, end: int) -> NDArray[np.float32]:
        """Return rows as they are before they are rounded, float32 `[rows, W, channels]` in [0, 1] or NaN."""
        rgb = np.clip(np.asarray(self.rgb[top:end], np.float32), 0, 1)
        if self.alpha is None:
            return rgb
        opacity = np.clip(np.asarray(self.alpha[top:end], np.float32), 0, 1)[..., None]
        return rgb * opacity + 1 - opacity if self.on_white else np.concatenate([rgb, opacity], -1)

    def integers(self, top: int, end: int) -> NDArray[Any]:
        """Return rows as the file has them, `[rows, W, channels]`."""
        values = self.floats(top, end)
        values *= 2**self.bits - 1
        return np.rint(values, out=values).astype(self.dtype)

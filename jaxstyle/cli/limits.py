"""The option for the maximum size of images, shared by all commands that read or write images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from jaxstyle.errors import InputError, excerpt

UNITS = {"": 1, "MP": 1e6, "GP": 1e9}
LEAST, MOST = 10**6, 4 * 10**9  # pixels; the latter is `limits.MOST_PIXELS`


@dataclass(frozen=True)
class Limits:
    """Limits."""

    max_pixels: Annotated[str | None, arg(metavar="NUMBER", help_behavior_hint="(default: 89MP)")] = None
    """Maximum number of pixels of an image that is read or made, such as 500MP. Protects from malicious files."""

    def pixels(self) -> int | None:
        """Return the maximum number of pixels of an image, None for Pillow's limit."""
        if self.max_pixels is None:
            return None
        digits = self.max_pixels.rstrip("MGP ")
        try:
            count = float(digits) * UNITS[self.max_pixels[len(digits) :].strip()]
        except (ValueError, KeyError):
            count = math.nan
        if not LEAST <= count <= MOST:
            raise InputError(
                f"--max-pixels is {excerpt(repr(self.max_pixels))}: use a number of pixels from 1MP to 4GP, "
                "such as 500MP."
            )
        return int(count)

"""In whose colours content and styles are compared: what `color` offers, for all styles of a run at once."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax

from jaxstyle import color
from jaxstyle.compiled import compiled
from jaxstyle.config import Config
from jaxstyle.errors import InputError
from jaxstyle.statistic import Summary
from jaxstyle.targets import Style

Sizes = Mapping[int, Mapping[str, Summary]]  # a style's statistics at several sizes, by its longest side in pixels
Styles = Style | Sizes | Sequence[Style | Sizes]


def recolor(content: jax.Array, styles: Styles, *, config: Config) -> tuple[jax.Array, list[Style | Sizes]]:
    """Return content and styles in the colours in which they are compared.

    Args:
        content: `[H, W, 3]` or, where colours are not those of the files, `[N, H, W, 3]`.
        styles: as `transfer.stylize` takes them.
        config: its `color` counts.

    Returns:
        The content and the styles as a list.

    Raises:
        InputError: if there is no style, or if colours are to change and a style has no picture or the content is a
            batch.

    Example:
        >>> len(recolor(jnp.zeros((8, 8, 3)), jnp.ones((8, 8, 3)), config=Config())[1])
        1
    """
    several = list(styles) if isinstance(styles, Sequence) else [styles]
    if not several:
        raise InputError("There is no style: pass a picture, or a sequence of at least one.")
    if config.color == "none":
        return content, several
    if any(isinstance(style, Mapping) for style in several):
        raise InputError(f"Saved statistics have no colours to change by {config.color!r}: pass the style's picture.")
    if content.ndim != 3:
        raise InputError(f"Colours are changed by {config.color!r} for one content at a time: use jax.vmap.")
    pictures: Any = several
    recolored: Any = _recolor(content, pictures, change=config.color)
    return recolored


@compiled("change")
def _recolor(content: jax.Array, styles: list[Style], *, change: str) -> tuple[jax.Array, list[Style]]:
    """Return content and styles after a change of colours, by one program."""
    function = {
        "keep": color.match_luminance,
        "match": color.match,
        "match-cholesky": partial(color.match, form="cholesky"),
        "histogram": color.match_histogram,
    }[change]
    recolored: list[Style] = [function(style, content) for style in styles]
    return color.luminance(content) if change == "keep" else content, recolored

"""Neural style transfer by optimisation (Gatys et al., arXiv:1508.06576) as a functional JAX program.

Images are float32 sRGB in [0, 1], channels last: `[H, W, 3]` or `[N, H, W, 3]`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxstyle import color, image, parametrize, presets, regions, statistics_file, sweep
    from jaxstyle.compile_cache import enable_compile_cache
    from jaxstyle.config import Config, LossWeights
    from jaxstyle.objective import terms, total
    from jaxstyle.optimize import init, run
    from jaxstyle.own import Parametrization
    from jaxstyle.pretrained import load_params
    from jaxstyle.targets import make_targets, summarize_style
    from jaxstyle.transfer import reconstruct, stylize, texture
    from jaxstyle.vgg import features

__version__ = "0.1.0"

__all__ = [
    "Config",
    "LossWeights",
    "Parametrization",
    "color",
    "enable_compile_cache",
    "features",
    "image",
    "init",
    "load_params",
    "make_targets",
    "parametrize",
    "presets",
    "reconstruct",
    "regions",
    "run",
    "statistics_file",
    "stylize",
    "summarize_style",
    "sweep",
    "terms",
    "texture",
    "total",
]

_HOMES = {
    "Config": "config",
    "LossWeights": "config",
    "Parametrization": "own",
    "enable_compile_cache": "compile_cache",
    "features": "vgg",
    "init": "optimize",
    "load_params": "pretrained",
    "make_targets": "targets",
    "reconstruct": "transfer",
    "run": "optimize",
    "stylize": "transfer",
    "summarize_style": "targets",
    "terms": "objective",
    "texture": "transfer",
    "total": "objective",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562), so that `import jaxstyle` loads no jax."""
    if name in ("color", "image", "parametrize", "presets", "regions", "statistics_file", "sweep"):
        return import_module(f"jaxstyle.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxstyle' has no attribute {name!r}")
    return getattr(import_module(f"jaxstyle.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

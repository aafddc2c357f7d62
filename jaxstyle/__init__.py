"""Neural style transfer by optimization (Gatys et al., arXiv:1508.06576) as a functional JAX program.

Images are float32 sRGB in [0, 1], channels last: `[H, W, 3]` or `[N, H, W, 3]`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxstyle.images.load import load_image
    from jaxstyle.images.save import save_image
    from jaxstyle.losses import masks, statistics_io
    from jaxstyle.losses.loss_terms import objective_value, terms, total
    from jaxstyle.losses.objective import Objective
    from jaxstyle.losses.targets import make_targets, summarize_style
    from jaxstyle.networks.pretrained import load_params
    from jaxstyle.networks.vgg import VGG19
    from jaxstyle.optim import parametrizations
    from jaxstyle.optim.loop import init_state, run_steps
    from jaxstyle.optim.optimizers import LBFGS, Adam, Optax, Parametrization
    from jaxstyle.runtime.compile_cache import enable_compile_cache
    from jaxstyle.transfer import color, presets
    from jaxstyle.transfer.stylize import reconstruct, stylize, texture
    from jaxstyle.transfer.sweep import sweep

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "LBFGS",
    "Objective",
    "Optax",
    "Parametrization",
    "VGG19",
    "color",
    "enable_compile_cache",
    "init_state",
    "load_image",
    "load_params",
    "make_targets",
    "masks",
    "objective_value",
    "parametrizations",
    "presets",
    "reconstruct",
    "run_steps",
    "save_image",
    "statistics_io",
    "stylize",
    "summarize_style",
    "sweep",
    "terms",
    "texture",
    "total",
]

_MODULES = ("losses.masks", "losses.statistics_io", "optim.parametrizations", "transfer.color", "transfer.presets")
_NAMES = {
    "images.load": ["load_image"],
    "images.save": ["save_image"],
    "losses.loss_terms": ["objective_value", "terms", "total"],
    "losses.objective": ["Objective"],
    "losses.targets": ["make_targets", "summarize_style"],
    "networks.pretrained": ["load_params"],
    "networks.vgg": ["VGG19"],
    "optim.loop": ["init_state", "run_steps"],
    "optim.optimizers": ["LBFGS", "Adam", "Optax", "Parametrization"],
    "runtime.compile_cache": ["enable_compile_cache"],
    "transfer.stylize": ["reconstruct", "stylize", "texture"],
    "transfer.sweep": ["sweep"],
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access (PEP 562), so that `import jaxstyle` does not load jax."""
    for module in _MODULES:
        if module.endswith(f".{name}"):
            return import_module(f"jaxstyle.{module}")
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"jaxstyle.{module}"), name)
    raise AttributeError(f"module 'jaxstyle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Neural style transfer by optimization (Gatys et al., arXiv:1508.06576) as a functional JAX program.

Images are float32 sRGB in [0, 1], channels last: `[H, W, 3]` or `[N, H, W, 3]`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

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
_HOMES = {module.rpartition(".")[2]: module for module in _MODULES}
_HOMES |= {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - the stub is for type checkers


def __getattr__(name: str) -> Any:
    """Import a public name on first access (PEP 562), so that `import jaxstyle` does not load jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxstyle' has no attribute {name!r}")
    module = import_module(f"jaxstyle.{_HOMES[name]}")
    return module if _HOMES[name] in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

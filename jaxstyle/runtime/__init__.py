"""The host loop around the numerical program, for the command line and Python users.

Nothing here prints, parses arguments or handles signals: runs send events to callbacks. Read in this order:

- `problem`: `Problem`, the arrays and options of one run, and the compiled program of each scale. `memory` decides on
  row chunks and tiles, `placement` on devices, and `estimates` predicts time and memory.
- `runner`: `iterate` yields a `Snapshot` after every few steps. `fitting`: `fit` runs all steps of a problem, with
  `callbacks`, checkpoints (`checkpoint`, `checkpoint_folder`) and `should_stop`.
- `options` and `outputs`: the options of the command line. `inputs` loads files; `run` saves the picture with its
  `record`, which `rerun` repeats. `batch` and `sweep_grid`, `sweep_job`, `sweep_report` make many pictures.
- `style_cache` caches style statistics, `compile_cache` and `executable_cache` compiled programs. `backends` checks
  JAX's backends.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "callbacks": ["Callback", "Event", "never"],
    "checkpoint": ["CheckpointStore"],
    "estimates": ["Estimate", "MemoryPlan", "estimate", "plan_memory"],
    "fitting": ["Result", "fit"],
    "inputs": ["load_network"],
    "options": ["StylizeOptions"],
    "outputs": ["OutputOptions"],
    "problem": ["Problem", "make_problem"],
    "run": ["stylize_files"],
    "runner": ["Snapshot", "iterate"],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - the stub is for type checkers


def __getattr__(name: str) -> Any:
    """Import a public name on first access (PEP 562), so that `import jaxstyle.runtime` does not load jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxstyle.runtime' has no attribute {name!r}")
    return getattr(import_module(f"jaxstyle.runtime.{_HOMES[name]}"), name)

"""The host loop around the numerical program, for the command line, the web page and Python users.

Nothing here prints, parses arguments or handles signals: runs send events to callbacks. Read in this order:

- `problem`: `Problem`, the arrays and options of one run, and the compiled program of each scale. `memory` decides on
  row chunks and tiles, `placement` on devices, and `estimates` predicts time and memory.
- `runner`: `iterate` yields a `Snapshot` after every few steps. `fitting`: `fit` runs a problem to its end, with
  `callbacks`, checkpoints (`resume`, `checkpoint`, `checkpoint_folder`) and early ends.
- `options` and `outputs`: options as on the command line. `inputs` loads files; `run` saves the picture with its
  `record`, which `rerun` repeats. `batch` and `sweep_grid`, `sweep_job`, `sweep_report` make many pictures.
- `style_cache` caches style statistics, and `compile_cache` compiled programs. `backends` checks those of JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxstyle.runtime.callbacks import Callback, Event, never
    from jaxstyle.runtime.checkpoint import CheckpointStore
    from jaxstyle.runtime.estimates import Estimate, MemoryPlan, estimate, plan_memory
    from jaxstyle.runtime.fitting import Result, fit
    from jaxstyle.runtime.inputs import load_network
    from jaxstyle.runtime.options import StylizeOptions
    from jaxstyle.runtime.outputs import OutputOptions
    from jaxstyle.runtime.problem import Problem, make_problem
    from jaxstyle.runtime.run import stylize_files
    from jaxstyle.runtime.runner import Snapshot, iterate

__all__ = [
    "Callback",
    "CheckpointStore",
    "Estimate",
    "Event",
    "MemoryPlan",
    "OutputOptions",
    "Problem",
    "Result",
    "Snapshot",
    "StylizeOptions",
    "estimate",
    "fit",
    "iterate",
    "load_network",
    "make_problem",
    "never",
    "plan_memory",
    "stylize_files",
]
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


def __getattr__(name: str) -> Any:
    """Import a public name on first access (PEP 562), so that `import jaxstyle.runtime` does not load jax."""
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"jaxstyle.runtime.{module}"), name)
    raise AttributeError(f"module 'jaxstyle.runtime' has no attribute {name!r}")

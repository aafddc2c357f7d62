"""The host loop around the numerical program, for the command line, the web page and Python users.

Nothing here prints, parses arguments or handles signals: runs send events to callbacks. Read in this order:

- `problem`: `Problem`, the arrays and options of one run, and the compiled program of each scale; `make_problem`.
- `runner`: `iterate` yields a `Snapshot` after every few steps. `fitting`: `fit` runs a problem to its end, with
  callbacks (`callbacks`: `Event`, `Callback`), checkpoints and early ends.
- `memory` decides on row chunks and tiles, `placement` on devices; `estimates`: `estimate` and
  `plan_memory`.
- `resume` saves the snapshots of a run; `checkpoint` (`CheckpointStore`) writes and reads arrays in a folder that
  `checkpoint_folder` checks and locks.
- `options`: options of a run as on the command line; `inputs` loads its files; `run`: `stylize_files` and other runs
  from files to a file, with `outputs` and a `record` (JSON by way of `plain_data`), which `rerun` repeats.
- `sweep_grid`, `sweep_job` and `sweep_report`: combinations of settings, their computation in batches, and the page
  that shows them. `batch`: pictures of many contents and styles.
- `style_cache` caches style statistics, and `compile_cache` compiled programs.
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

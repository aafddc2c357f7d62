from jaxstyle.runtime.callbacks import Callback as Callback, Event as Event, never as never
from jaxstyle.runtime.checkpoint import CheckpointStore as CheckpointStore
from jaxstyle.runtime.estimates import (
    Estimate as Estimate,
    MemoryPlan as MemoryPlan,
    estimate as estimate,
    plan_memory as plan_memory,
)
from jaxstyle.runtime.fitting import Result as Result, fit as fit
from jaxstyle.runtime.inputs import load_network as load_network
from jaxstyle.runtime.options import StylizeOptions as StylizeOptions
from jaxstyle.runtime.outputs import OutputOptions as OutputOptions
from jaxstyle.runtime.problem import Problem as Problem, make_problem as make_problem
from jaxstyle.runtime.run import stylize_files as stylize_files
from jaxstyle.runtime.runner import Snapshot as Snapshot, iterate as iterate

__all__: list[str]

"""A sweep from spec to results: prepare, create, drive."""

from hpc_sweep.sweep.execution import UNIT_SECONDS, Outcome, execute, look_where_this_runs, run
from hpc_sweep.sweep.looping import loop_on_cluster, told_of_its_end
from hpc_sweep.sweep.performance import DaskReport

__all__ = [
    "UNIT_SECONDS",
    "DaskReport",
    "Outcome",
    "execute",
    "look_where_this_runs",
    "loop_on_cluster",
    "run",
    "told_of_its_end",
]

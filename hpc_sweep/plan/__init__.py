"""How a sweep is cut: pure arithmetic, pure data."""

from hpc_sweep.plan.pace import RECENT_PER_WORKER, Pace
from hpc_sweep.plan.plan import BASELINE_BYTES, BATCH_BYTES, UNITS_PER_WORKER, Plan, make_plan
from hpc_sweep.plan.sizes import format_bytes
from hpc_sweep.plan.units import WHOLE, Chunk, Share, Unit
from hpc_sweep.plan.workload import Workload

__all__ = [
    "BASELINE_BYTES",
    "BATCH_BYTES",
    "RECENT_PER_WORKER",
    "UNITS_PER_WORKER",
    "WHOLE",
    "Chunk",
    "Pace",
    "Plan",
    "Share",
    "Unit",
    "Workload",
    "format_bytes",
    "make_plan",
]

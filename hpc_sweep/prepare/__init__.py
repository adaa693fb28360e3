"""Before a sweep: checks, the plan, and the store that it begins with."""

from __future__ import annotations

from hpc_sweep.prepare.beginning import (
    begin,
    changes_output,
    check_versions,
    create,
    group_of,
    moves_data,
    rank_anew,
    with_memory,
)
from hpc_sweep.prepare.prepared import Prepared, load, prepare
from hpc_sweep.prepare.rechunking import PeersWay, Rechunked

__all__ = [
    "PeersWay",
    "Prepared",
    "Rechunked",
    "begin",
    "changes_output",
    "check_versions",
    "create",
    "group_of",
    "load",
    "moves_data",
    "prepare",
    "rank_anew",
    "with_memory",
]

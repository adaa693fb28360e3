"""A sweep from spec to results: prepare, create, drive."""

from hpc_sweep.sweep.execution import Outcome, execute, run

__all__ = ["Outcome", "execute", "run"]

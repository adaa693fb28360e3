"""Reports: what a store says, as a page that people look at."""

from hpc_sweep.reporting.reporting import report, write_figures

__all__ = ["report", "write_figures"]

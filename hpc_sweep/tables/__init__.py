"""Tables of opened results; importing this makes ``ds.sweep`` known to xarray."""

from hpc_sweep.tables.accessor import SweepAccessor
from hpc_sweep.tables.best import best_frame, best_table
from hpc_sweep.tables.failures import failures_table
from hpc_sweep.tables.opened import Results
from hpc_sweep.tables.ranking import candidates_table, models_table
from hpc_sweep.tables.writing import (
    records,
    settings_text,
    write_csv,
    write_json,
    write_latex,
    write_parquet,
)

__all__ = [
    "Results",
    "SweepAccessor",
    "best_frame",
    "best_table",
    "candidates_table",
    "failures_table",
    "models_table",
    "records",
    "settings_text",
    "write_csv",
    "write_json",
    "write_latex",
    "write_parquet",
]

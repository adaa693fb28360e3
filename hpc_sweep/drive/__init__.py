"""The driver: hands out units, and looks after workers, deaths, folds."""

from hpc_sweep.drive.drive import Drive, Tasks
from hpc_sweep.drive.progress import Progress
from hpc_sweep.drive.record import Record

__all__ = ["Drive", "Progress", "Record", "Tasks"]

"""The driver: hands out units, and looks after workers, deaths, folds."""

from hpc_sweep.drive.drive import Drive
from hpc_sweep.drive.performance import begin_recording, recorded, rendered
from hpc_sweep.drive.progress import Progress, Speed
from hpc_sweep.drive.protocols import Tasks
from hpc_sweep.drive.record import Record
from hpc_sweep.drive.roster import Roster

__all__ = [
    "Drive",
    "Progress",
    "Record",
    "Roster",
    "Speed",
    "Tasks",
    "begin_recording",
    "recorded",
    "rendered",
]

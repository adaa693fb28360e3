"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """How far a run is.

    Attributes
    ----------
    cells, cells_done, cells_this_run : int
        (partition, candidate) pairs: all, finished, and finished in this run.
    fits : int
        Fits of this run.
    failed : int
        Cells that failed in this run.
    workers : int
        Workers at present.
    units, in_flight : int
        Units finished in this run, and handed out.
    seconds : float
        Since the first worker came.
    note : str
        What the driver waits for, if it does; follows on "waiting for".
    """

    cells: int
    cells_done: int
    cells_this_run: int = 0
    fits: int = 0
    failed: int = 0
    workers: int = 0
    units: int = 0
    in_flight: int = 0
    seconds: float = 0.0
    note: str = ""

"""When the job of a worker ends, on a clock that nobody sets while it runs."""

from __future__ import annotations

import math
import os
import time

VARIABLE = "HPC_SWEEP_JOB_END"
"""Environment variable that a worker job's script sets: seconds since 1970, or empty."""

STEADY = "HPC_SWEEP_JOB_END_MONOTONIC"
"""The same on this machine's `time.monotonic`; empty where the end is not known."""


def fix() -> None:
    """Note the job's end for this process and those that it starts, whatever clocks do later.

    Where the job seems to be over at its very start, the clocks of queue and machine differ, and
    its end is not known: the queue itself ends it.
    """
    try:
        left = float(os.environ.get(VARIABLE, "")) - time.time()
    except ValueError:
        left = 0.0
    os.environ[STEADY] = str(time.monotonic() + left) if left > 0 else ""


def seconds_left() -> float:
    """Return the seconds until the job ends; infinite where that is not known."""
    try:
        return float(os.environ.get(STEADY, "")) - time.monotonic()
    except ValueError:
        return math.inf

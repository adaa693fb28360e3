"""A time of day that nobody sets: it goes on evenly from what it was when the process began."""

from __future__ import annotations

import time

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""While a machine sleeps it goes on, where the system has such a clock."""

EPOCH_S = time.time() - time.clock_gettime(CLOCK)
"""The time of day when that clock was 0."""


def now() -> float:
    """Return seconds since 1970; a process and those that are forked from it agree."""
    return EPOCH_S + time.clock_gettime(CLOCK)

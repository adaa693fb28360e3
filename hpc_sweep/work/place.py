"""What a guarded process is doing, in memory that the process that guards it reads too.

The memory outlives a crash, and a fit is noted in a microsecond, which a pipe would not allow.
"""

from __future__ import annotations

import math
import struct
import time
from dataclasses import dataclass
from typing import Any

STARTS, READS, SPLITS, FITS, SHARES, REFITS = range(6)
"""Kinds of what may be going on."""

_FORM = struct.Struct("dqqqqqQq")

SIZE = _FORM.size


@dataclass(frozen=True)
class Place:
    """What is going on.

    Attributes
    ----------
    since : float
        When it began, by `time.monotonic`, which all processes have in common; inf where it
        may take as long as it takes.
    kind : int
        `STARTS`, `READS`, `SPLITS`, `FITS` (a candidate alone), `SHARES` or `REFITS`.
    position, count : int
        Partitions, by their position in the result chunk; the first one, and how many.
    number : int
        Of the request.
    candidate : int
        Its token.
    column : int
        The split.
    batch : int
        How many partitions are evaluated together.
    """

    since: float = math.inf
    kind: int = STARTS
    position: int = 0
    count: int = 0
    batch: int = 0
    number: int = 0
    candidate: int = 0
    column: int = 0


class Board:
    """Where a place is written and read.

    Parameters
    ----------
    memory : object with the buffer interface
        Of `SIZE` bytes, shared.
    """

    def __init__(self, memory: Any) -> None:
        self._memory = memoryview(memory).cast("B")

    def write(
        self,
        kind: int,
        position: int = 0,
        count: int = 0,
        batch: int = 0,
        number: int = 0,
        candidate: int = 0,
        column: int = 0,
    ) -> None:
        """Note what begins now; only fits, shared or not, have a time."""
        since = time.monotonic() if kind in (FITS, SHARES, REFITS) else math.inf
        # who dies between these lines was doing nothing that takes long
        what = (kind, position, count, batch, number, candidate, column)
        _FORM.pack_into(self._memory, 0, math.inf, *what)
        struct.pack_into("d", self._memory, 0, since)

    def read(self) -> Place:
        """Return what was noted last."""
        return Place(*_FORM.unpack_from(self._memory))

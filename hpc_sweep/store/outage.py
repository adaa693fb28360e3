"""An outage of the disk: work pauses, the disk is tried again, and patience ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hpc_sweep.errors import DiskError

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


@dataclass
class Outage:
    """Whether the disk refuses to work.

    It begins with what a task was refused. After a pause, longer each time, the disk is
    probed; when that passes, work goes on for trial. It is over when some work was done.

    Parameters
    ----------
    probe : callable
        Raises `DiskError` when the disk refuses.
    patience_s : float
        How long it may last.
    clock : callable
        Seconds.

    Attributes
    ----------
    error : DiskError or None
        What the disk said last; None when all is well.
    note : str
        What is waited for, by what the disk said first: many tasks meet it, each at its own file.
    """

    probe: Callable[[], None]
    patience_s: float
    clock: Callable[[], float] = time.monotonic
    error: DiskError | None = None
    note: str = ""
    _since: float = 0.0
    _next: float = 0.0
    _pause: float = 0.0
    _trial: bool = False

    def begin(self, error: DiskError) -> bool:
        """Note that the disk refused; return whether it is the first time."""
        now = self.clock()
        first = self.error is None
        if first:
            self._since, self._pause = now, FIRST_PAUSE_S / 2
            self.note = f"the disk to work again: {str(error.strerror).partition('; ')[0]}"
        if first or self._trial or now >= self._next:  # else one of many at the same time
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
            self._next = now + self._pause
        self.error, self._trial = error, False
        return first

    def lasts(self) -> bool:
        """Return whether to do nothing now; probes the disk when it is time.

        Raises
        ------
        DiskError
            When patience is at its end.
        """
        if self.error is None or self._trial:
            return False
        now = self.clock()
        if now - self._since >= self.patience_s:
            raise DiskError(
                self.error.errno,
                f"{self.error.strerror} (waited {self.patience_s:g} s for the disk, "
                "cluster.disk_patience)",
            )
        if now < self._next:
            return True
        try:
            self.probe()
        except DiskError as error:
            self.begin(error)
            return True
        self._trial = True
        return False

    def worked(self) -> bool:
        """Note that work was done; return whether that ends an outage.

        Any work does: one node whose mount is stale must not end a run that others go on with.
        """
        ended = self.error is not None
        self.error, self._trial = None, False
        return ended

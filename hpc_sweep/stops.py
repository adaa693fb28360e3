"""Why a driver begins nothing more: a signal, or the end of the job that it is in."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from hpc_sweep.clusters import Ending

TERM_S = 8.0
"""How long after SIGTERM or SIGHUP: SIGKILL comes 10 s after it on PBS, 30 s on Slurm."""

CLOSE_S = 4.0
"""How long before its end a driver stops in any case, to close its cluster."""


class Stops:
    """Whether to stop at once, and whether to drain: hand out nothing, finish what flies.

    Parameters
    ----------
    ending : Ending
        When the process has to be done.
    """

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self._stop = threading.Event()
        self._drain = threading.Event()

    def stopped(self) -> bool:
        """Return whether to stop at once."""
        return self._stop.is_set() or self.ending.left_s() < CLOSE_S

    def draining(self) -> bool:
        """Return whether to begin nothing more."""
        return self._drain.is_set() or self.ending.left_s() < self.ending.reserve_s

    def out_of_time(self) -> bool:
        """Return whether it is the end of the job that is near, and no signal came."""
        told = self._stop.is_set() or self._drain.is_set()
        return not told and self.ending.left_s() < self.ending.reserve_s

    def unit_seconds(self, most: float) -> float:
        """Return how long a unit may take so that it ends while the driver drains."""
        return min(most, self.ending.reserve_s / 2)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Act on signals: SIGINT stops, SIGUSR1 drains, SIGTERM and SIGHUP drain for `TERM_S`.

        A second signal of the same kind acts as it did before. What ``nohup`` ignores stays so.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}

        def note(number: int, frame: object) -> None:
            if number == signal.SIGINT:
                self._stop.set()
            else:
                self._drain.set()
            if number in (signal.SIGTERM, signal.SIGHUP):
                self.ending.within(TERM_S)
            if number != signal.SIGUSR1:
                signal.signal(number, before[signal.Signals(number)])

        for number in numbers:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

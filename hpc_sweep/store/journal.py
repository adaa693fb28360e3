"""The event log of the run folder: one JSON object a line, times in UTC.

The times of one process go on evenly from the time of day at its start, even where that is set
meanwhile: rates, core-hours and charges are differences of them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hpc_sweep import steady
from hpc_sweep.errors import disk_errors

MOST_KEPT_BYTES = 1_000_000
"""Lines that a disk refused are kept up to here; later ones are lost."""


class Journal:
    """Appends events to a file.

    Parameters
    ----------
    path : Path
        ``events.jsonl`` of a run folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = False
        self._kept = b""
        self._together = 0
        self._lock = threading.Lock()

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with its facts (JSON values).

        A disk that refuses never ends the run: the line is kept until the next one.
        """
        moment = steady.now()
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        line = {"time": f"{clock}.{int(moment % 1 * 1000):03d}Z", "event": event, **facts}
        with self._lock:
            if len(self._kept) < MOST_KEPT_BYTES:
                self._kept += json.dumps(line).encode() + b"\n"
            if not self._together:
                self._append()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Keep what is written inside, and append it at the end: one visit to a shared disk."""
        with self._lock:
            self._together += 1
        try:
            yield
        finally:
            with self._lock:
                self._together -= 1
                if self._kept and not self._together:
                    self._append()

    def _append(self) -> None:
        whole, self._whole = self._whole, False
        with contextlib.suppress(OSError):
            with self.path.open("ab+") as file:
                file.write(self._kept if whole else gap(file) + self._kept)
            self._whole, self._kept = True, b""


def gap(file: IO[bytes]) -> bytes:
    """Return a line's end where a kill or a full disk left the last line without one."""
    if file.tell() == 0:
        return b""
    file.seek(-1, 2)
    return b"" if file.read(1) == b"\n" else b"\n"


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a log; a line that a kill cut short, or that is none, is passed over."""
    with (
        contextlib.suppress(FileNotFoundError),
        disk_errors(path, "read"),
        path.open(encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            event = event_of(line)
            if event is not None:
                yield event


def event_of(line: str | bytes) -> dict[str, Any] | None:
    """Return the event that a line of a log is; None where it is none, or damaged."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and {"time", "event"} <= event.keys() else None

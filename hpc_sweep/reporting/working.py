"""When workers worked, by the event logs of the run folder."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.store import read_events

FEWEST_BINS, MOST_BINS, BIN_S = 24, 160, 2.0
"""Running time is cut into so many pieces, of at the least so many seconds if there are many."""

PER_UNIT = frozenset({"unit_started", "unit_done", "chunk_folded"})


@dataclass(frozen=True)
class Working:
    """How workers were used; the time between runs is left out.

    Attributes
    ----------
    edges : ndarray of float64, shape (n_bins + 1,)
        Seconds of running.
    busy, there : ndarray of float64, shape (n_bins,)
        Workers at work, and workers.
    runs : int
        How many runs there were.
    units : int
        Units that were finished.
    lost : int
        Units whose worker was lost meanwhile.
    last : str
        Time of the last event.
    """

    edges: NDArray[np.float64]
    busy: NDArray[np.float64]
    there: NDArray[np.float64]
    runs: int
    units: int
    lost: int
    last: str

    @property
    def seconds(self) -> float:
        """Of running, all runs together."""
        return float(self.edges[-1])

    @property
    def share(self) -> float:
        """Which part of the workers' time was work; NaN where there were none."""
        there = float(self.there.sum())
        return min(1.0, float(self.busy.sum()) / there) if there else float("nan")


def working(run: Path) -> Working | None:
    """Return how workers were used in all runs of a sweep; None where no log tells.

    Logs of several drivers at once are laid over each other.

    Parameters
    ----------
    run : Path
        The run folder.
    """
    logs = sorted(run.glob("events*.jsonl"))
    spans = _spans(logs)
    whole = sum(stop - start for start, stop in spans)
    if whole <= 0:
        return None
    bins = int(min(MOST_BINS, max(FEWEST_BINS, whole / BIN_S)))
    edges = np.linspace(0, whole, bins + 1)
    busy, there = np.zeros(bins), np.zeros(bins)
    units = lost = 0
    last = ""
    for log in logs:
        workers, since = 0, None
        for event in read_events(log):
            now, kind = _seconds(event), event.get("event")
            if now is None:
                continue
            last = max(last, str(event["time"]))
            at = _along(spans, now)
            if since is not None:
                _add(there, edges, since, at, workers)
            since = at
            if kind in ("run_started", "run_ended"):
                workers = 0
            elif kind not in PER_UNIT and isinstance(event.get("workers"), int):
                workers = event["workers"]
            elif kind == "unit_done":
                units += 1
                seconds = event.get("seconds")
                if isinstance(seconds, (int, float)):
                    _add(busy, edges, max(0.0, at - seconds), at, 1)
            lost += kind == "unit_lost"
    width = whole / bins
    return Working(edges, busy / width, there / width, len(spans), units, lost, last)


def _spans(logs: list[Path]) -> list[tuple[float, float]]:
    """Return begin and end of each time in which any driver ran."""
    spans: list[list[float]] = []
    for log in logs:
        inside = False
        for event in read_events(log):
            now, kind = _seconds(event), event.get("event")
            if now is None:
                continue
            if kind == "run_started":
                spans.append([now, now])
                inside = True
            elif inside:
                spans[-1][1] = max(spans[-1][1], now)
                inside = kind != "run_ended"
    return list(_united(sorted((a, b) for a, b in spans)))


def _united(spans: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield spans with those that overlap made one."""
    held: tuple[float, float] | None = None
    for start, stop in spans:
        if held is not None and start <= held[1]:
            held = (held[0], max(held[1], stop))
            continue
        if held is not None:
            yield held
        held = (start, stop)
    if held is not None:
        yield held


def _along(spans: list[tuple[float, float]], now: float) -> float:
    """Return seconds of running up to a moment."""
    return sum(min(stop, max(start, now)) - start for start, stop in spans)


def _add(
    counts: NDArray[np.float64],
    edges: NDArray[np.float64],
    start: float,
    stop: float,
    weight: float,
) -> None:
    """Add worker-seconds to the pieces of time that they fall into."""
    if stop <= start or not weight:
        return
    first = max(0, int(np.searchsorted(edges, start, "right")) - 1)
    last = min(len(counts), int(np.searchsorted(edges, stop, "left")))
    inside = slice(first, last)
    shared = np.minimum(edges[first + 1 : last + 1], stop) - np.maximum(edges[inside], start)
    counts[inside] += weight * np.maximum(shared, 0)


def _seconds(event: dict[str, Any]) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(event.get("time"))).timestamp()
    except ValueError:
        return None

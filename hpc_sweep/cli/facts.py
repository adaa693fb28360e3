"""How far a sweep is, in words: what a terminal, a batch log and ``status --watch`` show alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_sweep.drive import Progress

PHASES = {
    "": "reading spec, data and store",
    "starting": "starting the cluster",
    "copying": "copying data into another layout",
    "fitting": "fitting",
    "predicting": "predicting",
    "closing": "closing the cluster",
}

AT_WORK = ("copying", "fitting", "predicting", "closing")
"""Phases in which there is something to count."""


def is_waiting(progress: Progress) -> bool:
    """Return whether nothing goes on until something comes."""
    at_work = progress.phase in ("copying", "fitting", "predicting")
    return at_work and bool(progress.note or not progress.workers)


def doing(progress: Progress) -> str:
    """Return what goes on: the phase, or what is waited for."""
    if is_waiting(progress):
        return f"waiting for {progress.note or 'workers'}"
    if progress.draining and progress.phase in ("fitting", "predicting"):
        return "ending when the units in hand are done"
    if progress.phase == "fitting" and progress.cells_done >= progress.cells:
        return "writing the last result chunks"
    return progress.step or PHASES.get(progress.phase, progress.phase)


def done_text(progress: Progress) -> str:
    """Return how much is done of how much."""
    if progress.phase == "copying":
        from hpc_sweep.plan import format_bytes

        copied = progress.size_bytes * progress.share_done
        return (
            f"{format_bytes(int(copied))} of {format_bytes(progress.size_bytes)}, "
            f"{progress.cells_done:,} of {progress.cells:,} slabs"
        )
    text = f"{progress.all_fits_done:,} of {progress.all_fits:,} {_fits(progress)}"
    if progress.chunks_per_cell:
        text += f" in {progress.chunks_folded:,} of {counted(progress.chunks, 'chunk')}"
    return text


def _fits(progress: Progress) -> str:
    """Return what is counted."""
    return "slabs" if progress.phase == "copying" else progress.counts


def rate_text(progress: Progress) -> str:
    """Return the pace of late, or ``""`` while it is not known."""
    rate = progress.fits_per_second
    if rate is None:
        return ""
    return pace_text(rate, _fits(progress))


def pace_text(per_second: float, what: str) -> str:
    """Return ``700 fits/s``, or ``12.5 fits/min`` where it is slow."""
    if per_second >= 10:
        return f"{per_second:,.0f} {what}/s"
    return f"{per_second * 60:.3g} {what}/min"


def left_text(progress: Progress) -> str:
    """Return how long the rest takes, or ``""`` while that is not known."""
    if progress.left_s is None or progress.draining or progress.phase == "closing":
        return ""
    return f"about {rounded(progress.left_s)} left"


def units_text(progress: Progress) -> str:
    """Return units of this run."""
    hand = f", {progress.in_flight:,} in hand" if progress.in_flight else ""
    return f"{counted(progress.units, 'unit')} done{hand}"


def workers_text(progress: Progress) -> str:
    """Return workers: there, to come, gone."""
    text = counted(progress.workers, "worker")
    more = [
        f"{count:,} {what}"
        for count, what in ((progress.workers_pending, "pending"), (progress.workers_lost, "lost"))
        if count
    ]
    return f"{text} ({', '.join(more)})" if more else text


def failures_text(progress: Progress) -> str:
    """Return failures of this run and their most frequent reason, or ``""``."""
    if not progress.failed:
        return ""
    what = "candidate" if progress.counts == "fits" else "prediction"
    text = f"{counted(progress.failed, what)} failed"
    if progress.reasons:
        ((reason, count),) = progress.reasons.most_common(1)
        text += f": {reason}" if count == progress.failed else f", {count:,} of them: {reason}"
    return text


def line(progress: Progress) -> str:
    """Return all of it in one plain line."""
    if progress.phase not in AT_WORK:
        return doing(progress)
    texts = [f"{progress.share_done:.1%} done", done_text(progress)]
    if not is_waiting(progress):
        texts += [rate_text(progress), left_text(progress)]
    texts += [units_text(progress), workers_text(progress), failures_text(progress)]
    return f"{doing(progress)}: " + _joined(texts)


def last_line(progress: Progress) -> str:
    """Return what is to be said of a run that ended before its end, or ``""``."""
    if progress.phase not in AT_WORK or progress.cells_done >= progress.cells:
        return ""
    units = f"{counted(progress.units, 'unit')} in this run"
    texts = [f"{progress.share_done:.1%} done", done_text(progress), units]
    return "so far: " + _joined([*texts, failures_text(progress)])


def _joined(texts: Sequence[str]) -> str:
    return ", ".join(text for text in texts if text)


def counted(count: int, noun: str) -> str:
    """Return ``1 worker`` or ``2 workers``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """Return ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rounded(seconds: float) -> str:
    """Return a guessed time with no more figures than a guess has: ``2 h 10 min``, ``40 s``."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(10 * round(minutes / 10), 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(hours / 24)} days"

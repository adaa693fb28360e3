"""Progress: a bar on a terminal, one plain line every half minute elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from hpc_sweep.drive import Progress

LINE_EVERY_S = 30.0


class Shown(Protocol):
    """Where progress is shown."""

    def update(self, progress: Progress) -> None:
        """Show how far the run is."""

    def say(self, text: str) -> None:
        """Show a message."""


@contextlib.contextmanager
def show_progress() -> Iterator[Shown]:
    """Show progress while the context lasts, as suits where it goes."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.stop()


class Lines:
    """One plain line every half minute, for batch logs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._note = ""

    def update(self, progress: Progress) -> None:
        """Print a line when one is due, or when the driver begins to wait."""
        now = self._clock()
        waits = progress.note != self._note and progress.note
        self._note = progress.note
        if waits:
            self.say(f"waiting for {progress.note}")
        elif now - self._last >= LINE_EVERY_S:
            self._last = now
            self.say(describe(progress))

    def say(self, text: str) -> None:
        """Print a message with the time of day."""
        click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


class Bar:
    """A bar with the time left, on a terminal; appears with the first worker's work."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._rich.add_task("starting", total=None, facts="")

    def update(self, progress: Progress) -> None:
        """Move the bar."""
        self._rich.start()
        working = progress.workers and not progress.note
        self._rich.update(
            self._task,
            description="sweeping" if working else "waiting for",
            total=progress.cells,
            completed=progress.cells_done,
            facts=facts(progress) if working else progress.note or "workers",
        )

    def say(self, text: str) -> None:
        """Print a message above the bar."""
        self._rich.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        """Take the bar away."""
        self._rich.stop()


def facts(progress: Progress) -> str:
    """Return rate, time left, workers and failures in short."""
    rate = progress.fits / progress.seconds if progress.seconds else 0.0
    done = progress.cells_done / progress.cells if progress.cells else 1.0
    parts = [f"{rate:,.0f} fits/s"]
    if progress.fits and done < 1:
        per_fit = (progress.cells - progress.cells_done) * fits_per_cell(progress)
        parts.append(f"{duration(per_fit / rate)} left")
    parts.append(f"{progress.workers} workers")
    if progress.failed:
        parts.append(f"{progress.failed:,} candidates failed")
    return ", ".join(parts)


def fits_per_cell(progress: Progress) -> float:
    """Return fits per (partition, candidate) as seen in this run."""
    return progress.fits / progress.cells_this_run if progress.cells_this_run else 0.0


def describe(progress: Progress) -> str:
    """Return one plain line."""
    if not progress.workers:
        return "no workers yet"
    share = progress.cells_done / progress.cells if progress.cells else 1.0
    return f"{share:.1%} done, {facts(progress)}"


def duration(seconds: float) -> str:
    """Return ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

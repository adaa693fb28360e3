"""Progress: a few lines on a terminal, one plain line every half minute elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol

import click

from hpc_sweep.cli import facts
from hpc_sweep.cli.facts import duration

if TYPE_CHECKING:
    from rich.text import Text

    from hpc_sweep.drive import Progress

__all__ = ["Display", "Lines", "Quiet", "Shown", "duration", "show_progress"]

LINE_EVERY_S = 30.0
WAITING_LINE_EVERY_S = 600.0
"""While it is waited for the same thing."""

DRAWN_PER_SECOND = 4
BAR_WIDTH = 40
MOST_ROWS_DOING = 4
"""For the queue's words."""


class Shown(Protocol):
    """Where progress is shown."""

    def update(self, progress: Progress) -> None:
        """Show how far the run is."""

    def say(self, text: str) -> None:
        """Show a message."""

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """Context in which others may write to the terminal."""

    def end(self) -> None:
        """Show the last of it, and nothing more."""


@contextlib.contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Shown]:
    """Show progress while the context lasts, as suits where it goes."""
    shown = Quiet() if quiet else Display() if is_terminal() else Lines()
    try:
        yield shown
    finally:
        shown.end()


def is_terminal(stream: IO[str] | None = None) -> bool:
    """Return whether lines can be drawn over on a stream, the standard error if none is given."""
    return (stream or sys.stderr).isatty() and os.environ.get("TERM", "dumb") not in (
        "dumb",
        "unknown",
    )


class Quiet:
    """Messages only."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Print a message with date and time."""
        click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", err=True)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Context in which others may write."""
        yield

    def end(self) -> None:
        """Show nothing."""


class Lines(Quiet):
    """One plain line every half minute, for batch logs; the first and the last one always."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at = float("-inf")
        self._said = ""
        self._phase = ""
        self._line = ""

    def update(self, progress: Progress) -> None:
        """Print a line when one is due, or when something else begins."""
        doing, self._line = facts.doing(progress), facts.line(progress)
        waits = facts.is_waiting(progress) and doing == self._said
        every = WAITING_LINE_EVERY_S if waits else LINE_EVERY_S
        steps = bool(progress.step) and progress.phase == self._phase
        if not (doing == self._said or steps) or self._clock() - self._said_at >= every:
            self._say_line(doing)
            self._phase = progress.phase

    def _say_line(self, doing: str) -> None:
        self._said_at, self._said = self._clock(), doing
        self.say(self._line)
        self._line = ""

    def end(self) -> None:
        """Print the last line, unless it is there."""
        if self._line:
            self._say_line("")


def steady_console(**options: Any) -> Any:
    """Return a console of rich's that does not hide the cursor."""
    from rich.console import Console

    class Steady(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False

    return Steady(**options)


class Display:
    """Lines on a terminal that are drawn over; what is said scrolls by above them.

    Nothing of the terminal's state is changed, the cursor is left where it is seen: whatever ends
    the process, the terminal is as it was.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to draw, in place of the standard error.
    """

    def __init__(self, console: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._doing = facts.PHASES[""]
        self._texts: Sequence[str] = ()
        self._name = ""
        self._share: float | None = None
        self._left = self._last = ""
        self._drawn: tuple[int, list[int]] = 0, []
        self._console = console or steady_console(stderr=True)
        self._live = self._started()

    def _started(self) -> Any:
        """Return lines that are drawn from now on."""
        from rich.live import Live

        class Redrawn(Live):
            def refresh(live) -> None:  # noqa: N805
                self._allow_for_narrower(live)
                super().refresh()

        self._drawn = 0, []
        live = Redrawn(
            get_renderable=self._render,
            console=self._console,
            transient=True,
            redirect_stdout=False,
            refresh_per_second=DRAWN_PER_SECOND,
        )
        live.start()
        return live

    def update(self, progress: Progress) -> None:
        """Take down what is to be shown: the driver goes on changing it."""
        self._name = progress.name
        self._doing = facts.doing(progress)
        at_work = progress.phase in facts.AT_WORK
        self._began = min(self._began, self._clock() - progress.seconds)
        self._share = progress.share_done if at_work else None
        self._left = "" if facts.is_waiting(progress) else facts.left_text(progress)
        waits = facts.is_waiting(progress)
        rate = "" if waits else facts.rate_text(progress)
        texts = [
            ", ".join(text for text in (facts.done_text(progress), rate) if text),
            f"{facts.workers_text(progress)}; {facts.units_text(progress)}",
            facts.failures_text(progress),
        ]
        self._texts = texts if at_work else []
        self._last = facts.last_line(progress)

    def say(self, text: str) -> None:
        """Print a message above the lines."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Context in which the lines are away."""
        self._live.stop()
        try:
            yield
        finally:
            self._live = self._started()

    def end(self) -> None:
        """Take the lines away; of a run that did not come to its end one line stays."""
        self._live.stop()
        if self._last:
            self.say(self._last)
            self._last = ""

    def _render(self) -> Any:
        """Return the lines, none broader than the terminal, and the cursor's line below them."""
        from rich.console import Group
        from rich.text import Text

        width = self._console.width
        doing = textwrap.wrap(self._doing, width - 1, max_lines=MOST_ROWS_DOING, placeholder="…")
        lines = [self._headline(), *(Text(text) for text in (*doing, *self._texts) if text)]
        for line in lines:
            line.truncate(width - 1, overflow="ellipsis")
        self._drawn = width, [line.cell_len for line in lines]
        return Group(*lines, "")

    def _headline(self) -> Text:
        """Return name, bar, share, time left and time since the beginning."""
        from rich.text import Text

        ended = [self._left, duration(self._clock() - self._began)]
        if self._share is not None:
            ended.insert(0, f"{self._share:.1%}")
        end = "  ".join(text for text in ended if text)
        name = Text(self._name, style="bold")
        name.truncate(24, overflow="ellipsis")
        line = name + Text("  " if self._name else "")
        if self._share is not None:
            room = self._console.width - 3 - name.cell_len - 2 - len(end)
            line += self._bar(min(BAR_WIDTH, room)) + Text("  ")
        return line + Text(end)

    def _bar(self, width: int) -> Text:
        from rich.text import Text

        full, empty = "━─" if self._console.encoding.startswith("utf") else "#-"
        count = int(max(0, width) * (self._share or 0.0))
        return Text(full * count, style="green") + Text(empty * (width - count), style="dim")

    def _allow_for_narrower(self, live: Any) -> None:
        """Let rows be taken back that a terminal has made of lines when it became narrower."""
        width, lengths = self._drawn
        now = self._console.width
        shape = getattr(live._live_render, "_shape", None)
        if shape is None or now >= width:
            return
        rows = sum(max(1, -(-length // now)) for length in lengths) + 1
        live._live_render._shape = (shape[0], rows)

"""``hpc-sweep status --watch``: what goes on elsewhere, from another terminal or machine."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from hpc_sweep.cli import facts
from hpc_sweep.cli.progress import Display, is_terminal, steady_console
from hpc_sweep.errors import EXIT_INTERRUPTED, EXIT_OK

if TYPE_CHECKING:
    from hpc_sweep.watching import Seen

ON_TERMINAL_S = 2.0
ELSEWHERE_S = 30.0


def follow(store: str, every_s: float | None, *, as_json_lines: bool) -> int:
    """Show how far it is until it has ended, and return the exit code.

    Parameters
    ----------
    store : str
        The store.
    every_s : float or None
        Seconds between looks.
    as_json_lines : bool
        Whether to print JSON.
    """
    from hpc_sweep.cli.status import seen_text
    from hpc_sweep.watching import watch

    draws = is_terminal(sys.stdout) and not as_json_lines
    display = Display(steady_console()) if draws else None

    def show(seen: Seen) -> None:
        if display is not None:
            display.update(seen.progress)
        elif as_json_lines:
            click.echo(json.dumps(seen.facts()))
        elif not seen.has_ended:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            click.echo(f"{now} {facts.line(seen.progress)}")

    try:
        last = watch(store, show, every_s or (ON_TERMINAL_S if draws else ELSEWHERE_S))
    except KeyboardInterrupt:
        click.echo("not watched any more; what goes on there goes on", err=True)
        return EXIT_INTERRUPTED
    finally:
        if display is not None:
            display.end()
    if not as_json_lines and last.status is not None:
        click.echo(seen_text(last))
    return EXIT_OK if last.state == "complete" else EXIT_INTERRUPTED

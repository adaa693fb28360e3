"""Following a sweep from outside: for another terminal, another machine, a notebook."""

from hpc_sweep.watching.following import ASK_EVERY_S, SILENT_S, Seen, Watching, watch

__all__ = ["ASK_EVERY_S", "SILENT_S", "Seen", "Watching", "watch"]

"""How far a sweep or a prediction is, seen from another terminal, another machine, a notebook."""

from hpc_sweep.watching.following import ASK_EVERY_S, SILENT_S, Seen, Watching, look_once, watch
from hpc_sweep.watching.standing import Standing, Work, standing_of

__all__ = [
    "ASK_EVERY_S",
    "SILENT_S",
    "Seen",
    "Standing",
    "Watching",
    "Work",
    "look_once",
    "standing_of",
    "watch",
]

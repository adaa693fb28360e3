"""Dask's clock, which is the time of day: where that is set back, Dask waits until it catches up.

A message that is due then is not sent, and no heartbeat, for as long as the clock went back
(`distributed.batched`, Tornado's ``IOLoop.call_at``); set ahead, workers seem to have been silent.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import distributed.batched  # noqa: F401, it and those that it imports are meant
from tornado.ioloop import IOLoop

from hpc_sweep import steady


def keep_time() -> None:
    """Let Dask and Tornado, in this process and those forked from it, go by `steady.now`."""
    loop: Any = IOLoop
    loop.time = lambda self: steady.now()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "distributed" and vars(module).get("time") is time.time:
            vars(module)["time"] = _now


def _now() -> float:
    return steady.now()


_now.__name__ = time.time.__name__  # pages of Dask's dashboard call it by that

"""What the user's ``jobqueue.yaml`` says, and dask-jobqueue imported without its habits."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import dask


def configured(kind: str, key: str) -> Any:
    """Return what ``jobqueue.yaml`` says for a kind of queue, or None."""
    with keeping_sigint():
        import dask_jobqueue.config  # noqa: F401  (reads jobqueue.yaml)

    return dask.config.get(f"jobqueue.{kind}.{key}", None)


@contextlib.contextmanager
def keeping_sigint() -> Iterator[None]:
    """Put the SIGINT handler back that importing dask-jobqueue replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)

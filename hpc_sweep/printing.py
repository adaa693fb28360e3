"""Printing where it cannot be: a log on a full disk, a terminal or a reader that went away."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class _Lasting(io.RawIOBase):
    """Writes to a file of the operating system; what it refuses is lost."""

    refused: OSError | None = None

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: Any) -> int | None:
        try:
            return self._raw.write(data)
        except BrokenPipeError:  # nobody reads any more
            return len(data)
        except OSError as error:
            self.refused = error
            return len(data)


def keep_printing() -> None:
    """Let nothing that this process, or one forked from it, prints be refused."""
    for name in ("stdout", "stderr"):
        _replace(name)


@contextlib.contextmanager
def lasting(name: str) -> Iterator[None]:
    """Context in which nothing that is printed is refused; at its end it is told what was lost.

    Parameters
    ----------
    name : {'stdout', 'stderr'}
        The answer of a command may be what it prints; `stdout` lasts only where that is a store.
    """
    stream = getattr(sys, name)
    under = _replace(name)
    try:
        yield
    finally:
        getattr(sys, name).flush()
        setattr(sys, name, stream)
        if under is not None and under.refused is not None and name == "stdout":
            reason = under.refused.strerror or under.refused
            sys.stderr.write(f"note: some of what was to be printed is lost: {reason}\n")


def drop_refused() -> None:
    """Write nothing more of what `stdout` refused: the interpreter would try it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _replace(name: str) -> _Lasting | None:
    """Replace a stream of `sys`, unless it is somebody's own, in memory."""
    stream = getattr(sys, name)
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # itself with PYTHONUNBUFFERED
    if not isinstance(raw, io.FileIO):
        return None
    with contextlib.suppress(OSError):
        stream.flush()
    under = _Lasting(raw)
    buffered = io.BufferedWriter(under)
    setattr(sys, name, io.TextIOWrapper(buffered, stream.encoding, stream.errors, None, True))
    return under

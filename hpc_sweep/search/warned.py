"""What fits warn of, kept to be told as a message or shown later."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from hpc_sweep.search.results import brief

Show = Callable[..., Any]
"""A function like `warnings.showwarning`."""

SHOWN_AGAIN = ("default", "module", "once")
"""What filters show at the first time only."""


class Warned(str):
    """A warning, as a message of one line."""

    _given: tuple[Any, ...] = ()

    @classmethod
    def of(cls, message: Any, category: type[Warning], *place: Any) -> Warned:
        """Return what `warnings.showwarning` was given, as a message."""
        made = cls(brief(category.__name__, message))
        made._given = (message, category, *place)
        return made

    def show(self) -> None:
        """Show it as Python does."""
        warnings.showwarning(*self._given)


class _Recorder:
    """Keeps what one thread warns of, as long as it is open; all else is shown as before.

    Other threads may save `warnings.showwarning` while it is this, and put it back any time later.
    """

    def __init__(self, texts: list[str], before: Show) -> None:
        while isinstance(before, _Recorder) and not before.is_open:
            before = before._before
        self._texts = texts
        self._before: Show = before
        self._thread = threading.get_ident()
        self.is_open: bool = True

    def __call__(
        self, message: Any, category: Any, filename: str, lineno: int, *more: Any, **named: Any
    ) -> None:
        if self.is_open and threading.get_ident() == self._thread:
            self._texts.append(Warned.of(message, category, filename, lineno))
        else:
            self._before(message, category, filename, lineno, *more, **named)


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    """Record what this thread warns of, and the filters let through.

    In the main thread filters that show a warning once let it through each time.
    """
    with warnings.catch_warnings():
        if threading.current_thread() is threading.main_thread():
            filters: list[Any] = list(warnings.filters)
            warnings.simplefilter("always")
            warnings.filters[:0] = [  # type: ignore[index]
                ("always" if action in SHOWN_AGAIN else action, *which)
                for action, *which in filters
            ]
        with _open_recorder() as texts:
            yield texts


@contextlib.contextmanager
def recorded_once() -> Iterator[list[str]]:
    """Record what this thread warns of, each once, and nothing that comes once a process.

    Lazy imports and the garbage collector warn at times that have nothing to do with the candidate.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("ignore", ResourceWarning)
        with _open_recorder() as texts:
            yield texts


class _Logged(logging.Handler):
    """Makes a warning of what one thread logs as one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Warn, where it is of that thread."""
        if threading.get_ident() == self._thread:
            warnings.warn(record.getMessage(), UserWarning, stacklevel=2)


@contextlib.contextmanager
def logged_as_warnings(library: str) -> Iterator[None]:
    """Take what a library logs as a warning in this thread for one; some have no other way."""
    logger, handler = logging.getLogger(library), _Logged()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def _open_recorder() -> Iterator[list[str]]:
    """Record this thread's warnings; to be entered where `warnings.showwarning` is put back."""
    texts: list[str] = []
    recorder = _Recorder(texts, warnings.showwarning)
    warnings.showwarning = recorder
    try:
        yield texts
    finally:
        recorder.is_open = False

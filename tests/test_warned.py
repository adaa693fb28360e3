"""Warnings are recorded by thread, and whoever showed them before shows them afterwards."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from hpc_sweep.search.warned import Warned, logged_as_warnings, recorded, recorded_once


@pytest.fixture
def shown() -> Iterator[list[str]]:
    """Return what is shown while the test runs."""
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: texts.append(str(message))
        yield texts


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    warnings.warn(text, category, stacklevel=1)


@pytest.mark.parametrize("recording", [recorded, recorded_once])
def test_what_is_recorded_is_not_shown_until_it_is_asked_for(
    shown: list[str], recording: Any
) -> None:
    with recording() as texts:
        warn("inside")
    assert shown == []
    assert texts == ["UserWarning: inside"]
    assert isinstance(texts[0], Warned)
    texts[0].show()
    warn("after")
    assert shown == ["inside", "after"]


def test_other_threads_are_not_recorded(shown: list[str]) -> None:
    with recorded() as texts:
        other = threading.Thread(target=warn, args=("from another",))
        other.start()
        other.join()
    assert texts == []
    assert shown == ["from another"]


def test_a_recorder_that_is_put_back_too_late_records_nothing(shown: list[str]) -> None:
    """As `warnings.catch_warnings` of another thread may do, any number of times."""
    late = warnings.showwarning
    for _ in range(2000):
        warnings.showwarning = late
        with recorded() as texts:
            late = warnings.showwarning
    warnings.showwarning = late
    warn("late")
    assert texts == []
    assert shown == ["late"]


def test_what_filters_ignore_or_raise_stays_so() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("default", UserWarning)
        with recorded() as texts:
            for _ in range(2):
                warn("often")
            warn("never", FutureWarning)
            with pytest.raises(RuntimeWarning):
                warn("raised", RuntimeWarning)
    assert texts == ["UserWarning: often"] * 2


def test_what_a_library_logs_is_recorded_too(shown: list[str]) -> None:
    """Of this thread only, and only as long as it is asked for."""
    logger = logging.getLogger("some_library.some.module")
    with recorded_once() as texts, logged_as_warnings("some_library"):
        logger.info("all is well")
        logger.warning("found fewer than %d", 3)
        other = threading.Thread(target=logger.warning, args=("from elsewhere",))
        other.start()
        other.join()
    logger.warning("afterwards")
    assert texts == ["UserWarning: found fewer than 3"]
    assert shown == []
    assert not logging.getLogger("some_library").handlers

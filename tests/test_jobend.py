"""The end of a worker's job, on a clock that nobody sets."""

from __future__ import annotations

import math
import time

import pytest

from hpc_sweep import jobend


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what `fix` sets."""
    monkeypatch.setenv(jobend.STEADY, "")


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    now = time.time()
    monkeypatch.setenv(jobend.VARIABLE, str(now + 1000))
    jobend.fix()
    monkeypatch.setattr("time.time", lambda: now + jump)
    assert 900 < jobend.seconds_left() <= 1000


@pytest.mark.parametrize("told", ["", "unknown", "1700000000"])
def test_an_end_that_is_not_known(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    """Where a job seems to be over as it begins, the machine's clock is not the queue's."""
    monkeypatch.setenv(jobend.VARIABLE, told)
    jobend.fix()
    assert jobend.seconds_left() == math.inf

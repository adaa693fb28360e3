"""The end of a worker's job, on a clock that nobody sets."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from hpc_sweep import jobend
from hpc_sweep.drive import Progress
from hpc_sweep.errors import Interrupted
from hpc_sweep.stops import Stops
from hpc_sweep.sweep import told_of_its_end


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


@pytest.mark.parametrize(
    ("left_s", "units", "told", "says"),
    [(20, 0, False, True), (20, 1, False, False), (90, 0, False, False), (20, 0, True, False)],
)
def test_a_job_that_was_too_short_for_a_unit_says_so(
    left_s: float, units: int, told: bool, says: bool
) -> None:
    """Else the same command would be given again and again; not if a unit was done, or told to."""
    ending: Any = SimpleNamespace(left_s=lambda: left_s, reserve_s=60)
    stops, budget, results = (
        Stops(ending),
        SimpleNamespace(is_used_up=lambda: False),
        list[dict[str, str]](),
    )
    if told:
        stops._drain.set()
    known: Any = (Progress(9, 0, units=units), budget, stops, results.append)
    with pytest.raises(Interrupted, match="drained") as raised, told_of_its_end(*known):
        raise Interrupted("drained; the same command goes on from here")
    assert ("cluster.driver.walltime" in str(raised.value)) == says
    assert [end["result"] for end in results] == ["Interrupted"]
    assert ("reason" in results[0]) == says
